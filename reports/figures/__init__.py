"""The figures of the page. A new one is a file beside this one, with a function from findings to drawings, and a line in the list."""

from __future__ import annotations

from collections.abc import Callable

from reports.analysis import Findings
from reports.figures import costs, fastest, matrix, numerics, numerics_length, relative, throughput
from reports.figures.style import Drawing

__all__ = ["FIGURES", "Drawing"]

FIGURES: tuple[tuple[str, Callable[[Findings], list[Drawing]]], ...] = (
    ("conformance", matrix.draw),
    ("numerics", numerics.draw),
    ("numerics", numerics_length.draw),
    ("speed", fastest.draw),
    ("speed", throughput.draw),
    ("speed", relative.draw),
    ("speed", costs.draw),
)
"""Section of the page in which it stands, and the function that draws it."""

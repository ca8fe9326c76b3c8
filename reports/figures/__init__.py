"""The figures of the page. A new one is a file beside this one, whose ``plans`` make plans of findings, and a line in the list."""

from __future__ import annotations

from collections.abc import Callable

from reports.analysis import Findings
from reports.figures import costs, fastest, matrix, numerics, numerics_length, relative, throughput
from reports.figures.style import Drawing, Plan

__all__ = ["FIGURES", "Drawing", "Plan"]

FIGURES: tuple[tuple[str, Callable[[Findings], list[Plan]]], ...] = (
    ("conformance", matrix.plans),
    ("numerics", numerics.plans),
    ("numerics", numerics_length.plans),
    ("speed", fastest.plans),
    ("speed", throughput.plans),
    ("speed", relative.plans),
    ("speed", costs.plans),
)
"""Section of the page in which it stands, and the function that plans it."""

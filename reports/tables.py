"""Small helpers that every reader of a data frame here needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples. Their fields are typed Any: a column's type is stated in reports.columns, not known to a checker."""
    return iter(frame.itertuples())


def counted(number: int, noun: str) -> str:
    """``number`` with thousands set apart, and its noun in the right number."""
    return f"{number:,}".replace(",", "\u202f") + f" {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """``items`` as a sentence has them: ``a, b and c``."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)

"""Two small helpers that every reader of a data frame here needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples. Their fields are typed Any: a column's type is stated in reports.columns, not known to a checker."""
    return iter(frame.itertuples())


def counted(number: int, noun: str) -> str:
    """``number`` with thousands set apart, and its noun in the right number."""
    return f"{number:,}".replace(",", "\u202f") + f" {noun}{'' if number == 1 else 's'}"

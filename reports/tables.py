"""Small helpers that every reader of a data frame here needs."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples. Their fields are typed Any: a column's type is stated in reports.columns, not known to a checker."""
    # As DataFrame.itertuples() does, which makes a class anew for every frame, and numbers one by one: with thousands of small frames
    # these were a fifth of the time that a page took.
    return map(_row(tuple(frame.columns))._make, zip(*(frame[name].tolist() for name in frame.columns), strict=True))


@cache
def _row(names: tuple[str, ...]) -> Any:
    # A name that is none, as that of an outcome of two words, becomes a number.
    return namedtuple("Row", names, rename=True)


def counted(number: int, noun: str) -> str:
    """``number`` with thousands set apart, and its noun in the right number."""
    return f"{number:,}".replace(",", "\u202f") + f" {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """``items`` as a sentence has them: ``a, b and c``."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)

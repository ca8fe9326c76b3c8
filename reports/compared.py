"""The tensors that checks compared, as columns: of all that a run file holds, these are the most."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from reports.columns import COLUMNS
from reports.fields import count, number, printable

_NUMBERS = ("error", "floor", "ratio", "allowance")


class Compared:
    """Gathers the errors of results; what all errors of one result have in common is taken from that in the end."""

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._quantities: list[str] = []
        self._found: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, "elements")}
        self._items = [(name, values.extend) for name, values in self._found.items()]

    def add(self, line: int, found: list[dict[str, Any]]) -> None:
        """Keeps the errors of the result that is on ``line`` of the frame ``conformance``."""
        self._lines += [line] * len(found)
        # Of these there are few, in many errors: one text for all.
        self._quantities += [sys.intern(str(error.get("quantity", ""))) for error in found]
        for name, extend in self._items:
            extend([error.get(name) for error in found])

    def frame(self, conformance: pd.DataFrame) -> pd.DataFrame:
        """The frame ``errors``."""
        lines = np.array(self._lines, dtype=np.int64)
        own: dict[str, Any] = {"line": lines, "quantity": printable(self._quantities)}
        own |= {name: _numbers(self._found[name]) for name in _NUMBERS}
        own |= {"elements": _array(self._found["elements"], {int}, count, "int64"), "finite": ~np.isnan(own["error"])}
        columns = {name: own[name] if name in own else conformance[name].take(lines).array for name in COLUMNS["errors"]}
        return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, (dtype, _) in COLUMNS["errors"].items()})


def _numbers(values: list[Any]) -> Any:
    found = _array(values, {float, type(None)}, number, "float64")
    # Python reads NaN and Infinity in JSON; to write null for them is our own writer's rule.
    return np.where(np.isfinite(found), found, math.nan)


def _array(values: list[Any], usual: set[type], otherwise: Callable[[Any], Any], dtype: str) -> Any:
    """``values`` as an array, and where not all of them are of the ``usual`` types, what ``otherwise`` makes of each."""
    try:
        return np.array(values if set(map(type, values)) <= usual else list(map(otherwise, values)), dtype=dtype)
    except OverflowError:  # a whole number of more than 64 bits
        return np.array(list(map(otherwise, values)), dtype=dtype)

"""Numbers on a command line, each within its limits: types for argparse, and so for pytest, which tell what was expected."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least ``least``."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ArgumentTypeError(f"expected a whole number of at least {least} but got {text}")
        return value

    return whole


def above_zero(text: str) -> float:
    """The type of an option that is a finite number above 0, such as a length of time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"expected a number above 0 but got {text}")
    return value

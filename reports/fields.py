"""What a field of somebody else's file is, or nothing: records are read as they are, and a value of another type is no value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """``value`` as a float if it is a number and finite, else None."""
    try:
        found = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of more than 300 digits
        return None
    return found if math.isfinite(found) else None


def count(value: Any) -> int:
    """``value`` as a whole number of 64 bits if it is a number of that size, else 0."""
    found = number(value)
    return int(found) if found is not None and abs(found) < 2**63 else 0


def whole(value: Any) -> int | None:
    """``value`` if it is a whole number of 64 bits, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def numbers(value: Any) -> list[float]:
    """``value`` as floats if it is a list of numbers, else none: what stands at which place matters, so none is left out alone."""
    found = [number(item) for item in value] if isinstance(value, (list, tuple)) else []
    known = [item for item in found if item is not None]
    return known if len(known) == len(found) else []


def text(value: Any) -> str:
    """``value`` if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def printable(values: list[str]) -> list[str]:
    """``values`` as they are, but for half a surrogate pair, which JSON may hold and no page, table or terminal takes."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return [text.encode(errors="replace").decode() for text in values]
    return values


def texts(value: Any) -> list[str]:
    """The texts in ``value`` if it is a list, else none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, (list, tuple)) else []

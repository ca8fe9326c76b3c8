"""Quantities in words: a number with as many digits as are worth reading, and its unit."""

from __future__ import annotations

import math

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def floors(ratio: float) -> str:
    """An error over its noise floor, in words."""
    if math.isnan(ratio):
        return "not measured"
    if math.isinf(ratio):
        return "not finite"
    if ratio >= 1e6:
        return f"{ratio:.1e}×"
    return f"{ratio:.2g}×" if ratio < 99.5 else f"{engineering(ratio)}×"


def sortable(value: float) -> str:
    """``value`` for the script of the page, which sorts by it: empty where it is not known, which comes last."""
    return "" if math.isnan(value) else f"{value:.6g}".replace("inf", "Infinity")


def interval(low: float | None, high: float | None, decimals: int = 3) -> str:
    """The interval of a ratio, which has none where one of its ends is not known."""
    known = low is not None and high is not None and not math.isnan(low) and not math.isnan(high)
    return f"{low:.{decimals}f} to {high:.{decimals}f}" if known else "no interval"


def first_line(message: str) -> str:
    """What of a message stands in a line of a table."""
    return message.strip().partition("\n")[0].rstrip()


def engineering(value: float) -> str:
    """``value`` with three significant digits and k, M, G, T or P."""
    # Of what is shown: 999 700 are one M, and not 1000 k.
    shown = float(f"{value:.3g}")
    if abs(shown) < 1e18:
        for limit, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(shown) >= limit:
                return f"{shown / limit:.3g}{suffix}"
    return f"{shown:.3g}"


def digits(value: float) -> str:
    """``value`` with three significant digits, and no exponent where it is of the size of things that are counted."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def duration(*seconds: float) -> list[str]:
    """Each of ``seconds`` in the unit that suits the first, which stands behind that alone: ``12.5 µs``, ``11``, ``14``."""
    # Of what is shown: 0.9996 s are one second, and not 1000 ms.
    first = abs(float(f"{seconds[0]:.3g}"))
    scale, unit = next(((scale, unit) for scale, unit in _SECONDS if first >= scale), _SECONDS[-1] if first else _SECONDS[0])
    return [f"{digits(seconds[0] / scale)} {unit}", *(digits(value / scale) for value in seconds[1:])]


def size(bytes: float) -> str:
    """``bytes`` in a binary unit: ``424 KiB``."""
    scale, unit = next(((scale, unit) for scale, unit in _BYTES if bytes >= 0.9995 * scale), _BYTES[-1])
    return f"{digits(bytes / scale)} {unit}"


def percent(share: float) -> str:
    """``share`` in per cent, with two significant digits below ten."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def factor(value: float) -> str:
    """A ratio with two decimals, below a tenth with two digits, and from a hundred on with none: ``1.44``, ``0.0033``, ``312``."""
    if abs(value) < 0.0995:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 99.95 else digits(value)


def times(speedup: float, low: float, high: float) -> str:
    """A speedup with its interval where it has one: ``1.44× (1.42 to 1.46)``."""
    return f"{factor(speedup)}×" + ("" if math.isnan(low) else f" ({factor(low)} to {factor(high)})")

"""Quantities derived from samples: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.statistics import LEVEL, Effect, Verdict, t_quantile

Array = npt.NDArray[np.float64]

HOST_BOUND = 0.9
"""The share of the time of a call from which on it is bound by the host, which was handing work over for so long.

The rest is the device finishing what was handed over last. Where the device has more to do than the host, it is still busy long after the
last launch, and the share is far below this one. There is one exception, which this number cannot tell: CUDA queues about a thousand
launches, and a host whose queue is full waits in its next launch for the device. A loop of thousands of launches looks host-bound,
whichever of the two it waits for.
"""

LEAST_LENGTHS = 3
"""Lengths through which a line is drawn: two would fit any line, and say nothing about whether there is one."""

LINE_FITS = 0.1
"""The share by which a line may miss a time and still describe it. The times of two lengths are taken minutes apart, and follow a clock
whose changes up to a tenth nobody is told of (harness.watch)."""


NO_TIME = 1e-12
"""Seconds below which there is rounding alone: a part of a call that takes at most so long is none."""


def median(samples: Sequence[float] | Array) -> float:
    """The median, NaN of nothing."""
    return quantile(samples, 0.5)


def quantile(samples: Sequence[float] | Array, share: float) -> float:
    """The value that ``share`` of the samples lie below, interpolated linearly; NaN of nothing."""
    return float(np.quantile(samples, share)) if len(samples) else math.nan


def per_second(amount: float, seconds: float) -> float:
    """``amount`` of one call, per second; NaN where the amount is not known (0) or there is no time."""
    return amount / seconds if amount > 0 and seconds > 0 else math.nan


@dataclass(frozen=True)
class Speed:
    """Seconds of the baseline over seconds of the candidate, so that above 1 is faster, with its interval.

    ``low`` and ``high`` are NaN where there were too few paired rounds; ``rounds`` says how many there were.
    """

    speedup: float
    low: float
    high: float
    rounds: int
    verdict: Verdict


def speed(found: Effect, level: float = LEVEL) -> Speed:
    """The speed of a candidate from the effect on its time, with the interval and the verdict at ``level``."""
    if not found.rounds:
        return Speed(math.nan, math.nan, math.nan, 0, Verdict.UNDECIDED)
    low, high = found.interval(level)
    return Speed(1 / found.ratio, 1 / high, 1 / low, found.rounds, found.verdict(level))


def share(part: float, whole: float) -> float:
    """``part`` / ``whole``; NaN where either is not known or not positive."""
    known = 0 < part < math.inf and 0 < whole < math.inf
    return part / whole if known else math.nan


def warm_up_cost(first: Sequence[float], steady: float) -> float:
    """Seconds that the ``first`` calls took above what as many of ``steady`` seconds take, and never less than none; NaN where one of
    them is not known, or is no time."""
    cost = sum(first) - len(first) * steady
    return max(0.0, cost) if len(first) and math.isfinite(cost) else math.nan


def break_even(extra: float, gain: float, verdict: Verdict) -> float:
    """Calls after which an implementation has made up for what its warm-up cost more than the baseline's.

    ``extra``: seconds by which it cost more. ``gain``: seconds that a later call takes less. 0 where it costs no more, infinite where it
    is slower and never makes up for anything; NaN where no difference is seen (``verdict`` is same or undecided), where the gain is none
    although the comparison by rounds says faster, and where one of them is not known.
    """
    if verdict is Verdict.SLOWER:
        return math.inf
    if verdict is not Verdict.FASTER or math.isnan(extra) or not gain > 0:
        return math.nan
    return max(0.0, extra / gain)


@dataclass(frozen=True)
class Line:
    """Seconds of a call of T steps as ``setup`` + ``step`` * T, each in seconds with its interval, from ``lengths`` different T.

    ``misfit``: the largest share of a time by which the line misses it.
    """

    setup: float
    setup_low: float
    setup_high: float
    step: float
    step_low: float
    step_high: float
    misfit: float
    lengths: int


def fits(misfit: float) -> bool:
    """Whether set-up and step describe the times that a line misses by ``misfit``."""
    return misfit <= LINE_FITS


def line(lengths: Sequence[float] | Array, seconds: Sequence[float] | Array, level: float = LEVEL) -> Line | None:
    """The line through times over T; None through fewer than :data:`LEAST_LENGTHS` different T, or where one is not positive.

    Least squares of the relative errors (weights 1 / seconds squared): a time is known to some share of itself, and the set-up shows in
    the shortest, which weigh nothing beside the longest otherwise. The intervals hold at ``level`` if the times scatter about a
    line; they follow from how much these do, with two degrees of freedom fewer than there are times.
    """
    x, y = np.asarray(lengths, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(set(x.tolist())) < LEAST_LENGTHS or not (y > 0).all():
        return None
    weights = 1 / y**2
    total, centre, middle = weights.sum(), np.average(x, weights=weights), np.average(y, weights=weights)
    spread = float((weights * (x - centre) ** 2).sum())
    step = float((weights * (x - centre) * (y - middle)).sum()) / spread
    setup = float(middle - step * centre)
    misses = (setup + step * x) / y - 1
    freedom = len(x) - 2
    half = t_quantile(level, freedom) * math.sqrt(float((misses**2).sum()) / freedom)
    setup_half, step_half = half * math.sqrt(1 / total + centre**2 / spread), half / math.sqrt(spread)
    return Line(
        setup, setup - setup_half, setup + setup_half, step, step - step_half, step + step_half, float(np.abs(misses).max()), len(set(x))
    )


@dataclass(frozen=True)
class Peak:
    """A peak of memory, in bytes: so many, or, where ``bounded``, at most so many."""

    bytes: float
    bounded: bool


def peak(bytes: float, resolution: float) -> Peak:
    """What may be said of a peak that was measured as ``bytes``: one below the ``resolution`` is only known to be below it."""
    return Peak(max(bytes, resolution), True) if bytes < resolution else Peak(bytes, False)

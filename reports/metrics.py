"""Quantities derived from samples: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.statistics import LEVEL, Effect, Verdict

Array = npt.NDArray[np.float64]


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

    ``low`` and ``high`` are NaN where there were too few paired rounds; ``pairs`` says how many there were.
    """

    ratio: float
    low: float
    high: float
    pairs: int
    standing: Verdict


def speed(found: Effect, level: float = LEVEL) -> Speed:
    """The speed of a candidate from the effect on its time, with the interval and the verdict at ``level``."""
    if not found.rounds:
        return Speed(math.nan, math.nan, math.nan, 0, Verdict.UNDECIDED)
    low, high = found.interval(level)
    return Speed(1 / found.ratio, 1 / high, 1 / low, found.rounds, found.verdict(level))

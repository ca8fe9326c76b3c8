"""Quantities derived from samples: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MARGIN = 0.05
"""Two speeds whose ratio is known to lie within this share of 1 are the same for every practical purpose."""

MIN_PAIRS = 5
"""Fewer paired rounds than this carry no interval: all of three or four point one way by chance too often."""


def median(samples: Sequence[float] | Array) -> float:
    """The median, NaN of nothing."""
    return quantile(samples, 0.5)


def quantile(samples: Sequence[float] | Array, share: float) -> float:
    """The value that ``share`` of the samples lie below, interpolated linearly; NaN of nothing."""
    return float(np.quantile(samples, share)) if len(samples) else math.nan


def per_second(amount: float, seconds: float) -> float:
    """``amount`` of one call, per second; NaN where the amount is not known (0) or there is no time."""
    return amount / seconds if amount > 0 and seconds > 0 else math.nan


class Standing(StrEnum):
    """How fast one implementation is beside another."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Speed:
    """Seconds of the baseline over seconds of the candidate, so that above 1 is faster, with its interval.

    ``low`` and ``high`` are NaN where there were too few paired rounds; ``pairs`` says how many there were.
    """

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def standing(self) -> Standing:
        """The verdict: 'same' needs the whole interval within :data:`MARGIN`, 'undecided' is what is left."""
        if math.isnan(self.low):
            return Standing.UNDECIDED
        if self.low >= 1 / (1 + MARGIN) and self.high <= 1 + MARGIN:
            return Standing.SAME
        if self.low > 1:
            return Standing.FASTER
        if self.high < 1:
            return Standing.SLOWER
        return Standing.UNDECIDED


def relative_speed(strata: Sequence[Array], level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Speed:
    """How much faster than the baseline, from ``ln(baseline seconds / candidate seconds)`` of paired rounds.

    One array per workload. The effect is the mean over workloads of the median over rounds; its interval comes from a
    percentile bootstrap that draws rounds anew within each workload. The interval is missing unless every workload has
    at least :data:`MIN_PAIRS` rounds.
    """
    if not strata or not all(len(stratum) for stratum in strata):
        return Speed(math.nan, math.nan, math.nan, 0)
    effect = float(np.mean([np.median(stratum) for stratum in strata]))
    pairs = sum(len(stratum) for stratum in strata)
    if min(len(stratum) for stratum in strata) < MIN_PAIRS:
        return Speed(math.exp(effect), math.nan, math.nan, pairs)
    generator = np.random.default_rng(seed)
    medians = [np.median(stratum[generator.integers(0, len(stratum), size=(resamples, len(stratum)))], axis=1) for stratum in strata]
    tail = (1 - level) / 2
    low, high = np.quantile(np.mean(medians, axis=0), [tail, 1 - tail])
    return Speed(math.exp(effect), math.exp(low), math.exp(high), pairs)

"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from harness.statistics import UNKNOWN, Effect, Verdict
from reports import metrics


def test_quantiles_interpolate_between_neighbours() -> None:
    assert metrics.median([3.0, 1.0, 2.0]) == 2.0
    assert metrics.median([1.0, 2.0, 3.0, 4.0]) == 2.5
    assert metrics.quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.25) == 2.0
    assert math.isnan(metrics.median([]))


def test_a_rate_is_the_amount_over_the_seconds_and_nothing_where_either_is_unknown() -> None:
    assert metrics.per_second(1024, 0.002) == 512_000
    assert math.isnan(metrics.per_second(0, 0.002))
    assert math.isnan(metrics.per_second(1024, math.nan))


def test_speed_is_the_inverse_of_the_time_and_keeps_its_verdict() -> None:
    found = Effect(math.log(0.5), 0.0, 15, 64, systematic=0.0)
    faster = metrics.speed(found)
    assert (faster.ratio, faster.low, faster.high) == pytest.approx((2.0, 2.0, 2.0))
    assert (faster.pairs, faster.standing) == (64, Verdict.FASTER)
    low, high = Effect(0.1, 0.02, 15, 64).interval()
    slower = metrics.speed(Effect(0.1, 0.02, 15, 64))
    assert (slower.low, slower.high) == pytest.approx((1 / high, 1 / low))
    assert slower.low < slower.ratio < slower.high < 1 and slower.standing is Verdict.SLOWER


def test_no_rounds_have_no_speed() -> None:
    nothing = metrics.speed(UNKNOWN)
    assert math.isnan(nothing.ratio) and nothing.pairs == 0 and nothing.standing is Verdict.UNDECIDED

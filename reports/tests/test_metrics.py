"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
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
    assert (faster.speedup, faster.low, faster.high) == pytest.approx((2.0, 2.0, 2.0))
    assert (faster.rounds, faster.verdict) == (64, Verdict.FASTER)
    low, high = Effect(0.1, 0.02, 15, 64).interval()
    slower = metrics.speed(Effect(0.1, 0.02, 15, 64))
    assert (slower.low, slower.high) == pytest.approx((1 / high, 1 / low))
    assert slower.low < slower.speedup < slower.high < 1 and slower.verdict is Verdict.SLOWER


def test_no_rounds_have_no_speed() -> None:
    nothing = metrics.speed(UNKNOWN)
    assert math.isnan(nothing.speedup) and nothing.rounds == 0 and nothing.verdict is Verdict.UNDECIDED


def test_a_share_is_a_part_of_a_whole_and_nothing_where_either_is_unknown() -> None:
    assert metrics.share(0.002, 0.008) == 0.25
    assert metrics.share(0.009, 0.008) == 1.125, "not clamped: more than the limit says that the limit is wrong"
    for part, whole in ((math.nan, 1.0), (1.0, math.nan), (0.0, 1.0), (1.0, 0.0), (math.inf, 1.0)):
        assert math.isnan(metrics.share(part, whole))


def test_the_warm_up_cost_is_what_the_first_calls_took_above_the_steady_ones() -> None:
    # 5 + 3 + 1 seconds, of which three steady calls take 6.
    assert metrics.warm_up_cost([5.0, 3.0, 1.0], 2.0) == 3.0
    assert metrics.warm_up_cost([1.0, 1.5], 2.0) == 0.0
    assert math.isnan(metrics.warm_up_cost([], 2.0)) and math.isnan(metrics.warm_up_cost([1.0], math.nan))
    assert math.isnan(metrics.warm_up_cost([math.inf], 2.0)) and math.isnan(metrics.warm_up_cost([math.nan], 2.0))


def test_a_warm_up_pays_after_as_many_calls_as_its_cost_holds_gains() -> None:
    assert metrics.break_even(30.0, 0.25, Verdict.FASTER) == 120.0
    assert metrics.break_even(-1.0, 0.25, Verdict.FASTER) == metrics.break_even(0.0, 0.25, Verdict.FASTER) == 0.0


def test_a_warm_up_never_pays_for_what_is_slower_and_nobody_knows_for_what_is_not_told_apart() -> None:
    assert metrics.break_even(30.0, -0.25, Verdict.SLOWER) == math.inf
    assert metrics.break_even(-30.0, -0.25, Verdict.SLOWER) == math.inf
    for verdict in (Verdict.SAME, Verdict.UNDECIDED):
        assert math.isnan(metrics.break_even(-1.0, 0.25, verdict))
    assert math.isnan(metrics.break_even(1.0, -0.25, Verdict.FASTER)), "the medians contradict the rounds"
    assert math.isnan(metrics.break_even(math.nan, 0.25, Verdict.FASTER))


def test_times_on_a_line_give_its_set_up_and_its_step_with_no_doubt() -> None:
    found = metrics.line([1, 2, 4, 8], [5.0, 8.0, 14.0, 26.0])
    assert found is not None and metrics.fits(found.misfit)
    values = (found.setup, found.setup_low, found.setup_high, found.step, found.step_low, found.step_high)
    assert values == pytest.approx((2.0, 2.0, 2.0, 3.0, 3.0, 3.0))
    assert found.misfit == pytest.approx(0.0) and found.lengths == 4


def test_a_line_is_of_least_relative_squares_with_the_interval_of_its_residuals() -> None:
    # Weights 1, 1/4, 1/36: their sum is 23/18, of T 19/12, of T squared 9/4, of t 5/3, of T t 5/2. The relative residuals are -3, 12 and
    # -18 in 53rds, so that with one degree of freedom the variance is 9/53; Student's t stays within tan(0.99 pi / 2).
    found = metrics.line([1, 2, 3], [1.0, 2.0, 6.0])
    assert found is not None and not metrics.fits(found.misfit)
    assert (found.setup, found.step, found.misfit) == pytest.approx((-30 / 53, 80 / 53, 18 / 53))
    t, determinant = math.tan(0.99 * math.pi / 2), 53 / 144
    assert found.step_high - found.step == pytest.approx(t * math.sqrt(9 / 53 * 23 / 18 / determinant))
    assert found.setup - found.setup_low == pytest.approx(t * math.sqrt(9 / 53 * 9 / 4 / determinant))


def test_a_small_time_counts_as_much_as_a_large_one() -> None:
    # A per cent of the largest time is ten times the smallest; unweighted, the set-up would be off by more than itself.
    lengths, seconds = [1, 10, 100, 1000], [2.0, 11.0, 101.0, 1001.0 * 1.01]
    found = metrics.line(lengths, seconds)
    assert found is not None and metrics.fits(found.misfit)
    assert found.setup == pytest.approx(1.0, abs=0.02) and found.setup_low < 1.0 < found.setup_high
    assert abs(np.polyfit(lengths, seconds, 1)[1] - 1.0) > 0.2


def test_no_line_is_drawn_through_two_lengths() -> None:
    assert metrics.line([1, 2], [1.0, 2.0]) is None
    assert metrics.line([1, 2, 2], [1.0, 2.0, 2.1]) is None
    assert metrics.line([], []) is None
    assert metrics.line([1, 2, 3], [0.0, 1.0, 2.0]) is None, "no share of nothing"


def test_a_peak_below_what_is_resolved_is_only_known_to_be_below_it() -> None:
    assert metrics.peak(4096, 1024) == metrics.Peak(4096, False)
    assert metrics.peak(1024, 1024) == metrics.Peak(1024, False)
    assert metrics.peak(100, 1024) == metrics.peak(0, 1024) == metrics.Peak(1024, True)
    assert math.isnan(metrics.peak(math.nan, 1024).bytes)

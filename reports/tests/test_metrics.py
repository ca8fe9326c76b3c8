"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports import metrics
from reports.metrics import Speed, Standing


def test_quantiles_interpolate_between_neighbours() -> None:
    assert metrics.median([3.0, 1.0, 2.0]) == 2.0
    assert metrics.median([1.0, 2.0, 3.0, 4.0]) == 2.5
    assert metrics.quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.25) == 2.0
    assert math.isnan(metrics.median([]))


def test_a_rate_is_the_amount_over_the_seconds_and_nothing_where_either_is_unknown() -> None:
    assert metrics.per_second(1024, 0.002) == 512_000
    assert math.isnan(metrics.per_second(0, 0.002))
    assert math.isnan(metrics.per_second(1024, math.nan))


def test_relative_speed_is_the_median_ratio_of_paired_rounds() -> None:
    baseline, candidate = np.array([2.0, 4.0, 6.0, 8.0, 10.0]), np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    found = metrics.relative_speed([np.log(baseline / candidate)])
    assert found.ratio == pytest.approx(2.0)
    assert found.pairs == 5


def test_relative_speed_of_several_workloads_is_the_geometric_mean_of_theirs() -> None:
    found = metrics.relative_speed([np.log(np.full(5, 2.0)), np.log(np.full(5, 8.0))])
    assert (found.ratio, found.low, found.high) == pytest.approx((4.0, 4.0, 4.0))
    assert found.standing == Standing.FASTER


def test_the_interval_is_the_same_every_time_and_holds_the_ratio() -> None:
    logs = np.log(np.array([1.1, 1.3, 1.2, 1.25, 1.15, 1.4, 1.05]))
    first, second = metrics.relative_speed([logs]), metrics.relative_speed([logs])
    assert first == second
    assert 1.05 <= first.low <= first.ratio <= first.high <= 1.4


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        found = metrics.relative_speed([generator.normal(0.1, 0.05, 30)], resamples=300, seed=trial)
        hits += found.low <= math.exp(0.1) <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_too_few_paired_rounds_have_no_interval_and_decide_nothing() -> None:
    found = metrics.relative_speed([np.log(np.full(metrics.MIN_PAIRS - 1, 3.0))])
    assert found.ratio == pytest.approx(3.0)
    assert math.isnan(found.low)
    assert found.standing == Standing.UNDECIDED
    assert metrics.relative_speed([]).pairs == 0


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        pytest.param(1.10, 1.20, Standing.FASTER, id="above 1"),
        pytest.param(0.80, 0.90, Standing.SLOWER, id="below 1"),
        pytest.param(0.98, 1.02, Standing.SAME, id="within the margin around 1"),
        pytest.param(1.01, 1.04, Standing.SAME, id="within the margin although above 1"),
        pytest.param(0.90, 1.10, Standing.UNDECIDED, id="on both sides and wide"),
        pytest.param(1.01, 1.20, Standing.FASTER, id="above 1 and beyond the margin"),
    ],
)
def test_the_standing_follows_from_the_interval(low: float, high: float, standing: Standing) -> None:
    assert Speed(math.sqrt(low * high), low, high, 40).standing == standing

"""Intervals of shares against values from the literature and from symmetry."""

from __future__ import annotations

import pytest

from harness.proportions import wilson


@pytest.mark.parametrize(
    ("found", "trials", "low", "high"),
    [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763), (10, 10, 0.722, 1.0), (1, 1, 0.207, 1.0), (81, 263, 0.255, 0.366)],
)
def test_the_interval_is_wilsons(found: int, trials: int, low: float, high: float) -> None:
    # 81 of 263: Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert wilson(found, trials) == pytest.approx((low, high), abs=5e-4)


def test_the_ends_for_none_and_all_are_exact_and_nothing_is_known_of_no_trials() -> None:
    for trials in range(1, 60):
        assert wilson(0, trials)[0] == 0.0 and wilson(trials, trials)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_trials_and_a_lower_level_narrow_the_interval() -> None:
    low, high = wilson(5, 10)
    assert low < wilson(50, 100)[0] < 0.5 < wilson(50, 100)[1] < high
    assert low < wilson(5, 10, z=1.0)[0]

"""The comparison of estimators, on series that are made up."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from harness import estimators
from harness.estimators import ESTIMATORS, Series, bootstrap, main, quantile, row, verdict
from harness.statistics import Verdict, effect


def _series(seed: int = 0, rounds: int = 6000, noise: float = 0.02, waits: float = 0.0) -> Series:
    """Two equal things of half a millisecond, with one untimed call before each; a share of the samples waits for a core."""
    generator = np.random.default_rng(seed)

    def times() -> Any:
        waited = (generator.random(rounds) < waits) * generator.exponential(4e-3, rounds)
        return 5e-4 * np.exp(generator.normal(0, noise, rounds)) + waited

    return Series(times(), times(), 1, 1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_finds_what_is_planted_and_calls_equal_things_the_same(name: str) -> None:
    found, spent = verdict(_series(), 0.05, 2.0, ESTIMATORS[name], decide=True)
    assert found is Verdict.SLOWER and spent < 2.0
    assert verdict(_series(), 0.0, 6.0, ESTIMATORS[name], decide=True)[0] is Verdict.SAME


def test_without_looks_all_of_the_time_is_spent() -> None:
    found, spent = verdict(_series(), 0.05, 2.0, effect, decide=False)
    assert found is Verdict.SLOWER and 2.0 <= spent < 2.01


def test_waits_for_a_core_are_what_the_fastest_of_several_rounds_leaves_out() -> None:
    series = _series(waits=0.6)
    kept, all_of_it = (abs(estimate(series.candidate, series.baseline).error) for estimate in (effect, ESTIMATORS["fastest of 1 rounds"]))
    assert kept < all_of_it
    assert abs(quantile(series.candidate, series.baseline).log) < 0.01 and abs(bootstrap(series.candidate, series.baseline).log) < 0.01


def test_a_row_counts_false_alarms_and_what_was_found() -> None:
    fast = Series(_series().candidate * 0.9, _series().baseline, 1, 1)
    told = row("name", [_series(1), _series(2), fast], effect)
    assert told.startswith("name ") and re.findall(r"(\d+) in ", told) == ["1", "2", "2", "2"]


def test_the_command_prints_a_row_for_each_estimator_and_each_length(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths: list[float] = []

    def taken(seconds: float, length: float) -> Series:
        lengths.append(length)
        return _series(len(lengths), 600)

    monkeypatch.setattr(estimators, "take", taken)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert main(["--series", "2", "--seconds", "1"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in ESTIMATORS) and "no looks" in said and "1 ms" in said
    assert lengths == 2 * list(estimators.LENGTHS)


@pytest.mark.parametrize(("whole", "printed"), [(0, ""), (1, "1 series, at 99%")])
def test_an_interrupt_leaves_the_table_of_what_was_taken(
    whole: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths: list[float] = []

    def taken(seconds: float, length: float) -> Series:
        lengths.append(length)
        if len(lengths) > whole * len(estimators.LENGTHS) + 1:
            raise KeyboardInterrupt
        return _series(len(lengths), 600)

    monkeypatch.setattr(estimators, "take", taken)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert main(["--series", "5", "--seconds", "1"]) == 130
    said = capsys.readouterr()
    assert printed in said.out and ("interrupted before the first series" in said.err) == (not printed)


def test_a_series_is_sampled_as_implementations_are_and_to_its_end() -> None:
    series = estimators.take(0.05, 3e-4)
    assert len(series.candidate) == len(series.baseline) >= 5 and series.untimed == 1
    assert (series.calls + series.untimed) * (series.candidate.sum() + series.baseline.sum()) >= 0.05

"""Covering arrays have every combination that they promise, and none that is forbidden."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harness.layer import Mode
from suites.conformance.cases import combined
from suites.conformance.cases_at_size import at_size, in_half
from suites.conformance.covering import Row, covering

FACTORS: dict[str, list[Any]] = {"a": [0, 1], "b": [0, 1, 2], "c": ["x", "y"], "d": [False, True]}


def _allowed(row: Row) -> bool:
    return not (row.get("a") == 1 and row.get("b") == 2) and not (row.get("b") == 1 and row.get("d") is True)


@pytest.mark.parametrize("strength", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_combination_that_can_be_completed_occurs(strength: int, seed: int) -> None:
    rows = covering(FACTORS, _allowed, seed=seed, strength=strength)
    whole = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    possible = [row for row in whole if _allowed(row)]

    def combinations(of: list[Row]) -> set[tuple[tuple[str, object], ...]]:
        return {found for row in of for found in itertools.combinations(row.items(), strength)}

    assert combinations(rows) == combinations(possible)
    assert all(row in possible for row in rows)
    assert rows == covering(FACTORS, _allowed, seed=seed, strength=strength), "the same on every machine"


def test_as_many_rows_as_all_combinations_are_the_most() -> None:
    assert len(covering(FACTORS, lambda row: True, strength=4)) == 2 * 3 * 2 * 2
    # The two largest factors need six; the greedy way may take a few more.
    assert 6 <= len(covering(FACTORS, lambda row: True)) <= 8


@pytest.mark.parametrize("mode", Mode)
def test_cases_that_share_rows_have_ids_of_their_own(mode: Mode) -> None:
    for cases in (combined(mode), at_size(mode, ("plain", "dropout")), in_half(mode, "float16")):
        assert len({case.id for case in cases}) == len(cases)


@pytest.mark.parametrize("mode", Mode)
def test_three_options_meet_at_size(mode: Mode) -> None:
    rows = [
        {
            "long": case.steps > 32,
            "deep": case.layer.num_layers > 2,
            "both ways": case.layer.bidirectional,
            "biased": case.layer.bias,
            "packed": case.lengths is not None,
            "dropout": case.layer.dropout > 0,
        }
        for case in at_size(mode, ("plain", "dropout"))
    ]
    for names in itertools.combinations(rows[0], 3):
        met = {tuple(row[name] for name in names) for row in rows}
        for values in itertools.product([False, True], repeat=3):
            wanted = dict(zip(names, values, strict=True))
            # Between the layers of one there is nothing to drop.
            assert values in met or (wanted.get("dropout") and not wanted.get("deep", True)), wanted

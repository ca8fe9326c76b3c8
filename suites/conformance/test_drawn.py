"""The search draws cases that are unlike each other, the same for everybody, and shrinks the first that fails."""

from __future__ import annotations

import pytest

from harness.case import Case
from harness.layer import Mode
from suites.conformance.drawn import draw

_NUMBER = 30


def _drawn(seed: int) -> list[Case]:
    found: list[Case] = []

    def asked(case: Case) -> None:
        found.append(case)

    draw(_NUMBER, asked, Mode.GRU, "cpu", seed)
    return found


def test_cases_are_unlike_each_other_and_follow_from_the_seed_alone() -> None:
    found, again = _drawn(0), []

    def otherwise_written(case: Case) -> None:
        again.extend([case])

    draw(_NUMBER, otherwise_written, Mode.GRU, "cpu", 0)
    assert again == found != _drawn(1)
    # Of 30 numbers from 1 to 70 some 24 are unlike.
    assert len(found) == len(set(found)) == _NUMBER and len({case.layer.hidden_size for case in found}) >= 15


@pytest.mark.parametrize("least", [0, 33])
def test_what_fails_is_shrunk(least: int) -> None:
    smallest = []

    def fails(case: Case) -> None:
        if case.layer.hidden_size >= least:
            smallest.append(case)
            raise AssertionError(f"H = {case.layer.hidden_size}")

    with pytest.raises(AssertionError, match=rf"H = {max(1, least)}\b"):
        draw(_NUMBER, fails, Mode.GRU, "cpu", 0)
    last = smallest[-1]
    assert (last.layer.hidden_size, last.layer.num_layers, last.batch, last.steps) == (max(1, least), 1, 1, 1)

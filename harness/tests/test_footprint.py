"""What does not fit is told before it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from harness import footprint
from harness.case import Case, draw
from harness.footprint import fitting, needed, require_memory
from harness.layer import Layer, Mode
from harness.measure import Interrupted, measure
from harness.passes import Cell, build
from harness.reference import answer, gradients
from harness.sampling import Budget
from harness.tests.samples import CASE, implementation
from harness.workload import Pass, Workload

INFERENCE = Workload("tests", replace(CASE, batch=16), Pass.INFERENCE)


def test_what_is_needed_is_near_to_what_was_measured() -> None:
    seen = {(16, 16, Pass.INFERENCE): 1.89e9, (4, 64, Pass.INFERENCE): 5.60e9, (16, 16, Pass.TRAINING): 4.27e9}
    for (inputs, units, timed), bytes in seen.items():
        case = Case(Layer(Mode.LSTM, inputs, units), steps=1000, batch=1000)
        assert 0.75 < needed(Workload("tests", case, timed)) / bytes < 1.1


def test_weights_count_also_where_there_are_few_tokens() -> None:
    seen = {
        (Mode.LSTM, Pass.INFERENCE): 289,
        (Mode.GRU, Pass.INFERENCE): 241,
        (Mode.LSTM, Pass.TRAINING): 755,
        (Mode.GRU, Pass.TRAINING): 649,
    }
    for (mode, timed), mebibytes in seen.items():
        case = Case(Layer(mode, 1024, 1024), steps=1, batch=1)
        assert 0.9 < needed(Workload("tests", case, timed)) / (mebibytes << 20) < 1.2


@pytest.mark.parametrize("timed", [Pass.INFERENCE, Pass.TRAINING])
def test_nothing_is_kept_of_a_workload_for_which_the_next_may_lack_the_memory(timed: Pass) -> None:
    def forward(self: nn.GRU, *arguments: Any) -> Any:
        assert draw.cache_info().currsize, "all implementations of a workload are held against the same numbers"
        return nn.GRU.forward(self, *arguments)

    several = [implementation(forward, "sample:a"), implementation(forward, "sample:b")]
    assert [record.outcome for record in measure(replace(INFERENCE, timed=timed), several, Budget(seconds=0.0))] == ["passed"] * 2
    assert [kept.cache_info().currsize for kept in (draw, answer, gradients)] == [0, 0, 0]


def test_nothing_is_kept_of_a_workload_that_was_interrupted() -> None:
    def forward(self: nn.GRU, *arguments: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        measure(INFERENCE, [implementation(forward)], Budget(seconds=0.0))
    assert draw.cache_info().currsize == 0


@pytest.mark.parametrize(("free", "raised"), [(None, False), (1 << 40, False), (1 << 10, True)])
def test_a_workload_beyond_the_memory_that_is_free_is_refused(free: int | None, raised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "available_memory", lambda: free)
    if raised:
        with pytest.raises(MemoryError, match=r"the oracle's answer take about \d+\.\d GiB, and 0\.0 GiB are free"):
            require_memory(INFERENCE)
    else:
        require_memory(INFERENCE)


def test_nothing_is_drawn_or_called_that_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        batches.append(input.shape[1])
        return nn.GRU.forward(self, input, hx)

    monkeypatch.setattr(footprint, "available_memory", lambda: needed(replace(INFERENCE, case=replace(CASE, batch=5))))
    (record,) = measure(INFERENCE, [implementation(forward)], Budget(seconds=0.0))
    assert record.outcome == "out-of-memory" and record.fits == {"batch": 4} and batches == [4]
    assert record.message.startswith("inputs and the oracle's answer take about") and record.message.endswith("with B=4 it fits")


@pytest.mark.parametrize(
    ("limit", "error", "found"),
    [
        (4, MemoryError, (4, "with B=4 it fits")),
        (0, MemoryError, (0, "no smaller batch was found to fit")),
        (4, ValueError, (0, "with B=8 it raised ValueError: no")),
    ],
)
def test_the_largest_batch_is_halved_for_as_long_as_memory_is_what_is_wrong(
    limit: int, error: type[Exception], found: tuple[int, str]
) -> None:
    built: list[int] = []

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        if input.shape[1] > limit:
            raise error("no")
        return nn.GRU.forward(self, input, hx)

    def cell(workload: Workload) -> Cell:
        built.append(workload.case.batch)
        return build(workload, implementation(forward))

    assert fitting(INFERENCE, cell) == found
    assert built == ([8, 4] if limit else [8, 4, 2, 1])[: 1 if error is ValueError else None]


def test_nothing_is_left_when_every_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []
    monkeypatch.setattr(footprint, "release", released.append)

    def fails(workload: Workload) -> Cell:
        raise MemoryError

    attempt: Callable[[Workload], Cell] = fails
    assert fitting(INFERENCE, attempt)[0] == 0 and released == ["cpu"] * 4

"""Who is not right, cannot be timed or is not run has an outcome that says so, and no number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness import footprint
from harness import measure as measuring
from harness.clock import Clock, FakeClock, HostClock
from harness.implementation import Capabilities, Implementation
from harness.layer import Layer
from harness.limit import Limits
from harness.measure import measure
from harness.record import Throughput
from harness.tests.samples import CASE, Doubled, implementation, label
from harness.tests.test_measure import BACKWARD, BUDGET, INFERENCE, TRAINING, has_no_number, one, raising, ticking
from harness.workload import Workload


def _wrong_gradient(self: nn.GRU, *arguments: Any) -> Any:
    output, h_n = nn.GRU.forward(self, *arguments)
    return output.detach() + 2 * (output - output.detach()), h_n


def _shifted(self: nn.GRU, *arguments: Any) -> Any:
    """A wrong output, of which every gradient is right."""
    output, h_n = nn.GRU.forward(self, *arguments)
    return output + 0.1, h_n


def _late(self: Any, *arguments: Any) -> Any:
    """Right seven times, then wrong: before the last samples are taken, and after the first agreement."""
    self.count = getattr(self, "count", 0) + 1
    output, h_n = nn.GRU.forward(self, *arguments)
    return (output if self.count <= 7 else 1.01 * output), h_n


def _remembered(self: Any, *arguments: Any) -> Any:
    """Gives back its first answer for ever."""
    if not hasattr(self, "first"):
        self.first = nn.GRU.forward(self, *arguments)
    return self.first


@pytest.mark.parametrize(
    ("behaviour", "workload", "outcome", "message"),
    [
        (Doubled, INFERENCE, "failed", "output: 32 of 32 elements"),
        (Doubled, TRAINING, "failed", "output: 32 of 32 elements"),
        (_shifted, TRAINING, "failed", "output: 32 of 32 elements"),
        (_shifted, BACKWARD, "failed", "output: 32 of 32 elements"),
        (_wrong_gradient, TRAINING, "failed", "x: 24 of 24 elements"),
        (_late, INFERENCE, "failed", "output: "),
        (_late, TRAINING, "failed", "output: "),
        (_remembered, INFERENCE, "failed", "output: "),
        (lambda self, *arguments: None, INFERENCE, "failed", "Expected the pair (output, h_n) but got NoneType"),
        (raising(ValueError("no good")), INFERENCE, "failed", "a timed call raised ValueError: no good"),
        (raising(ValueError("no good"), 6), INFERENCE, "failed", "a timed call raised ValueError: no good"),
        (raising(SystemExit(0)), INFERENCE, "failed", "a timed call raised SystemExit: 0"),
        (raising(NotImplementedError("no gru")), INFERENCE, "unsupported", "NotImplementedError: no gru"),
        (raising(MemoryError("too much")), INFERENCE, "out-of-memory", "too much"),
        (raising(MemoryError()), INFERENCE, "out-of-memory", "MemoryError"),
        (raising(torch.OutOfMemoryError("too much\nand more")), TRAINING, "out-of-memory", "too much"),
        (raising(RuntimeError("can't allocate memory: you tried")), INFERENCE, "out-of-memory", "can't allocate memory"),
        (raising(RuntimeError("can't allocate memory: you tried"), 6), INFERENCE, "out-of-memory", "can't allocate memory"),
    ],
    ids=label,
)
def test_who_is_not_right_has_an_outcome_and_no_number(behaviour: Any, workload: Workload, outcome: str, message: str) -> None:
    record = one(behaviour, workload)
    assert record.outcome == outcome and message in record.message, record.message
    assert has_no_number(record)


def test_what_cannot_allocate_on_this_machine_is_out_of_memory() -> None:
    # In a thread of its own: after a request that cannot be met glibc's malloc serves a thread from another heap for good. Of what other
    # threads have once used there it gives nothing back, and in this process the memory of a call could not be measured any more.
    with ThreadPoolExecutor(1) as thread:
        record = thread.submit(one, lambda self, *arguments: torch.zeros(10**15)).result()
    assert record.outcome == "out-of-memory" and has_no_number(record)


def test_the_late_one_was_right_before() -> None:
    record = one(_late)
    assert set(record.agreement) == {"before"} and all(one["ratio"] <= one["allowance"] for one in record.agreement["before"])


def test_a_wrong_one_takes_no_samples_from_the_others() -> None:
    clock = FakeClock()
    right = implementation(ticking(clock), "sample:right")
    wrong = implementation(ticking(clock, Doubled.forward), "sample:wrong")
    records = measure(INFERENCE, [wrong, right, replace(right, id="sample:too")], BUDGET, clock)
    assert [(r.implementation, r.outcome, len(r.samples)) for r in records] == [
        ("sample:wrong", "failed", 0),
        ("sample:right", "passed", 3),
        ("sample:too", "passed", 3),
    ]


def test_what_cannot_run_here_or_is_declared_away_is_not_run() -> None:
    built: list[Layer] = []

    def build(layer: Layer) -> nn.Module:
        built.append(layer)
        return nn.GRU(3, 4)

    never = replace(implementation(nn.GRU), build=build)
    away = replace(never, id="sample:away", unavailable=lambda device: f"not on {device}")
    lacking = replace(never, id="sample:lacking", capabilities=Capabilities(dtypes=frozenset({"float64"})))
    records = measure(INFERENCE, [away, lacking], BUDGET)
    assert [(r.outcome, r.message) for r in records] == [
        ("unavailable", "not on cpu"),
        ("unsupported", "declared as not supported: dtype float32"),
    ]
    assert not built and all(has_no_number(record) for record in records)


def test_nothing_is_run_on_a_device_that_this_process_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "unusable", lambda device: "CUDA error: unspecified launch failure")
    record = one(nn.GRU.forward)
    assert (record.outcome, record.message) == (
        "unavailable",
        "this process cannot use cpu any more: CUDA error: unspecified launch failure",
    )
    assert has_no_number(record)


_LOST = "CUDA error: an illegal memory access was encountered"


class _Losing:
    """A device that is lost in the first call of the culprit after ``moment``; from then on every call raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moment: str = "") -> None:
        self.lost, self.time, self._due = "", FakeClock(), moment == "the first call"
        monkeypatch.setattr(measuring, "unusable", lambda device: self.lost)
        for owner, name in ((measuring, "agreement"), (measuring, "interleave"), (footprint, "peak"), (footprint, "fitting")):
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name), name, moment))

    def _noting(self, whole: Any, name: str, moment: str) -> Any:
        def noted(*arguments: Any, **options: Any) -> Any:
            self._due = self._due or moment == " ".join([name, *map(str, options.values())])
            return whole(*arguments, **options)

        return noted

    def clock(self, device: str) -> Clock:
        if self.lost:
            raise RuntimeError(self.lost)
        return HostClock(device)

    def implementation(self, id: str, most: int = CASE.batch) -> Implementation:
        def forward(layer: Any, input: Any, hx: Any) -> Any:
            if self._due and id == "sample:culprit":
                self.lost = _LOST
            if self.lost:
                raise RuntimeError(self.lost)
            if input.shape[1] > most:
                raise MemoryError("too much")
            return ticking(self.time)(layer, input, hx)

        return implementation(forward, id)


def _outcomes(records: list[Throughput]) -> dict[str, tuple[str, int]]:
    return {record.implementation: (record.outcome, len(record.samples)) for record in records}


@pytest.mark.parametrize("moment", ["the first call", "agreement 1", "interleave", "agreement 2", "peak"])
def test_who_loses_the_device_has_crashed_and_what_the_others_have_is_kept(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losing = _Losing(monkeypatch, moment)
    several = [losing.implementation(id) for id in ("sample:first", "sample:culprit", "sample:last")]
    first, culprit, last = measure(INFERENCE, several, BUDGET, losing.time, limits=Limits(losing.clock))
    assert culprit.outcome == "crashed" and culprit.message.startswith(f"it left cpu unusable: {_LOST}") and has_no_number(culprit)
    assert (last.outcome, last.message) == ("unavailable", f"this process cannot use cpu any more: {_LOST}") and has_no_number(last)
    # What was sampled and checked before is kept.
    kept = moment in ("agreement 2", "peak")
    assert (first.outcome, len(first.samples)) == (("passed", 3) if kept else ("unavailable", 0)) and bool(first.limit) == kept


def test_a_device_that_is_lost_without_a_word_is_answered_for_by_who_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    losing = _Losing(monkeypatch)

    def silent(self: nn.GRU, *arguments: Any) -> Any:
        losing.lost = _LOST
        return nn.GRU.forward(self, *arguments)

    first, culprit = measure(INFERENCE, [implementation(nn.GRU, "sample:first"), implementation(silent, "sample:culprit")], BUDGET)
    assert (first.outcome, culprit.outcome, culprit.message) == ("unavailable", "crashed", f"it left cpu unusable: {_LOST}")


def test_a_device_that_is_lost_in_the_search_for_a_batch_that_fits_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    losing = _Losing(monkeypatch, "fitting")
    hungry = [losing.implementation(id, most=1) for id in ("sample:culprit", "sample:hungry")]
    records = measure(INFERENCE, [losing.implementation("sample:first"), *hungry], BUDGET, losing.time)
    assert _outcomes(records) == {"sample:first": ("passed", 3), "sample:culprit": ("crashed", 0), "sample:hungry": ("out-of-memory", 0)}
    assert records[1].message.endswith(f"too much; with B=1 it raised RuntimeError: {_LOST}") and records[2].fits == {}


def test_a_limit_that_cannot_be_measured_costs_no_sample() -> None:
    def refuses(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    clock = FakeClock()
    (record,) = measure(INFERENCE, [implementation(ticking(clock))], BUDGET, clock, limits=Limits(product=refuses))
    assert (record.outcome, len(record.samples), record.limit) == ("passed", 3, {})


@pytest.mark.parametrize("workload", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_who_is_wrong_leaves_the_inputs_of_the_others_as_they_are(workload: Workload) -> None:
    seen: list[float] = []

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.append(float(arguments[0].sum()))
        return nn.GRU.forward(self, *arguments)

    right, wrong = measure(workload, [implementation(forward, "sample:right"), implementation(Doubled, "sample:wrong")], BUDGET)
    assert (right.outcome, wrong.outcome) == ("passed", "failed")
    own, *fresh = (float(torch.tensor(replace(CASE, inputs_seed=k).arrays.x, dtype=torch.float32).sum()) for k in range(3))
    assert [value for value in seen if value != pytest.approx(own)] == pytest.approx(fresh), "the rest is timed"


@pytest.mark.parametrize("workload", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_who_writes_into_the_inputs_of_all_is_wrong_and_the_others_are_not(workload: Workload) -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        answer = nn.GRU.forward(self, input.clone(), hx)
        with torch.no_grad():
            input.mul_(0.5)
        return answer

    wrong, right = measure(workload, [implementation(forward, "sample:writes"), implementation(nn.GRU, "sample:right")], BUDGET)
    assert (wrong.outcome, right.outcome) == ("failed", "passed")
    assert wrong.message == "Expected a timed call to leave its inputs as they are, but it wrote into x"


def test_a_backward_pass_that_writes_into_the_cotangent_of_all_is_wrong() -> None:
    class Writing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, output: torch.Tensor) -> torch.Tensor:
            return output.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            answer = gradient.clone()
            gradient.mul_(0.5)
            return answer

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        output, state = nn.GRU.forward(self, input, hx)
        return Writing.apply(output), state

    wrong, right = measure(TRAINING, [implementation(forward, "sample:writes"), implementation(nn.GRU, "sample:right")], BUDGET)
    assert (wrong.outcome, right.outcome) == ("failed", "passed")
    assert wrong.message.endswith("but it wrote into the cotangent of the output")

"""A number appears only for who was right before and after it was taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness import memory, passes
from harness.clock import FakeClock
from harness.implementation import Capabilities
from harness.layer import Mode
from harness.limit import Limits
from harness.measure import measure
from harness.record import Throughput
from harness.registry import builtin
from harness.sampling import Budget
from harness.switches import switched
from harness.tests.samples import CASE, Doubled, implementation
from harness.watch import Seen, Watch, sentences
from harness.workload import Pass, Workload, work_of

BUDGET = Budget(seconds=0.0, least_rounds=3, sample_seconds=0.0, warmup_seconds=0.0)
INFERENCE, _, BACKWARD, TRAINING, STREAMING = (Workload("tests", CASE, timed) for timed in Pass)


def ticking(clock: FakeClock, behaviour: Callable[..., Any] = nn.GRU.forward, seconds: float = 0.5) -> Callable[..., Any]:
    """A forward that lets time pass."""

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(seconds)
        return behaviour(self, *arguments)

    return forward


def one(behaviour: Any, workload: Workload = INFERENCE, **options: Any) -> Throughput:
    clock = FakeClock()
    cell = implementation(behaviour if isinstance(behaviour, type) else ticking(clock, behaviour), **options)
    (record,) = measure(workload, [cell], BUDGET, clock)
    return record


def has_no_number(record: Throughput) -> bool:
    times = (record.first_call, record.tokens_per_second, record.flops_per_second)
    return record.samples == [] and record.rounds == [] and times == (None, None, None)


def raising(error: BaseException, calls: int = 0) -> Callable[..., Any]:
    def forward(self: Any, *arguments: Any) -> Any:
        self.count = getattr(self, "count", 0) + 1
        if self.count > calls:
            raise error
        return nn.GRU.forward(self, *arguments)

    return forward


@pytest.mark.parametrize("workload", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_who_is_right_has_samples_rates_and_agreement(workload: Workload) -> None:
    record = one(nn.GRU.forward, workload)
    assert (record.outcome, record.message) == ("passed", "")
    assert record.samples == [0.5] * 3 and record.rounds == [0, 1, 2] and record.first_call == 0.5
    assert record.tokens == 8 and record.tokens_per_second == 16.0
    assert record.flops == work_of(workload).flops and record.flops_per_second == 2 * record.flops
    quantities = {"output", "h_n"} | (set() if workload is INFERENCE else {"x", *CASE.layer.parameter_shapes()})
    for when in ("before", "after"):
        assert {one["quantity"] for one in record.agreement[when]} == quantities
    assert record.agreement["before"] != record.agreement["after"]
    assert record.settings["grad"] == (workload is TRAINING) and record.timed_pass == workload.timed.value


@pytest.mark.parametrize("mode", ["gru", "lstm"])
@pytest.mark.parametrize("timed", list(Pass))
def test_every_pass_is_checked_against_the_oracle(timed: Pass, mode: str) -> None:
    layer = replace(CASE.layer, mode=Mode(mode), num_layers=2, bidirectional=timed is not Pass.STREAMING)
    workload = Workload("tests", replace(CASE, layer=layer), timed)
    (record,) = measure(workload, [builtin()["loop:textbook"]], BUDGET)
    assert (record.outcome, record.message) == ("passed", "") and record.samples
    quantities = {one["quantity"] for one in record.agreement["after"]}
    answered = {"output", "h_n"} | ({"c_n"} if mode == "lstm" else set())
    assert quantities == answered | ({"x", *workload.case.layer.parameter_shapes()} if timed.goes_back else set())


@pytest.mark.parametrize(("timed", "seconds"), [(Pass.FORWARD, 0.5), (Pass.BACKWARD, 0.25), (Pass.TRAINING, 0.75), (Pass.STREAMING, 2.0)])
def test_a_pass_times_what_it_is_called_after(timed: Pass, seconds: float) -> None:
    clock = FakeClock()

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, output: torch.Tensor) -> torch.Tensor:
            return output.clone()

        @staticmethod
        def backward(context: Any, *gradient: torch.Tensor) -> torch.Tensor:
            clock.advance(0.25)
            return gradient[0]

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(0.5)
        output, h_n = nn.GRU.forward(self, *arguments)
        return Slow.apply(output), h_n

    (record,) = measure(Workload("tests", CASE, timed), [implementation(forward)], BUDGET, clock)
    assert (record.outcome, record.message) == ("passed", "") and set(record.samples) == {seconds}, "of 4 steps"


def test_a_layer_that_forgets_the_state_between_the_steps_of_a_streamhas_no_number() -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        return nn.GRU.forward(self, input, hx if input.shape[0] > 1 else torch.zeros_like(hx))

    assert one(forward).outcome == "passed"
    record = one(forward, STREAMING)
    assert record.outcome == "failed" and "first at output[0, 0, 0]" in record.message and has_no_number(record)


def test_the_first_calls_are_told_one_byone() -> None:
    clock, paces = FakeClock(), iter([8.0, 2.0])

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(next(paces, 0.01))
        return nn.GRU.forward(self, *arguments)

    (record,) = measure(INFERENCE, [implementation(forward)], BUDGET, clock)
    assert record.warm_up == [8.0, 2.0] and record.first_call == 8.0
    (quick,) = measure(INFERENCE, [implementation(ticking(clock, seconds=1e-3))], BUDGET, clock)
    assert len(quick.warm_up) == 5, "where they take no time, some more are looked at"


def test_a_gpu_has_three_times_and_the_host_alone_hasone() -> None:
    clock = FakeClock(asynchronous=True)

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(0.125)
        clock.work(0.5)
        return nn.GRU.forward(self, *arguments)

    (record,) = measure(INFERENCE, [implementation(forward)], BUDGET, clock)
    assert (set(record.samples), set(record.issued), set(record.device_samples)) == ({0.625}, {0.125}, {0.625})
    alone = one(nn.GRU.forward)
    assert alone.samples and alone.issued == alone.device_samples == []


def test_cold_caches_are_overwritten_before_every_call_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, flushed, made = FakeClock(), [], 0

    class Buffer:
        def __init__(self) -> None:
            nonlocal made
            made += 1

        def zero_(self) -> None:
            clock.advance(100.0)
            flushed.append(1)

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: Buffer() if size == (1 << 27,) else empty(*size, **options))
    budget = replace(BUDGET, sample_seconds=10.0)
    (hot,) = measure(INFERENCE, [implementation(ticking(clock))], budget, clock)
    assert not flushed and hot.calls == 20 and hot.settings["caches"] == "hot"
    (cold,) = measure(INFERENCE, [implementation(ticking(clock))], budget, clock, cold=True)
    assert cold.samples == [0.5] * 3 and cold.calls == 1 and cold.settings["caches"] == "cold"
    assert len(flushed) >= 4 and made == 1
    several = [implementation(ticking(clock), id) for id in ("sample:a", "sample:b")]
    assert [len(record.samples) for record in measure(INFERENCE, several, budget, clock, cold=True)] == [3, 3]
    assert made == 2, "one for both of them"


def test_the_largest_batch_that_fitted_is_told() -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        if input.shape[1] > 3:
            raise torch.OutOfMemoryError("too much")
        return nn.GRU.forward(self, input, hx)

    large = replace(INFERENCE, case=replace(CASE, batch=14))
    record = one(forward, large)
    assert (record.outcome, record.fits, record.message) == ("out-of-memory", {"batch": 3}, "too much; with B=3 it fits")
    never = one(raising(MemoryError("too much")), large)
    assert never.fits == {"batch": 0} and "no smaller batch" in never.message


def test_the_peak_memory_of_a_call_is_told_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(self: nn.GRU, *arguments: Any) -> Any:
        torch.ones(30 << 20, dtype=torch.uint8)
        return nn.GRU.forward(self, *arguments)

    found = one(hungry).memory
    assert "unavailable" in found or abs(found["bytes"] - (30 << 20)) < 2 * found["resolution"] + (1 << 20)

    def unmeasurable(call: Any, device: str, calls: int) -> Any:
        raise memory.UnmeasurableError(f"not on {device}")

    monkeypatch.setattr(memory, "peak", unmeasurable)
    assert one(nn.GRU.forward).memory == {"unavailable": "not on cpu"}


def test_what_has_no_room_for_several_calls_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(call: Any, device: str, calls: int) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(memory, "peak", no_room)
    record = one(nn.GRU.forward, TRAINING)
    assert record.outcome == "passed" and record.samples
    assert record.memory == {"unavailable": "there was not enough memory for several calls"}


def test_the_limit_stands_beside_the_times_where_rates_are_measured() -> None:
    clock = FakeClock()

    def taking(seconds: float) -> Callable[[], None]:
        return lambda: clock.advance(seconds)

    limits = Limits(lambda device: clock, lambda *shape: taking(1.0), lambda size, device: {"copy": taking(size / 1e3)})
    (record,) = measure(INFERENCE, [implementation(ticking(clock))], BUDGET, clock, limits=limits)
    found = limits.of(CASE, work_of(INFERENCE))
    assert record.limit["seconds"] == found.seconds == pytest.approx(work_of(INFERENCE).bytes / 1e3)
    assert record.limit["bound"] == "memory"
    assert record.limit["bytes"] == work_of(INFERENCE).bytes and record.limit["memory_bytes_per_second"] == pytest.approx(1e3)
    assert one(nn.GRU.forward).limit == {}


def test_a_stream_reads_its_weights_at_every_step() -> None:
    whole, stream = work_of(INFERENCE), work_of(STREAMING)
    weights = sum(math.prod(shape) for shape in CASE.layer.parameter_shapes().values())
    states = 2 * math.prod(CASE.layer.h_shape(CASE.batch))
    assert stream.flops == whole.flops and stream.bytes - whole.bytes == 4 * (CASE.steps - 1) * (weights + states)


def test_what_the_machine_did_meanwhile_stands_beside_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Seen(seconds=2.0, others=0.5)
    monkeypatch.setattr(Watch, "seen", lambda self: busy)
    record = one(nn.GRU.forward)
    assert record.evidence["others"] == 0.5 and record.evidence["told"] == sentences(busy) != []
    assert one(Doubled).evidence == {}, "it has no times"


def test_a_record_says_why_no_more_samples_were_taken() -> None:
    clock = FakeClock()
    paces = {"torch:base": 1e-2, "sample:slow": 2e-2, "sample:close": 1.008e-2}
    cells = [implementation(ticking(clock, seconds=seconds), id) for id, seconds in paces.items()]
    wrong = implementation(ticking(clock, Doubled.forward), "sample:wrong")
    records = {r.implementation: r for r in measure(INFERENCE, [*cells, wrong], Budget(seconds=3.0), clock)}
    assert {id: record.stopped for id, record in records.items()} == {
        # The baseline has nobody to be decided against.
        "torch:base": "time",
        "sample:slow": "decided",
        # Where no two rounds differ, a little is enough.
        "sample:close": "decided",
        "sample:wrong": "",
    }
    short = measure(INFERENCE, cells, Budget(seconds=0.1), clock)
    assert {record.stopped for record in short} == {"time"}, "it was spent before the first look"


@pytest.mark.parametrize(
    ("asked", "baseline"), [("", "torch:b"), ("sample:a", "sample:a"), ("sample:elsewhere", "torch:b"), ("sample:wrong", "torch:b")]
)
def test_the_baseline_is_sampled_to_the_end_and_is_one_that_could_be_timed(asked: str, baseline: str) -> None:
    clock = FakeClock()
    paces = {"sample:a": 1e-2, "torch:b": 2e-2, "sample:c": 4e-2}
    cells = [implementation(ticking(clock, seconds=seconds), id) for id, seconds in paces.items()]
    wrong = implementation(ticking(clock, Doubled.forward), "sample:wrong")
    records = measure(INFERENCE, [wrong, *cells], Budget(), clock, asked)
    assert [r.implementation for r in records if r.stopped == "time"] == [baseline]
    assert {r.implementation for r in records if r.stopped == "decided"} == set(paces) - {baseline}


def test_switches_and_gradient_mode_are_as_the_pass_says_in_every_call() -> None:
    seen: set[Any] = set()

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.add((torch.is_grad_enabled(), self.training, torch.backends.mkldnn.enabled, torch.backends.cudnn.allow_tf32))
        return nn.GRU.forward(self, *arguments)

    for workload, training in ((INFERENCE, False), (TRAINING, True)):
        seen.clear()
        assert one(forward, workload, switches=lambda: switched("mkldnn", False)).outcome == "passed"
        assert seen == {(training, training, False, False)}
    assert torch.backends.mkldnn.enabled and torch.is_grad_enabled()


def test_tf32_is_allowed_in_every_call_of_a_workload_that_asks_for_it_and_in_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Any] = set()

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        seen.add((input.dtype, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        # What TF32 makes of it.
        output, h_n = nn.GRU.forward(self, input.half().float(), hx)
        return output, h_n

    narrow = replace(TRAINING, case=replace(CASE, dtype="tf32"))
    refused = one(forward, narrow)
    assert refused.outcome == "unsupported" and "cpu has no TF32: CUDA devices have it from compute capability 8.0 on" in refused.message
    monkeypatch.setattr(passes, "_has_tf32", lambda device: True)
    record = one(forward, narrow)
    assert (record.outcome, record.dtype, record.settings["tf32"]) == ("passed", "tf32", True)
    assert seen == {(torch.float32, True, True)} and "-tf32-" in record.workload
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, False)
    assert one(forward, TRAINING).outcome == "failed", "in float32 as much is wrong"


def test_a_layer_for_float32_is_one_for_tf32() -> None:
    case = replace(CASE, dtype="tf32")
    assert Capabilities(dtypes=frozenset({"float32"})).lacks(case) is None
    assert Capabilities(dtypes=frozenset({"float16"})).lacks(case) == "declared as not supported: dtype tf32"


def test_all_timed_calls_see_the_inputs_of_the_workload_and_agreement_sees_fresh_ones() -> None:
    seen: list[float] = []

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.append(float(arguments[0].sum()))
        return nn.GRU.forward(self, *arguments)

    assert one(forward).outcome == "passed"
    own = float(torch.tensor(CASE.arrays.x, dtype=torch.float32).sum())
    fresh = [float(torch.tensor(replace(CASE, inputs_seed=k).arrays.x, dtype=torch.float32).sum()) for k in (1, 2)]
    others = [value for value in seen if value != pytest.approx(own)]
    assert others == pytest.approx(fresh) and seen[0] == pytest.approx(own)


def test_the_kernels_that_ran_are_recorded() -> None:
    lstm = Workload("tests", replace(CASE, layer=replace(CASE.layer, mode=Mode.LSTM)), Pass.INFERENCE)
    onednn, off, loop = measure(lstm, [builtin()[id] for id in ("torch:onednn", "torch:onednn-off", "loop:textbook")], BUDGET)
    assert "aten::mkldnn_rnn_layer" in onednn.kernels and "aten::mkldnn_rnn_layer" not in off.kernels
    assert any("addmm" in kernel or "mm" in kernel for kernel in loop.kernels)
    assert {onednn.outcome, off.outcome, loop.outcome} == {"passed"}


def test_all_implementations_of_a_workload_are_timed_on_the_same_memory() -> None:
    seen: set[int] = set()

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        seen.add(input.data_ptr())
        return nn.GRU.forward(self, input, hx)

    for workload in (INFERENCE, TRAINING):
        seen.clear()
        records = measure(workload, [implementation(forward, "sample:a"), implementation(forward, "sample:b")], BUDGET)
        assert [record.outcome for record in records] == ["passed"] * 2 and len(seen) == 1


@pytest.mark.parametrize(("largest", "overwritten"), [(0, 1 << 27), (32 << 20, 1 << 27), (260 << 20, 520 << 20)])
def test_as_much_is_overwritten_as_no_cache_of_the_machine_holds(largest: int, overwritten: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "largest_cache", lambda: largest)
    assert passes._cache_bytes("cpu") == overwritten

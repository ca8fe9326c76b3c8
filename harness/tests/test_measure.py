"""A number appears only for who was right before and after it was taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness import measure as measuring
from harness import memory, passes
from harness.clock import FakeClock
from harness.implementation import Capabilities
from harness.layer import Layer, Mode
from harness.limit import Limits
from harness.measure import measure
from harness.record import Throughput
from harness.registry import builtin
from harness.sampling import Budget
from harness.switches import switched
from harness.tests.samples import CASE, Doubled, implementation, label
from harness.watch import Seen, Watch, sentences
from harness.workload import Pass, Workload, WorkloadError, chosen, work_of

BUDGET = Budget(seconds=0.0, least_rounds=3, sample_seconds=0.0, warmup_seconds=0.0)
INFERENCE, _, BACKWARD, TRAINING, STREAMING = (Workload("tests", CASE, timed) for timed in Pass)


def ticking(clock: FakeClock, behaviour: Callable[..., Any] = nn.GRU.forward, seconds: float = 0.5) -> Callable[..., Any]:
    """A forward that lets time pass."""

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(seconds)
        return behaviour(self, *arguments)

    return forward


def _one(behaviour: Any, workload: Workload = INFERENCE, **options: Any) -> Throughput:
    clock = FakeClock()
    cell = implementation(behaviour if isinstance(behaviour, type) else ticking(clock, behaviour), **options)
    (record,) = measure(workload, [cell], BUDGET, clock)
    return record


def _has_no_number(record: Throughput) -> bool:
    times = (record.first_call, record.tokens_per_second, record.flops_per_second)
    return record.samples == [] and record.rounds == [] and times == (None, None, None)


@pytest.mark.parametrize("workload", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_who_is_right_has_samples_rates_and_agreement(workload: Workload) -> None:
    record = _one(nn.GRU.forward, workload)
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


def test_a_layer_that_forgets_the_state_between_the_steps_of_a_stream_has_no_number() -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        return nn.GRU.forward(self, input, hx if input.shape[0] > 1 else torch.zeros_like(hx))

    assert _one(forward).outcome == "passed"
    record = _one(forward, STREAMING)
    assert record.outcome == "failed" and "first at output[0, 0, 0]" in record.message and _has_no_number(record)


def test_the_first_calls_are_told_one_by_one() -> None:
    clock, paces = FakeClock(), iter([8.0, 2.0])

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(next(paces, 0.01))
        return nn.GRU.forward(self, *arguments)

    (record,) = measure(INFERENCE, [implementation(forward)], BUDGET, clock)
    assert record.warm_up == [8.0, 2.0] and record.first_call == 8.0
    (quick,) = measure(INFERENCE, [implementation(ticking(clock, seconds=1e-3))], BUDGET, clock)
    assert len(quick.warm_up) == 5, "where they take no time, some more are looked at"


def test_a_gpu_has_three_times_and_the_host_alone_has_one() -> None:
    clock = FakeClock(asynchronous=True)

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        clock.advance(0.125)
        clock.work(0.5)
        return nn.GRU.forward(self, *arguments)

    (record,) = measure(INFERENCE, [implementation(forward)], BUDGET, clock)
    assert (set(record.samples), set(record.issued), set(record.device_samples)) == ({0.625}, {0.125}, {0.625})
    alone = _one(nn.GRU.forward)
    assert alone.samples and alone.issued == alone.device_samples == []


def test_cold_caches_are_overwritten_before_every_call_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, flushed = FakeClock(), []

    class Buffer:
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
    assert len(flushed) >= 4


def test_the_largest_batch_that_fitted_is_told() -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        if input.shape[1] > 3:
            raise torch.OutOfMemoryError("too much")
        return nn.GRU.forward(self, input, hx)

    large = replace(INFERENCE, case=replace(CASE, batch=14))
    record = _one(forward, large)
    assert (record.outcome, record.fits, record.message) == ("out-of-memory", {"batch": 3}, "too much; with B=3 it fits")
    never = _one(_raising(MemoryError("too much")), large)
    assert never.fits == {"batch": 0} and "no smaller batch" in never.message


def test_the_peak_memory_of_a_call_is_told_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(self: nn.GRU, *arguments: Any) -> Any:
        torch.ones(30 << 20, dtype=torch.uint8)
        return nn.GRU.forward(self, *arguments)

    reason = memory.unavailable("cpu")
    found = _one(hungry).memory
    assert found == {"unavailable": reason} if reason else abs(found["bytes"] - (30 << 20)) < 2 * found["resolution"] + (1 << 20)
    monkeypatch.setattr(memory, "unavailable", lambda device: f"not on {device}")
    assert _one(nn.GRU.forward).memory == {"unavailable": "not on cpu"}


def test_what_has_no_room_for_several_calls_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(call: Any, device: str, calls: int) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(memory, "unavailable", lambda device: None)
    monkeypatch.setattr(memory, "peak", no_room)
    record = _one(nn.GRU.forward, TRAINING)
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
    assert _one(nn.GRU.forward).limit == {}


def test_a_stream_reads_its_weights_at_every_step() -> None:
    whole, stream = work_of(INFERENCE), work_of(STREAMING)
    weights = sum(math.prod(shape) for shape in CASE.layer.parameter_shapes().values())
    states = 2 * math.prod(CASE.layer.h_shape(CASE.batch))
    assert stream.flops == whole.flops and stream.bytes - whole.bytes == 4 * (CASE.steps - 1) * (weights + states)


def test_what_the_machine_did_meanwhile_stands_beside_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Seen(seconds=2.0, others=0.5)
    monkeypatch.setattr(Watch, "seen", lambda self: busy)
    record = _one(nn.GRU.forward)
    assert record.evidence["others"] == 0.5 and record.evidence["told"] == sentences(busy) != []
    assert _one(Doubled).evidence == {}, "it has no times"


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


def _raising(error: BaseException, calls: int = 0) -> Callable[..., Any]:
    def forward(self: Any, *arguments: Any) -> Any:
        self.count = getattr(self, "count", 0) + 1
        if self.count > calls:
            raise error
        return nn.GRU.forward(self, *arguments)

    return forward


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
        (_raising(ValueError("no good")), INFERENCE, "failed", "a timed call raised ValueError: no good"),
        (_raising(ValueError("no good"), 6), INFERENCE, "failed", "a timed call raised ValueError: no good"),
        (_raising(SystemExit(0)), INFERENCE, "failed", "a timed call raised SystemExit: 0"),
        (_raising(NotImplementedError("no gru")), INFERENCE, "unsupported", "NotImplementedError: no gru"),
        (_raising(MemoryError("too much")), INFERENCE, "out-of-memory", "too much"),
        (_raising(MemoryError()), INFERENCE, "out-of-memory", "MemoryError"),
        (_raising(torch.OutOfMemoryError("too much\nand more")), TRAINING, "out-of-memory", "too much"),
        (_raising(RuntimeError("can't allocate memory: you tried")), INFERENCE, "out-of-memory", "can't allocate memory"),
        (_raising(RuntimeError("can't allocate memory: you tried"), 6), INFERENCE, "out-of-memory", "can't allocate memory"),
    ],
    ids=label,
)
def test_who_is_not_right_has_an_outcome_and_no_number(behaviour: Any, workload: Workload, outcome: str, message: str) -> None:
    record = _one(behaviour, workload)
    assert record.outcome == outcome and message in record.message, record.message
    assert _has_no_number(record)


def test_what_cannot_allocate_on_this_machine_is_out_of_memory() -> None:
    record = _one(lambda self, *arguments: torch.zeros(10**15))
    assert record.outcome == "out-of-memory" and _has_no_number(record)


def test_the_late_one_was_right_before() -> None:
    record = _one(_late)
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
    assert not built and all(_has_no_number(record) for record in records)


def test_nothing_is_run_on_a_device_that_this_process_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "unusable", lambda device: "CUDA error: unspecified launch failure")
    record = _one(nn.GRU.forward)
    assert (record.outcome, record.message) == (
        "unavailable",
        "this process cannot use cpu any more: CUDA error: unspecified launch failure",
    )
    assert _has_no_number(record)


def test_switches_and_gradient_mode_are_as_the_pass_says_in_every_call() -> None:
    seen: set[Any] = set()

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.add((torch.is_grad_enabled(), self.training, torch.backends.mkldnn.enabled, torch.backends.cudnn.allow_tf32))
        return nn.GRU.forward(self, *arguments)

    for workload, training in ((INFERENCE, False), (TRAINING, True)):
        seen.clear()
        assert _one(forward, workload, switches=lambda: switched("mkldnn", False)).outcome == "passed"
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
    refused = _one(forward, narrow)
    assert refused.outcome == "unsupported" and "cpu has no TF32: CUDA devices have it from compute capability 8.0 on" in refused.message
    monkeypatch.setattr(passes, "_has_tf32", lambda device: True)
    record = _one(forward, narrow)
    assert (record.outcome, record.dtype, record.settings["tf32"]) == ("passed", "tf32", True)
    assert seen == {(torch.float32, True, True)} and "-tf32-" in record.workload
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, False)
    assert _one(forward, TRAINING).outcome == "failed", "in float32 as much is wrong"


def test_a_layer_for_float32_is_one_for_tf32() -> None:
    case = replace(CASE, dtype="tf32")
    assert Capabilities(dtypes=frozenset({"float32"})).lacks(case) is None
    assert Capabilities(dtypes=frozenset({"float16"})).lacks(case) == "declared as not supported: dtype tf32"


def test_all_timed_calls_see_the_inputs_of_the_workload_and_agreement_sees_fresh_ones() -> None:
    seen: list[float] = []

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.append(float(arguments[0].sum()))
        return nn.GRU.forward(self, *arguments)

    assert _one(forward).outcome == "passed"
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


def test_flops_are_those_of_the_formula() -> None:
    # 2 * T * B * gates * H * (I + H): 2 * 4 * 2 * 3 * 4 * (3 + 4), and twice as much again to go back.
    of_pass = {timed: work_of(Workload("tests", CASE, timed)).flops for timed in Pass}
    assert of_pass == {timed: share * 1344 for timed, share in zip(Pass, (1, 1, 2, 3, 1), strict=True)}
    lstm = replace(CASE.layer, mode=Mode.LSTM, num_layers=2, bidirectional=True, proj_size=2)
    first, second = 2 * 4 * 4 * (3 + 2) + 2 * 4 * 2, 2 * 4 * 4 * (4 + 2) + 2 * 4 * 2
    assert work_of(Workload("tests", replace(CASE, layer=lstm), Pass.INFERENCE)).flops == 8 * 2 * (first + second)


def test_workloads_are_chosen_by_name_each_once() -> None:
    sets = {"a": (INFERENCE, TRAINING), "b": (INFERENCE,)}
    assert chosen(sets, ["b", "a", "b"]) == [INFERENCE, TRAINING]
    with pytest.raises(WorkloadError, match=r"no set of this name\. Known sets: a, b"):
        chosen(sets, ["c"])


@pytest.mark.parametrize(
    "change", [{"lengths": (2, 4)}, {"batch": 1, "batched": False}, {"layer": replace(CASE.layer, batch_first=True)}], ids=str
)
def test_a_form_that_cannot_be_checked_while_it_is_timed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="padded, batched and time-major"):
        Workload("tests", replace(CASE, **change), Pass.INFERENCE)


def test_a_layer_that_begins_at_the_end_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="cannot be streamed"):
        Workload("tests", replace(CASE, layer=replace(CASE.layer, bidirectional=True)), Pass.STREAMING)


def test_workloads_that_differ_have_different_ids() -> None:
    both = [INFERENCE, TRAINING, INFERENCE.on("cuda"), replace(INFERENCE, set="other"), replace(INFERENCE, case=replace(CASE, steps=9))]
    assert len({workload.id for workload in both}) == 5
    assert INFERENCE.id == "tests/gru-I3-H4-T4-B2-float32-cpu-inference"


def test_all_implementations_of_a_workload_are_timed_on_the_same_memory() -> None:
    seen: set[int] = set()

    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        seen.add(input.data_ptr())
        return nn.GRU.forward(self, input, hx)

    for workload in (INFERENCE, TRAINING):
        seen.clear()
        records = measure(workload, [implementation(forward, "sample:a"), implementation(forward, "sample:b")], BUDGET)
        assert [record.outcome for record in records] == ["passed"] * 2 and len(seen) == 1


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

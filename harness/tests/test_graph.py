"""A replay gives the layer's answers, keeps its hands off what it has given, and refuses what it cannot replay."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence

from harness.adapters import graph, recorded
from harness.adapters.graph import KEPT, recordings
from harness.case import Case
from harness.dispatch import kernels_of
from harness.layer import Layer, Mode
from harness.measure import measure
from harness.registry import builtin
from harness.sampling import Budget
from harness.tests.replays import made, play
from harness.workload import Pass, Workload

FAMILY = [id for id in builtin() if id.startswith("graph:")]


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)


def _pair(id: str = "graph:hoisted", mode: Mode = Mode.LSTM, **options: Any) -> tuple[Any, Any]:
    """A replayed layer and torch's own with the same weights, in float64."""
    torch.manual_seed(1)
    layer = Layer(mode, 3, 4, **options)
    theirs = builtin()["torch:onednn"].build(layer).double()
    ours = builtin()[id].build(layer).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _x(steps: int = 5, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(steps, batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _flat(answer: Any) -> list[Tensor]:
    output, state = answer
    return [output, *(state if isinstance(state, tuple) else (state,))]


def _same(ours: Any, theirs: Any) -> None:
    for mine, right in zip(_flat(ours), _flat(theirs), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-11, atol=1e-12)


def _gradients(module: nn.Module, x: Tensor, answer: Any = None) -> list[Tensor]:
    """Those of x and of every weight, from cotangents of everything that is answered."""
    values = _flat(module(x) if answer is None else answer)
    cotangents = [torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value) for value in values]
    return list(torch.autograd.grad(values, [x, *module.parameters()], cotangents, retain_graph=True))


@pytest.mark.parametrize("id", FAMILY)
@pytest.mark.parametrize("mode", Mode)
def test_answers_and_gradients_are_the_layers(id: str, mode: Mode) -> None:
    ours, theirs = _pair(id, mode, num_layers=2, bidirectional=True)
    h0 = torch.randn(4, 2, 4, dtype=torch.float64)
    hx: Any = (h0, h0 + 1) if mode is Mode.LSTM else h0
    for seed in range(3):
        x = _x(seed=seed)
        with torch.no_grad():
            _same(ours(x), theirs(x))
            _same(ours(x, hx), theirs(x, hx))
        x.requires_grad_()
        torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
    assert len(made) == 3 and recordings(ours) == 3, "without gradients, without them with a state, with gradients"


def test_anomaly_detection_looks_at_what_a_replay_gives() -> None:
    ours, theirs = _pair()
    x = _x().requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
        assert torch.is_anomaly_enabled()
        with pytest.raises(RuntimeError, match="returned nan values"):
            (ours(x)[0] * math.inf).sub(math.inf).sum().backward()


def test_the_second_call_of_a_form_records_nothing() -> None:
    ours, _ = _pair()
    with torch.no_grad():
        ours(_x())
        assert (made[0].recorded, made[0].replayed) == (1, 1)
        ours(_x(seed=1))
    assert len(made) == 1 and (made[0].recorded, made[0].replayed) == (1, 2) and made[0].warmed_up


def test_a_later_call_changes_no_earlier_answer_and_no_input() -> None:
    ours, theirs = _pair()
    first_x, second_x = _x(seed=1), _x(seed=2)
    given = first_x.clone()
    with torch.no_grad():
        first = ours(first_x)
        second = ours(second_x)
        _same(first, theirs(first_x))
        _same(second, theirs(second_x))
        for tensor in _flat(first):
            tensor.zero_()
        _same(ours(second_x), theirs(second_x))
    torch.testing.assert_close(first_x, given, rtol=0, atol=0)


def test_gradients_are_the_callers_own_too() -> None:
    ours, _ = _pair()
    x = _x().requires_grad_()
    first = _gradients(ours, x)
    kept = [gradient.clone() for gradient in first]
    _gradients(ours, _x(seed=3).requires_grad_())
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_going_back_through_a_call_after_others_came_is_right() -> None:
    ours, theirs = _pair()
    inputs = [_x(seed=seed).requires_grad_() for seed in range(3)]
    answers = [ours(x) for x in inputs]
    before = made[0].replayed
    for x, answer in list(zip(inputs, answers, strict=True))[::-1]:
        torch.testing.assert_close(_gradients(ours, x, answer), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
    # The last call's backward pass finds what it needs; the two before it are computed again.
    assert made[0].replayed - before == 3 + 2 and len(made) == 1


def test_going_back_twice_through_one_call_is_right() -> None:
    ours, theirs = _pair()
    x = _x().requires_grad_()
    answer = ours(x)
    right = _gradients(theirs, x)
    for _ in range(2):
        torch.testing.assert_close(_gradients(ours, x, answer), right, rtol=1e-11, atol=1e-12)


def test_a_state_carried_through_many_calls_has_the_gradients_of_one_long_call() -> None:
    ours, theirs = _pair()
    x = _x(steps=6).requires_grad_()
    state, outputs = None, []
    for step in x.split(1):
        output, state = ours(step, state)
        outputs.append(output)
    answer = torch.cat(outputs), state
    _same(answer, theirs(x))
    torch.testing.assert_close(_gradients(ours, x, answer), _gradients(theirs, x), rtol=1e-11, atol=1e-12)


def test_weights_that_change_in_place_are_used_without_a_new_recording() -> None:
    ours, theirs = _pair()
    with torch.no_grad():
        ours(_x())
        for module in (ours, theirs):
            module.weight_hh_l0.mul_(2)
        _same(ours(_x()), theirs(_x()))
    assert len(made) == 1


def test_a_weight_that_is_replaced_is_recorded_anew_in_the_place_of_the_old() -> None:
    ours, theirs = _pair()
    with torch.no_grad():
        for factor in (2.0, 0.5):
            ours(_x())
            for module in (ours, theirs):
                module.weight_hh_l0 = nn.Parameter(factor * module.weight_hh_l0)
            _same(ours(_x()), theirs(_x()))
    assert len(made) == 3 and recordings(ours) == 1


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


@pytest.mark.parametrize("names", [["weight_hh_l0"], ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]], ids=["one", "all"])
def test_weights_that_follow_from_others_are_followed(names: list[str]) -> None:
    ours, theirs = _pair()
    x = _x().requires_grad_()
    torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
    for factor in (2.0, 1.5):
        for module in (ours, theirs):
            for name in names:
                # The second time upon the first: the originals stay where they were.
                parametrize.register_parametrization(module, name, _Times(factor))
        for _ in range(2):
            torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
            for module in (ours, theirs):
                with torch.no_grad():
                    module.parametrizations.weight_hh_l0.original.mul_(1.5)
    assert len(made) == 2, "of the plain layer, and of one that is given its weights"
    other = {name: 1.5 * value for name, value in theirs.named_parameters()}
    with torch.no_grad():
        _same(torch.func.functional_call(ours, other, (x,)), torch.func.functional_call(theirs, other, (x,)))


@pytest.mark.parametrize("id", FAMILY)
@pytest.mark.parametrize("mode", Mode)
def test_weights_that_a_hook_works_out_are_followed(id: str, mode: Mode) -> None:
    ours, theirs = _pair(id, mode, num_layers=2, bidirectional=True, batch_first=True)
    x = _x().requires_grad_()
    for module in (ours, theirs):
        keep = torch.arange(module.weight_hh_l0.numel()).view_as(module.weight_hh_l0) % 3 > 0
        prune.custom_from_mask(module, "weight_hh_l0", keep)
    for _ in range(2):
        torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
        for module in (ours, theirs):
            with torch.no_grad():
                module.weight_hh_l0_orig.mul_(1.5)
    assert len(made) == 1


def _laid_elsewhere(self: nn.RNNBase) -> None:
    """What flattening does where there is cuDNN: the weights are moved into other memory."""
    with torch.no_grad():
        for weight in self._flat_weights:
            if isinstance(weight, Tensor) and not weight.is_meta:
                weight.set_(weight.detach().clone())  # type: ignore[call-overload]  # torch's stubs know other forms


@pytest.mark.parametrize("id", FAMILY)
def test_a_recording_reads_the_weights_where_they_lie_and_moves_none(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _pair(id)
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", _laid_elsewhere)
    lay, x = recorded.places(list(ours.parameters())), _x().requires_grad_()
    for factor in (1.0, 2.0):
        for module in (ours, theirs):
            with torch.no_grad():
                module.weight_hh_l0.mul_(factor)
        torch.testing.assert_close(_gradients(ours, x), _gradients(theirs, x), rtol=1e-11, atol=1e-12)
    assert recorded.places(list(ours.parameters())) == lay and len(made) == 1


def test_only_what_wants_a_gradient_gets_one() -> None:
    ours, theirs = _pair()
    for module in (ours, theirs):
        module.weight_hh_l0.requires_grad_(False)
    for module in (ours, theirs):
        output, (_, c_n) = module(_x())
        (output.sum() + c_n.sum()).backward()
    for (name, mine), (_, right) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (mine.grad is None) == (right.grad is None) == (name == "weight_hh_l0")
        if right.grad is not None:
            torch.testing.assert_close(mine.grad, right.grad, rtol=1e-11, atol=1e-12)


def test_a_weight_changed_between_forward_and_backward_is_refused_as_torch_refuses_it() -> None:
    ours, theirs = _pair()
    for module in (ours, theirs):
        output, _ = module(_x())
        with torch.no_grad():
            module.weight_hh_l0.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_what_cannot_go_back_says_so_only_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, output: Tensor) -> Tensor:
            return output.clone()

        @staticmethod
        def backward(context: Any, *gradient: Tensor) -> Any:
            raise RuntimeError("only in training")

    forward = nn.LSTM.forward

    def evaluated(self: nn.LSTM, *arguments: Any) -> Any:
        output, state = forward(self, *arguments)
        return OneWay.apply(output), state

    ours, theirs = _pair("graph:cudnn")
    right = theirs(_x())
    monkeypatch.setattr(nn.LSTM, "forward", evaluated)
    for _ in range(2):
        answer = ours(_x())
        _same(answer, right)
        with pytest.raises(RuntimeError, match="only in training"):
            answer[0].sum().backward()
    assert len(made) == 1


def test_a_module_keeps_so_many_recordings_and_those_of_the_last_forms() -> None:
    ours, theirs = _pair()
    with torch.no_grad():
        for steps in range(1, KEPT + 4):
            _same(ours(_x(steps)), theirs(_x(steps)))
        assert recordings(ours) == KEPT and len(made) == KEPT + 3
        ours(_x(KEPT + 3))
        assert len(made) == KEPT + 3, "it is there"
        _same(ours(_x(1)), theirs(_x(1)))
    assert recordings(ours) == KEPT and len(made) == KEPT + 4, "it was gone, and is recorded again"


def test_recordings_go_with_their_module_and_not_with_its_copies() -> None:
    ours, theirs = _pair()
    with torch.no_grad():
        ours(_x())
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert recordings(other) == 0
            _same(other(_x()), theirs(_x()))
            other.weight_hh_l0.zero_()
        _same(ours(_x()), theirs(_x()))
    reference, held = weakref.ref(ours), weakref.ref(next(iter(graph._RECORDINGS[ours].values())))
    del ours, other
    gc.collect()
    assert reference() is None and held() is None


@pytest.mark.parametrize("setting", ["enabled", "deterministic", "allow_tf32"])
def test_another_switch_is_another_form(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = _pair()
    with torch.no_grad():
        ours(_x())
        before = getattr(torch.backends.cudnn, setting)
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.cudnn, setting, not before)
            ours(_x())
        ours(_x())
    assert len(made) == 2


@pytest.mark.parametrize("id", FAMILY)
def test_forms_without_a_batch_or_with_it_first_and_strided_inputs_are_answered(id: str) -> None:
    ours, theirs = _pair(id, batch_first=True)
    x = _x().transpose(0, 1)
    h0 = torch.randn(1, 1, 4, dtype=torch.float64).expand(1, 5, 4)
    with torch.no_grad(), torch.inference_mode():
        _same(ours(_x()), theirs(_x()))
        _same(ours(_x()[0]), theirs(_x()[0]))
        _same(ours(x.transpose(0, 1), (h0, h0)), theirs(x.transpose(0, 1), (h0, h0)))
    _same(ours(_x()), theirs(_x()))


def test_what_has_nothing_to_record_is_answered_or_refused_as_by_the_layer() -> None:
    ours, theirs = _pair("graph:cudnn")
    _same(ours(_x()[:, :0]), theirs(_x()[:, :0]))
    for x, hx in ((_x()[:0], None), (_x()[..., :2], None), (_x().float(), None), (_x(), torch.zeros(1)), ("no tensor", None)):
        with pytest.raises(Exception) as right:  # noqa: PT011 - which one is what is asked
            theirs(x, hx)
        with pytest.raises(right.type):
            ours(x, hx)
    assert ours.to("meta")(_x().to("meta"))[0].shape == (5, 2, 4)
    assert not any(recorder.recorded for recorder in made)


def _packed(module: Any) -> Any:
    return module(pack_padded_sequence(_x(), torch.tensor([5, 3])))


def _forward_mode(module: Any) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return module(torch.autograd.forward_ad.make_dual(_x(), _x()))


def _vmapped(module: Any) -> Any:
    return torch.vmap(lambda x: module(x)[0])(torch.stack([_x(), _x()]))


def _traced(module: Any) -> Any:
    return torch.jit.trace(module, _x())


def _exported(module: Any) -> Any:
    return torch.export.export(module, (_x(),))


@pytest.mark.parametrize("ask", [_packed, _forward_mode, _vmapped, _traced, _exported])
def test_what_cannot_be_replayed_is_refused(ask: Any) -> None:
    ours, _ = _pair()
    with torch.no_grad():
        ours(_x())
        with pytest.raises(Exception, match="a CUDA graph"):
            ask(ours)


def test_dropout_is_refused_where_it_acts_and_nowhere_else() -> None:
    ours, theirs = _pair(num_layers=2, dropout=0.5)
    with torch.no_grad():
        with pytest.raises(NotImplementedError, match="no dropout between layers in training"):
            ours(_x())
        _same(ours.eval()(_x()), theirs.eval()(_x()))
        ours.train().dropout = 0.0
        _same(ours(_x()), theirs(_x()))


def test_a_second_derivative_is_refused() -> None:
    ours, _ = _pair()
    x = _x().requires_grad_()
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)


def test_another_device_is_refused_and_its_row_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = _pair()
    monkeypatch.setattr(recorded, "DEVICE", "cuda")
    with pytest.raises(NotImplementedError, match="a CUDA graph runs on cuda and not on cpu"):
        ours(_x())
    graph.unavailable.cache_clear()
    for id in FAMILY:
        assert builtin()[id].unavailable("cpu") == "CUDA graphs do not run on cpu"
        if not torch.cuda.is_available():
            assert builtin()[id].unavailable("cuda") == "no CUDA device"


def test_a_device_that_does_not_record_makes_the_rows_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, device: torch.device) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert graph.unavailable.__wrapped__("cpu") is None
    monkeypatch.setattr(recorded, "recorder", Broken)
    why = graph.unavailable.__wrapped__("cpu")
    assert why == "recording a small LSTM raised RuntimeError: operation not permitted when stream is capturing"


def test_who_looks_at_the_kernels_sees_those_that_were_recorded() -> None:
    ours, theirs = _pair("graph:cudnn")
    ours, theirs = ours.float(), theirs.float()
    with torch.no_grad():
        ours(_x().float())
        for _ in range(2):
            assert kernels_of(lambda: ours(_x().float())) == kernels_of(lambda: theirs(_x().float())) != []
    assert recordings(ours) == 1


@pytest.mark.parametrize("timed", Pass)
def test_every_pass_is_timed_and_agrees(timed: Pass) -> None:
    workload = Workload("tests", Case(Layer(Mode.GRU, 3, 4), steps=4, batch=2), timed)
    budget = Budget(seconds=0.0, least_rounds=3, sample_seconds=0.0, warmup_seconds=0.0)
    (record,) = measure(workload, [replace(builtin()["graph:hoisted"], unavailable=lambda device: None)], budget)
    assert (record.outcome, record.message) == ("passed", "") and len(record.samples) == 3 and record.kernels


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_while_cuda_records(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph among the garbage is released, which CUDA does not permit in the middle of a capture: the capture is lost."""
    seen = []

    @contextmanager
    def captured(*arguments: Any, **options: Any) -> Iterator[None]:
        yield
        seen.append(gc.isenabled())

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", captured)
    recorder = recorded.CudaRecorder(torch.device("cuda"))

    def works() -> str:
        seen.append(gc.isenabled())
        return "answer"

    def fails() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("no capture")

    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        assert recorder.record(works)[0] == "answer"
        assert seen == [False, False] and gc.isenabled() is enabled
        with pytest.raises(RuntimeError, match="no capture"):
            recorder.record(fails)
        assert seen == [False] * 3 and gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()

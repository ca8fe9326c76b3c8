"""The built-in implementations are what their rows say."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.adapters import script
from harness.adapters.loop import direction as eager
from harness.adapters.native import unavailable
from harness.dispatch import kernels_of
from harness.implementation import Implementation
from harness.layer import Layer, Mode
from harness.registry import builtin
from harness.switches import equal_terms, switched
from harness.work import forward_flops

LOOPS = [i for i in builtin().values() if i.id.startswith(("loop:", "script:"))]
NATIVE = builtin()["torch:onednn"]


@pytest.fixture(params=LOOPS, ids=lambda i: i.id)
def loop(request: pytest.FixtureRequest) -> Implementation:
    found: Implementation = request.param
    return found


def _pair(loop: Implementation, layer: Layer) -> tuple[Any, Any]:
    """The loop's layer and torch's own with the same weights, in float64."""
    torch.manual_seed(1)
    theirs, ours = NATIVE.build(layer).double(), loop.build(layer).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _tensors(answer: Any) -> list[Tensor]:
    output, state = answer
    return [output.data if isinstance(output, PackedSequence) else output, *(state if isinstance(state, tuple) else (state,))]


def _assert_same(ours: Any, theirs: Any) -> None:
    for mine, right in zip(_tensors(ours), _tensors(theirs), strict=True):
        assert mine.shape == right.shape and mine.dtype == right.dtype
        torch.testing.assert_close(mine, right, rtol=1e-11, atol=1e-12)


def test_there_are_four_loops() -> None:
    assert [i.id for i in LOOPS] == ["loop:textbook", "loop:hoisted", "script:textbook", "script:hoisted"]


@pytest.mark.parametrize("mode", Mode)
def test_weights_go_over_and_back_and_answers_agree(loop: Implementation, mode: Mode) -> None:
    for layers, bidirectional, bias, batch_first in itertools.product((1, 2), (False, True), (True, False), (False, True)):
        proj = 2 if mode is Mode.LSTM and bias else 0
        layer = Layer(mode, 3, 4, num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first, proj_size=proj)
        ours, theirs = _pair(loop, layer)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        _assert_same(ours(x), theirs(x))
        _assert_same(ours(x[0]), theirs(x[0]))


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("mode", Mode)
def test_packed_sequences_agree_in_values_and_metadata(loop: Implementation, mode: Mode, enforce_sorted: bool) -> None:
    layer = Layer(mode, 3, 4, num_layers=2, bidirectional=True)
    ours, theirs = _pair(loop, layer)
    lengths = torch.tensor([6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4])
    packed = pack_padded_sequence(torch.randn(6, 4, 3, dtype=torch.float64), lengths, enforce_sorted=enforce_sorted)
    h0 = torch.randn(4, 4, 4, dtype=torch.float64)
    hx: Any = (h0, torch.randn_like(h0)) if layer.has_cell_state else h0
    mine, right = ours(packed, hx), theirs(packed, hx)
    _assert_same(mine, right)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, b = getattr(mine[0], name), getattr(right[0], name)
        assert (a is None and b is None) or torch.equal(a, b)


def test_dropout_acts_between_layers_in_training_only(loop: Implementation) -> None:
    x = torch.randn(50, 8, 3, dtype=torch.float64)
    ours, theirs = _pair(loop, Layer(Mode.LSTM, 3, 4, num_layers=2, dropout=0.5))
    _assert_same(ours.eval()(x), theirs.eval()(x))
    ours.train()
    torch.manual_seed(0)
    first, again = ours(x), ours(x)
    torch.manual_seed(0)
    _assert_same(ours(x), first)
    assert not torch.equal(first[0], again[0])
    # The lower layer has seen no dropout, and the output is not cut.
    torch.testing.assert_close(first[1][0][0], ours.eval()(x)[1][0][0])
    assert (first[0] != 0).all()


def test_dropout_of_everything_leaves_the_upper_layer_zeros(loop: Implementation) -> None:
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    ours, _ = _pair(loop, Layer(Mode.GRU, 3, 4, num_layers=2, dropout=1.0))
    torch.testing.assert_close(ours(x)[0], ours(100 * x)[0])
    assert not torch.allclose(ours.eval()(x)[0], ours(100 * x)[0])


@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last:UserWarning")
def test_one_layer_has_no_dropout(loop: Implementation) -> None:
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    ours, theirs = _pair(loop, Layer(Mode.GRU, 3, 4, dropout=0.9))
    _assert_same(ours.train()(x), theirs.eval()(x))


X = torch.randn(5, 2, 3, dtype=torch.float64)
H = torch.randn(1, 2, 4, dtype=torch.float64)
WRONG: dict[str, tuple[Any, Any]] = {
    "4-D input": (X[None], None),
    "1-D input": (X[0, 0], None),
    "input features": (X[..., :2], None),
    "one input feature": (X[..., :1], None),
    "input dtype": (X.float(), None),
    "no steps": (X[:0], None),
    "state layers": (X, H.repeat(2, 1, 1)),
    "state batch": (X, H[:, :1]),
    "state features": (X, H[..., :3]),
    "2-D state for 3-D input": (X, H[0]),
    "3-D state for 2-D input": (X[:, 0], H),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("mode", [Mode.RNN_TANH, Mode.GRU, Mode.LSTM])
def test_refuses_what_torch_refuses_with_the_same_exception(loop: Implementation, mode: Mode, what: str) -> None:
    ours, theirs = _pair(loop, Layer(mode, 3, 4))
    x, h = WRONG[what]
    hx = h if h is None or mode is not Mode.LSTM else (h, h)
    with pytest.raises(Exception) as right:  # noqa: PT011 - which one is what is asked
        theirs(x, hx)
    with pytest.raises(right.type) as mine:
        ours(x, hx)
    assert str(mine.value).strip()


@pytest.mark.parametrize("mode", Mode)
def test_copies_and_pickles_are_equal_and_independent(loop: Implementation, mode: Mode) -> None:
    ours, _ = _pair(loop, Layer(mode, 3, 4, num_layers=2))
    before = ours(X)
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(again) is type(ours)
        _assert_same(again(X), before)
        with torch.no_grad():
            again.weight_hh_l0.zero_()
        _assert_same(ours(X), before)
        assert not torch.allclose(again(X)[0], before[0])


def test_a_parameter_that_is_replaced_or_changed_is_used(loop: Implementation) -> None:
    ours, theirs = _pair(loop, Layer(Mode.LSTM, 3, 4))
    for module in (ours, theirs):
        module(X)
        module.weight_hh_l0 = nn.Parameter(2 * module.weight_hh_l0.detach())
    with switched("mkldnn", False):
        _assert_same(ours(X), theirs(X))
        for module in (ours, theirs):
            with torch.no_grad():
                module.weight_ih_l0.mul_(-1)
        _assert_same(ours(X), theirs(X))


def test_a_batch_of_no_sequences_is_answered(loop: Implementation) -> None:
    for mode in Mode:
        ours, theirs = _pair(loop, Layer(mode, 3, 4, num_layers=2, bidirectional=True))
        _assert_same(ours(X[:, :0]), theirs(X[:, :0]))


def test_only_the_hoisted_loops_multiply_all_inputs_at_once() -> None:
    products = {}
    for one in LOOPS:
        module = one.build(Layer(Mode.LSTM, 3, 4, bias=False))
        names: list[str] = []

        class Log(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                names.append(func.name())  # noqa: B023 - used up within the loop
                return func(*args, **(kwargs or {}))

        for _ in range(3):
            module(X.float())
        with torch.no_grad(), Log():
            module(X.float())
        products[one.id] = sum(name in ("aten::mm", "aten::addmm") for name in names)
    steps = len(X)
    assert products["loop:textbook"] == 2 * steps and products["loop:hoisted"] == steps + 1
    assert products["script:textbook"] == 2 * steps and products["script:hoisted"] == steps + 1


def _lstm_kernels(id: str) -> list[str]:
    implementation = builtin()[id]
    module = implementation.build(Layer(Mode.LSTM, 3, 4))
    with equal_terms(), implementation.switches(), torch.no_grad():
        return kernels_of(lambda: module(torch.zeros(2, 1, 3)))


def test_the_onednn_switch_changes_the_kernel_and_is_put_back() -> None:
    assert torch.backends.mkldnn.enabled
    assert _lstm_kernels("torch:onednn") == ["aten::mkldnn_rnn_layer"]
    assert torch.backends.mkldnn.enabled
    off = _lstm_kernels("torch:onednn-off")
    assert off and not any("mkldnn" in name for name in off)
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("backend", ["mkldnn", "cudnn"])
def test_a_switch_is_put_back_after_an_exception_too(backend: str) -> None:
    backends: Any = getattr(torch.backends, backend)
    before = backends.enabled
    seen = []

    def break_off() -> None:
        with switched(backend, not before):
            seen.append(backends.enabled)
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert seen == [not before] and backends.enabled is before


def test_a_switch_touches_no_other_setting() -> None:
    def settings() -> Any:
        return torch.backends.mkldnn.deterministic, torch.backends.mkldnn.allow_tf32, torch.get_float32_matmul_precision()

    before = settings()
    with switched("mkldnn", False):
        assert settings() == before


@pytest.mark.parametrize("id", ["script:textbook", "script:hoisted"])
def test_torchscript_is_given_no_tensor_that_is_negated_lazily(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []

    def compiled(*arguments: Any) -> Any:
        given.extend(one for one in arguments if isinstance(one, Tensor))
        return eager(*arguments)

    monkeypatch.setattr(script, "_compiled", lambda recording: compiled)
    negated = torch.complex(torch.zeros(1, 2, 4), torch.ones(1, 2, 4)).conj().imag
    builtin()[id].build(Layer(Mode.GRU, 3, 4))(torch.zeros(5, 2, 3), negated)
    assert negated.is_neg() and given and not any(one.is_neg() for one in given)


def test_rows_of_the_other_device_are_unavailable_with_a_reason() -> None:
    for id in ("torch:cudnn", "torch:cudnn-off"):
        assert builtin()[id].unavailable("cpu") == "cuDNN does not run on cpu"
    for id in ("torch:onednn", "torch:onednn-off"):
        assert builtin()[id].unavailable("cpu") is None
        assert builtin()[id].unavailable("cuda") == "oneDNN does not run on cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_cudnn_rows_are_unavailable_on_cuda_too() -> None:
    assert builtin()["torch:cudnn"].unavailable("cuda") == "no CUDA device"


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        ({True: ["aten::mm"], False: ["aten::mm"]}, "switching oneDNN on dispatched aten::mm: it has no kernel for this machine"),
        ({True: ["aten::mkldnn_rnn_layer"], False: ["aten::mkldnn_rnn_layer"]}, "switching oneDNN off dispatched aten::mkldnn_rnn_layer"),
    ],
)
def test_a_switch_that_does_not_act_makes_its_row_unavailable(
    kernels: dict[bool, list[str]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.adapters.native.kernels_of", lambda call: kernels[bool(torch.backends.mkldnn.enabled)])
    why = unavailable.__wrapped__("mkldnn", "cpu")
    assert why is not None and why.startswith(reason)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("proj", [0, 2])
def test_torch_counts_as_many_operations_in_a_loop_as_the_formula(mode: Mode, proj: int) -> None:
    if proj and mode is not Mode.LSTM:
        return
    layer = Layer(mode, 3, 4, num_layers=2, bidirectional=True, proj_size=proj)
    module = builtin()["loop:textbook"].build(layer)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(X.float())
    assert counter.get_total_flops() == forward_flops(layer, X.shape[0] * X.shape[1])


@pytest.fixture
def script_anew() -> None:
    """TorchScript has seen no call: what it makes of a call depends on those before."""
    script._compiled.cache_clear()


@pytest.mark.usefixtures("script_anew")
@pytest.mark.parametrize("id", ["script:textbook", "script:hoisted"])
def test_torchscript_takes_gradients_of_the_cell_state_alone(id: str) -> None:
    ours, theirs = _pair(builtin()[id], Layer(Mode.LSTM, 3, 5, num_layers=2))
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    for _ in range(3):
        mine, right = (torch.autograd.grad(layer(x)[1][1].sum(), layer.parameters(), allow_unused=True) for layer in (ours, theirs))
        for a, b in zip(mine, right, strict=True):
            torch.testing.assert_close(torch.zeros(()).double() if a is None else a, torch.zeros(()).double() if b is None else b)


@pytest.mark.usefixtures("script_anew")
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("id", ["script:textbook", "script:hoisted"])
def test_torchscript_has_right_second_derivatives_after_the_first_call_too(id: str, mode: Mode) -> None:
    ours, theirs = _pair(builtin()[id], Layer(mode, 3, 5, bias=False))
    x = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        for mine, right in zip(_second(ours, x), _second(theirs, x), strict=True):
            torch.testing.assert_close(mine, right)


def _second(layer: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a penalty on the gradients."""
    leaves = [x, *layer.parameters()]
    first = torch.autograd.grad(layer(x)[0].square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)


@pytest.mark.usefixtures("script_anew")
@pytest.mark.parametrize("id", ["script:textbook", "script:hoisted"])
def test_torchscript_answers_under_inference_mode_after_training_with_frozen_weights(id: str) -> None:
    trained, called = (builtin()[id].build(Layer(Mode.RNN_RELU, 3, 5, num_layers=2)) for _ in range(2))
    x = torch.randn(4, 2, 3)
    for kind, alone in itertools.product(("bias_hh", "bias_ih", "weight_hh", "weight_ih"), (False, True)):
        for name, parameter in trained.named_parameters():
            parameter.requires_grad_((kind in name) == alone)
        trained(x.clone().requires_grad_(not alone))[0].sum().backward()
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            assert called(x)[0].isfinite().all()

"""The loops over compiled steps answer as torch's layers do, compile once for all sizes, and never fall back in silence."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo import config
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters
from torch.nn.utils.rnn import pack_padded_sequence

from harness import passes
from harness.adapters import compiled, loop
from harness.case import Case
from harness.dispatch import compiled_kernels_of, kernels_of
from harness.layer import Layer, Mode
from harness.registry import builtin
from harness.workload import Pass, Workload

# torch.compile looks at the gradient of whatever it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

_UNAVAILABLE = compiled.unavailable("cpu")
compiles = pytest.mark.skipif(_UNAVAILABLE is not None, reason=str(_UNAVAILABLE))

FAMILY = ("compile:step", "compile:chunks")
#: One chunk and a step.
STEPS = compiled.CHUNK + 1


@pytest.fixture(params=FAMILY)
def id(request: pytest.FixtureRequest) -> Iterator[str]:
    with builtin()[request.param].switches():
        yield request.param


def _pair(id: str, layer: Layer) -> tuple[Any, Any]:
    torch.manual_seed(1)
    theirs, ours = builtin()["torch:onednn"].build(layer).double(), builtin()[id].build(layer).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _x(steps: int = STEPS, batch: int = 3, features: int = 3) -> Tensor:
    return torch.randn(steps, batch, features, dtype=torch.float64)


@pytest.mark.parametrize(
    ("batch_sizes", "expected"),
    [
        ([4, 4, 4, 4, 4], [(2, 4), (2, 4), (1, 4)]),
        ([4, 4, 3, 2, 2], [(2, 4), (1, 3), (2, 2)]),
        ([1], [(1, 1)]),
        ([3, 2, 1], [(1, 3), (1, 2), (1, 1)]),
    ],
)
def test_a_piece_has_one_batch_size(batch_sizes: list[int], expected: list[tuple[int, int]]) -> None:
    assert compiled.pieces(batch_sizes, 2) == expected
    assert compiled.pieces(batch_sizes, 1) == [(1, size) for size in batch_sizes]


@compiles
def test_packed_sequences_in_both_directions_agree_in_values_and_gradients(id: str) -> None:
    ours, theirs = _pair(id, Layer(Mode.RNN_TANH, 3, 4, num_layers=2, bidirectional=True))
    x = _x(STEPS + 2, batch=4)
    answers = []
    for module in (ours, theirs):
        given = x.clone().requires_grad_()
        output, h_n = module(pack_padded_sequence(given, torch.tensor([2, STEPS + 2, STEPS, STEPS]), enforce_sorted=False))
        (output.data.square().sum() + h_n.sum()).backward(retain_graph=True)
        (output.data.square().sum() + h_n.sum()).backward()
        answers.append([output.data, h_n, given.grad, *(p.grad for p in module.parameters())])
    for mine, right in zip(*answers, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-11, atol=1e-12)


@compiles
def test_other_lengths_and_sizes_compile_nothing_more(id: str) -> None:
    ours, _ = _pair(id, Layer(Mode.RNN_TANH, 3, 4))
    with torch.no_grad():
        ours(_x())
        graphs = counters["stats"]["unique_graphs"]
        ours(_x(3 * STEPS, batch=5))
        other, theirs = _pair(id, Layer(Mode.RNN_TANH, 6, 7))
        x = _x(features=6, batch=2)
        torch.testing.assert_close(other(x), theirs(x))
    assert graphs and counters["stats"]["unique_graphs"] == graphs


@compiles
def test_at_its_limit_it_raises_and_is_not_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = _pair("compile:step", Layer(Mode.RNN_TANH, 3, 4))
    monkeypatch.setattr(compiled, "LIMIT", 1)

    def call() -> None:
        for dtype in (torch.float64, torch.bfloat16):
            ours.to(dtype)(_x().to(dtype))

    with builtin()["compile:step"].switches(), torch.no_grad(), pytest.raises(FailOnRecompileLimitHit):
        call()


@compiles
def test_in_another_thread_the_limit_is_its_own_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # In later versions torch.compile's settings hold in the thread that sets them.
    ours, _ = _pair("compile:step", Layer(Mode.RNN_TANH, 3, 4))
    limits, direction, x = [], compiled.direction, _x()

    def seen(*arguments: Any) -> Any:
        limits.append(config.recompile_limit)
        return direction(*arguments)

    monkeypatch.setattr(compiled, "direction", seen)
    with builtin()["compile:step"].switches(), ThreadPoolExecutor(1) as pool, torch.no_grad():
        torch.testing.assert_close(pool.submit(torch.no_grad()(ours), x).result(), ours(x))
    assert limits == [compiled.LIMIT] * 2


@compiles
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
def test_who_watches_or_traces_gets_the_loop(id: str) -> None:
    ours, _ = _pair(id, Layer(Mode.RNN_TANH, 3, 4))
    x = _x()
    with torch.no_grad():
        assert "aten::addmm" in kernels_of(lambda: ours(x))
        traced = torch.jit.trace(ours, x)
        torch.testing.assert_close(traced(x), ours(x))
        with pytest.raises(NotImplementedError, match=r"torch\.func"):
            torch.func.vmap(lambda one: ours(one)[0])(torch.stack([x, x]))
        assert ours.to("meta")(x.to("meta"))[0].shape == (STEPS, 3, 4)


@compiles
def test_what_was_compiled_is_seen_in_a_call_and_in_a_backward_pass_alone(id: str) -> None:
    ours, theirs = _pair(id, Layer(Mode.RNN_TANH, 3, 4))
    x = _x()
    found = compiled_kernels_of(lambda: ours(x))
    assert found[0] == "torch.compile" and "aten::mm" in found
    output = ours(x)[0]
    assert compiled_kernels_of(lambda: output.sum().backward())[0] == "torch.compile"
    assert compiled_kernels_of(lambda: theirs(x)) == []


@compiles
def test_a_timed_cell_says_that_torch_compile_made_it() -> None:
    implementation = builtin()["compile:step"]
    for timed in (Pass.INFERENCE, Pass.BACKWARD):
        workload = Workload("sample", Case(Layer(Mode.RNN_TANH, 3, 4), steps=2, batch=3, dtype="float64"), timed)
        assert passes.kernels(passes.build(workload, implementation))[0] == "torch.compile"
    assert passes.kernels(passes.build(workload, builtin()["loop:hoisted"]))[0] != "torch.compile"


def test_without_what_it_calls_it_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    there: set[str] = set()
    monkeypatch.setattr("shutil.which", lambda name: name if name in there else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in there)
    no_headers = f"torch.compile needs Python's headers, and there is no {tmp_path / 'Python.h'}"
    assert compiled.unavailable("cpu") == "torch.compile needs the compiler g++, which is not installed"
    there.add("g++")
    assert compiled.unavailable("cpu") == no_headers
    assert compiled.unavailable("cuda") == "no CUDA device"
    there.add("cuda")
    assert compiled.unavailable("cuda") == "torch.compile needs triton for CUDA, which is not installed"
    there.add("triton")
    assert compiled.unavailable("cuda") == "torch.compile needs the compiler gcc or clang, which is not installed"
    there.add("clang")
    assert compiled.unavailable("cuda") == no_headers
    (tmp_path / "Python.h").touch()
    assert compiled.unavailable("cpu") is compiled.unavailable("cuda") is None
    monkeypatch.setenv("CXX", "mine")
    assert compiled.unavailable("cpu") == "torch.compile needs the compiler mine, which is not installed"


def test_a_chunk_is_its_steps() -> None:
    torch.manual_seed(0)
    from_x, h, weight = torch.randn(compiled.CHUNK * 2, 12), torch.randn(2, 3), torch.randn(12, 3)
    for reverse in (False, True):
        output, last, cell = compiled.chunk("lstm", reverse, from_x, h, h, weight, None, None)
        expected = loop.direction("lstm", True, reverse, from_x, compiled.CHUNK * [2], h, h, torch.eye(12), weight, None, None, None)
        for mine, right in zip((output, last, cell), expected, strict=True):
            torch.testing.assert_close(mine, right)

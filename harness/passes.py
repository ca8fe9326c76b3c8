"""What one timed call of each pass is, what has to be there before it, and how its answer is read and checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import Case
from harness.dispatch import compiled_kernels_of, kernels_of
from harness.environment import largest_cache
from harness.implementation import Implementation
from harness.reference import Expected, answer, gradients, tensor, to_array
from harness.sampling import Subject
from harness.switches import tf32
from harness.trial import ContractError, Trial
from harness.workload import Pass, Workload

#: Bytes that are overwritten at the least for cold caches on a CPU: few have larger ones.
_LEAST_OVERWRITTEN = 1 << 27

#: The outputs through which the backward pass goes back.
_THROUGH = ("output",)


@dataclass(frozen=True)
class Inputs:
    """What every implementation of a workload is timed on, in the same memory: ``leaves`` (x, h0, c0) and the cotangent of the output.

    Where an input of some size happens to lie counts. Of two instances of nn.LSTM (T=512, B=8, H=64) with an input each, 7 of 28
    comparisons called one of them different, by 1 to 2 %, mostly again when it was repeated; with one input for both, none of 28 did.
    """

    leaves: Mapping[str, Tensor]
    cotangent: Tensor

    @classmethod
    def of(cls, case: Case) -> Inputs:
        """Those of ``case``, on its device."""
        leaves = {name: tensor(array, case) for name, array in case.arrays.inputs().items()}
        return cls(leaves, tensor(case.arrays.cotangents["output"], case))


@dataclass(frozen=True)
class Cell:
    """One implementation on a workload, built and ready: the very object that is timed is the one that is checked.

    ``read``: what a call returned, as float64 arrays by the names of the expected tensors.
    """

    workload: Workload
    trial: Trial
    subject: Subject
    leaves: Mapping[str, Tensor]
    cotangent: Tensor
    read: Callable[[Any], dict[str, Any]]


def build(workload: Workload, implementation: Implementation, inputs: Inputs | None = None) -> Cell:
    """The layer with its inputs on the device, and one call of the pass. ``inputs``: those that it shares with others, or its own.

    Raises :class:`~harness.trial.ContractError` where the layer cannot be built or does not take the parameters of nn's, and
    NotImplementedError where the device has no such arithmetic.
    """
    case, timed = workload.case, workload.timed
    if case.dtype == "tf32" and not _has_tf32(case.device):
        raise NotImplementedError(f"{case.device} has no TF32: CUDA devices have it from compute capability 8.0 on")
    trial = Trial(implementation, case)
    with _on_equal_terms(implementation, case):
        # A layer whose gradients nobody wants is one in use, and switched to evaluation.
        module = trial.module().train(timed.records)
    inputs = inputs or Inputs.of(case)
    # Leaves of its own of the same memory: whether they want gradients is nothing to be shared.
    leaves, cotangent = {name: value.detach() for name, value in inputs.leaves.items()}, inputs.cotangent
    leaves["x"].requires_grad_(timed.records)
    form = trial.form(leaves)

    def read_answer(raw: Any) -> dict[str, Any]:
        return trial.structured(raw, form[0]).arrays()

    @contextmanager
    def context() -> Iterator[None]:
        with _on_equal_terms(implementation, case), torch.set_grad_enabled(timed.records):
            yield

    if timed.goes_back:
        wanted = {"x": leaves["x"], **trial.parameters(module)}

        def read_gradients(raw: Any) -> dict[str, Any]:
            answered, found = raw
            return {**read_answer(answered), **{name: to_array(gradient) for name, gradient in zip(wanted, found, strict=True)}}

        call = _training if timed is Pass.TRAINING else _backward
        subject = call(module, form, list(wanted.values()), cotangent, context)
        return Cell(workload, trial, subject, leaves, cotangent, read_gradients)
    if timed is Pass.STREAMING:

        def read_stream(raw: Any) -> dict[str, Any]:
            outputs, state = raw
            return trial.structured((torch.cat(outputs), state), form[0]).arrays()

        return Cell(workload, trial, Subject(_streaming(module, *form), context), leaves, cotangent, read_stream)

    return Cell(workload, trial, Subject(lambda: module(*form), context), leaves, cotangent, read_answer)


def _streaming(module: nn.Module, x: Tensor, hx: Any) -> Callable[[], Any]:
    steps = x.split(1)

    def stream() -> Any:
        state, outputs = hx, []
        for step in steps:
            output, state = module(step, state)
            outputs.append(output)
        return outputs, state

    return stream


def _training(module: nn.Module, form: Any, wanted: list[Tensor], cotangent: Tensor, context: Any) -> Subject:
    def train() -> Any:
        # autograd.grad and not backward(): the gradients are new each time, so there is nothing to clear and nothing to add up. The
        # answer is handed out beside them: gradients may be right where it is wrong, as that of the last layer's output is its cotangent.
        answered = module(*form)
        return answered, torch.autograd.grad(answered[0], wanted, cotangent)

    return Subject(train, context)


def _backward(module: nn.Module, form: Any, wanted: list[Tensor], cotangent: Tensor, context: Any) -> Subject:
    def forward() -> Any:
        return module(*form)

    def back(answered: Any) -> Any:
        return answered, torch.autograd.grad(answered[0], wanted, cotangent)

    # A graph serves one call: to keep it for another makes some kernels copy what they saved.
    return Subject(back, context, forward)


def _has_tf32(device: str) -> bool:
    return torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def _on_equal_terms(implementation: Implementation, case: Case) -> Iterator[None]:
    with tf32(allowed=case.dtype == "tf32"), implementation.switches(), warnings.catch_warnings():
        # What other people's code warns of breaks no contract, whatever pytest makes of warnings here.
        warnings.simplefilter("ignore")
        yield


def cold_caches(subjects: Mapping[str, Subject], device: str) -> dict[str, Subject]:
    """``subjects`` with the caches of ``device`` overwritten before every call, all by one buffer."""
    if not subjects:
        return {}
    buffer = torch.empty(_cache_bytes(device), dtype=torch.uint8, device=device)

    def cold(subject: Subject) -> Subject:
        def prepare() -> Any:
            given = subject.given()
            buffer.zero_()
            return given

        return replace(subject, call=lambda given: subject.call(*given), prepare=prepare, singly=True)

    return {name: cold(subject) for name, subject in subjects.items()}


def _cache_bytes(device: str) -> int:
    """More than any cache of ``device`` holds."""
    if torch.device(device).type == "cuda":
        return 2 * int(torch.cuda.get_device_properties(device).L2_cache_size)
    # A virtual machine may tell of less than there is, and another system than Linux tells nothing.
    return max(_LEAST_OVERWRITTEN, 2 * largest_cache())


def kernels(cell: Cell) -> list[str]:
    """The recurrent kernels that torch dispatches in one call, and whether torch.compile made it."""

    try:
        with cell.subject.context():
            given, again = cell.subject.given(), cell.subject.given()
            return compiled_kernels_of(lambda: cell.subject.call(*given)) or kernels_of(lambda: cell.subject.call(*again))
    except Exception as error:  # what cannot be watched runs all the same
        return [f"not observed: {type(error).__name__}"]


def agreement(cell: Cell, inputs_seed: int) -> list[dict[str, Any]]:
    """Calls the timed function on fresh inputs and compares with the oracle; the timed inputs are put back, whatever comes of it.

    The errors as in :class:`harness.record.Throughput`. Raises :class:`~harness.trial.ContractError` where they disagree, and where the
    call wrote into its inputs, which are those of others too.
    """
    own = cell.workload.case
    fresh = replace(own, inputs_seed=own.inputs_seed + inputs_seed)
    try:
        _load(cell, fresh)
        with cell.trial.blamed("a timed call"), cell.subject.context():
            raw = cell.subject.call(*cell.subject.given())
        found = cell.read(raw)
        loaded, shared = Inputs.of(fresh), {**cell.leaves, "the cotangent of the output": cell.cotangent}
        wanted = {**loaded.leaves, "the cotangent of the output": loaded.cotangent}
        written = [name for name, value in wanted.items() if not torch.equal(shared[name], value)]
        if written:
            raise ContractError(f"Expected a timed call to leave its inputs as they are, but it wrote into {', '.join(written)}")
        cell.trial.comparisons.clear()
        for expected in _expected(cell.workload.timed, fresh):
            cell.trial.agree(found, expected, only=[name for name in expected.tensors if name not in ("h0", "c0")])
    finally:
        _load(cell, own)
    return [comparison.as_json() for comparison in cell.trial.comparisons]


def _expected(timed: Pass, case: Case) -> list[Expected]:
    return [answer(case), gradients(case, _THROUGH)] if timed.goes_back else [answer(case)]


def _load(cell: Cell, case: Case) -> None:
    """Overwrites the timed inputs with those of ``case``, in place."""
    with torch.no_grad():
        for name, array in case.arrays.inputs().items():
            cell.leaves[name].copy_(tensor(array, case))
        cell.cotangent.copy_(tensor(case.arrays.cotangents["output"], case))

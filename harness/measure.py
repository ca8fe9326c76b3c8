"""One workload on several implementations: agreement with the oracle, samples, agreement again, a record each."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.case import Case
from harness.clock import Clock, HostClock
from harness.dispatch import kernels_of
from harness.implementation import Implementation, equal_terms
from harness.outcome import Outcome
from harness.record import Throughput
from harness.reference import Expected, answer, gradients, tensor, to_array
from harness.sampling import Budget, Subject, interleave, sample
from harness.trial import ContractError, Trial, lacks_memory
from harness.workload import Pass, Workload, baseline_of, flops

#: The outputs through which the training pass goes back, and the inputs that it goes back to besides the weights.
_THROUGH = ("output",)


@dataclass
class _Cell:
    """One implementation on the workload, built and ready: the very object that is timed is the one that is checked."""

    trial: Trial
    subject: Subject
    leaves: dict[str, Tensor]
    cotangent: Tensor
    read: Callable[[Any], dict[str, Any]]


def measure(
    workload: Workload, implementations: Sequence[Implementation], budget: Budget, clock: Clock | None = None, baseline: str = ""
) -> list[Throughput]:
    """Measures ``workload`` on each of ``implementations``; one record each, in their order.

    They are compared with ``baseline`` or, where that is not among those that can be timed, as :func:`baseline_of` says.

    Samples are in a record only if the implementation agreed with the oracle before and after they were taken, on inputs that
    it had not seen.
    """
    clock = clock or HostClock(workload.case.device)
    records = {i.id: _record(workload, i) for i in implementations}
    cells: dict[str, _Cell] = {}

    def conclude(id: str, outcome: Outcome, message: str) -> None:
        records[id] = replace(
            records[id],
            outcome=outcome.value,
            message=message,
            samples=[],
            rounds=[],
            first_call=None,
            tokens_per_second=None,
            flops_per_second=None,
        )
        cells.pop(id, None)

    for implementation in implementations:
        reason = implementation.unavailable(workload.case.device)
        lacks = implementation.capabilities.lacks(workload.case)
        if reason is not None:
            conclude(implementation.id, Outcome.UNAVAILABLE, reason)
        elif lacks is not None:
            conclude(implementation.id, Outcome.UNSUPPORTED, lacks)
        else:
            with _concluding(implementation.id, conclude):
                cell = _build(workload, implementation)
                first = sample(cell.subject, clock, 1)
                cells[implementation.id] = cell
                agreement = _agreement(workload, cell, inputs_seed=1)
                records[implementation.id] = replace(
                    records[implementation.id], first_call=first, kernels=_kernels(cell), agreement={"before": agreement}
                )
    subjects = {id: cell.subject for id, cell in cells.items()}
    taken = interleave(subjects, clock, budget, workload.case.seed, baseline_of(list(subjects), baseline))
    for id, cell in list(cells.items()):
        with _concluding(id, conclude):
            error = taken[id].error
            if error is not None:
                raise error
            agreement = _agreement(workload, cell, inputs_seed=2)
            record, median = records[id], statistics.median(taken[id].seconds)
            records[id] = replace(
                record,
                outcome=Outcome.PASSED.value,
                samples=taken[id].seconds,
                rounds=taken[id].rounds,
                calls=taken[id].calls,
                stopped=taken[id].stopped,
                tokens_per_second=record.tokens / median,
                flops_per_second=record.flops / median,
                agreement={**record.agreement, "after": agreement},
            )
    return [records[i.id] for i in implementations]


def _record(workload: Workload, implementation: Implementation) -> Throughput:
    case, layer = workload.case, workload.case.layer
    return Throughput(
        workload=workload.id,
        workload_set=workload.set,
        implementation=implementation.id,
        outcome=Outcome.UNAVAILABLE.value,
        mode=layer.mode.value,
        device=case.device,
        dtype=case.dtype,
        timed_pass=workload.timed.value,
        sequence_length=case.steps,
        batch_size=case.batch,
        input_size=layer.input_size,
        hidden_size=layer.hidden_size,
        tokens=case.steps * case.batch,
        flops=flops(workload),
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        proj_size=layer.proj_size,
        settings={"tf32": False, "grad": workload.timed is Pass.TRAINING},
        threads=torch.get_num_threads(),
    )


def _build(workload: Workload, implementation: Implementation) -> _Cell:
    """The layer with its inputs on the device, and one call of the pass as a function without arguments."""
    case = workload.case
    trial = Trial(implementation, case)
    training = workload.timed is Pass.TRAINING
    with equal_terms(), implementation.switches(), warnings.catch_warnings():
        # What other people's code warns of breaks no contract, whatever pytest makes of warnings here.
        warnings.simplefilter("ignore")
        module = trial.module().train(training)
    leaves = trial.leaves()
    leaves["x"].requires_grad_(training)
    input, hx = trial.form(leaves)
    cotangent = tensor(case.arrays.cotangents["output"], case)
    parameters = trial.parameters(module) if training else {}
    wanted = {"x": leaves["x"], **parameters}

    def infer() -> Any:
        return module(input, hx)

    def train() -> Any:
        # autograd.grad and not backward(): the gradients are new each time, so there is nothing to clear and nothing to add up.
        output, _ = module(input, hx)
        return torch.autograd.grad(output, list(wanted.values()), cotangent)

    def read_inference(raw: Any) -> dict[str, Any]:
        return trial.structured(raw, input).arrays()

    def read_training(raw: Any) -> dict[str, Any]:
        return {name: to_array(gradient) for name, gradient in zip(wanted, raw, strict=True)}

    @contextmanager
    def context() -> Iterator[None]:
        with equal_terms(), implementation.switches(), torch.set_grad_enabled(training), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    subject = Subject(train if training else infer, context)
    return _Cell(trial, subject, leaves, cotangent, read_training if training else read_inference)


def _agreement(workload: Workload, cell: _Cell, inputs_seed: int) -> list[dict[str, Any]]:
    """Calls the timed function on fresh inputs and compares with the oracle; the timed inputs are put back afterwards.

    Raises :class:`~harness.trial.ContractError` where they disagree.
    """
    fresh = replace(workload.case, inputs_seed=workload.case.inputs_seed + inputs_seed)
    _load(cell, fresh)
    with cell.trial.blamed("a timed call"), cell.subject.context():
        raw = cell.subject.call()
    expected = _expected(workload, fresh)
    cell.trial.comparisons.clear()
    cell.trial.agree(cell.read(raw), expected, only=[name for name in expected.tensors if name not in ("h0", "c0")])
    _load(cell, workload.case)
    return [comparison.as_json() for comparison in cell.trial.comparisons]


def _expected(workload: Workload, case: Case) -> Expected:
    return gradients(case, _THROUGH) if workload.timed is Pass.TRAINING else answer(case)


def _load(cell: _Cell, case: Case) -> None:
    """Overwrites the timed inputs with those of ``case``, in place."""
    with torch.no_grad():
        for name, array in case.arrays.inputs().items():
            cell.leaves[name].copy_(tensor(array, case))
        cell.cotangent.copy_(tensor(case.arrays.cotangents["output"], case))


def _kernels(cell: _Cell) -> list[str]:
    try:
        with cell.subject.context():
            return kernels_of(cell.subject.call)
    except Exception as error:  # what cannot run under a dispatch mode, as some compiled code, runs all the same
        return [f"not observed: {type(error).__name__}"]


@contextmanager
def _concluding(id: str, conclude: Callable[[str, Outcome, str], None]) -> Iterator[None]:
    """Turns what an implementation raises into the outcome of its cell."""
    try:
        yield
    except NotImplementedError as error:
        conclude(id, Outcome.UNSUPPORTED, f"NotImplementedError: {error}")
    except ContractError as error:
        conclude(id, Outcome.FAILED, str(error))
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        if lacks_memory(error):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            conclude(id, Outcome.OUT_OF_MEMORY, (str(error) or type(error).__name__).splitlines()[0])
        else:
            conclude(id, Outcome.FAILED, f"a timed call raised {type(error).__name__}: {error}")

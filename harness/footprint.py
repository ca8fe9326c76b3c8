"""The memory of a cell: the peak of one call, what there has to be before any and goes after all, and the batch that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from harness import memory
from harness.case import draw
from harness.environment import available_memory
from harness.passes import Cell
from harness.reference import answer, gradients
from harness.trial import lacks_memory, said
from harness.workload import Workload

#: Seconds that the calls may take in which the peak memory is looked for; a call that is longer is still made twice.
_SECONDS = 1.0

#: Bytes of this process for each number of the input and for each hidden unit of each layer and direction, at every time step and batch
#: item, while an LSTM's inference is held against the oracle; twice as many with gradients. Measured with T = B = 1000: 1.9 GB for
#: I = H = 16, 5.6 GB for I = 4, H = 64, and 4.3 GB for I = H = 16 in training.
_PER_INPUT, _PER_UNIT = 32, 80

#: The same for each weight, without gradients and with them: several cases draw their own, and a gradient of each is worked out in several
#: arithmetics. Measured with T = B = 1, I = H = 1024: 36 (LSTM) and 40 (GRU), in training 94 and 108.
_PER_WEIGHT = 40, 105


def needed(workload: Workload) -> int:
    """About how many bytes of this process the inputs of ``workload`` and the oracle's answer take, whoever is timed on it."""
    layer = workload.case.layer
    units = layer.num_layers * layer.directions * layer.hidden_size
    tokens, goes_back = workload.case.steps * workload.case.batch, workload.timed.goes_back
    weights = sum(math.prod(shape) for shape in layer.parameter_shapes().values())
    return tokens * (_PER_INPUT * layer.input_size + _PER_UNIT * units) * (2 if goes_back else 1) + weights * _PER_WEIGHT[goes_back]


def require_memory(workload: Workload) -> None:
    """Raises MemoryError where the inputs and the oracle's answer alone would not fit: the system would end the process then."""
    need, free = needed(workload), available_memory()
    if free is not None and need > free:
        raise MemoryError(f"inputs and the oracle's answer take about {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free")


def peak(cell: Cell, seconds: float) -> dict[str, Any]:
    """The peak memory of a call that takes about ``seconds``, as :class:`harness.record.Throughput` has it."""
    device = cell.workload.case.device
    calls = max(1, min(memory.CALLS, int(_SECONDS / seconds)))

    def call() -> Any:
        # Entered for each: the time of one call is limited.
        with cell.subject.context():
            return cell.subject.call(*given.pop())

    try:
        # Prepared beforehand: what a backward pass goes back through was there before it. One more, because the first is not counted.
        given = []
        for _ in range(calls + 1):
            with cell.subject.context():
                given.append(cell.subject.given())
        return asdict(memory.peak(call, device, calls))
    except memory.UnmeasurableError as error:
        return {"unavailable": str(error)}
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        if not lacks_memory(error):
            raise
        release(device)
        return {"unavailable": "there was not enough memory for several calls"}


def fitting(workload: Workload, build: Callable[[Workload], Cell]) -> tuple[int, str]:
    """The largest batch of which a call does not run out of memory, found by halving that of ``workload``, and the words for it.

    It is 0 where none was found.
    """
    batch = workload.case.batch
    while batch := batch // 2:
        smaller = replace(workload, case=replace(workload.case, batch=batch))
        try:
            require_memory(smaller)
            subject = build(smaller).subject
            with subject.context():
                subject.call(*subject.given())
        except (Exception, SystemExit) as error:  # other people's code may raise anything
            release(workload.case.device)
            if not lacks_memory(error):
                return 0, f"with B={batch} it raised {type(error).__name__}: {(said(error).splitlines() or [''])[0]}"
        else:
            return batch, f"with B={batch} it fits"
    return 0, "no smaller batch was found to fit"


def release(device: str) -> None:
    """Gives what torch keeps of ``device`` and does not use back to it."""
    if torch.device(device).type == "cuda":
        # A device that is lost gives nothing back.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def forget() -> None:
    """Gives up the numbers that were drawn and the answers that were worked out, for whoever asks next to have them made anew.

    They are kept for the contracts, which ask for the same small cases again and again. Of a large case they are gibibytes, and no two
    workloads have the same one.
    """
    for kept in (draw, answer, gradients):
        kept.cache_clear()

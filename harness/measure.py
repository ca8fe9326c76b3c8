"""One workload on several implementations: agreement with the oracle, samples, agreement again, a record each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch

from harness import footprint
from harness.clock import Clock, HostClock
from harness.implementation import Implementation
from harness.interrupts import Interrupt, interrupts_noted
from harness.limit import Limits
from harness.outcome import Outcome
from harness.passes import Cell, Inputs, agreement, build, cold_caches, kernels
from harness.record import Throughput
from harness.sampling import Budget, Samples, Stop, Subject, interleave
from harness.switches import unusable
from harness.trial import ContractError, lacks_memory
from harness.watch import Watch, sentences
from harness.workload import Workload, baseline_of, work_of

#: The first calls are timed one by one: so many, or as many as fill so many seconds, but no fewer than the least. TorchScript compiles in
#: the first two, torch.compile in the first and again where a size changes.
_WARM_UP_CALLS, _WARM_UP_SECONDS, _LEAST_CALLS = 5, 1.0, 2


def _nobody_listens(id: str) -> None:
    """Where nothing is to be told who is being called."""


class Interrupted(KeyboardInterrupt):
    """Sampling was interrupted from the keyboard; ``records`` have what was taken until then, and can be gone on from."""

    def __init__(self, records: list[Throughput]) -> None:
        super().__init__("sampling was interrupted")
        self.records = records


def measure(
    workload: Workload,
    implementations: Sequence[Implementation],
    budget: Budget,
    clock: Clock | None = None,
    baseline: str = "",
    cold: bool = False,
    limits: Limits | None = None,
    before: Mapping[str, Throughput] = MappingProxyType({}),
    calling: Callable[[str], None] = _nobody_listens,
) -> list[Throughput]:
    """Measures ``workload`` on each of ``implementations``; one record each, in their order.

    They are compared with ``baseline`` or, where that is not among those that can be timed, as :func:`baseline_of` says. ``cold``: the
    caches are overwritten before every timed call. ``limits``: what measures the rates from which the limit of the workload follows; it is
    not told without. ``before``: what an interrupted run had of it; what is missing is added. ``calling``: is told the id of an
    implementation whenever its code is about to run, and nothing ("") after it.

    Samples are in a record only if the implementation agreed with the oracle before and after they were taken, on inputs that
    it had not seen. Raises :class:`Interrupted` after an interrupt from the keyboard, with what was taken until then; a second one while
    samples are taken ends it at once, and they are lost.
    """
    clock = clock or HostClock(workload.case.device)
    drafts = {i.id: before.get(i.id, empty(workload, i, cold)) for i in implementations}
    book = _Book(workload, drafts, {id: before[id] for id in drafts if id in before})
    try:
        for implementation in implementations:
            if implementation.id not in before or _interrupted(before[implementation.id]):
                _begin(book, workload, implementation, clock, calling)
        _sample(book, clock, budget, baseline, cold, limits)
        for implementation in implementations:
            _search_fitting(book, implementation, calling)
    except KeyboardInterrupt as interrupt:
        raise Interrupted([book.records[id] for id in drafts if id in book.records]) from interrupt
    finally:
        # The next workload has other numbers, and these take memory in which it may have to find room.
        footprint.forget()
    return [book.records[i.id] for i in implementations]


@dataclass
class _Book:
    """The records of one workload as they come to be, by implementation, and the cells of those that are still timed.

    ``records``: what is known, and may be kept whatever happens next. ``drafts``: what becomes the record of a cell once it has its times.
    """

    workload: Workload
    drafts: dict[str, Throughput]
    records: dict[str, Throughput]
    cells: dict[str, Cell] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> Inputs:
        """What all are timed on; made when the first is built, after it was seen that there is memory for them."""
        return Inputs.of(self.workload.case)

    def conclude(self, id: str, outcome: Outcome, message: str) -> None:
        """The implementation has no times, and why."""
        self.records[id] = replace(
            self.drafts[id],
            outcome=outcome.value,
            message=message,
            stopped="",
            samples=[],
            rounds=[],
            issued=[],
            device_samples=[],
            warm_up=[],
            first_call=None,
            tokens_per_second=None,
            flops_per_second=None,
        )
        self.cells.pop(id, None)

    def blame(self, id: str) -> None:
        """Where the device is lost, the implementation that was just called answers for it, and no other can be timed here any more."""
        device = self.workload.case.device
        lost = unusable(device)
        if lost:
            said = self.records[id].message if id in self.records else ""
            self.conclude(id, Outcome.CRASHED, "\n".join(filter(None, (f"it left {device} unusable: {lost}", said))))
            for other in list(self.cells):
                self.conclude(other, Outcome.UNAVAILABLE, _no_longer(device, lost))


def _begin(book: _Book, workload: Workload, implementation: Implementation, clock: Clock, calling: Callable[[str], None]) -> None:
    """Builds a cell, makes its first calls and holds it against the oracle; it stands in the book if it can be timed."""
    id, device = implementation.id, workload.case.device
    with _during(calling, id):
        lost = unusable(device)
        reason = _no_longer(device, lost) if lost else implementation.unavailable(device)
    lacks = implementation.capabilities.lacks(workload.case)
    if reason is not None:
        book.conclude(id, Outcome.UNAVAILABLE, reason)
    elif lacks is not None:
        book.conclude(id, Outcome.UNSUPPORTED, lacks)
    else:
        with concluding(id, book.conclude):
            footprint.require_memory(workload)
            cell, draft = _told(workload, implementation, calling, book.inputs), book.drafts[id]
            warm_up = _warm_up(cell.subject, clock)
            book.drafts[id] = replace(
                draft,
                warm_up=draft.warm_up or warm_up,
                first_call=draft.first_call or warm_up[0],
                kernels=kernels(cell),
                agreement={"before": agreement(cell, inputs_seed=1)},
            )
            book.cells[id] = cell
        book.blame(id)


def _sample(book: _Book, clock: Clock, budget: Budget, baseline: str, cold: bool, limits: Limits | None) -> None:
    """Samples the cells of the book in turn, holds each against the oracle again and writes its times down.

    Raises KeyboardInterrupt after an interrupt, when that is done.
    """
    device, seed = book.workload.case.device, book.workload.case.seed
    subjects = {id: _accountable(book, id, cell.subject) for id, cell in book.cells.items()}
    subjects = cold_caches(subjects, device) if cold else subjects
    earlier = {id: _samples(record) for id, record in book.records.items() if record.samples}
    limits = limits if book.cells else None
    _limit(book.workload, limits)
    with Watch(device) as watch:
        taken = interleave(subjects, clock, budget.on(device), seed, baseline_of(list(subjects), baseline), earlier)
    seen = watch.seen()
    # An interrupt now would lose what was sampled and is not yet checked.
    with interrupts_noted() as interrupt:
        # Before and after are two moments of the machine: the better one is nearer to what it can do.
        common = {"limit": _limit(book.workload, limits, again=True), "evidence": {**asdict(seen), "told": sentences(seen)}}
        while book.cells:
            id = next(iter(book.cells))
            _finish(book, id, taken[id], common, interrupt)
    if interrupt.came or any(samples.stopped == Stop.INTERRUPTED for samples in taken.values()):
        raise KeyboardInterrupt


def _finish(book: _Book, id: str, taken: Samples, common: Mapping[str, Any], interrupt: Interrupt) -> None:
    """Holds a cell that was timed against the oracle again, and writes its times down; its memory is left out after an interrupt."""
    cell, draft = book.cells.pop(id), book.drafts[id]
    with concluding(id, book.conclude):
        if taken.error is not None:
            raise taken.error
        if not taken.seconds:
            # Interrupted before the first round: there is nothing of it to keep.
            return
        median = statistics.median(taken.seconds)
        after = agreement(cell, inputs_seed=2)
        if taken.stopped == Stop.INTERRUPTED:
            peak: dict[str, Any] = {}
        else:
            peak = {"unavailable": "the run was interrupted before"} if interrupt.came else footprint.peak(cell, median)
        book.records[id] = replace(
            draft,
            outcome=Outcome.PASSED.value,
            samples=taken.seconds,
            rounds=taken.rounds,
            issued=taken.issued,
            device_samples=taken.device,
            calls=taken.calls,
            untimed=taken.untimed,
            stopped=taken.stopped,
            tokens_per_second=draft.tokens / median,
            flops_per_second=draft.flops / median,
            agreement={**draft.agreement, "after": after},
            memory=peak,
            **common,
        )
    book.blame(id)


def _search_fitting(book: _Book, implementation: Implementation, calling: Callable[[str], None]) -> None:
    """Adds the largest batch that fits to the record of what ran out of memory."""
    id, workload = implementation.id, book.workload
    record = book.records[id]
    if record.outcome == Outcome.OUT_OF_MEMORY and not record.fits and not unusable(workload.case.device):
        batch, told = footprint.fitting(workload, partial(_told, implementation=implementation, calling=calling))
        book.records[id] = replace(record, fits={"batch": batch}, message=f"{record.message}; {told}")
        book.blame(id)


def _no_longer(device: str, lost: str) -> str:
    return f"this process cannot use {device} any more: {lost}"


def _accountable(book: _Book, id: str, subject: Subject) -> Subject:
    """``subject``, which answers for the device if it is lost in one of its samples: from then on everybody's calls raise."""

    @contextmanager
    def context() -> Iterator[None]:
        try:
            with subject.context():
                yield
        except (Exception, SystemExit):
            if id in book.cells:
                book.blame(id)
            raise

    return replace(subject, context=context)


@contextmanager
def _during(calling: Callable[[str], None], id: str) -> Iterator[None]:
    """Tells that the code of an implementation runs within."""
    calling(id)
    try:
        yield
    finally:
        calling("")


def _told(workload: Workload, implementation: Implementation, calling: Callable[[str], None], inputs: Inputs | None = None) -> Cell:
    """The cell, built; whenever it is called, it is told."""
    with _during(calling, implementation.id):
        cell = build(workload, implementation, inputs)
    if calling is _nobody_listens:
        return cell
    context = cell.subject.context

    @contextmanager
    def told() -> Iterator[None]:
        with _during(calling, implementation.id), context():
            yield

    return replace(cell, subject=replace(cell.subject, context=told))


def _interrupted(record: Throughput) -> bool:
    return record.stopped == Stop.INTERRUPTED


def _samples(record: Throughput) -> Samples:
    """What was taken, to be gone on from."""
    return Samples(
        record.calls,
        list(record.samples),
        list(record.rounds),
        list(record.issued),
        list(record.device_samples),
        stopped=record.stopped,
        untimed=record.untimed,
    )


def _warm_up(subject: Subject, clock: Clock) -> list[float]:
    """Seconds of the first calls, one by one."""
    taken: list[float] = []
    while len(taken) < _LEAST_CALLS or (len(taken) < _WARM_UP_CALLS and sum(taken) < _WARM_UP_SECONDS):
        taken.append(subject.sample(clock, 1).seconds)
    return taken


def _limit(workload: Workload, limits: Limits | None, again: bool = False) -> dict[str, Any]:
    """The limit of a call, as :class:`harness.record.Throughput` has it; nothing where torch cannot tell it."""
    if limits is None:
        return {}
    try:
        found = limits.of(workload.case, work_of(workload), again)
    except (RuntimeError, MemoryError):
        # Without memory or without the device: what was sampled is worth no less.
        return {}
    return {"seconds": found.seconds, "bound": found.bound.value, "bytes": found.work.bytes, **asdict(found.rates)}


def empty(workload: Workload, implementation: Implementation, cold: bool) -> Throughput:
    """The record of a cell of which nothing is known yet."""
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
        flops=work_of(workload).flops,
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        proj_size=layer.proj_size,
        bias=layer.bias,
        settings={"tf32": case.dtype == "tf32", "grad": workload.timed.records, "caches": "cold" if cold else "hot"},
        threads=torch.get_num_threads(),
    )


@contextmanager
def concluding(id: str, conclude: Callable[[str, Outcome, str], None]) -> Iterator[None]:
    """Turns what an implementation raises into the outcome of its cell."""
    try:
        yield
    except NotImplementedError as error:
        conclude(id, Outcome.UNSUPPORTED, f"NotImplementedError: {error}")
    except ContractError as error:
        conclude(id, Outcome.FAILED, str(error))
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        if lacks_memory(error):
            footprint.release("cuda" if torch.cuda.is_available() else "cpu")
            conclude(id, Outcome.OUT_OF_MEMORY, (str(error) or type(error).__name__).splitlines()[0])
        else:
            conclude(id, Outcome.FAILED, f"a timed call raised {type(error).__name__}: {error}")

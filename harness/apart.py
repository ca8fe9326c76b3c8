"""A workload measured in a process of its own, so that a layer that crashes or hangs is an outcome of its cell and the run goes on.

All implementations of a workload are measured in one process, in the same interleaved rounds as without: what is compared has to share a
process, or its layout in memory would be compared too. In memory that it shares with its parent the process says who is being called, and
since when. Where it dies, or a call does not end, or leaves it without its device, whoever that was is the culprit; the others are measured
again without it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import torch

from harness.child import Child
from harness.implementation import Implementation
from harness.isolation import PATIENCE
from harness.limit import Limits
from harness.measure import Interrupted, empty, measure
from harness.outcome import NOT_RUN, Outcome
from harness.record import Throughput
from harness.registry import builtin, resolve_all
from harness.sampling import Budget
from harness.workload import Workload

#: Seconds between two looks at whether a call has taken too long: rare enough to disturb none.
_LOOK = 1.0

#: Who is being called where nobody is.
_NOBODY = -1


class _Ended(Exception):
    """The process ended, or was ended, while the implementation in place ``called`` of those asked for was called."""

    def __init__(self, outcome: Outcome, message: str, called: int) -> None:
        super().__init__(message)
        self.outcome, self.message, self.called = outcome, message, called


class Apart:
    """A process that measures workloads; it is started at the first, or before by :meth:`prepare`, and again after a death.

    ``references`` name the implementations, which each new process resolves for itself. ``limit``: seconds that a call of one that is not
    built in may take before it counts as hanging, or the calls of one sample together.
    """

    def __init__(self, references: Sequence[str], limit: float) -> None:
        self._references, self._limit = tuple(references), limit
        self._child = Child("process that measures", _serve)
        # Who is being called, and since when.
        self._board: Any = multiprocessing.get_context("spawn").RawArray("d", [_NOBODY, 0.0])
        self._hung: Counter[str] = Counter()
        self._interrupted = False

    def measure(
        self,
        workload: Workload,
        implementations: Sequence[Implementation],
        budget: Budget,
        baseline: str = "",
        cold: bool = False,
        before: Mapping[str, Throughput] = MappingProxyType({}),
    ) -> list[Throughput]:
        """As :func:`harness.measure.measure`, with an outcome for who crashed or hung. Raises what the harness itself raised there.

        An interrupt from the keyboard is handed on, and what came of it waited for; a second one ends the process.
        """
        records: dict[str, Throughput] = {}

        def conclude(implementation: Implementation, outcome: Outcome, message: str) -> None:
            records[implementation.id] = replace(empty(workload, implementation, cold), outcome=outcome.value, message=message)

        def kept() -> list[Throughput]:
            return [*records.values(), *(before[i.id] for i in implementations if i.id in before and i.id not in records)]

        self._interrupted = False
        for implementation in implementations:
            if self._hung[implementation.id] >= PATIENCE:
                message = f"{NOT_RUN}{PATIENCE} calls of it did not end within {self._limit:g} s before"
                conclude(implementation, Outcome.TIMED_OUT, message)
        while left := [i for i in implementations if i.id not in records]:
            known = {id: record for id, record in before.items() if id not in records}
            try:
                answered = self._ask(left, (workload, [i.id for i in left], budget, baseline, cold, known))
                self._require_device(left, answered, known)
            except Interrupted as interrupted:
                raise Interrupted([*records.values(), *interrupted.records]) from interrupted
            except KeyboardInterrupt as interrupt:
                raise Interrupted(kept()) from interrupt
            except _Ended as end:
                self._hung.update({left[end.called].id: 1} if end.outcome is Outcome.TIMED_OUT else {})
                for implementation, message in _blamed(left, end):
                    conclude(implementation, end.outcome, message)
                if self._interrupted:
                    raise Interrupted(kept()) from end
            else:
                records |= {record.implementation: record for record in answered}
        return [records[i.id] for i in implementations]

    def prepare(self) -> None:
        """Starts the process if there is none, and does not wait for it."""
        self._child.start(self._board, self._references, torch.get_num_threads())

    def stop(self) -> None:
        """Ends the process, if there is one."""
        self._child.stop()

    def _ask(self, asked: Sequence[Implementation], request: tuple[Any, ...]) -> list[Throughput]:
        """What came of a request to measure ``asked``. Raises :class:`_Ended`, :class:`~harness.measure.Interrupted`, and what the
        harness raised there."""
        self._board[:] = [_NOBODY, 0.0]
        self.prepare()
        try:
            self._child.await_ready()
            self._child.pipe.send(request)
            kind, answer = self._await([i.reference not in builtin() for i in asked])
        except (EOFError, OSError):
            called = int(self._board[0])
            raise _Ended(Outcome.CRASHED, f"the process that ran it {self._child.buried()}", called) from None
        if kind == "fault":
            raise RuntimeError(f"The harness failed in the process that measures:\n{answer}")
        records: list[Throughput] = answer
        # Also where it came when all was done there already: it is the run that is to end.
        if kind == "interrupted" or self._interrupted:
            raise Interrupted(records)
        return records

    def _require_device(self, asked: Sequence[Implementation], answered: Sequence[Throughput], known: Mapping[str, Throughput]) -> None:
        """Ends the process where one of ``asked`` left it without its device, which nobody can use there again; raises :class:`_Ended`."""
        for called, (implementation, record) in enumerate(zip(asked, answered, strict=True)):
            if record.outcome == Outcome.CRASHED and record != known.get(implementation.id):
                self.stop()
                raise _Ended(Outcome.CRASHED, record.message, called)

    def _await(self, limited: Sequence[bool]) -> Any:
        """The answer; ``limited`` says of each whether its calls are."""
        while True:
            try:
                if self._child.pipe.poll(min(_LOOK, self._limit)):
                    return self._child.pipe.recv()
                called, since = self._board
                if called != _NOBODY and limited[int(called)] and time.monotonic() - since > self._limit:
                    self.stop()
                    message = f"no answer within {self._limit:g} s; the process was ended (--time-limit gives it longer)"
                    raise _Ended(Outcome.TIMED_OUT, message, int(called))
            except KeyboardInterrupt:
                if self._interrupted:
                    self.stop()
                    raise
                self._interrupted = True
                self._child.interrupt()


def _blamed(left: Sequence[Implementation], end: _Ended) -> list[tuple[Implementation, str]]:
    """Who answers for the end of a process, and what is said of it.

    A built-in implementation that was called beside somebody else's is not believed to have done it: what the other has written where
    it must not is often found by the next.
    """
    called = left[end.called] if end.called != _NOBODY else None
    foreign = [i for i in left if i.reference not in builtin()]
    if called is not None and (called in foreign or not foreign):
        return [(called, end.message)]
    if not foreign:
        raise RuntimeError(f"The process that measures ended while nobody was called: {end.message}")
    who = "nobody" if called is None else called.id
    others = f"; {', '.join(i.id for i in foreign)} shared the process: measure them one at a time" if len(foreign) > 1 else ""
    return [(i, f"{end.message} while {who} was called beside it{others}") for i in foreign]


def _serve(pipe: Connection, board: Any, references: Sequence[str], threads: int) -> None:
    if hasattr(os, "setsid"):
        # An interrupt from the keyboard reaches the parent alone, which hands it on once.
        os.setsid()
    # A program that a shell starts in the background ignores interrupts, and so would this one: those handed on are meant.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    implementations = {implementation.id: implementation for implementation in resolve_all(references)}
    limits = Limits()
    pipe.send("ready")
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        except KeyboardInterrupt:
            # It came when all was done.
            continue
        workload, ids, budget, baseline, cold, before = request
        places = {"": _NOBODY, **{id: place for place, id in enumerate(ids)}}

        def calling(id: str, places: Mapping[str, int] = places) -> None:
            board[1] = time.monotonic()
            board[0] = places[id]

        answer: tuple[str, Any]
        try:
            chosen = [implementations[id] for id in ids]
            answer = "records", measure(workload, chosen, budget, None, baseline, cold, limits, before, calling)
        except Interrupted as interrupted:
            answer = "interrupted", interrupted.records
        except KeyboardInterrupt:
            answer = "interrupted", []
        except Exception:  # whatever it is, the parent raises it
            answer = "fault", traceback.format_exc()
        pipe.send(answer)

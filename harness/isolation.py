"""A worker process that checks run in, so that a crash or a hang of an implementation is an outcome and not the end of the run."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.child import Child
from harness.contract import Check, declared, finding, has_crashed, run
from harness.outcome import NOT_RUN, Outcome
from harness.record import Conformance
from harness.registry import resolve_all

#: After how many hangs the rest of one implementation is given up: of checks of as many contracts, or of its calls where it is timed.
PATIENCE = 3


class Hangs:
    """The contracts of which a check was not answered in time, by implementation; workers side by side share them.

    What hangs on one case hangs on others of the contract, and each would take the whole of its time; other contracts may do without what
    hung, as without second derivatives. A hang that the implementation declares speaks for those cases alone that it declares, and for no
    other contract.
    """

    def __init__(self) -> None:
        self._contracts: dict[str, set[str]] = defaultdict(set)
        self._declared: dict[str, set[str]] = defaultdict(set)

    def note(self, check: Check) -> None:
        hung = self._declared if _is_declared(check) else self._contracts
        hung[check.implementation.id].add(check.contract.id)

    def given_up(self, check: Check) -> str:
        """Why ``check`` is not to be run any more; empty where it is."""
        contracts = self._contracts[check.implementation.id]
        if len(contracts) >= PATIENCE:
            return f"{NOT_RUN}{PATIENCE} contracts were not answered in time before: {', '.join(sorted(contracts))}"
        alike = self._declared[check.implementation.id] if _is_declared(check) else contracts
        return f"{NOT_RUN}another case of this contract was not answered in time before" if check.contract.id in alike else ""


def _is_declared(check: Check) -> bool:
    """Whether the implementation of ``check`` declares that it hangs there."""
    return declared(check, Outcome.TIMED_OUT, "")[0] is Outcome.EXPECTED_FAILURE


class Worker:
    """A process that runs checks one after the other; it is started at the first, and again after a death.

    ``references`` name the implementations that it may be asked to check; each new process resolves them for itself, which is how
    a class from somebody's file comes to be there. ``limit``: seconds that one check may take before it counts as hanging, and those of
    a contract that says so a multiple of it. ``hangs``: those that workers side by side share.
    """

    def __init__(self, references: Sequence[str], limit: float, hangs: Hangs | None = None) -> None:
        self._references, self._limit = tuple(references), limit
        self._child = Child("worker process", _serve, forked=True)
        self._hangs = hangs or Hangs()

    def run(self, check: Check) -> Conformance:
        """What came of ``check``; a death of the worker and a hang are outcomes too. Raises what the suite itself raised."""
        if reason := self._hangs.given_up(check):
            # What was not run says nothing of a failure that is declared, unless that is to hang.
            return finding(check, *(declared(check, Outcome.TIMED_OUT, "") if _is_declared(check) else (Outcome.TIMED_OUT, reason)))
        limit = self._limit * check.contract.time_limit_factor
        try:
            self._child.start(self._references, torch.get_num_threads())
            self._child.await_ready()
            self._child.pipe.send((check.contract, check.implementation.id, check.case))
            if not self._child.pipe.poll(limit):
                self.stop()
                self._hangs.note(check)
                message = f"no answer within {limit:g} s; the process was ended (--time-limit gives it longer)"
                return replace(finding(check, *declared(check, Outcome.TIMED_OUT, message)), seconds=limit)
            answer = self._child.pipe.recv()
        except (EOFError, OSError):
            return finding(check, *declared(check, Outcome.CRASHED, f"the process that ran it {self._child.buried()}"))
        if isinstance(answer, Conformance):
            if has_crashed(check, answer):
                # It answered, but is of no more use.
                self.stop()
            return answer
        raise RuntimeError(f"The suite failed in the worker process:\n{answer}")

    def prepare(self) -> None:
        """Begins with what a process needs, and does not wait for it."""
        self._child.prepare(self._references, torch.get_num_threads())

    def kill(self) -> None:
        """Ends the process from another thread than the one that waits for its answer."""
        self._child.kill()

    def stop(self) -> None:
        """Ends the process, if there is one."""
        self._child.stop()


def _serve(pipe: Connection, references: Sequence[str], threads: int) -> None:
    # The parent decides what an interrupt from the keyboard ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    implementations = {implementation.id: implementation for implementation in resolve_all(references)}
    pipe.send("ready")
    while True:
        try:
            received = pipe.recv_bytes()
        except EOFError:
            return
        answer: Any
        try:
            contract, id, case = pickle.loads(received)
            answer = run(Check(contract, implementations[id], case))
        except Exception:  # whatever it is, the parent raises it
            answer = traceback.format_exc()
        pipe.send(answer)

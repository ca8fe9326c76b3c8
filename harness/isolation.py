"""A worker process that checks run in, so that a crash or a hang of an implementation is an outcome and not the end of the run."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.contract import Check, finding, run
from harness.outcome import Outcome
from harness.record import Conformance
from harness.registry import FOLDERS, resolve_all

#: How many checks of one implementation may hang before the rest are given up.
PATIENCE = 3

#: Seconds that a new process is given to import torch and everybody's modules.
STARTUP = 120.0

#: Held while the path of imports is another one than it was: workers side by side start in threads.
_PATH = threading.Lock()

#: Seconds that a process which has closed its end of the pipe is given to end.
_FAREWELL = 5.0


class Worker:
    """A process that runs checks one after the other; it is started at the first, or before by :meth:`start`, and again after a death.

    ``references`` name the implementations that it may be asked to check; each new process resolves them for itself, which is how
    a class from somebody's file comes to be there. ``limit``: seconds that one check may take before it counts as hanging, and those of
    a contract that says so a multiple of it. ``hung``: by implementation, how many checks were not answered; workers side by side share it.
    """

    def __init__(self, references: Sequence[str], limit: float, hung: Counter[str] | None = None) -> None:
        self._references, self._limit = tuple(references), limit
        self._process: Any = None
        self._pipe: Connection | None = None
        self._ready = False
        self._hung: Counter[str] = Counter() if hung is None else hung

    def run(self, check: Check) -> Conformance:
        """What came of ``check``; a death of the worker and a hang are outcomes too. Raises what the suite itself raised."""
        if self._hung[check.implementation.id] >= PATIENCE:
            return finding(check, Outcome.TIMED_OUT, f"not run: {PATIENCE} checks of it were not answered in time before")
        limit = self._limit * check.contract.time_limits
        try:
            self.start()
            assert self._pipe is not None
            self._await()
            self._pipe.send((check.contract, check.implementation.id, check.case))
            if not self._pipe.poll(limit):
                self.stop()
                self._hung[check.implementation.id] += 1
                message = f"no answer within {limit:g} s; the process was ended (--time-limit gives it longer)"
                return replace(finding(check, Outcome.TIMED_OUT, message), seconds=limit)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(_FAREWELL)
            died = death(self._process.exitcode)
            self.stop()
            return finding(check, Outcome.CRASHED, f"the process that ran it {died}")
        if isinstance(answer, Conformance):
            return answer
        raise RuntimeError(f"The suite failed in the worker process:\n{answer}")

    def kill(self) -> None:
        """Ends the process, if there is one, from another thread than the one that waits for its answer: that will see it dead."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Ends the process, if there is one."""
        self.kill()
        if self._process is not None:
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._ready = False

    def start(self) -> None:
        """Starts the process if there is none, and does not wait for it: it loads torch while its parent has other things to do."""
        if self._pipe is not None:
            return
        # Not fork: torch's thread pools do not survive it.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._references, torch.get_num_threads()), daemon=True)
        # A file that is called like a module of the standard library must not stand in for it while the process starts; the process
        # puts the folders of these files on its path itself, when it loads them.
        with _PATH:
            path = list(sys.path)
            sys.path[:] = [folder for folder in path if folder not in FOLDERS]
            try:
                self._process.start()
            finally:
                sys.path[:] = path
        theirs.close()

    def _await(self) -> None:
        # Loading torch and everybody's modules is no part of the time that a check takes.
        if self._ready:
            return
        assert self._pipe is not None
        if not self._pipe.poll(STARTUP):
            self.stop()
            raise RuntimeError(f"The worker process was not ready within {STARTUP:g} s")
        self._pipe.recv()
        self._ready = True


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


def death(code: int | None) -> str:
    """How a process ended, by its exit code as :mod:`multiprocessing` and :mod:`subprocess` give it: what comes after 'the process'."""
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"

"""A layer in another Python, with other versions installed: built, checked and sampled there, one request after the other.

:class:`Remote` starts the other interpreter, which runs the ``harness`` package of this process whatever it has of its own, and of the
folder that it is started in nothing: a checkout that lies there must not stand in for what is installed. Requests and answers are lines of
JSON; what the layer's own code prints goes elsewhere. A death, a hang and a wrong answer are outcomes.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import torch

import harness
from harness import environment, watch
from harness.child import FAREWELL, STARTUP, death
from harness.clock import Clock, HostClock, Timing
from harness.footprint import forget
from harness.implementation import Implementation
from harness.measure import concluding
from harness.outcome import Outcome
from harness.passes import Cell, agreement, build, kernels
from harness.registry import UnknownImplementation, resolve, source_file
from harness.sampling import COLLECTED_EVERY
from harness.switches import unusable
from harness.workload import Workload

#: What another interpreter runs. By its file, because a path that leads to it could lead to this process's packages as well.
_BOOT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("harness", sys.argv[1])
sys.modules["harness"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from harness.remote import serve
serve(int(sys.argv[2]))
"""

#: Up to so many bytes are added to the environment of a new process: its size shifts the stack, and with it times (Mytkowicz et al. 2009,
#: "Producing wrong data without doing anything obviously wrong!"). Paths of two lengths would do so in every process alike.
_PADDING = 4096


class Unanswered(Exception):
    """A request that has an outcome instead of an answer; ``message`` says what happened."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message


class Remote:
    """A process of the interpreter ``python`` with ``threads`` threads; it is started at the first request, or before by :meth:`start`,
    and again after a death. ``limit``: seconds that one request may take before it counts as hanging."""

    def __init__(self, python: str, threads: int = 1, limit: float = 120.0) -> None:
        self._python, self._threads, self._limit = python, threads, limit
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said: IO[bytes] | None = None
        self._number, self._ready = 0, False

    def start(self) -> None:
        """Starts the process if there is none, and does not wait for it. Raises :class:`Unanswered` where it cannot be started."""
        if self._process is not None:
            return
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it is open for as long as the process runs
        padding = "x" * random.randrange(_PADDING)
        try:
            self._process = subprocess.Popen(
                # -P: not what lies in the folder that it is started in.
                [self._python, "-P", "-c", _BOOT, str(Path(harness.__file__)), str(self._threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads), "RECURRENT_HARNESS_PADDING": padding},
                # The parent decides what an interrupt from the keyboard ends.
                start_new_session=True,
            )
        except OSError as error:
            said.close()
            raise Unanswered(Outcome.UNAVAILABLE, f"cannot start {self._python}: {error.strerror or error}") from error
        self._said, self._answers, self._ready = said, queue.SimpleQueue(), False
        threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True).start()

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """The answer to one request; what there are, the methods of :class:`_Server` say. Raises :class:`Unanswered`."""
        self.start()
        if not self._ready:
            # Loading torch is no part of the time that a request takes.
            self._await(0, STARTUP)
            self._ready = True
        self._number += 1
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"number": self._number, "do": do, "given": given}) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._died()
        answer = self._await(self._number, self._limit)
        if "fault" in answer:
            raise RuntimeError(f"The harness failed in the process of {self._python}:\n{answer['fault']}")
        outcome = Outcome(answer.get("outcome", Outcome.PASSED))
        if outcome is Outcome.CRASHED:
            # It goes on, without its device.
            self.stop()
        if outcome is not Outcome.PASSED:
            raise Unanswered(outcome, answer["message"])
        return answer

    def stop(self) -> None:
        """Ends the process and what it started, if there is one."""
        if self._process is not None:
            with suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._said):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        self._process = self._said = None

    def _await(self, number: int, limit: float) -> dict[str, Any]:
        while True:
            try:
                line = self._answers.get(timeout=limit)
            except queue.Empty:
                self.stop()
                what = "no answer" if number else "not ready"
                raise Unanswered(
                    Outcome.TIMED_OUT,
                    f"{what} within {limit:g} s; the process was ended{' (--time-limit gives it longer)' if number else ''}",
                ) from None
            if not line:
                self._died()
            answer: dict[str, Any] = json.loads(line)
            # An interrupt from the keyboard may have come between a request and its answer.
            if answer["number"] == number:
                return answer

    def _died(self) -> None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)
        message = f"the process that ran it {death(self._process.returncode)}"
        last = self._last_line()
        self.stop()
        raise Unanswered(Outcome.CRASHED, f"{message}: {last}" if last else message)

    def _last_line(self) -> str:
        """The last thing that the process said: of a traceback, the exception."""
        assert self._said is not None
        # The position is shared with the process that writes.
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - 4096))
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Elsewhere:
    """A subject of :func:`harness.sampling.interleave` that is called in the process of ``remote``, which has built it."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    #: Samples may have as many calls as fill them.
    singly = False

    def sample(self, clock: Clock, calls: int, untimed: int = 0) -> Timing:
        """By the clock of the other process; ``clock`` is not read."""
        answer = self._remote.ask("sample", calls=calls, untimed=untimed)
        return Timing(answer["seconds"], answer["issued"], answer["device"])


def _read(pipe: IO[str], answers: queue.SimpleQueue[str]) -> None:
    """Hands over every line, then an empty one."""
    with pipe:
        for line in pipe:
            answers.put(line)
    answers.put("")


def serve(threads: int) -> None:
    """Answers requests until there are no more."""
    requests, answers = _own_channel()
    torch.set_num_threads(threads)
    # Not in the middle of a sample.
    gc.disable()
    server = _Server()
    _send(answers, {"number": 0})
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(server, request["do"])(**request["given"])
        except Exception:  # whatever it is, the parent raises it
            answer = {"fault": traceback.format_exc()}
        _send(answers, {**answer, "number": request["number"]})


def _own_channel() -> tuple[IO[str], IO[str]]:
    """Standard input and output for this module alone: other people's code reads nothing, and what it prints goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _send(answers: IO[str], answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class _Server:
    """The requests that there are: each answers with plain data, or with an ``outcome`` that is not passed and its ``message``."""

    def __init__(self) -> None:
        self._known: dict[str, Implementation] = {}
        self._cell: Cell | None = None
        self._clock: Clock | None = None
        self._kept: list[torch.Tensor] = []
        self._samples = 0

    def describe(self) -> dict[str, Any]:
        """The ``environment`` of this process, and the versions of what is ``installed``."""
        return {"environment": asdict(environment.describe()), "python": sys.executable, "installed": _installed()}

    def find(self, reference: str) -> dict[str, Any]:
        """What the implementation is that ``reference`` names here."""
        try:
            implementation = self._implementation(reference)
        except UnknownImplementation as error:
            return {"outcome": Outcome.UNAVAILABLE.value, "message": str(error)}
        return {
            "id": implementation.id,
            "description": implementation.description,
            "modes": sorted(implementation.capabilities.modes),
            "origin": source_file(implementation),
        }

    def build(self, reference: str, workload: dict[str, Any], look: bool) -> dict[str, Any]:
        """Builds what the samples are to be taken of, and compares its answer with the oracle's.

        ``look``: also whether it can run here, and which kernels do. That loads torch's compiler, which takes seconds, and no process after
        the first would see anything else.
        """
        wanted = Workload.from_json(workload)
        if self._cell is not None and self._cell.workload != wanted:
            forget()
        self._cell = None
        gc.unfreeze()
        gc.collect()
        # Other memory before it in each process, so that the layer does not lie in the same place in all of them.
        self._kept = [torch.empty(random.randrange(1, 200_000)) for _ in range(random.randrange(1, 20))]
        try:
            implementation = self._implementation(reference)
        except UnknownImplementation as error:
            return {"outcome": Outcome.UNAVAILABLE.value, "message": str(error)}
        reason = implementation.unavailable(wanted.case.device) if look else None
        lacks = implementation.capabilities.lacks(wanted.case)
        if reason is not None:
            return {"outcome": Outcome.UNAVAILABLE.value, "message": reason}
        if lacks is not None:
            return {"outcome": Outcome.UNSUPPORTED.value, "message": lacks}
        answer: dict[str, Any] = {}
        with _answering(answer, wanted.case.device):
            self._cell, self._clock = build(wanted, implementation), HostClock(wanted.case.device)
            answer |= {"agreement": agreement(self._cell, inputs_seed=1), "kernels": kernels(self._cell) if look else []}
        gc.collect()
        gc.freeze()
        return answer

    def sample(self, calls: int, untimed: int) -> dict[str, Any]:
        """One sample, as :class:`harness.clock.Timing`."""
        assert self._cell is not None and self._clock is not None
        self._samples += 1
        if self._samples % COLLECTED_EVERY == 0:
            gc.collect()
        answer: dict[str, Any] = {}
        with _answering(answer, self._cell.workload.case.device):
            answer |= asdict(self._cell.subject.sample(self._clock, calls, untimed))
        return answer

    def reading(self) -> dict[str, Any]:
        """What this process has used and waited until now, as :func:`harness.watch.joined` takes it."""
        now = watch.read()
        return {"own": now.own, "waited": now.waited, "switches": now.switches}

    def check(self) -> dict[str, Any]:
        """Compares the answer of what was sampled with the oracle's once more, on other inputs."""
        assert self._cell is not None
        answer: dict[str, Any] = {}
        with _answering(answer, self._cell.workload.case.device):
            answer |= {"agreement": agreement(self._cell, inputs_seed=2)}
        return answer

    def _implementation(self, reference: str) -> Implementation:
        if reference not in self._known:
            self._known[reference] = resolve(reference)
        return self._known[reference]


@contextmanager
def _answering(answer: dict[str, Any], device: str) -> Iterator[None]:
    """Makes ``answer`` the outcome of what an implementation raises: it has crashed where that leaves this process without ``device``."""
    with concluding("", partial(_refuse, answer)):
        yield
    if "outcome" in answer and (lost := unusable(device)):
        _refuse(answer, "", Outcome.CRASHED, f"it left {device} unusable: {lost}\n{answer['message']}")


def _refuse(answer: dict[str, Any], id: str, outcome: Outcome, message: str) -> None:
    """Makes ``answer`` the outcome of what an implementation raised."""
    answer.update(outcome=outcome.value, message=message)


def _installed() -> dict[str, str]:
    """The versions of all distributions, and where those came from that are of no index (PEP 610)."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name:
            continue
        source = ""
        with suppress(ValueError, TypeError, KeyError):
            direct = json.loads(distribution.read_text("direct_url.json") or "")
            commit = direct.get("vcs_info", {}).get("commit_id")
            source = f" from {direct['url']}{'@' + commit if commit else ''}"
        # The first on the path is the one that is imported.
        found.setdefault(name.lower().replace("_", "-"), f"{distribution.version}{source}")
    return dict(sorted(found.items()))

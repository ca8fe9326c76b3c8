"""How a time is taken. A clock is an interface with a fake, so that the logic around it is tested without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Timing:
    """How long something took, in seconds.

    ``seconds``: on the host, until all the work that it started was done. On a GPU, where work is handed over and done later,
    ``issued`` is the part of it until all was handed over, and ``device`` the time between two events around it; None elsewhere.
    """

    seconds: float
    issued: float | None = None
    device: float | None = None

    def shared(self, calls: int) -> Timing:
        """Of each of so many calls."""
        issued, device = (None if seconds is None else seconds / calls for seconds in (self.issued, self.device))
        return Timing(self.seconds / calls, issued, device)


class Clock(Protocol):
    """Reads a time that only grows, and times what is run."""

    def now(self) -> float:
        """Seconds since some fixed moment, taken when all work that was started has been done."""

    def time(self, run: Callable[[], Any]) -> Timing:
        """How long ``run`` takes, with all the work that it starts and none that was started before."""


class HostClock:
    """The host's performance counter. On CUDA it waits for the device first: work there is asynchronous, and a clock that does not
    wait measures how fast work can be handed over."""

    def __init__(self, device: str) -> None:
        self._on_gpu = torch.device(device).type == "cuda"

    def now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def time(self, run: Callable[[], Any]) -> Timing:
        if not self._on_gpu:
            start = time.perf_counter()
            run()
            return Timing(time.perf_counter() - start)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start = self.now()
        begin.record()
        run()
        end.record()
        issued = time.perf_counter()
        done = self.now()
        # In milliseconds, with a resolution of about half a microsecond (CUDA's cudaEventElapsedTime).
        return Timing(done - start, issued - start, begin.elapsed_time(end) * 1e-3)


class FakeClock:
    """A clock that stands still until it is told how much time has passed.

    With ``asynchronous`` it plays a GPU: what :meth:`advance` says has passed on the host, and what :meth:`work` hands over is done by the
    device meanwhile and afterwards.
    """

    def __init__(self, asynchronous: bool = False) -> None:
        self._now, self._asynchronous = 0.0, asynchronous
        self._idle_at = 0.0

    def now(self) -> float:
        self._now = max(self._now, self._idle_at)
        return self._now

    def time(self, run: Callable[[], Any]) -> Timing:
        start = self.now()
        run()
        issued = self._now
        done = self.now()
        return Timing(done - start, issued - start, done - start) if self._asynchronous else Timing(done - start)

    def advance(self, seconds: float) -> None:
        """The host works for so long."""
        self._now += seconds

    def work(self, seconds: float) -> None:
        """The device is given so much to do."""
        self._idle_at = max(self._now, self._idle_at) + seconds

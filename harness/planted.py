"""Slowdowns of a known size, which comparisons are tried on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from harness.clock import Clock
from harness.sampling import Budget, Subject, calibrate

#: Cycles of the two waits that tell how long a GPU waits for one: both last longer than it takes to hand one over.
_CYCLES = (30_000, 300_000)

#: So many waits follow each other in a sample, of which the fastest of so many counts.
_WAITS, _SAMPLES = 20, 10


def waiting(call: Callable[[], Any], share: float, clock: Callable[[], float]) -> Callable[[], Any]:
    """``call`` followed by a wait of ``share`` of the time that it took: slower by this share whatever the machine is doing."""

    def slower() -> Any:
        start = clock()
        answer = call()
        end = clock()
        until = end + share * (end - start)
        while clock() < until:
            pass
        return answer

    return slower if share else call


class Occupying:
    """Slows calls down on a GPU: the device waits for a share of their time after each, and so does the host.

    Where the device is what a call waits for, the device's wait counts and hides the host's; where launches are, the host's counts. A wait
    on the host alone would not be seen in the first case, nor one on the device in the second; looking at the clock in between would
    have the host wait for the device after each call, which alone is a difference.

    ``context``: what the calls must happen in. ``spin(cycles)`` keeps the device waiting for so many of its cycles (torch.cuda._sleep,
    which PyTorch's own tests of streams wait with). How long that is, with what a kernel takes at its start, is measured on ``clock``.
    ``now``: the host's time, without waiting for the device.
    """

    def __init__(
        self,
        clock: Clock,
        context: Callable[[], AbstractContextManager[Any]],
        spin: Callable[[int], Any] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock, self._context, self._now = clock, context, now
        self._spin = torch.cuda._sleep if spin is None else spin
        short, long = (self._lasts(cycles) for cycles in _CYCLES)
        self._cycle = (long - short) / (_CYCLES[1] - _CYCLES[0])
        self._start = max(0.0, short - _CYCLES[0] * self._cycle)

    def _lasts(self, cycles: int) -> float:
        """Seconds of one wait among others."""
        several = Subject(partial(self._spin, cycles), self._context)
        return min(several.sample(self._clock, _WAITS, untimed=1).seconds for _ in range(_SAMPLES))

    def cycles(self, seconds: float) -> int:
        """Of a wait that lasts so long."""
        return max(1, round((seconds - self._start) / self._cycle))

    def __call__(self, call: Callable[[], Any], share: float) -> Callable[[], Any]:
        """``call``, slower by ``share`` of the time that it takes now."""
        if not share:
            return call
        seconds = share * calibrate(Subject(call, self._context), self._clock, Budget().on("cuda"))
        cycles, spin, now = self.cycles(seconds), self._spin, self._now

        def slower() -> Any:
            answer = call()
            until = now() + seconds
            spin(cycles)
            while now() < until:
                pass
            return answer

        return slower

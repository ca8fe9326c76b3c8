"""How a time is taken. A clock is an interface with a fake, so that the logic around it is tested without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Reads a time that only grows."""

    def now(self) -> float:
        """Seconds since some fixed moment, taken when all work that was started has been done."""


class HostClock:
    """The host's performance counter. On CUDA it waits for the device first: work there is asynchronous, and a clock that does not
    wait measures how fast work can be handed over."""

    def __init__(self, device: str) -> None:
        self._wait: Callable[[], Any] | None = torch.cuda.synchronize if torch.device(device).type == "cuda" else None

    def now(self) -> float:
        if self._wait is not None:
            self._wait()
        return time.perf_counter()


class FakeClock:
    """A clock that stands still until it is told how much time has passed."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

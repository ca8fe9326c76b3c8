"""How samples are taken: warm-up, as many calls to a sample as the clock needs, and interleaved rounds in random order.

The noise of a shared machine lies between stretches of time and not within them, so what is to be compared is sampled side by side:
every round takes one sample of every implementation, in an order drawn anew.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.clock import Clock


@dataclass(frozen=True)
class Subject:
    """Something to be timed: ``call()`` is one call, ``context()`` what it must happen in, entered once a sample and not timed."""

    call: Callable[[], Any]
    context: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Budget:
    """How long to sample one workload. ``seconds`` for all implementations together, after warm-up; at least ``least_rounds``
    rounds whatever they take, at most ``most_rounds``. ``sample_seconds``: a sample takes as many calls as fill this."""

    seconds: float = 1.0
    least_rounds: int = 5
    most_rounds: int = 200
    sample_seconds: float = 1e-3
    warmup_seconds: float = 0.02


@dataclass
class Samples:
    """What was taken of one subject: ``seconds`` per call of each sample, the ``rounds`` that they belong to, ``calls`` to a sample.

    ``error`` is what a call raised, after which no more samples were taken.
    """

    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    error: Exception | SystemExit | None = None


def sample(subject: Subject, clock: Clock, calls: int) -> float:
    """Seconds per call of ``calls`` consecutive calls."""
    call = subject.call
    with subject.context():
        start = clock.now()
        for _ in range(calls):
            call()
        return (clock.now() - start) / calls


def calibrate(subject: Subject, clock: Clock, budget: Budget) -> int:
    """How many calls make a sample of ``budget.sample_seconds``; also warms the subject up for ``budget.warmup_seconds``."""
    # The first call can take very much longer than the rest: it warms up, and nothing is concluded from it.
    spent, calls = sample(subject, clock, 1), 1
    while True:
        seconds = sample(subject, clock, calls)
        spent += seconds * calls
        wanted = max(1, math.ceil(budget.sample_seconds / max(seconds, 1e-9)))
        if spent >= budget.warmup_seconds:
            return wanted
        # Grown by steps, because a few more calls can still be slow.
        calls = min(wanted, calls * 4)


def interleave(subjects: Mapping[str, Subject], clock: Clock, budget: Budget, seed: int = 0) -> dict[str, Samples]:
    """Samples of every subject, in rounds of random order, until the budget is spent. A subject that raises drops out."""
    taken = {name: Samples() for name in subjects}
    alive = list(subjects)

    def attempt(name: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (Exception, SystemExit) as error:  # other people's code: whatever it raises ends its own samples and nobody else's
            taken[name].error = error
            alive.remove(name)
            return None

    for name in list(alive):
        taken[name].calls = attempt(name, partial(calibrate, subjects[name], clock, budget)) or 1
    generator = random.Random(seed)
    start = clock.now()
    for number in range(budget.most_rounds):
        if number >= budget.least_rounds and clock.now() - start >= budget.seconds:
            break
        for name in generator.sample(alive, len(alive)):
            attempt(name, partial(_take, subjects[name], clock, taken[name], number))
    return taken


def _take(subject: Subject, clock: Clock, samples: Samples, number: int) -> None:
    samples.seconds.append(sample(subject, clock, samples.calls))
    samples.rounds.append(number)


class Replay:
    """A timer for pytest-benchmark that reads out samples taken beforehand.

    pytest-benchmark calls its timer before and after each round and takes the difference; this one lets it find the next sample. So its
    table and its JSON show the real samples, although they were taken in interleaved rounds, which it has no notion of.
    """

    def __init__(self) -> None:
        self._durations: list[float] = []
        self._running = False

    def load(self, durations: Iterable[float]) -> None:
        """The durations of the coming rounds, in seconds."""
        self._durations = list(durations)[::-1]
        self._running = False

    def __call__(self) -> float:
        # Each round begins at zero: a difference of large numbers would not be the sample to the last digit.
        self._running = not self._running
        return 0.0 if self._running else self._durations.pop()


#: One for the process: pytest-benchmark is given its timer when tests are collected.
REPLAY = Replay()

"""How samples are taken: warm-up, as many calls to a sample as the clock needs, and interleaved rounds in random order.

The noise of a shared machine lies between stretches of time and not within them, so what is to be compared is sampled side by side:
every round takes one sample of every implementation, in an order drawn anew. It goes on until each comparison is decided or has used up
its time: a large difference shows in a fraction of a second, and what is left of the time belongs to the small ones.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

from harness.clock import Clock, Timing
from harness.statistics import STRETCHES, Verdict, effect


@dataclass(frozen=True)
class Subject:
    """Something to be timed: ``call()`` is one call, ``context()`` what it must happen in, entered once a sample and not timed.

    What ``prepare()`` gives, which is not timed either, is handed to the call: each has its own. ``singly``: a sample is one call, because
    what is prepared holds for no more.
    """

    call: Callable[..., Any]
    context: Callable[[], AbstractContextManager[Any]]
    prepare: Callable[[], Any] | None = None
    singly: bool = False

    def given(self) -> tuple[Any, ...]:
        """The arguments of one call."""
        return () if self.prepare is None else (self.prepare(),)


@dataclass(frozen=True)
class Budget:
    """How long to sample one workload, after warm-up.

    ``seconds``: at most, for each comparison with the baseline (what its samples and the baseline's take); less where it is decided
    before. ``least_rounds``: at least, whatever they take. ``sample_seconds``: a sample takes as many calls as fill this.
    """

    seconds: float = 6.0
    least_rounds: int = 5
    sample_seconds: float = 1e-3
    warmup_seconds: float = 0.02


#: Seconds of sampling where there is nothing to compare with.
ALONE = 0.5

#: A comparison is looked at first after so many rounds and seconds, then whenever its time has grown by this factor.
_FIRST_LOOK, _LOOKS = (2 * STRETCHES, 0.25), 1.3

#: Rounds after which the garbage of other people's calls is collected, between two of them.
_COLLECTED_EVERY = 64

#: The level at which a look ends a comparison. Each look is another chance of a false alarm: twelve of them add a quarter of a per cent.
_EARLY = 0.9998


class Stop(StrEnum):
    """Why the sampling of one implementation ended."""

    DECIDED = "decided"
    TIME = "time"
    INTERRUPTED = "interrupted"


@dataclass
class Samples:
    """What was taken of one subject: ``seconds`` per call of each sample, the ``rounds`` that they belong to, ``calls`` to a sample.

    ``issued`` and ``device`` are per call too, where the clock knows them. ``error`` is what a call raised, after which no more samples
    were taken. ``stopped``: why they ended otherwise.
    """

    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    error: Exception | SystemExit | None = None
    stopped: str = ""


def sample(subject: Subject, clock: Clock, calls: int) -> Timing:
    """The mean over ``calls`` consecutive calls."""
    call = subject.call
    with subject.context():
        given = [subject.given() for _ in range(calls)]

        def run() -> None:
            for arguments in given:
                call(*arguments)

        taken = clock.time(run)
    return taken.shared(calls)


def calibrate(subject: Subject, clock: Clock, budget: Budget) -> int:
    """How many calls make a sample of ``budget.sample_seconds``; also warms the subject up for ``budget.warmup_seconds``."""
    # The first call can take very much longer than the rest: it warms up, and nothing is concluded from it.
    spent, calls = sample(subject, clock, 1).seconds, 1
    while True:
        seconds = sample(subject, clock, calls).seconds
        spent += seconds * calls
        wanted = 1 if subject.singly else max(1, math.ceil(budget.sample_seconds / max(seconds, 1e-9)))
        if spent >= budget.warmup_seconds:
            return wanted
        # Grown by steps, because a few more calls can still be slow.
        calls = min(wanted, calls * 4)


def interleave(
    subjects: Mapping[str, Subject],
    clock: Clock,
    budget: Budget,
    seed: int = 0,
    baseline: str | None = None,
    before: Mapping[str, Samples] = MappingProxyType({}),
) -> dict[str, Samples]:
    """Samples of every subject, in rounds of random order; a subject that raises drops out.

    Every subject is compared with ``baseline`` (the first, if none is named) and leaves the rounds when that comparison is decided or
    its time is spent; the baseline stays to the end. ``before``: what was taken of each until an interruption, to be gone on from.

    An interrupt from the keyboard ends the sampling after the round in which it comes, and loses nothing; a second one ends it at once.
    """
    taken = {name: replace(before[name], stopped="") if name in before else Samples() for name in subjects}
    alive = list(subjects)
    baseline = baseline if baseline in subjects else next(iter(subjects), None)
    interrupted = False

    def attempt(name: str, action: Callable[[], Any]) -> Any:
        nonlocal interrupted
        try:
            try:
                return action()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                return action()
        except (Exception, SystemExit) as error:  # other people's code: whatever it raises ends its own samples and nobody else's
            taken[name].error = error
            alive.remove(name)
            return None

    with _undisturbed_by_collection():
        for name in list(alive):
            calls = attempt(name, partial(calibrate, subjects[name], clock, budget)) or 1
            # Samples that there are already keep their number of calls.
            taken[name].calls = taken[name].calls if taken[name].seconds else calls
        generator = random.Random(seed)
        contests = {name: _Contest(taken[name], taken.get(baseline or ""), budget) for name in alive}
        number = 1 + max((samples.rounds[-1] for samples in taken.values() if samples.rounds), default=-1)
        while contests and not interrupted:
            # The baseline goes on as long as there is somebody to compare with it.
            names = [name for name in alive if name in contests or name == baseline]
            for name in generator.sample(names, len(names)):
                attempt(name, partial(_take, subjects[name], clock, taken[name], number))
            number += 1
            if number % _COLLECTED_EVERY == 0:
                gc.collect()
            contests = {name: contest for name, contest in contests.items() if name in alive and not contest.over()}
        for name in contests:
            taken[name].stopped = Stop.INTERRUPTED.value
        if contests and baseline in taken:
            taken[baseline].stopped = Stop.INTERRUPTED.value
    return taken


class _Contest:
    """One comparison while it is sampled; the baseline, which has nobody to be compared with, is sampled for itself."""

    def __init__(self, own: Samples, baseline: Samples | None, budget: Budget) -> None:
        self._own, self._baseline, self._budget = own, None if own is baseline else baseline, budget
        self._next = _FIRST_LOOK[1]
        pair = [own] if self._baseline is None else [own, self._baseline]
        self._spent = sum(sum(samples.seconds) * samples.calls for samples in pair)

    def over(self) -> bool:
        """Whether no more rounds are needed; asked after each."""
        rounds = len(self._own.seconds)
        # A baseline that dropped out leaves nobody to compare with.
        compared = self._baseline is not None and self._baseline.error is None
        pair = [self._own, self._baseline] if self._baseline is not None and compared else [self._own]
        self._spent += sum(samples.seconds[-1] * samples.calls for samples in pair)
        if self._spent >= (self._budget.seconds if compared else min(ALONE, self._budget.seconds)) and rounds >= self._budget.least_rounds:
            self._own.stopped = Stop.TIME.value
        elif compared and rounds >= _FIRST_LOOK[0] and self._spent >= self._next:
            self._next = self._spent * _LOOKS
            if self._decided():
                self._own.stopped = Stop.DECIDED.value
        return bool(self._own.stopped)

    def _decided(self) -> bool:
        assert self._baseline is not None
        found = effect(self._own.seconds, self._baseline.seconds[: len(self._own.seconds)])
        return found.verdict(_EARLY) is not Verdict.UNDECIDED or found.verdict() is Verdict.SAME


@contextmanager
def _undisturbed_by_collection() -> Iterator[None]:
    """Keeps Python's garbage collector from running in the middle of a sample, and from what was there before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _take(subject: Subject, clock: Clock, samples: Samples, number: int) -> None:
    taken = sample(subject, clock, samples.calls)
    samples.seconds.append(taken.seconds)
    samples.rounds.append(number)
    for seconds, known in ((taken.issued, samples.issued), (taken.device, samples.device)):
        if seconds is not None:
            known.append(seconds)


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

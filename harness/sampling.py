"""How samples are taken: warm-up, as many calls to a sample as the clock needs, and interleaved rounds in random order.

The noise of a shared machine lies between stretches of time and not within them, so what is to be compared is sampled side by side:
every round takes one sample of every implementation, in an order drawn anew. It goes on until each comparison is decided, can become no
more precise, or has used up its time: a large difference shows in a fraction of a second, and what is left of the time belongs to the
small ones.

What a call takes depends on what ran before it, because that left its own data in the caches. So every sample of short calls begins with
one that is not timed, and subjects of about the same speed get the same number of calls to a sample. Each without the other is not
enough: of 30 comparisons of a subclass of nn.LSTM with nn.LSTM itself, which differ in nothing, 12 gave a false alarm of up to 7 %
where one had a call of 0.5 ms to a sample and the other two or three. With both it was 1 of 200, and a slowdown of 1 % was decided in
0.25 s instead of 1.3 s.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch

from harness.clock import Clock, Timing
from harness.interrupts import interrupts_noted
from harness.statistics import EARLY, LEVEL, STRETCHES, Effect, Verdict, effect


class Sampled(Protocol):
    """What rounds are made of: something that takes samples of itself, in this process or in another one."""

    @property
    def singly(self) -> bool:
        """Whether a sample is one call."""

    def sample(self, clock: Clock, calls: int, untimed: int = 0) -> Timing:
        """The mean over ``calls`` consecutive calls, which follow ``untimed`` ones."""


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

    def sample(self, clock: Clock, calls: int, untimed: int = 0) -> Timing:
        """The mean over ``calls`` consecutive calls, which follow ``untimed`` ones."""
        call = self.call
        with self.context():
            given = [self.given() for _ in range(untimed + calls)]
            for arguments in given[:untimed]:
                call(*arguments)
            del given[:untimed]

            def run() -> None:
                for arguments in given:
                    call(*arguments)

            taken = clock.time(run)
        return taken.shared(calls)


@dataclass(frozen=True)
class Budget:
    """How long to sample one workload, after warm-up.

    ``seconds``: at most, for each comparison with the baseline (what its calls and the baseline's take); less where it is decided
    before. ``least_rounds``: at least, whatever they take. ``sample_seconds``: a sample of the fastest takes as many calls as fill this.
    ``decide``: whether a comparison ends where it is decided; otherwise all of its time is spent. ``family``: of how many comparisons
    this is one: a verdict that ends a comparison is to hold among them all (:func:`harness.statistics.verdicts`).

    Samples are short, because on a busy machine a long one is seldom spared a wait for its core: with six to nine processes on two cores
    an LSTM forward pass of 0.5 ms was found slower by 2 % in 13 of 24 comparisons where it had three calls to a sample, and in 24 of 24
    where it had one. The resolution of a timer, a tenth of a microsecond, is nothing in them. A GPU has to be waited for before and after
    a sample, which is a part of it: see :meth:`on`.
    """

    seconds: float = 6.0
    least_rounds: int = 5
    sample_seconds: float = 3e-4
    warmup_seconds: float = 0.02
    decide: bool = True
    family: int = 1

    def on(self, device: str) -> Budget:
        """This budget for calls on ``device``: on a GPU no sample is shorter than the wait for it allows."""
        least = _ON_A_GPU if torch.device(device).type == "cuda" else 0.0
        return replace(self, sample_seconds=max(self.sample_seconds, least))


#: Seconds of the shortest sample on a GPU. The two waits and two events of one take 22 us (an H100, torch 2.11): of a sample of 0.3 ms that
#: was 5 %, of this one it is 1 %.
_ON_A_GPU = 2e-3

#: A sample of what is slower has as many calls as one of the fastest, unless it would last so many times as long.
_LONGEST = 20

#: Calls of so many seconds are not preceded by one that is not timed: to fill a cache again takes a few milliseconds at the most.
_LONG = 0.05

#: The pace follows from so many samples, or from one where the calls have taken so many seconds.
_LEAST_SAMPLES, _LONG_WARMUP = 4, 1.0

#: Seconds of sampling where there is nothing to compare with.
ALONE = 0.5

#: A comparison is looked at first after so many rounds and seconds, then ten times while its time grows tenfold.
_FIRST_LOOK, _LOOKS = (2 * STRETCHES, 0.25), 10**0.1

#: Rounds, or samples of one process of several, after which the garbage of other people's calls is collected, between two of them.
COLLECTED_EVERY = 64

#: What the exit status says of a command whose sampling was interrupted from the keyboard: 128 and the number of the signal, as in a shell.
INTERRUPTED = 130


class Stop(StrEnum):
    """Why the sampling of one implementation ended; :attr:`PRECISE`: undecided, and more samples would tell no more."""

    DECIDED = "decided"
    PRECISE = "precise"
    TIME = "time"
    INTERRUPTED = "interrupted"


@dataclass
class Samples:
    """What was taken of one subject: ``seconds`` per call of each sample, the ``rounds`` that they belong to, ``calls`` to a sample.

    ``issued`` and ``device`` are per call too, where the clock knows them. ``error`` is what a call raised, after which no more samples
    were taken. ``stopped``: why they ended otherwise. ``untimed``: calls before those of each sample, to bring its data into the caches.
    """

    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    error: Exception | SystemExit | None = None
    stopped: str = ""
    untimed: int = 0

    @property
    def spent(self) -> float:
        """Seconds that the calls took; those that were not timed are taken to be like the others."""
        return sum(self.seconds) * (self.calls + self.untimed)


def paired(own: Samples, baseline: Samples) -> tuple[list[float], list[float]]:
    """The seconds of both in the rounds that both have: one that was decided leaves them before its baseline does, and one of which an
    earlier run had nothing enters them later."""
    theirs = dict(zip(baseline.rounds, baseline.seconds, strict=True))
    both = [(seconds, theirs[number]) for number, seconds in zip(own.rounds, own.seconds, strict=True) if number in theirs]
    return [seconds for seconds, _ in both], [seconds for _, seconds in both]


def calibrate(subject: Sampled, clock: Clock, budget: Budget) -> float:
    """Seconds of a call, by the fastest of a few samples of up to ``budget.sample_seconds``.

    It also warms the subject up for ``budget.warmup_seconds``.
    """
    # The first call can take very much longer than the rest: it warms up, and nothing is concluded from it.
    spent, calls = subject.sample(clock, 1).seconds, 1
    fastest, taken = math.inf, 0
    # The fastest of several: a thread that loses its core for a while is no slow subject.
    while spent < budget.warmup_seconds or taken < (1 if spent > _LONG_WARMUP else _LEAST_SAMPLES):
        seconds = subject.sample(clock, calls).seconds
        spent, fastest, taken = spent + seconds * calls, min(fastest, seconds), taken + 1
        # Grown by steps, because a few more calls can still be slow.
        calls = 1 if subject.singly else min(_filling(budget.sample_seconds, seconds), calls * 4)
    return fastest


def _filling(duration: float, seconds: float) -> int:
    """How many calls of ``seconds`` each fill ``duration``: at least one."""
    return max(1, math.ceil(duration / max(seconds, 1e-9)))


def paced(subjects: Mapping[str, Sampled], seconds: Mapping[str, float], budget: Budget) -> dict[str, Samples]:
    """What the samples of each are to be like: as many calls as fill one of the fastest, for all that are not far slower."""
    answer = {}
    common = _filling(budget.sample_seconds, min(seconds.values(), default=1.0))
    for name, own in seconds.items():
        singly = subjects[name].singly
        calls = 1 if singly else min(common, _filling(_LONGEST * budget.sample_seconds, own))
        answer[name] = Samples(calls, untimed=0 if singly or own >= _LONG else 1)
    return answer


def interleave(
    subjects: Mapping[str, Sampled],
    clock: Clock,
    budget: Budget,
    seed: int = 0,
    baseline: str | None = None,
    before: Mapping[str, Samples] = MappingProxyType({}),
) -> dict[str, Samples]:
    """Samples of every subject, in rounds of random order; a subject that raises drops out.

    Every subject is compared with ``baseline`` (the first, if none is named) and leaves the rounds when that comparison is decided or
    its time is spent; the baseline stays to the end. ``before``: what was taken of each until an interruption, to be gone on from.

    An interrupt from the keyboard ends the sampling after the round in which it comes, and loses nothing; a second one is raised at once.
    """
    taken = {name: replace(before[name], stopped="") if name in before else Samples() for name in subjects}
    alive = list(subjects)
    baseline = baseline if baseline in subjects else next(iter(subjects), None)

    def attempt(name: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (Exception, SystemExit) as error:  # other people's code: whatever it raises ends its own samples and nobody else's
            taken[name].error = error
            alive.remove(name)
            return None

    with _undisturbed_by_collection(), interrupts_noted() as interrupt:
        warm = {name: attempt(name, partial(calibrate, subjects[name], clock, budget)) for name in list(alive)}
        for name, pace in paced(subjects, {name: warm[name] for name in alive}, budget).items():
            taken[name].untimed = pace.untimed
            # Samples that there are already keep their number of calls.
            taken[name].calls = taken[name].calls if taken[name].seconds else pace.calls
        generator = random.Random(seed)
        contests = {name: Contest(taken[name], taken.get(baseline or ""), budget) for name in alive}
        number = 1 + max((samples.rounds[-1] for samples in taken.values() if samples.rounds), default=-1)
        while contests and not interrupt.came:
            # The baseline goes on as long as there is somebody to compare with it.
            names = [name for name in alive if name in contests or name == baseline]
            for name in generator.sample(names, len(names)):
                attempt(name, partial(_take, subjects[name], clock, taken[name], number))
            number += 1
            if number % COLLECTED_EVERY == 0:
                gc.collect()
            contests = {name: contest for name, contest in contests.items() if name in alive and not contest.count_round()}
        for name in contests:
            taken[name].stopped = Stop.INTERRUPTED.value
        # Also where it came in the last round of all, or nobody would hear of it.
        if interrupt.came and baseline in taken:
            taken[baseline].stopped = Stop.INTERRUPTED.value
    return taken


class Contest:
    """One comparison while it is sampled; the baseline, which has nobody to be compared with, is sampled for itself.

    ``estimate``: what makes an effect of two series of seconds.
    """

    def __init__(self, own: Samples, baseline: Samples | None, budget: Budget, estimate: Callable[..., Effect] = effect) -> None:
        self._own, self._baseline, self._budget = own, None if own is baseline else baseline, budget
        self._estimate = estimate
        self._next = _FIRST_LOOK[1]
        pair = [own] if self._baseline is None else [own, self._baseline]
        self._spent = sum(samples.spent for samples in pair)

    def count_round(self) -> bool:
        """Counts the round that was taken last; whether no more are needed."""
        rounds = len(self._own.seconds)
        # A baseline that dropped out leaves nobody to compare with.
        compared = self._baseline is not None and self._baseline.error is None
        pair = [self._own, self._baseline] if self._baseline is not None and compared else [self._own]
        self._spent += sum(samples.seconds[-1] * (samples.calls + samples.untimed) for samples in pair)
        if self._spent >= (self._budget.seconds if compared else min(ALONE, self._budget.seconds)) and rounds >= self._budget.least_rounds:
            self._own.stopped = Stop.TIME.value
        elif compared and self._budget.decide and rounds >= _FIRST_LOOK[0] and self._spent >= self._next:
            self._next = self._spent * _LOOKS
            self._own.stopped = self._looked()
        return bool(self._own.stopped)

    def _looked(self) -> str:
        """Why a look at the samples ends the comparison; empty where it does not."""
        assert self._baseline is not None
        found = self._estimate(*paired(self._own, self._baseline))
        level = max(EARLY, 1 - (1 - LEVEL) / self._budget.family)
        if found.verdict(level) is not Verdict.UNDECIDED or found.verdict() is Verdict.SAME:
            return Stop.DECIDED.value
        return Stop.PRECISE.value if found.exhausted else ""


def require_whole(taken: Mapping[str, Samples]) -> None:
    """Raises what ended samples before their time: what a call raised, or KeyboardInterrupt."""
    for samples in taken.values():
        if samples.error is not None:
            raise samples.error
        if samples.stopped == Stop.INTERRUPTED:
            raise KeyboardInterrupt


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


def _take(subject: Sampled, clock: Clock, samples: Samples, number: int) -> None:
    taken = subject.sample(clock, samples.calls, samples.untimed)
    samples.seconds.append(taken.seconds)
    samples.rounds.append(number)
    for seconds, known in ((taken.issued, samples.issued), (taken.device, samples.device)):
        if seconds is not None:
            known.append(seconds)

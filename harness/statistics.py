"""How much longer one thing takes than another, how sure that is, and what may be said of it: pure functions of samples.

Two series of times from the same interleaved rounds are compared. Of every few rounds in a row the fastest time of each is kept, because
what disturbs a sample on a shared machine only makes it longer. Of ``ln(candidate / baseline)`` the median is taken over each of some
stretches of rounds; the effect is the mean of these medians. They differ as much as the machine's slow changes make them, which gives the
interval: a bootstrap of single rounds takes rounds for independent, and is too narrow by half. What no number of rounds shows (two
instances of the same layer lie differently in memory) is added to the interval on either side.

The fastest times do not see what is slow in a part of the calls only. Where the times of all rounds, with an interval of their own, say
that there is a difference which the fastest do not see, and say it at a level that noise does not reach, the effect is theirs. On the 60
series named below, a slowdown by 10 % of 70 % of the calls, drawn at random, is found in 50 of 60 in 6 s with it and in 36 without, one by
20 % of 55 % of the calls in 39 and 13; of 480 comparisons of equal things 3 are called different with it and 3 without.

How estimators did, ended by the looks of :class:`harness.sampling.Contest`, on 89 series of up to 20 seconds: five nn.LSTM forward passes
of 0.8 to 1 ms, each beside six subclasses that wait for 0, 1, 2 or 5 % of their time, a known share that was taken out and planted anew;
six to eight processes on two cores, 70 % of the time spent waiting for a core. Shorter stretches of a series are counted one by one. The
number 16 had been chosen before, on other series. The effect was the median of all logarithms then, whose interval is as wide and holds
less often: of equal things in independent noise 23 of 600 were called different in 2 s, and 4 of 600 with the mean of medians. On 60 series
of a pass of 0.5 ms beside seven busy processes the two did alike: 2 % found in 55 and 54 of 60, 5 % in 112 and 111 of 120.

=================== ============= =========== =========== ===========
estimator           false alarms  1 % found   2 % found   5 % found
                    in 6 s        in 20 s     in 6 s      in 2 s
=================== ============= =========== =========== ===========
fastest of 16       1 of 270      89 of 89    270 of 270  845 of 855
fastest of 32       1 of 270      88 of 89    269 of 270  845 of 855
fastest of 8        2 of 270      89 of 89    269 of 270  847 of 855
fastest of 4        3 of 270      85 of 89    257 of 270  798 of 855
every round         0 of 270      42 of 89    115 of 270  347 of 855
=================== ============= =========== =========== ===========

``python -m harness.estimators`` makes such a table on any machine. With twelve processes on two cores and one pass of 0.5 ms it found no
difference in what the fastest of 4, 8, 16 and 32 find; every round, with a bootstrap or without, took several times as long.

CPU time instead of wall time would gain little, and would not see a layer that sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The share of intervals that hold the truth, and one minus the share of false alarms.
LEVEL = 0.99

#: The level at which a look before the end decides a comparison, or a higher one where its family asks for that. Each look is another
#: chance of a false alarm: three of them add less than a third of a per cent to the one at :data:`LEVEL` in the end.
EARLY = 0.999

#: What two instances of one layer may differ by, in either direction, however long they are sampled: a share of a call, and besides some
#: seconds, because where they lie in memory costs a short call as much as a long one. With the share alone, of calls of 80 us equal things
#: were called different in 11 of 145 comparisons, by 0.4 to 1 us; of 52 of these that were kept, in 4, and with the seconds in none.
SYSTEMATIC, LAYOUT = 0.0025, 3e-7

#: Times within this share of each other are the same for every practical purpose, if nothing says that they differ.
MARGIN = 0.01

#: The level at which what all rounds show overrules what the fastest of them do.
ALL_ROUNDS = 0.9999

#: Rounds in a row of which the fastest time is kept, where there are enough.
FASTEST_OF = 16

#: Stretches of rounds whose medians tell how sure the effect is.
STRETCHES = 16

#: Fewer rounds than this say nothing about how sure the effect is.
LEAST_ROUNDS = 5

#: Fewer pairs of fresh processes decide nothing. A layer may be quick in one half of all processes and slow in the other, by what its
#: memory happens to look like: four pairs then all find the same difference in 1 of 128 comparisons of equal things, five in 1 of 512.
LEAST_PAIRS = 5


def policy() -> dict[str, float]:
    """By which rules samples were taken for enough, and read, for the header of a run. Reports read all samples by those of today."""
    return {
        "level": LEVEL,
        "early": EARLY,
        "systematic": SYSTEMATIC,
        "layout": LAYOUT,
        "margin": MARGIN,
        "fastest_of": FASTEST_OF,
        "stretches": STRETCHES,
        "all_rounds": ALL_ROUNDS,
    }


class Verdict(StrEnum):
    """What may be said of a candidate beside its baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNDECIDED = "undecided"

    @property
    def meaning(self) -> str:
        return {
            "faster": "takes less time than the baseline",
            "slower": "takes more time than the baseline",
            "same": f"within {MARGIN:.0%} of the baseline, for all that can be seen",
            "undecided": "the samples do not say",
        }[self.value]


@dataclass(frozen=True)
class Effect:
    """The time of a candidate beside its baseline's, as ``log`` = ln(candidate / baseline).

    ``error`` is the standard error of ``log`` with ``freedom`` degrees of freedom, NaN where there were too few rounds. ``systematic``:
    what is added on either side. ``rounds``: how many both have.
    """

    log: float
    error: float
    freedom: int
    rounds: int
    systematic: float = SYSTEMATIC

    @property
    def ratio(self) -> float:
        """Seconds of the candidate over seconds of the baseline: above 1 is slower."""
        return math.exp(self.log)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval of :attr:`ratio`; NaN where there were too few rounds."""
        if math.isnan(self.error):
            return math.nan, math.nan
        half = t_quantile(level, self.freedom) * self.error + self.systematic
        return math.exp(self.log - half), math.exp(self.log + half)

    @property
    def exhausted(self) -> bool:
        """Whether more rounds would tell no more: what none shows leaves both being different and being the same out of reach."""
        beyond = abs(self.log)
        settled = t_quantile(LEVEL, self.freedom) * self.error <= self.systematic / 4 if self.freedom else False
        return settled and beyond <= self.systematic and beyond + self.systematic >= math.log1p(MARGIN)

    @property
    def p(self) -> float:
        """How often two equal things would differ as much or more: 1 where nothing is known."""
        beyond = abs(self.log) - self.systematic
        if math.isnan(self.error) or beyond <= 0:
            return 1.0
        return t_tail(beyond / self.error, self.freedom) if self.error > 0 else 0.0

    def verdict(self, level: float = LEVEL) -> Verdict:
        """What may be said at ``level``, of this comparison alone."""
        if self.p <= 1 - level:
            return Verdict.SLOWER if self.log > 0 else Verdict.FASTER
        return self.verdict_unless_different(level)

    def verdict_unless_different(self, level: float = LEVEL) -> Verdict:
        """What may be said at ``level`` where nothing says that the two differ: whether that is for being the same."""
        low, high = self.interval(level)
        return Verdict.SAME if low >= 1 / (1 + MARGIN) and high <= 1 + MARGIN else Verdict.UNDECIDED


#: The effect of nothing.
UNKNOWN = Effect(math.nan, math.nan, 0, 0)


def effect(
    candidate: Sequence[float] | Array,
    baseline: Sequence[float] | Array,
    systematic: float | None = None,
    fastest_of: int = FASTEST_OF,
) -> Effect:
    """The effect from two series of seconds of a call, in which equal places are of the same round.

    ``systematic``: what no number of rounds shows; :data:`SYSTEMATIC` and, of a call as long as the baseline's, :data:`LAYOUT` where it
    is None. Raises ValueError where the lengths of the series differ.
    """
    times = np.stack([np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)])
    rounds = times.shape[1]
    if not rounds:
        return UNKNOWN
    size = min(fastest_of, max(1, rounds // STRETCHES))
    fastest = _of_stretches(times, size, systematic)
    if size == 1:
        return fastest
    usual = _of_stretches(times, 1, systematic)
    return usual if _overrules(usual, fastest) else fastest


def _overrules(usual: Effect, fastest: Effect) -> bool:
    """Whether the effect of all rounds is a difference, and that of the fastest of them is none or another one."""
    least = 1 - ALL_ROUNDS
    return usual.p <= least and (fastest.p > least or (usual.log > 0) != (fastest.log > 0))


def _of_stretches(times: Array, size: int, systematic: float | None) -> Effect:
    """The effect from the fastest of every ``size`` rounds; ``times``: (2, rounds), those of the candidate first."""
    rounds = times.shape[1]
    kept = times[:, : rounds // size * size].reshape(2, -1, size).min(axis=2)
    logs = np.log(kept[0] / kept[1])
    log = float(np.median(logs))
    if systematic is None:
        systematic = SYSTEMATIC + LAYOUT / float(np.median(kept[1]))
    if rounds < LEAST_ROUNDS:
        return Effect(log, math.nan, 0, rounds, systematic)
    count = min(STRETCHES, len(logs))
    medians = [np.median(stretch) for stretch in np.array_split(logs, count)]
    error = float(np.std(medians, ddof=1)) / math.sqrt(count)
    if count == len(logs):
        # The median of a few numbers errs more than their mean, which is what the standard error is of.
        error *= math.sqrt(math.pi / 2)
    else:
        # Student's t is the distribution of this mean. The median of all logs errs more where the stretches are short: intervals around it
        # left out the truth in up to 3 % of series of independent rounds.
        log = float(np.mean(medians))
    return Effect(log, error, count - 1, rounds, systematic)


def between(logs: Sequence[float] | Array, systematic: float = SYSTEMATIC) -> Effect:
    """The effect from the ``log`` of each of several pairs of fresh processes: their mean, as unsure as they differ.

    What one process cannot see of itself, because its layout in memory stays the same, differs from pair to pair and is in the error. The
    mean and not the median: Student's t is the distribution of the mean of a few. ``systematic``: what no pair shows. ``rounds`` is the
    number of pairs; below :data:`LEAST_PAIRS` the error is NaN.
    """
    values = np.asarray(logs, dtype=np.float64)
    count = len(values)
    if not count:
        return UNKNOWN
    if count < LEAST_PAIRS:
        return Effect(float(values.mean()), math.nan, 0, count, systematic)
    return Effect(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(count), count - 1, count, systematic)


def mean(effects: Sequence[Effect]) -> Effect:
    """The mean effect over several workloads, with the fewest degrees of freedom and the largest systematic part among them."""
    if not effects:
        return UNKNOWN
    count = len(effects)
    return Effect(
        sum(e.log for e in effects) / count,
        math.sqrt(sum(e.error**2 for e in effects)) / count,
        min(e.freedom for e in effects),
        sum(e.rounds for e in effects),
        max(e.systematic for e in effects),
    )


def verdicts(effects: Mapping[str, Effect], level: float = LEVEL) -> dict[str, Verdict]:
    """What may be said of each of a family of comparisons, so that in a share ``level`` of families no alarm is false (Holm 1979,
    "A simple sequentially rejective multiple test procedure")."""
    answer = {name: e.verdict(level) for name, e in effects.items()}
    ordered = sorted(effects, key=lambda name: effects[name].p)
    rejected = True
    for place, name in enumerate(ordered):
        rejected = rejected and effects[name].p <= (1 - level) / (len(ordered) - place)
        if not rejected and answer[name] in (Verdict.SLOWER, Verdict.FASTER):
            answer[name] = effects[name].verdict_unless_different(level)
    return answer


def t_tail(t: float, freedom: int) -> float:
    """The probability that Student's t with ``freedom`` degrees lies beyond ``t`` in either direction.

    The finite series of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4; exact for whole degrees.
    """
    theta = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    if freedom % 2:
        term, total = cosine, cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine**2 * (k - 1) / k
            total += term
        inside = 2 / math.pi * (theta + sine * total)
    else:
        term = total = 1.0
        for k in range(2, freedom - 1, 2):
            term *= cosine**2 * (k - 1) / k
            total += term
        inside = sine * total
    return max(0.0, 1.0 - inside)


@cache
def t_quantile(level: float, freedom: int) -> float:
    """The t that Student's t with ``freedom`` degrees stays within, in either direction, with probability ``level``."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - level else (low, middle)
    return high

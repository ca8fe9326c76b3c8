"""Which estimator and which length of a sample see most on a busy machine: several of them on the same series of times.

``python -m harness.estimators`` samples pairs of equal nn.LSTM forward passes as any two implementations are sampled, each pair to the end
of its time. Afterwards a slowdown is planted in every series by a factor on the candidate's times, and each estimator is asked what it
would have said, with the looks that end a comparison. What it prints stands in :mod:`harness.statistics`.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics as stdlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from harness.arguments import above_zero, at_least
from harness.calibration import PLANTED, SHAPES, inference, layers
from harness.clock import HostClock
from harness.sampling import INTERRUPTED, Budget, Contest, Samples, Subject, interleave, paired, require_whole
from harness.statistics import FASTEST_OF, LEVEL, STRETCHES, Array, Effect, Verdict, effect
from harness.watch import Watch

#: Lengths of a sample in seconds; the first is what comparisons use.
LENGTHS = (Budget.sample_seconds, 1e-3)

Times = Sequence[float] | Array


@dataclass(frozen=True)
class Series:
    """What was taken of two equal things: seconds per call of either, round by round, and the calls of each sample."""

    candidate: Array
    baseline: Array
    calls: int
    untimed: int


def take(seconds: float, sample_seconds: float) -> Series:
    """A series of so many seconds of calls."""
    layer = layers(SHAPES["cpu"])
    subjects = {name: Subject(layer(), inference) for name in ("baseline", "candidate")}
    budget = Budget(seconds=seconds, sample_seconds=sample_seconds, decide=False)
    taken = interleave(subjects, HostClock("cpu"), budget, random.randrange(2**31), "baseline")
    require_whole(taken)
    own, base = paired(taken["candidate"], taken["baseline"])
    return Series(np.array(own), np.array(base), taken["candidate"].calls, taken["candidate"].untimed)


def quantile(candidate: Times, baseline: Times, share: float = 0.1) -> Effect:
    """The median over stretches of the log-ratio of a low quantile of either."""
    pairs = zip(np.array_split(np.asarray(candidate), STRETCHES), np.array_split(np.asarray(baseline), STRETCHES), strict=True)
    logs = [math.log(np.quantile(own, share) / np.quantile(base, share)) for own, base in pairs if len(own)]
    error = float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) * math.sqrt(math.pi / 2)
    return Effect(float(np.median(logs)), error, len(logs) - 1, len(candidate))


def bootstrap(candidate: Times, baseline: Times, draws: int = 200) -> Effect:
    """The median of the log-ratios of single rounds, as unsure as it is when rounds are drawn anew."""
    logs = np.log(np.asarray(candidate) / np.asarray(baseline))
    drawn = np.random.default_rng(0).integers(0, len(logs), (draws, len(logs)))
    # So many degrees of freedom that Student's t is the normal distribution.
    return Effect(float(np.median(logs)), float(np.median(logs[drawn], axis=1).std(ddof=1)), 1001, len(logs))


#: What is compared, by what it is called in the table.
ESTIMATORS: dict[str, Callable[[Times, Times], Effect]] = {
    **{f"fastest of {size} rounds": partial(effect, fastest_of=size) for size in (FASTEST_OF, 32, 8, 4, 2, 1)},
    "10 % quantiles of stretches": quantile,
    "bootstrap of single rounds": bootstrap,
}


def verdict(
    series: Series, share: float, seconds: float, estimate: Callable[[Times, Times], Effect], decide: bool
) -> tuple[Verdict, float]:
    """What is said of the candidate slowed down by ``share``, in at most ``seconds`` of calls; and the seconds that it took."""
    own, base = Samples(series.calls, untimed=series.untimed), Samples(series.calls, untimed=series.untimed)
    contest = Contest(own, base, Budget(seconds=seconds, decide=decide), estimate)
    for number, (slower, other) in enumerate(zip((1 + share) * series.candidate, series.baseline, strict=True)):
        for samples, seconds in ((own, slower), (base, other)):
            samples.seconds.append(float(seconds))
            samples.rounds.append(number)
        if contest.count_round():
            break
    return estimate(own.seconds, base.seconds).verdict(), own.spent + base.spent


def row(name: str, several: Sequence[Series], estimate: Callable[[Times, Times], Effect], decide: bool = True) -> str:
    """One line of the table: the standard error, false alarms, and how many of each planted slowdown were found, in which time."""
    whole = [effect_at_the_end(one, estimate) for one in several]
    error = math.sqrt(stdlib.fmean(effect_of.log**2 for effect_of in whole))
    cells = [f"{name:32} {error:7.4f}"]
    for share, seconds in PLANTED:
        found = [verdict(one, share, seconds, estimate, decide) for one in several]
        wanted = (Verdict.SLOWER,) if share else (Verdict.SLOWER, Verdict.FASTER)
        cells.append(f"{sum(said in wanted for said, _ in found):4} in {stdlib.median(spent for _, spent in found):4.1f} s")
    return "  ".join(cells)


def effect_at_the_end(series: Series, estimate: Callable[[Times, Times], Effect]) -> Effect:
    """The effect in the first :attr:`Budget.seconds` of a series, in which nothing was planted."""
    spent = np.cumsum((series.calls + series.untimed) * (series.candidate + series.baseline))
    rounds = int(np.searchsorted(spent, Budget.seconds)) + 1
    return estimate(series.candidate[:rounds], series.baseline[:rounds])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 130 after an interrupt, with the table of what was taken until then."""
    parser = argparse.ArgumentParser(prog="python -m harness.estimators", description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=at_least(1), default=24, metavar="N", help="pairs of equal layers, for each length; default: 24")
    parser.add_argument("--seconds", type=above_zero, default=20.0, metavar="SECONDS", help="of calls in each series; default: 20")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # One of each length in turn, so that what the machine does meanwhile is the same for all.
    taken: list[dict[float, Series]] = []
    with Watch("cpu") as watch, suppress(KeyboardInterrupt):
        for _ in range(chosen.series):
            taken.append({length: take(chosen.seconds, length) for length in LENGTHS})
    seen = watch.seen()
    if not taken:
        print("error: interrupted before the first series was whole", file=sys.stderr)
        return INTERRUPTED
    several = {length: [one[length] for one in taken] for length in LENGTHS}
    shares = {"other processes had": seen.others, "this thread waited for a core": seen.waited}
    print(", ".join(f"{what} {share:.0%} of the time" for what, share in shares.items() if share is not None))
    head = "  ".join(f"{f'{share:.0%} in {seconds:g} s' if share else 'false alarms':>13}" for share, seconds in PLANTED)
    print(f"{f'{len(taken)} series, at {LEVEL:.0%}':32}   error  {head}")
    for name, estimate in ESTIMATORS.items():
        print(row(name, several[LENGTHS[0]], estimate))
    first = next(iter(ESTIMATORS))
    print(row(f"{first}, no looks", several[LENGTHS[0]], ESTIMATORS[first], decide=False))
    for length in LENGTHS[1:]:
        print(row(f"{first}, {1e3 * length:g} ms", several[length], ESTIMATORS[first]))
    return 0 if len(taken) == chosen.series else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

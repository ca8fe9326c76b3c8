"""The same layer in two environments, compared by pairs of fresh processes: what :mod:`harness.versus` is the command of.

Either process builds the layer and compares it with the oracle, and the two are sampled in rounds of random order, of which only one
works at a time. One process cannot see what its layout in memory does to its times, so several pairs of fresh processes are compared, in
each of which the layer is built several times; the interval carries the variation between the pairs. Pairs go on until every comparison
is decided or they are used up.

Measured on two cores, nn.LSTM with T=64 B=8 I=H=64 in both environments, 14 pairs: the error of a pair as its own rounds tell it was
0.2 %, but pairs differed with a standard deviation of 0.8 %, one of them by 2 % with every layer that it built, and of all 56 layers one
differed by 16 %, which a median leaves out. Holding both processes to one core did not help (14 pairs, 1.0 % beside 0.7 %).
"""

from __future__ import annotations

import math
import random
import statistics as stdlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from harness import watch
from harness.clock import HostClock
from harness.outcome import Outcome
from harness.progress import Progress
from harness.record import Versus
from harness.remote import Elsewhere, Unanswered
from harness.sampling import Budget, Stop, interleave, paired
from harness.statistics import EARLY, Effect, Verdict, between, effect, verdicts
from harness.watch import Reading, joined, read, sentences
from harness.workload import Workload

BASE, HEAD = SIDES = ("base", "head")

#: Layers that are built in each process, one after the other; the median of their effects is the effect of the pair.
BUILDS = 3

#: Pairs of fresh processes, at most, and seconds of sampling for each comparison in each of them, at most.
PAIRS, SECONDS = 8, 1.5

_BUDGET = Budget(seconds=SECONDS / BUILDS)


class VersusError(ValueError):
    """The command asks for what cannot be; the message is one line."""


class Worker(Protocol):
    """What :class:`harness.remote.Remote` is, and what stands in for it in tests."""

    def start(self) -> None: ...

    def ask(self, do: str, **given: Any) -> dict[str, Any]: ...

    def stop(self) -> None: ...


@dataclass
class Comparison:
    """One implementation on one workload, while it is compared.

    ``modes``: those that both environments offer. ``logs``: ln(head / base) of each pair of processes. ``stopped`` and ``outcome`` are
    empty while it goes on. The rest is as in :class:`harness.record.Versus`.
    """

    workload: Workload
    reference: str
    id: str
    modes: Sequence[str] = ()
    description: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    logs: list[float] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    rounds: list[int] = field(default_factory=list)
    kernels: dict[str, list[str]] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    evidence: list[dict[str, Any]] = field(default_factory=list)
    took: float = 0.0
    stopped: str = ""
    outcome: str = ""
    message: str = ""

    @property
    def effect(self) -> Effect:
        return between(self.logs)

    @property
    def goes_on(self) -> bool:
        return not self.stopped and not self.outcome

    def conclude(self, outcome: Outcome, message: str) -> None:
        """Ends it without a number."""
        self.outcome, self.message = outcome.value, message
        self.logs, self.rounds, self.seconds, self.evidence = [], [], {side: [] for side in SIDES}, []

    def go_on_from(self, record: Versus) -> None:
        """Takes over what an earlier run had of it."""
        self.logs, self.rounds = [math.log(ratio) for ratio in record.ratios], list(record.rounds)
        self.seconds = {BASE: list(record.base_seconds), HEAD: list(record.head_seconds)}
        self.kernels, self.agreement, self.evidence = dict(record.kernels), dict(record.agreement), list(record.evidence)
        self.took = record.seconds
        self.stopped = "" if record.stopped == Stop.INTERRUPTED else record.stopped
        if record.outcome != Outcome.PASSED:
            self.conclude(Outcome(record.outcome), record.message)


def decided(found: Effect, family: int) -> bool:
    """Whether one of ``family`` comparisons needs no more pairs."""
    differs = found.verdict(1 - (1 - EARLY) / family) in (Verdict.SLOWER, Verdict.FASTER)
    return differs or found.verdict() is Verdict.SAME


def begun(begin: Callable[[str], Worker], generator: random.Random) -> dict[str, Worker]:
    """A pair of fresh workers, which load side by side; which of them is first is drawn."""
    workers = {side: begin(side) for side in generator.sample(SIDES, len(SIDES))}
    for worker in workers.values():
        # What cannot be started says so when it is asked.
        with suppress(Unanswered):
            worker.start()
    return workers


def described(workers: Mapping[str, Worker]) -> dict[str, dict[str, Any]]:
    """What either environment is. Raises :class:`VersusError` where one cannot run the harness."""
    found = {}
    for side in SIDES:
        try:
            found[side] = workers[side].ask("describe")
        except Unanswered as end:
            raise VersusError(f"--{side}-python cannot run the harness: {end.message}") from end
    return found


def planned(workers: Mapping[str, Worker], references: Sequence[str], workloads: Sequence[Workload]) -> list[Comparison]:
    """The comparisons to make: every implementation on the workloads whose mode it offers.

    Two files may hold a class of one name: the second goes by its reference then, as :func:`harness.registry.resolve_all` has it. Raises
    :class:`VersusError` for what neither environment has, and where nothing is left to compare.
    """
    answer, ids = list[Comparison](), set[str]()
    for reference in references:
        found: dict[str, dict[str, Any]] = {}
        missing: list[tuple[str, Unanswered]] = []
        for side in SIDES:
            try:
                found[side] = workers[side].ask("find", reference=reference)
            except Unanswered as refused:
                missing.append((side, refused))
        if not found:
            raise VersusError(missing[0][1].message)
        modes = set.intersection(*(set(one["modes"]) for one in found.values()))
        first = next(iter(found.values()))
        id = reference if first["id"] in ids else first["id"]
        ids.add(id)
        for workload in workloads:
            if workload.case.layer.mode in modes:
                origins = {side: found[side]["origin"] for side in found}
                one = Comparison(workload, reference, id, sorted(modes), first["description"], origins)
                for side, end in missing:
                    one.conclude(end.outcome, f"{side}: {end.message}")
                answer.append(one)
    if not answer:
        raise VersusError("Nothing to compare: no workload has a mode that one of the implementations offers")
    return answer


def compare(
    comparisons: Sequence[Comparison],
    workers: dict[str, Worker],
    begin: Callable[[str], Worker],
    most: int = PAIRS,
    budget: Budget = _BUDGET,
    generator: random.Random | None = None,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    keep: Callable[[Comparison], None] = lambda one: None,
) -> bool:
    """Compares in up to ``most`` pairs of processes, of which ``workers`` is the first; whether it came to its end without an interrupt.

    ``begin(side)`` makes another worker. ``budget``: for each layer that is built. ``tell`` is given a line on each part as it begins,
    ``keep`` a comparison whenever one more of its pairs is done, or it has failed.
    The workers are stopped in the end, whatever happens.
    """
    generator = generator or random.Random()
    progress = Progress(sum(most - len(one.logs) for one in comparisons if one.goes_on), clock)
    fresh = True
    try:
        # One that was interrupted may have fewer pairs than another.
        while left := [one for one in comparisons if one.goes_on and len(one.logs) < most]:
            if not fresh:
                stop(workers)
                workers = begun(begin, generator)
            fresh = False
            # In another order each time: what was built before leaves its traces in a process.
            for one in generator.sample(left, len(left)):
                number = len(one.logs) + 1
                tell(progress.begin(f"pair {number}, {one.id} on {one.workload.id}"))
                start = clock()
                try:
                    _take(one, workers, budget, generator)
                except _Failed as failed:
                    one.conclude(failed.end.outcome, f"{failed.side}: {failed.end.message}")
                one.took += clock() - start
                if one.goes_on and number < most and decided(one.effect, len(comparisons)):
                    one.stopped = Stop.DECIDED.value
                if not one.goes_on:
                    progress.drop(most - number)
                keep(one)
    except KeyboardInterrupt:
        for one in comparisons:
            if one.goes_on:
                one.stopped = Stop.INTERRUPTED.value
        return False
    finally:
        stop(workers)
    for one in comparisons:
        if one.goes_on:
            one.stopped = Stop.DECIDED.value if decided(one.effect, len(comparisons)) else "pairs"
    return True


class _Failed(Exception):
    """What one side had instead of an answer."""

    def __init__(self, side: str, end: Unanswered) -> None:
        super().__init__(end.message)
        self.side, self.end = side, end


def stop(workers: Mapping[str, Worker]) -> None:
    """Ends the processes."""
    for worker in workers.values():
        worker.stop()


def _take(one: Comparison, workers: Mapping[str, Worker], budget: Budget, generator: random.Random) -> None:
    """Adds one pair of processes to a comparison. Raises :class:`_Failed`, and KeyboardInterrupt with nothing added."""

    def ask(side: str, do: str, **given: Any) -> dict[str, Any]:
        try:
            return workers[side].ask(do, **given)
        except Unanswered as end:
            raise _Failed(side, end) from end

    def both(do: str, **given: Any) -> dict[str, dict[str, Any]]:
        # What is not timed is done side by side.
        with ThreadPoolExecutor(len(SIDES)) as pool:
            return dict(zip(SIDES, pool.map(lambda side: ask(side, do, **given), SIDES), strict=True))

    def reading() -> Reading:
        return joined(read(), [ask(side, "reading") for side in SIDES])

    logs, seconds, rounds = [], {side: list[float]() for side in SIDES}, 0
    agreement, kernels = dict[str, Any](), dict(one.kernels)
    begin = reading()
    for _ in range(BUILDS):
        look = not kernels
        for side, answer in both("build", reference=one.reference, workload=one.workload.as_json(), look=look).items():
            agreement[side] = {"before": answer["agreement"]}
            if look:
                kernels[side] = answer["kernels"]
        subjects = {side: Elsewhere(workers[side]) for side in SIDES}
        taken = interleave(subjects, HostClock("cpu"), budget.on(one.workload.case.device), generator.randrange(2**31), BASE)
        for side in SIDES:
            error = taken[side].error
            if isinstance(error, Unanswered):
                raise _Failed(side, error) from error
            if error is not None:
                raise error
        if any(samples.stopped == Stop.INTERRUPTED for samples in taken.values()):
            raise KeyboardInterrupt
        for side, answer in both("check").items():
            agreement[side]["after"] = answer["agreement"]
        found = effect(*paired(taken[HEAD], taken[BASE]))
        logs.append(found.log)
        rounds += found.rounds
        for side in SIDES:
            seconds[side].append(stdlib.median(taken[side].seconds))
    seen = watch.between(begin, reading())
    one.agreement, one.kernels = agreement, kernels
    one.evidence.append({**asdict(seen), "told": sentences(seen)})
    one.logs.append(stdlib.median(logs))
    one.rounds.append(rounds)
    for side in SIDES:
        one.seconds[side].append(stdlib.median(seconds[side]))


def judged(
    comparisons: Sequence[Comparison], names: Mapping[str, str], environments: Mapping[str, Mapping[str, Any]], threads: int
) -> list[Versus]:
    """A record of each comparison, with verdicts that hold for all of them together."""
    found = {str(number): one.effect for number, one in enumerate(comparisons) if not one.outcome}
    verdict = verdicts(found)
    records = []
    for number, one in enumerate(comparisons):
        case, effect_of = one.workload.case, found.get(str(number))
        low, high = effect_of.interval() if effect_of else (math.nan, math.nan)
        known = effect_of is not None and bool(effect_of.rounds)
        records.append(
            Versus(
                workload=one.workload.id,
                workload_set=one.workload.set,
                implementation=one.id,
                base=names[BASE],
                head=names[HEAD],
                outcome=one.outcome or Outcome.PASSED.value,
                mode=case.layer.mode.value,
                device=case.device,
                dtype=case.dtype,
                timed_pass=one.workload.timed.value,
                message=one.message,
                verdict=verdict[str(number)].value if effect_of else "",
                ratio=effect_of.ratio if effect_of and known else None,
                low=None if math.isnan(low) else low,
                high=None if math.isnan(high) else high,
                ratios=[math.exp(log) for log in one.logs],
                base_seconds=list(one.seconds[BASE]),
                head_seconds=list(one.seconds[HEAD]),
                rounds=list(one.rounds),
                seconds=one.took,
                stopped=one.stopped,
                threads=threads,
                kernels=dict(one.kernels),
                agreement=dict(one.agreement),
                environments={
                    side: {"python": facts["python"], "origin": one.origins.get(side, "")} for side, facts in environments.items()
                },
                evidence=list(one.evidence),
            )
        )
    return records

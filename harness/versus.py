"""Two environments side by side: is a layer slower with other versions of torch, or of the package that it comes from?

``python -m harness.versus`` (``nox -s versus``) starts a process under either Python, base and head, lets both build the layer and compare
it with the oracle, and samples the two in rounds of random order, of which only one process works at a time. One process cannot see what
its layout in memory does to its times, so several pairs of fresh processes are compared, in each of which the layer is built several times;
the interval carries the variation between the pairs. Pairs go on until every comparison is decided or they are used up.

Measured on two cores, nn.LSTM with T=64 B=8 I=H=64 in both environments, 14 pairs: the error of a pair as its own rounds tell it was
0.2 %, but pairs differed with a standard deviation of 0.8 %, one of them by 2 % with every layer that it built, and of all 56 layers one
differed by 16 %, which a median leaves out. Holding both processes to one core did not help (14 pairs, 1.0 % beside 0.7 %).
"""

from __future__ import annotations

import argparse
import math
import random
import runpy
import shutil
import statistics as stdlib
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import harness
from harness import statistics, watch
from harness.clock import HostClock
from harness.outcome import Outcome
from harness.progress import Progress, spelled
from harness.record import Header, Versus
from harness.remote import Elsewhere, Remote, Unanswered
from harness.resume import ResumeError, compared
from harness.sampling import Budget, Stop, interleave
from harness.statistics import LEAST_PAIRS, LEVEL, Effect, Verdict, between, effect, verdicts
from harness.store import RunWriter, StoreError, encode, now
from harness.watch import Reading, Seen, joined, read, sentences
from harness.workload import Workload, WorkloadError, chosen

BASE, HEAD = SIDES = ("base", "head")

#: Layers that are built in each process, one after the other; the median of their effects is the effect of the pair.
BUILDS = 3

#: Pairs of fresh processes, at most, and seconds of sampling for each comparison in each of them, at most.
PAIRS, SECONDS = 8, 1.5

_BUDGET = Budget(seconds=SECONDS / BUILDS)

#: A comparison that is decided at this level needs no more pairs. Each look is another chance of a false alarm: three of them add less
#: than a third of a per cent to the one at :data:`harness.statistics.LEVEL` in the end.
_EARLY = 0.999

#: What the exit status says.
GOOD, SLOWER, BAD, INTERRUPTED = 0, 1, 2, 130


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

    ``logs``: ln(head / base) of each pair of processes. ``stopped`` and ``outcome`` are empty while it goes on. The rest is as in
    :class:`harness.record.Versus`.
    """

    workload: Workload
    reference: str
    id: str
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
    differs = found.verdict(1 - (1 - _EARLY) / family) in (Verdict.SLOWER, Verdict.FASTER)
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

    Raises :class:`VersusError` for what neither environment has, and where nothing is left to compare.
    """
    answer = []
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
        id = next(iter(found.values()))["id"]
        for workload in workloads:
            if workload.case.layer.mode in modes:
                one = Comparison(workload, reference, id, {side: found[side]["origin"] for side in found})
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
                _stop(workers)
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
        _stop(workers)
    for one in comparisons:
        if one.goes_on:
            one.stopped = Stop.DECIDED.value if decided(one.effect, len(comparisons)) else "pairs"
    return True


class _Failed(Exception):
    """What one side had instead of an answer."""

    def __init__(self, side: str, end: Unanswered) -> None:
        super().__init__(end.message)
        self.side, self.end = side, end


def _stop(workers: Mapping[str, Worker]) -> None:
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
    begin = reading()
    for build in range(BUILDS):
        look = not one.kernels and not build
        for side, answer in both("build", reference=one.reference, workload=one.workload.as_json(), look=look).items():
            one.agreement[side] = {"before": answer["agreement"]}
            if look:
                one.kernels[side] = answer["kernels"]
        subjects = {side: Elsewhere(workers[side]) for side in SIDES}
        taken = interleave(subjects, HostClock("cpu"), budget, generator.randrange(2**31), BASE)
        for side in SIDES:
            error = taken[side].error
            if isinstance(error, Unanswered):
                raise _Failed(side, error) from error
            if error is not None:
                raise error
        if any(samples.stopped == Stop.INTERRUPTED for samples in taken.values()):
            raise KeyboardInterrupt
        for side, answer in both("check").items():
            one.agreement[side]["after"] = answer["agreement"]
        # The baseline may have gone on for itself.
        shared = min(len(samples.seconds) for samples in taken.values())
        logs.append(effect(taken[HEAD].seconds[:shared], taken[BASE].seconds[:shared]).log)
        rounds += shared
        for side in SIDES:
            seconds[side].append(stdlib.median(taken[side].seconds))
    seen = watch.between(begin, reading())
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


def told(record: Versus) -> str:
    """One line on a comparison."""
    what = f"{record.implementation} on {record.workload}"
    if record.outcome != Outcome.PASSED:
        return f"{record.outcome:9}  {what}: {record.message}"
    took = f"{len(record.ratios)} pairs in {spelled(record.seconds)}"
    if record.ratio is None:
        return f"{record.verdict:9}  {what}: interrupted before the first pair was done"
    interval = "no interval" if record.low is None or record.high is None else f"{record.low:.4f} to {record.high:.4f}"
    kernels = (
        ""
        if record.kernels[BASE] == record.kernels[HEAD]
        else "; other kernels: " + " -> ".join(", ".join(record.kernels[side]) for side in SIDES)
    )
    return f"{record.verdict:9}  {what}: {record.head} takes {record.ratio:.4f} ({interval}) of the time of {record.base}, {took}{kernels}"


def differences(environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is installed in one environment and not, or with another version, in the other; the versions of Python and of torch's parts."""
    base, head = (_versions(environments[side]) for side in SIDES)
    names = [name for name in {**base, **head} if base.get(name) != head.get(name)]
    return [f"{name} {base.get(name) or 'absent'} -> {head.get(name) or 'absent'}" for name in names]


def _versions(facts: Mapping[str, Any]) -> dict[str, str | None]:
    own = facts["environment"]["versions"]
    # Of the two, what is installed says where it came from.
    return {**{name: own.get(name) for name in ("python", "cuda", "cudnn", "onednn", "mkl")}, **facts["installed"]}


def disturbed(records: Iterable[Versus]) -> list[str]:
    """What disturbed the times of a run, in sentences: on the mean over all its pairs."""
    seen = [pair for record in records for pair in record.evidence]

    def mean(name: str) -> float | None:
        known = [pair[name] for pair in seen if pair.get(name) is not None]
        return stdlib.fmean(known) if known else None

    return sentences(Seen(sum(pair["seconds"] for pair in seen), others=mean("others"), stolen=mean("stolen"), waited=mean("waited")))


def exit_status(records: Iterable[Versus]) -> int:
    """1 for a confirmed slowdown of head; else 2 if something that was to be compared could not be, or nothing was; else 0."""
    found = list(records)
    if any(record.verdict == Verdict.SLOWER for record in found):
        return SLOWER
    compared = any(record.outcome == Outcome.PASSED for record in found)
    return GOOD if compared and not any(Outcome(record.outcome).fails_run for record in found) else BAD


def sets() -> Mapping[str, Sequence[Workload]]:
    """The workload sets of this checkout, told as pytest is told them; none where this is no checkout."""
    path = Path(harness.__file__).parents[1] / "conftest.py"
    return runpy.run_path(str(path))["pytest_harness_workloads"]() if path.is_file() else {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.versus",
        description="Compares the time of a layer in two environments. Exit status: 1 for a confirmed slowdown of head, 2 for bad input "
        "and for what could not be compared (a wrong answer, a crash), else 0.",
    )
    for side in SIDES:
        parser.add_argument(f"--{side}-python", required=True, metavar="PYTHON", help=f"the Python of {side}, with torch and numpy")
        parser.add_argument(f"--{side}", default="", metavar="NAME", help=f"what to call it; default: {side}")
    add = parser.add_argument
    add(
        "--implementation",
        action="append",
        default=[],
        metavar="REF",
        help="compare this one, as either environment has it; repeatable. REF as for pytest, but package.module:Name is looked for only "
        "among what is installed; default: torch:onednn, on a GPU torch:cudnn",
    )
    add("--workloads", action="append", default=[], metavar="NAME_OR_FILE", help="as for pytest; repeatable; default: release")
    add("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs of fresh processes, at most; default: {PAIRS}")
    add(
        "--sampling-time",
        type=float,
        default=SECONDS,
        metavar="SECONDS",
        help=f"how long to sample each comparison in each pair at most; default: {SECONDS:g}",
    )
    add("--threads", type=int, default=1, metavar="N", help="torch's intra-op threads; default: 1")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--time-limit", type=float, default=120.0, metavar="SECONDS", help="what one answer of a process may take; default: 120")
    add("--resume", type=Path, metavar="RUN", help="go on from this run file, which was interrupted or cut short, with the same options")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="folder for the run file; default: results")
    add("--json", action="store_true", help="print one JSON object per comparison and line")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    for name, least in (("pairs", LEAST_PAIRS), ("threads", 1)):
        if getattr(asked, name) < least:
            parser.error(f"expected --{name} of at least {least} but got {getattr(asked, name)}")
    for name in ("sampling_time", "time_limit"):
        if not 0 < getattr(asked, name) < math.inf:
            parser.error(f"expected --{name.replace('_', '-')} above 0 but got {getattr(asked, name)}")
    try:
        return _run(asked, ["python", "-m", "harness.versus", *(arguments if arguments is not None else sys.argv[1:])])
    except (VersusError, WorkloadError, StoreError, ResumeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD
    except KeyboardInterrupt:
        print("error: interrupted before anything was compared", file=sys.stderr)
        return INTERRUPTED


def _run(asked: argparse.Namespace, command: list[str]) -> int:
    workloads = [workload.on(asked.device) for workload in chosen(sets(), asked.workloads or ["release"])]
    pythons = {side: getattr(asked, f"{side}_python") for side in SIDES}
    names = {side: getattr(asked, side) or side for side in SIDES}
    for side, python in pythons.items():
        if shutil.which(python) is None:
            raise VersusError(f"Expected --{side}-python to be a Python interpreter but there is no program {python}")
    generator = random.Random()

    def begin(side: str) -> Worker:
        return Remote(pythons[side], asked.threads, asked.time_limit)

    say = partial(print, file=sys.stderr, flush=True)
    for side in SIDES:
        say(f"{side}: {names[side]} ({pythons[side]})")
    workers = begun(begin, generator)
    try:
        environments = described(workers)
        if asked.device == "cuda" and not all(facts["environment"]["gpus"] for facts in environments.values()):
            raise VersusError("Cannot use --device cuda: torch sees no GPU in one of the environments")
        references = asked.implementation or ["torch:cudnn" if asked.device == "cuda" else "torch:onednn"]
        comparisons = planned(workers, list(dict.fromkeys(references)), list(dict.fromkeys(workloads)))
        say(f"they differ in: {', '.join(differences(environments)) or 'no version of anything that is installed'}")
        header = _header(asked, command, comparisons, environments, names)
        earlier = compared(asked.resume, header.policy) if asked.resume else {}
        for one in comparisons:
            if (one.workload.id, one.id) in earlier:
                one.go_on_from(earlier[one.workload.id, one.id])
        writer = RunWriter(asked.results, "versus", header)
    except BaseException:
        _stop(workers)
        raise
    budget = Budget(seconds=asked.sampling_time / BUILDS)
    start = time.monotonic()

    def keep(one: Comparison) -> None:
        writer.append(judged(comparisons, names, environments, asked.threads)[comparisons.index(one)])

    finished = compare(comparisons, workers, begin, asked.pairs, budget, generator, say, keep=keep)
    records = judged(comparisons, names, environments, asked.threads)
    status = exit_status(records) if finished else INTERRUPTED
    for record in records:
        writer.append(record)
        print(encode(record) if asked.json else told(record))
    for line in disturbed(records):
        say(line)
    say(f"{spelled(time.monotonic() - start)}; run file: {writer.close(status)}")
    if not finished:
        say(f"to go on from it: the same command with --resume {writer.path}")
    return status


def _header(
    asked: argparse.Namespace,
    command: list[str],
    comparisons: Sequence[Comparison],
    environments: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> Header:
    """The environment is head's: of the machine both say the same."""
    return Header(
        uuid.uuid4().hex,
        now(),
        command,
        dict(environments[HEAD]["environment"]),
        {one.id: {"modes": [], "source": one.reference, "description": ""} for one in comparisons},
        workloads={one.workload.id: one.workload.as_json() for one in comparisons},
        policy={
            "level": LEVEL,
            "early": _EARLY,
            "systematic": statistics.SYSTEMATIC,
            "margin": statistics.MARGIN,
            "pairs": asked.pairs,
            "builds": BUILDS,
            "sampling_time": asked.sampling_time,
            **names,
            "environments": {side: facts["environment"] for side, facts in environments.items()},
            "installed": {side: facts["installed"] for side, facts in environments.items()},
        },
    )


if __name__ == "__main__":
    sys.exit(main())

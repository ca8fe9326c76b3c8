"""Two environments side by side: is a layer slower with other versions of torch, or of the package that it comes from?

``python -m harness.versus`` (``nox -s versus``) starts processes under either Python, base and head, and compares what they build
(:mod:`harness.pairs`); it says what differs between the environments, keeps every pair in a run file as it is done, and goes on from
one that was interrupted.
"""

from __future__ import annotations

import argparse
import random
import runpy
import shlex
import shutil
import statistics as stdlib
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import harness
from harness import statistics
from harness.arguments import above_zero, at_least
from harness.outcome import Outcome
from harness.pairs import (
    BASE,
    BUILDS,
    HEAD,
    PAIRS,
    SECONDS,
    SIDES,
    Comparison,
    VersusError,
    Worker,
    begun,
    compare,
    described,
    judged,
    planned,
    stop,
)
from harness.progress import spelled
from harness.record import Header, Versus
from harness.remote import Remote
from harness.resume import ResumeError, compared
from harness.sampling import INTERRUPTED, Budget
from harness.statistics import LEAST_PAIRS, Verdict
from harness.store import RunWriter, StoreError, encode, now
from harness.watch import Seen, sentences
from harness.workload import Workload, WorkloadError, chosen

#: What the exit status says of a comparison that came to its end.
GOOD, SLOWER, BAD = 0, 1, 2


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
    add("--pairs", type=at_least(LEAST_PAIRS), default=PAIRS, metavar="N", help=f"pairs of fresh processes, at most; default: {PAIRS}")
    add(
        "--sampling-time",
        type=above_zero,
        default=SECONDS,
        metavar="SECONDS",
        help=f"how long to sample each comparison in each pair at most; default: {SECONDS:g}",
    )
    add("--threads", type=at_least(1), default=1, metavar="N", help="torch's intra-op threads; default: 1")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--time-limit", type=above_zero, default=120.0, metavar="SECONDS", help="what one answer of a process may take; default: 120")
    add("--resume", type=Path, metavar="RUN", help="go on from this run file, which was interrupted or cut short, with the same options")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="folder for the run file; default: results")
    add("--json", action="store_true", help="print one JSON object per comparison and line")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    asked = _parser().parse_args(arguments)
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
        stop(workers)
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
        say(f"to go on from it: the same command with --resume {shlex.quote(str(writer.path))}")
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
        {one.id: {"modes": list(one.modes), "source": one.reference, "description": one.description} for one in comparisons},
        workloads={one.workload.id: one.workload.as_json() for one in comparisons},
        policy={
            **statistics.policy(),
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

"""What the command line asks for: the session that the options make, and the run file that is opened for it."""

from __future__ import annotations

import dataclasses
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import environment, statistics, tolerance
from harness.apart import Apart
from harness.contract import Contract, devices
from harness.implementation import Implementation
from harness.limit import Limits
from harness.progress import Progress
from harness.pytest_options import left_out, measuring
from harness.record import Conformance, Header, Mutation, Throughput
from harness.registry import UnknownImplementation, resolve, resolve_all, source_digest
from harness.resume import Earlier, ResumeError, earlier
from harness.store import RunWriter, StoreError, now
from harness.workers import Workers, sensible
from harness.workload import Workload, WorkloadError, chosen

SESSION = pytest.StashKey["Session"]()
"""Where pytest keeps the session of this run; nothing is there before the options are read."""

#: What a session finds. The instrument itself is calibrated without pytest.
Tested = Conformance | Throughput | Mutation


@dataclasses.dataclass
class Session:
    """What the command line asked for, resolved."""

    implementations: list[Implementation]
    devices: list[str]
    workloads: list[Workload]
    workers: Workers
    bench: Apart
    environment: dict[str, Any]
    baseline: str
    writer: RunWriter | None = None
    measured: dict[str, dict[str, Throughput]] = dataclasses.field(default_factory=dict)
    results: list[Tested] = dataclasses.field(default_factory=list)
    earlier: Earlier = dataclasses.field(default_factory=dict)
    progress: Progress | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    #: The devices that this process cannot use any more.
    lost: set[str] = dataclasses.field(default_factory=set)


def make_session(config: pytest.Config) -> None:
    """Resolves what was asked for; raises pytest.UsageError for what cannot be."""
    resumed = config.getoption("resume")
    if resumed is not None and not measuring(config):
        raise pytest.UsageError(f"Cannot use --resume {resumed}: it goes on from a benchmark, and needs --benchmark-only")
    try:
        unasked = left_out(config)
        implementations = [i for i in resolve_all(config.getoption("implementation")) if i.id not in unasked]
        baseline = config.getoption("baseline")
        if baseline and baseline not in {i.id for i in implementations}:
            # All of them anew: a class of the baseline's name in another file needs another id than it has alone.
            implementations = resolve_all([_baseline(baseline).reference, *(i.reference for i in implementations)])
            baseline = implementations[0].id
        sets = config.hook.pytest_harness_workloads() or {}
        workloads = chosen(sets, config.getoption("workloads") or ["quick"]) if sets else []
    except (UnknownImplementation, WorkloadError) as error:
        raise pytest.UsageError(str(error)) from error
    threads = config.getoption("threads")
    torch.set_num_threads(threads)
    references, limit = [i.reference for i in implementations], config.getoption("time_limit")
    bench, facts = Apart(references, limit), dataclasses.asdict(environment.describe())
    # Under pytest-xdist the work is shared already.
    workers = Workers(references, limit, 1 if hasattr(config, "workerinput") else sensible(threads, facts["cores"]))
    session = Session(implementations, _devices(config), workloads, workers, bench, facts, baseline)
    if resumed is not None:
        try:
            sources = {i.id: source_digest(i) for i in implementations}
            session.earlier = earlier(Path(resumed), session.environment, _policy(config, session), sources)
        except ResumeError as error:
            raise pytest.UsageError(str(error)) from error
    config.stash[SESSION] = session


def _baseline(reference: str) -> Implementation:
    try:
        return resolve(reference)
    except UnknownImplementation as error:
        # It was named by another option than those that are usually resolved.
        raise UnknownImplementation(str(error).replace("--implementation", "--baseline", 1)) from error


def session_of(config: pytest.Config) -> Session:
    """What this run was asked for."""
    return config.stash[SESSION]


def _devices(config: pytest.Config) -> list[str]:
    known, asked = devices(), config.getoption("device")
    for device in asked:
        if device not in (*known, "all"):
            raise pytest.UsageError(f"Cannot use --device {device}: this machine has {', '.join(known)}")
    if "all" in asked or not asked:
        return known[-1:] if measuring(config) and not asked else known
    return list(dict.fromkeys(asked))


def open_run(config: pytest.Config, session: Session) -> RunWriter | None:
    """The run file of this session, begun; None where nothing can be found."""
    times = measuring(config)
    contracts: Iterable[Contract] = () if times else config.hook.pytest_harness_contracts() or ()
    if not times and not contracts:
        return None
    header = Header(
        run=uuid.uuid4().hex,
        created=now(),
        command=["python", "-m", "pytest", *sys.argv[1:]],
        environment=session.environment,
        implementations={i.id: _describe(i, session.devices) for i in session.implementations},
        contracts={
            c.id: {"statement": c.statement, "severity": c.severity, "source": c.source, "topic": c.topic, "mutants": list(c.mutants)}
            for c in contracts
        },
        workloads={w.on(d).id: w.on(d).as_json() for w in session.workloads for d in session.devices} if times else {},
        policy=_policy(config, session),
    )
    try:
        return RunWriter(Path(config.getoption("results")), "throughput" if times else "conformance", header)
    except StoreError as error:
        raise pytest.UsageError(str(error)) from error


def _policy(config: pytest.Config, session: Session) -> dict[str, Any]:
    """What counts as close, and how samples are taken and read."""
    policy: dict[str, Any] = {
        "floors": tolerance.FLOORS,
        "approximate_floors": tolerance.APPROXIMATE_FLOORS,
        "least_floor_eps": tolerance.LEAST_FLOOR_EPS,
        "sum_floor_eps": tolerance.SUM_FLOOR_EPS,
    }
    if measuring(config):
        policy |= statistics.policy()
        policy |= {"sampling_time": config.getoption("sampling_time"), "cold": config.getoption("cold")}
    else:
        # What is timed says it for itself: a workload may ask for it.
        policy |= {"tf32": False}
    return {**policy, "baseline": session.baseline} if session.baseline else policy


def _describe(implementation: Implementation, on: Sequence[str]) -> dict[str, Any]:
    return {
        "description": implementation.description,
        "modes": sorted(implementation.capabilities.modes),
        "source": implementation.reference,
        "sha256": source_digest(implementation),
        "availability": {device: implementation.unavailable(device) for device in on},
    }

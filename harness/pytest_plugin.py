"""The glue between pytest and the harness: options, what is collected, what is recorded, what is said at the end."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import environment, statistics, tolerance
from harness.apart import Apart
from harness.contract import Check, Contract, checks, devices, run
from harness.coverage import covered
from harness.implementation import Implementation
from harness.layer import Mode
from harness.limit import Limits
from harness.measure import Interrupted, measure
from harness.outcome import Outcome
from harness.progress import Progress
from harness.record import Conformance, Header, Mutation, Throughput, to_json
from harness.registry import UnknownImplementation, builtin, resolve, resolve_all
from harness.resume import Earlier, ResumeError, earlier
from harness.sampling import REPLAY, Budget
from harness.store import RunWriter, StoreError, decode, encode, now
from harness.workers import AT_MOST, Workers, sensible
from harness.workload import Workload, WorkloadError, chosen

_SESSION = pytest.StashKey["Session"]()
_RESULT = "harness_result"

#: What a session finds. The instrument itself is calibrated without pytest.
Tested = Conformance | Throughput | Mutation


@dataclasses.dataclass
class Session:
    """What the command line asked for, resolved."""

    implementations: list[Implementation]
    devices: list[str]
    workloads: list[Workload]
    workers: Workers | None
    environment: dict[str, Any]
    baseline: str
    writer: RunWriter | None = None
    measured: dict[str, dict[str, Throughput]] = dataclasses.field(default_factory=dict)
    results: list[Tested] = dataclasses.field(default_factory=list)
    earlier: Earlier = dataclasses.field(default_factory=dict)
    progress: Progress | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    bench: Apart | None = None


class Hooks:
    """What a checkout tells this plugin."""

    @pytest.hookspec(firstresult=True)
    def pytest_harness_contracts(self) -> Sequence[Contract]:  # type: ignore[empty-body]
        """The contracts to check."""

    @pytest.hookspec(firstresult=True)
    def pytest_harness_workloads(self) -> Mapping[str, Sequence[Workload]]:  # type: ignore[empty-body]
        """The workload sets by name."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("recurrent layers")
    group.addoption(
        "--implementation",
        action="append",
        default=[],
        metavar="REF",
        help="test this implementation, and only those named; repeatable. REF is a registry id, path/to/file.py:Name or "
        "package.module:Name; rnn=REF, gru=REF or lstm=REF where the class subclasses none of nn's. Without it, all built-in ones.",
    )
    group.addoption(
        "--device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="run on this device: cpu, cuda or all; default: all, but with --benchmark-only the GPU alone where there is one",
    )
    group.addoption(
        "--reseed",
        type=int,
        default=0,
        metavar="N",
        help="draw other numbers for the same cases: N is added to the seed of each; default: 0",
    )
    group.addoption("--large", action="store_true", help="also check what takes gibibytes of memory")
    group.addoption("--results", default="results", metavar="DIR", help="folder for the run file; default: results")
    group.addoption(
        "--workloads",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="what to measure with --benchmark-only: a set by name, or a TOML file with tables [[workload]]; repeatable; default: quick",
    )
    group.addoption(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="torch's intra-op threads; default: 1, because two threads on two busy cores wait for each other a hundred times longer "
        "than they work",
    )
    group.addoption(
        "--sampling-time",
        type=float,
        default=Budget.seconds,
        metavar="SECONDS",
        help=f"how long to sample each comparison with the baseline at most; one that is decided before takes less; default: "
        f"{Budget.seconds:g}",
    )
    group.addoption(
        "--baseline",
        default="",
        metavar="ID",
        help="the implementation that the others are compared with; default: the first of torch's own that is timed, else the first",
    )
    group.addoption(
        "--resume",
        metavar="RUN",
        help="with --benchmark-only: go on from this run file, which was interrupted or cut short; what it has is not measured again",
    )
    group.addoption(
        "--cold",
        action="store_true",
        help="with --benchmark-only: overwrite the caches before every timed call (on a GPU its L2), which is then timed alone",
    )
    group.addoption(
        "--isolate",
        choices=("auto", "always", "never"),
        default="auto",
        help="check implementations, and measure workloads, in processes of their own, where a crash or a hang is an outcome: 'auto' does "
        f"so for those that are not built in; 'never' lets a debugger in. Checks are made in as many processes as there are cores for, "
        f"up to {AT_MOST}; measurements in one",
    )
    group.addoption(
        "--time-limit",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="what one isolated check, or one isolated call that is timed, may take; default: 30",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    try:
        implementations = resolve_all(config.getoption("implementation"))
        baseline = config.getoption("baseline")
        if baseline and baseline not in {i.id for i in implementations}:
            implementations = [resolve(baseline), *implementations]
            baseline = implementations[0].id
        sets = config.hook.pytest_harness_workloads() or {}
        workloads = chosen(sets, config.getoption("workloads") or ["quick"]) if sets else []
    except (UnknownImplementation, WorkloadError) as error:
        raise pytest.UsageError(str(error)) from error
    threads = max(1, config.getoption("threads"))
    torch.set_num_threads(threads)
    references, limit = [i.reference for i in implementations], config.getoption("time_limit")
    # Under pytest-xdist the work is shared already.
    workers = Workers(references, limit, 1 if hasattr(config, "workerinput") else sensible(threads))
    facts = dataclasses.asdict(environment.describe())
    session = Session(implementations, _devices(config), workloads, workers, facts, baseline, bench=Apart(references, limit))
    if config.getoption("resume") is not None:
        try:
            session.earlier = earlier(Path(config.getoption("resume")), session.environment, _policy(config, session))
        except ResumeError as error:
            raise pytest.UsageError(str(error)) from error
    config.stash[_SESSION] = session


def _devices(config: pytest.Config) -> list[str]:
    known, asked = devices(), config.getoption("device")
    for device in asked:
        if device not in (*known, "all"):
            raise pytest.UsageError(f"Cannot use --device {device}: this machine has {', '.join(known)}")
    if "all" in asked or not asked:
        return known[-1:] if _measuring(config) and not asked else known
    return list(dict.fromkeys(asked))


def _open_run(config: pytest.Config, session: Session) -> RunWriter | None:
    measuring = _measuring(config)
    contracts: Iterable[Contract] = () if measuring else config.hook.pytest_harness_contracts() or ()
    if not measuring and not contracts:
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
        workloads={w.on(d).id: w.on(d).as_json() for w in session.workloads for d in session.devices} if measuring else {},
        policy=_policy(config, session),
    )
    try:
        return RunWriter(Path(config.getoption("results")), "throughput" if measuring else "conformance", header)
    except StoreError as error:
        raise pytest.UsageError(str(error)) from error


def _policy(config: pytest.Config, session: Session) -> dict[str, Any]:
    """What counts as close, and how samples are taken and read."""
    policy = {
        "floors": tolerance.FLOORS,
        "least_floor_eps": tolerance.LEAST_FLOOR_EPS,
        "sum_floor_eps": tolerance.SUM_FLOOR_EPS,
        "tf32": False,
    }
    if _measuring(config):
        names = ("LEVEL", "SYSTEMATIC", "MARGIN", "FASTEST_OF", "STRETCHES")
        policy |= {name.lower(): getattr(statistics, name) for name in names}
        policy |= {"sampling_time": config.getoption("sampling_time"), "cold": config.getoption("cold")}
    return {**policy, "baseline": session.baseline} if session.baseline else policy


def _describe(implementation: Implementation, on: Sequence[str]) -> dict[str, Any]:
    return {
        "description": implementation.description,
        "modes": sorted(implementation.capabilities.modes),
        "source": implementation.reference,
        "availability": {device: implementation.unavailable(device) for device in on},
    }


def _measuring(config: pytest.Config) -> bool:
    """Whether throughput is measured, and contracts are not checked."""
    return bool(config.getoption("benchmark_only", False))


def session_of(config: pytest.Config) -> Session:
    """What this run was asked for."""
    return config.stash[_SESSION]


def conformance_checks(config: pytest.Config, contracts: Iterable[Contract]) -> list[Check]:
    """The checks to collect: none while throughput is measured."""
    session = session_of(config)
    if _measuring(config):
        return []
    found = checks(contracts, session.implementations, session.devices, config.getoption("large"))
    return [_reseeded(check, config.getoption("reseed")) for check in found]


def _reseeded(check: Check, by: int) -> Check:
    """The same check on other numbers."""
    if not by or check.case is None:
        return check
    return dataclasses.replace(check, case=dataclasses.replace(check.case, seed=check.case.seed + by))


def throughput_cells(config: pytest.Config) -> list[tuple[Workload, Implementation]]:
    """The cells to collect, those of one workload together: none while contracts are checked."""
    session = session_of(config)
    if not _measuring(config):
        return []
    workloads = [workload.on(device) for workload in session.workloads for device in session.devices]
    offered = [i for i in session.implementations if any(i.unavailable(device) is None for device in session.devices)]
    # A row that can run on no device of this machine is in the header, with the reason; it would only fill the table.
    return [(w, i) for w in workloads for i in offered if w.case.layer.mode in i.capabilities.modes]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bare pytest times nothing, --benchmark-only checks nothing: what does not belong is deselected, and counted as such."""
    unwanted = [item for item in items if ("benchmark" in getattr(item, "fixturenames", ())) != _measuring(config)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        gone = set(unwanted)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture
def record_result(request: pytest.FixtureRequest) -> Callable[[Tested], None]:
    """Puts a result into the run file."""

    def record(result: Tested) -> None:
        # As text, because pytest-xdist sends only plain types between processes.
        request.node.user_properties.append((_RESULT, encode(result)))

    return record


@pytest.fixture
def settle(request: pytest.FixtureRequest, record_result: Callable[[Tested], None]) -> Callable[[Check], None]:
    """Runs a check, records what came of it, and ends the test accordingly."""
    session = session_of(request.config)

    def settled(check: Check) -> None:
        apart = _apart(request.config, check.implementation) and check.case is not None
        result = session.workers.run(check) if apart and session.workers is not None else run(check)
        record_result(result)
        conclude(result)

    return settled


def _apart(config: pytest.Config, implementation: Implementation) -> bool:
    """Whether checks of ``implementation`` run in another process than this one."""
    isolate = config.getoption("isolate")
    return bool(isolate == "always" or (isolate == "auto" and implementation.reference not in builtin()))


Measured = Callable[[Workload, Implementation, Any], None]


@pytest.fixture
def measured(request: pytest.FixtureRequest, record_result: Callable[[Tested], None]) -> Measured:
    """Hands the samples of one cell to the benchmark fixture; the first cell of a workload that is asked for samples them all."""
    session = session_of(request.config)

    def hand_over(workload: Workload, implementation: Implementation, benchmark: Any) -> None:
        if workload.id not in session.measured:
            _measure(request, workload)
        result = session.measured[workload.id][implementation.id]
        record_result(result)
        conclude(result)
        benchmark.group = workload.id
        known = {k: v for k, v in to_json(result).items() if k not in ("kind", "samples", "rounds")}
        benchmark.extra_info.update(known, environment=session.environment)
        REPLAY.load([seconds * result.calls for seconds in result.samples])
        benchmark.pedantic(_nothing, rounds=len(result.samples), iterations=result.calls)

    return hand_over


def _measure(request: pytest.FixtureRequest, workload: Workload) -> None:
    """Measures the workload on all implementations that are asked for on it."""
    session, config = session_of(request.config), request.config
    wanted = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    beside = [p["implementation"] for p in wanted if p.get("workload") == workload]
    known = session.earlier.get(workload.id, {})
    # Rounds pair the implementations of a workload: without one of them the others cannot be gone on from.
    known = known if all(i.id in known for i in beside) else {}
    if session.progress is None:
        session.progress = Progress(len({p["workload"].id for p in wanted if "workload" in p}))
    _tell(config, session.progress.begin(workload.id))
    budget = Budget(seconds=config.getoption("sampling_time"))
    given: dict[str, Any] = {"baseline": session.baseline, "cold": config.getoption("cold"), "before": known}
    try:
        if session.bench is not None and any(_apart(config, implementation) for implementation in beside):
            records = session.bench.measure(workload, beside, budget, **given)
        else:
            records = measure(workload, beside, budget, limits=session.limits, **given)
    except Interrupted as interrupted:
        # No test will report them any more.
        for record in interrupted.records:
            _keep(session, record)
        raise
    session.measured[workload.id] = {record.implementation: record for record in records}


def _tell(config: pytest.Config, line: str) -> None:
    """Puts a line on the terminal while a test runs, unless it is to be quiet."""
    reporter, capture = (config.pluginmanager.get_plugin(name) for name in ("terminalreporter", "capturemanager"))
    if reporter is None or capture is None or config.get_verbosity() < 0:
        return
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(line)


def _keep(session: Session, result: Tested) -> None:
    session.results.append(result)
    if session.writer is not None:
        session.writer.append(result)


def _nothing() -> None:
    """Stands in for the call, which has been timed already."""


def conclude(result: Tested) -> None:
    """Ends the running test as ``result`` says: nothing is skipped without its reason."""
    outcome = Outcome(result.outcome)
    if outcome.fails_run:
        pytest.fail(f"{outcome.value}: {result.message}{_reproduced(result)}", pytrace=False)
    elif outcome is Outcome.EXPECTED_FAILURE:
        pytest.xfail(result.message)
    elif outcome is not Outcome.PASSED:
        pytest.skip(f"{outcome.value}: {result.message}")


def _reproduced(result: Tested) -> str:
    # Not indented: it could not be pasted then.
    script = result.reproduction if isinstance(result, Conformance) else ""
    return f"\nThis shows it, and runs as pasted:\n\n{script.rstrip()}\n" if script else ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and _CURRENT is not None:
        for name, value in report.user_properties:
            if name == _RESULT:
                result = decode(str(value))
                assert isinstance(result, Tested)
                _keep(_CURRENT, result)


# pytest_runtest_logreport is given no config; one process runs one session at a time.
_CURRENT: Session | None = None


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    global _CURRENT
    _CURRENT = session.config.stash.get(_SESSION, None)
    # Not when pytest is configured, which it also is to print its options.
    if _CURRENT is not None and not session.config.option.collectonly and not hasattr(session.config, "workerinput"):
        _CURRENT.writer = _open_run(session.config, _CURRENT)
    _start_worker(session.config)
    yield


def _start_worker(config: pytest.Config) -> None:
    """Lets the process for isolated checks or measurements load while this one collects them, where there will be any."""
    mine = config.stash.get(_SESSION, None)
    distributes = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    worker = None if mine is None else mine.bench if _measuring(config) else mine.workers
    if mine is None or worker is None or distributes or config.option.collectonly:
        return
    if any(_apart(config, implementation) for implementation in mine.implementations):
        worker.start()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Lets other processes begin with what they will be asked for; under pytest-xdist nobody knows yet who will be asked for what."""
    config = session.config
    mine = config.stash.get(_SESSION, None)
    shared = bool(config.getoption("numprocesses", None)) or hasattr(config, "workerinput")
    if mine is None or mine.workers is None or shared or config.option.collectonly or _measuring(config):
        return
    parameters = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    found = [value for given in parameters for value in given.values() if isinstance(value, Check)]
    mine.workers.expect(check for check in found if check.case is not None and _apart(config, check.implementation))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    mine = session.config.stash.get(_SESSION, None)
    for worker in () if mine is None else (mine.workers, mine.bench):
        if worker is not None:
            worker.stop()


def pytest_report_header(config: pytest.Config) -> list[str]:
    session = session_of(config)
    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(session.devices)}"]
    for implementation in session.implementations:
        reasons = {device: implementation.unavailable(device) for device in session.devices}
        if all(reasons.values()):
            lines.append(f"unavailable here: {implementation.id} ({'; '.join(str(reason) for reason in reasons.values())})")
    return lines


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    session = config.stash.get(_SESSION, None)
    if session is None or session.writer is None:
        return
    path = session.writer.close(int(exitstatus), covered(r for r in session.results if isinstance(r, Conformance)))
    session.writer = None
    if not session.results:
        path.unlink(missing_ok=True)
        return
    terminalreporter.section("recurrent layers")
    mutations = [result for result in session.results if isinstance(result, Mutation)]
    for line in kill_matrix(mutations) + summary([r for r in session.results if not isinstance(r, Mutation)]):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"run file: {os.path.relpath(path)}")
    if exitstatus == pytest.ExitCode.INTERRUPTED and _measuring(config):
        terminalreporter.write_line(f"to go on from it: the same command with --resume {os.path.relpath(path)}")


def kill_matrix(mutations: Sequence[Mutation]) -> list[str]:
    """For each contract and each mutant, in which modes the contract rejects it, and the score; nothing where no mutant was run."""
    if not mutations:
        return []
    modes = [mode.value for mode in Mode]
    width = max(len(m.mutant) for m in mutations)
    lines = [f"{'':{width}}  {' '.join(modes)}"]
    cell = {"killed": "x", "survived": "-"}
    for contract, group in itertools.groupby(sorted(mutations, key=lambda m: m.contract), key=lambda m: m.contract):
        lines.append(contract)
        for m in group:
            row = " ".join(f"{cell.get(m.modes.get(mode, ''), ''):^{len(mode)}}" for mode in modes)
            lines.append(f"{m.mutant:{width}}  {row}{'' if m.outcome == Outcome.PASSED else '  SURVIVED'}".rstrip())
    killed = sum(m.outcome == Outcome.PASSED for m in mutations)
    lines.append("x: rejected in this mode; -: seen in another mode only; blank: the mutant or the contract does not exist in it")
    lines.append(f"mutant score: {killed} of {len(mutations)} rejected by the contract that names them ({killed / len(mutations):.1%})")
    return lines


def summary(results: Sequence[Conformance | Throughput]) -> list[str]:
    """One line for each implementation: how many of its results ended how, and which contracts it broke."""
    if not results:
        return []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    broken: dict[str, list[str]] = defaultdict(list)
    for result in results:
        counts[result.implementation][result.outcome] += 1
        if isinstance(result, Conformance) and Outcome(result.outcome).fails_run and result.contract not in broken[result.implementation]:
            broken[result.implementation].append(result.contract)
    width = max(len(name) for name in counts)
    lines = []
    for name, found in counts.items():
        lines.append(f"{name:{width}}  " + ", ".join(f"{found[o]} {o.value}" for o in Outcome if found[o]))
        if broken[name]:
            lines.append(f"{'':{width}}  breaks {len(broken[name])}: {', '.join(broken[name])}")
    return lines

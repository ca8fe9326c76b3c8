"""The glue between pytest and the harness: what is collected, what is run and recorded, and what is said at the end."""

from __future__ import annotations

import dataclasses
import gc
import os
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import pytest
import torch

from harness.contract import Check, Contract, checks, finding, has_crashed, run
from harness.coverage import covered
from harness.implementation import Implementation
from harness.layer import Mode
from harness.measure import Interrupted, measure
from harness.outcome import Outcome
from harness.progress import Progress
from harness.pytest_options import add_options, idle, isolated, left_out, measuring
from harness.pytest_session import SESSION, Session, Tested, make_session, open_run, session_of
from harness.record import Conformance, Mutation, Throughput, to_json
from harness.replay import REPLAY
from harness.reproduction import NO_SCRIPT
from harness.sampling import Budget
from harness.store import RunWriter, StoreError, decode, encode
from harness.telling import kill_matrix, left_untold, nothing_checked, replaced_baseline, summary, timed_alone, told_whole
from harness.workload import Workload

_RESULT = "harness_result"


class Hooks:
    """What a checkout tells this plugin."""

    @pytest.hookspec(firstresult=True)
    def pytest_harness_contracts(self) -> Sequence[Contract]:  # type: ignore[empty-body]
        """The contracts to check."""

    @pytest.hookspec(firstresult=True)
    def pytest_harness_workloads(self) -> Mapping[str, Sequence[Workload]]:  # type: ignore[empty-body]
        """The workload sets by name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    make_session(config)
    session = session_of(config)
    if measuring(config) and session.workloads and not throughput_cells(config):
        # Without a single test pytest would end well, and say nothing of why there is no time.
        raise pytest.UsageError(f"Nothing to time: {'; '.join(f'{i.id}: {_why_untimed(i, session)}' for i in session.implementations)}")


def _why_untimed(implementation: Implementation, session: Session) -> str:
    """Why no workload can be timed on ``implementation``."""
    reasons = [implementation.unavailable(device) for device in session.devices]
    if None not in reasons:
        return ", ".join(str(reason) for reason in reasons)
    return f"no workload has a mode that it offers ({', '.join(sorted(implementation.capabilities.modes))})"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def conformance_checks(config: pytest.Config, contracts: Iterable[Contract]) -> list[Check]:
    """The checks to collect: none while throughput is measured."""
    session = session_of(config)
    if measuring(config):
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
    if not measuring(config):
        return []
    workloads = [workload.on(device) for workload in session.workloads for device in session.devices]
    offering = _offering(session)
    without = _unopposed(session)
    return [(w, i) for w in workloads if w.case.layer.mode not in without for i in offering.get(w.case.layer.mode, ())]


def _offering(session: Session) -> dict[Mode, list[Implementation]]:
    """The implementations by each mode of the workloads that they offer.

    A row that can run on no device of this machine is in the header, with the reason; it would only fill the table.
    """
    able = [i for i in session.implementations if any(i.unavailable(device) is None for device in session.devices)]
    modes = dict.fromkeys(workload.case.layer.mode for workload in session.workloads)
    return {mode: [i for i in able if mode in i.capabilities.modes] for mode in modes}


def _unopposed(session: Session) -> dict[Mode, str]:
    """Each mode that one implementation alone offers, with its id: it would be timed beside nothing. Empty where nothing is beside any."""
    offering = _offering(session)
    if not any(len(own) > 1 for own in offering.values()):
        return {}
    return {mode: own[0].id for mode, own in offering.items() if len(own) == 1}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bare pytest times nothing, --benchmark-only checks nothing: what does not belong is deselected, and counted as such."""
    unwanted = [item for item in items if ("benchmark" in getattr(item, "fixturenames", ())) != measuring(config)]
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
        elsewhere = check.case is not None and (isolated(request.config, check.implementation) or check.case.device in session.lost)
        try:
            result = session.workers.run(check) if elsewhere else run(check)
        except Exception as error:
            # Of a fault of the suite the run file has at least that there is no answer, and the terminal all of it.
            *_, last = str(error).strip().splitlines() or [""]
            record_result(finding(check, Outcome.UNAVAILABLE, f"not checked: the suite failed with {type(error).__name__}: {last}"))
            raise
        if not elsewhere and has_crashed(check, result):
            session.lost.add(result.device)
        record_result(result)
        conclude(result)

    return settled


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
    timed = [p["workload"].id for p in wanted if "workload" in p]
    if session.progress is None:
        session.progress = Progress(len(set(timed)))
    _tell(config, session.progress.begin(workload.id))
    # Each implementation of a workload is compared with one of them.
    budget = Budget(seconds=config.getoption("sampling_time"), family=max(1, len(timed) - len(set(timed))))
    given: dict[str, Any] = {"baseline": session.baseline, "cold": config.getoption("cold"), "before": known}
    try:
        if any(isolated(config, implementation) for implementation in beside):
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
        try:
            session.writer.append(result)
        except StoreError as error:
            _give_up(session.writer, session, error)


def _give_up(writer: RunWriter, session: Session, error: StoreError) -> NoReturn:
    """Ends the run with one line where its file cannot be written any more: what comes after would be nowhere."""
    writer.abandon()
    session.writer = None
    pytest.exit(str(error), returncode=pytest.ExitCode.INTERRUPTED)


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
        # One line for each reason; the run file has all of it.
        first, *_ = [*result.message.splitlines(), ""]
        pytest.skip(f"{outcome.value}: {first}")


def _reproduced(result: Tested) -> str:
    # Not indented: it could not be pasted then.
    script = result.reproduction if isinstance(result, Conformance) else ""
    if script == NO_SCRIPT:
        return f"\n{script}"
    return f"\nThis shows it, and runs as pasted:\n\n{script.rstrip()}\n" if script else ""


class _Keeper:
    """Keeps what the tests of one session recorded; a plugin of its own, because the hook is not told of which session a report is."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for result in _recorded(report):
                _keep(self._session, result)


def _recorded(report: pytest.TestReport) -> list[Tested]:
    """The results that a test recorded."""
    found = [decode(str(value)) for name, value in report.user_properties if name == _RESULT]
    return [result for result in found if isinstance(result, Tested)]


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    config = session.config
    mine = config.stash.get(SESSION, None)
    # Not when pytest is configured, which it also is to print its options.
    if mine is not None and not config.option.collectonly and not hasattr(config, "workerinput"):
        mine.writer = open_run(config, mine)
    if mine is not None:
        config.pluginmanager.register(_Keeper(mine))
    _start_worker(config)
    yield


def _start_worker(config: pytest.Config) -> None:
    """Lets the process for isolated checks or measurements load while this one collects them, where there will be any."""
    mine = config.stash.get(SESSION, None)
    distributes = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    if mine is None or distributes or config.option.collectonly:
        return
    if any(isolated(config, implementation) for implementation in mine.implementations):
        (mine.bench if measuring(config) else mine.workers).prepare()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, Any, Any]:
    """Collects tens of thousands of checks, which live to the end, without the garbage collector going through them again and again."""
    collects = gc.isenabled() and session.config.stash.get(SESSION, None) is not None and not measuring(session.config)
    if not collects:
        return (yield)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Lets other processes begin with what they will be asked for; under pytest-xdist nobody knows yet who will be asked for what."""
    config = session.config
    mine = config.stash.get(SESSION, None)
    shared = bool(config.getoption("numprocesses", None)) or hasattr(config, "workerinput")
    if mine is None or shared or config.option.collectonly or measuring(config):
        return
    parameters = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    found = [value for given in parameters for value in given.values() if isinstance(value, Check)]
    mine.workers.expect(check for check in found if check.case is not None and isolated(config, check.implementation))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    mine = session.config.stash.get(SESSION, None)
    if mine is not None and not hasattr(session.config, "workerinput"):
        session.exitstatus = _status(exitstatus, mine)
    for process in () if mine is None else (mine.workers, mine.bench):
        process.stop()


def _status(exitstatus: int, session: Session) -> int:
    """The exit status of a run: pytest's, but where nothing was checked for want of something that is not here, that of no tests at all.

    That no contract which was asked for applies is an answer.
    """
    checked = [result for result in session.results if isinstance(result, Conformance)]
    lacking = nothing_checked(checked) and any(result.outcome == Outcome.UNAVAILABLE for result in checked)
    return pytest.ExitCode.NO_TESTS_COLLECTED if exitstatus == pytest.ExitCode.OK and lacking else exitstatus


def pytest_report_header(config: pytest.Config) -> list[str]:
    session = session_of(config)
    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(session.devices)}"]
    for implementation in session.implementations:
        reasons = {device: implementation.unavailable(device) for device in session.devices}
        if all(reasons.values()):
            lines.append(f"unavailable here: {implementation.id} ({'; '.join(str(reason) for reason in reasons.values())})")
    if measuring(config) and (alone := _unopposed(session)):
        who = {name: ", ".join(mode for mode, own in alone.items() if own == name) for name in alone.values()}
        told = "; ".join(f"{modes}, which only {name} offers" for name, modes in who.items())
        lines.append(f"not timed, for want of anything beside it: {told}; name it alone to time it")
    lines += [f"checked only where it is named: {id} ({why})" for id, why in left_out(config).items()]
    if ignored := idle(config):
        why = "no contract is checked with --benchmark-only" if measuring(config) else "nothing is timed without --benchmark-only"
        lines.append(f"{why}: {', '.join(ignored)} {'have' if len(ignored) > 1 else 'has'} no effect")
    return lines


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_terminal_summary")
def pytest_tell_unlike_failures(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """Keeps failed checks that are like others from being told: one fault fails hundreds of them."""
    stats = terminalreporter.stats
    failed = stats.get("failed", [])
    if failed and config.get_verbosity() <= 0:
        stats["failed"] = _unlike(failed)
    yield
    if failed:
        # How many there are is said last of all.
        stats["failed"] = failed


def _unlike(reports: Sequence[pytest.TestReport]) -> list[pytest.TestReport]:
    """The reports without those of failed checks that are like others; see :func:`harness.telling.told_whole`."""
    checks = [(report, result) for report in reports for result in _recorded(report) if isinstance(result, Conformance)]
    whole = told_whole([result for _, result in checks])
    alike = {id(report) for place, (report, _) in enumerate(checks) if place not in whole}
    return [report for report in reports if id(report) not in alike]


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or session.writer is None:
        return
    try:
        path = session.writer.close(int(_status(exitstatus, session)), covered(r for r in session.results if isinstance(r, Conformance)))
    except StoreError as error:
        _give_up(session.writer, session, error)
    session.writer = None
    if not session.results:
        path.unlink(missing_ok=True)
        return
    terminalreporter.section("recurrent layers")
    mutations = [result for result in session.results if isinstance(result, Mutation)]
    for line in kill_matrix(mutations) + summary([r for r in session.results if not isinstance(r, Mutation)]):
        terminalreporter.write_line(line)
    times = [result for result in session.results if isinstance(result, Throughput)]
    checked = [result for result in session.results if isinstance(result, Conformance)]
    untold = [] if config.get_verbosity() > 0 else left_untold([r for r in checked if Outcome(r.outcome).fails_run])
    for line in untold + replaced_baseline(session.baseline, times) + timed_alone(times) + nothing_checked(checked):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"run file: {os.path.relpath(path)}")
    if exitstatus == pytest.ExitCode.INTERRUPTED and measuring(config):
        terminalreporter.write_line(f"to go on from it: the same command with --resume {shlex.quote(os.path.relpath(path))}")

"""What a user of the command line sees: exit status, terminal, run file, benchmark file."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import harness
from harness import pytest_plugin, pytest_session
from harness.apart import Apart
from harness.case import Case
from harness.contract import Check, checks
from harness.implementation import Capabilities
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.record import Conformance, Throughput
from harness.registry import builtin
from harness.store import Run, StoreError, encode, read
from harness.switches import unusable
from harness.tests import samples
from harness.tests.samples import CASE, implementation
from harness.tests.test_pytest_options import give_session, stand_in
from harness.tests.test_record import CONFORMANCE
from harness.workload import Pass, Workload

ROOT = Path(harness.__file__).parents[1]

LAYERS = """
import os
import signal
import traceback
from torch import nn

class Right(nn.GRU):
    pass

class Wrong(nn.GRU):
    def forward(self, *arguments):
        output, h_n = super().forward(*arguments)
        return output * 1.001, h_n

class Refuses(nn.GRU):
    def __init__(self, *arguments, **options):
        raise NotImplementedError("not written yet")

class Crashes(nn.GRU):
    def forward(self, *arguments):
        os._exit(7)

class Interrupted(nn.GRU):
    calls = 0

    def forward(self, *arguments):
        # Of a stream, which is measured last, and within the rounds.
        if len(arguments[0]) == 1 and "_take" in [frame.name for frame in traceback.extract_stack()]:
            Interrupted.calls += 1
            if Interrupted.calls == int(os.environ.get("INTERRUPT_AT", -1)):
                signal.raise_signal(signal.SIGINT)
        return super().forward(*arguments)
"""


DECLARED = """
from torch import nn
from harness.implementation import Capabilities, Implementation

def build(layer):
    return getattr(nn, layer.mode.class_name)(layer.input_size, layer.hidden_size, **layer.options())

def raises(*arguments):
    raise OSError("no driver")

UNASKABLE = Implementation("mine:unaskable", "It cannot say.", build, unavailable=raises, constructor=raises)
LSTM = Implementation("mine:lstm", "An LSTM.", build, capabilities=Capabilities(modes=frozenset({"lstm"})))
"""


CHECKOUT = {
    # The warning is what pytest-benchmark before 5.3 says at every start with -n.
    "pytest.ini": """
[pytest]
addopts = -ra --tb=short --strict-markers
filterwarnings =
    error
    ignore:Benchmarks are automatically disabled because xdist plugin is active
""",
    "conftest.py": """
pytest_plugins = ["harness.pytest_plugin"]

def pytest_harness_contracts():
    from harness.tests.samples import agrees
    return [agrees]

def pytest_harness_workloads():
    from harness.tests.samples import CASE
    from harness.workload import Pass, Workload
    return {"quick": [Workload("quick", CASE, timed) for timed in Pass]}
""",
    "test_contracts.py": """
from harness.pytest_plugin import conformance_checks
from harness.tests.samples import agrees

def pytest_generate_tests(metafunc):
    found = conformance_checks(metafunc.config, [agrees])
    metafunc.parametrize("one", found, ids=[check.id for check in found])

def test_contract(one, settle):
    settle(one)
""",
    "test_throughput.py": """
import pytest
from harness.pytest_plugin import throughput_cells
from harness.replay import REPLAY

def pytest_generate_tests(metafunc):
    cells = throughput_cells(metafunc.config)
    metafunc.parametrize(("workload", "implementation"), cells, ids=[f"{w.id}-{i.id}" for w, i in cells])

@pytest.mark.benchmark(timer=REPLAY)
def test_throughput(workload, implementation, measured, benchmark):
    measured(workload, implementation, benchmark)
""",
}


def _pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of pytest in a checkout with one contract and two workloads, its run files under ``folder``/results."""
    for name, text in CHECKOUT.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--results=results", "--device=cpu", *arguments]
    # What an outer pytest tells its own processes is not for this one.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    settings = {**outer, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=settings, check=False)
    return done.returncode, done.stdout + done.stderr


def _implementations(path: Path, *names: str) -> list[str]:
    path.write_text(LAYERS)
    return [f"--implementation={path}:{name}" for name in names]


def _run(folder: Path) -> Run:
    (path,) = folder.glob("*.jsonl")
    return read(path)


def _outcomes(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for result in run.results:
        assert isinstance(result, Conformance | Throughput)
        found[result.implementation].add(result.outcome)
    return dict(found)


def test_wrong_crashing_and_refusing_layers_each_have_their_outcome_and_the_run_goes_on(tmp_path: Path) -> None:
    named = _implementations(tmp_path / "layers.py", "Wrong", "Refuses", "Crashes", "Right")
    status, output = _pytest(tmp_path, *named)
    assert status == 1, output
    run = _run(tmp_path / "results")
    assert _outcomes(run) == {
        "layers:Wrong": {"failed"},
        "layers:Refuses": {"unsupported"},
        "layers:Crashes": {"crashed"},
        "layers:Right": {"passed"},
    }
    assert run.complete and run.footer is not None and run.footer.exit_status == 1
    lines = [json.loads(line) for line in run.path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["header", *["conformance"] * 4, "footer"]
    for line in lines[1:-1]:
        assert {"contract", "implementation", "outcome", "severity"} <= set(line)
        assert (line["contract"], line["severity"]) == ("sample.agrees", "MUST")
    assert lines[0]["contracts"]["sample.agrees"]["statement"] and set(lines[0]["implementations"]) == set(_outcomes(run))
    assert "breaks 1: sample.agrees" in output and "ended with exit status 7" in output
    assert "unsupported: NotImplementedError: not written yet" in output
    assert "2 failed, 1 passed, 1 skipped, 1 deselected" in output, "the benchmark is deselected"
    assert "INTERNALERROR" not in output and "Traceback" not in output


@pytest.mark.parametrize(("verbosity", "told"), [(0, ["first", "other"]), (-1, ["first", "other"]), (1, ["first", "alike", "other"])])
def test_failures_that_are_alike_are_told_once_and_counted_all(verbosity: int, told: list[str]) -> None:
    failure = dataclasses.replace(CONFORMANCE, outcome="failed", hint="this is one fault")

    def report(name: str, *results: Conformance) -> SimpleNamespace:
        return SimpleNamespace(nodeid=name, user_properties=[("harness_result", encode(result)) for result in results])

    stats = {"failed": [report("first", failure), report("alike", dataclasses.replace(failure, contract="x.z")), report("other")]}
    config: Any = SimpleNamespace(get_verbosity=lambda: verbosity)
    telling = pytest_plugin.pytest_tell_unlike_failures(SimpleNamespace(stats=stats), config)
    next(telling)
    assert [one.nodeid for one in stats["failed"]] == told
    assert list(telling) == [] and [one.nodeid for one in stats["failed"]] == ["first", "alike", "other"]


def test_a_right_layer_and_one_that_refuses_exit_with_success_under_xdist(tmp_path: Path) -> None:
    status, output = _pytest(tmp_path, "-n2", "--isolate=never", *_implementations(tmp_path / "layers.py", "Right", "Refuses"))
    assert status == 0, output
    run = _run(tmp_path / "results")
    assert run.complete and _outcomes(run) == {"layers:Right": {"passed"}, "layers:Refuses": {"unsupported"}}
    assert len(run.results) == 2


def test_a_run_that_checked_nothing_for_want_of_something_is_no_success_and_one_to_which_nothing_applies_is(tmp_path: Path) -> None:
    file = tmp_path / "declared.py"
    file.write_text(DECLARED)
    for name, expected, why in (
        ("UNASKABLE", pytest.ExitCode.NO_TESTS_COLLECTED, "asked whether it can run on cpu, it raised OSError: no driver"),
        ("LSTM", pytest.ExitCode.OK, "does-not-apply: it is about gru"),
    ):
        status, output = _pytest(tmp_path, f"--results={name}", f"--implementation={file}:{name}", "test_contracts.py")
        assert status == expected and why in output, output
        assert "nothing was checked: no contract that was asked for applies here" in output and "INTERNALERROR" not in output
        footer = _run(tmp_path / name).footer
        assert footer is not None and footer.exit_status == expected


def test_a_reference_that_leads_nowhere_is_one_line_and_a_status_of_its_own(tmp_path: Path) -> None:
    status, output = _pytest(tmp_path, "--implementation=loop:fastest")
    assert status == 4
    (line,) = output.strip().splitlines()
    assert line.startswith("ERROR: Cannot use --implementation loop:fastest: ") and "loop:textbook" in line
    assert not (tmp_path / "results").exists()


def test_an_interrupted_benchmark_is_gone_on_from_without_losing_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = ["--benchmark-only", "--implementation=torch:onednn", *_implementations(tmp_path / "layers.py", "Interrupted")]
    named += ["-W", "ignore:Benchmark fixture was not used"]
    monkeypatch.setenv("INTERRUPT_AT", "40")
    status, output = _pytest(tmp_path, *named, "--sampling-time=0.2")
    assert status == pytest.ExitCode.INTERRUPTED, output
    first = _run(tmp_path / "results")
    assert f"to go on from it: the same command with --resume {Path('results', first.path.name)}" in output
    taken = {(r.workload, r.implementation): r for r in first.results if isinstance(r, Throughput)}
    cut = {key: r for key, r in taken.items() if r.stopped == "interrupted"}
    assert cut and all(r.agreement["after"] for r in cut.values()) and first.complete
    monkeypatch.delenv("INTERRUPT_AT")
    (tmp_path / "results").rename(tmp_path / "before")
    status, output = _pytest(tmp_path, *named, "--sampling-time=0.2", "--resume", str(tmp_path / "before" / first.path.name))
    assert status == 0, output
    again = {(r.workload, r.implementation): r for r in _run(tmp_path / "results").results if isinstance(r, Throughput)}
    assert len(again) == 2 * len(Pass) and not any(r.stopped == "interrupted" for r in again.values())
    for key, record in taken.items():
        assert again[key].samples[: len(record.samples)] == record.samples
        assert key in cut or again[key] == record
    status, output = _pytest(tmp_path, *named, "--sampling-time=2", "--resume", str(tmp_path / "before" / first.path.name))
    assert status == pytest.ExitCode.USAGE_ERROR and "its policy of sampling_time was 0.2 and is 2.0 now" in output


def test_throughput_hands_the_same_samples_to_the_benchmark_file_and_the_run_file(tmp_path: Path) -> None:
    foreign = _implementations(tmp_path / "layers.py", "Wrong", "Crashes")
    named = ["--implementation=torch:onednn", "--implementation=loop:hoisted", *foreign]
    file = tmp_path / "benchmark.json"
    status, output = _pytest(tmp_path, "--benchmark-only", "--sampling-time=0.02", f"--benchmark-json={file}", *named)
    assert status == 1, output
    run = _run(tmp_path / "results")
    assert _outcomes(run) == {
        "torch:onednn": {"passed"},
        "loop:hoisted": {"passed"},
        "layers:Wrong": {"failed"},
        "layers:Crashes": {"crashed"},
    }
    assert "crashed: the process that ran it ended with exit status 7" in output and run.complete
    assert set(run.header.workloads) == {f"quick/{CASE.id}-cpu-{timed.value}" for timed in Pass}
    recorded = {(r.workload, r.implementation): r for r in run.results if isinstance(r, Throughput)}
    assert len(recorded) == 4 * len(Pass) and {r.timed_pass for r in recorded.values()} == set(Pass)
    benchmarks = json.loads(file.read_text())["benchmarks"]
    assert len(benchmarks) == 2 * len(Pass)
    for benchmark in benchmarks:
        extra = benchmark["extra_info"]
        record = recorded[extra["workload"], extra["implementation"]]
        assert benchmark["group"] == record.workload
        assert benchmark["stats"]["data"] == pytest.approx(record.samples, rel=1e-12) and len(record.samples) >= 5
        assert extra["tokens_per_second"] == record.tokens_per_second == pytest.approx(record.tokens / benchmark["stats"]["median"])
        assert extra["agreement"]["after"] and extra["kernels"] and extra["flops_per_second"]
    for workload in run.header.workloads:
        onednn, hoisted, wrong = (recorded[workload, i] for i in ("torch:onednn", "loop:hoisted", "layers:Wrong"))
        assert all(cell.rounds == list(range(len(cell.samples))) for cell in (onednn, hoisted))
        assert len(onednn.rounds) >= len(hoisted.rounds), "the baseline stays to the end"
        assert wrong.samples == [] and wrong.tokens_per_second is None
        assert recorded[workload, "layers:Crashes"].samples == []


def test_contracts_and_workloads_are_never_collected_together() -> None:
    for measuring in (False, True):
        config = stand_in(benchmark_only=measuring)
        give_session(config, [implementation(torch.nn.GRU)])
        assert bool(pytest_plugin.conformance_checks(config, [samples.agrees])) is not measuring
        assert bool(pytest_plugin.throughput_cells(config)) is measuring


class Item:
    """As much of a collected test as the plugin asks for."""

    def __init__(self, *fixturenames: str) -> None:
        self.fixturenames = fixturenames


@pytest.mark.parametrize("measuring", [False, True])
def test_without_its_option_nothing_is_timed_and_with_it_nothing_else_runs(measuring: bool) -> None:
    config = stand_in(benchmark_only=measuring)
    deselected: list[Any] = []
    config.hook.pytest_deselected = lambda items: deselected.extend(items)
    timed, checked = Item("measured", "benchmark"), Item("settle")
    items: list[Any] = [timed, checked]
    pytest_plugin.pytest_collection_modifyitems(config, items)
    assert (items, deselected) == (([timed], [checked]) if measuring else ([checked], [timed]))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({"implementation": ["torch:cudnn"]}, "torch:cudnn: cuDNN does not run on cpu", id="cannot run here"),
        pytest.param({"implementation": ["torch.nn:LSTM"]}, r"torch.nn:LSTM: no workload has a mode that it offers \(lstm\)", id="mode"),
    ],
)
def test_a_benchmark_without_a_single_cell_is_a_usage_error_that_says_why(options: dict[str, Any], why: str) -> None:
    config = stand_in(benchmark_only=True, device=["cpu"], **options)
    with pytest.raises(pytest.UsageError, match=f"^Nothing to time: {why}$"):
        pytest_plugin.pytest_configure(config)


def test_the_cells_of_a_workload_come_together_without_rows_that_cannot_run_here() -> None:
    config = stand_in(benchmark_only=True)
    lstm = implementation(torch.nn.LSTM, "sample:lstm", capabilities=Capabilities(modes=frozenset([Mode.LSTM])))
    give_session(config, [builtin()["torch:onednn"], lstm, builtin()["torch:cudnn"], builtin()["loop:textbook"]])
    cells = [(workload.timed.value, i.id) for workload, i in pytest_plugin.throughput_cells(config)]
    assert cells == [(timed, id) for timed in ("inference", "training") for id in ("torch:onednn", "loop:textbook")]


def test_what_one_row_alone_offers_is_not_timed_beside_rows_that_are_compared_and_that_is_said() -> None:
    config = stand_in(benchmark_only=True, isolate="never")
    rnn = Workload("quick", Case(Layer(Mode.RNN_TANH, 3, 5), steps=4, batch=2), Pass.INFERENCE)
    gru = implementation(torch.nn.GRU, "mine:gru", capabilities=Capabilities(modes=frozenset([Mode.GRU])))
    give_session(config, [builtin()["torch:onednn"], gru], rnn)
    assert {(w.case.layer.mode, i.id) for w, i in pytest_plugin.throughput_cells(config)} == {
        (Mode.GRU, "torch:onednn"),
        (Mode.GRU, "mine:gru"),
    }
    line = "not timed, for want of anything beside it: rnn_tanh, which only torch:onednn offers; name it alone to time it"
    assert line in pytest_plugin.pytest_report_header(config)
    # Where nothing could be compared anyway, everything is timed.
    give_session(config, [builtin()["torch:onednn"]], rnn)
    assert {w.case.layer.mode for w, _ in pytest_plugin.throughput_cells(config)} == {Mode.GRU, Mode.RNN_TANH}
    assert not any("not timed" in line for line in pytest_plugin.pytest_report_header(config))


@pytest.mark.parametrize("outcome", Outcome)
def test_a_test_ends_as_its_result_says(outcome: Outcome) -> None:
    result = Conformance("a.b", "c", "d", outcome.value, "MAY", "gru", "cpu", "float32", message="because\nof this")
    if outcome is Outcome.PASSED:
        pytest_plugin.conclude(result)
        return
    kinds = {True: pytest.fail.Exception, False: pytest.skip.Exception}
    expected = pytest.xfail.Exception if outcome is Outcome.EXPECTED_FAILURE else kinds[outcome.fails_run]
    with pytest.raises(expected, match="because") as caught:
        pytest_plugin.conclude(result)
    # A reason to skip stands in one line of the summary.
    assert ("of this" in str(caught.value)) == (expected is not pytest.skip.Exception)


def test_reseeding_draws_other_numbers_for_the_same_cases() -> None:
    (check,) = checks([samples.agrees], [implementation(samples.Doubled)], ["cpu"])
    again = pytest_plugin._reseeded(check, 1000)
    assert again.case is not None and check.case is not None
    assert again.case.seed == check.case.seed + 1000
    assert dataclasses.replace(again.case, seed=check.case.seed) == check.case
    assert pytest_plugin._reseeded(check, 0) is check


def _settle(config: Any, recorded: list[Any]) -> Callable[[Check], None]:
    """What the fixture of this name gives, without pytest around it."""
    request: Any = SimpleNamespace(config=config)
    fixture: Any = pytest_plugin.settle
    settle: Callable[[Check], None] = fixture.__wrapped__(request, recorded.append)
    return settle


def test_what_comes_after_a_layer_that_took_the_device_from_this_process_is_checked_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.contract.unusable", unusable)
    config = stand_in(isolate="never")
    workers: Any = SimpleNamespace(run=lambda check: CONFORMANCE)
    config.stash[pytest_session.SESSION] = pytest_session.Session([], ["cpu"], [], workers, Apart([], 1.0), {}, "")
    recorded: list[Any] = []
    settle = _settle(config, recorded)
    with pytest.raises(pytest.fail.Exception, match="left cpu unusable"):
        settle(Check(samples.agrees, samples.RUINS, CASE))
    settle(Check(samples.agrees, implementation(torch.nn.GRU, "sample:right"), CASE))
    assert [result.outcome for result in recorded] == ["crashed", "passed"] and recorded[1] is CONFORMANCE


def test_a_run_file_that_cannot_be_written_any_more_ends_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise StoreError("Cannot write the run file: No space left on device.")

    config = stand_in(results=str(tmp_path), implementation=["loop:textbook"])
    pytest_session.make_session(config)
    session = pytest_session.session_of(config)
    for what, does in (
        ("close", lambda: pytest_plugin.pytest_terminal_summary(None, 0, config)),
        ("append", lambda: pytest_plugin._keep(session, CONFORMANCE)),
    ):
        session.writer = pytest_session.open_run(config, session)
        assert session.writer is not None
        monkeypatch.setattr(session.writer, what, full)
        with pytest.raises(pytest.exit.Exception, match=r"^Cannot write the run file: No space left on device\.$") as caught:
            does()
        assert caught.value.returncode == pytest.ExitCode.INTERRUPTED and session.writer is None
    # Nothing is written afterwards, and nothing fails.
    pytest_plugin._keep(session, CONFORMANCE)
    pytest_plugin.pytest_terminal_summary(None, 2, config)


def test_a_fault_of_the_suite_is_raised_and_leaves_a_record_that_nothing_was_checked() -> None:
    config = stand_in(isolate="never")
    give_session(config, [])
    recorded: list[Any] = []
    with pytest.raises(KeyError, match="a fault of the suite"):
        _settle(config, recorded)(Check(samples.is_broken_itself, implementation(torch.nn.GRU), CASE))
    told = "not checked: the suite failed with KeyError: 'a fault of the suite'"
    assert [(result.outcome, result.message) for result in recorded] == [("unavailable", told)]


@pytest.mark.parametrize(
    ("isolate", "reference", "apart"),
    [
        ("auto", "mine.py:Mine", True),
        ("auto", "loop:textbook", False),
        ("always", "loop:textbook", True),
        ("never", "mine.py:Mine", False),
    ],
)
def test_other_peoples_layers_are_checked_in_a_process_of_their_own(isolate: str, reference: str, apart: bool) -> None:
    asked: list[Check] = []

    def answers(check: Check) -> Conformance:
        asked.append(check)
        return CONFORMANCE

    config = stand_in(isolate=isolate)
    workers: Any = SimpleNamespace(run=answers)
    config.stash[pytest_session.SESSION] = pytest_session.Session([], ["cpu"], [], workers, Apart([], 1.0), {}, "")
    recorded: list[Any] = []
    settle = _settle(config, recorded)
    # An id says nothing: a file may hold an implementation called as a built-in one.
    settle(Check(samples.agrees, implementation(torch.nn.GRU, "loop:textbook", reference=reference), CASE))
    assert len(recorded) == 1 and (len(asked) == 1) == apart

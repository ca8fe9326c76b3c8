"""The command that compares two environments, at last once with real processes."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import pytest
from torch import nn

from harness import remote, statistics, versus
from harness.case import Case
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.pairs import BASE, HEAD, Worker
from harness.record import Versus
from harness.registry import wrapped
from harness.remote import Remote, Unanswered
from harness.store import read
from harness.versus import differences, exit_status, main
from harness.watch import Core, Reading, joined
from harness.watch import between as between_readings
from harness.workload import Pass, Workload

WORKLOAD = Workload("tests", Case(Layer(Mode.LSTM, 4, 4), steps=4, batch=2), Pass.INFERENCE)
FACTS = {"environment": {"versions": {"python": "3.11.7"}, "gpus": []}, "python": "/bin/python", "installed": {"torch": "2.13.0"}}


def test_the_two_processes_are_nobody_else_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [Reading(at=0.0, own=1.0, cores={0: Core(0.0, 0.0, 0.0)}), Reading(at=10.0, own=1.5, cores={0: Core(10.0, 0.0, 10.0)})]
    theirs = [{"own": own, "waited": waited, "switches": [1, 2]} for own, waited in ((0.0, 0.0), (2.0, 1.0), (4.0, 0.5), (3.0, 1.5))]
    seen = between_readings(joined(mine[0], theirs[:2]), joined(mine[1], theirs[2:]))
    # Of ten busy seconds half a second was this process's, four and one those of the two.
    assert seen.others == pytest.approx(0.45) and seen.waited == pytest.approx(0.1) and seen.voluntary_switches == 0
    assert joined(mine[0], [{"own": 0.0, "waited": None, "switches": None}]).waited is None
    record = Versus("w", "s", "i", "b", "h", "passed", "lstm", "cpu", "float32", "inference", evidence=[asdict(seen)] * 2)
    assert versus.disturbed([record])[0].startswith("other processes used 45 % of the time of the cores; ")
    assert versus.disturbed([replace(record, evidence=[])]) == []


def test_one_that_is_slower_fails_the_run_whatever_else_happens_and_nothing_compared_is_no_success() -> None:
    def record(verdict: str = "", outcome: str = "passed") -> Versus:
        return Versus("w", "s", "i", "b", "h", outcome, "lstm", "cpu", "float32", "inference", verdict=verdict)

    assert exit_status([record("slower"), record(outcome="crashed")]) == 1
    assert exit_status([record("same"), record(outcome="crashed")]) == 2
    assert exit_status([record("undecided"), record(outcome="unsupported")]) == 0
    assert exit_status([record(outcome="unsupported")]) == 2
    assert exit_status([]) == 2


def test_tells_what_differs_between_the_environments() -> None:
    newer = {
        "environment": {"versions": {"python": "3.11.7", "onednn": "3.9"}},
        "installed": {"torch": "2.14.0", "mypkg": "1.0 from file:///a"},
    }
    assert differences({BASE: FACTS, HEAD: newer}) == [
        "onednn absent -> 3.9",
        "torch 2.13.0 -> 2.14.0",
        "mypkg absent -> 1.0 from file:///a",
    ]
    assert differences({BASE: FACTS, HEAD: FACTS}) == []


def test_an_interpreter_that_is_none_is_an_outcome_and_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[bytes]] = []
    temporary = tempfile.TemporaryFile

    def noted() -> IO[bytes]:
        opened.append(temporary())
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    with pytest.raises(Unanswered, match="cannot start /no/python: No such file or directory") as caught:
        Remote("/no/python").start()
    assert caught.value.outcome is Outcome.UNAVAILABLE and [file.closed for file in opened] == [True]


class _Still:
    """A process that is still there, and its requests."""

    def __init__(self) -> None:
        self.stdin, self.stdout, self.pid, self.returncode = self, None, 1, None
        self.killed, self.lines = False, 0

    def write(self, line: str) -> None:
        self.lines += 1

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def wait(self) -> None: ...

    def kill(self) -> None:
        self.killed = True


def test_a_process_that_lost_its_device_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "killpg", lambda group, signal: None)
    for outcome, ended in ((Outcome.CRASHED, True), (Outcome.FAILED, False)):
        still: Any = _Still()
        one = Remote("python")
        one._process, one._ready = still, True
        one._answers.put(json.dumps({"number": 1, "outcome": outcome.value, "message": "it left cuda unusable"}))
        with pytest.raises(Unanswered, match="it left cuda unusable") as caught:
            one.ask("sample")
        assert caught.value.outcome is outcome and still.killed is ended and (one._process is None) is ended


def test_who_leaves_the_other_process_without_its_device_has_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    class Losing(nn.LSTM):
        def forward(self, *arguments: Any) -> Any:
            lost.append("CUDA error: an illegal memory access was encountered")
            raise RuntimeError(lost[0])

    server = remote._Server()
    server._known["own"] = wrapped(Losing)
    monkeypatch.setattr(remote, "unusable", lambda device: "".join(lost[:1]))
    answer = server.build("own", WORKLOAD.as_json(), look=False)
    gc.unfreeze()
    assert answer["outcome"] == "crashed"
    assert answer["message"].startswith(f"it left cpu unusable: {lost[0]}\na timed call raised RuntimeError: {lost[0]}")


# The command line.

LEAST = ["--base-python", sys.executable, "--head-python", sys.executable]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-python", sys.executable], "--head-python"),
        ([*LEAST, "--pairs", "4"], "argument --pairs: expected a whole number of at least 5 but got 4"),
        ([*LEAST, "--sampling-time", "0"], "argument --sampling-time: expected a number above 0 but got 0"),
        ([*LEAST, "--time-limit", "nan"], "argument --time-limit: expected a number above 0 but got nan"),
        ([*LEAST, "--threads", "0"], "argument --threads: expected a whole number of at least 1 but got 0"),
    ],
)
def test_options_that_cannot_be_are_a_usage_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*LEAST, "--workloads", "nonesuch"], "error: Cannot use --workloads nonesuch: there is no set of this name. Known sets: quick, "),
        (["--base-python", "/no/python", *LEAST[2:]], "error: Expected --base-python to be a Python interpreter but there is no program"),
        (
            [*LEAST[:2], "--head-python", "false"],
            "error: --head-python cannot run the harness: the process that ran it ended with exit status 1",
        ),
    ],
)
def test_what_is_not_there_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.splitlines()[-1].startswith(message) and not list(tmp_path.iterdir())


def test_an_interrupt_before_the_first_pair_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(workers: Mapping[str, Worker]) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(versus, "described", interrupted)
    assert main([*LEAST, "--results", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("error: interrupted before anything was compared\n")


# Real processes.

PACKAGE = """
import os, sys, time
from torch import nn

print("printed when imported")

class Layer(nn.LSTM):
    def forward(self, *arguments):
        print("printed when called")
        time.sleep({sleep})
        answer = super().forward(*arguments)
        return answer

class Wrong(nn.LSTM):
    def forward(self, *arguments):
        output, state = super().forward(*arguments)
        return output * {factor}, state

class Dies(nn.LSTM):
    def forward(self, *arguments):
        print("last words", file=sys.stderr)
        os._exit(7)

class Hangs(nn.LSTM):
    def forward(self, *arguments):
        time.sleep(1000)
"""


@pytest.fixture
def pythons(tmp_path: Path) -> dict[str, str]:
    """Two Pythons that differ in the version of one package."""
    found = {}
    # Of milliseconds, beside which it is little how late a busy machine wakes a thread.
    for side, sleep, factor in ((BASE, 4e-3, 1), (HEAD, 12e-3, 2)):
        (tmp_path / side / "mypkg").mkdir(parents=True)
        (tmp_path / side / "mypkg" / "__init__.py").write_text(PACKAGE.format(sleep=sleep, factor=factor))
        script = tmp_path / side / "python"
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / side}" exec "{sys.executable}" "$@"\n')
        script.chmod(0o755)
        found[side] = str(script)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="the two Pythons are shell scripts")
def test_two_versions_of_a_package_are_compared_in_real_processes(
    pythons: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Three pairs instead of five, which are seconds; the slowdown is large. On a busy machine it takes more.
    monkeypatch.setattr(statistics, "LEAST_PAIRS", 3)
    monkeypatch.setattr(versus, "LEAST_PAIRS", 3)
    workloads = tmp_path / "tiny.toml"
    workloads.write_text('[[workload]]\nmode = ["gru", "lstm"]\npass = "inference"\nT = 2\nB = 1\nH = 4\n')
    arguments = ["--base-python", pythons[BASE], "--base", "mypkg==1", "--head-python", pythons[HEAD], "--head", "mypkg==2", "--pairs", "8"]
    references = [f"lstm=mypkg:{name}" for name in ("Layer", "Wrong")]
    options = ["--workloads", str(workloads), "--sampling-time", "0.3", "--results", str(tmp_path / "results"), "--json"]
    status = main([*arguments, *(f"--implementation={reference}" for reference in references), *options])
    said = capsys.readouterr()
    slower, wrong = (json.loads(line) for line in said.out.splitlines())
    assert status == 1 and slower["verdict"] == "slower" and 1.5 < slower["ratio"] < 4, said.err
    assert (
        slower["evidence"]
        and slower["base"] == "mypkg==1"
        and slower["environments"]["head"]["origin"] == str(tmp_path / "head" / "mypkg" / "__init__.py")
    )
    assert slower["kernels"]["base"] == slower["kernels"]["head"] != []
    assert wrong["outcome"] == "failed" and wrong["message"].startswith("head: output: ") and wrong["ratio"] is None
    (path,) = (tmp_path / "results").glob("*-versus-*.jsonl")
    run = read(path)
    assert run.complete and run.footer is not None and run.footer.exit_status == 1
    last = {result.implementation: result for result in run.results if isinstance(result, Versus)}
    assert [last[f"mypkg:{name}"].outcome for name in ("Layer", "Wrong")] == ["passed", "failed"]
    assert len(run.results) == len(slower["ratios"]) + 1 + 2
    again = main([*arguments, *(f"--implementation={reference}" for reference in references), *options, "--resume", str(path)])
    assert again == 1 and [json.loads(line)["ratios"] for line in capsys.readouterr().out.splitlines()] == [slower["ratios"], []]
    assert main([*arguments, "--implementation=lstm=mypkg:Layer", *options, "--resume", str(path), "--pairs", "4"]) == 2
    assert "its policy of pairs was 8 and is 4 now" in capsys.readouterr().err
    assert run.header.implementations["mypkg:Layer"] == {"modes": ["lstm"], "source": "lstm=mypkg:Layer", "description": "Layer of mypkg"}
    assert run.header.policy["environments"]["base"]["versions"]["torch"] == run.header.environment["versions"]["torch"]


@pytest.mark.skipif(sys.platform == "win32", reason="the two Pythons are shell scripts")
def test_a_crash_and_a_hang_are_outcomes_and_the_next_request_is_answered(pythons: dict[str, str]) -> None:
    other = Remote(pythons[BASE], limit=20.0)
    try:
        for name, outcome, message in (
            ("Dies", Outcome.CRASHED, "the process that ran it ended with exit status 7: last words"),
            ("Hangs", Outcome.TIMED_OUT, "no answer within 0.5 s; the process was ended (--time-limit gives it longer)"),
        ):
            assert other.ask("find", reference=f"lstm=mypkg:{name}")["id"] == f"mypkg:{name}"
            other._limit = 0.5 if outcome is Outcome.TIMED_OUT else 20.0
            with pytest.raises(Unanswered) as caught:
                other.ask("build", reference=f"lstm=mypkg:{name}", workload=WORKLOAD.as_json(), look=False)
            assert (caught.value.outcome, caught.value.message) == (outcome, message)
        assert other._process is None
    finally:
        other.stop()

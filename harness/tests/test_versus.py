"""Two environments side by side: what is concluded, with workers that are played; then once with real processes."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import sampling, statistics, versus
from harness.case import Case
from harness.clock import FakeClock
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.record import Versus
from harness.remote import Remote, Unanswered
from harness.sampling import Budget
from harness.statistics import LEAST_PAIRS, Verdict, between
from harness.store import read
from harness.versus import BASE, HEAD, SIDES, Comparison, Worker, compare, decided, differences, exit_status, judged, main, planned, told
from harness.watch import Core, Reading, joined
from harness.watch import between as between_readings
from harness.workload import Pass, Workload

WORKLOAD = Workload("tests", Case(Layer(Mode.LSTM, 4, 4), steps=4, batch=2), Pass.INFERENCE)
FACTS = {"environment": {"versions": {"python": "3.11.7"}, "gpus": []}, "python": "/bin/python", "installed": {"torch": "2.13.0"}}
NAMES = {BASE: "old", HEAD: "new"}


# What may be said of several pairs of processes.


def test_the_interval_is_that_of_students_t_over_the_pairs() -> None:
    found = between([0.02, 0.03, 0.04, 0.03, 0.03], systematic=0.0)
    # The mean 0.03, the standard deviation sqrt(0.0002 / 4), and 4.6041 for four degrees of freedom at 99 %.
    half = 4.6041 * math.sqrt(0.0002 / 4 / 5)
    assert found.log == pytest.approx(0.03) and (found.rounds, found.freedom) == (5, 4)
    assert found.interval() == pytest.approx((math.exp(0.03 - half), math.exp(0.03 + half)), rel=1e-5)
    assert found.verdict() is Verdict.SLOWER
    low, high = between([0.02, 0.03, 0.04, 0.03, 0.03]).interval()
    assert (low, high) == pytest.approx((math.exp(0.03 - half - statistics.SYSTEMATIC), math.exp(0.03 + half + statistics.SYSTEMATIC)))


def test_a_difference_in_few_pairs_decides_nothing() -> None:
    assert between([]) is statistics.UNKNOWN
    few = between([0.5] * (LEAST_PAIRS - 1))
    assert few.ratio == pytest.approx(math.exp(0.5)) and math.isnan(few.interval()[0]) and few.verdict() is Verdict.UNDECIDED
    assert between([0.5] * LEAST_PAIRS).verdict() is Verdict.SLOWER


def _concluded(logs: np.ndarray[Any, Any], family: int = 1) -> Verdict:
    """What a comparison with these pairs, looked at after each, ends with."""
    for pairs in range(LEAST_PAIRS, len(logs)):
        if decided(between(logs[:pairs]), family):
            return between(logs[:pairs]).verdict()
    return between(logs).verdict()


def _normal(generator: np.random.Generator, size: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return generator.normal(0, 0.03, size) - generator.normal(0, 0.03, size)


def _two_speeds(generator: np.random.Generator, size: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Every process is by chance quick, or slower by 3 %; what else differs is small."""
    return 0.03 * (generator.integers(0, 2, size) - generator.integers(0, 2, size)) + generator.normal(0, 5e-4, size)


def _seldom_far_off(generator: np.random.Generator, size: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """As measured: most pairs agree, one in fourteen is off by a few per cent."""
    return generator.normal(0, 3e-3, size) + (generator.random(size) < 1 / 14) * generator.normal(0, 0.03, size)


@pytest.mark.parametrize("noise", [_normal, _two_speeds, _seldom_far_off], ids=lambda noise: noise.__name__.strip("_"))
def test_what_the_layout_of_a_process_does_is_no_alarm(noise: Callable[..., np.ndarray[Any, Any]]) -> None:
    series = noise(np.random.default_rng(1), (2000, versus.PAIRS))
    found = [_concluded(logs) for logs in series]
    # One in a hundred, and what the looks add; three standard errors of 2000 trials on top.
    assert sum(verdict in (Verdict.SLOWER, Verdict.FASTER) for verdict in found) / len(found) < 0.013 + 3 * math.sqrt(0.013 / len(found))


def test_one_process_alone_would_have_alarmed() -> None:
    logs = _two_speeds(np.random.default_rng(1), (2000, 1))
    assert (abs(logs) > 0.02).mean() > 0.4


def test_a_slowdown_is_found_through_the_noise_that_was_measured() -> None:
    generator = np.random.default_rng(2)
    found = [_concluded(0.03 + logs) for logs in _seldom_far_off(generator, (500, versus.PAIRS))]
    assert found.count(Verdict.SLOWER) > 450 and Verdict.FASTER not in found
    assert [_concluded(-0.2 + logs) for logs in _normal(generator, (20, versus.PAIRS))].count(Verdict.FASTER) >= 17


# The rounds, with workers that are played.


class Played:
    """A worker whose calls take ``seconds``; requests are noted in ``log``, and ``fails`` says what becomes of which."""

    def __init__(self, side: str, seconds: float, log: list[str], fails: Mapping[str, Exception] | None = None) -> None:
        self._side, self._seconds, self._log, self._fails = side, seconds, log, fails or {}
        self.stopped = False

    def start(self) -> None:
        self._log.append(f"{self._side} start")

    def stop(self) -> None:
        self.stopped = True

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        assert not self.stopped
        self._log.append(f"{self._side} {do}")
        if do in self._fails:
            raise self._fails[do]
        answers: dict[str, dict[str, Any]] = {
            "find": {"id": "own", "description": "", "modes": ["lstm"], "origin": f"/{self._side}.py"},
            "build": {"agreement": [{"quantity": "output", "ratio": 0.5}], "kernels": ["k"] if given.get("look") else []},
            "sample": {"seconds": self._seconds, "issued": None, "device": None},
            "check": {"agreement": [{"quantity": "output", "ratio": 0.7}]},
            "reading": {"own": 0.0, "waited": None, "switches": None},
        }
        return answers[do]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collections of garbage between rounds, which take longer than all that is played: this process samples nothing."""
    monkeypatch.setattr(sampling, "_undisturbed_by_collection", nullcontext)


class Stage:
    """Plays workers; ``seconds(side, number)`` are those of the calls of the number-th process of a side."""

    def __init__(self, seconds: Callable[[str, int], float], fails: Mapping[str, Mapping[str, Exception]] | None = None) -> None:
        self.log: list[str] = []
        self.workers: dict[str, list[Played]] = {side: [] for side in SIDES}
        self._seconds, self._fails = seconds, fails or {}

    def begin(self, side: str) -> Worker:
        worker = Played(side, self._seconds(side, len(self.workers[side])), self.log, self._fails.get(side))
        self.workers[side].append(worker)
        return worker

    def compare(self, comparisons: int = 1, pairs: int = 8, **options: Any) -> tuple[list[Versus], bool]:
        generator = random.Random(0)
        asked = [Comparison(WORKLOAD, f"own{number}", f"own{number}") for number in range(comparisons)]
        workers = versus.begun(self.begin, generator)
        finished = compare(asked, workers, self.begin, pairs, Budget(seconds=0.05), generator, clock=FakeClock().now, **options)
        return judged(asked, NAMES, dict.fromkeys(SIDES, FACTS), 1), finished


def _noisy(slower: float, noise: float, seed: int) -> Callable[[str, int], float]:
    """Processes that differ by ``noise`` from one to the next, those of head slower by a share on top."""
    generator = random.Random(seed)
    return lambda side, number: 1e-3 * (1 + noise * generator.uniform(-1, 1)) * (1 + slower * (side == HEAD))


def test_layouts_that_differ_by_three_per_cent_do_not_alarm_although_every_process_is_sure_of_itself() -> None:
    for seed in range(10):
        (record,), _ = Stage(_noisy(0.0, 0.03, seed)).compare()
        assert record.verdict not in (Verdict.SLOWER, Verdict.FASTER) and len(record.ratios) == 8 and record.stopped == "pairs"


def test_a_planted_slowdown_is_found_and_ends_the_comparison() -> None:
    (record,), finished = Stage(_noisy(0.05, 0.005, 3)).compare()
    assert finished and record.verdict == Verdict.SLOWER and record.stopped == "decided" and len(record.ratios) < 8
    assert record.ratio is not None and record.low is not None and record.high is not None
    assert record.ratio == pytest.approx(1.05, abs=0.01) and 1 < record.low < record.ratio < record.high
    assert len(record.ratios) == len(record.base_seconds) == len(record.head_seconds) == len(record.rounds)
    assert record.ratios[0] == pytest.approx(record.head_seconds[0] / record.base_seconds[0])
    assert (record.base, record.head, record.kernels) == ("old", "new", {BASE: ["k"], HEAD: ["k"]})
    assert record.agreement[HEAD] == {"before": [{"quantity": "output", "ratio": 0.5}], "after": [{"quantity": "output", "ratio": 0.7}]}
    assert exit_status([record]) == 1 and told(record).startswith("slower     own0 on tests/lstm")


def test_equal_things_are_the_same_and_faster_is_no_failure() -> None:
    (same,), _ = Stage(lambda side, number: 1e-3).compare()
    (faster,), _ = Stage(_noisy(-0.2, 0.005, 1)).compare()
    assert (same.verdict, faster.verdict) == (Verdict.SAME, Verdict.FASTER)
    assert exit_status([same, faster]) == 0


def test_every_pair_is_of_fresh_processes_of_which_the_old_ones_are_gone() -> None:
    stage = Stage(_noisy(0.0, 0.03, 0))
    stage.compare(pairs=6)
    assert [len(stage.workers[side]) for side in SIDES] == [6, 6]
    assert all(worker.stopped for side in SIDES for worker in stage.workers[side])
    starts = [entry for entry in stage.log if entry.endswith("start")]
    assert {tuple(starts[i : i + 2]) for i in range(0, 12, 2)} == {("base start", "head start"), ("head start", "base start")}


def test_samples_are_taken_in_turn_and_every_layer_is_checked_before_and_after() -> None:
    stage = Stage(_noisy(0.0, 0.03, 0))
    stage.compare(pairs=5)
    asked = [entry for entry in stage.log if not entry.endswith(("start", "reading"))]
    for side in SIDES:
        own = [entry.split()[1] for entry in asked if entry.startswith(side)]
        kinds = [kind for place, kind in enumerate(own) if not place or kind != own[place - 1]]
        assert kinds == ["build", "sample", "check"] * versus.BUILDS * 5


def _kept(stage: Stage, until: int, pairs: int = 8, before: list[Versus] | None = None) -> tuple[list[list[Versus]], bool]:
    """The records of two comparisons after each pair; what ends the run comes after so many of them."""
    generator, kept = random.Random(0), []
    asked = [Comparison(WORKLOAD, f"own{number}", f"own{number}") for number in range(2)]
    for one, record in zip(asked, before or [], strict=False):
        one.go_on_from(record)

    def keep(one: Comparison) -> None:
        kept.append(judged(asked, NAMES, dict.fromkeys(SIDES, FACTS), 1))
        if len(kept) == until:
            raise KeyboardInterrupt

    finished = compare(
        asked, versus.begun(stage.begin, generator), stage.begin, pairs, Budget(seconds=0.05), generator, clock=FakeClock().now, keep=keep
    )
    return [*kept, judged(asked, NAMES, dict.fromkeys(SIDES, FACTS), 1)], finished


def test_every_pair_is_kept_as_soon_as_it_is_done() -> None:
    kept, finished = _kept(Stage(_noisy(0.0, 0.03, 0)), 5)
    assert not finished and [sum(len(record.ratios) for record in records) for records in kept] == [1, 2, 3, 4, 5, 5]
    assert all(len(record.evidence) == len(record.ratios) for records in kept for record in records)
    assert {record.stopped for records in kept[:-1] for record in records} == {""}


@pytest.mark.parametrize("softly", [True, False], ids=["interrupted", "cut short"])
def test_what_was_kept_is_gone_on_from_with_the_pairs_that_are_missing(softly: bool) -> None:
    kept, _ = _kept(Stage(_noisy(0.0, 0.03, 0)), 5)
    # Where the process was killed, the last line is that of the last pair.
    before = kept[-1 if softly else -2]
    assert {record.stopped for record in before} == ({"interrupted"} if softly else {""})
    stage = Stage(_noisy(0.0, 0.03, 7))
    again, finished = _kept(stage, 0, before=before)
    assert finished
    for old, new in zip(before, again[-1], strict=True):
        assert new.ratios[: len(old.ratios)] == pytest.approx(old.ratios) and len(new.ratios) == 8 and new.stopped == "pairs"
        assert new.base_seconds[: len(old.ratios)] == old.base_seconds and new.kernels == old.kernels and len(new.evidence) == 8
    assert len(stage.workers[BASE]) == 6, "one of them had three pairs, the other two"


def test_what_is_over_is_not_taken_up_again() -> None:
    (slower,), _ = Stage(_noisy(0.05, 0.005, 3)).compare()
    (failed,), _ = Stage(_noisy(0.0, 0.0, 0), {HEAD: {"check": Unanswered(Outcome.FAILED, "wrong")}}).compare()
    stage = Stage(_noisy(0.0, 0.03, 0))
    kept, finished = _kept(stage, 0, before=[slower, failed])
    assert finished and len(kept) == 1 and len(stage.workers[BASE]) == 1
    for old, new in zip((slower, failed), kept[0], strict=True):
        assert (new.verdict, new.outcome, new.message, new.stopped) == (old.verdict, old.outcome, old.message, old.stopped)
        assert new.ratios == pytest.approx(old.ratios)


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


def test_a_decided_comparison_takes_part_in_no_more_pairs() -> None:
    (clear, close), _ = _two(Stage(lambda side, number: 1e-3))
    assert len(clear.ratios) == LEAST_PAIRS and len(close.ratios) == 8


def _two(stage: Stage) -> tuple[list[Versus], bool]:
    """Two comparisons, of which the layouts of processes blur the second."""
    generator = random.Random(5)
    take = versus._take

    def blurred(one: Comparison, *arguments: Any, **options: Any) -> None:
        take(one, *arguments, **options)
        if one.id == "own1":
            one.logs[-1] += generator.uniform(-0.03, 0.03)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versus, "_take", blurred)
        return stage.compare(2)


@pytest.mark.parametrize("do", ["build", "sample", "check"])
@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.FAILED, Outcome.TIMED_OUT])
def test_what_one_side_does_not_answer_is_an_outcome_and_never_a_number(do: str, outcome: Outcome) -> None:
    stage = Stage(_noisy(0.5, 0.0, 0), {HEAD: {do: Unanswered(outcome, "as it went")}})
    (record,), finished = stage.compare()
    assert finished and (record.outcome, record.message) == (outcome.value, "head: as it went")
    assert (record.verdict, record.ratio, record.low, record.ratios, record.head_seconds, record.rounds) == ("", None, None, [], [], [])
    assert exit_status([record]) == 2 and told(record).endswith(": head: as it went")
    assert len(stage.workers[HEAD]) == 1, "no more pairs of what has failed"


def test_a_failure_in_a_later_pair_takes_the_numbers_back() -> None:
    stage = Stage(_noisy(0.0, 0.03, 0))
    begin = stage.begin

    def failing(side: str) -> Worker:
        worker = begin(side)
        if len(stage.workers[BASE]) == 3:
            stage.workers[BASE][-1]._fails = {"check": Unanswered(Outcome.FAILED, "wrong")}
        return worker

    stage.begin = failing  # type: ignore[method-assign]
    (record,), _ = stage.compare()
    assert (record.outcome, record.message, record.ratios) == ("failed", "base: wrong", [])


def test_an_interrupt_keeps_the_pairs_that_were_done() -> None:
    lines: list[str] = []

    def interrupting(line: str) -> None:
        lines.append(line)
        if len(lines) == 4:
            raise KeyboardInterrupt

    stage = Stage(_noisy(0.0, 0.03, 0))
    (record,), finished = stage.compare(tell=interrupting)
    assert not finished and record.stopped == "interrupted" and len(record.ratios) == 3
    assert record.verdict == Verdict.UNDECIDED and "no interval" in told(record)
    assert all(worker.stopped for side in SIDES for worker in stage.workers[side])


def test_a_fault_of_the_harness_is_raised_and_leaves_no_process() -> None:
    stage = Stage(_noisy(0.0, 0.03, 0), {BASE: {"sample": RuntimeError("a fault")}})
    with pytest.raises(RuntimeError, match="a fault"):
        stage.compare()
    assert all(worker.stopped for side in SIDES for worker in stage.workers[side])


def test_tells_what_begins_and_how_long_the_rest_takes() -> None:
    lines: list[str] = []
    Stage(lambda side, number: 1e-3).compare(tell=lines.append)
    assert lines[0] == "1 of 8: pair 1, own0 on tests/lstm-I4-H4-T4-B2-float32-cpu-inference"
    assert lines[1].startswith("2 of 8, about 0 s left: pair 2, ")


def test_one_that_is_slower_fails_the_run_whatever_else_happens_and_nothing_compared_is_no_success() -> None:
    def record(verdict: str = "", outcome: str = "passed") -> Versus:
        return Versus("w", "s", "i", "b", "h", outcome, "lstm", "cpu", "float32", "inference", verdict=verdict)

    assert exit_status([record("slower"), record(outcome="crashed")]) == 1
    assert exit_status([record("same"), record(outcome="crashed")]) == 2
    assert exit_status([record("undecided"), record(outcome="unsupported")]) == 0
    assert exit_status([record(outcome="unsupported")]) == 2
    assert exit_status([]) == 2


def test_workloads_of_other_modes_are_left_out_and_an_import_that_fails_on_one_side_is_an_outcome() -> None:
    gru = Workload("tests", Case(Layer(Mode.GRU, 4, 4), steps=4, batch=2), Pass.INFERENCE)
    stage = Stage(lambda side, number: 1e-3)
    (one,) = planned({side: stage.begin(side) for side in SIDES}, ["own"], [gru, WORKLOAD])
    assert (one.id, one.workload, one.origins) == ("own", WORKLOAD, {BASE: "/base.py", HEAD: "/head.py"})
    with pytest.raises(versus.VersusError, match="Nothing to compare"):
        planned({side: stage.begin(side) for side in SIDES}, ["own"], [gru])
    missing = {"find": Unanswered(Outcome.UNAVAILABLE, "importing it raised ImportError: no")}
    stage = Stage(lambda side, number: 1e-3, {HEAD: missing})
    (one,) = planned({side: stage.begin(side) for side in SIDES}, ["own"], [WORKLOAD])
    assert (one.outcome, one.message) == ("unavailable", "head: importing it raised ImportError: no")
    stage = Stage(lambda side, number: 1e-3, dict.fromkeys(SIDES, missing))
    with pytest.raises(versus.VersusError, match="importing it raised"):
        planned({side: stage.begin(side) for side in SIDES}, ["own"], [WORKLOAD])


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


# The command line.

LEAST = ["--base-python", sys.executable, "--head-python", sys.executable]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-python", sys.executable], "--head-python"),
        ([*LEAST, "--pairs", "4"], "expected --pairs of at least 5 but got 4"),
        ([*LEAST, "--sampling-time", "0"], "expected --sampling-time above 0 but got 0"),
        ([*LEAST, "--time-limit", "nan"], "expected --time-limit above 0 but got nan"),
        ([*LEAST, "--threads", "0"], "expected --threads of at least 1 but got 0"),
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
    for side, sleep, factor in ((BASE, 1e-3, 1), (HEAD, 3e-3, 2)):
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
    # Three pairs instead of five, which are seconds; the slowdown is large.
    monkeypatch.setattr(statistics, "LEAST_PAIRS", 3)
    monkeypatch.setattr(versus, "LEAST_PAIRS", 3)
    workloads = tmp_path / "tiny.toml"
    workloads.write_text('[[workload]]\nmode = ["gru", "lstm"]\npass = "inference"\nT = 2\nB = 1\nH = 4\n')
    arguments = ["--base-python", pythons[BASE], "--base", "mypkg==1", "--head-python", pythons[HEAD], "--head", "mypkg==2", "--pairs", "3"]
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
    assert [last[f"mypkg:{name}"].outcome for name in ("Layer", "Wrong")] == ["passed", "failed"] and len(run.results) == 3 + 1 + 2
    again = main([*arguments, *(f"--implementation={reference}" for reference in references), *options, "--resume", str(path)])
    assert again == 1 and [json.loads(line)["ratios"] for line in capsys.readouterr().out.splitlines()] == [slower["ratios"], []]
    assert main([*arguments, "--implementation=lstm=mypkg:Layer", *options, "--resume", str(path), "--pairs", "4"]) == 2
    assert "its policy of pairs was 3 and is 4 now" in capsys.readouterr().err
    assert run.header.policy["environments"]["base"]["versions"]["torch"] == run.header.environment["versions"]["torch"]


@pytest.mark.skipif(sys.platform == "win32", reason="the two Pythons are shell scripts")
def test_a_crash_and_a_hang_are_outcomes_and_the_next_request_is_answered(pythons: dict[str, str]) -> None:
    remote = Remote(pythons[BASE], limit=20.0)
    try:
        for name, outcome, message in (
            ("Dies", Outcome.CRASHED, "the process that ran it ended with exit status 7: last words"),
            ("Hangs", Outcome.TIMED_OUT, "no answer within 0.5 s; the process was ended (--time-limit gives it longer)"),
        ):
            assert remote.ask("find", reference=f"lstm=mypkg:{name}")["id"] == f"mypkg:{name}"
            remote._limit = 0.5 if outcome is Outcome.TIMED_OUT else 20.0
            with pytest.raises(Unanswered) as caught:
                remote.ask("build", reference=f"lstm=mypkg:{name}", workload=WORKLOAD.as_json(), look=False)
            assert (caught.value.outcome, caught.value.message) == (outcome, message)
        assert remote._process is None
    finally:
        remote.stop()

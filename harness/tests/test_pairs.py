"""Pairs of processes: what may be said of them, and the rounds with workers that are played."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from harness import pairs as pairing
from harness import sampling, statistics
from harness.case import Case
from harness.clock import FakeClock
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.pairs import BASE, HEAD, SIDES, Comparison, Worker, compare, decided, judged, planned
from harness.record import Versus
from harness.remote import Unanswered
from harness.sampling import Budget
from harness.statistics import LEAST_PAIRS, Verdict, between
from harness.versus import exit_status, told
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
    series = noise(np.random.default_rng(1), (2000, pairing.PAIRS))
    found = [_concluded(logs) for logs in series]
    # One in a hundred, and what the looks add; three standard errors of 2000 trials on top.
    assert sum(verdict in (Verdict.SLOWER, Verdict.FASTER) for verdict in found) / len(found) < 0.013 + 3 * math.sqrt(0.013 / len(found))


def test_one_process_alone_would_have_alarmed() -> None:
    logs = _two_speeds(np.random.default_rng(1), (2000, 1))
    assert (abs(logs) > 0.02).mean() > 0.4


def test_a_slowdown_is_found_through_the_noise_that_was_measured() -> None:
    generator = np.random.default_rng(2)
    found = [_concluded(0.03 + logs) for logs in _seldom_far_off(generator, (500, pairing.PAIRS))]
    assert found.count(Verdict.SLOWER) > 450 and Verdict.FASTER not in found
    assert [_concluded(-0.2 + logs) for logs in _normal(generator, (20, pairing.PAIRS))].count(Verdict.FASTER) >= 17


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
            "find": {"id": "own", "description": "a layer", "modes": ["lstm"], "origin": f"/{self._side}.py"},
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
        workers = pairing.begun(self.begin, generator)
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
        assert kinds == ["build", "sample", "check"] * pairing.BUILDS * 5


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
        asked, pairing.begun(stage.begin, generator), stage.begin, pairs, Budget(seconds=0.05), generator, clock=FakeClock().now, keep=keep
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


def test_a_decided_comparison_takes_part_in_no_more_pairs() -> None:
    (clear, close), _ = _two(Stage(lambda side, number: 1e-3))
    assert len(clear.ratios) == LEAST_PAIRS and len(close.ratios) == 8


def _two(stage: Stage) -> tuple[list[Versus], bool]:
    """Two comparisons, of which the layouts of processes blur the second."""
    generator = random.Random(5)
    take = pairing._take

    def blurred(one: Comparison, *arguments: Any, **options: Any) -> None:
        take(one, *arguments, **options)
        if one.id == "own1":
            one.logs[-1] += generator.uniform(-0.03, 0.03)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "_take", blurred)
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


@pytest.mark.parametrize("pair", [1, 2])
def test_an_interrupt_in_the_middle_of_a_pair_adds_nothing_of_it(pair: int) -> None:
    stage, last = Stage(_noisy(0.0, 0.03, 0)), Played.ask

    def ask(worker: Played, do: str, **given: Any) -> dict[str, Any]:
        answer = last(worker, do, **given)
        if do == "build":
            answer["agreement"], answer["kernels"] = len(stage.workers[BASE]), ["k"]
        if do == "check" and len(stage.workers[BASE]) == pair:
            raise KeyboardInterrupt
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Played, "ask", ask)
        (record,), finished = stage.compare()
    whole = {"before": 1, "after": [{"quantity": "output", "ratio": 0.7}]}
    assert not finished and (len(record.ratios), len(record.evidence)) == (pair - 1, pair - 1)
    assert record.agreement == (dict.fromkeys(SIDES, whole) if pair > 1 else {})
    assert record.kernels == ({side: ["k"] for side in SIDES} if pair > 1 else {})


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


def test_workloads_of_other_modes_are_left_out_and_an_import_that_fails_on_one_side_is_an_outcome() -> None:
    gru = Workload("tests", Case(Layer(Mode.GRU, 4, 4), steps=4, batch=2), Pass.INFERENCE)
    stage = Stage(lambda side, number: 1e-3)
    (one,) = planned({side: stage.begin(side) for side in SIDES}, ["own"], [gru, WORKLOAD])
    assert (one.id, one.workload, one.origins) == ("own", WORKLOAD, {BASE: "/base.py", HEAD: "/head.py"})
    with pytest.raises(pairing.VersusError, match="Nothing to compare"):
        planned({side: stage.begin(side) for side in SIDES}, ["own"], [gru])
    missing = {"find": Unanswered(Outcome.UNAVAILABLE, "importing it raised ImportError: no")}
    stage = Stage(lambda side, number: 1e-3, {HEAD: missing})
    (one,) = planned({side: stage.begin(side) for side in SIDES}, ["own"], [WORKLOAD])
    assert (one.outcome, one.message) == ("unavailable", "head: importing it raised ImportError: no")
    stage = Stage(lambda side, number: 1e-3, dict.fromkeys(SIDES, missing))
    with pytest.raises(pairing.VersusError, match="importing it raised"):
        planned({side: stage.begin(side) for side in SIDES}, ["own"], [WORKLOAD])


def test_two_files_with_a_class_of_one_name_are_told_apart_by_their_references() -> None:
    stage = Stage(lambda side, number: 1e-3)
    found = planned({side: stage.begin(side) for side in SIDES}, ["a/own.py:Own", "b/own.py:Own"], [WORKLOAD])
    assert [(one.id, one.reference, one.modes, one.description) for one in found] == [
        ("own", "a/own.py:Own", ["lstm"], "a layer"),
        ("b/own.py:Own", "b/own.py:Own", ["lstm"], "a layer"),
    ]

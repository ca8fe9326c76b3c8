"""Comparisons, within a run and from run to run, and their commands, against values worked out by hand.

The samples of the baseline differ from round to round, and those of a candidate are a multiple of them: the medians of all
stretches of rounds are then the same, and the interval is what is added to it on either side, :data:`harness.statistics.SYSTEMATIC`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from harness.record import Throughput
from harness.statistics import SYSTEMATIC
from reports import comparison, load
from reports.__main__ import main
from reports.analysis import Findings
from reports.load import Frames
from reports.tests import specimen
from reports.tests.test_analysis import ROUNDS, cell, slower

#: Logarithms of which the median is 0 and the standard deviation sqrt(0.00025). Of five single rounds the standard error of the median is
#: that over sqrt(5), times sqrt(pi / 2): 0.0088623. Student's t with 4 degrees of freedom stays within 4.6041 of them in 99 %.
SPREAD = (-0.02, 0.02, 0.0, -0.01, 0.01)
ERROR = 0.0088623
HALF = 4.6041 * ERROR + SYSTEMATIC

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes a run file with the cells that it is given."""

    def write(*cells: Throughput, machine: str = "specimen", **changes: Any) -> Path:
        environment = {**specimen.header().environment, "machine": machine}
        number = len(list(tmp_path.glob("*.jsonl")))
        return specimen.write(
            tmp_path, what=f"run{number}", results=list(cells), environment=environment, **{"run": f"run{number:05}", **changes}
        )

    return write


def spread(by: float) -> list[float]:
    """Seconds of five rounds whose ratios to one second have the median exp(``by``) and the spread above."""
    return [math.exp(by + log) for log in SPREAD]


FIVE = [1.0] * 5


def test_a_comparison_has_its_ratio_interval_verdict_and_time(run: Run) -> None:
    # The baseline is sampled one call at a time, 6.2 s in all; the candidate three calls at a time, which take twice as long each.
    (one,) = comparison.compared(load(run(cell("torch:a", ROUNDS), cell("x:b", slower(2), calls=3))))
    assert (one.workload, one.implementation, one.baseline) == ("gru-T8", "x:b", "torch:a")
    assert (one.verdict, one.rounds, one.machine, one.device) == ("slower", 6, "specimen", "cpu")
    assert (one.ratio, one.low, one.high) == pytest.approx((2.0, 2 * math.exp(-SYSTEMATIC), 2 * math.exp(SYSTEMATIC)))
    assert one.seconds == pytest.approx(3 * 12.4 + 6.2)


def test_what_was_timed_with_cold_caches_is_compared_with_nothing_else(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    hot = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)))
    settings = {"caches": "cold"}
    cold = run(cell("torch:a", slower(3), settings=settings), cell("x:b", slower(12), settings=settings))
    found = comparison.compared(load([hot, cold]))
    assert [one.caches for one in found] == ["hot", "cold"]
    assert [one.ratio for one in found] == pytest.approx([2.0, 4.0])
    assert main(["verdicts", str(hot), str(cold)]) == 0
    assert [", cold caches: " in line for line in capsys.readouterr().out.splitlines()] == [False, True]
    change = comparison.difference(load(hot), load([hot, cold]))
    assert [one.caches for one in change.changes] == ["hot"]
    assert change.appeared == ["x:b beside torch:a on gru-T8, cold caches"] and change.vanished == []


def test_a_run_of_a_time_before_caches_were_told_of_was_with_hot_ones(run: Run) -> None:
    before, after = (run(cell("torch:a", ROUNDS, settings=s), cell("x:b", slower(2), settings=s)) for s in ({}, {"caches": "hot"}))
    found = comparison.difference(load(before), load(after))
    assert (len(found.changes), found.appeared, found.vanished) == (1, [], [])


def test_the_interval_follows_from_the_spread_of_the_rounds(run: Run) -> None:
    (one,) = comparison.compared(load(run(cell("torch:a", FIVE), cell("x:b", spread(0.0)))))
    assert (one.ratio, one.low, one.high) == pytest.approx((1.0, math.exp(-HALF), math.exp(HALF)), abs=1e-5)
    assert one.verdict == "undecided"


def test_all_four_verdicts_are_given(run: Run) -> None:
    cells = [cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(0.5)), cell("x:d", slower(1.002))]
    noisy = [seconds * (1.4 if k % 2 else 0.75) for k, seconds in enumerate(ROUNDS)]
    found = comparison.compared(load(run(*cells, cell("x:e", noisy))))
    assert {one.implementation: one.verdict for one in found} == {"x:b": "slower", "x:c": "faster", "x:d": "same", "x:e": "undecided"}


def test_verdicts_hold_for_all_comparisons_together(run: Run) -> None:
    # 5.2 errors beyond what is added on either side: two in three hundred equal pairs differ as much. That is a verdict where it is asked
    # once, and none where it is asked of two.
    close = cell("x:b", spread(5.2 * ERROR + SYSTEMATIC))
    alone = comparison.compared(load(run(cell("torch:a", FIVE), close)))
    both = comparison.compared(load(run(cell("torch:a", FIVE), close, cell("x:c", spread(0.0)))))
    assert [one.verdict for one in alone] == ["slower"]
    assert [one.verdict for one in both] == ["undecided", "undecided"]
    assert (both[0].low, both[0].high) == (alone[0].low, alone[0].high), "the interval is that of one comparison"


def test_only_the_rounds_that_both_have_are_compared(run: Run) -> None:
    # One that was decided left the rounds after five; what the baseline took afterwards is not of them.
    left = cell("x:b", slower(2)[:5])
    (one,) = comparison.compared(load(run(cell("torch:a", [*ROUNDS[:5], 100.0]), left)))
    assert one.rounds == 5 and one.ratio == pytest.approx(2.0)
    assert one.seconds == pytest.approx(3 * sum(ROUNDS[:5]))


def test_few_rounds_have_a_ratio_and_neither_interval_nor_verdict(run: Run) -> None:
    (one,) = comparison.compared(load(run(cell("torch:a", ROUNDS[:3]), cell("x:b", slower(2)[:3]))))
    assert one.ratio == pytest.approx(2.0) and one.verdict == "undecided"
    assert one.low is one.high is None


@pytest.mark.parametrize("who", ["x:b", "torch:a"])
def test_what_has_no_right_answer_any_more_fails_the_gate(run: Run, capsys: pytest.CaptureFixture[str], who: str) -> None:
    other = [cell("torch:a", ROUNDS, 16), cell("x:b", slower(2), 16)]
    base = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), *other)
    broken = [cell(name, [], outcome=Outcome.CRASHED) if name == who else cell(name, ROUNDS) for name in ("torch:a", "x:b")]
    head = run(*broken, *other)
    assert main(["compare", str(base), str(head)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert f"broke       {who} on gru-T8: crashed in HEAD" in told and "vanished    x:b beside torch:a on gru-T8" in told
    assert main(["compare", str(base), str(head), "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"verdict": "broke", "cell": f"{who} on gru-T8: crashed in HEAD"}
    unavailable = run(cell("torch:a", ROUNDS), cell("x:b", [], outcome=Outcome.UNAVAILABLE), *other)
    assert main(["compare", str(base), str(unavailable)]) == 0, "what cannot run there says nothing"


def test_a_cell_without_a_time_is_no_comparison(run: Run) -> None:
    failed = cell("x:b", [], outcome=Outcome.FAILED)
    assert comparison.compared(load(run(cell("torch:a", ROUNDS), failed))) == []


def test_another_baseline_may_be_asked_for_and_is_left_out_where_it_was_not_timed(run: Run) -> None:
    cells = [cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("torch:a", ROUNDS, 16), cell("x:c", slower(4), 16)]
    found = comparison.compared(load(run(*cells)), "x:b")
    assert [(one.workload, one.implementation, one.baseline) for one in found] == [("gru-T8", "torch:a", "x:b")]
    assert found[0].ratio == pytest.approx(0.5)


def test_a_comparison_is_a_line_of_text(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:few", slower(2)[:3]))
    assert main(["verdicts", str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    # 6.2 s and 12.4 s; 3 s and 6 s.
    assert told.out.splitlines() == [
        "slower     x:b on gru-T8: 2.0000 (1.9950 to 2.0050) of the time of torch:a, 6 rounds in 18.6 s",
        "undecided  x:few on gru-T8: 2.0000 (no interval) of the time of torch:a, 3 rounds in 9.0 s",
    ]


def test_a_comparison_is_an_object_of_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(0.5)), cell("x:few", ROUNDS[:3]))
    assert main(["verdicts", "--json", str(path)]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "workload": "gru-T8",
        "implementation": "x:b",
        "baseline": "torch:a",
        "ratio": pytest.approx(0.5),
        "low": pytest.approx(0.5 * math.exp(-SYSTEMATIC)),
        "high": pytest.approx(0.5 * math.exp(SYSTEMATIC)),
        "verdict": "faster",
        "seconds": pytest.approx(9.3),
        "rounds": 6,
        "machine": "specimen",
        "device": "cpu",
        "caches": "hot",
        "threads": 1,
    }
    assert set(second) == set(first) and second["low"] is second["high"] is None


def test_the_command_compares_with_the_baseline_that_it_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(4)))
    assert main(["verdicts", "--json", "--baseline", "x:b", str(path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["implementation"]: line["ratio"] for line in lines} == pytest.approx({"torch:a": 0.5, "x:c": 2.0})
    assert {line["baseline"] for line in lines} == {"x:b"}


def test_a_baseline_that_was_not_timed_is_one_line_and_status_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)))
    assert main(["verdicts", "--baseline", "x:z", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: Expected an implementation that was timed but got x:z: the runs have torch:a, x:b.\n"


def test_nothing_to_compare_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdicts", str(run(cell("torch:a", ROUNDS), cell("x:b", ROUNDS, rounds=[])))]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: Nothing to compare: ") and len(told.err.splitlines()) == 1


def _compared(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, list[str], list[str]]:
    """Exit status of ``compare``, its lines, and its warnings."""
    status = main(["compare", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err.splitlines()


@pytest.mark.parametrize(
    ("head", "verdict", "status"),
    [(slower(2.2), "slower", 1), (slower(2), "same", 0), (slower(1.8), "faster", 0), (slower(2.2)[:3], "undecided", 0)],
    ids=["slower", "same", "faster", "undecided"],
)
def test_only_a_confirmed_slowdown_is_an_exit_status_of_1(
    head: list[float], verdict: str, status: int, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # The machine of the later run is three times as slow, which touches the control as well.
    paths = run(cell("torch:a", ROUNDS), cell("x:b", slower(2))), run(cell("torch:a", slower(3)), cell("x:b", [3 * s for s in head]))
    found, lines, warnings = _compared(capsys, *paths)
    assert (found, warnings, len(lines)) == (status, [], 1)
    assert lines[0].startswith(f"{verdict:10}  x:b on gru-T8: 2.0000 -> ")


def test_a_slowdown_that_the_noise_may_have_made_is_undecided(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # 3 % is little beside the 6 % by which two runs like these may err.
    paths = run(cell("torch:a", FIVE), cell("x:b", spread(0.0))), run(cell("torch:a", FIVE), cell("x:b", spread(0.03)))
    status, lines, _ = _compared(capsys, *paths)
    low, high = (math.exp(0.03 + sign * (4.6041 * math.sqrt(2) * ERROR + 2 * SYSTEMATIC)) for sign in (-1, 1))
    assert status == 0
    assert lines == [f"undecided   x:b on gru-T8: 1.0000 -> 1.0305 of the time of torch:a, 1.0305 ({low:.4f} to {high:.4f})"]


def test_the_page_judges_a_comparison_among_all_of_them_as_the_verdicts_do(tmp_path: Path) -> None:
    # t = (0.05 - SYSTEMATIC) / ERROR = 5.4 with 4 degrees: p = 0.006, enough alone, and not among four.
    def verdicts_of(*lengths: int) -> list[str]:
        cells = [cell(name, taken, length) for length in lengths for name, taken in (("torch:a", FIVE), ("x:b", spread(0.05)))]
        frames = load(specimen.write(tmp_path, what=f"of{len(lengths)}", results=cells))
        found = Findings(frames).relative["verdict"].tolist()
        assert found == [one.verdict for one in comparison.compared(frames)]
        return found

    assert verdicts_of(8) == ["slower"]
    assert verdicts_of(8, 16, 32, 64) == ["undecided"] * 4


def test_a_change_is_a_line_of_text_or_an_object_of_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run(cell("torch:a", ROUNDS), cell("x:b", slower(2))), run(cell("torch:a", ROUNDS), cell("x:b", slower(2.2)))
    # 1.1 times exp of twice what is added on either side of one comparison.
    assert _compared(capsys, *paths)[1] == ["slower      x:b on gru-T8: 2.0000 -> 2.2000 of the time of torch:a, 1.1000 (1.0945 to 1.1055)"]
    status, (line,), _ = _compared(capsys, "--json", *paths)
    assert status == 1
    assert json.loads(line) == {
        "workload": "gru-T8",
        "implementation": "x:b",
        "control": "torch:a",
        "caches": "hot",
        "threads": 1,
        "machine": "specimen",
        "base": pytest.approx(2.0),
        "head": pytest.approx(2.2),
        "ratio": pytest.approx(1.1),
        "low": pytest.approx(1.1 * math.exp(-2 * SYSTEMATIC)),
        "high": pytest.approx(1.1 * math.exp(2 * SYSTEMATIC)),
        "verdict": "slower",
    }


def test_a_change_is_as_sure_as_both_runs_together(run: Run) -> None:
    base, head = (load(run(cell("torch:a", FIVE), cell("x:b", spread(by)))) for by in (0.0, 0.2))
    (change,) = comparison.difference(base, head).changes
    half = 4.6041 * math.sqrt(2) * ERROR + 2 * SYSTEMATIC
    assert (change.ratio, change.low, change.high) == pytest.approx((math.exp(0.2), math.exp(0.2 - half), math.exp(0.2 + half)), rel=1e-4)
    assert change.verdict == "slower"


def test_environments_that_differ_give_no_verdicts_unless_forced(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run(cell("torch:a", ROUNDS), cell("x:b", slower(2))), run(cell("torch:a", ROUNDS), cell("x:b", slower(3)), machine="other")
    status, lines, warnings = _compared(capsys, *paths)
    assert (status, len(lines)) == (0, 1) and lines[0].startswith("not judged  x:b on gru-T8: 2.0000 -> 3.0000")
    assert warnings[0] == "warning: the environments differ: machine: specimen in BASE, other in HEAD"
    assert len(warnings) == 2 and "--force" in warnings[1]
    _, (line,), _ = _compared(capsys, "--json", *paths)
    assert json.loads(line)["verdict"] == "not judged"
    status, lines, warnings = _compared(capsys, "--force", *paths)
    assert status == 1 and lines[0].startswith("slower  ") and len(warnings) == 1


@pytest.mark.parametrize(
    ("place", "name", "before", "after"),
    [("versions", "torch", "2.11.0", "2.13.0"), ("versions", "onednn", None, "3.12.0"), ("settings", "cpu_capability", "AVX512", "AVX2")],
)
def test_another_torch_or_another_setting_is_another_environment(place: str, name: str, before: Any, after: Any, tmp_path: Path) -> None:
    def side(number: int, *values: Any) -> Frames:
        environment = {**specimen.header().environment, place: dict(values)}
        cells = [cell("torch:a", ROUNDS), cell("x:b", slower(2))]
        return load(specimen.write(tmp_path, what=f"run{number}", results=cells, environment=environment, run=f"run{number:05}"))

    base, head, silent = side(1, (name, before)), side(2, (name, after)), side(3)
    assert comparison.difference(base, head).mismatches == [f"{name}: {before or 'absent'} in BASE, {after} in HEAD"]
    assert comparison.difference(silent, head).mismatches == comparison.difference(head, head).mismatches == []


def test_other_threads_are_another_environment(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)))
    head = run(cell("torch:a", ROUNDS, threads=2), cell("x:b", slower(3), threads=2))
    status, _, warnings = _compared(capsys, base, head)
    assert status == 0 and warnings[0] == "warning: the environments differ: threads: [1] in BASE, [2] in HEAD"


def test_what_is_new_and_what_vanished_is_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:old", ROUNDS))
    head = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:young", slower(9)))
    status, lines, _ = _compared(capsys, base, head)
    assert status == 0, "what is new has not become slower"
    assert lines[1:] == ["new         x:young beside torch:a on gru-T8", "vanished    x:old beside torch:a on gru-T8"]
    _, lines, _ = _compared(capsys, "--json", base, head)
    assert [json.loads(line) for line in lines[1:]] == [
        {"verdict": "new", "comparison": "x:young beside torch:a on gru-T8"},
        {"verdict": "vanished", "comparison": "x:old beside torch:a on gru-T8"},
    ]


def test_the_control_is_what_is_taken_not_to_have_changed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # Beside torch:a both became slower; beside each other nothing happened, and it was torch:a that became faster.
    base = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(4)))
    head = run(cell("torch:a", slower(0.5)), cell("x:b", slower(2)), cell("x:c", slower(4)))
    status, lines, _ = _compared(capsys, base, head)
    assert status == 1 and [line.split()[:2] for line in lines] == [["slower", "x:b"], ["slower", "x:c"]]
    status, lines, _ = _compared(capsys, "--control", "x:b", base, head)
    assert status == 0 and [line.split()[:2] for line in lines] == [["faster", "torch:a"], ["same", "x:c"]]


def test_a_control_that_one_of_the_runs_did_not_time_is_one_line_and_status_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run(cell("torch:a", ROUNDS), cell("x:b", ROUNDS)), run(cell("torch:a", ROUNDS), cell("x:c", ROUNDS))
    status, lines, errors = _compared(capsys, "--control", "x:b", *paths)
    assert (status, lines) == (2, [])
    assert errors == ["error: Expected an implementation that was timed but got x:b: the runs have torch:a, x:c."]


def test_a_run_that_cannot_be_read_is_one_line_and_status_2(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, errors = _compared(capsys, run(cell("torch:a", ROUNDS)), tmp_path / "missing.jsonl")
    assert (status, lines, len(errors)) == (2, [], 1) and "missing.jsonl" in errors[0]


def test_nothing_in_common_is_status_2_and_not_a_pass(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = run(cell("torch:a", ROUNDS), cell("x:b", slower(2))), run(cell("torch:a", ROUNDS, 16), cell("x:b", slower(9), 16))
    status, lines, errors = _compared(capsys, base, head)
    assert (status, len(errors)) == (2, 1) and errors[0].startswith("error: Nothing to compare: ")
    assert lines == ["new         x:b beside torch:a on gru-T16", "vanished    x:b beside torch:a on gru-T8"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_without_times_is_one_line_and_status_2(order: int, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run(cell("torch:a", ROUNDS), cell("x:b", slower(2))), run(cell("x:b", [], outcome=Outcome.FAILED))
    status, lines, errors = _compared(capsys, *paths[::order])
    side = "HEAD" if order == 1 else "BASE"
    assert (status, lines, len(errors)) == (2, [], 1) and errors[0].startswith(f"error: Expected {side} to have timed workloads ")


def test_a_run_beside_itself_is_refused_however_it_is_named(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(2)))
    copy = tmp_path / "copy" / "other.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    cut = tmp_path / "copy" / "cut.jsonl"
    cut.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    for head in (path, path.parent, copy, cut):
        of_page = ["page", head, "--base", path, "--out", tmp_path / "page"]
        for command in (["compare", path, head], ["summary", "--base", path, head], of_page):
            assert main(list(map(str, command))) == 2
            told = capsys.readouterr()
            assert told.out == "" and "Expected HEAD to be another run than BASE" in told.err.splitlines()[-1]
    # Beside the old run lies a new one: that is a comparison.
    run(cell("torch:a", ROUNDS), cell("x:b", slower(3)), created="2026-02-02T00:00:00Z")
    assert _compared(capsys, path, tmp_path)[0] == 1


def test_a_baseline_is_not_one_that_was_tried_and_has_no_time(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:lost", [], outcome=Outcome.FAILED))
    assert main(["verdicts", "--baseline", "x:lost", str(path)]) == 2
    assert "the runs have torch:a, x:b." in capsys.readouterr().err


def test_where_the_baseline_that_was_asked_for_has_no_time_no_other_takes_its_place(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lstm: dict[str, Any] = {"mode": "lstm", "workload": "lstm-T8"}
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("torch:a", ROUNDS, **lstm), cell("x:c", slower(4), **lstm))
    assert main(["verdicts", "--baseline", "x:b", str(path)]) == 0
    told = capsys.readouterr()
    assert [line.split(" of the time of ")[1] for line in told.out.splitlines()] == ["x:b, 6 rounds in 18.6 s"]
    assert told.err == "warning: nothing was timed in the same rounds as x:b on 1 workload, which are left out: lstm-T8\n"


def test_one_workload_with_several_threads_is_compared_thread_by_thread(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def cells(one: float, two: float) -> list[Throughput]:
        pairs = [
            (cell("torch:a", ROUNDS, threads=threads), cell("x:b", slower(by), threads=threads)) for threads, by in ((1, one), (2, two))
        ]
        return [made for pair in pairs for made in pair]

    base, head = run(*cells(2, 4)), run(*cells(2, 5))
    status, lines, _ = _compared(capsys, base, head)
    assert status == 1
    assert [(line.split()[0], line.split(": ")[1].split(" of ")[0]) for line in lines] == [
        ("same", "2.0000 -> 2.0000"),
        ("slower", "4.0000 -> 5.0000"),
    ]
    assert [", 1 thread: " in line for line in lines] == [True, False] and ", 2 threads: " in lines[1]
    assert main(["verdicts", str(base)]) == 0
    assert [", 2 threads: " in line for line in capsys.readouterr().out.splitlines()] == [False, True]


@pytest.mark.parametrize("odd", [0.0, -1.0, math.inf, math.nan])
def test_a_sample_that_is_no_time_is_told_of_and_compared_with_nothing(odd: float, run: Run, tmp_path: Path) -> None:
    path = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(2)))
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(f'"samples": [{2 * ROUNDS[0]}', f'"samples": [{json.dumps(odd)}')
    path.write_text("".join(lines))
    frames = load(path)
    assert [one.implementation for one in comparison.compared(frames)] == ["x:c"]
    assert any(f"result 2 has a sample of {odd} s, which is no time of a call" in problem for problem in frames.problems)

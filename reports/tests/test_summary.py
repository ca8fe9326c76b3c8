"""The summary: what it says, that GitHub shows it as it is meant, and that it fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from harness.record import Mutation
from reports import Frames, load
from reports.__main__ import main
from reports.analysis import Findings
from reports.summary import MOST, summary
from reports.tests import specimen
from reports.tests.gfm import Seen, seen
from reports.tests.specimen import HOSTILE
from reports.tests.test_analysis import ROUNDS, cell, check, passing, slower
from reports.view_runs import machine_facts

Run = Callable[..., Path]
TABLE = ("table", "thead", "tbody", "tr", "th", "td")
FACTS = {name: {"severity": severity} for name, severity in (("a.one", "SHOULD"), ("a.two", "MUST"))}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes a run file with the results that it is given."""

    def write(*results: Any, **changes: Any) -> Path:
        number = len(list(tmp_path.glob("*.jsonl")))
        header: dict[str, Any] = {"implementations": {}, "contracts": FACTS, "run": f"run{number:05}", **changes}
        return specimen.write(tmp_path, what=f"run{number}", results=list(results), **header)

    return write


def _page(*paths: Path, base: list[Path] | Path | None = None) -> Seen:
    return seen(summary(load(paths), load(base) if base else None).text)


def _table(page: Seen, *head: str) -> list[list[str]]:
    """The lines of the table whose head begins with ``head``."""
    (found,) = [table for table in page.tables if table[0][: len(head)] == list(head)]
    return found[1:]


def test_every_table_has_as_many_entries_in_a_line_as_in_its_head_and_no_foreign_markup(frames: Frames) -> None:
    page = seen(summary(frames).text)
    assert len(page.tables) >= 5
    for table in page.tables:
        assert len(table) > 1 and {len(line) for line in table} == {len(table[0])}
    assert page.tags <= {*TABLE, "h2", "h3", "p", "ul", "li", "strong", "code", "pre", "details", "summary"}
    assert HOSTILE in [line[0] for line in _table(page, "implementation", "verdict")]
    assert "**" not in page.text and "| ---" not in page.text, "nothing of the Markdown is left over"


def test_who_is_a_drop_in_and_who_is_not_and_why(run: Run) -> None:
    page = _page(run(*passing("x:a", "x:b"), check("x:b", "a.two", Outcome.FAILED, message="y is off\nby far")))
    assert "1 of 2 tested implementations is a drop-in" in page.text
    assert _table(page, "implementation", "verdict") == [
        ["x:a", "drop-in", "nothing broken in 2 cases of 2 contracts", "2 of 2"],
        ["x:b", "not a drop-in", "breaks 1 contract of 2 (1 MUST)", "1 of 2"],
    ]


def test_broken_contracts_are_told_with_their_messages_the_gravest_first(run: Run) -> None:
    page = _page(
        run(
            check("x:a", "a.one", Outcome.FAILED, message="one is off\n| at t=3 |", case="c1"),
            check("x:a", "a.two", Outcome.CRASHED, message="two crashed\nsegmentation `fault`", case="c2"),
            check("x:a", "a.two", Outcome.CRASHED, message="again", case="c3"),
            cell("x:a", [], outcome=Outcome.FAILED, message="wrong"),
        )
    )
    assert _table(page, "contract or workload", "level") == [
        ["a.two", "MUST", "crashed", "2", "two crashed"],
        ["a.one", "SHOULD", "failed", "1", "one is off"],
        ["gru-T8", "", "failed", "timed", "wrong"],
    ]
    assert "two crashed\nsegmentation `fault`\n" in page.codes, "one of them with the whole message"


def test_a_severity_that_nobody_knows_comes_last(run: Run) -> None:
    facts = {"a.one": {"severity": "SHALL"}, "a.two": {"severity": "MAY"}, "a.three": {"severity": ["MUST"]}}
    failed = [check("x:a", name, Outcome.FAILED, severity="SHALL") for name in facts]
    path = run(*failed, contracts=facts)
    assert [line[:2] for line in _table(_page(path), "contract or workload")] == [
        ["a.two", "MAY"],
        ["a.one", "SHALL"],
        ["a.three", "['MUST']"],
    ]
    assert "breaks 3 contracts of 3 (1 MAY, 1 SHALL, 1 ['MUST'])" in _page(path).text


def test_the_likely_causes_of_failures_are_told_before_them(run: Run) -> None:
    hints = ["h_0 <b>taken</b> for zero", "", "h_0 <b>taken</b> for zero"]
    page = _page(run(*(check("x:a", "a.one", Outcome.FAILED, message="off", case=f"c{k}", hint=hint) for k, hint in enumerate(hints))))
    assert "likely: h_0 <b>taken</b> for zero: 2 of 3 failures" in page.text


def test_too_little_memory_for_one_workload_is_no_wrong_answer(run: Run) -> None:
    page = _page(run(*passing("x:a"), cell("x:a", ROUNDS), cell("x:a", [], 16, outcome=Outcome.OUT_OF_MEMORY)))
    assert "wrong answer" not in page.text


def test_the_mutants_have_their_score_and_survivors_their_names(run: Run) -> None:
    assert "none were run" in _page(run(*passing("x:a"))).text
    mutants = [Mutation("a.one", f"mutant:m{k}", "passed" if k else "failed", f"wrong <{k}>", {}) for k in range(3)]
    text = _page(run(*passing("x:a")), run(*mutants)).text
    assert "Mutants rejected: 2 of 3 (66.7%), by 1 contract." in text
    assert "survived: mutant:m0 (wrong <0>), which a.one must reject" in text and "m1" not in text


def test_the_fastest_is_named_for_each_use_or_that_it_is_undecided(run: Run) -> None:
    cells = [cell("x:a", ROUNDS), cell("x:b", slower(1.5)), cell("x:a", ROUNDS, 1), cell("x:b", slower(1.002), 1)]
    noisy = [seconds * (1.4 if k % 2 else 0.75) for k, seconds in enumerate(ROUNDS)]
    cells += [cell("x:a", ROUNDS, 64), cell("x:b", noisy, 64), cell("x:c", slower(0.1), 64)]
    page = _page(run(*passing("x:a", "x:b"), *cells))
    ((mode, timed_pass, one, short, long),) = _table(page, "recurrence", "pass", "one step, T = 1", "short", "long")
    assert (mode, timed_pass, short) == ("GRU", "inference", "x:a 1.50× (1.50 to 1.50)")
    assert one.startswith("the same: x:a, x:b 1.00×") and long.startswith("undecided: x:") and "x:c" not in long


def test_what_is_slower_than_the_baseline_stands_there_with_ratio_and_interval(run: Run) -> None:
    page = _page(run(cell("torch:a", ROUNDS), cell("x:b", slower(2)), cell("x:c", slower(0.5)), cell("torch:a", ROUNDS, 16)))
    assert "Slower than the baseline: 1 of 2 comparisons" in page.text
    low, high = 2 * math.exp(-0.0025), 2 * math.exp(0.0025)
    told = f"2.000 ({low:.3f} to {high:.3f})"
    assert _table(page, "implementation", "slower in") == [["x:b", "1 of 1", told, "torch:a", "gru-T8"]]
    assert _table(page, "implementation", "workload", "time over baseline's") == [["x:b", "gru-T8", told, "torch:a"]]
    assert "Nothing: 0 of 1 comparison" in _page(run(cell("torch:a", ROUNDS), cell("x:c", slower(0.5)))).text


def test_files_that_were_cut_short_and_a_loaded_machine_are_warned_of(run: Run) -> None:
    busy = {"told": ["other processes used 58 % of the time of the cores; end them"]}
    page = _page(run(cell("x:a", ROUNDS, evidence=busy), cell("x:b", ROUNDS, evidence=busy), complete=False))
    assert "no footer: the run was cut short after 2 results" in page.text
    assert "specimen: other processes used 58 % of the time of the cores; end them (1 of 1 workload)" in page.text
    assert "Warnings" not in _page(run(*passing("x:a"))).text


def test_the_environment_is_one_line(run: Run) -> None:
    text = _page(run(*passing("x:a")), run(*passing("x:b"))).text
    assert text.endswith("Ran on specimen, An Imaginary CPU @ 2.50GHz, 2 cores, torch 2.13.0, python 3.11.9.")


@pytest.mark.parametrize("fact", ["settings", "load", "versions", "gpus", "memory", "cpu", "cores"])
def test_an_environment_of_odd_content_is_told_as_far_as_it_goes(fact: str, run: Run) -> None:
    for odd in ("text", ["text"], 5, {"text": None}, True):
        frames = load(run(*passing("x:a"), environment={**specimen.header().environment, fact: odd}))
        assert "Ran on specimen" in seen(summary(frames).text).text
        (facts,) = machine_facts(Findings(frames))
        assert facts["Machine"] == ["specimen"]


def test_two_machines_are_told_apart_in_every_table(run: Run) -> None:
    other = {**specimen.header().environment, "machine": "other"}
    broken, kept = check("x:a", "a.one", Outcome.FAILED), check("x:a", "a.one")
    page = _page(run(kept), run(broken, environment=other), base=[run(kept), run(kept, environment=other)])
    assert [line[0] for line in _table(page, "machine", "implementation")] == ["specimen", "other"]
    assert [line[2] for line in _table(page, "machine", "implementation")] == ["no failure so far", "not a drop-in"]
    assert "x:a on other" in page.text and "On other" in page.text and "In HEAD 1 result that BASE had right went wrong" in page.text


def test_what_base_had_right_and_head_breaks_is_told_and_so_is_what_was_mended(run: Run) -> None:
    base = run(check("x:a", "a.one"), check("x:a", "a.two", Outcome.FAILED), check("x:a", "a.three"))
    head = run(check("x:a", "a.one", Outcome.FAILED), check("x:a", "a.two"), check("x:a", "a.four", Outcome.FAILED), check("x:b", "a.one"))
    page = _page(head, base=base)
    assert "In HEAD 1 result that BASE had right went wrong; no time can be compared." in page.text
    assert [table[1:] for table in page.tables if table[0][1:2] == ["contract or workload"] and table[0][3] == "is"] == [
        [["x:a", "a.one", "passed", "failed"]],
        [["x:a", "a.four", "not run", "failed"]],
        [["x:a", "a.two", "failed", "passed"]],
        [["x:a", "a.three", "passed", "not run"]],
    ]
    assert _table(page, "implementation", "was", "is") == [["x:b", "not there", "drop-in"]]


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (Outcome.PASSED, Outcome.PASSED, 0),
        (Outcome.PASSED, Outcome.CRASHED, 1),
        (Outcome.UNSUPPORTED, Outcome.FAILED, 1),
        (Outcome.FAILED, Outcome.CRASHED, 0),
        (Outcome.FAILED, Outcome.PASSED, 0),
        (Outcome.PASSED, Outcome.UNSUPPORTED, 0),
    ],
)
def test_what_was_right_and_is_broken_is_an_exit_status_of_1(
    before: Outcome, after: Outcome, status: int, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = (run(check("x:a", "a.one", outcome)) for outcome in (before, after))
    assert main(["summary", str(head), "--base", str(base)]) == status
    text = capsys.readouterr().out
    assert ("went wrong**" in text) == bool(status)
    assert (f"| {before} | {after} |" in text) == (before != after)
    assert main(["summary", str(head)]) == 0


def test_a_gate_that_compares_nothing_does_not_pass(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = run(check("x:a", "a.one")), run(cell("torch:b", ROUNDS), cell("x:a", ROUNDS))
    assert main(["summary", str(head), "--base", str(base)]) == 2
    told = capsys.readouterr()
    assert "**Nothing is compared**: HEAD has no check and no time that BASE has too." in told.out
    assert told.err == "error: Nothing to compare: HEAD has no check and no time that BASE has too.\n"


@pytest.mark.parametrize(("by", "status"), [(2.2, 1), (2.0, 0), (1.8, 0)])
def test_a_confirmed_slowdown_is_an_exit_status_of_1(by: float, status: int, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = (run(cell("torch:a", ROUNDS), cell("x:b", slower(factor))) for factor in (2, by))
    assert main(["summary", str(head), "--base", str(base)]) == status
    page = seen(capsys.readouterr().out)
    changed = [table for table in page.tables if "time over control's" in table[0]]
    assert len(changed) == (by != 2.0)
    if status:
        assert "1 comparison of 1 became slower" in page.text and "control: torch:a" in page.text
        assert changed[0][1] == ["x:b", "gru-T8", "2.000 → 2.200", "1.100 (1.095 to 1.106)"]


def test_times_of_two_machines_are_not_judged(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**specimen.header().environment, "machine": "other|one"}
    base = run(cell("torch:a", ROUNDS), cell("x:b", slower(2)))
    head = run(cell("torch:a", ROUNDS), cell("x:b", slower(3)), environment=other)
    assert main(["summary", str(head), "--base", str(base)]) == 0
    text = seen(capsys.readouterr().out).text
    assert "times are not judged, because the environments differ" in text
    assert "machine: specimen in BASE, other|one in HEAD" in text and "became" not in text


@pytest.mark.parametrize("most", [MOST, 20_000, 5_000])
def test_however_much_there_is_it_fits_and_says_that_something_was_left_out(most: int, run: Run) -> None:
    names = [f"{HOSTILE}{k}" * 4 for k in range(30)]
    broken = [check(name, contract, Outcome.FAILED, message="|`<" * 700) for name in names for contract in specimen.contracts()]
    timed = [cell(name, slower(1 + k / 9), length) for k, name in enumerate(names) for length in (1, 2, 4, 64)]
    frames = load(run(*broken, *timed, contracts=specimen.contracts()))
    text = summary(frames, load(run(*passing(*names))), most).text
    assert len(text.encode()) <= most
    page = seen(text)
    assert "Shortened: every list is cut" in page.text and "more implementation" in page.text
    for table in page.tables:
        assert {len(line) for line in table} == {len(table[0])}


def test_what_fits_is_not_shortened(frames: Frames) -> None:
    found = summary(frames)
    assert len(found.text.encode()) < MOST and "Shortened" not in found.text and not found.regressed


def test_times_alone_make_a_summary_and_so_does_an_empty_run(run: Run) -> None:
    assert "Speed only: no contract was run" in _page(run(cell("torch:a", ROUNDS), cell("x:b", ROUNDS))).text
    assert "Nothing was run" in _page(run()).text


def test_what_cannot_be_read_is_one_line_and_status_2(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(*passing("x:a"))
    for arguments in ([tmp_path / "missing.jsonl"], [path, "--base", tmp_path / "missing.jsonl"]):
        assert main(["summary", *map(str, arguments)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and len(told.err.splitlines()) == 1 and "missing.jsonl" in told.err


def test_a_hostile_message_is_text_in_all_of_its_places(run: Run) -> None:
    message = "</summary>|<img src=x>\n```\n</details> @somebody"
    cells = [cell("torch:a", ROUNDS), cell("x:b", [], outcome=Outcome.FAILED, message=message)]
    page = _page(run(check("x:b", "a|one`", Outcome.FAILED, message=message, case="<i>|"), *cells, contracts={"a|one`": {}}))
    assert "img" not in page.tags and "i" not in page.tags
    assert message + "\n" in page.codes and "a|one`" in page.codes and "<i>|" in page.codes


def test_several_broken_cases_of_a_later_run_replace_those_of_an_earlier_one(run: Run) -> None:
    before = run(check("x:a", "a.one", Outcome.FAILED), created="2026-01-01T00:00:00Z")
    after = run(replace(check("x:a", "a.one")), created="2026-01-02T00:00:00Z")
    assert "Broken" not in _page(before, after).text

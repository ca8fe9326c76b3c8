"""One set of runs beside another: verdicts, contracts, times and machines, against what was planted; and its section of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from reports import load, page
from reports.__main__ import main
from reports.analysis import Findings
from reports.changes import Changes, Kind, VerdictChange, changes
from reports.figures import change
from reports.tests.specimen import HOSTILE
from reports.tests.test_analysis import ROUNDS, cell, check, slower
from reports.tests.test_machines import run

PASSED, FAILED, CRASHED, UNSUPPORTED = Outcome.PASSED, Outcome.FAILED, Outcome.CRASHED, Outcome.UNSUPPORTED


def beside(directory: Path, base: list[Any], head: list[Any], **environment: Any) -> Changes:
    """What became of the results ``base`` in ``head``, which ran on a machine that differs by ``environment``."""
    paths = run(directory, "vm", *base, what="base"), run(directory, "vm", *head, what="head", **environment)
    return changes(*(Findings(load(path)) for path in paths))


def test_a_contract_that_broke_one_that_was_mended_and_one_that_is_neither_are_told_apart(tmp_path: Path) -> None:
    def results(*outcomes: Outcome) -> list[Any]:
        return [check(name, "a.one", outcome) for name, outcome in zip(("x:a", "x:b", "x:c", "x:d", "x:e"), outcomes, strict=True)]

    (side,) = beside(
        tmp_path, results(PASSED, FAILED, PASSED, FAILED, PASSED), results(FAILED, PASSED, UNSUPPORTED, CRASHED, PASSED)
    ).beside
    found = [(one.implementation, one.kind, one.before, one.after, one.cases) for one in side.outcomes]
    assert found == [
        ("x:a", Kind.BROKE, "passed", "failed", [("c on cpu", "passed", "failed")]),
        ("x:c", Kind.WORSE, "passed", "unsupported", [("c on cpu", "passed", "unsupported")]),
        ("x:d", Kind.WORSE, "failed", "crashed", [("c on cpu", "failed", "crashed")]),
        ("x:b", Kind.MENDED, "failed", "passed", [("c on cpu", "failed", "passed")]),
    ]


def test_a_case_that_broke_is_told_although_another_was_mended(tmp_path: Path) -> None:
    base = [check("x:a", "a.one", FAILED, case="p"), check("x:a", "a.one", case="q")]
    head = [check("x:a", "a.one", case="p"), check("x:a", "a.one", FAILED, case="q")]
    ((one,),) = (side.outcomes for side in beside(tmp_path, base, head).beside)
    assert (one.kind, one.before, one.after, len(one.cases)) == (Kind.BROKE, "failed", "failed", 2)


def test_a_new_case_that_fails_breaks_a_contract_that_was_kept(tmp_path: Path) -> None:
    head = [check("x:a", "a.one"), check("x:a", "a.one", FAILED, case="new")]
    ((one,),) = (side.outcomes for side in beside(tmp_path, [check("x:a", "a.one")], head).beside)
    assert (one.kind, one.cases) == (Kind.BROKE, [])


def test_a_timed_workload_that_has_no_right_answer_any_more_broke_and_what_cannot_run_says_nothing(tmp_path: Path) -> None:
    base = [cell("torch:a", ROUNDS), cell("x:b", ROUNDS), check("x:b", "a.one", Outcome.UNAVAILABLE)]
    head = [cell("torch:a", ROUNDS), cell("x:b", [], outcome=FAILED), check("x:b", "a.one")]
    (side,) = beside(tmp_path, base, head).beside
    assert [(one.what, one.kind, one.before, one.after) for one in side.outcomes] == [
        ("gru-T8", Kind.BROKE, "passed", "failed"),
        ("a.one", Kind.APPEARED, "", "passed"),
    ]
    assert [one.what for one in side.of(Kind.BROKE, Kind.APPEARED)] == ["gru-T8", "a.one"]


def test_what_broke_is_told_although_one_side_has_a_machine_more(tmp_path: Path) -> None:
    base = run(tmp_path, "vm", cell("torch:a", ROUNDS), cell("x:b", ROUNDS), what="base")
    head = run(tmp_path, "vm", cell("torch:a", ROUNDS), cell("x:b", [], outcome=FAILED), what="head")
    more = run(tmp_path, "other", cell("torch:a", ROUNDS), what="more")
    found = changes(Findings(load(base)), Findings(load([head, more])))
    (side,) = found.beside
    assert [(one.what, one.kind, len(one.cases)) for one in side.outcomes] == [("gru-T8", Kind.BROKE, 1)]
    assert found.any_compared and found.appeared == ["other"]


def test_two_ways_of_timing_one_workload_are_told_apart(tmp_path: Path) -> None:
    def cells(hot: Outcome, cold: Outcome) -> list[Any]:
        given = {"hot": hot, "cold": cold}
        return [cell("x:b", ROUNDS if how is PASSED else [], outcome=how, settings={"caches": caches}) for caches, how in given.items()]

    (side,) = beside(tmp_path, cells(PASSED, FAILED), cells(FAILED, PASSED)).beside
    ((kind, cases),) = [(one.kind, one.cases) for one in side.outcomes]
    assert kind is Kind.BROKE and len(cases) == 2


def test_what_appeared_and_what_vanished_is_told(tmp_path: Path) -> None:
    base = [check("x:a", "a.one"), check("x:a", "a.two"), check("x:old", "a.one"), check("x:old", "a.two")]
    head = [check("x:a", "a.one"), check("x:a", "a.two"), check("x:new", "a.one")]
    (side,) = beside(tmp_path, base, head).beside
    assert [(one.implementation, one.what, one.kind) for one in side.outcomes] == [
        ("x:new", "a.one", Kind.APPEARED),
        ("x:old", "a.one", Kind.VANISHED),
        ("x:old", "a.two", Kind.VANISHED),
    ]
    assert side.verdicts == [VerdictChange("x:new", "", "drop-in"), VerdictChange("x:old", "drop-in", "")]


def test_verdicts_and_environments_that_did_not_change_are_not_told(tmp_path: Path) -> None:
    both = [check("x:a", "a.one"), check("x:a", "a.two")]
    (side,) = beside(tmp_path / "same", both, both).beside
    assert (side.verdicts, side.outcomes, side.environment) == ([], [], [])
    versions = {"python": "3.11.9", "torch": "2.14.0"}
    (side,) = beside(tmp_path / "other", both, [*both, check("x:a", "a.two", FAILED, case="d")], versions=versions).beside
    told = {one.name: (one.before, one.after) for one in side.environment}
    assert told["torch"] == ("2.13.0", "2.14.0") and "python" not in told
    assert side.verdicts == [VerdictChange("x:a", "drop-in", "not a drop-in")]


def test_machines_are_paired_by_name_and_those_of_one_side_alone_are_named(tmp_path: Path) -> None:
    def findings(what: str, *machines: str) -> Findings:
        return Findings(load([run(tmp_path, name, check("x:a", "a.one"), what=what + name) for name in machines]))

    found = changes(findings("b", "one", "two"), findings("h", "two", "three"))
    assert ([side.machine for side in found.beside], found.appeared, found.vanished) == (["two"], ["three"], ["one"])
    assert [side.machine for side in changes(findings("c", "one"), findings("i", "two")).beside] == [""], "one beside one is asked for"


def times(by: float) -> list[Any]:
    return [cell("torch:a", ROUNDS), cell("x:b", slower(by)), cell("x:c", slower(2)), cell(HOSTILE, slower(3))]


def test_the_figure_has_a_mark_for_every_change_in_the_shape_of_its_verdict(tmp_path: Path) -> None:
    (side,) = beside(tmp_path, times(2.0), [*times(2.5), cell("torch:a", ROUNDS, 16), cell("x:b", slower(3), 16)]).beside
    (drawing,) = (plan() for plan in change.plans(side))
    assert {gid: len(texts) for gid, texts in drawing.hover.items()} == {"change-0-slower": 1, "change-1-same": 1, "change-2-same": 1}
    assert drawing.hover["change-0-slower"][0].startswith("x:b · gru-T8: 1.250× (")
    (panel,) = drawing.figure.axes
    marks = {line.get_gid(): line.get_marker() for line in panel.lines if line.get_gid()}
    assert marks["change-0-slower"] == "v" and marks["change-1-same"] == "o"
    assert side.speed.appeared == ["x:b beside torch:a on gru-T16"]


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_page_has_a_section_with_both_directions_and_every_name_is_escaped(tmp_path: Path) -> None:
    base = run(tmp_path, "vm", *times(2.0), check("x:b", "a.one"), check("x:c", "a.one", FAILED), what="base")
    head = run(tmp_path, "vm", *times(2.5), check("x:b", "a.one", FAILED), check("x:c", "a.one"), what="head")
    assert main(["page", str(head), "--base", str(base), "--out", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "index.html").read_text()
    section = html[html.index('<section id="changes"') :]
    section = section[: section.index("</section>")]
    text = text_of(section)
    assert "Contracts and timed workloads: 1 broke and 1 mended. Of 3 comparisons of times: 1 slower and 2 same." in text
    rows = [text_of(row) for row in re.findall(r"<tr>.*?</tr>", section[section.index('id="times-changed') :], flags=re.DOTALL)]
    assert [row.split()[:2] for row in rows[1:3]] == [["slower", "x:b"], ["same", "x:c"]]
    assert "1.250 1.244 to 1.256" in rows[1] and "<script>alert" not in section
    assert f"BASE: {base.stem}" in text_of(html), "where BASE comes from is among the rest"
    assert (tmp_path / "out" / "figures" / "change.svg").exists()


def test_without_a_base_there_is_no_section(tmp_path: Path) -> None:
    html = page.write(load(run(tmp_path, "vm", *times(2.0))), tmp_path / "out").read_text()
    assert 'id="changes"' not in html and "BASE" not in html


def test_times_of_machines_that_do_not_match_are_shown_and_not_judged(tmp_path: Path) -> None:
    found = beside(tmp_path, times(2.0), times(2.5), cores=64)
    (side,) = found.beside
    (drawing,) = (plan() for plan in change.plans(side))
    assert set(drawing.data["verdict"]) == {"not judged"} and "not judged" in drawing.caption
    base, head = (load(tmp_path / f"{name}") for name in sorted(path.name for path in tmp_path.glob("*.jsonl")))
    html = page.write(head, tmp_path / "out", base).read_text()
    text = text_of(html)
    assert "3 comparisons of times, none of them judged: the environments do not match" in text
    assert "cores: " in text and 'class="change-slower"' not in html


def test_a_base_that_cannot_be_read_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = run(tmp_path, "vm", *times(2.0))
    assert main(["page", str(head), "--base", str(tmp_path / "missing"), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

"""What the page says first: the paragraph, and the table of uses, against what was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from harness.record import Mutation
from reports.tests import specimen
from reports.tests.test_analysis import ROUNDS, broken, cell, check, findings_of, passing, slower
from reports.view_verdict import Line, Uses, fastest_tables, headline, verdict_rows

SIZES: tuple[dict[str, Any], ...] = (
    {"hidden_size": 4, "input_size": 4},
    {"hidden_size": 8, "input_size": 8},
    {"hidden_size": 16, "input_size": 16},
)


def contest(by: float, length: int = 8, **changes: Any) -> list[Any]:
    """x:b beside x:a, ``by`` times as long."""
    return [cell("x:a", ROUNDS, length, **changes), cell("x:b", slower(by), length, **changes)]


def lines(uses: Uses) -> list[tuple[str, Line]]:
    return [(timed_pass, line) for timed_pass, found in uses.groups for line in found]


def test_the_smallest_and_the_largest_size_are_uses_of_their_own_and_those_between_are_folded_not_lost(tmp_path: Path) -> None:
    cells = [one for by, sizes in zip((0.5, 2.0, 3.0), SIZES, strict=True) for one in contest(by, **sizes)]
    (table,) = fastest_tables(findings_of(tmp_path, *passing("x:a", "x:b"), *cells))
    assert (table["title"], table["sized"]) == ("CPU, float32, 1 thread", True)
    told = [(line.size, line.uses["short"]["name"], line.uses["short"]["margin"]) for _, line in lines(table["main"])]
    assert told == [("small · B=2, I=H=4", "x:b", "2.00× (2.00 to 2.01)"), ("large · B=2, I=H=16", "x:a", "3.00× (2.99 to 3.01)")]
    (between,) = table["folded"]
    assert between.summary == "The sizes between: 1 use, x:a in 1"
    assert [(line.size, line.uses["short"]["note"]) for _, line in lines(between)] == [("B=2, I=H=8", "over x:b")]


def test_a_size_that_is_the_only_one_of_its_pass_is_not_folded(tmp_path: Path) -> None:
    cells = [*contest(2.0, **SIZES[0]), *contest(2.0, **SIZES[2]), *contest(2.0, timed_pass="streaming", **SIZES[1])]
    (table,) = fastest_tables(findings_of(tmp_path, *passing("x:a", "x:b"), *cells))
    assert [(timed_pass, line.size) for timed_pass, line in lines(table["main"])] == [
        ("streaming", "B=2, I=H=8"),
        ("inference", "small · B=2, I=H=4"),
        ("inference", "large · B=2, I=H=16"),
    ]
    assert table["folded"] == []


def test_the_parts_of_a_training_step_are_folded_beside_whole_uses_and_not_where_they_are_all(tmp_path: Path) -> None:
    parts = [*contest(2.0, timed_pass="forward"), *contest(1.002, timed_pass="backward")]
    (both,) = fastest_tables(findings_of(tmp_path / "both", *passing("x:a", "x:b"), *parts, *contest(2.0)))
    assert [timed_pass for timed_pass, _ in both["main"].groups] == ["inference"]
    assert both["folded"][0].summary == "The parts of a training step alone: 2 uses, x:a in 1 and the same in 1"
    (alone,) = fastest_tables(findings_of(tmp_path / "alone", *passing("x:a", "x:b"), *parts))
    assert [timed_pass for timed_pass, _ in alone["main"].groups] == ["forward", "backward"] and alone["folded"] == []


def test_every_use_is_in_the_table_once(findings: Any) -> None:
    shown = sum(
        len(line.uses) for table in fastest_tables(findings) for part in (table["main"], *table["folded"]) for _, line in lines(part)
    )
    assert shown == len(findings.fastest) > 0


def test_the_paragraph_counts_the_uses_that_are_won_the_same_and_undecided(tmp_path: Path) -> None:
    noisy = [1.3, 0.8, 1.2, 0.85, 1.25, 0.75]
    undecided = [cell("x:a", ROUNDS, 1), cell("x:b", noisy, 1)]
    cells = [*undecided, *contest(2.0, 8), *contest(1.002, 64)]
    title, sentences = headline(findings_of(tmp_path, *passing("x:a", "x:b"), *cells))
    assert title == "All 2 tested implementations are drop-ins"
    assert sentences == [
        "The fastest conforming implementation, out of 3 uses: x:a in 1; undecided in 1 and the best two within 1% in 1.",
    ]


def test_who_was_timed_alone_has_won_nothing(tmp_path: Path) -> None:
    cells = [cell("x:a", ROUNDS, 1), *contest(2.0, 8), cell("x:b", ROUNDS, 64)]
    _, sentences = headline(findings_of(tmp_path / "lengths", *passing("x:a", "x:b"), *cells))
    told = "x:a in 1; x:a alone in 1 and x:b alone in 1."
    assert sentences == [f"The fastest conforming implementation, out of 3 uses: {told}"]
    alone = [cell("x:a", ROUNDS, **sizes) for sizes in SIZES]
    (table,) = fastest_tables(findings_of(tmp_path / "sizes", *passing("x:a"), *alone))
    assert table["folded"][0].summary == "The sizes between: 1 use, x:a alone in 1"


def test_the_likely_causes_stand_with_the_verdict(tmp_path: Path) -> None:
    found = [replace(failure, case=hint, hint=hint) for failure in broken("x:a") for hint in ("h_0 taken for zero", "")]
    (row,) = verdict_rows(findings_of(tmp_path, *found))
    assert row["causes"] == ["h_0 taken for zero: 1 of 2 failures"]


def test_a_wrong_answer_in_a_timed_workload_does_not_make_a_run_without_contracts_one_with_them(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, *contest(2.0), cell("x:c", [], outcome=Outcome.FAILED))
    title, sentences = headline(findings)
    assert (title, sentences[0]) == ("Speed only: no contract was run", "Not a drop-in: x:c.")
    assert "Nobody is named the fastest" in sentences[-1] and fastest_tables(findings) == []


@pytest.mark.parametrize(
    ("results", "title"),
    [
        ([Mutation("a.one", "mutant:m", "passed", "wrong", {})], "The suite was put to the test, and no implementation"),
        (specimen.calibrations(), "The instrument was put to the test, and no implementation"),
        (
            [Mutation("a.one", "mutant:m", "passed", "wrong", {}), *specimen.calibrations()],
            "The suite and the instrument were put to the test, and no implementation",
        ),
        ([check("x:a", "a.one", Outcome.UNAVAILABLE)], "No contract could be run here"),
        ([], "Nothing was run"),
    ],
)
def test_where_nothing_was_timed_and_no_contract_run_the_title_says_what_was_done(results: list[Any], title: str, tmp_path: Path) -> None:
    assert headline(findings_of(tmp_path, *results))[0] == title


def test_where_nobody_conforms_the_paragraph_says_so(tmp_path: Path) -> None:
    _, sentences = headline(findings_of(tmp_path, *broken("x:a"), *contest(2.0)))
    assert sentences[-1] == "The fastest conforming implementation, out of 1 use: no conforming one with all the times in 1."

"""The lines at the end of a run, against ones written by hand."""

from __future__ import annotations

from dataclasses import replace

from harness.record import Conformance, Mutation
from harness.telling import kill_matrix, nothing_checked, replaced_baseline, summary, timed_alone
from harness.tests.test_record import CONFORMANCE, THROUGHPUT


def test_the_summary_counts_outcomes_and_names_each_broken_contract_once() -> None:
    results = [CONFORMANCE, *[Conformance("x.y", "other", "", "failed", "MUST", "gru", "cpu", "float32")] * 2]
    assert summary(results) == ["a      1 passed", "other  2 failed", "       breaks 1: x.y"]


def test_the_kill_matrix_says_who_survived_and_gives_the_score() -> None:
    killed = Mutation("values.gru", "mutant:a", "passed", "One bias is lost.", {"gru": "killed", "lstm": "survived"})
    alive = Mutation("values.lstm", "mutant:bb", "failed", "Nothing is wrong.", {"lstm": "survived"})
    lines = kill_matrix([alive, killed])
    assert lines[0].split() == ["rnn_tanh", "rnn_relu", "gru", "lstm"]
    assert [lines[1], lines[2].split()] == ["values.gru", ["mutant:a", "x", "-"]]
    assert [lines[3], lines[4].split()] == ["values.lstm", ["mutant:bb", "-", "SURVIVED"]]
    assert lines[2].index("x") in range(lines[0].index("gru"), lines[0].index("gru") + 3)
    assert lines[-1] == "mutant score: 1 of 2 rejected by the contract that names them (50.0%)"
    assert kill_matrix([]) == []


def test_a_baseline_without_times_is_told_and_one_with_them_is_not() -> None:
    other = replace(THROUGHPUT, implementation="x:other", outcome="passed")
    lost = replace(other, implementation="x:base", outcome="unsupported", message="it has no bfloat16\nand more")
    found = [other, replace(other, workload="w:2"), lost, replace(lost, workload="w:2", outcome="passed", message="")]
    (line,) = replaced_baseline("x:base", found)
    assert line.startswith("--baseline x:base has no times on 1 of 2 workloads (it has no bfloat16): ")
    assert replaced_baseline("x:other", found) == replaced_baseline("", found) == []


def test_that_no_contract_applied_is_told() -> None:
    beside = [replace(CONFORMANCE, outcome=outcome) for outcome in ("does-not-apply", "unavailable")]
    assert nothing_checked(beside) == ["nothing was checked: no contract that was asked for applies here"]
    assert nothing_checked([]) == nothing_checked([*beside, CONFORMANCE]) == []


def test_who_is_timed_alone_is_told_that_nothing_is_compared() -> None:
    one, other = replace(THROUGHPUT, implementation="x:one"), replace(THROUGHPUT, implementation="x:other")
    assert timed_alone([]) == timed_alone([one, other]) == []
    (line,) = timed_alone([one, one])
    assert line.startswith("x:one was timed alone: --baseline ID ")

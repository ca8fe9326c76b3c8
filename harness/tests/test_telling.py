"""The lines at the end of a run, against ones written by hand."""

from __future__ import annotations

from dataclasses import replace

from harness.outcome import NOT_RUN
from harness.record import Conformance, Mutation
from harness.telling import (
    WHOLE,
    kill_matrix,
    left_untold,
    likely_causes,
    nothing_checked,
    replaced_baseline,
    summary,
    timed_alone,
    told_whole,
)
from harness.tests.test_record import CONFORMANCE, THROUGHPUT


def test_the_summary_counts_outcomes_and_names_each_broken_contract_once() -> None:
    results = [CONFORMANCE, *[Conformance("x.y", "other", "", "failed", "MUST", "gru", "cpu", "float32")] * 2]
    assert summary(results) == ["a      1 passed", "other  2 failed", "       breaks 1: x.y"]


FAILED = replace(CONFORMANCE, implementation="x:a", contract="x.y", outcome="failed", errors=[{"quantity": "output"}])


def test_the_summary_sets_many_broken_contracts_in_lines_and_names_the_likely_causes() -> None:
    found = [replace(FAILED, contract=f"topic.of_some_contract_{k}", hint="this is one" if k % 3 else "") for k in range(30)]
    told = summary(found)
    assert told[0] == "x:a  30 failed" and told[-1] == "     likely: this is one: 20 of 30 failures"
    assert all(len(line) <= 140 and line.startswith("     ") for line in told[1:])
    assert " ".join(told[1:-1]).split() == ["breaks", "30:", *", ".join(failure.contract for failure in found).split()]


def test_what_was_not_run_since_others_hung_is_not_told_as_broken() -> None:
    hung = [replace(FAILED, contract=f"a.{k}", outcome="timed-out", message="no answer") for k in range(3)]
    left = [replace(FAILED, contract=f"b.{k}", outcome="timed-out", message=f"{NOT_RUN}3 contracts ...") for k in range(5)]
    told = " ".join(line.strip() for line in summary([*hung, *left])[1:])
    assert told == "breaks 3: a.0, a.1, a.2; 5 more were not run, as these were not answered"


def test_likely_causes_are_the_commonest_and_count_all_failures() -> None:
    assert likely_causes(["", "b", "a", "a", "", "c", "d", "d"]) == ["a: 2 of 8 failures", "d: 2 of 8 failures", "b: 1 of 8 failures"]
    assert likely_causes(["", ""]) == likely_causes([]) == []


def test_of_failures_that_are_alike_the_first_is_told() -> None:
    zero, order = (replace(FAILED, hint=hint) for hint in ("h_0 taken for zero", "gates in another order"))
    found = [zero, FAILED, replace(zero, contract="x.z"), order, replace(FAILED, contract="x.w"), replace(FAILED, contract="x.w")]
    # The second may be what the first is, which the case was too large to tell.
    assert told_whole(found) == {0, 3, 4}
    assert told_whole([*found, *(replace(failure, implementation="x:b") for failure in found)]) == {0, 3, 4, 6, 9, 10}
    assert left_untold(found) == ["told whole: 3 of 6 failures, each unlike the others; -v tells all, and so does the run file"]
    assert left_untold([zero, order]) == left_untold([]) == []


def test_a_crash_and_an_exception_are_not_like_wrong_values_of_the_same_contract() -> None:
    wrong = replace(FAILED, hint="h_0 taken for zero")
    raised, crashed = replace(FAILED, errors=[]), replace(FAILED, errors=[], outcome="crashed")
    assert told_whole([wrong, FAILED, raised, crashed, raised, crashed, FAILED]) == {0, 2, 3}


def test_of_failures_that_are_unlike_some_are_told() -> None:
    found = [replace(FAILED, contract=f"x.{k}") for k in range(3 * WHOLE)]
    assert told_whole(found) == set(range(WHOLE))


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

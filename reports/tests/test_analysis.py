"""Verdicts, the matrix and the fastest against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import NOT_RUN, Outcome
from harness.record import Conformance, Throughput
from harness.statistics import SYSTEMATIC
from reports import load
from reports.analysis import WORST_FIRST, Findings, Suitability, undeclared
from reports.summary import summary
from reports.tests import specimen
from reports.tests.specimen import HOSTILE


def check(implementation: str, contract: str, outcome: Outcome = Outcome.PASSED, **changes: Any) -> Conformance:
    values: dict[str, Any] = {"case": "c", "severity": "MUST", "mode": "gru", "device": "cpu", "dtype": "float32", **changes}
    return Conformance(contract=contract, implementation=implementation, outcome=str(outcome), **values)


def cell(implementation: str, seconds: list[float], length: int = 8, outcome: Outcome = Outcome.PASSED, **changes: Any) -> Throughput:
    found = Throughput(
        workload=f"gru-T{length}", workload_set="t", implementation=implementation, outcome=str(outcome), mode="gru", device="cpu",
        dtype="float32", timed_pass="inference", sequence_length=length, batch_size=2, input_size=4, hidden_size=4,
        tokens=2 * length, flops=1000 * length, samples=seconds, rounds=list(range(len(seconds))),
    )  # fmt: skip
    return replace(found, **changes)


def findings_of(
    directory: Path, *results: Any, complete: bool = True, contracts: tuple[str, ...] = ("a.one", "a.two"), **changes: Any
) -> Findings:
    facts = {name: {"statement": name, "severity": "MUST", "source": "", "topic": "a", "mutants": []} for name in contracts}
    header: dict[str, Any] = {"implementations": {}, "contracts": facts, **changes}
    return Findings(load(specimen.write(directory, results=list(results), complete=complete, **header)))


def verdict(findings: Findings, implementation: str) -> tuple[str, str]:
    row = findings.verdicts.set_index("implementation").loc[implementation]
    return str(row["suitability"]), str(row["reason"])


def test_an_implementation_that_broke_nothing_is_a_drop_in(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.one"), check("x:a", "a.two"))
    assert verdict(findings, "x:a") == (Suitability.DROP_IN, "nothing broken in 3 cases of 2 contracts")


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.fails_run])
@pytest.mark.parametrize("severity", ["MUST", "SHOULD", "MAY"])
def test_one_case_that_fails_at_any_level_is_enough_not_to_be_one(outcome: Outcome, severity: str, tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.one", outcome, severity=severity), check("x:a", "a.two"))
    assert verdict(findings, "x:a") == (Suitability.NOT_DROP_IN, "breaks 1 contract of 2 (1 MUST)")


@pytest.mark.parametrize("outcome", [Outcome.EXPECTED_FAILURE, Outcome.DOES_NOT_APPLY, Outcome.UNAVAILABLE])
def test_what_was_declared_or_does_not_concern_it_does_not_disqualify(outcome: Outcome, tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one", outcome), check("x:a", "a.two"))
    assert verdict(findings, "x:a")[0] == Suitability.DROP_IN
    row = findings.verdicts.iloc[0]
    assert row["expected"] == (["a.one"] if outcome == Outcome.EXPECTED_FAILURE else [])


def test_what_refuses_something_that_users_rely_on_is_a_drop_in_only_in_part(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one", Outcome.UNSUPPORTED), check("x:a", "a.two"))
    assert verdict(findings, "x:a") == (Suitability.PARTIAL, "refuses cases of 1 contract of 2 (a.one); nothing broken")
    assert findings.verdicts.iloc[0]["unsupported"] == ["a.one"]
    assert Suitability.PARTIAL.conforms


def test_what_refuses_only_what_may_be_refused_is_a_drop_in(tmp_path: Path) -> None:
    may = {"a.one": {"severity": "MAY"}, "a.two": {"severity": "MUST"}}
    refused = check("x:a", "a.one", Outcome.UNSUPPORTED, severity="MAY")
    findings = Findings(load(specimen.write(tmp_path, results=[refused, check("x:a", "a.two")], implementations={}, contracts=may)))
    assert verdict(findings, "x:a")[0] == Suitability.DROP_IN


def test_a_run_that_was_cut_short_proves_nothing(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.two"), complete=False)
    assert verdict(findings, "x:a") == (Suitability.SO_FAR, "the run was cut short; nothing broken in 2 cases of 2 contracts")


def test_a_part_of_the_catalogue_proves_nothing(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"))
    assert verdict(findings, "x:a") == (Suitability.SO_FAR, "only 1 of 2 contracts were run; nothing broken in 1 case of 1 contract")


def test_what_a_run_that_was_cut_short_had_left_is_not_made_up_for_by_a_small_one(tmp_path: Path) -> None:
    small = specimen.write(tmp_path, results=[check("y:b", "values.property_1")], what="small")
    own = [check("y:b", "values.property_1")]
    whole = [check("x:a", name) for name in specimen.contracts()]
    short = specimen.write(tmp_path, results=[*whole, *own], what="short", run="5eed5eed0002", complete=False)
    findings = Findings(load([small, short]))
    assert verdict(findings, "y:b") == (Suitability.SO_FAR, "a run was cut short; nothing broken in 2 cases of 1 contract")
    assert verdict(findings, "x:a")[1].startswith("the run was cut short; nothing broken in")
    complete = specimen.write(tmp_path, results=[check("y:b", name) for name in specimen.contracts()], what="complete", run="5eed5eed0003")
    assert verdict(Findings(load([small, short, complete])), "y:b")[0] == Suitability.DROP_IN


def test_a_contract_that_the_newest_run_does_not_know_is_owed_by_nobody(tmp_path: Path) -> None:
    facts = specimen.contracts()
    results = [check("x:a", name) for name in facts]
    gone = {**facts, "values.gone": facts["values.property_1"]}
    old = specimen.write(tmp_path, results=results, what="old", created="2026-01-01T00:00:00Z", contracts=gone)
    new = specimen.write(tmp_path, results=results, what="new", created="2026-01-02T00:00:00Z", run="5eed5eed0002")
    assert verdict(Findings(load(old)), "x:a")[0] == Suitability.SO_FAR
    assert verdict(Findings(load([new, old])), "x:a")[0] == Suitability.DROP_IN


def test_a_later_run_of_the_same_case_on_the_same_machine_replaces_the_earlier(tmp_path: Path) -> None:
    paths = [
        specimen.write(tmp_path, results=[check("x:a", "values.property_1", outcome)], created=created, what=what)
        for outcome, created, what in (
            (Outcome.PASSED, "2026-01-02T00:00:00Z", "after"),
            (Outcome.FAILED, "2026-01-01T00:00:00Z", "before"),
        )
    ]
    findings = Findings(load(paths))
    assert findings.matrix["outcome"].tolist() == ["passed"]
    assert findings.superseded == 1


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT])
def test_a_wrong_answer_or_none_in_a_timed_workload_disqualifies(tmp_path: Path, outcome: Outcome) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.two"), cell("x:a", [], outcome=outcome))
    assert verdict(findings, "x:a") == (Suitability.NOT_DROP_IN, "wrong or no answer on 1 timed workload")
    assert "gru-T8" in summary(findings.frames).text


def test_who_was_not_tested_is_not_said_not_to_conform(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("y:a", "a.one"), check("y:a", "a.two"), cell("x:b", ROUNDS))
    (row,) = (row for _, row in findings.fastest.iterrows())
    assert row["leader"] == "" and row["passed_over"] == ["x:b was timed, but no contract was run on it"]
    text = summary(findings.frames).text
    assert "none known to conform" in text and "not conform" not in text


@pytest.mark.parametrize("outcome", [Outcome.OUT_OF_MEMORY, Outcome.UNSUPPORTED, Outcome.UNAVAILABLE])
def test_what_is_no_wrong_answer_in_a_timed_workload_does_not_disqualify(tmp_path: Path, outcome: Outcome) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.two"), cell("x:a", [], outcome=outcome))
    assert verdict(findings, "x:a")[0] == Suitability.DROP_IN


def test_a_timed_workload_counts_as_it_was_when_the_implementation_was_timed_last(tmp_path: Path) -> None:
    def run(what: str, *results: Any) -> Path:
        return specimen.write(tmp_path, results=list(results), created=f"2026-01-0{len(written) + 1}T00:00:00Z", run=what * 12, what=what)

    written: list[Path] = []
    written.append(run("a", check("x:a", "a.one"), check("y:b", "a.one"), cell("x:a", [], outcome=Outcome.FAILED)))
    # Another one is timed on the same workload: what became of the first is not forgotten.
    written.append(run("b", cell("y:b", [1.0])))
    findings = Findings(load(written))
    assert verdict(findings, "x:a") == (Suitability.NOT_DROP_IN, "wrong or no answer on 1 timed workload")
    assert summary(findings.frames).text.count("gru-T8") == 1
    # It is mended: what it was before is nothing that it is judged by.
    written.append(run("c", cell("x:a", [1.0])))
    findings = Findings(load(written))
    assert verdict(findings, "x:a")[0] == Suitability.SO_FAR
    assert "gru-T8" not in summary(findings.frames).text


def test_running_out_of_memory_in_a_timed_workload_does_not(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.two"), cell("x:a", [], outcome=Outcome.OUT_OF_MEMORY))
    assert verdict(findings, "x:a")[0] == Suitability.DROP_IN


def test_the_untested_and_the_unavailable_are_named_with_the_reason(findings: Findings) -> None:
    assert verdict(findings, "vendor:untested")[0] == Suitability.NOT_TESTED
    kind, reason = verdict(findings, "torch:cudnn")
    assert kind == Suitability.UNAVAILABLE
    assert reason == "cpu: cuDNN serves CUDA devices only; cuda: torch sees no CUDA device"


def test_the_specimen_has_the_verdicts_that_were_planted(findings: Findings) -> None:
    assert dict(zip(findings.verdicts["implementation"], findings.verdicts["suitability"], strict=True)) == {
        "torch:onednn": "drop-in",
        "torch:native": "drop-in",
        "loop:textbook": "drop-in",
        "loop:hoisted": "in part",
        "script:hoisted": "not a drop-in",
        HOSTILE: "not a drop-in",
        "vendor:untested": "not tested",
        "torch:cudnn": "unavailable",
    }


def test_a_cell_of_the_matrix_shows_its_worst_outcome_and_counts_all(tmp_path: Path) -> None:
    results = [check("x:a", "a.one", outcome) for outcome in (Outcome.PASSED, Outcome.PASSED, Outcome.TIMED_OUT, Outcome.DOES_NOT_APPLY)]
    row = findings_of(tmp_path, *results).matrix.iloc[0]
    assert (row["outcome"], row["cases"], row["passed"], row["timed-out"], row["does-not-apply"], row["failed"]) == (
        "timed-out",
        4,
        2,
        1,
        1,
        0,
    )


def test_what_could_not_run_does_not_hide_what_passed(tmp_path: Path) -> None:
    matrix = findings_of(tmp_path, check("x:a", "a.one"), check("x:a", "a.one", Outcome.UNAVAILABLE)).matrix
    assert matrix["outcome"].tolist() == ["passed"]


def test_every_outcome_has_its_place_among_the_worst() -> None:
    assert set(WORST_FIRST) == set(Outcome)


def test_the_worst_error_of_a_cell_is_its_largest_ratio_and_infinite_if_one_was_not_finite(tmp_path: Path) -> None:
    good = {"quantity": "y", "error": 1e-7, "floor": 1e-7, "ratio": 1.0, "allowance": 4.0, "elements": 3}
    lost = {**good, "error": None, "ratio": None}
    results = [check("x:a", "a.one", errors=[good, {**good, "ratio": 2.5}]), check("x:a", "a.two", errors=[good, lost])]
    assert findings_of(tmp_path, *results).matrix["worst_ratio"].tolist() == [2.5, float("inf")]


def test_a_failure_that_was_declared_says_nothing_of_how_exact_the_rest_is(tmp_path: Path) -> None:
    good = {"quantity": "y", "error": 1e-7, "floor": 1e-7, "ratio": 1.0, "allowance": 4.0, "elements": 3}
    far = [{**good, "error": 1.0, "ratio": 1e7}]
    results = [check("x:a", "a.one", errors=[good]), check("x:a", "a.two", Outcome.EXPECTED_FAILURE, errors=far)]
    findings = findings_of(tmp_path, *results)
    assert findings.verdicts["worst_ratio"].tolist() == [1.0]
    assert undeclared(findings.frames)["ratio"].tolist() == [1.0] and len(findings.frames.errors) == 2


def test_rates_follow_from_the_median_and_agree_with_what_was_recorded(findings: Findings, tmp_path: Path) -> None:
    own = findings_of(tmp_path, cell("x:a", [0.1, 0.2, 0.4])).cells.iloc[0]
    assert (own["seconds"], own["rate"], own["gflops"]) == pytest.approx((0.2, 80.0, 4e-5))
    assert own["configuration"] == "B=2, I=H=4, float32, 1 thread"
    timed = findings.cells[findings.cells["samples"] > 0]
    assert timed["rate"].to_numpy() == pytest.approx(timed["tokens_per_second"].to_numpy())


def passing(*implementations: str) -> list[Conformance]:
    return [check(name, contract) for name in implementations for contract in ("a.one", "a.two")]


def test_what_was_not_run_since_others_hung_is_counted_apart(tmp_path: Path) -> None:
    hung = check("x:a", "a.one", Outcome.TIMED_OUT, message="no answer within 30 s")
    left = [check("x:a", "a.two", Outcome.TIMED_OUT, case=case, message=f"{NOT_RUN}3 contracts") for case in "cd"]
    findings = findings_of(tmp_path, hung, *left)
    told = "breaks 1 contract of 2 (1 MUST); 1 more contract not run, because it had not answered in time"
    assert verdict(findings, "x:a") == ("not a drop-in", told)
    assert findings.verdicts["broken"].tolist() == [["a.one"]]


def broken(*implementations: str) -> list[Conformance]:
    return [check(name, "a.one", Outcome.FAILED) for name in implementations]


ROUNDS = [1.0, 1.1, 0.9, 1.2, 1.05, 0.95]


def slower(by: float) -> list[float]:
    return [seconds * by for seconds in ROUNDS]


def test_the_baseline_is_the_first_of_torchs_own_rows_that_was_timed(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, cell("x:a", ROUNDS), cell("torch:b", slower(2)), cell("torch:c", slower(4)))
    rows = findings.relative.set_index("implementation")
    assert set(rows["baseline"]) == {"torch:b"}
    assert rows["speedup"].to_dict() == pytest.approx({"x:a": 2.0, "torch:c": 0.5})
    assert rows["verdict"].to_dict() == {"x:a": "faster", "torch:c": "slower"}


def test_the_baseline_that_the_policy_names_is_used(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, cell("x:a", ROUNDS), cell("torch:b", slower(2)), policy={"baseline": "x:a"})
    assert findings.relative["baseline"].tolist() == ["x:a"]


def test_each_run_has_the_baseline_that_it_names(tmp_path: Path) -> None:
    cells = [cell("torch:a", ROUNDS), cell("x:b", slower(2))]
    one = specimen.write(tmp_path, results=cells, what="one", policy={"baseline": "x:b"})
    longer = [replace(found, sequence_length=16, workload="gru-T16") for found in cells]
    two = specimen.write(tmp_path, results=longer, what="two", run="5eed5eed0002", policy={"baseline": "torch:a"})
    found = Findings(load([one, two])).relative
    assert dict(zip(found["sequence_length"], found["baseline"], strict=True)) == {8: "x:b", 16: "torch:a"}


def test_workloads_with_and_without_biases_are_two(tmp_path: Path) -> None:
    both = [cell("torch:a", ROUNDS), cell("x:b", slower(2))]
    without = [
        replace(found, workload="gru-nobias-T8", bias=False, samples=samples)
        for found, samples in zip(both, (ROUNDS, slower(0.5)), strict=True)
    ]
    findings = findings_of(tmp_path, *both, *without)
    assert findings.superseded_cells == 0
    found = findings.relative
    assert dict(zip(found["configuration"], found["verdict"], strict=True)) == {
        "B=2, I=H=4, float32, 1 thread": "slower",
        "B=2, I=H=4, no biases, float32, 1 thread": "faster",
    }


def test_samples_without_rounds_are_never_decided(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, cell("torch:a", slower(3), rounds=[]), cell("x:b", ROUNDS, rounds=[]))
    row = findings.relative.iloc[0]
    assert (row["speedup"], row["rounds"], row["verdict"]) == (pytest.approx(3.0), 0, "undecided")


def test_the_fastest_conforming_implementation_is_named_with_its_margin(tmp_path: Path) -> None:
    cells = [cell("x:a", slower(1.5)), cell("x:b", ROUNDS), cell("x:c", slower(3))]
    row = findings_of(tmp_path, *passing("x:a", "x:b", "x:c"), *cells).fastest.iloc[0]
    assert (row["winner"], row["runner_up"], row["length"], row["verdict"]) == ("x:b", "x:a", "short", "faster")
    assert (row["speedup"], row["low"], row["high"]) == pytest.approx((1.5, 1.5 / math.exp(SYSTEMATIC), 1.5 * math.exp(SYSTEMATIC)))


def test_an_implementation_that_breaks_a_contract_is_never_the_fastest(tmp_path: Path) -> None:
    cells = [cell("x:a", slower(1.5)), cell("x:b", ROUNDS)]
    findings = findings_of(tmp_path, *passing("x:a", "x:b"), check("x:b", "a.one", Outcome.FAILED), *cells)
    row = findings.fastest.iloc[0]
    assert row["winner"] == "x:a"
    assert row["passed_over"] == ["x:b took less time, but it does not conform"]


def test_nobody_is_the_fastest_where_nobody_conforms(tmp_path: Path) -> None:
    row = findings_of(tmp_path, *broken("x:a"), cell("x:a", ROUNDS)).fastest.iloc[0]
    assert (row["winner"], row["leader"]) == ("", "")


def test_there_is_no_use_to_be_the_fastest_of_where_nothing_was_tested(tmp_path: Path) -> None:
    findings = findings_of(tmp_path, cell("x:a", ROUNDS), cell("x:b", slower(2)))
    assert not findings.tested and findings.fastest.empty and findings.fastest_of_each.empty


def test_the_specimen_never_names_one_that_does_not_conform(findings: Findings) -> None:
    conforming = set(findings.verdicts.loc[findings.verdicts["suitability"] == "drop-in", "implementation"])
    assert set(findings.fastest["winner"]) - {""} <= conforming
    assert len(findings.fastest) == 18


def test_two_that_are_alike_are_the_same_and_two_that_cannot_be_told_apart_are_undecided(tmp_path: Path) -> None:
    same = findings_of(tmp_path / "same", *passing("x:a", "x:b"), cell("x:a", ROUNDS), cell("x:b", slower(1.002))).fastest.iloc[0]
    assert (same["winner"], same["verdict"]) == ("", "same")
    noisy = [1.3, 0.8, 1.2, 0.85, 1.25, 0.75]
    undecided = findings_of(tmp_path / "noise", *passing("x:a", "x:b"), cell("x:a", ROUNDS), cell("x:b", noisy)).fastest.iloc[0]
    assert (undecided["winner"], undecided["verdict"]) == ("", "undecided")


def test_being_the_same_as_any_other_is_not_winning(tmp_path: Path) -> None:
    noisy = [seconds * (1.4 if k % 2 else 0.75) for k, seconds in enumerate(ROUNDS)]
    cells = [cell("x:a", ROUNDS), cell("x:b", slower(1.5)), cell("x:c", slower(1.002)), cell("x:d", noisy)]
    findings = findings_of(tmp_path, *passing("x:a", "x:b", "x:c"), *cells)
    row = findings.fastest.iloc[0]
    assert (row["winner"], row["leader"], row["runner_up"], row["verdict"]) == ("", "x:a", "x:c", "same")


def test_paired_rounds_overrule_medians_that_a_drift_has_turned_round(tmp_path: Path) -> None:
    paired = [1.0, 1.1, 0.9, 1.2, 1.0, 1.1]
    # The better one was also sampled in seven rounds of its own, while the machine was busy.
    better = [*[seconds * 0.8 for seconds in paired], 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    findings = findings_of(tmp_path, *passing("x:a", "x:b"), cell("x:a", better), cell("x:b", paired))
    row = findings.fastest.iloc[0]
    assert (row["winner"], row["speedup"]) == ("x:a", pytest.approx(1.25))


def test_one_that_lost_a_length_cannot_win_the_use_and_the_reason_is_given(tmp_path: Path) -> None:
    cells = [cell("x:a", slower(2), 8), cell("x:a", slower(4), 16), cell("x:b", ROUNDS, 8), cell("x:b", [], 16, Outcome.OUT_OF_MEMORY)]
    row = findings_of(tmp_path, *passing("x:a", "x:b"), *cells).fastest.iloc[0]
    assert (row["winner"], row["lengths"]) == ("x:a", [8, 16])
    assert row["passed_over"] == ["x:b: out-of-memory at T=16"]


def test_lengths_are_cut_into_one_step_short_and_long(tmp_path: Path) -> None:
    cells = [cell("x:a", ROUNDS, length) for length in (1, 2, 63, 64, 4096)]
    fastest = findings_of(tmp_path, *passing("x:a"), *cells).fastest
    assert dict(zip(fastest["length"], fastest["lengths"], strict=True)) == {"one step": [1], "short": [2, 63], "long": [64, 4096]}


def test_of_two_runs_of_one_workload_the_later_one_counts(tmp_path: Path) -> None:
    paths = [
        specimen.write(tmp_path, results=[cell("torch:a", slower(by)), cell("x:b", ROUNDS)], created=created, what=what)
        for by, created, what in ((2, "2026-01-02T00:00:00Z", "late"), (8, "2026-01-01T00:00:00Z", "early"))
    ]
    assert Findings(load(paths)).relative["speedup"].tolist() == pytest.approx([2.0])


def test_machines_are_kept_apart(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        environment = {**specimen.header().environment, "machine": name}
        paths.append(specimen.write(tmp_path, results=[cell("torch:a", ROUNDS), cell("x:b", ROUNDS)], environment=environment, what=name))
    assert set(Findings(load(paths)).relative["place"]) == {"CPU · one", "CPU · two"}

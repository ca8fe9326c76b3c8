"""What an implementation costs, from records to the rows of the table, against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.outcome import Outcome
from harness.record import Throughput
from reports import load
from reports.analysis import Findings
from reports.columns import CELLS, COLUMNS, COSTS
from reports.tests import specimen
from reports.tests.test_analysis import ROUNDS, cell, slower

#: Of seconds per call: all rounds alike, so that the median is what is said.
ALIKE = [1.0] * 6


def findings_of(directory: Path, *cells: Throughput) -> Findings:
    return Findings(load(specimen.write(directory, results=list(cells))))


def seconds(value: float) -> list[float]:
    return [value * one for one in ALIKE]


def row_of(findings: Findings, implementation: str) -> dict[str, Any]:
    frame = findings.costs
    (row,) = frame[frame["implementation"] == implementation].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_the_derived_frames_have_exactly_their_documented_columns_and_types(findings: Findings) -> None:
    found = {name: str(dtype) for name, dtype in findings.cells.dtypes.items()}
    documented = COLUMNS["throughput"] | CELLS
    # What pandas calls a column of text that was computed is not what it calls one that was asked for.
    texts = {name for name, (dtype, _) in documented.items() if dtype == "str"}
    assert list(found) == list(documented)
    assert {name: dtype for name, dtype in found.items() if name not in texts} == {
        name: dtype for name, (dtype, _) in documented.items() if name not in texts
    }
    assert {name: str(dtype) for name, dtype in findings.costs.dtypes.items()} == {name: dtype for name, (dtype, _) in COSTS.items()}


def test_the_share_of_the_limit_and_of_the_host_follow_from_the_medians(tmp_path: Path) -> None:
    # Medians: 4 s, of which the host is busy for 3.6; 16 tokens in the 0.5 s of the limit.
    own = cell("torch:a", [2.0, 4.0, 9.0], issued=[1.9, 3.6, 8.0], device_samples=[1.0, 3.0, 8.5], limit={"seconds": 0.5})
    row = findings_of(tmp_path, own).cells.iloc[0]
    assert (row["limit_share"], row["limit_rate"], row["host_share"]) == pytest.approx((0.125, 32.0, 0.9))
    assert (row["issued"], row["device_seconds"]) == (3.6, 3.0)


def test_without_a_limit_or_a_gpu_there_is_no_share(tmp_path: Path) -> None:
    limits: list[dict[str, Any]] = [{}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": math.inf}]
    found = findings_of(tmp_path, *(cell("torch:a", [2.0], length, limit=limit) for length, limit in enumerate(limits, start=1))).cells
    assert len(found) == 4 and found["limit_share"].isna().all() and found["host_share"].isna().all()


def test_cold_caches_are_a_configuration_of_their_own(tmp_path: Path) -> None:
    cells = [cell("torch:a", ROUNDS), cell("x:b", slower(2), settings={"caches": "cold"})]
    found = findings_of(tmp_path, *cells)
    assert [text.endswith("cold caches") for text in found.cells["configuration"]] == [False, True]
    assert found.relative.empty, "a cold one is not beside a hot one"


def test_set_up_and_step_come_from_the_lengths_of_otherwise_equal_cells(tmp_path: Path) -> None:
    # 2 + 3 T; another batch does not belong to them.
    cells = [cell("torch:a", seconds(2.0 + 3.0 * length), length) for length in (8, 1, 2, 4)]
    other = cell("torch:a", seconds(100.0), 16, batch_size=3)
    frame = findings_of(tmp_path, *cells, other).costs
    assert frame["lengths"].tolist() == [4, 1]
    assert frame.iloc[0][["sequence_length", "setup", "step", "setup_low", "step_high", "misfit"]].tolist() == pytest.approx(
        [8, 2, 3, 2, 3, 0]
    )
    assert pd.isna(frame.iloc[1]["setup"]) and pd.isna(frame.iloc[1]["misfit"])


def test_a_warm_up_that_cost_more_pays_after_as_many_calls_as_gains_make_up_for_it(tmp_path: Path) -> None:
    base = cell("torch:a", seconds(1.0), warm_up=[2.0, 2.0])
    quick = cell("x:b", seconds(0.5), warm_up=[31.0, 1.0])
    late = cell("x:c", seconds(2.0), warm_up=[1.0])
    found = findings_of(tmp_path, base, quick, late)
    # The warm-ups cost 2 and 31 seconds, and a call gains half a second: (31 - 2) / 0.5.
    row = row_of(found, "x:b")
    assert (row["warm_up_cost"], row["pays_after"]) == pytest.approx((31.0, 58.0))
    assert (row["baseline"], row["verdict"]) == ("torch:a", "faster")
    assert row_of(found, "x:c")["pays_after"] == math.inf
    own = row_of(found, "torch:a")
    assert (own["baseline"], own["verdict"], own["warm_up_cost"]) == ("torch:a", "", pytest.approx(2.0))


def test_where_the_comparison_says_same_or_nothing_no_calls_are_said_to_pay(tmp_path: Path) -> None:
    noisy = [one * (1.4 if k % 2 else 0.75) for k, one in enumerate(ROUNDS)]
    cells = [cell("torch:a", ROUNDS), cell("x:b", slower(1.002)), cell("x:c", noisy)]
    found = findings_of(tmp_path, *cells)
    for name, verdict in (("x:b", "same"), ("x:c", "undecided")):
        row = row_of(found, name)
        assert row["verdict"] == verdict and math.isnan(row["pays_after"])


def test_the_first_calls_say_nothing_of_what_cold_caches_cost(tmp_path: Path) -> None:
    cells = [cell(name, by, settings={"caches": "cold"}, warm_up=[9.0]) for name, by in (("torch:a", ROUNDS), ("x:b", slower(0.5)))]
    row = row_of(findings_of(tmp_path, *cells), "x:b")
    assert math.isnan(row["warm_up_cost"]) and math.isnan(row["pays_after"]) and row["verdict"] == "faster"


def test_what_was_lost_is_named_with_the_batch_that_fitted_and_the_rest_stands_at_the_longest_that_was_timed(tmp_path: Path) -> None:
    lost = [
        cell("x:b", [], 16, Outcome.OUT_OF_MEMORY, fits={"batch": 8}),
        cell("x:b", [], 32, Outcome.OUT_OF_MEMORY, fits={"batch": 0}),
        cell("x:b", [], 64, Outcome.FAILED),
    ]
    timed = [cell(name, ROUNDS, length, memory={"bytes": length, "resolution": 1, "method": "allocator"}) for name, length in
             (("torch:a", 8), ("torch:a", 64), ("x:b", 4), ("x:b", 8))]  # fmt: skip
    row = row_of(findings_of(tmp_path, *timed, *lost), "x:b")
    assert row["lost"] == ["out of memory at T=16 (B=8 fits), 32 (no smaller B fits)", "failed at T=64"]
    assert (row["sequence_length"], row["memory_bytes"], row["baseline"]) == (8, 8, "torch:a")


def test_who_cannot_run_there_costs_nothing_and_who_never_came_through_is_not_dropped(tmp_path: Path) -> None:
    cells = [
        cell("torch:a", ROUNDS),
        cell("x:b", [], outcome=Outcome.UNAVAILABLE),
        cell("x:c", [], outcome=Outcome.OUT_OF_MEMORY, fits={"batch": 1}),
    ]
    found = findings_of(tmp_path, *cells)
    assert found.costs["implementation"].tolist() == ["torch:a", "x:c"]
    row = row_of(found, "x:c")
    assert (row["sequence_length"], row["lost"]) == (0, ["out of memory at T=8 (B=1 fits)"])


def test_a_run_without_times_makes_a_table_without_rows(tmp_path: Path) -> None:
    frame = findings_of(tmp_path).costs
    assert list(frame.columns) == list(COSTS) and frame.empty

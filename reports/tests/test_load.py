"""What is read from run files and from pytest-benchmark files, and what is said of files that are neither."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import reports
from harness import calibration
from harness.record import Throughput
from reports import Frames, LoadError, load
from reports.columns import COLUMNS
from reports.tests import specimen


def test_every_frame_has_exactly_its_documented_columns_and_types(frames: Frames) -> None:
    names = [f.name for f in fields(frames) if f.name != "problems"]
    assert names == list(COLUMNS)
    for name in names:
        frame: pd.DataFrame = getattr(frames, name)
        assert {column: str(dtype) for column, dtype in frame.dtypes.items()} == {
            column: dtype for column, (dtype, _) in COLUMNS[name].items()
        }


def test_an_empty_run_gives_empty_frames_with_the_same_columns(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[]))
    assert list(frames.errors.columns) == list(COLUMNS["errors"])
    assert frames.errors.empty
    assert frames.samples.empty
    assert frames.runs["complete"].all()


def test_every_line_of_a_run_file_becomes_a_row(frames: Frames) -> None:
    checked, timed = specimen.conformance(), specimen.throughput()
    assert len(frames.conformance) == len(checked)
    assert len(frames.throughput) == len(timed)
    assert len(frames.errors) == sum(len(result.errors) for result in checked)
    assert len(frames.samples) == sum(len(cell.samples) for cell in timed)


def test_a_calibration_is_a_row_per_planted_slowdown_and_no_implementation(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=specimen.calibrations()))
    assert frames.problems == () and frames.implementations.empty
    assert {column: str(dtype) for column, dtype in frames.calibrations.dtypes.items()} == {
        column: dtype for column, (dtype, _) in COLUMNS["calibrations"].items()
    }
    assert frames.calibrations.drop(columns=["run", "ratios"]).to_dict("records") == [
        {"machine": "specimen", "device": "cpu", "workload": "", "planted": 0.0, "trials": 10, "slower": 1, "faster": 0, "same": 8,
         "undecided": 1, "seconds": 1.5, "most_seconds": 6.0},
        {"machine": "specimen", "device": "cpu", "workload": "", "planted": 0.02, "trials": 10, "slower": 9, "faster": 0, "same": 0,
         "undecided": 1, "seconds": 0.625, "most_seconds": 6.0},
    ]  # fmt: skip
    assert frames.calibrations["ratios"].tolist() == [[1.0] * 10, [1.02] * 10]


def test_two_environments_are_no_implementations_beside_each_other(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=specimen.versus()))
    assert frames.problems == () and frames.runs["results"].tolist() == [2]
    assert frames.throughput.empty and frames.samples.empty and frames.implementations.empty


def test_a_calibration_beside_implementations_hides_none_of_them(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[*specimen.calibrations(), *specimen.throughput()[:1]]))
    assert len(frames.calibrations) == 2 and not frames.implementations.empty


@pytest.mark.parametrize(
    ("trials", "verdicts"),
    [(0, {}), (3, {"slower": 2}), (3, {"slower": 4, "same": -1}), (1, {"slower": "one"}), (1, {"splendid": 1})],
    ids=str,
)
def test_a_calibration_whose_verdicts_do_not_add_up_is_left_out_and_named(trials: int, verdicts: dict[str, Any], tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[replace(specimen.calibrations()[0], trials=trials, verdicts=verdicts)]))
    assert frames.calibrations.empty
    assert len(frames.problems) == 1 and "result 1 has verdicts that do not add up to its trials" in frames.problems[0]


def test_what_the_calibration_command_writes_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "PLANTED", ((0.0, 0.02), (0.05, 0.02)))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert calibration.main(["--trials", "1", "--results", str(tmp_path)]) == 0
    frames = load(Path(capsys.readouterr().out.splitlines()[-1]))
    assert frames.problems == () and frames.calibrations["planted"].tolist() == [0.0, 0.05]
    assert (frames.calibrations[["slower", "faster", "same", "undecided"]].sum(axis=1) == frames.calibrations["trials"]).all()


def _costly(**changes: Any) -> Throughput:
    """A cell with everything that a record can say of one."""
    told = ["other processes used 58 % of the time of the cores; end them"]
    values: dict[str, Any] = {
        "warm_up": [0.5, 0.25],
        "first_call": 0.5,
        "samples": [0.25, 0.125],
        "rounds": [0, 1],
        "issued": [0.2, 0.1],
        "device_samples": [0.24, 0.12],
        "stopped": "interrupted",
        "settings": {"caches": "cold"},
        "memory": {"bytes": 434176, "method": "resident", "resolution": 262144},
        "limit": {"seconds": 0.0625, "bound": "memory", "bytes": 10, "matmul_flops_per_second": 2e9, "memory_bytes_per_second": 3e9,
                  "matmul": "8x8x8 float32", "memory": "copy of 64 bytes"},
        "evidence": {"others": 0.58, "stolen": 0.01, "waited": None, "frequency_before": 2000, "frequency_after": 1900.5, "told": told,
                     "gpu": {"sm_clock": 1500, "most_sm_clock": 1980, "others_utilisation": 0.25}},
    }  # fmt: skip
    return replace(specimen.throughput()[1], **{**values, **changes})


def test_what_a_record_says_beside_its_times_has_columns_of_its_own(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[_costly()]))
    row = frames.throughput.iloc[0].to_dict()
    assert (row["warm_up"], row["first_call"], row["stopped"], row["caches"]) == ([0.5, 0.25], 0.5, "interrupted", "cold")
    assert (row["memory_bytes"], row["memory_resolution"], row["memory_method"], row["memory_unavailable"]) == (
        434176,
        262144,
        "resident",
        "",
    )
    assert (row["limit_seconds"], row["limit_bound"], row["limit_bytes"]) == (0.0625, "memory", 10)
    assert (row["limit_flops_per_second"], row["limit_bytes_per_second"]) == (2e9, 3e9)
    assert (row["limit_matmul"], row["limit_memory"]) == ("8x8x8 float32", "copy of 64 bytes")
    assert (row["others"], row["stolen"], row["frequency_before"], row["frequency_after"]) == (0.58, 0.01, 2000, 1900.5)
    assert (row["gpu_clock"], row["gpu_most_clock"], row["gpu_others"]) == (1500, 1980, 0.25)
    assert pd.isna(row["waited"]) and pd.isna(row["fits_batch"])
    assert row["told"] == ["other processes used 58 % of the time of the cores; end them"] and row["evidence"]["others"] == 0.58
    assert frames.samples[["seconds", "issued", "device_seconds"]].values.tolist() == [[0.25, 0.2, 0.24], [0.125, 0.1, 0.12]]


def test_what_ran_out_of_memory_keeps_the_batch_that_fitted_and_none_is_told_from_not_tried(tmp_path: Path) -> None:
    lost = replace(_costly(), outcome="out-of-memory", samples=[], rounds=[], issued=[], device_samples=[])
    frames = load(specimen.write(tmp_path, results=[replace(lost, fits=fits) for fits in ({"batch": 8}, {"batch": 0}, {})]))
    assert frames.throughput["fits_batch"].tolist() == [8, 0, pd.NA]
    assert frames.samples.empty


def test_a_peak_that_was_not_measured_says_why(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[_costly(memory={"unavailable": "no /proc here"})]))
    assert frames.throughput["memory_unavailable"].tolist() == ["no /proc here"] and frames.throughput["memory_bytes"].isna().all()


def test_values_of_another_type_than_they_should_be_are_no_values(tmp_path: Path) -> None:
    odd = _costly(
        memory={"bytes": "many", "method": 5}, limit={"seconds": [1], "bound": None, "matmul": {}}, settings={"caches": 1},
        evidence={"others": True, "told": [1, "so"], "gpu": "A100"}, fits={"batch": 8.5}, issued=[0.1],
    )  # fmt: skip
    frames = load(specimen.write(tmp_path, results=[odd]))
    row = frames.throughput.iloc[0].to_dict()
    assert all(pd.isna(row[name]) for name in ("memory_bytes", "limit_seconds", "others", "gpu_clock", "fits_batch"))
    assert all(row[name] == "" for name in ("memory_method", "limit_bound", "limit_matmul", "caches"))
    assert row["told"] == ["so"]
    assert frames.samples["issued"].isna().all() and frames.samples["device_seconds"].tolist() == [0.24, 0.12]


def test_the_time_of_a_wrong_answer_is_no_time_even_where_a_file_has_one(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[_costly(outcome="failed")]))
    assert len(frames.throughput) == 1 and frames.samples.empty


def test_our_own_benchmark_file_says_what_the_run_file_says_beside_the_times(tmp_path: Path) -> None:
    cell = _costly()
    path = specimen.benchmark_json(tmp_path / "b.json", [cell])
    columns = ["warm_up", "stopped", "caches", "memory_bytes", "limit_seconds", "limit_bound", "others", "told"]
    found, expected = (load(file).throughput[columns].iloc[0].to_dict() for file in (path, specimen.write(tmp_path, results=[cell])))
    assert found == expected


def test_workloads_of_the_same_sizes_without_times_are_all_kept(tmp_path: Path) -> None:
    cells = [_costly(outcome="out-of-memory", workload=workload) for workload in ("quick/one-layer", "quick/two-layers")]
    assert load(specimen.benchmark_json(tmp_path / "b.json", cells)).throughput["workload"].tolist() == [
        "quick/one-layer",
        "quick/two-layers",
    ]


def test_an_error_that_was_not_finite_is_told_from_one_of_zero(frames: Frames) -> None:
    lost = frames.errors[~frames.errors["finite"]]
    assert len(lost) > 0
    assert lost["ratio"].isna().all()
    assert (frames.errors.loc[frames.errors["ratio"] == 0, "finite"]).all()


def test_availability_is_a_row_per_device_with_its_reason(frames: Frames) -> None:
    own = frames.implementations[frames.implementations["implementation"] == "torch:cudnn"].set_index("device")
    assert not own["available"].any()
    assert own.loc["cpu", "reason"] == "cuDNN serves CUDA devices only"


def test_a_directory_is_read_as_all_its_run_files(tmp_path: Path) -> None:
    specimen.write(tmp_path, results=specimen.throughput()[:6], what="a")
    specimen.write(tmp_path, results=specimen.throughput()[6:12], what="b")
    (tmp_path / "notes.txt").write_text("not a run file")
    frames = load([tmp_path])
    assert len(frames.runs) == 2
    assert len(frames.throughput) == 12
    assert frames.throughput["cell"].is_unique


def test_a_run_without_its_footer_is_read_and_said_to_be_incomplete(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, complete=False, results=specimen.throughput()[:6]))
    assert not frames.runs["complete"].any()
    assert len(frames.throughput) == 6
    assert "no footer" in frames.problems[0]


def test_a_file_that_is_given_twice_counts_once(run_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(run_file.read_bytes())
    frames = load([run_file, copy])
    assert len(frames.runs) == 1
    assert "given twice" in frames.problems[0]


def test_files_of_one_name_in_two_directories_stay_apart(tmp_path: Path) -> None:
    paths = [specimen.write(tmp_path / name, results=specimen.throughput()[:number]) for name, number in (("a", 3), ("b", 4))]
    frames = load(paths)
    assert frames.runs["run"].is_unique
    assert frames.throughput.groupby("run").size().tolist() == [3, 4]


def test_a_cell_in_both_the_run_file_and_the_benchmark_file_of_a_session_counts_once(tmp_path: Path) -> None:
    cells = specimen.throughput()
    both = load([specimen.benchmark_json(tmp_path / "b.json", cells), specimen.write(tmp_path, results=cells)])
    assert len(both.throughput) == len(cells)
    assert set(both.runs["format"]) == {"run file", "pytest-benchmark"}


def test_a_benchmark_file_without_its_data_replaces_no_samples_of_a_run_file(tmp_path: Path) -> None:
    cells = [cell for cell in specimen.throughput() if cell.samples][:3]
    path = specimen.benchmark_json(tmp_path / "b.json", cells)
    content = json.loads(path.read_text())
    for benchmark in content["benchmarks"]:
        del benchmark["stats"]["data"]
    path.write_text(json.dumps({**content, "datetime": "2026-12-31"}))
    both = load([path, specimen.write(tmp_path, results=cells[:2])])
    assert both.runs.set_index("format")["results"].to_dict() == {"run file": 2, "pytest-benchmark": 1}
    assert both.samples["cell"].value_counts().sort_index().tolist() == [11, 11, 1]
    assert len(both.throughput) == len(load(path).throughput) == 3


def test_our_own_benchmark_file_alone_gives_the_same_cells_and_pairs(tmp_path: Path) -> None:
    cells = [cell for cell in specimen.throughput() if cell.samples]
    frames = load(specimen.benchmark_json(tmp_path / "b.json", cells))
    assert list(frames.throughput["implementation"]) == [cell.implementation for cell in cells]
    assert frames.throughput["agreement_before"].eq(1.2).all()
    assert (frames.samples["round"] >= 0).all()
    assert frames.runs["machine"].tolist() == ["specimen"]


def test_a_foreign_benchmark_file_loads_with_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    benchmark = {
        "group": "sorting",
        "name": "test_sort[big]",
        "fullname": "t.py::test_sort[big]",
        "extra_info": {},
        "stats": {"data": [0.1, 0.3]},
    }
    path.write_text(
        json.dumps({"machine_info": {"node": "elsewhere"}, "benchmarks": [benchmark], "datetime": "2026-01-01", "version": "5"})
    )
    frames = load(path)
    row = frames.throughput.iloc[0]
    assert (row["workload"], row["implementation"], row["machine"]) == ("sorting", "test_sort[big]", "elsewhere")
    assert (row["mode"], row["sequence_length"]) == ("", 0)
    assert frames.samples["seconds"].tolist() == [0.1, 0.3]


@pytest.mark.parametrize("number", ["1e400", "NaN", str(2**70), "1" * 400])
def test_numbers_that_no_column_holds_cost_what_they_say_and_no_more(number: str, tmp_path: Path) -> None:
    path = specimen.write(tmp_path, results=[*specimen.conformance(1)[1:3], *specimen.throughput()[1:3]])
    whole = load(path)
    text = path.read_text()
    for key in ("elements", "calls", "error", "hidden_size"):
        position = text.index(f'"{key}": ') + len(key) + 4
        end = min(text.index(mark, position) for mark in ",}" if mark in text[position:])
        path.write_text(text[:position] + number + text[end:])
        frames = load(path)
        assert len(frames.conformance) == len(whole.conformance)
        assert len(frames.throughput) + sum("left out" in problem for problem in frames.problems) == len(whole.throughput)
    assert load(path).problems != ()


def test_an_outcome_that_nobody_knows_is_left_out_and_named(tmp_path: Path) -> None:
    path = specimen.write(tmp_path, results=specimen.throughput()[:2])
    path.write_text(path.read_text().replace('"outcome": "passed"', '"outcome": "splendid"', 1))
    frames = load(path)
    assert len(frames.throughput) == 1
    assert any("splendid" in problem for problem in frames.problems)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", "it is empty", id="empty"),
        pytest.param("{broken", "it is neither", id="not JSON"),
        pytest.param('{"a": 1}', "without a list of 'benchmarks'", id="JSON of something else"),
        pytest.param('{"kind": "header", "run": 5}', "begin with the header", id="broken header"),
        pytest.param('{"kind": "footer"}', "begin with the header", id="no header"),
        pytest.param('{"benchmarks": [{"stats": {"data": ["fast"]}}]}', "benchmark 0", id="broken benchmark"),
        pytest.param('{"benchmarks": ["fast"]}', "benchmark 0", id="benchmark of another shape"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_file_and_what_was_expected(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(LoadError) as caught:
        load(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message


def test_bytes_that_are_no_text_in_the_middle_of_a_run_cost_their_line_alone(tmp_path: Path) -> None:
    path = specimen.write(tmp_path, results=specimen.throughput()[:3])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\xff\xfe\n", *lines[3:]]))
    frames = load(path)
    assert len(frames.throughput) == 2
    assert frames.problems[0].startswith(f"{path}:3: ")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LoadError, match="not text"):
        load(tmp_path / "bad.json")


def test_a_missing_file_and_a_directory_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"there is no .*nowhere"):
        load(tmp_path / "nowhere.jsonl")
    with pytest.raises(LoadError, match="it has none"):
        load(tmp_path)
    with pytest.raises(LoadError, match="at least one"):
        load([])


def test_the_example_of_the_readme_runs_as_it_stands(run_file: Path, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "reports.load" in block]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / run_file.name).write_bytes(run_file.read_bytes())
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    failed, _, times = done.stdout.partition("sequence_length")
    assert "values.property_2" in failed and "1024" in times
    assert done.stdout.rstrip().endswith("('float64', 's per call')")


def test_help_names_every_frame_and_where_columns_are_explained() -> None:
    told = load.__doc__ or ""
    assert all(f"``{name}``" in told for name in COLUMNS) and "reports.COLUMNS" in told
    assert reports.COLUMNS is COLUMNS

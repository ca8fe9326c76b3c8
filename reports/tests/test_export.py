"""Frames as files: nothing is lost on the way there and back."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from reports import Frames, load
from reports.__main__ import main
from reports.columns import COLUMNS
from reports.export import DESCRIPTION, ExportError, Format, read, write
from reports.tests import specimen
from reports.tests.test_load import _costly

WITHOUT = "pyarrow, the extra parquet, is not installed"
FORMATS = [
    pytest.param(Format.CSV),
    pytest.param(Format.PARQUET, marks=pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason=WITHOUT)),
]
ODD = 'a,"b"\r\nc\n\n|d\te; NaN, nan, None, 1.0, \u2028 名前 \x7f'


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """One of every kind of row, with what is hard to write: missing and infinite numbers, all digits, texts that look like numbers."""
    directory = tmp_path_factory.mktemp("runs")
    cells = [
        _costly(samples=[0.1 + 0.2, 1e-300], implementation="001", message=ODD),
        replace(_costly(agreement={"before": [{"ratio": None}]}), outcome="out-of-memory", fits={"batch": 8}),
        _costly(fits={}, workload="NaN", memory={}),
    ]
    lost = [result for result in specimen.conformance(2) if any(error["error"] is None for error in result.errors)]
    results = [*specimen.conformance(1)[:80], *lost[:2], *specimen.calibrations(), *cells]
    coverage = {"torch:a": {"lstm": {"cases": 3, "pairs": {"seen": 1, "possible": 2, "missing": [ODD]}, "options": {}, "sizes": {}}}}
    specimen.write(directory, results=results, coverage=coverage)
    specimen.write(directory, what="cut", results=[], complete=False, policy={"a": float("inf"), "ö": [1, None, "x"]})
    return load(directory)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_with_its_types_and_missing_values(format: Format, everything: Frames, tmp_path: Path) -> None:
    paths = write(everything, tmp_path / "out", format)
    assert [path.name for path in paths] == [DESCRIPTION, *(f"{name}.{format}" for name in COLUMNS)]
    found = read(tmp_path / "out")
    assert list(found) == list(COLUMNS)
    for name, frame in found.items():
        pd.testing.assert_frame_equal(frame, getattr(everything, name), check_exact=True)
    # That the frames hold what is hard to write, or nothing would be shown.
    assert found["throughput"]["message"].iloc[0] == ODD and found["throughput"]["implementation"].iloc[0] == "001"
    assert found["throughput"]["agreement_before"].tolist()[1] == float("inf")
    assert found["throughput"]["fits_batch"].tolist() == [pd.NA, 8, pd.NA]
    assert found["errors"]["ratio"].isna().any() and found["samples"]["seconds"].iloc[0] == 0.1 + 0.2
    assert found["runs"]["exit_status"].tolist()[:2] == [1, pd.NA] or found["runs"]["exit_status"].tolist()[:2] == [pd.NA, 1]
    assert set(found["runs"]["created"]) == {"2026-01-02T03:04:05Z"} and "" in found["runs"]["finished"].tolist()


@pytest.mark.parametrize("format", FORMATS)
def test_empty_frames_keep_their_columns_and_types(format: Format, tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[], implementations={}))
    write(frames, tmp_path / "out", format)
    for name, frame in read(tmp_path / "out").items():
        pd.testing.assert_frame_equal(frame, getattr(frames, name), check_exact=True)


def test_every_column_is_described_beside_the_files(everything: Frames, tmp_path: Path) -> None:
    write(everything, tmp_path, Format.CSV)
    described = pd.read_csv(tmp_path / DESCRIPTION, keep_default_na=False)
    assert list(zip(described["frame"], described["column"], strict=True)) == [(n, c) for n, columns in COLUMNS.items() for c in columns]
    assert described["meaning"].str.len().min() > 0
    seconds = described[(described["frame"] == "samples") & (described["column"] == "seconds")]
    assert seconds[["dtype", "meaning"]].values.tolist() == [["float64", "s per call"]]


def test_other_tools_find_json_in_the_columns_that_hold_more_than_a_value(everything: Frames, tmp_path: Path) -> None:
    write(everything, tmp_path, Format.CSV)
    plain = pd.read_csv(tmp_path / "throughput.csv")
    assert json.loads(plain["warm_up"].iloc[0]) == [0.5, 0.25]


def test_the_command_prints_the_paths_of_what_it_wrote(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run_file), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert [Path(line).name for line in told.out.splitlines()] == [DESCRIPTION, *(f"{name}.csv" for name in COLUMNS)]
    assert all(Path(line).exists() for line in told.out.splitlines())


def test_parquet_without_pyarrow_is_one_line_that_says_how_to_install_it(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(run_file), "--out", str(tmp_path / "out"), "--format", "parquet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Parquet needs pyarrow") and "pip install 'pyarrow" in line and "--format csv" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line_and_status_2(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    assert main(["export", str(run_file), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_with_no_export_or_with_two_is_refused(everything: Frames, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"runs\.csv or runs\.parquet .* neither is there"):
        read(tmp_path)
    write(everything, tmp_path, Format.CSV)
    (tmp_path / "runs.parquet").write_bytes(b"")
    with pytest.raises(ExportError, match="both are there"):
        read(tmp_path)


def test_half_a_surrogate_pair_is_replaced_where_it_is_read(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[_costly(message="a\ud800b")]))
    assert frames.throughput["message"].tolist() == ["a?b"]
    write(frames, tmp_path / "out", Format.CSV)

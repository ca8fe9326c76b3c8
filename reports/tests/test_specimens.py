"""Run files as they were written: one of every form that the schema has had, by the writer of that time, and some that are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.record import SCHEMA, Header
from harness.store import encode
from reports import Frames, LoadError, load, page
from reports.__main__ import main
from reports.summary import summary
from reports.tests import specimen

HERE = Path(__file__).parent / "specimens"
FILES = sorted(HERE.glob("*.jsonl"))
NEWEST = HERE / f"{SCHEMA}-biases.jsonl"
ADD = (
    "add a specimen: the newest with what is new in it, as python -m reports.tests.specimen FILE writes it today; then make it NEWEST, and "
    "say in this file what is new"
)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _keys(path: Path) -> dict[str, set[str]]:
    """kind -> the keys that its records have."""
    answer: dict[str, set[str]] = {}
    for line in _lines(path):
        answer.setdefault(line["kind"], set()).update(line)
    return answer


def test_every_version_of_the_schema_has_a_specimen() -> None:
    assert {int(path.name.partition("-")[0]) for path in FILES} == set(range(1, SCHEMA + 1)), ADD
    for path in FILES:
        assert _lines(path)[0]["schema"] == int(path.name.partition("-")[0]), path


def test_the_newest_specimen_has_every_kind_and_every_key_that_is_written_today(tmp_path: Path) -> None:
    assert _keys(NEWEST) == _keys(specimen.small(tmp_path / "today.jsonl")), ADD


def test_no_two_specimens_are_of_one_form() -> None:
    forms = [_keys(path) for path in FILES]
    assert all(forms.count(form) == 1 for form in forms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_specimen_loads_whole(path: Path, tmp_path: Path) -> None:
    frames = load(path)
    kinds = [line["kind"] for line in _lines(path)]
    assert frames.problems == () and frames.runs["complete"].all()
    assert len(frames.conformance) == kinds.count("conformance") == 2
    assert len(frames.throughput) == kinds.count("throughput") == 3
    assert len(frames.mutations) == kinds.count("mutation")
    assert len(frames.calibrations) == kinds.count("calibration")
    assert len(frames.coverage) == (1 if kinds.count("mutation") else 0), "what the cases covered is told since there are mutations"
    assert frames.errors["finite"].tolist() == [True, True, False]
    assert frames.samples.groupby("cell").size().tolist() == [6, 6]
    assert "1 of 2 tested implementations" in summary(frames).text
    assert page.write(frames, tmp_path).stat().st_size > 0


def _timed(name: str) -> dict[str, Any]:
    frame = load(HERE / f"{name}.jsonl").throughput
    return {column: frame[column].iloc[0] for column in ("untimed", "warm_up", "stopped", "caches", "memory_method", "limit_bound")}


def test_what_a_writer_did_not_know_is_not_known() -> None:
    nothing = {"untimed": 0, "warm_up": [], "stopped": "", "caches": "", "memory_method": "", "limit_bound": ""}
    costs = {"warm_up": [0.004, 0.0012], "caches": "hot", "memory_method": "resident", "limit_bound": "arithmetic"}
    assert _timed("1-first") == _timed("1-mutations") == nothing
    assert _timed("1-calibrations") == {**nothing, "stopped": "decided"}
    assert _timed("1-costs") == {**nothing, **costs, "stopped": "decided"}
    assert _timed("1-untimed") == _timed("1-versus") == _timed("1-pairs") == {**nothing, **costs, "stopped": "decided", "untimed": 1}
    assert load(HERE / "1-first.jsonl").conformance["reproduction"].tolist() == ["", ""]
    assert load(HERE / "1-mutations.jsonl").conformance["reproduction"].tolist() == ["", "import torch\n"]
    assert load(HERE / "1-calibrated-workloads.jsonl").conformance["hint"].tolist() == ["", ""]
    assert load(NEWEST).conformance["hint"].tolist() == ["", specimen.HINT]


def test_the_first_writer_wrote_other_letters_than_ascii_as_they_are() -> None:
    assert "σ".encode() in (HERE / "1-first.jsonl").read_bytes() and "σ".encode() not in NEWEST.read_bytes()
    messages = [load(path).conformance["message"].iloc[1] for path in FILES]
    assert set(messages) == {"output: 495 of 495 elements are off (σ)"}


def test_all_of_them_make_one_report(tmp_path: Path) -> None:
    frames = load(FILES)
    assert len(frames.runs) == len(FILES) and frames.problems == ()
    assert page.write(frames, tmp_path).stat().st_size > 0


BROKEN = {
    "truncated-line": "truncated-line.jsonl:4: the last line was cut short; the line was left out.",
    "without-footer": "without-footer.jsonl: no footer: the run was cut short after 3 results.",
    "unknown-kind": "unknown-kind.jsonl:2: Expected kind to be one of header, conformance, ",
    "altered": "altered.jsonl: the lines do not have the checksum that the footer gives",
}
REFUSED = {
    "newer-schema": f"Expected schema of at most {SCHEMA} but got schema=999: update this project to read it",
    "no-run-file": "but it is neither",
    "no-text": "it is not text",
    "empty": "but it is empty",
}


def test_every_broken_specimen_is_here() -> None:
    assert {path.stem for path in (HERE / "bad").iterdir()} == {*BROKEN, *REFUSED}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_read_as_far_as_it_goes_and_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    frames: Frames = load(HERE / "bad" / f"{name}.jsonl")
    assert any(BROKEN[name] in problem for problem in frames.problems), frames.problems
    assert not frames.runs["complete"].any() and len(frames.conformance) == 2
    assert page.write(frames, tmp_path).stat().st_size > 0


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", ["page", "summary", "verdicts", "compare", "export"])
def test_what_is_no_run_file_is_one_line_and_status_2(name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:

    path = str(HERE / "bad" / f"{name}.jsonl")
    rest = {"page": ["--out", str(tmp_path / "out")], "export": ["--out", str(tmp_path / "out")], "compare": [str(NEWEST)]}
    assert main([command, path, *rest.get(command, [])]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert REFUSED[name] in told.err and f"{name}.jsonl" in told.err
    assert not (tmp_path / "out").exists()


def test_a_header_of_a_newer_schema_is_refused_whatever_else_is_in_it(tmp_path: Path) -> None:
    header: Header = specimen.header(schema=SCHEMA + 1)
    (tmp_path / "new.jsonl").write_text(encode(header) + "\n")
    with pytest.raises(LoadError, match="update this project"):
        load(tmp_path / "new.jsonl")

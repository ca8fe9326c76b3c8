"""Run files: what is written is read, and what was damaged says so."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.record import SCHEMA, Footer
from harness.store import Run, RunReader, RunWriter, StoreError, encode, read
from harness.tests.test_record import CONFORMANCE, HEADER, THROUGHPUT


def _written(folder: Path, close: bool = True) -> Path:
    writer = RunWriter(folder / "deep" / "results", "conformance", HEADER)
    writer.append(replace(CONFORMANCE, message="σ\u2028x"))
    writer.append(replace(CONFORMANCE, outcome="failed"))
    writer.append(THROUGHPUT)
    path = writer.close(1)
    if not close:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    return path


def _altered(folder: Path, *changes: tuple[bytes, bytes]) -> Run:
    path = _written(folder)
    content = path.read_bytes()
    for old, new in changes:
        assert content.count(old) >= 1
        content = content.replace(old, new, 1)
    path.write_bytes(content)
    return read(path)


def test_reads_what_was_written(tmp_path: Path) -> None:
    run = read(_written(tmp_path))
    assert run.header == HEADER and run.complete and run.problems == []
    assert run.results == [replace(CONFORMANCE, message="σ\u2028x"), replace(CONFORMANCE, outcome="failed"), THROUGHPUT]
    assert run.footer is not None
    assert (run.footer.exit_status, run.footer.results, run.footer.counts) == (1, 3, {"passed": 2, "failed": 1})


def test_a_file_may_be_read_result_by_result_and_read_again(tmp_path: Path) -> None:
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes() + b"{\n")
    reader = RunReader(path)
    assert reader.header == HEADER
    results = iter(reader)
    first = next(results)
    assert (first, reader.footer, reader.problems) == (read(path).results[0], None, [])
    assert len(list(results)) == 2
    assert reader.footer is not None and len(reader.problems) == 1 and not reader.complete
    assert len(list(reader)) == 3 and len(reader.problems) == 1


def test_a_file_is_named_for_its_time_kind_and_run(tmp_path: Path) -> None:
    assert _written(tmp_path).name == "20260102T030405Z-conformance-rrrrrrrr.jsonl"


def test_each_result_is_on_disk_when_it_has_been_appended(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "conformance", HEADER)
    assert len(writer.path.read_text().splitlines()) == 1
    writer.append(CONFORMANCE)
    assert json.loads(writer.path.read_text().splitlines()[-1])["contract"] == CONFORMANCE.contract
    writer.close(0)


def test_a_file_without_its_footer_says_so(tmp_path: Path) -> None:
    run = read(_written(tmp_path, close=False))
    assert not run.complete and len(run.results) == 3
    assert "no footer: the run was cut short after 3 results" in run.problems[0]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    path = _written(tmp_path, close=False)
    path.write_bytes(path.read_bytes()[: -1 - cut])
    run = read(path)
    assert len(run.results) == 2 and not run.complete
    assert f"{path}:4: the last line was cut short; the line was left out." in run.problems


@pytest.mark.parametrize("size", range(0, 900, 7))
def test_a_file_cut_anywhere_is_read_as_far_as_it_goes(tmp_path: Path, size: int) -> None:
    path = _written(tmp_path)
    content = path.read_bytes()[:size]
    path.write_bytes(content)
    if content.count(b"\n") == 0 and content + b"\n" != (encode(HEADER) + "\n").encode():
        with pytest.raises(StoreError):
            read(path)
    else:
        run = read(path)
        assert not run.complete and len(run.results) >= content.count(b"\n") - 1


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"", b"\xff\xfe\x00", b'{"kind": "conformance"}', b'{"kind": []}', b"[" * 100_000, b"1" * 5000, b"NaN"]
)
def test_garbage_in_the_middle_is_left_out_and_named(tmp_path: Path, garbage: bytes) -> None:
    path = _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage + b"\n", *lines[2:]]))
    run = read(path)
    assert len(run.results) == 3 and not run.complete
    assert any(problem.startswith(f"{path}:3: ") for problem in run.problems)


def test_an_edited_line_does_not_match_the_checksum(tmp_path: Path) -> None:
    run = _altered(tmp_path, (b'"outcome": "failed"', b'"outcome": "passed"'))
    assert len(run.results) == 3 and not run.complete
    assert "altered after it was written" in run.problems[0]


def test_a_removed_line_does_not_match_the_checksum(tmp_path: Path) -> None:
    path = _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert any("altered" in problem for problem in read(path).problems)


def test_lines_after_the_footer_and_second_headers_are_named(tmp_path: Path) -> None:
    path = _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines, lines[1]]))
    problems = read(path).problems
    assert any("a second header" in problem for problem in problems)
    assert any("after the footer" in problem for problem in problems)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n", "line 1 is not one"),
        (b"\x80\x04binary\x00", "line 1 is not one"),
        (b"hello\n", "line 1 is not one"),
        (encode(CONFORMANCE).encode() + b"\n", "line 1 is a conformance line"),
        (encode(replace(HEADER, schema=SCHEMA + 1)).encode() + b"\n", "update this project"),
        (encode(HEADER).replace('"command": ["python"]', '"command": 1').encode() + b"\n", "command=1"),
    ],
)
def test_refuses_what_is_no_run_file_and_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"^Cannot read the run file .*\.$"):
        read(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^Cannot write the run file .*Name another folder\.$"):
        RunWriter(tmp_path / "file" / "results", "conformance", HEADER)


def test_a_run_file_is_never_overwritten(tmp_path: Path) -> None:
    path = _written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="File exists"):
        _written(tmp_path)
    assert path.read_bytes() == before


def test_the_footer_counts_what_was_appended(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "throughput", HEADER)
    path = writer.close(5)
    run = read(path)
    assert isinstance(run.footer, Footer) and run.complete
    assert (run.footer.results, run.footer.counts, run.footer.exit_status) == (0, {}, 5)


def test_a_full_disk_is_one_sentence_and_what_was_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path, "conformance", HEADER)
    writer.append(CONFORMANCE)

    def full(text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_file", SimpleNamespace(write=full))
        with pytest.raises(StoreError, match=r"^Cannot write the run file .*: No space left on device\. What was written "):
            writer.append(CONFORMANCE)
    writer.close(1)
    assert read(writer.path).results == [CONFORMANCE]


def test_a_file_that_is_abandoned_ends_where_it_could_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path, "conformance", HEADER)
    writer.append(CONFORMANCE)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for close in (writer._file.close, full):
        monkeypatch.setattr(writer, "_file", SimpleNamespace(close=close))
        writer.abandon()
    found = read(writer.path)
    assert found.results == [CONFORMANCE] and found.footer is None

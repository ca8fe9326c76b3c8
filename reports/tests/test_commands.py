"""What every command has in common: how it ends when somebody ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from reports import page
from reports.__main__ import main
from reports.drawers import _ignoring_interrupts
from reports.gallery import __main__ as gallery
from reports.tests import specimen


def test_a_reader_that_has_enough_is_no_error_with_words(run_file: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "reports", "summary", str(run_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 2)


def test_an_interrupt_is_one_line_and_a_status_of_its_own(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "write", interrupted)
    assert main(["page", str(run_file), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("command", ["page", "export"])
def test_a_folder_that_cannot_be_made_is_one_line_without_the_number_of_the_error(
    command: str, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([command, str(run_file), "--out", str(tmp_path / "file")]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path / 'file'}") and line.count("\n") == 1 and "Errno" not in line


def test_the_processes_that_draw_leave_interrupts_to_the_one_that_started_them() -> None:
    before, inside = signal.getsignal(signal.SIGINT), list[Any]()
    with _ignoring_interrupts():
        inside.append(signal.getsignal(signal.SIGINT))

    def elsewhere() -> None:
        with _ignoring_interrupts():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert inside == [signal.SIG_IGN, before] and signal.getsignal(signal.SIGINT) == before


def test_the_gallery_says_what_it_cannot_draw_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = {path: path.stat().st_mtime_ns for path in Path(gallery.__file__).parent.glob("*.png")}
    without = specimen.write(tmp_path, results=specimen.conformance(1))
    for run, told in ((tmp_path / "none.jsonl", "none.jsonl"), (without, "Expected runs with times of the pass inference")):
        assert gallery.main([str(run)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and told in line
    with pytest.raises(SystemExit) as caught:
        gallery.main([])
    assert caught.value.code == 2
    assert {path: path.stat().st_mtime_ns for path in images} == images

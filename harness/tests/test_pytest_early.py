"""A folder that exists is a value of --results like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.pytest_early import checks_elsewhere, joined

ROOT = Path(__file__).parents[2]


def test_joins_an_option_and_its_value_and_leaves_the_rest() -> None:
    given = ["-q", "--results", "/somewhere", "--implementation", "loop:hoisted", "suites", "--results=/there"]
    assert joined(given) == ["-q", "--results=/somewhere", "--implementation=loop:hoisted", "suites", "--results=/there"]


def test_leaves_an_option_without_its_value_alone() -> None:
    assert joined(["--results"]) == ["--results"]


@pytest.mark.parametrize(
    ("line", "elsewhere"),
    [
        ("-q --implementation mine.py:Mine", True),
        ("--implementation=rnn=mine.cells:Mine suites", True),
        ("--implementation loop:textbook --implementation=mine.py:Mine", True),
        ("-q", False),
        ("--implementation loop:textbook", False),
        ("--implementation mine.py:Mine --benchmark-only", False),
        ("--implementation mine.py:Mine -n2", False),
        ("--implementation mine.py:Mine --numprocesses=2", False),
        ("--implementation mine.py:Mine --isolate never", False),
        ("--implementation", False),
    ],
)
def test_knows_when_somebody_s_class_is_checked_in_other_processes(line: str, elsewhere: bool) -> None:
    assert checks_elsewhere(line.split()) == elsewhere


@pytest.mark.parametrize(("exists", "processes"), [(True, ()), (False, ("-n", "2"))])
def test_a_folder_given_to_results_does_not_become_the_root(exists: bool, processes: tuple[str, ...], tmp_path: Path) -> None:
    # One that does not exist when the run begins does so when pytest-xdist starts its processes.
    folder = tmp_path if exists else tmp_path / "new"
    arguments = [
        "-p",
        "harness.pytest_early",
        "-q",
        *processes,
        "--results",
        str(folder),
        "--implementation",
        "loop:hoisted",
        "--device=cpu",
    ]
    command = [sys.executable, "-m", "pytest", *arguments, "-k", "shapes.headline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, "what it says reaches the one who asked"
    (run,) = folder.glob("*.jsonl")
    assert _kinds(run) == ["header", "conformance", "footer"]


def test_a_folder_that_the_environment_gives_to_results_does_not_become_the_root_either(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    command = [sys.executable, "-m", "pytest", "-p", "harness.pytest_early", "-q", "-k", "shapes.headline"]
    added = f"--results '{folder}' --implementation loop:hoisted --device=cpu"
    environment = {**os.environ, "PYTEST_ADDOPTS": added}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    (run,) = folder.glob("*.jsonl")
    assert _kinds(run) == ["header", "conformance", "footer"]


def _kinds(run: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in run.read_text().splitlines()]

"""A folder that exists is a value of --results like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness.pytest_early import joined

ROOT = Path(__file__).parents[2]


def test_joins_an_option_and_its_value_and_leaves_the_rest() -> None:
    given = ["-q", "--results", "/somewhere", "--implementation", "loop:hoisted", "suites", "--results=/there"]
    assert joined(given) == ["-q", "--results=/somewhere", "--implementation=loop:hoisted", "suites", "--results=/there"]


def test_leaves_an_option_without_its_value_alone() -> None:
    assert joined(["--results"]) == ["--results"]


def test_an_existing_folder_given_to_results_does_not_become_the_root(tmp_path: Path) -> None:
    arguments = [
        "-p",
        "harness.pytest_early",
        "-q",
        "--results",
        str(tmp_path),
        "--implementation",
        "loop:hoisted",
        "-k",
        "shapes.headline",
    ]
    done = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, "what it says reaches the one who asked"
    (run,) = tmp_path.glob("*.jsonl")
    assert [json.loads(line)["kind"] for line in run.read_text().splitlines()] == ["header", "conformance", "footer"]

"""The specimen run, written once for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import Frames, load, page
from reports.analysis import Findings
from reports.tests import specimen


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return specimen.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def frames(run_file: Path) -> Frames:
    return load(run_file)


@pytest.fixture(scope="session")
def findings(frames: Frames) -> Findings:
    return Findings(frames)


@pytest.fixture(scope="session")
def built_page(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.write(frames, tmp_path_factory.mktemp("page"))

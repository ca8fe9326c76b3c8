"""Throughput of every implementation on every workload: what ``pytest --benchmark-only`` runs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.implementation import Implementation
from harness.pytest_plugin import Measured, throughput_cells
from harness.replay import REPLAY
from harness.workload import Workload


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "workload" in metafunc.fixturenames:
        cells = throughput_cells(metafunc.config)
        metafunc.parametrize(("workload", "implementation"), cells, ids=[f"{w.id}-{i.id}" for w, i in cells])


# All implementations of a workload are sampled together, in interleaved rounds, when the first of them is asked for. Each test then
# hands its implementation's samples to pytest-benchmark, whose timer reads them out again one by one.
@pytest.mark.benchmark(timer=REPLAY)
def test_throughput(workload: Workload, implementation: Implementation, measured: Measured, benchmark: Any) -> None:
    measured(workload, implementation, benchmark)

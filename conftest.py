"""What the harness's pytest plugin is told about this checkout: where the contracts and the workloads are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.contract import Contract
from harness.workload import Workload

pytest_plugins = ["harness.pytest_plugin"]


def pytest_harness_contracts() -> Sequence[Contract]:
    from suites.conformance.catalogue import CATALOGUE

    return CATALOGUE


def pytest_harness_workloads() -> Mapping[str, Sequence[Workload]]:
    from suites.benchmarks.workloads import SETS

    return SETS

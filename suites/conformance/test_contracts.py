"""The contracts on every implementation: what bare ``pytest`` runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.contract import Check
from harness.pytest_plugin import conformance_checks
from suites.conformance.catalogue import CATALOGUE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "one" in metafunc.fixturenames:
        found = conformance_checks(metafunc.config, CATALOGUE)
        metafunc.parametrize("one", found, ids=[check.id for check in found])


def test_contract(one: Check, settle: Callable[[Check], None]) -> None:
    settle(one)

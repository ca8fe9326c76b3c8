"""What half types are allowed is less than what it is allowed of: a tolerance as large as the tensor itself would pass zeros."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import Contract, checks, run
from harness.registry import resolve
from suites.conformance.catalogue import CATALOGUE

#: The share of its largest magnitude that a tensor may be off: less than 1, which is the error of zeros.
_MOST = 0.75

_IN_HALF = [
    replace(contract, cases=cases)
    for contract in CATALOGUE
    if (cases := tuple(case for case in contract.cases if case.dtype in ("bfloat16", "float16")))
    # What takes gibibytes is not run here.
    and not contract.gibibytes
]


@pytest.mark.parametrize("contract", _IN_HALF, ids=lambda contract: contract.id)
def test_no_tolerance_is_as_large_as_what_it_is_for(contract: Contract) -> None:
    results = [run(check, diagnose=False) for check in checks([contract], [resolve("loop:textbook")], ["cpu"])]
    assert {result.outcome for result in results} <= {"passed", "unsupported"}, "what was not compared has no tolerance"
    wide = [
        (result.case, error["quantity"], round(allowed, 2))
        for result in results
        for error in result.errors
        if (allowed := error["floor"] * error["allowance"]) > _MOST
    ]
    assert not wide

"""Every contract can fail: it rejects each mutant that is registered under it, and lets the sound layer pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from harness.contract import Contract, blind_spots, checks, run
from harness.implementation import Implementation
from harness.outcome import Outcome
from harness.pytest_session import Tested
from suites.conformance import mutants
from suites.conformance.__main__ import PAGE, page
from suites.conformance.catalogue import CATALOGUE
from suites.conformance.proofs import PAIRS, of_every_mutant, proof, where


@pytest.fixture
def large(request: pytest.FixtureRequest) -> bool:
    """Whether memory may be spent."""
    return bool(request.config.getoption("large"))


@of_every_mutant
def test_rejects_mutant(contract: Contract, mutant: Implementation, large: bool, record_result: Callable[[Tested], None]) -> None:
    where(contract, large)
    result = proof(contract, mutant).mutation
    record_result(result)
    assert result.outcome == Outcome.PASSED, result.message


#: Contracts about what a Python loop cannot do, or takes a minute for, and a sound layer that can.
ABLE = dict.fromkeys(("execution.compiled_for_any_length", "values.beyond_65535_steps"), mutants.FUSED)


@pytest.mark.parametrize("contract", CATALOGUE, ids=lambda contract: contract.id)
def test_lets_the_sound_layer_pass(contract: Contract, large: bool) -> None:
    findings = [run(check) for check in checks([contract], [ABLE.get(contract.id, mutants.SOUND)], where(contract, large), large)]
    wrong = [f"{finding.case}: {finding.message}" for finding in findings if finding.outcome != Outcome.PASSED]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("contract", [c for c in CATALOGUE if c.alternatives], ids=lambda contract: contract.id)
def test_uses_only_cases_that_can_see(contract: Contract) -> None:
    # With as much let pass as on a GPU, which is more than on a CPU.
    blind = [sentence for case in contract.cases for sentence in blind_spots(contract, case, "cuda")]
    assert not blind, "\n".join(blind)


def test_every_mutant_is_registered_under_a_contract_that_exists() -> None:
    assert set(mutants.registered()) == {contract.id for contract in CATALOGUE}


def test_the_catalogue_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m suites.conformance"


def test_ids_are_unique() -> None:
    counts = Counter([contract.id for contract in CATALOGUE] + [mutant.id for _, mutant in PAIRS])
    assert [id for id, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("contract", CATALOGUE, ids=lambda contract: contract.id)
def test_has_distinct_cases_and_a_statement_of_one_sentence(contract: Contract) -> None:
    counts = Counter(case.id for case in contract.cases)
    assert [id for id, count in counts.items() if count > 1] == []
    assert contract.statement.endswith(".") and contract.source

"""Every contract can fail: it rejects each mutant that is registered under it, and lets the sound layer pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from harness.contract import Contract, blind_spots, checks, devices, prove, run
from harness.implementation import Implementation
from harness.outcome import Outcome
from harness.pytest_session import Tested
from suites.conformance import mutants
from suites.conformance.__main__ import PAGE, page
from suites.conformance.catalogue import CATALOGUE

PAIRS = [(contract, mutant) for contract in CATALOGUE for mutant in mutants.registered()[contract.id]]


@pytest.fixture
def large(request: pytest.FixtureRequest) -> bool:
    """Whether memory may be spent."""
    return bool(request.config.getoption("large"))


def _where(contract: Contract, large: bool) -> list[str]:
    """The device on which a contract is proven."""
    if missing := contract.missing(large):
        pytest.skip(f"{contract.id}: {missing}")
    device = contract.only_on or "cpu"
    if device not in devices():
        pytest.skip(f"{contract.id} is about {device}, which this machine does not have")
    return [device]


@pytest.mark.parametrize(("contract", "mutant"), PAIRS, ids=[f"{contract.id}-{mutant.id}" for contract, mutant in PAIRS])
def test_rejects_mutant(contract: Contract, mutant: Implementation, large: bool, record_result: Callable[[Tested], None]) -> None:
    result = prove(contract, mutant, _where(contract, large))
    record_result(result)
    assert result.outcome == Outcome.PASSED, result.message


#: Contracts about what a Python loop cannot do, and a sound layer that can.
ABLE = {"execution.compiled_for_any_length": mutants.FUSED}


@pytest.mark.parametrize("contract", CATALOGUE, ids=lambda contract: contract.id)
def test_lets_the_sound_layer_pass(contract: Contract, large: bool) -> None:
    findings = [run(check) for check in checks([contract], [ABLE.get(contract.id, mutants.SOUND)], _where(contract, large), large)]
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

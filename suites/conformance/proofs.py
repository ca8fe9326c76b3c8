"""The proof of every contract on its mutants, made once for all the tests that look at it."""

from __future__ import annotations

from functools import lru_cache

import pytest

from harness.contract import Contract, Proof, devices, prove
from harness.implementation import Implementation
from suites.conformance import mutants
from suites.conformance.catalogue import CATALOGUE

PAIRS = [(contract, mutant) for contract in CATALOGUE for mutant in mutants.registered()[contract.id]]

#: Parametrizes a test with every contract and each of its mutants. Of the session's scope, for pytest then runs the tests of one pair one
#: after another, whatever module they are in: the proof is still there for the second.
of_every_mutant = pytest.mark.parametrize(
    ("contract", "mutant"), PAIRS, ids=[f"{contract.id}-{mutant.id}" for contract, mutant in PAIRS], scope="session"
)


@lru_cache(maxsize=4)
def proof(contract: Contract, mutant: Implementation) -> Proof:
    """The proof, on the device that the contract is about."""
    return prove(contract, mutant, where(contract))


def where(contract: Contract, large: bool = True) -> list[str]:
    """The device on which a contract is proven; skips the test that asks where there is none. ``large``: whether memory may be spent."""
    if missing := contract.missing(large):
        pytest.skip(f"{contract.id}: {missing}")
    device = contract.only_on or "cpu"
    if device not in devices():
        pytest.skip(f"{contract.id} is about {device}, which this machine does not have")
    return [device]

"""For other projects: the contracts on their own class, from their own tests or without any.

from suites.conformance.drop_in import parametrize_with_contracts

@parametrize_with_contracts(MyLSTM, expected_failures={"module.printable": "its repr needs a device"})
def test_my_lstm_is_a_drop_in(check):
    check()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from harness.contract import Check, Contract, check, checks, devices, run
from harness.implementation import ExpectedFailure, Implementation
from harness.pytest_plugin import conclude
from harness.record import Conformance
from harness.registry import Maker, resolve, wrapped
from suites.conformance.catalogue import CATALOGUE

#: A class or what else makes a layer, an implementation, or a reference as ``--implementation`` takes it.
Candidate = Maker | Implementation | str

#: Contract id -> why it is known to fail; or declarations in full.
Expected = Mapping[str, str] | Iterable[ExpectedFailure]


def findings(
    candidate: Candidate,
    kind: str = "",
    *,
    expected_failures: Expected = (),
    contracts: Sequence[Contract] | None = None,
    on: Sequence[str] | None = None,
) -> list[Conformance]:
    """One record for each check of ``candidate`` on the devices ``on`` (all of this machine), without pytest and in this process.

    ``contracts``: those to check, of :data:`~suites.conformance.catalogue.CATALOGUE`; all of them unless some are given.
    ``kind`` ('rnn', 'gru' or 'lstm') is for what subclasses none of nn's classes. Raises ValueError for a contract in
    ``expected_failures`` that there is not.
    """
    return check(_implementation(candidate, kind, expected_failures), CATALOGUE if contracts is None else contracts, on)


@dataclass(frozen=True)
class Call:
    """One check of one contract on one case; calling it passes, fails, or skips the running test with the reason."""

    check: Check

    def __call__(self) -> None:
        conclude(run(self.check))


def parametrize_with_contracts(
    candidate: Candidate,
    kind: str = "",
    *,
    expected_failures: Expected = (),
    contracts: Sequence[Contract] | None = None,
    on: Sequence[str] | None = None,
) -> pytest.MarkDecorator:
    """Decorates a test function of one argument ``check``, which it has only to call; arguments as :func:`findings`.

    An expected failure is strict: another exception, or a pass, fails the test.
    """
    asked = CATALOGUE if contracts is None else contracts
    found = list(checks(asked, [_implementation(candidate, kind, expected_failures)], on or devices()))
    return pytest.mark.parametrize("check", [Call(one) for one in found], ids=[one.id for one in found])


def _implementation(candidate: Candidate, kind: str, expected: Expected) -> Implementation:
    if isinstance(candidate, str):
        implementation = resolve(candidate)
    else:
        implementation = candidate if isinstance(candidate, Implementation) else wrapped(candidate, kind)
    if isinstance(expected, Mapping):
        expected = [ExpectedFailure(id, "ours", reason, Exception, "") for id, reason in expected.items()]
    declared = tuple(expected)
    known = {contract.id for contract in CATALOGUE}
    unknown = [failure.contract for failure in declared if failure.contract not in known]
    if unknown:
        raise ValueError(f"Expected the ids of contracts in expected_failures but got {', '.join(unknown)}; CATALOGUE.md lists them all")
    return replace(implementation, expected_failures=(*implementation.expected_failures, *declared))

"""How a topic declares its contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.case import Array, Case
from harness.contract import Contract
from harness.outcome import Severity
from harness.reproduction import FORWARD
from harness.trial import Trial
from suites.conformance import mutants

MUST, SHOULD, MAY = Severity.MUST, Severity.SHOULD, Severity.MAY


def contract(
    id: str,
    statement: str,
    severity: Severity,
    source: str,
    cases: Iterable[Case],
    alternatives: Callable[[Case], Mapping[str, Mapping[str, Array]]] | None = None,
    needs_constructor: bool = False,
    only_on: str = "",
    needs: tuple[str, ...] = (),
    gibibytes: int = 0,
    time_limit_factor: int = 1,
    demonstration: str = FORWARD,
) -> Callable[[Callable[[Trial], None]], Contract]:
    """Makes a function that takes a trial into the contract ``id``; its mutants are those registered under this id."""

    def declare(check: Callable[[Trial], None]) -> Contract:
        proof = tuple(mutant.id for mutant in mutants.registered().get(id, ()))
        return Contract(
            id,
            statement,
            severity,
            source,
            check,
            tuple(cases),
            proof,
            alternatives=alternatives,
            needs_constructor=needs_constructor,
            only_on=only_on,
            needs=needs,
            gibibytes=gibibytes,
            time_limit_factor=time_limit_factor,
            demonstration=demonstration,
        )

    return declare


def in_docs(heading: str) -> str:
    """A heading of torch's documentation as a source."""
    return f"torch.nn.{heading}"

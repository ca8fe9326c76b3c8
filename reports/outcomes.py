"""What became of conformance from one set of runs to another, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.outcome import Outcome
from reports import speed
from reports.analysis import BREAKING, WORST_FIRST, Findings
from reports.tables import rows

_NOTHING = (Outcome.DOES_NOT_APPLY, Outcome.UNAVAILABLE)
"""Outcomes that say nothing about an implementation."""


@dataclass(frozen=True)
class Changed:
    """The worst outcome of one contract, or of one timed workload, in BASE and in HEAD; empty in ``head`` where HEAD did not run it."""

    implementation: str
    what: str
    base: str
    head: str

    @property
    def worse(self) -> bool:
        return _rank(self.head) < _rank(self.base)

    @property
    def broken(self) -> bool:
        """Whether HEAD breaks what BASE kept."""
        return self.head in BREAKING and self.base not in BREAKING


@dataclass(frozen=True)
class Changes:
    """``worse`` and ``better``: what both ran, with another outcome, the worst first. ``gone``: what BASE ran and HEAD did not.

    ``new``: what only HEAD ran, with an outcome that breaks it.
    """

    worse: list[Changed]
    better: list[Changed]
    gone: list[Changed]
    new: list[Changed]

    @property
    def broken(self) -> list[Changed]:
        return [change for change in self.worse if change.broken]


def changes(base: Findings, head: Findings) -> Changes:
    """What became of every contract and of every timed workload, implementation by implementation."""
    before, after = _outcomes(base), _outcomes(head)
    both = [Changed(*key, before[key], after[key]) for key in after if key in before and before[key] != after[key]]
    return Changes(
        _ordered(change for change in both if change.worse),
        _ordered(change for change in both if not change.worse),
        [Changed(*key, outcome, "") for key, outcome in before.items() if key not in after],
        _ordered(Changed(*key, "", outcome) for key, outcome in after.items() if key not in before and outcome in BREAKING),
    )


def _outcomes(findings: Findings) -> dict[tuple[str, str], str]:
    """(implementation, contract or workload) -> its worst outcome, where that says something."""
    checked = {(row.implementation, row.contract): row.outcome for row in rows(findings.matrix)}
    cells = speed.latest(findings.cells, findings.frames.runs)
    timed: dict[tuple[str, str], str] = {}
    for row in rows(cells):
        key = (row.implementation, row.workload)
        timed[key] = min(timed.get(key, row.outcome), row.outcome, key=_rank)
    return {key: outcome for key, outcome in {**checked, **timed}.items() if outcome and outcome not in _NOTHING}


def _rank(outcome: str) -> int:
    return WORST_FIRST.index(Outcome(outcome))


def _ordered(found: Iterable[Changed]) -> list[Changed]:
    return sorted(found, key=lambda change: (_rank(change.head), change.implementation, change.what))

"""One set of runs beside another, machine by machine: verdicts, outcomes and the environment that changed; times are in comparison.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.outcome import Outcome
from reports.analysis import BREAKING, WORST_FIRST, Findings
from reports.comparison import Difference, difference
from reports.environments import Differing, differing
from reports.tables import rows


class Kind(StrEnum):
    """What became of a contract, or of a timed workload, on an implementation."""

    BROKE = "broke"
    WORSE = "worse"
    MENDED = "mended"
    BETTER = "better"
    APPEARED = "appeared"
    VANISHED = "vanished"

    @property
    def meaning(self) -> str:
        return {
            "broke": "kept in BASE, broken in HEAD",
            "worse": "a worse outcome, and both are right or both wrong",
            "mended": "broken in BASE, kept in HEAD",
            "better": "a better outcome, and both are right or both wrong",
            "appeared": "not in BASE",
            "vanished": "not in HEAD",
        }[self.value]


@dataclass(frozen=True)
class OutcomeChange:
    """One contract, or one timed workload, on one implementation. ``before``, ``after``: its worst outcome, empty where it was not run.

    ``cases``: those that both have and whose outcome differs, as (case, before, after).
    """

    what: str
    implementation: str
    kind: Kind
    before: str
    after: str
    cases: list[tuple[str, str, str]]

    @property
    def breaks(self) -> bool:
        """Whether HEAD breaks what BASE had right, or what it did not run."""
        return self.kind is Kind.BROKE or (self.kind is Kind.APPEARED and self.after in BREAKING)


@dataclass(frozen=True)
class VerdictChange:
    """The verdict on one implementation before and after; empty where it was not in the runs."""

    implementation: str
    before: str
    after: str


@dataclass(frozen=True)
class Beside:
    """What became of one machine's results. ``machine`` is empty where there is one. ``shared``: how many outcomes both sides have."""

    machine: str
    verdicts: list[VerdictChange]
    shared: int
    outcomes: list[OutcomeChange]
    speed: Difference
    environment: list[Differing]

    def of(self, *kinds: Kind) -> list[OutcomeChange]:
        """The changes of outcomes of these kinds, the worst of HEAD first."""
        found = [change for change in self.outcomes if change.kind in kinds]
        return sorted(found, key=lambda one: _rank(one.after or one.before))


@dataclass(frozen=True)
class Changes:
    """What became of BASE in HEAD: machines that both have, and those that only one has."""

    beside: list[Beside]
    appeared: list[str]
    vanished: list[str]

    @property
    def any_compared(self) -> bool:
        """Whether anything was: a gate that compares nothing must not pass for one that found nothing."""
        return any(one.shared or one.speed.changes for one in self.beside)


def changes(base: Findings, head: Findings) -> Changes:
    """Pairs the machines by name; where either side has but one, these two."""
    before, after = ({part.machines[0]: part for part in side.parts} for side in (base, head))
    if len(before) == len(after) == 1:
        return Changes([_beside("", *before.values(), *after.values())], [], [])
    shared = [name for name in after if name in before]
    return Changes(
        [_beside(name, before[name], after[name]) for name in shared],
        [name for name in after if name not in before],
        [name for name in before if name not in after],
    )


def _beside(machine: str, base: Findings, head: Findings) -> Beside:
    before, after = _outcomes(base), _outcomes(head)
    shared = sum(len(before[key].keys() & after[key].keys()) for key in before.keys() & after.keys())
    times = difference(base.frames, head.frames)
    environment = differing(base.frames.runs["environment"], head.frames.runs["environment"])
    return Beside(machine, _verdicts(base, head), shared, _changed(before, after), times, environment)


def _verdicts(base: Findings, head: Findings) -> list[VerdictChange]:
    before, after = ({row.implementation: str(row.suitability) for row in rows(side.verdicts)} for side in (base, head))
    found = [VerdictChange(name, before.get(name, ""), after.get(name, "")) for name in dict.fromkeys([*after, *before])]
    return [one for one in found if one.before != one.after]


_Key = tuple[str, str]
_Outcomes = dict[_Key, dict[str, str]]

_NOTHING = (Outcome.DOES_NOT_APPLY, Outcome.UNAVAILABLE)
"""Outcomes that say nothing about an implementation."""


def _outcomes(findings: Findings) -> _Outcomes:
    """(contract or workload, implementation) -> case -> its outcome, the worst where a case was run in several ways."""
    checked = [
        (row.contract, row.implementation, f"{row.case} on {row.device}" if row.device else row.case, row.outcome)
        for row in rows(findings.current.conformance)
    ]
    timed = [(row.workload, row.implementation, f"{row.device}, {row.configuration}", row.outcome) for row in rows(findings.newest_cells)]
    answer: _Outcomes = {}
    for what, implementation, case, outcome in checked + timed:
        if outcome not in _NOTHING:
            own = answer.setdefault((what, implementation), {})
            own[case] = min(own.get(case, outcome), outcome, key=_rank)
    return answer


def _rank(outcome: str) -> int:
    return WORST_FIRST.index(Outcome(outcome)) if outcome else len(WORST_FIRST)


def _changed(before: _Outcomes, after: _Outcomes) -> list[OutcomeChange]:
    answer = []
    for key in dict.fromkeys([*after, *before]):
        old, new = before.get(key, {}), after.get(key, {})
        worst = [min(found.values(), key=_rank, default="") for found in (old, new)]
        cases = [(case, old[case], new[case]) for case in new if case in old and old[case] != new[case]]
        if cases or worst[0] != worst[1]:
            answer.append(OutcomeChange(*key, _kind(worst[0], worst[1], cases), worst[0], worst[1], cases))
    order = list(Kind)
    return sorted(answer, key=lambda one: order.index(one.kind))


def _kind(before: str, after: str, cases: list[tuple[str, str, str]]) -> Kind:
    if not before or not after:
        return Kind.VANISHED if before else Kind.APPEARED
    moves = [(old, new) for _, old, new in cases] + [(before, after)]
    # A case that broke is told although another of the contract was broken before, and what became worse although something is better.
    if any(new in BREAKING and old not in BREAKING for old, new in moves):
        return Kind.BROKE
    if any(_rank(new) < _rank(old) for old, new in moves):
        return Kind.WORSE
    return Kind.MENDED if any(old in BREAKING and new not in BREAKING for old, new in moves) else Kind.BETTER

"""What the template prints of two sets of runs side by side."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.statistics import LEVEL, Verdict
from reports import comparison
from reports.changes import Beside, Changes, Kind, OutcomeChange
from reports.tables import counted, listed
from reports.words import interval, sortable

CASES_NAMED = 8
"""Cases of one change that are named; the rest are counted."""

_ORDER = (Verdict.SLOWER, Verdict.FASTER, Verdict.UNDECIDED, Verdict.SAME)


def sides(changes: Changes) -> list[dict[str, Any]]:
    """What changed, machine by machine."""
    return [_side(one) for one in changes.beside]


def _side(one: Beside) -> dict[str, Any]:
    speed, judged = one.speed, not one.speed.mismatches
    kinds = Counter(change.kind for change in one.outcomes)
    counts = Counter(change.verdict for change in speed.changes)
    sentences = []
    if one.outcomes:
        sentences.append(f"Contracts and timed workloads: {listed([f'{kinds[kind]} {kind}' for kind in Kind if kinds[kind]])}.")
    else:
        sentences.append("No contract and no timed workload has another outcome.")
    if speed.changes and judged:
        told = listed([f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict]])
        sentences.append(f"Of {counted(len(speed.changes), 'comparison')} of times: {told}.")
    elif speed.changes:
        sentences.append(f"{counted(len(speed.changes), 'comparison')} of times, none of them judged: the environments do not match.")
    else:
        sentences.append("No time can be compared: no workload was timed beside one baseline in both.")
    return {
        "machine": one.machine,
        "sentences": sentences,
        "mismatches": speed.mismatches,
        "level": f"{LEVEL:.0%}",
        "verdicts": [(change.implementation, change.before, change.after) for change in one.verdicts],
        "environment": one.environment,
        "outcomes": [_outcome(change) for change in one.outcomes],
        "kinds": [(str(kind), kind.meaning) for kind in Kind if kinds[kind]],
        "speed": [_speed(change, judged) for change in sorted(speed.changes, key=_rank)],
        "appeared": speed.appeared,
        "vanished": speed.vanished,
    }


def _rank(change: comparison.Change) -> tuple[int, float]:
    return _ORDER.index(Verdict(change.verdict)), -abs(change.ratio - 1)


def _outcome(change: OutcomeChange) -> dict[str, Any]:
    named = [f"{case}: {before} → {after}" for case, before, after in change.cases[:CASES_NAMED]]
    rest = len(change.cases) - len(named)
    return {
        "what": change.what,
        "implementation": change.implementation,
        "kind": str(change.kind),
        "before": change.before,
        "after": change.after,
        "cases": named + ([f"and {counted(rest, 'more case')}"] if rest else []),
        "number": len(change.cases),
    }


def _speed(change: comparison.Change, judged: bool) -> dict[str, Any]:
    return {
        "implementation": change.implementation,
        "workload": change.workload + comparison.told(change.caches),
        "verdict": change.verdict if judged else "not judged",
        "ratio": change.ratio,
        "interval": ("" if change.low is None else sortable(change.low), interval(change.low, change.high)),
        "base": change.base,
        "head": change.head,
        "control": change.control,
    }

"""What an implementation costs: set-up, steps, warm-up and when it pays, memory, and how near it comes to the limit."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pandas as pd

from harness.outcome import Outcome
from harness.statistics import Verdict
from reports import metrics, speed
from reports.columns import COSTS
from reports.load import Frames
from reports.tables import rows

_WHO = ["mode", "timed_pass", "place", "configuration", "implementation"]
_TAKEN = ("limit_share", "limit_bound", "host_share", "memory_bytes", "memory_resolution", "memory_method", "memory_unavailable")


def costs(frames: Frames, cells: pd.DataFrame, relative: pd.DataFrame, implementations: list[str]) -> pd.DataFrame:
    """One row per implementation, pass and configuration that was asked for and available; columns :data:`reports.columns.COSTS`.

    ``cells`` and ``relative``: as :func:`reports.speed.cells` and :func:`reports.speed.relative` make them.
    """
    current = list(rows(speed.latest(cells, frames.runs)))
    at = {(*_identity(row), row.implementation): row for row in current}
    beside = {(*_identity(row), row.implementation): row for row in rows(relative)}
    baselines = {(*_identity(row), row.baseline) for row in beside.values()}
    order = {name: place for place, name in enumerate(implementations)}
    # In lists and not in frames: a small frame for each implementation takes a hundred times as long as its rows.
    asked: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    for row in current:
        if row.sequence_length > 0:
            group = asked.setdefault(tuple(getattr(row, name) for name in _WHO[:-1]), {})
            group.setdefault(row.implementation, []).append(row)
    answer = []
    for group in asked.values():
        for name in sorted(group, key=order.__getitem__):
            own = sorted(group[name], key=lambda row: int(row.sequence_length))
            if any(row.outcome != Outcome.UNAVAILABLE for row in own):
                answer.append(_row(own, at, beside, baselines))
    return pd.DataFrame({name: pd.Series([row[name] for row in answer], dtype=dtype) for name, (dtype, _) in COSTS.items()})


_ByCell = dict[tuple[Any, ...], Any]
"""(what two cells must share, implementation) -> row."""


def _identity(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in speed.IDENTITY)


def _row(own: list[Any], at: _ByCell, beside: _ByCell, baselines: set[tuple[Any, ...]]) -> dict[str, Any]:
    """The row of one implementation from its cells, shortest first."""
    timed = [cell for cell in own if cell.samples > 0]
    answer: dict[str, Any] = {name: getattr(own[0], name) for name in _WHO}
    answer |= {name: math.nan if COSTS[name][0] == "float64" else "" for name in COSTS if name not in answer}
    lengths = [cell.sequence_length for cell in timed]
    answer |= {"sequence_length": 0, "lengths": len(set(lengths)), "lost": _lost([cell for cell in own if cell.samples == 0])}
    line = metrics.line(lengths, [cell.seconds for cell in timed])
    if line is not None:
        answer |= asdict(line)
    if not timed:
        return answer
    last = timed[-1]
    cost = _warm_up_cost(last)
    answer |= {name: getattr(last, name) for name in _TAKEN} | {"sequence_length": last.sequence_length, "warm_up_cost": cost}
    identity = _identity(last)
    if (*identity, last.implementation) in baselines:
        return answer | {"baseline": last.implementation}
    found = beside.get((*identity, last.implementation))
    if found is None:
        return answer
    base = at[(*identity, found.baseline)]
    pays_after = metrics.break_even(cost - _warm_up_cost(base), base.seconds - last.seconds, Verdict(found.verdict))
    return answer | {"baseline": found.baseline, "verdict": found.verdict, "pays_after": pays_after}


def _warm_up_cost(cell: Any) -> float:
    # The first calls are made before anything overwrites the caches: they are no measure of calls with cold ones.
    return math.nan if cell.caches == "cold" else metrics.warm_up_cost(cell.warm_up, cell.seconds)


def _lost(cells: list[Any]) -> list[str]:
    """The lengths without a time, by what became of them: ``out of memory at T=512 (B=8 fits), 1024 (no smaller B fits)``."""
    lengths: dict[str, list[str]] = {}
    for cell in cells:
        lengths.setdefault(cell.outcome, []).append(f"{cell.sequence_length}{fitting(cell.fits_batch)}")
    return [f"{outcome.replace('-', ' ')} at T={', '.join(where)}" for outcome, where in lengths.items()]


def fitting(batch: Any) -> str:
    """In brackets, the batch that fitted where the one that was asked for did not; empty where none was tried."""
    return "" if pd.isna(batch) else f" (B={batch} fits)" if batch else " (no smaller B fits)"

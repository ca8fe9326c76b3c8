"""Comparisons as data: every timed implementation beside its baseline, and one run beside another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.outcome import Outcome
from harness.statistics import Effect, Verdict, verdicts
from reports import environments, speed
from reports.load import Frames
from reports.rounds import Rounds
from reports.tables import counted, rows


@dataclass(frozen=True)
class Comparison:
    """One implementation on one workload beside its baseline.

    ``ratio``: seconds of the implementation over seconds of the baseline, above 1 is slower; ``low`` and ``high`` its 99 % interval, None
    where there were too few rounds. ``verdict``: with control over all comparisons that were made together. ``seconds``: how long both
    were sampled. ``caches``: 'hot' or 'cold' before every call; hot where a run does not say. ``threads``: 0 where it does not say.
    """

    workload: str
    implementation: str
    baseline: str
    ratio: float
    low: float | None
    high: float | None
    verdict: str
    seconds: float
    rounds: int
    machine: str
    device: str
    caches: str
    threads: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Pair:
    effect: Effect
    fields: dict[str, Any]


def compared(frames: Frames, baseline: str = "") -> list[Comparison]:
    """Every timed cell beside the baseline of its workload, in the order of the runs; the verdicts hold for all of them as a family.

    ``baseline`` names another one than the runs do; a workload on which that was not timed has no comparison.
    """
    pairs = _pairs(frames, baseline)
    judged = verdicts({str(number): pair.effect for number, pair in enumerate(pairs)})
    return [_comparison(pair, judged[str(number)]) for number, pair in enumerate(pairs)]


def _comparison(pair: _Pair, verdict: Verdict) -> Comparison:
    low, high = (None if math.isnan(end) else end for end in pair.effect.interval())
    return Comparison(ratio=pair.effect.ratio, low=low, high=high, verdict=verdict.value, rounds=pair.effect.rounds, **pair.fields)


def left_out(frames: Frames, found: list[Comparison]) -> list[str]:
    """The workloads that were timed, and of which nothing is among the comparisons that were ``found``."""
    compared = {one.workload for one in found}
    return [str(name) for name in frames.timed["workload"].unique() if name not in compared]


def _pairs(frames: Frames, baseline: str) -> list[_Pair]:
    current = speed.latest(speed.cells(frames), frames.runs)
    timed = current[current["samples"] > 0]
    rounds = Rounds(frames)
    names = list(dict.fromkeys(timed["implementation"]))
    chosen = speed.baselines(timed, frames, names, baseline)
    answer = []
    # A workload may have been timed in several ways, with cold caches or more threads; what is timed in another way is not beside it.
    for (workload, *_), group in timed.groupby(["workload", "place", "configuration"], sort=False):
        own = {row.implementation: row for row in rows(group)}
        first = next(iter(own.values()))
        base = own.get(chosen[first.run, first.mode, first.place])
        for name, row in own.items():
            if base is None or name == base.implementation or baseline not in ("", base.implementation):
                continue
            found = rounds.beside(row.cell, base.cell)
            if not found.rounds:
                continue
            shared = rounds.shared(row.cell, base.cell)
            spent = sum(rounds.of(one.cell)[n] * (one.calls + one.untimed) for one in (row, base) for n in shared)
            fields = {"workload": workload, "implementation": name, "baseline": base.implementation, "seconds": spent}
            answer.append(
                _Pair(
                    found, {**fields, "machine": row.machine, "device": row.device, "caches": row.caches or "hot", "threads": row.threads}
                )
            )
    return answer


@dataclass(frozen=True)
class Change:
    """One implementation on one workload, its time beside its control's, in one run beside another.

    ``base`` and ``head``: seconds over seconds of the control in either run; ``ratio`` = head / base with its 99 % interval: above 1 it
    became slower. ``caches``, ``threads`` and ``machine`` as in :class:`Comparison`, of HEAD.
    """

    workload: str
    implementation: str
    control: str
    caches: str
    threads: int
    machine: str
    base: float
    head: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """What became of the comparisons of one set of runs in another. ``appeared`` and ``vanished``: those that only one of them has.

    ``broke``: of those that vanished, what has no right answer in HEAD any more, or no answer at all, in sentences.
    ``mismatches``: what differs between the environments, in sentences; where there are any, no verdict is to be relied on.
    """

    changes: list[Change]
    appeared: list[str]
    vanished: list[str]
    broke: list[str]
    mismatches: list[str]

    @property
    def slower(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == Verdict.SLOWER]


def difference(base: Frames, head: Frames, control: str = "") -> Difference:
    """Compares the ratios to the control in ``head`` with those in ``base``: absolute times do not travel from run to run."""
    pairs = [_pairs(frames, control) for frames in (base, head)]
    before, after = _keyed(*pairs)
    shared = [key for key in after if key in before]
    effects = {"\n".join(key): _changed(before[key].effect, after[key].effect) for key in shared}
    judged = verdicts(effects)
    changes = []
    for key in shared:
        found, fields = effects["\n".join(key)], after[key].fields
        low, high = (None if math.isnan(end) else end for end in found.interval())
        changes.append(
            Change(
                **{name: fields[name] for name in ("workload", "implementation", "caches", "threads", "machine")},
                control=fields["baseline"],
                base=before[key].effect.ratio,
                head=after[key].effect.ratio,
                ratio=found.ratio,
                low=low,
                high=high,
                verdict=judged["\n".join(key)].value,
            )
        )
    return Difference(
        changes,
        [_name(key) for key in after if key not in before],
        [_name(key) for key in before if key not in after],
        _broke([before[key].fields for key in before if key not in after], head),
        _mismatches(base, head),
    )


def _broke(vanished: list[dict[str, Any]], head: Frames) -> list[str]:
    """What became in ``head`` of the implementations, and of their controls, that had a time in comparisons that ``vanished``."""
    cells = speed.newest(speed.cells(head), head.runs)
    without = {
        (row.workload, row.implementation, row.caches or "hot"): row.outcome for row in rows(cells) if Outcome(row.outcome).fails_run
    }
    timed = [(one["workload"], one[who], one["caches"]) for one in vanished for who in ("implementation", "baseline")]
    return [f"{key[1]} on {key[0]}{told(key[2])}: {without[key]} in HEAD" for key in dict.fromkeys(timed) if key in without]


_KEY = ("workload", "implementation", "baseline", "caches")


def _keyed(*sides: list[_Pair]) -> list[dict[tuple[str, ...], _Pair]]:
    """The pairs of either side by what they share with one of the other.

    Threads and machine belong to it where one side has a workload with several of them. Else they do not: that the other side has another
    machine is a mismatch, which is told as that.
    """
    several = any(max(Counter(_key(pair, _KEY) for pair in side).values(), default=0) > 1 for side in sides)
    names = (*_KEY, "threads", "machine") if several else _KEY
    return [{_key(pair, names): pair for pair in side} for side in sides]


def _key(pair: _Pair, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(pair.fields[name]) for name in names)


def _name(key: tuple[str, ...]) -> str:
    return f"{key[1]} beside {key[2]} on {key[0]}{told(key[3])}" + (f", {key[4]} threads of {key[5]}" if len(key) > len(_KEY) else "")


def told(caches: str) -> str:
    """The caches in words, after the name of a workload: what is not the usual is said."""
    return ", cold caches" if caches == "cold" else ""


def wheres(found: Sequence[Comparison] | Sequence[Change]) -> list[str]:
    """How each was timed, in words to stand after the name of its workload: what it is one of several in is said."""
    threads, machines = {one.threads for one in found}, {one.machine for one in found}
    return [
        told(one.caches)
        + (f", {counted(one.threads, 'thread')}" if len(threads) > 1 else "")
        + (f" of {one.machine}" if len(machines) > 1 else "")
        for one in found
    ]


def _changed(before: Effect, after: Effect) -> Effect:
    """The effect of a change: the difference of two effects, as unsure as both together."""
    return Effect(
        after.log - before.log,
        math.hypot(after.error, before.error),
        min(after.freedom, before.freedom),
        min(after.rounds, before.rounds),
        # Two processes lay things out anew, each for itself.
        after.systematic + before.systematic,
    )


def _mismatches(base: Frames, head: Frames) -> list[str]:
    found = environments.differing(base.runs["environment"], head.runs["environment"])
    sentences = [f"{one.name}: {one.before or 'nothing'} in BASE, {one.after or 'nothing'} in HEAD" for one in found if one.must_match]
    threads = [set(frames.throughput["threads"]) for frames in (base, head)]
    if all(threads) and threads[0] != threads[1]:
        sentences.append(f"threads: {sorted(threads[0])} in BASE, {sorted(threads[1])} in HEAD")
    return sentences

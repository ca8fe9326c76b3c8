"""Two environments side by side: what was compared, what became of it, and what differs between the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.outcome import Outcome
from harness.statistics import Verdict
from reports.fields import mapping, text, whole
from reports.frames import Frames
from reports.tables import counted, listed, rows

SIDES = ("base", "head")

_OF_A_VERSION = ("python", "cuda", "cudnn", "onednn", "mkl")
"""Versions that no package manager knows of; where one knows more of the same name, that is what counts."""

_GRAVEST = (Verdict.SLOWER, Verdict.FASTER, Verdict.UNDECIDED, Verdict.SAME)


@dataclass(frozen=True)
class SideBySide:
    """The comparisons of two environments on one machine, the latest of each.

    ``machine`` is empty where there is one. ``compared`` are rows of the frame ``versus`` that have a ratio, the gravest first, and
    ``failed`` those that have none. ``never``: workloads that were asked for, and of which nothing was recorded. ``differences``: what
    is installed in one and not, or with another version, in the other, as (name, in base, in head). ``common``: what both say of
    themselves alike, by name. ``most``: pairs of processes that might have been compared. ``incomplete``: whether a run was cut short.
    """

    machine: str
    base: str
    head: str
    compared: list[Any]
    failed: list[Any]
    never: list[str]
    differences: list[tuple[str, str, str]]
    common: dict[str, str]
    most: int | None
    incomplete: bool

    @property
    def slower(self) -> list[Any]:
        return self.of(Verdict.SLOWER)

    def of(self, verdict: Verdict) -> list[Any]:
        """The comparisons with this verdict."""
        return [row for row in self.compared if row.verdict == verdict]

    @property
    def told(self) -> str:
        """What became of the comparisons, in words."""
        without = f"{counted(len(self.failed), 'comparison')} without a time"
        if not self.compared:
            return without
        counts = [f"{len(self.of(verdict))} {verdict}" for verdict in _GRAVEST if self.of(verdict)]
        return f"of {counted(len(self.compared), 'comparison')} {listed(counts)}" + (f"; {without}" if self.failed else "")


def left_open(found: Sequence[SideBySide]) -> str:
    """How much of what was to be compared nothing is decided of, in words; empty where that is none."""
    undecided = sum(len(one.of(Verdict.UNDECIDED)) for one in found)
    failed, never = sum(len(one.failed) for one in found), sum(len(one.never) for one in found)
    counts = ((undecided, "undecided"), (failed, "without a time"), (never, "never begun"))
    return listed([f"{number} {what}" for number, what in counts if number])


def side_by_side(frames: Frames, machine: str = "") -> list[SideBySide]:
    """What ``frames`` say of environments side by side, in the order of the runs. ``machine``: its name where it is one of several."""
    created = dict(zip(frames.runs["run"], frames.runs["created"], strict=True))
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    order = {run: place for place, run in enumerate(sorted(created, key=lambda run: str(created[run])))}
    for row in sorted(rows(frames.versus), key=lambda row: order[row.run]):
        policy = _policy(frames, row.run)
        versions = {side: _versions(policy, side) for side in SIDES}
        # Two environments may have the names of two others: they are what is installed in them.
        key = row.base, row.head, *(tuple(sorted(versions[side].items())) for side in SIDES)
        group = groups.setdefault(key, {"rows": {}, "runs": {}, "versions": versions})
        # A run that went on from another has all that this one had.
        group["rows"][row.workload, row.implementation, row.device, row.threads] = row
        group["runs"][row.run] = policy
    return [_side_by_side(frames, machine, str(key[0]), str(key[1]), group) for key, group in groups.items()]


def _side_by_side(frames: Frames, machine: str, base: str, head: str, group: Mapping[str, Any]) -> SideBySide:
    found = list(group["rows"].values())
    compared: list[Any] = []
    failed: list[Any] = []
    for row in found:
        (compared if row.outcome == Outcome.PASSED and 0 < row.ratio < math.inf else failed).append(row)
    last = frames.runs[frames.runs["run"] == list(group["runs"])[-1]].iloc[0]
    # Where a file has other results too, nobody can say which of its workloads are these.
    alone = not any((frame["run"] == last["run"]).any() for frame in (frames.conformance, frames.throughput))
    named = {row.workload for row in found}
    versions = group["versions"]
    names = dict.fromkeys([*versions["base"], *versions["head"]])
    both = [(name, versions["base"].get(name, ""), versions["head"].get(name, "")) for name in names]
    return SideBySide(
        machine=machine,
        base=base,
        head=head,
        compared=sorted(compared, key=lambda row: (_rank(row.verdict), -abs(row.ratio - 1))),
        failed=failed,
        never=[str(name) for name in last["workloads"] if name not in named and alone],
        differences=[one for one in both if one[1] != one[2]],
        common={name: before for name, before, after in both if before == after},
        most=whole(group["runs"][last["run"]].get("pairs")),
        incomplete=not last["complete"] or any(not row.stopped for row in compared),
    )


def _rank(verdict: str) -> int:
    return _GRAVEST.index(Verdict(verdict)) if verdict in set(Verdict) else len(_GRAVEST)


def _policy(frames: Frames, run: str) -> Mapping[str, Any]:
    return mapping(frames.runs.loc[frames.runs["run"] == run, "policy"].iloc[0])


def _versions(policy: Mapping[str, Any], side: str) -> dict[str, str]:
    """Name -> version of everything that an environment says it has."""
    own = mapping(mapping(mapping(policy.get("environments")).get(side)).get("versions"))
    known = {name: text(own.get(name)) for name in _OF_A_VERSION} | {
        str(name): text(version) for name, version in mapping(mapping(policy.get("installed")).get(side)).items()
    }
    return {name: version for name, version in known.items() if version}

"""The part of the summary that says what has changed since BASE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.statistics import Verdict
from reports import comparison
from reports.changes import Beside, Changes, Kind, OutcomeChange
from reports.markdown import code, cut, folded, heading_code, limited
from reports.tables import counted
from reports.words import interval


def ratio(one: comparison.Comparison | comparison.Change) -> str:
    """A ratio with its interval."""
    return f"{one.ratio:.3f} ({interval(one.low, one.high)})"


def workload(one: comparison.Comparison | comparison.Change, where: str) -> str:
    """The workload of a comparison, and of what it is one of several there."""
    return code(one.workload + where)


@dataclass(frozen=True)
class Change:
    """What has changed since BASE, ready to be told."""

    found: Changes

    @property
    def broken(self) -> list[OutcomeChange]:
        return [change for one in self.found.beside for change in one.of(Kind.BROKE)]

    @property
    def slower(self) -> list[comparison.Change]:
        return [change for one in self.found.beside if _judged(one) for change in one.speed.slower]

    @property
    def regressed(self) -> bool:
        return bool(self.broken or self.slower)

    def parts(self, limit: int) -> Iterable[str]:
        yield "### What has changed since BASE"
        yield self._in_a_word()
        for side, names in (("HEAD", self.found.appeared), ("BASE", self.found.vanished)):
            if names:
                yield f"Machines in {side} alone, of which nothing is compared: {', '.join(map(code, names))}."
        for one in self.found.beside:
            if one.machine:
                yield f"#### On {heading_code(one.machine)}"
            yield from _beside(one, limit)

    def _in_a_word(self) -> str:
        if not self.found.any_compared:
            return "**Nothing is compared**: HEAD has no check and no time that BASE has too."
        wrong = len(self.broken)
        kept = f"**{counted(wrong, 'result')} that BASE had right went wrong**" if wrong else "nothing that BASE had right went wrong"
        judged = [change for one in self.found.beside if _judged(one) for change in one.speed.changes]
        if not any(one.speed.changes for one in self.found.beside):
            times = "no time can be compared"
        elif not judged:
            times = "times are not judged, because the environments differ"
        elif self.slower:
            times = f"**{counted(len(self.slower), 'comparison')} of {len(judged)} became slower**"
        else:
            times = f"none of {counted(len(judged), 'comparison')} is confirmed to have become slower"
        return f"In HEAD {kept}; {times}."


def _judged(one: Beside) -> bool:
    return not one.speed.mismatches


def _beside(one: Beside, limit: int) -> Iterable[str]:
    verdicts = [(code(change.implementation), change.before or "not there", change.after or "not there") for change in one.verdicts]
    yield limited(("implementation", "was", "is"), verdicts, limit, "implementation") if verdicts else ""
    new = [change for change in one.of(Kind.APPEARED) if change.breaks]
    for title, changed in (
        ("Worse", one.of(Kind.BROKE, Kind.WORSE)),
        ("Broken, and not run in BASE", new),
        ("Better", one.of(Kind.MENDED, Kind.BETTER)),
        ("No longer run", one.of(Kind.VANISHED)),
    ):
        yield _outcomes(title, changed, limit)
    yield from _times(one, limit)


def _outcomes(title: str, changed: list[OutcomeChange], limit: int) -> str:
    if not changed:
        return ""
    lines = [(code(one.implementation), code(one.what), one.before or "not run", one.after or "not run") for one in changed]
    told = limited(("implementation", "contract or workload", "was", "is"), lines, limit, "line")
    return f"**{title}: {len(changed)}**\n\n{told}" if title != "No longer run" or not limit else folded(f"{title}: {len(changed)}", told)


def _times(one: Beside, limit: int) -> Iterable[str]:
    speed = one.speed
    if speed.mismatches:
        yield "Environments that differ: " + "; ".join(code(sentence) for sentence in speed.mismatches) + "."
    where = dict(zip(speed.changes, comparison.wheres(speed.changes), strict=True))
    for verdict in (Verdict.SLOWER, Verdict.FASTER) if _judged(one) else ():
        found = sorted((change for change in speed.changes if change.verdict == verdict), key=lambda change: -abs(math.log(change.ratio)))
        if found:
            lines = [
                (code(change.implementation), workload(change, where[change]), f"{change.base:.3f} → {change.head:.3f}", ratio(change))
                for change in found
            ]
            control = ", ".join(code(name) for name in dict.fromkeys(change.control for change in found))
            told = limited(("implementation", "workload", "time over control's", "ratio"), lines, limit, "comparison")
            yield f"**Became {verdict}: {len(found)}** (control: {control})\n\n{told}"
    for title, names in (("New comparisons", speed.appeared), ("Comparisons that vanished", speed.vanished)):
        if names:
            shown, more = cut(names, limit, "comparison")
            yield folded(f"{title}: {len(names)}", "\n".join(f"- {code(name)}" for name in shown) + more)

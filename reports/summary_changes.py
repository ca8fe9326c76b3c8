"""The part of the summary that says what has changed since BASE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.statistics import Verdict
from reports import comparison
from reports.analysis import Findings
from reports.markdown import code, cut, folded, limited
from reports.outcomes import Changed, Changes, changes
from reports.tables import counted


def ratio(one: comparison.Comparison | comparison.Change) -> str:
    """A ratio with its interval."""
    return f"{one.ratio:.3f} ({'no interval' if one.low is None or one.high is None else f'{one.low:.3f} to {one.high:.3f}'})"


def workload(one: comparison.Comparison | comparison.Change, where: str) -> str:
    """The workload of a comparison, and of what it is one of several there."""
    return code(one.workload + where)


@dataclass(frozen=True)
class Change:
    """What has changed since BASE, ready to be told."""

    conformance: Changes
    speed: comparison.Difference
    verdicts: list[tuple[str, str, str]]

    @classmethod
    def between(cls, base: Findings, head: Findings) -> Change:
        was, now = (dict(zip(found.verdicts["implementation"], found.verdicts["verdict"], strict=True)) for found in (base, head))
        changed = [(name, was.get(name, "not there"), now.get(name, "not there")) for name in {**now, **was}]
        return cls(
            changes(base, head),
            comparison.difference(base.frames, head.frames),
            [(name, before, after) for name, before, after in changed if before != after],
        )

    @property
    def judged(self) -> bool:
        return not self.speed.mismatches

    @property
    def regressed(self) -> bool:
        return bool(self.conformance.broken or (self.judged and self.speed.slower))

    def parts(self, limit: int) -> Iterable[str]:
        yield "### What has changed since BASE"
        yield self._in_a_word()
        verdicts = [(code(name), before, after) for name, before, after in self.verdicts]
        yield limited(("implementation", "was", "is"), verdicts, limit, "implementation") if verdicts else ""
        found = self.conformance
        for title, changed in (
            ("Worse", found.worse),
            ("Broken, and not run in BASE", found.new),
            ("Better", found.better),
            ("No longer run", found.gone),
        ):
            yield self._outcomes(title, changed, limit)
        yield from self._times(limit)

    def _in_a_word(self) -> str:
        broken, slower = len(self.conformance.broken), len(self.speed.slower) if self.judged else 0
        kept = f"**{counted(broken, 'result')} that BASE had right went wrong**" if broken else "nothing that BASE had right went wrong"
        if not self.speed.changes:
            times = "no time can be compared"
        elif not self.judged:
            times = "times are not judged, because the environments differ"
        elif slower:
            times = f"**{counted(slower, 'comparison')} of {len(self.speed.changes)} became slower**"
        else:
            times = f"none of {counted(len(self.speed.changes), 'comparison')} is confirmed to have become slower"
        return f"In HEAD {kept}; {times}."

    @staticmethod
    def _outcomes(title: str, changed: list[Changed], limit: int) -> str:
        if not changed:
            return ""
        lines = [(code(one.implementation), code(one.what), one.base or "not run", one.head or "not run") for one in changed]
        told = limited(("implementation", "contract or workload", "was", "is"), lines, limit, "line")
        return (
            f"**{title}: {len(changed)}**\n\n{told}" if title != "No longer run" or not limit else folded(f"{title}: {len(changed)}", told)
        )

    def _times(self, limit: int) -> Iterable[str]:
        if self.speed.mismatches:
            yield "Environments that differ: " + "; ".join(code(sentence) for sentence in self.speed.mismatches) + "."
        where = dict(zip(self.speed.changes, comparison.wheres(self.speed.changes), strict=True))
        for verdict in (Verdict.SLOWER, Verdict.FASTER) if self.judged else ():
            found = sorted((one for one in self.speed.changes if one.verdict == verdict), key=lambda one: -abs(math.log(one.ratio)))
            if found:
                lines = [
                    (code(one.implementation), workload(one, where[one]), f"{one.base:.3f} → {one.head:.3f}", ratio(one)) for one in found
                ]
                control = ", ".join(code(name) for name in dict.fromkeys(one.control for one in found))
                told = limited(("implementation", "workload", "time over control's", "ratio"), lines, limit, "comparison")
                yield f"**Became {verdict}: {len(found)}** (control: {control})\n\n{told}"
        for title, names in (("New comparisons", self.speed.appeared), ("Comparisons that vanished", self.speed.vanished)):
            if names:
                shown, more = cut(names, limit, "comparison")
                yield folded(f"{title}: {len(names)}", "\n".join(f"- {code(name)}" for name in shown) + more)

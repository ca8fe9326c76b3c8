"""What the template prints first: the verdict on each implementation, and the fastest for each use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness import statistics
from harness.workload import Pass
from reports import speed, view_versus
from reports.analysis import Findings, Suitability
from reports.figures.style import MODE_NAMES, modes
from reports.frames import Frames
from reports.speed import Lead, lead
from reports.tables import counted, listed, rows
from reports.words import floors, sortable, times

MAIN_PASSES = (Pass.STREAMING, Pass.INFERENCE, Pass.TRAINING)
"""What people do with a layer. The other passes are parts of these."""


def headline(findings: Findings) -> tuple[str, list[str]]:
    """The verdict on everything: a title, and the paragraph below it as sentences."""
    if only_side_by_side(findings):
        return view_versus.headline(findings.side_by_side)
    title, sentences = _of_implementations(findings)
    return title, sentences + view_versus.summed_up(findings.side_by_side)


def only_side_by_side(findings: Findings) -> bool:
    """Whether environments were compared and no implementation was."""
    frames = findings.frames
    return len(frames.versus) > 0 and frames.conformance.empty and frames.throughput.empty


def _of_implementations(findings: Findings) -> tuple[str, list[str]]:
    parts = [part for part in findings.parts if len(part.verdicts)]
    if not findings.whole and len(parts) < 2:
        title, sentences = _headline(parts[0] if parts else findings)
        return title, sentences
    found = [(part.machine, *_headline(part)) for part in parts]
    titles = list(dict.fromkeys(title for _, title, _ in found))
    if len(titles) == 1:
        return f"On each of {len(found)} machines: {_lower(titles[0])}", [f"{name}: {' '.join(told)}" for name, _, told in found if told]
    return f"{len(found)} machines, {len(titles)} verdicts", [
        f"{name}: {' '.join([_lower(title) + '.', *told])}" for name, title, told in found
    ]


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _headline(findings: Findings) -> tuple[str, list[str]]:
    """The same of one machine."""
    count = Counter(findings.verdicts["suitability"])
    tested = sum(count[verdict] for verdict in (Suitability.DROP_IN, Suitability.PARTIAL, Suitability.SO_FAR, Suitability.NOT_DROP_IN))
    good = count[Suitability.DROP_IN]
    if not findings.tested:
        title = _untested(findings.frames)
    elif good == tested:
        title = "The one tested implementation is a drop-in" if tested == 1 else f"All {tested} tested implementations are drop-ins"
    elif good:
        title = f"{good} of {tested} tested implementations {'is a drop-in' if good == 1 else 'are drop-ins'}"
    elif count[Suitability.SO_FAR]:
        title = f"{count[Suitability.SO_FAR]} of {tested} tested implementations: no failure so far"
    else:
        title = "No tested implementation is a drop-in"
    names = {kind: list(findings.verdicts.loc[findings.verdicts["suitability"] == kind, "implementation"]) for kind in Suitability}
    sentences = []
    if names[Suitability.NOT_DROP_IN]:
        sentences.append(f"Not a drop-in: {', '.join(names[Suitability.NOT_DROP_IN])}.")
    if names[Suitability.PARTIAL]:
        sentences.append(f"A drop-in only in part, for what it does not refuse: {', '.join(names[Suitability.PARTIAL])}.")
    if names[Suitability.SO_FAR] and good:
        sentences.append(f"No failure so far, but not everything was run: {', '.join(names[Suitability.SO_FAR])}.")
    if names[Suitability.NOT_TESTED] and findings.tested:
        sentences.append(f"Not tested: {', '.join(names[Suitability.NOT_TESTED])}.")
    if names[Suitability.UNAVAILABLE]:
        sentences.append(f"Cannot run here: {', '.join(names[Suitability.UNAVAILABLE])}.")
    if not findings.tested and len(findings.cells):
        sentences.append("Nobody is named the fastest, because that takes a layer that conforms: run the contracts too.")
    return title, sentences + _fastest(findings.fastest)


def _untested(frames: Frames) -> str:
    """The title of runs in which no contract was run on an implementation: what they were instead."""
    if len(frames.throughput):
        return "Speed only: no contract was run"
    if len(frames.conformance):
        return "No contract could be run here"
    found = [what for what, frame in (("the suite", frames.mutations), ("the instrument", frames.calibrations)) if len(frame)]
    if not found:
        return "Nothing was run"
    told = f"{listed(found)} {'was' if len(found) == 1 else 'were'} put to the test, and no implementation"
    return told[:1].upper() + told[1:]


def _fastest(fastest: pd.DataFrame) -> list[str]:
    """Who is the fastest in how many uses, and what became of the rest."""
    if fastest.empty:
        return []
    leads = Counter(lead(row) for row in rows(fastest))
    words = {
        Lead.UNDECIDED: "undecided",
        Lead.SAME: f"the best two within {statistics.MARGIN:.0%}",
        Lead.NONE: "no conforming one with all the times",
    }
    # Who was there alone is the fastest of one.
    won, alone = (Counter(row.leader for row in rows(fastest) if lead(row) == kind).most_common() for kind in (Lead.WON, Lead.ALONE))
    rest = [f"{told} in {leads[kind]}" for kind, told in words.items() if leads[kind]]
    lists = [f"{name} in {number}" for name, number in won], [f"{name} alone in {number}" for name, number in alone], rest
    told = "; ".join(listed(found) for found in lists if found)
    return [f"The fastest conforming implementation, out of {counted(len(fastest), 'use')}: {told}."]


def verdict_rows(findings: Findings) -> list[dict[str, Any]]:
    """The verdict table: drop-ins first, machine by machine."""
    order = list(Suitability)
    answer = []
    for part in findings.parts:
        for row in sorted(rows(part.verdicts), key=lambda row: order.index(row.suitability)):
            total = max(row.contracts, 1)
            rest = row.contracts - row.passed - len(row.broken)
            shares = (("passed", row.passed), ("declared", rest), ("broken", len(row.broken)))
            answer.append(
                {
                    "machine": part.machine,
                    "implementation": row.implementation,
                    "suitability": row.suitability,
                    "meaning": Suitability(row.suitability).meaning,
                    "kind": row.suitability.replace(" ", "-"),
                    "reason": row.reason,
                    "broken": row.broken,
                    "causes": row.causes,
                    "expected": row.expected,
                    "unsupported": row.unsupported,
                    "contracts": row.contracts,
                    "passed": row.passed,
                    "bar": [(kind, 100 * number / total) for kind, number in shares],
                    "worst": (sortable(row.worst_ratio), floors(row.worst_ratio)),
                }
            )
    return answer


@dataclass(frozen=True)
class Line:
    """A row of a table of uses: a recurrence, its size where several were timed, and by length what is the fastest."""

    mode: str
    size: str
    uses: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Uses:
    """Rows by pass, with what stands above them where they are folded away."""

    summary: str
    groups: list[tuple[str, list[Line]]]


def fastest_tables(findings: Findings) -> list[dict[str, Any]]:
    """A table per machine, device and configuration but for B and H: passes and recurrences down, lengths across.

    ``main``: what people do with a layer, at the smallest and the largest size. ``folded``: the other passes, and the sizes between.
    """
    return [table for part in findings.parts for table in _tables(part.fastest)]


def _tables(fastest: pd.DataFrame) -> Iterable[dict[str, Any]]:
    for (place, rest), group in fastest.groupby(["place", "rest"], sort=False):
        present = set(group["length"])
        several = group["sizes"].nunique() > 1
        least, most = (group.groupby(["mode", "timed_pass"])["size"].transform(what) for what in ("min", "max"))
        group = group.assign(least=least, most=most)
        outer = (group["size"] == least) | (group["size"] == most)
        of_use = group["timed_pass"].isin(MAIN_PASSES)
        # What there is beside nothing else need not be folded away.
        main = group[outer & of_use] if of_use.any() else group[outer]
        folded = [
            ("The parts of a training step alone", group[outer & ~of_use & bool(of_use.any())]),
            ("The sizes between", group[~outer]),
        ]
        notes = Counter(note for found in group["passed_over"] for note in found)
        title = ", ".join(str(part) for part in (place, "" if several else group["sizes"].iloc[0], rest) if part)
        yield {
            "title": title,
            "sized": several,
            "lengths": [(name, _span(low, high)) for name, low, high in speed.LENGTHS if name in present],
            "main": Uses("", _groups(main, several)),
            "folded": [Uses(f"{word}: {_tally(own)}", _groups(own, several)) for word, own in folded if len(own)],
            "notes": [f"{note} ({counted(number, 'use')})" for note, number in notes.items()],
        }


def _groups(uses: pd.DataFrame, several: bool) -> list[tuple[str, list[Line]]]:
    """pass -> its rows, in the order of :data:`MAIN_PASSES`, recurrences as everywhere, small before large."""
    order = [*MAIN_PASSES, *(timed for timed in Pass if timed not in MAIN_PASSES)]
    passes = [str(timed) for timed in order] + sorted(set(uses["timed_pass"]) - {str(timed) for timed in order})
    answer = []
    for timed_pass in passes:
        own = uses[uses["timed_pass"] == timed_pass]
        lines = []
        for mode in modes(list(own["mode"])):
            for (size, sizes), group in own[own["mode"] == mode].groupby(["size", "sizes"]):
                least, most = group["least"].iloc[0], group["most"].iloc[0]
                kind = "" if least == most else "small" if size == least else "large" if size == most else ""
                label = " · ".join(part for part in (kind, str(sizes)) if part) if several else ""
                lines.append(Line(MODE_NAMES.get(mode, mode), label, {row.length: _use(row) for row in rows(group)}))
        if lines:
            answer.append((timed_pass, lines))
    return answer


def _tally(uses: pd.DataFrame) -> str:
    told = ((_use(row)["name"], lead(row)) for row in rows(uses))
    found = Counter(f"{name} alone" if kind == Lead.ALONE else name for name, kind in told)
    return f"{counted(len(uses), 'use')}, {listed([f'{name} in {number}' for name, number in found.most_common()])}"


def _span(low: int, high: int) -> str:
    if low == high:
        return f"T = {low}"
    return f"T ≥ {low}" if high >= 10**9 else f"T = {low} to {high}"


def _use(row: Any) -> dict[str, str]:
    """What is said of one use: its kind, a name or the word in its place, the margin, and beside whom."""
    margin = times(row.speedup, row.low, row.high)
    why = "too few paired rounds" if math.isnan(row.low) else margin
    name, beside, note = {
        Lead.NONE: ("none known to conform", "", "no conforming implementation was timed on all of it"),
        Lead.ALONE: (row.leader, "", "the only conforming one that was timed"),
        Lead.WON: (row.winner, margin, f"over {row.runner_up}"),
        Lead.SAME: ("the same", margin, f"{row.leader} and {row.runner_up}"),
        Lead.UNDECIDED: ("undecided", why, f"{row.leader} or {row.runner_up}"),
    }[lead(row)]
    return {"kind": lead(row).value, "name": name, "margin": beside, "note": note}

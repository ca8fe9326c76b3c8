"""The part of the summary that says what became of environments side by side."""

from __future__ import annotations

from collections.abc import Iterable

from reports.analysis import Findings
from reports.markdown import code, cut, folded, heading_code, limited, sentence
from reports.side_by_side import SideBySide, left_open
from reports.tables import counted
from reports.view_versus import pairs, sections, where
from reports.words import first_line, interval


def parts(findings: Findings, limit: int) -> Iterable[str]:
    """A part for each pair of environments; a list in it has at most ``limit`` lines."""
    for one, section in zip(findings.side_by_side, sections(findings), strict=True):
        machine = f" on {heading_code(one.machine)}" if one.machine else ""
        yield f"### {heading_code(one.head)} beside {heading_code(one.base)}{machine}"
        yield _in_a_word(one)
        yield _compared(one, limit)
        if one.failed:
            lines = [(code(row.implementation), code(row.workload), row.outcome, code(first_line(row.message))) for row in one.failed]
            yield "**Without a time**\n\n" + limited(("implementation", "workload", "outcome", "message"), lines, limit, "comparison")
        if one.never:
            shown, more = cut(one.never, limit, "workload")
            yield f"Asked for, and never begun: {', '.join(map(code, shown))}{more}"
        yield _differences(one, limit)
        if section["disturbed"]:
            yield "While times were taken: " + "; ".join(f"{sentence(told)} ({of})" for told, of in section["disturbed"]) + "."


def _in_a_word(one: SideBySide) -> str:
    slower = len(one.slower)
    of = counted(len(one.compared), "comparison")
    told = f"**{slower} of {of} slower in HEAD**" if slower else f"none of {of} is confirmed to be slower in HEAD"
    rest = left_open([one])
    cut_short = " The run was cut short." if one.incomplete else ""
    return f"{told[:1].upper()}{told[1:]}{f'; {rest}' if rest else ''}.{cut_short}"


def _compared(one: SideBySide, limit: int) -> str:
    lines = [
        (
            row.verdict,
            code(row.implementation),
            code(f"{row.workload}, {where(row)}"),
            f"{row.ratio:.3f} ({interval(row.low, row.high)})",
            pairs(row, one.most),
        )
        for row in one.compared
    ]
    return limited(("verdict", "implementation", "workload", "HEAD over BASE", "pairs"), lines, limit, "comparison", [4]) if lines else ""


def _differences(one: SideBySide, limit: int) -> str:
    if not one.differences:
        return ""
    lines = [(code(name), code(before) or "absent", code(after) or "absent") for name, before, after in one.differences]
    told = limited(("what differs", "in BASE", "in HEAD"), lines, limit, "difference")
    return told if len(lines) < 6 else folded(f"What differs between the two: {len(lines)}", told)

"""The report in short, in GitHub's Markdown: for a comment on a pull request, or for the page of a CI job."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.statistics import LEVEL, Verdict
from reports import comparison, speed, summary_versus, view_conformance, view_speed, view_verdict
from reports.analysis import BREAKING, NO_RIGHT_ANSWER, Findings, gravity
from reports.changes import changes
from reports.environments import gpus
from reports.fields import mapping
from reports.figures.style import MODE_NAMES
from reports.frames import Frames
from reports.markdown import code, cut, fenced, folded, heading_code, limited, sentence
from reports.speed import Lead, lead
from reports.summary_changes import Change, ratio, workload
from reports.tables import counted, rows
from reports.words import first_line, times

MOST = 65_536
"""Bytes of a summary: GitHub takes as many characters in a comment, and sixteen times as much from a job."""

_LIMITS = (200, 100, 50, 20, 10, 5, 2, 1, 0)
"""Lines of every list, tried one after the other until the summary is short enough."""

CONTRACTS_TOLD = 5
"""Broken contracts of one implementation that are told with their messages; the rest is counted."""

MESSAGE_TOLD = 1500
"""Letters of the one message of an implementation that is told in full."""


@dataclass(frozen=True)
class Summary:
    """``text``: the Markdown. ``regressed``: whether HEAD breaks something that BASE kept, or a slowdown is confirmed; None where there is
    no BASE, or nothing that both have."""

    text: str
    regressed: bool | None


def summary(head: Frames, base: Frames | None = None, most: int = MOST) -> Summary:
    """What ``head`` says, and what has changed since ``base``, in at most ``most`` bytes."""
    findings = Findings(head)
    change = None if base is None else Change(changes(Findings(base), findings))
    compared, warnings = comparison.compared(head), _warnings(findings)
    text = ""
    for limit in _LIMITS:
        text = "\n\n".join(part for part in _parts(findings, change, compared, warnings, limit) if part) + "\n"
        if len(text.encode()) <= most:
            break
    return Summary(text, change.regressed if change is not None and change.found.any_compared else None)


def _parts(
    findings: Findings, change: Change | None, compared: list[comparison.Comparison], warnings: list[str], limit: int
) -> Iterable[str]:
    """The parts of a summary; a list in it has at most ``limit`` lines."""
    short = limit < _LIMITS[0]
    yield f"## {sentence(view_verdict.headline(findings)[0])}"
    yield _verdicts(findings, limit)
    if change is not None:
        yield from change.parts(limit)
    yield from _broken(findings, limit)
    if not view_verdict.only_side_by_side(findings):
        yield _strength(findings, limit)
    yield from _fastest(findings, limit)
    yield _slower(compared, limit)
    yield from summary_versus.parts(findings, limit)
    if warnings:
        shown, more = cut(warnings, limit, "warning")
        yield "### Warnings\n\n" + "\n".join(f"- {line}" for line in shown) + more
    yield _environment(findings.frames)
    if short:
        yield f"Shortened: every list is cut after {counted(limit, 'line')}, so that all of it fits a comment. The page has the rest."


def _verdicts(findings: Findings, limit: int) -> str:
    lines = [
        (
            *_place(row["machine"]),
            code(row["implementation"]),
            row["suitability"],
            sentence(row["reason"]),
            f"{row['passed']} of {row['contracts']}",
        )
        for row in view_verdict.verdict_rows(findings)
    ]
    places = ["machine"] if len(findings.parts) > 1 else []
    head = (*places, "implementation", "verdict", "why", "contracts passed")
    return limited(head, lines, limit, "implementation", right=[len(head) - 1])


def _place(machine: str) -> list[str]:
    """The machine in a table of several, and nothing where there is one."""
    return [code(machine)] if machine else []


def _strength(findings: Findings, limit: int) -> str:
    found = view_conformance.strength(findings)
    if not found:
        return "Mutants: none were run, so nothing is shown about how strong the contracts are."
    lines = []
    for one in found:
        where = f" on {code(one['machine'])}" if one["machine"] else ""
        shown, more = cut(one["alive"], limit, "survivor")
        told = f"Mutants rejected{where}: **{one['score']}**, by {counted(one['contracts'], 'contract')}."
        lines.append(told + "".join(f"\n- survived: {code(text)}" for text in shown) + more)
    return "\n\n".join(lines)


def _broken(findings: Findings, limit: int) -> Iterable[str]:
    """The broken contracts of every implementation that is not a drop-in, and what was wrong with its timed workloads."""
    wrong = [(part, name, *found) for part in findings.parts for name, found in _wrong(part).items()]
    if wrong:
        yield "### Broken contracts, and timed workloads with a wrong answer or none"
    for part, name, failed, timed in wrong[:limit]:
        contracts = part.frames.contracts
        severity = dict(zip(contracts["contract"], contracts["severity"], strict=True))
        first: dict[str, Any] = {}
        cases: dict[str, int] = {}
        for row in failed:
            first.setdefault(row.contract, row)
            cases[row.contract] = cases.get(row.contract, 0) + 1
        lines = [
            (code(contract), severity.get(contract, ""), row.outcome, str(cases[contract]), code(first_line(row.message)))
            for contract, row in first.items()
        ]
        lines += [(code(row.workload), "", row.outcome, "timed", code(first_line(row.message))) for row in timed]
        told = f"**{code(name)}**{f' on {code(part.machine)}' if part.machine else ''}\n\n"
        causes: list[str] = next((row.causes for row in rows(part.verdicts) if row.implementation == name), [])
        told += "".join(f"- likely: {code(cause)}\n" for cause in causes) + ("\n" if causes else "")
        head = ("contract or workload", "level", "outcome", "cases", "message of the first")
        told += limited(head, lines, min(limit, CONTRACTS_TOLD), "line", [3])
        message = failed[0].message.strip() if failed else ""
        if limit > 1 and "\n" in message:
            told += "\n\n" + folded(
                f"The whole message of {heading_code(failed[0].contract)} on {heading_code(failed[0].case)}",
                fenced(message if len(message) <= MESSAGE_TOLD else message[:MESSAGE_TOLD].rstrip() + " …"),
            )
        yield told
    yield cut(wrong, limit, "implementation")[1].strip()


def _wrong(findings: Findings) -> dict[str, tuple[list[Any], list[Any]]]:
    """implementation -> its broken checks on one machine, the gravest first, and its timed cells without a right answer."""
    contracts, checked = findings.frames.contracts, findings.current.conformance
    failed = checked[checked["outcome"].isin(BREAKING)]
    timed = findings.newest_cells
    wrong = timed[timed["outcome"].isin(NO_RIGHT_ANSWER)]
    # The gravest first, and then in the order of the catalogue.
    grave = {row.contract: (gravity(row.severity), place) for place, row in enumerate(rows(contracts))}
    answer = {}
    for name in findings.implementations:
        own = sorted(rows(failed[failed["implementation"] == name]), key=lambda row: grave[row.contract])
        cells = list(rows(wrong[wrong["implementation"] == name]))
        if own or cells:
            answer[name] = (own, cells)
    return answer


def _fastest(findings: Findings, limit: int) -> Iterable[str]:
    """A table per machine, place and configuration: modes and passes down, lengths across."""
    groups = [group for part in findings.parts for group in part.fastest.groupby(["place", "configuration"], sort=False)]
    if groups:
        yield "### Fastest that conforms"
    for (place, configuration), group in groups[:limit]:
        present = [name for name, _, _ in speed.LENGTHS if name in set(group["length"])]
        uses: dict[tuple[str, str], dict[str, str]] = {}
        for row in rows(group):
            uses.setdefault((row.mode, row.timed_pass), {})[row.length] = _winner(row)
        lines = [
            (MODE_NAMES.get(mode) or code(mode), sentence(timed_pass), *(found.get(name, "") for name in present))
            for (mode, timed_pass), found in uses.items()
        ]
        spans = [f"{name}, T = {low}" if low == high else name for name, low, high in speed.LENGTHS if name in present]
        told = limited(("recurrence", "pass", *spans), lines, limit, "use")
        yield f"**{sentence(f'{place}, {configuration}')}**\n\n{told}"
    yield cut(groups, limit, "configuration")[1].strip()


def _winner(row: Any) -> str:
    """Who is the fastest of a use, and how fast beside the next."""
    margin = "too few rounds" if math.isnan(row.low) else times(row.speedup, row.low, row.high)
    return {
        Lead.NONE: "none known to conform",
        Lead.ALONE: f"{code(row.leader)}, the only one",
        Lead.WON: f"{code(row.winner)} {margin}",
        Lead.SAME: f"the same: {code(row.leader)}, {code(row.runner_up)} {margin}",
        Lead.UNDECIDED: f"undecided: {code(row.leader)}, {code(row.runner_up)} {margin}",
    }[lead(row)]


def _slower(found: list[comparison.Comparison], limit: int) -> str:
    if not found:
        return ""
    where = dict(zip(found, comparison.wheres(found), strict=True))
    slower = sorted((one for one in found if one.verdict == Verdict.SLOWER), key=lambda one: -one.ratio)
    count = f"{len(slower)} of {counted(len(found), 'comparison')}"
    if not slower:
        return f"### Slower than the baseline\n\nNothing: {count}, at {LEVEL:.0%} for all of them together."
    lines = []
    for name in dict.fromkeys(one.implementation for one in slower):
        own, of = [one for one in slower if one.implementation == name], [one for one in found if one.implementation == name]
        lines.append((code(name), f"{len(own)} of {len(of)}", ratio(own[0]), code(own[0].baseline), workload(own[0], where[own[0]])))
    told = limited(("implementation", "slower in", "at worst, time over baseline's", "baseline", "on"), lines, limit, "implementation", [1])
    each = [(code(one.implementation), workload(one, where[one]), ratio(one), code(one.baseline)) for one in slower]
    all_of_them = limited(("implementation", "workload", "time over baseline's", "baseline"), each, limit, "comparison")
    return f"### Slower than the baseline: {count}\n\n{told}\n\n" + (folded("Each of them", all_of_them) if limit else "")


def _warnings(findings: Findings) -> list[str]:
    """What is wrong with the files, and what disturbed the times."""
    lines = [code(problem, 400) for problem in findings.frames.problems]
    for place in view_speed.machines(findings):
        lines += [f"{code(place['machine'])}: {sentence(told)} ({of})" for told, of in place["lines"]]
        if place["interrupted"]:
            lines.append(f"{code(place['machine'])}: sampling was interrupted in {counted(place['interrupted'], 'workload')}")
    return lines


def _environment(frames: Frames) -> str:
    """The machines and what they ran, in one line."""
    told = []
    for row in rows(frames.runs):
        environment = row.environment
        versions = mapping(environment.get("versions"))
        parts = [row.machine, environment.get("cpu"), environment.get("cores") and f"{environment['cores']} cores", *gpus(environment)]
        parts += [f"{name} {versions[name]}" for name in ("torch", "python", "cuda", "cudnn") if versions.get(name)]
        told.append(", ".join(str(part) for part in parts if part))
    distinct = list(dict.fromkeys(told))
    more = f" and {counted(len(distinct) - 3, 'more environment')}" if len(distinct) > 3 else ""
    return f"Ran on {'; '.join(map(code, distinct[:3]))}{more}."

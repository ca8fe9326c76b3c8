"""What the template prints of environments side by side."""

from __future__ import annotations

from typing import Any

from harness.statistics import LEVEL, MARGIN
from reports.analysis import Findings
from reports.metrics import median
from reports.side_by_side import SIDES, SideBySide, left_open
from reports.tables import counted
from reports.view_speed import merged
from reports.words import duration, first_line, interval, sortable

_STOPPED = {"": "cut short", "pairs": "pairs used up"}


def headline(found: list[SideBySide]) -> tuple[str, list[str]]:
    """The verdict on environments side by side, where nothing else was done: a title, and the paragraph below it as sentences."""
    slower = [one for one in found if one.slower]
    compared = sum(len(one.compared) for one in found)
    # Beside what is slower, or where nothing is, a reader would take the rest for as fast.
    rest = left_open(found) if compared else ""
    if len(slower) == 1:
        (one,) = slower
        title = f"{one.head} is slower than {one.base} in {len(one.slower)} of {counted(len(one.compared), 'comparison')}"
    elif slower:
        title = f"{len(slower)} of {len(found)} environments are slower than the one beside them"
    elif not compared:
        title = "Environments side by side: nothing could be compared"
    elif len(found) == 1:
        title = f"{found[0].head} is not seen to be slower than {found[0].base}"
    else:
        title = f"None of {len(found)} environments is seen to be slower than the one beside it"
    return title + (f"; {rest}" if rest else ""), summed_up(found)


def sections(findings: Findings) -> list[dict[str, Any]]:
    """What was compared, machine by machine and pair of environments by pair."""
    return [_section(one) for one in findings.side_by_side]


def _section(one: SideBySide) -> dict[str, Any]:
    everything = [*one.compared, *one.failed]
    return {
        "key": key(one),
        "title": f"{one.head} beside {one.base}" + (f" on {one.machine}" if one.machine else ""),
        "base": one.base,
        "head": one.head,
        "told": f"{one.told[:1].upper()}{one.told[1:]}.",
        "incomplete": one.incomplete,
        "level": f"{LEVEL:.0%}",
        "margin": f"{MARGIN:.0%}",
        "rows": [_row(row, one.most) for row in one.compared],
        "failed": [_failed(row) for row in one.failed],
        "never": one.never,
        "differences": one.differences,
        "common": ", ".join(f"{name} {version}" for name, version in one.common.items()),
        "facts": _facts(everything),
        "disturbed": _disturbed(everything),
    }


def key(one: SideBySide) -> str:
    """What its figure goes by in the page."""
    return f"versus {one.machine} {one.base} {one.head} {one.differences}"


def _row(row: Any, most: int | None) -> dict[str, Any]:
    return {
        "verdict": row.verdict,
        "implementation": row.implementation,
        "workload": row.workload,
        "where": where(row),
        "ratio": row.ratio,
        "interval": (sortable(row.low), interval(row.low, row.high)),
        "pairs": pairs(row, most),
        "number": row.pairs,
        "seconds": [_typical(times) for times in (row.base_seconds, row.head_seconds)],
        "stopped": _STOPPED.get(row.stopped, row.stopped),
        "kernels": kernels(row),
    }


def where(row: Any) -> str:
    """What a time depends on besides its workload."""
    return f"{row.device.upper()}, {row.dtype}, {row.timed_pass}" + (f", {counted(row.threads, 'thread')}" if row.device == "cpu" else "")


def pairs(row: Any, most: int | None) -> str:
    """How many pairs of processes a ratio is of, and of how many at most."""
    return f"{row.pairs} of {most}" if most else str(row.pairs)


def kernels(row: Any) -> str:
    """The kernels that ran, on either side where they differ."""
    base, head = (", ".join(map(str, row.kernels.get(side) or ())) for side in SIDES)
    return base if base == head else f"{base or 'none seen'} → {head or 'none seen'}"


def _typical(times: list[float]) -> tuple[str, str]:
    """The median of the pairs' times: a value to sort by, and in words."""
    if not times:
        return "", ""
    middle = median(times)
    return f"{middle:.6g}", duration(middle)[0]


def _failed(row: Any) -> dict[str, str]:
    message = row.message.strip()
    return {
        "outcome": row.outcome,
        "implementation": row.implementation,
        "workload": row.workload,
        "told": first_line(message),
        # What follows its first line is folded below it.
        "message": message if "\n" in message else "",
    }


def _facts(found: list[Any]) -> list[tuple[str, list[str]]]:
    """The Python of either side, and where each implementation was loaded from."""
    answer = []
    for side in SIDES:
        own = [(row.implementation, row.environments.get(side)) for row in found]
        known = [(name, facts) for name, facts in own if isinstance(facts, dict)]
        told = dict.fromkeys(str(facts["python"]) for _, facts in known if facts.get("python"))
        told |= dict.fromkeys(f"{name} from {facts['origin']}" for name, facts in known if facts.get("origin"))
        if told:
            answer.append((side.upper(), list(told)))
    return answer


def _disturbed(found: list[Any]) -> list[tuple[str, str]]:
    """What the machine did meanwhile, with the pairs that it concerns."""
    told = [sentences for row in found for sentences in row.told]
    return [(sentence, f"{number} of {counted(len(told), 'pair')}") for sentence, number in merged(told)]


def summed_up(found: list[SideBySide]) -> list[str]:
    """A sentence on each pair of environments."""
    return [f"{one.head} beside {one.base}{f' on {one.machine}' if one.machine else ''}: {one.told}." for one in found]

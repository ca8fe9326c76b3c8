"""What the template prints of speed: times, costs, what disturbed them, cut into the rows, words and numbers of the page."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness import statistics
from harness.proportions import wilson
from harness.workload import Pass
from reports import metrics, speed
from reports.analysis import Findings
from reports.figures.style import MODE_NAMES
from reports.figures.throughput import SWEEP
from reports.tables import counted, rows
from reports.words import digits, duration, engineering, first_line, floors, percent, size, sortable

CELLS_SHOWN = 4000
"""Rows of the table of timed cells, and of the table of costs."""


def cell_rows(findings: Findings) -> tuple[list[dict[str, Any]], int]:
    """The table of timed cells, and how many more there are than it shows."""
    cells = _over_machines(findings, "cells")
    counting = set(_over_machines(findings, "latest_cells")["cell"])
    shown = cells.head(CELLS_SHOWN)
    answer = []
    for row in rows(shown):
        timed = row.samples > 0
        answer.append(
            {
                "run": row.run if row.cell in counting else f"{row.run}, superseded",
                "implementation": row.implementation,
                "mode": MODE_NAMES.get(row.mode, row.mode) if row.mode else "",
                "timed_pass": row.timed_pass,
                "place": row.place,
                "length": row.sequence_length or "",
                "configuration": row.configuration or row.workload,
                "outcome": row.outcome,
                "message": first_line(row.message)[:200],
                "limit": ("", "") if math.isnan(row.limit_share) else (f"{row.limit_share:.6g}", percent(row.limit_share)),
                "rate": ("", "") if math.isnan(row.rate) else (f"{row.rate:.6g}", engineering(row.rate)),
                "milliseconds": (f"{row.seconds:.6g}", digits(row.seconds * 1e3)) if timed else ("", ""),
                "spread": (sortable(row.seconds_low), f"{digits(row.seconds_low * 1e3)} to {digits(row.seconds_high * 1e3)}")
                if timed
                else ("", ""),
                "gflops": ("", "") if math.isnan(row.gflops) else (f"{row.gflops:.6g}", digits(row.gflops)),
                "handed_over": "" if math.isnan(row.issued) else f"{digits(row.issued * 1e3)} / {digits(row.device_seconds * 1e3)}",
                "samples": f"{row.samples} × {row.calls}{', interrupted' if row.stopped == 'interrupted' else ''}" if timed else "",
                "memory": _memory(row),
                "first": "" if math.isnan(row.first_call) else digits(row.first_call * 1e3),
                "agreement": _agreement(row),
                "kernels": row.kernels,
            }
        )
    return answer, len(cells) - len(shown)


def _agreement(row: Any) -> tuple[str, str]:
    """The errors over floor before and after: the larger to sort by, and both in words."""
    known = [value for value in (row.agreement_before, row.agreement_after) if not math.isnan(value)]
    return sortable(max(known, default=math.nan)), " / ".join(map(floors, known))


def _over_machines(findings: Findings, frame: str) -> pd.DataFrame:
    """A frame of each machine, one below the other."""
    found: list[pd.DataFrame] = [getattr(part, frame) for part in findings.parts]
    return found[0] if len(found) == 1 else pd.concat(found)


def unplotted(findings: Findings) -> list[str]:
    """What no figure over T shows, in sentences: it is in the table of cells all the same."""
    current = [part.latest_cells for part in findings.parts]
    silent = sum(int((own["sequence_length"] == 0).sum()) for own in current)
    alone = 0
    for own in current:
        known = own[own["sequence_length"] > 0]
        alone += int((known.groupby(list(SWEEP))["sequence_length"].transform("nunique") == 1).sum()) if len(known) else 0
    answer = []
    if alone:
        answer.append(
            f"{counted(alone, 'cell')} of workloads that were timed at one T only {'is' if alone == 1 else 'are'} in no figure over T, "
            "but in the maps and in the table of cells."
        )
    if silent:
        answer.append(
            f"{counted(silent, 'cell')} of which the file does not say T {'is' if silent == 1 else 'are'} in the table of cells alone."
        )
    if unknown := sum(int(speed.without_a_rate(own[own["sequence_length"] > 0]).sum()) for own in current):
        answer.append(
            f"{counted(unknown, 'cell')} {'is' if unknown == 1 else 'are'} in no figure of throughput, because the file does not say "
            "how many tokens a call has."
        )
    return answer


def passes(findings: Findings) -> list[tuple[str, str]]:
    """What each pass that was timed is."""
    present = set(findings.cells["timed_pass"])
    return [(timed.value, timed.meaning) for timed in Pass if timed.value in present]


@dataclass(frozen=True)
class Entry:
    """An entry of a table: what it shows, the number by which it sorts (empty: last), and notes below."""

    text: str = ""
    value: str = ""
    notes: tuple[str, ...] = ()


def cost_rows(findings: Findings) -> tuple[list[dict[str, Any]], int]:
    """The table of costs, and how many more rows there are than it shows."""
    frame = _over_machines(findings, "costs")
    answer = [
        {
            "implementation": row.implementation,
            "mode": MODE_NAMES.get(row.mode, row.mode),
            "timed_pass": row.timed_pass,
            "workload": f"{row.place}, {row.configuration}",
            "length": row.sequence_length or "",
            "lost": row.lost,
            "limit": _limit(row),
            "setup": _part(row, row.setup, row.setup_low, row.setup_high),
            "step": _part(row, row.step, row.step_low, row.step_high),
            "warm_up": _warm_up(row),
            "pays_after": _pays_after(row),
            "memory": _memory(row),
        }
        for row in rows(frame.head(CELLS_SHOWN))
    ]
    return answer, len(frame) - len(answer)


def _limit(row: Any) -> Entry:
    host = ("host-bound",) if row.host_share >= metrics.HOST_BOUND else ()
    if math.isnan(row.limit_share):
        return Entry(notes=host)
    return Entry(percent(row.limit_share), f"{row.limit_share:.6g}", (row.limit_bound, *host))


def _part(row: Any, seconds: float, low: float, high: float) -> Entry:
    """Set-up or step with its interval, if it can be told from none, and by how much the line misses if it is none."""
    if math.isnan(seconds):
        return Entry()
    doubt = () if metrics.fits(row.misfit) else (f"off by {percent(row.misfit)}",)
    if high < metrics.NO_TIME:
        return Entry("none seen", notes=doubt)
    if low <= 0:
        return Entry("not seen", notes=(f"at most {duration(high)[0]}", *doubt))
    text, *ends = duration(seconds, low, high)
    return Entry(text, f"{seconds:.6g}", (" to ".join(ends), *doubt))


def _warm_up(row: Any) -> Entry:
    if math.isnan(row.warm_up_cost):
        return Entry("not known" if row.sequence_length else "")
    return Entry(duration(row.warm_up_cost)[0], f"{row.warm_up_cost:.6g}")


def _pays_after(row: Any) -> Entry:
    """The calls after which a warm-up pays, or the word that stands for them."""
    if row.implementation == row.baseline:
        return Entry("baseline")
    if not row.verdict or row.verdict in (statistics.Verdict.SAME, statistics.Verdict.UNDECIDED):
        return Entry(row.verdict)
    if math.isnan(row.pays_after):
        return Entry("not known")
    return Entry("never") if math.isinf(row.pays_after) else Entry(counted(math.ceil(row.pays_after), "call"), f"{row.pays_after:.6g}")


def _memory(row: Any) -> Entry:
    if math.isnan(row.memory_bytes):
        return Entry("not measured", notes=(row.memory_unavailable,)) if row.memory_unavailable else Entry()
    found = metrics.peak(row.memory_bytes, row.memory_resolution)
    if found.bounded:
        return Entry(f"at most {size(found.bytes)}", f"{found.bytes:.0f}")
    # A resolution that the digits do not show is not worth a line.
    coarse = row.memory_resolution > 0.005 * found.bytes
    return Entry(size(found.bytes), f"{found.bytes:.0f}", (f"± {size(row.memory_resolution)}",) if coarse else ())


def machines(findings: Findings) -> list[dict[str, Any]]:
    """What the machines did while times were taken: one entry per machine.

    ``lines``: each sentence that a reader should know, with the workloads that it concerns; sentences that differ only in their numbers are
    one, with the range of these. ``watched``, ``unwatched``: the workloads of which anything is known, and nothing. ``interrupted``: those
    whose sampling was.
    """
    current = findings.latest_cells
    answer = []
    timed: dict[str, dict[tuple[str, str], list[Any]]] = {}
    for row in rows(current.loc[current["samples"] > 0, ["machine", "run", "workload", "told", "evidence", "stopped"]]):
        timed.setdefault(row.machine, {}).setdefault((row.run, row.workload), []).append(row)
    for machine, workloads in timed.items():
        groups = list(workloads.values())
        told = [list(dict.fromkeys(sentence for row in group for sentence in row.told)) for group in groups]
        watched = sum(any(row.evidence for row in group) for group in groups)
        of = counted(len(groups), "workload")
        answer.append(
            {
                "machine": machine,
                "lines": [(sentence, f"{number} of {of}") for sentence, number in merged(told)],
                "workloads": of,
                "watched": watched,
                "unwatched": counted(len(groups) - watched, "workload") if watched < len(groups) else "",
                "interrupted": sum(any(row.stopped == "interrupted" for row in group) for group in groups),
            }
        )
    return answer


_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")


def merged(told: list[list[str]]) -> list[tuple[str, int]]:
    """Sentences that differ only in their numbers as one, with how many of ``told`` have it, the most frequent first."""
    found: dict[str, list[list[str]]] = {}
    whose: dict[str, set[int]] = {}
    for place, sentences in enumerate(told):
        for sentence in sentences:
            shape = _NUMBER.sub("\0", sentence)
            found.setdefault(shape, []).append(_NUMBER.findall(sentence))
            whose.setdefault(shape, set()).add(place)
    answer = []
    for shape, members in found.items():
        ranges = [list(dict.fromkeys((min(slot, key=float), max(slot, key=float)))) for slot in zip(*members, strict=True)]
        parts = shape.split("\0")
        told_range = ["–".join(ends) for ends in ranges]
        answer.append(("".join(a + b for a, b in zip(parts, [*told_range, ""], strict=True)), len(whose[shape])))
    return sorted(answer, key=lambda pair: -pair[1])


def instrument(findings: Findings) -> list[dict[str, Any]]:
    """What comparisons of times can see: for each machine and device that timed anything, one entry per workload that was calibrated.

    Of each the last calibration counts. ``lines`` is empty where there was none; ``overhead`` and ``workload`` where the run does not say.
    """
    frames = findings.frames
    created = frames.runs.set_index("run")["created"]
    calibrations = frames.calibrations.assign(created=frames.calibrations["run"].map(created)).sort_values("created", kind="stable")
    places = pd.concat([findings.cells.loc[findings.cells["samples"] > 0, ["machine", "device"]], calibrations[["machine", "device"]]])
    answer = []
    for machine, device in places.drop_duplicates().itertuples(index=False):
        own = calibrations[(calibrations["machine"] == machine) & (calibrations["device"] == device)]
        found = [_calibrated(of_it, frames.runs) for _, of_it in own.groupby("workload", sort=False)]
        answer += [{"machine": machine, "device": device, **one} for one in found or [_UNCALIBRATED]]
    return answer


#: What stands for a place where nothing was calibrated.
_UNCALIBRATED = {"workload": "", "lines": [], "overhead": ""}


def _calibrated(own: pd.DataFrame, runs: pd.DataFrame) -> dict[str, Any]:
    """The last calibration of one workload on one device."""
    last = own[own["run"] == own["run"].iloc[-1]]
    overhead = runs.set_index("run")["policy"].get(last["run"].iloc[0], {}).get("instrument_overhead")
    return {
        "workload": last["workload"].iloc[0],
        "lines": [_seen(row) for row in rows(last.sort_values("planted"))],
        "overhead": f"{overhead:+.2%}" if isinstance(overhead, (int, float)) else "",
    }


def _seen(row: Any) -> dict[str, str]:
    """What became of the comparisons with one planted slowdown."""
    found = row.slower if row.planted else row.slower + row.faster
    low, high = wilson(found, row.trials)
    return {
        "what": f"a slowdown of {100 * row.planted:g} %, found" if row.planted else "equal things, called different",
        "found": f"{found} of {row.trials}",
        "interval": f"{low:.1%} to {high:.1%}",
        "seconds": "" if math.isnan(row.seconds) else f"{row.seconds:.2g}",
        "most": f"{row.most_seconds:g}",
    }

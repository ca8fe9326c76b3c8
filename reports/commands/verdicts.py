"""``verdicts``: every timed implementation beside its baseline, and every environment beside another, one line each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from reports import comparison
from reports.analysis import Findings
from reports.commands.shared import RUN, Commands, known, read
from reports.load import LoadError
from reports.tables import counted
from reports.words import interval


def add(commands: Commands) -> None:
    """Adds ``verdicts`` to the commands."""
    command = commands.add_parser(
        "verdicts", help="print what may be said of each timed implementation beside its baseline, and of environments side by side"
    )
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    command.add_argument("--baseline", default="", metavar="ID", help="compare with this implementation; default: with the one of the run")
    command.add_argument("--json", action="store_true", help="one JSON object per comparison and line")
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    frames = read(*chosen.runs)
    known(frames, chosen.baseline)
    found = comparison.compared(frames, chosen.baseline)
    for one, where in zip(found, comparison.wheres(found), strict=True):
        print(json.dumps(one.as_json()) if chosen.json else _line(one, where))
    beside = Findings(frames).side_by_side
    for pair in beside:
        for row in pair.compared:
            print(json.dumps(_as_json(row)) if chosen.json else _side_by_side(row, pair.machine))
    left = comparison.left_out(frames, found)
    if found and left:
        few = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        told = f"nothing was timed in the same rounds as {chosen.baseline or 'the baseline'}"
        print(f"warning: {told} on {counted(len(left), 'workload')}, which are left out: {few}", file=sys.stderr)
    if not found and not beside:
        raise LoadError("Nothing to compare: no two implementations were timed in the same rounds of a workload.")
    return 0


def _as_json(row: Any) -> dict[str, Any]:
    """A comparison of two environments; what is not known is null."""
    known = {name: getattr(row, name) for name in ("workload", "implementation", "base", "head", "ratio", "low", "high", "verdict")}
    known |= {name: getattr(row, name) for name in ("seconds", "pairs", "machine", "device", "threads", "stopped")}
    return {name: None if value != value else value for name, value in known.items()}


def _side_by_side(row: Any, machine: str) -> str:
    on = f" on {machine}" if machine else ""
    told = f"{row.head} takes {row.ratio:.4f} ({interval(row.low, row.high, 4)}) of the time of {row.base}{on}"
    return f"{row.verdict:9}  {row.implementation} on {row.workload}: {told}, {counted(row.pairs, 'pair')}"


def _line(one: comparison.Comparison, where: str) -> str:
    told = f"{one.ratio:.4f} ({interval(one.low, one.high, 4)}) of the time of {one.baseline}"
    return f"{one.verdict:9}  {one.implementation} on {one.workload}{where}: {told}, {one.rounds} rounds in {one.seconds:.1f} s"

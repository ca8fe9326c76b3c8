"""``page``: the report as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports import drawers, page
from reports.commands.shared import RUN, Commands, read


def add(commands: Commands) -> None:
    """Adds ``page`` to the commands."""
    command = commands.add_parser("page", help="write a self-contained HTML page, and its figures as PNG and SVG")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where index.html and figures/ go; created if need be")
    told = "set the runs beside these, in a section of their own; may be repeated"
    command.add_argument("--base", action="append", default=[], type=Path, metavar="RUN", help=told)
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    processes = drawers.cores()
    drawers.prepare(processes)
    base = read(*chosen.base) if chosen.base else None
    print(page.write(read(*chosen.runs), chosen.out, base, processes))
    return 0

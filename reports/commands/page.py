"""``page``: the report as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports import drawers, page
from reports.commands.shared import RUN, Commands, add_base, head_and_base


def add(commands: Commands) -> None:
    """Adds ``page`` to the commands."""
    command = commands.add_parser("page", help="write a self-contained HTML page, and its figures as PNG and SVG")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where index.html and figures/ go; created if need be")
    add_base(command, "what has changed since has a section of its own")
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    processes = drawers.cores()
    drawers.prepare(processes)
    head, base = head_and_base(chosen)
    print(page.write(head, chosen.out, base, processes))
    return 0

"""``summary``: the report in short, as Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.commands.shared import RUN, Commands, add_base, head_and_base
from reports.load import LoadError
from reports.summary import summary


def add(commands: Commands) -> None:
    """Adds ``summary`` to the commands."""
    command = commands.add_parser(
        "summary",
        help="print a summary in GitHub's Markdown, for a pull request or the page of a CI job",
        description="At most 65,536 bytes, which a comment holds; what is left out is counted. With --base the exit status is 1 if HEAD "
        "breaks what BASE kept, or if a slowdown is confirmed, and 2 where nothing can be compared.",
    )
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    add_base(command, "says what has changed since")
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    found = summary(*head_and_base(chosen))
    print(found.text, end="")
    if chosen.base and found.regressed is None:
        raise LoadError("Nothing to compare: HEAD has no check and no time that BASE has too.")
    return int(bool(found.regressed))

"""``export``: the frames as files for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports import export
from reports.commands.shared import RUN, Commands, read


def add(commands: Commands) -> None:
    """Adds ``export`` to the commands."""
    command = commands.add_parser(
        "export",
        help="write everything that the runs say as tables, CSV or Parquet",
        description=f"One file per table; {export.DESCRIPTION} beside them says what every column holds, and in which unit.",
    )
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go; created if need be")
    formats = [format.value for format in export.Format]
    command.add_argument("--format", choices=formats, default="csv", help="csv (the default), or parquet, which needs pyarrow")
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    for path in export.write(read(*chosen.runs), chosen.out, export.Format(chosen.format)):
        print(path)
    return 0

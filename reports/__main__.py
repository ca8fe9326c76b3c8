"""The command line: ``python -m reports page RUN... --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import page
from reports.load import LoadError, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, or 2 for input that cannot be read and output that cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Turns run files into something to read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("page", help="write a self-contained HTML page, and its figures as PNG and SVG")
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run file, a directory of run files (*.jsonl), or the JSON of pytest-benchmark"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where index.html and figures/ go; created if need be")
    command.set_defaults(run=_page)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _page(chosen: argparse.Namespace) -> None:
    frames = load(chosen.runs)
    for problem in frames.problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(page.write(frames, chosen.out))


if __name__ == "__main__":
    sys.exit(main())

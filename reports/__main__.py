"""The command line: ``python -m reports COMMAND``; the commands are in :mod:`reports.commands`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from reports.commands import COMMANDS
from reports.export import ExportError
from reports.load import LoadError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 for what became slower or went wrong, 2 for what
    cannot be read or written, 130 after an interrupt."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Turns run files into something to read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    chosen = parser.parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has enough, as head has; Python would write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except (LoadError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Not as Python spells it, which begins with the number of the error.
        print(f"error: {error.filename}: {error.strerror}." if error.filename else f"error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # Names may be of any script, and a pipe may take itself for one of ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    sys.exit(main())

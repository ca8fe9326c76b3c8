"""What several commands have in common: what a RUN is, how it is read, and what is refused."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeAlias

from reports.load import Frames, LoadError, load

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command puts its parser; in quotes, because argparse takes no type at run time."""

RUN = "a run file, a directory of run files (*.jsonl), or the JSON of pytest-benchmark"


def read(*paths: Path) -> Frames:
    """The frames of ``paths``; what is wrong with the files goes to stderr."""
    frames = load(paths)
    for problem in frames.problems:
        print(f"warning: {problem}", file=sys.stderr)
    return frames


def add_base(command: argparse.ArgumentParser, does: str) -> None:
    """Adds ``--base``; ``does``: what the command does with it."""
    told = f"a run of the state before, as RUN; {does}; may be repeated"
    command.add_argument("--base", action="append", default=[], type=Path, metavar="RUN", help=told)


def head_and_base(chosen: argparse.Namespace) -> tuple[Frames, Frames | None]:
    """The frames of the runs and of ``--base``, if there is any, which must be others."""
    head, base = read(*chosen.runs), read(*chosen.base) if chosen.base else None
    if base is not None:
        distinct(base, head)
    return head, base


def known(frames: Frames, id: str) -> None:
    """Raises :class:`LoadError` for an implementation that has no times."""
    timed = sorted(set(frames.timed["implementation"]))
    if id and id not in timed:
        raise LoadError(f"Expected an implementation that was timed but got {id}: the runs have {', '.join(timed) or 'none'}.")


def timed(frames: Frames, side: str) -> None:
    """Raises :class:`LoadError` where nothing was timed."""
    if frames.timed.empty:
        raise LoadError(f"Expected {side} to have timed workloads but it has none; summary --base compares what came of the contracts.")


def distinct(base: Frames, head: Frames) -> None:
    """Raises :class:`LoadError` where HEAD is nothing but runs that BASE has as well: no comparison of a run with itself finds anything."""
    known = {fact for column in ("sha256", "session") for fact in base.runs[column] if fact}
    again = head.runs["sha256"].isin(known) | head.runs["session"].isin(known)
    if again.all():
        paths = ", ".join(head.runs["path"])
        raise LoadError(f"Expected HEAD to be another run than BASE but BASE has it too: {paths}. Give BASE the run of the state before.")

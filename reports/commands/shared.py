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


def known(frames: Frames, id: str) -> None:
    """Raises :class:`LoadError` for an implementation that was not timed."""
    timed = sorted(set(frames.throughput["implementation"]))
    if id and id not in timed:
        raise LoadError(f"Expected an implementation that was timed but got {id}: the runs have {', '.join(timed) or 'none'}.")


def interval(low: float | None, high: float | None) -> str:
    """The interval of a ratio in words."""
    return "no interval" if low is None or high is None else f"{low:.4f} to {high:.4f}"

"""Run files and pytest-benchmark files in, tidy data frames out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.frames import Frames, LoadError
from reports.gather import Gatherer, reader

__all__ = ["Frames", "LoadError", "load"]


def load(paths: str | Path | Iterable[str | Path]) -> Frames:
    """Reads run files, directories of run files and pytest-benchmark files into one set of pandas data frames.

    Of a directory, every ``*.jsonl`` in it is read, and of all the oldest first. A cell that a run file and the pytest-benchmark file of
    the same session both hold is counted once. Raises :class:`LoadError` for a path that holds neither; what else is wrong with a file is
    in ``problems`` of what is returned, one sentence each.

    The frames, one row for each: ``runs`` file, ``implementations`` implementation, device and run, ``contracts`` contract,
    ``conformance`` contract, implementation and case, ``errors`` tensor that such a check compared (``line`` says of which),
    ``throughput`` implementation and workload, ``samples`` time that such a cell has (``cell`` says which), ``mutations`` mutant,
    ``calibrations`` planted slowdown, ``versus`` implementation and workload in two environments, ``coverage`` implementation and
    recurrence. ``reports.COLUMNS[frame][column]`` is the type of a
    column and what it means, with its unit. Times are in seconds, memory is in bytes, an error is a share of the largest magnitude of
    its tensor, and what is not known is missing (NaN) or an empty text.

        frames = reports.load("results")
        seconds = frames.samples.groupby("cell")["seconds"].median()
        frames.throughput.set_index("cell").assign(seconds=seconds)[["workload", "implementation", "seconds"]]
    """
    gatherer = Gatherer()
    runs, benchmarks = [], []
    seen: set[str] = set()
    for path in _files([paths] if isinstance(paths, (str, Path)) else paths):
        digest = _sha256(path)
        if digest in seen:
            gatherer.problems.append(f"{path}: the same file was given twice; it counts once.")
            continue
        seen.add(digest)
        content = _sniff(path)
        if content is None:
            runs.append((reader(path), digest))
        else:
            benchmarks.append((path, digest, content))
    # The oldest first, whatever the order they are named in: where two say something of one thing, the last is the newest.
    for run, digest in sorted(runs, key=lambda one: one[0].header.created):
        gatherer.run_file(run, digest)
    # Run files before these: they say more, so of a cell that is in both the run file's is kept.
    for path, digest, content in sorted(benchmarks, key=lambda one: str(one[2].get("datetime") or "")):
        gatherer.benchmark_file(path, digest, content)
    return gatherer.frames()


def _files(paths: Iterable[str | Path]) -> list[Path]:
    answer: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(path.glob("*.jsonl"))
            if not found:
                raise LoadError(f"Expected run files (*.jsonl) in the directory {path} but it has none.")
            answer += found
        elif path.exists():
            answer.append(path)
        else:
            raise LoadError(f"Expected a run file or a directory of run files but there is no {path}.")
    if not answer:
        raise LoadError("Expected at least one run file but got none.")
    return answer


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LoadError(f"Cannot read {path}: {error.strerror or error}.") from error


def _sniff(path: Path) -> dict[str, Any] | None:
    """The content of a pytest-benchmark file, or None for what ought to be a run file."""
    expected = f"Expected {path} to be a run file (JSON Lines that begin with a header) or the JSON of pytest-benchmark"
    try:
        # In bytes: a text file would stumble here over what is wrong with a later line.
        with path.open("rb") as file:
            line = file.readline()
            first = _parsed(line.decode("utf-8"))
            if isinstance(first, dict) and "kind" in first:
                return None
            text = (line + file.read()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LoadError(f"{expected}, in UTF-8, but it is not text: {error}.") from error
    if not text.strip():
        raise LoadError(f"{expected}, but it is empty.")
    content = _parsed(text)
    if isinstance(content, Exception):
        raise LoadError(f"{expected}, but it is neither: {content}.") from content
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise LoadError(f"{expected}, but it is JSON without a list of 'benchmarks'.")
    return content


def _parsed(text: str) -> Any:
    """What a text of JSON says, or the error that keeps it from being read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or JSON that Python will not read
        return error

"""Run files on disk: written line by line as results happen, read back whole, never rewritten."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from harness.record import Footer, Header, Record, Result, from_json, to_json


class StoreError(ValueError):
    """A run file that cannot be written or read; the message names the file, the line and what to do."""


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RunWriter:
    """An append-only run file. Each result is on disk when :meth:`append` returns; a file left without
    :meth:`close` has no footer, and says so when it is read."""

    def __init__(self, directory: Path, what: str, header: Header) -> None:
        """Opens ``directory/<time>-<what>-<run>.jsonl`` and writes the header. Raises :class:`StoreError` where it cannot."""
        stamp = header.created.replace("-", "").replace(":", "")
        self.path = directory / f"{stamp}-{what}-{header.run[:8]}.jsonl"
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = self.path.open("x", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._unwritable(error, "Name another folder.") from error
        self._write(header)

    def append(self, result: Result) -> None:
        """Writes one more result. Raises :class:`StoreError` where it cannot."""
        self._counts[result.outcome] += 1
        self._write(result)

    def close(self, exit_status: int, coverage: dict[str, Any] | None = None) -> Path:
        """Writes the footer and closes the file; returns its path. Raises :class:`StoreError` where it cannot."""
        self._write(Footer(now(), exit_status, self._counts.total(), dict(self._counts), self._digest.hexdigest(), coverage or {}))
        self._file.close()
        return self.path

    def abandon(self) -> None:
        """Closes the file as it is, without a footer, where it cannot be written any more."""
        with suppress(OSError):
            self._file.close()

    def _write(self, record: Record) -> None:
        line = encode(record) + "\n"
        self._digest.update(line.encode())
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error, "What was written before can be read.") from error

    def _unwritable(self, error: OSError, then: str) -> StoreError:
        return StoreError(f"Cannot write the run file {self.path}: {error.strerror or error}. {then}")


def encode(record: Record) -> str:
    """The record as one line of JSON, without the newline."""
    # In ASCII: other people's messages may hold what UTF-8 cannot, and a file may be cut short anywhere.
    plain = to_json(record)
    try:
        return json.dumps(plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(plain), allow_nan=False)


def decode(line: str) -> Record:
    """The record that a line of JSON holds. Raises :class:`~harness.record.RecordError` or ``json.JSONDecodeError``."""
    return from_json(json.loads(line))


def _finite(value: Any) -> Any:
    """``value`` with null for every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


@dataclass(frozen=True)
class Run:
    """A run file as read: its header, its results, its footer if it has one, and what is wrong with it in sentences."""

    path: Path
    header: Header
    results: list[Result]
    footer: Footer | None
    problems: list[str]

    @property
    def complete(self) -> bool:
        return self.footer is not None and not self.problems


class RunReader:
    """A run file read line by line, so that it may be larger than memory: ``header`` is there at once, iterating gives the results.

    ``footer`` and ``problems`` are whole when that has ended. A file that was cut short or altered is read as far as it goes, and
    ``problems`` says so.
    """

    def __init__(self, path: Path) -> None:
        """Reads the header. Raises :class:`StoreError` if this is not a run file at all: no such file, not text, or no header."""
        self.path = path
        try:
            # In bytes, and so only at newlines: what else str.splitlines takes for the end of a line may stand within a message.
            with path.open("rb") as file:
                line = file.readline()
        except OSError as error:
            raise _unreadable(path, error) from error
        expected = f"Expected {path} to begin with the header of a run file, but"
        if not line:
            raise StoreError(f"{expected} the file is empty.")
        try:
            header = decode(line.decode("utf-8"))
        except _NO_RECORD as error:
            raise StoreError(f"{expected} line 1 is not one: {error}.") from error
        if not isinstance(header, Header):
            raise StoreError(f"{expected} line 1 is a {header.kind} line.")
        self.header = header
        self.footer: Footer | None = None
        self.problems: list[str] = []

    @property
    def complete(self) -> bool:
        return self.footer is not None and not self.problems

    def __iter__(self) -> Iterator[Result]:
        self.footer, self.problems = None, []
        count, digest = 0, hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                digest.update(file.readline())
                for number, line in enumerate(file, start=2):
                    record = self._record(number, line)
                    if record is None:
                        continue
                    if isinstance(record, Footer):
                        self._end(record, digest.hexdigest())
                    elif not isinstance(record, Header):
                        count += 1
                        yield record
                    digest.update(line)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if self.footer is None:
            self.problems.append(f"{self.path}: no footer: the run was cut short after {count} results.")

    def _record(self, number: int, line: bytes) -> Record | None:
        """What a line holds; None for what is left out."""
        where = f"{self.path}:{number}"
        try:
            record = decode(line.decode("utf-8"))
        except _NO_RECORD as error:
            whole = line.endswith(b"\n")  # the last line alone can be without
            self.problems.append(f"{where}: {error if whole else 'the last line was cut short'}; the line was left out.")
            return None
        if self.footer is not None:
            self.problems.append(f"{where}: a {record.kind} line after the footer; it was left out.")
            return None
        if isinstance(record, Header):
            self.problems.append(f"{where}: a second header; it was left out.")
        return record

    def _end(self, footer: Footer, sha256: str) -> None:
        self.footer = footer
        if footer.sha256 != sha256:
            self.problems.append(
                f"{self.path}: the lines do not have the checksum that the footer gives: the file was altered after it was written."
            )


# Not UTF-8, not JSON, not a record, or JSON that Python will not read.
_NO_RECORD = (ValueError, RecursionError)


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"Cannot read the run file {path}: {error.strerror or error}.")


def read(path: Path) -> Run:
    """Reads a whole run file, as :class:`RunReader` does."""
    reader = RunReader(path)
    results = list(reader)
    return Run(path, reader.header, results, reader.footer, reader.problems)

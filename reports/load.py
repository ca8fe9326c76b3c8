"""Run files and pytest-benchmark files in, tidy data frames out."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness import store
from harness.outcome import Outcome
from harness.record import Calibration, Conformance, Mutation, Throughput, Versus
from harness.statistics import Verdict
from reports import metrics, timed
from reports.columns import COLUMNS
from reports.fields import mapping, number
from reports.foreign import from_benchmark


class LoadError(ValueError):
    """Something that cannot be loaded; the message is one line that names the file and what was expected."""


@dataclass(frozen=True)
class Frames:
    """Everything that the loaded files say, one tidy data frame per kind of fact; :data:`reports.columns.COLUMNS` documents the columns.

    ``problems``: what is wrong with the files, one sentence each.
    """

    runs: pd.DataFrame
    implementations: pd.DataFrame
    contracts: pd.DataFrame
    mutations: pd.DataFrame
    calibrations: pd.DataFrame
    coverage: pd.DataFrame
    conformance: pd.DataFrame
    errors: pd.DataFrame
    throughput: pd.DataFrame
    samples: pd.DataFrame
    problems: tuple[str, ...]


def load(paths: str | Path | Iterable[str | Path]) -> Frames:
    """Reads run files, directories of run files and pytest-benchmark files into one set of frames.

    Of a directory, every ``*.jsonl`` in it is read. A cell that a run file and the pytest-benchmark file of the same
    session both hold is counted once. Raises :class:`LoadError` for a path that holds neither.
    """
    loader = _Loader()
    benchmarks = []
    seen: set[str] = set()
    for path in _files([paths] if isinstance(paths, (str, Path)) else paths):
        data = _bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if digest in seen:
            loader.problems.append(f"{path}: the same file was given twice; it counts once.")
            continue
        seen.add(digest)
        content = _sniff(path, data)
        if content is None:
            loader.run_file(path, digest)
        else:
            benchmarks.append((path, digest, content))
    # Run files first: they say more, so of a cell that is in both the run file's is kept.
    for path, digest, content in benchmarks:
        loader.benchmark_file(path, digest, content)
    return loader.frames()


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


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoadError(f"Cannot read {path}: {error.strerror or error}.") from error


def _sniff(path: Path, data: bytes) -> dict[str, Any] | None:
    """The content of a pytest-benchmark file, or None for what ought to be a run file."""
    expected = f"Expected {path} to be a run file (JSON Lines that begin with a header) or the JSON of pytest-benchmark"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LoadError(f"{expected}, in UTF-8, but it is not text: {error}.") from error
    if not text.strip():
        raise LoadError(f"{expected}, but it is empty.")
    try:
        first = json.loads(text.split("\n", 1)[0])
    except json.JSONDecodeError:
        first = None
    if isinstance(first, dict) and "kind" in first:
        return None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise LoadError(f"{expected}, but it is neither: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise LoadError(f"{expected}, but it is JSON without a list of 'benchmarks'.")
    return content


class _Loader:
    """Gathers rows, file by file."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
        self.contracts: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._names: set[str] = set()
        self._signatures: set[tuple[Any, ...]] = set()

    def frames(self) -> Frames:
        self.rows["contracts"] = list(self.contracts.values())
        tables = {name: _table(rows, COLUMNS[name]) for name, rows in self.rows.items()}
        return Frames(**tables, problems=tuple(self.problems))

    def run_file(self, path: Path, digest: str) -> None:
        try:
            run = store.read(path)
        except store.StoreError as error:
            raise LoadError(str(error)) from error
        self.problems += run.problems
        header, footer = run.header, run.footer
        name = self._name(path)
        machine = str(header.environment.get("machine", "unnamed"))
        self.rows["runs"].append(
            {
                "run": name,
                "session": header.run,
                "path": str(path),
                "format": "run file",
                "sha256": digest,
                "created": header.created,
                "finished": footer.finished if footer else "",
                "complete": run.complete,
                "exit_status": footer.exit_status if footer else None,
                "results": len(run.results),
                "command": shlex.join(header.command),
                "machine": machine,
                "environment": header.environment,
                "workloads": header.workloads,
                "policy": header.policy,
            }
        )
        # Where only the suite, the instrument or two environments were put to the test, no implementation was.
        if not run.results or not all(isinstance(result, Mutation | Calibration | Versus) for result in run.results):
            for implementation, facts in header.implementations.items():
                self._implementation(name, machine, implementation, mapping(facts))
        for contract, facts in header.contracts.items():
            self._contract(contract, mapping(facts))
        for place, result in enumerate(run.results, start=1):
            if result.outcome not in set(Outcome):
                self.problems.append(f"{path}: result {place} has the unknown outcome {result.outcome!r}; it was left out.")
            elif isinstance(result, Conformance):
                self._conformance(name, machine, result)
            elif isinstance(result, Mutation):
                self._mutation(name, result)
            elif isinstance(result, Calibration):
                if not self._calibration(name, machine, result):
                    self.problems.append(f"{path}: result {place} has verdicts that do not add up to its trials; it was left out.")
            elif isinstance(result, Throughput):  # not Versus: two environments are no implementations that were timed beside each other
                self._signatures.add(_signature(machine, result))
                self._throughput(name, machine, result)

        for implementation, found in (footer.coverage if footer else {}).items():
            for mode, facts in mapping(found).items():
                self._coverage(name, implementation, mode, mapping(facts))

    def _mutation(self, run: str, result: Mutation) -> None:
        own = {key: getattr(result, key) for key in ("contract", "mutant", "description", "modes", "case", "seconds")}
        self.rows["mutations"].append({**own, "run": run, "killed": result.outcome == Outcome.PASSED})

    def _calibration(self, run: str, machine: str, result: Calibration) -> bool:
        """Whether its counts make sense; only then it is kept."""
        counts = {verdict.value: result.verdicts.get(verdict.value, 0) for verdict in Verdict}
        if not all(isinstance(count, int) and count >= 0 for count in counts.values()) or not 0 < result.trials == sum(counts.values()):
            return False
        own = {key: getattr(result, key) for key in ("planted", "trials", "most_seconds", "ratios")}
        seconds = metrics.median(result.seconds)
        self.rows["calibrations"].append({**own, **counts, "run": run, "machine": machine, "seconds": seconds})
        return True

    def _coverage(self, run: str, implementation: str, mode: str, facts: Mapping[str, Any]) -> None:
        pairs = mapping(facts.get("pairs"))
        missing = pairs.get("missing")
        self.rows["coverage"].append(
            {
                "run": run,
                "implementation": implementation,
                "mode": mode,
                "cases": int(number(facts.get("cases")) or 0),
                "pairs_seen": int(number(pairs.get("seen")) or 0),
                "pairs_possible": int(number(pairs.get("possible")) or 0),
                "missing": [str(pair) for pair in missing] if isinstance(missing, list) else [],
                "options": dict(mapping(facts.get("options"))),
                "sizes": dict(mapping(facts.get("sizes"))),
            }
        )

    def benchmark_file(self, path: Path, digest: str, content: dict[str, Any]) -> None:
        name = self._name(path)
        info = mapping(content.get("machine_info"))
        machine = str(info.get("node") or "unnamed")
        environment: dict[str, Any] = {
            "system": " ".join(str(info[key]) for key in ("system", "release", "machine") if info.get(key)),
            "cpu": str(mapping(info.get("cpu")).get("brand_raw") or ""),
            "versions": {"python": info.get("python_version"), "pytest-benchmark": content.get("version")},
        }
        kept = 0
        for index, benchmark in enumerate(content["benchmarks"]):
            try:
                result = from_benchmark(benchmark)
            except (TypeError, ValueError) as error:
                raise LoadError(f"Expected benchmark {index} of {path} to be as pytest-benchmark writes it, but: {error}") from error
            given = mapping(mapping(mapping(benchmark).get("extra_info")).get("environment"))
            if given.get("machine"):
                environment, machine = dict(given), str(given["machine"])
            if result.outcome not in set(Outcome):
                self.problems.append(f"{path}: benchmark {index} has the unknown outcome {result.outcome!r}; it was left out.")
                continue
            signature = _signature(machine, result)
            if signature not in self._signatures:
                self._signatures.add(signature)
                self._throughput(name, machine, result)
                kept += 1
        self.rows["runs"].append(
            {
                "run": name,
                "session": "",
                "path": str(path),
                "format": "pytest-benchmark",
                "sha256": digest,
                "created": str(content.get("datetime") or ""),
                "finished": str(content.get("datetime") or ""),
                "complete": True,
                "exit_status": None,
                "results": kept,
                "command": "",
                "machine": machine,
                "environment": environment,
                "workloads": {},
                "policy": {},
            }
        )

    def _name(self, path: Path) -> str:
        name, count = path.stem, 1
        while name in self._names:
            count += 1
            name = f"{path.stem} ({count})"
        self._names.add(name)
        return name

    def _implementation(self, run: str, machine: str, implementation: str, facts: Mapping[str, Any]) -> None:
        modes = facts.get("modes") or []
        for device, reason in (mapping(facts.get("availability")) or {"": None}).items():
            self.rows["implementations"].append(
                {
                    "run": run,
                    "machine": machine,
                    "implementation": implementation,
                    "device": device,
                    "available": reason is None,
                    "reason": "" if reason is None else str(reason),
                    "description": str(facts.get("description") or ""),
                    "source": str(facts.get("source") or ""),
                    "modes": ", ".join(map(str, modes)) if isinstance(modes, (list, tuple)) else str(modes),
                }
            )

    def _contract(self, contract: str, facts: Mapping[str, Any]) -> None:
        mutants = facts.get("mutants") or []
        self.contracts[contract] = {
            "contract": contract,
            "topic": str(facts.get("topic") or contract.partition(".")[0]),
            "severity": str(facts.get("severity") or ""),
            "statement": str(facts.get("statement") or ""),
            "source": str(facts.get("source") or ""),
            "mutants": [str(mutant) for mutant in mutants] if isinstance(mutants, (list, tuple, dict)) else [str(mutants)],
        }

    def _conformance(self, run: str, machine: str, result: Conformance) -> None:
        line = len(self.rows["conformance"])
        if result.contract not in self.contracts:
            self._contract(result.contract, {"severity": result.severity})
        shared = {name: getattr(result, name) for name in ("contract", "implementation", "mode", "device", "dtype", "outcome")}
        self.rows["conformance"].append(
            {
                **shared,
                "line": line,
                "run": run,
                "machine": machine,
                "case": result.case,
                "severity": result.severity,
                "message": result.message,
                "reproduction": result.reproduction,
                "parameters": result.parameters,
                "kernels": ", ".join(map(str, result.kernels)),
                "seconds": result.seconds,
            }
        )
        for error in result.errors:
            numbers = {key: number(error.get(key)) for key in ("error", "floor", "ratio", "allowance")}
            finite = numbers["error"] is not None
            self.rows["errors"].append(
                {
                    **shared,
                    **numbers,
                    "line": line,
                    "quantity": str(error.get("quantity", "")),
                    "elements": int(number(error.get("elements")) or 0),
                    "finite": finite,
                }
            )

    def _throughput(self, run: str, machine: str, result: Throughput) -> None:
        cell = len(self.rows["throughput"])
        self.rows["throughput"].append({**timed.cell_row(result), "cell": cell, "run": run, "machine": machine})
        self.rows["samples"] += [{**row, "cell": cell} for row in timed.sample_rows(result)]


def _signature(machine: str, result: Throughput) -> tuple[Any, ...]:
    """What two records of one measurement share, whichever file they are in."""
    names = (
        "implementation",
        "mode",
        "device",
        "dtype",
        "timed_pass",
        "sequence_length",
        "batch_size",
        "input_size",
        "hidden_size",
        "outcome",
    )
    return machine, *(getattr(result, name) for name in names), len(result.samples), f"{sum(result.samples):.6e}"


def _table(rows: list[dict[str, Any]], columns: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=dtype) for name, (dtype, _) in columns.items()})

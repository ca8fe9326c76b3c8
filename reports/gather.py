"""The rows of the frames, gathered file by file, result by result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness import store
from harness.outcome import Outcome
from harness.record import Calibration, Conformance, Mutation, Result, Throughput, Versus
from harness.statistics import Verdict
from reports import metrics, timed
from reports.columns import COLUMNS
from reports.compared import Compared
from reports.fields import count, mapping, printable
from reports.foreign import from_benchmark, has_samples
from reports.frames import Frames, LoadError
from reports.machines import told_apart
from reports.timed import versus_row


def reader(path: Path) -> store.RunReader:
    """The run file at ``path``, of which the header is read. Raises LoadError if it is none."""
    try:
        return store.RunReader(path)
    except store.StoreError as error:
        raise LoadError(str(error)) from error


class Gatherer:
    """Gathers rows, file by file."""

    def __init__(self) -> None:
        self.tables = {name: _Table(columns) for name, columns in COLUMNS.items() if name != "errors"}
        self.compared = Compared()
        self.contracts: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._versus: dict[tuple[str, str, str], tuple[str, Versus]] = {}
        self._names: set[str] = set()
        self._signatures: set[tuple[Any, ...]] = set()
        self._cells: set[tuple[str, ...]] = set()

    def frames(self) -> Frames:
        for facts in self.contracts.values():
            self.tables["contracts"].add(facts)
        for (run, *_), (machine, result) in self._versus.items():
            self.tables["versus"].add({**versus_row(result), "run": run, "machine": machine})
        # One after the other, each given up when it is a frame.
        frames = {name: self.tables.pop(name).frame() for name in list(self.tables)}
        frames["errors"] = self.compared.frame(frames["conformance"])
        return told_apart(Frames(**frames, problems=tuple(self.problems)))

    def run_file(self, reader: store.RunReader, digest: str) -> None:
        try:
            self._run(reader, digest)
        except store.StoreError as error:
            raise LoadError(str(error)) from error

    def _run(self, reader: store.RunReader, digest: str) -> None:
        header, path = reader.header, reader.path
        name = self._name(path)
        machine = str(header.environment.get("machine", "unnamed"))
        for contract, facts in header.contracts.items():
            self._contract(contract, mapping(facts))
        place, concerns_implementations = 0, False
        # As they are read and not all at once: a result takes ten times as much memory as what is kept of it.
        for place, result in enumerate(reader, start=1):
            # Where only the suite, the instrument or two environments were put to the test, no implementation was.
            concerns_implementations |= not isinstance(result, Mutation | Calibration | Versus)
            trouble = self._result(name, machine, result)
            if trouble:
                self.problems.append(f"{path}: result {place} {trouble}")
        if concerns_implementations or not place:
            for implementation, facts in header.implementations.items():
                self._implementation(name, machine, implementation, mapping(facts))
        footer = reader.footer
        for implementation, found in (footer.coverage if footer else {}).items():
            for mode, facts in mapping(found).items():
                self._coverage(name, implementation, mode, mapping(facts))
        self.problems += reader.problems
        self.tables["runs"].add(
            {
                "run": name,
                "session": header.run,
                "path": str(path),
                "format": "run file",
                "sha256": digest,
                "created": header.created,
                "finished": footer.finished if footer else "",
                "complete": reader.complete,
                "exit_status": footer.exit_status if footer else None,
                "results": place,
                "command": shlex.join(header.command),
                "machine": machine,
                "environment": header.environment,
                "workloads": header.workloads,
                "catalogue": list(header.contracts),
                "policy": header.policy,
            }
        )

    def _result(self, run: str, machine: str, result: Result) -> str:
        """Keeps a result; what was not kept of it in words, else nothing."""
        if result.outcome not in _OUTCOMES:
            return f"has the unknown outcome {result.outcome!r}; it was left out."
        if isinstance(result, Conformance):
            self._conformance(run, machine, result)
        elif isinstance(result, Mutation):
            self._mutation(run, result)
        elif isinstance(result, Calibration):
            if not self._calibration(run, machine, result):
                return "has verdicts that do not add up to its trials; it was left out."
        elif isinstance(result, Versus):
            self._versus[run, result.workload, result.implementation] = machine, result
        elif isinstance(result, Throughput):
            self._signatures.add(_signature(machine, result))
            self._cells.add(_whose(machine, result))
            self._throughput(run, machine, result)
            return _no_times(result)
        return ""

    def _mutation(self, run: str, result: Mutation) -> None:
        own = {key: getattr(result, key) for key in ("contract", "mutant", "description", "modes", "case", "seconds")}
        self.tables["mutations"].add({**own, "run": run, "killed": result.outcome == Outcome.PASSED})

    def _calibration(self, run: str, machine: str, result: Calibration) -> bool:
        """Whether its counts make sense; only then it is kept."""
        counts = {verdict.value: result.verdicts.get(verdict.value, 0) for verdict in Verdict}
        if not all(isinstance(count, int) and count >= 0 for count in counts.values()) or not 0 < result.trials == sum(counts.values()):
            return False
        own = {key: getattr(result, key) for key in ("device", "workload", "planted", "trials", "most_seconds", "ratios")}
        seconds = metrics.median(result.seconds)
        self.tables["calibrations"].add({**own, **counts, "run": run, "machine": machine, "seconds": seconds})
        return True

    def _coverage(self, run: str, implementation: str, mode: str, facts: Mapping[str, Any]) -> None:
        pairs = mapping(facts.get("pairs"))
        missing = pairs.get("missing")
        self.tables["coverage"].add(
            {
                "run": run,
                "implementation": implementation,
                "mode": mode,
                "cases": count(facts.get("cases")),
                "pairs_seen": count(pairs.get("seen")),
                "pairs_possible": count(pairs.get("possible")),
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
            if result.outcome not in _OUTCOMES:
                self.problems.append(f"{path}: benchmark {index} has the unknown outcome {result.outcome!r}; it was left out.")
                continue
            signature = _signature(machine, result)
            # Without its samples nothing tells whether a cell is one of a run file or was measured anew; that one has the samples.
            known = signature in self._signatures or (not has_samples(benchmark) and _whose(machine, result) in self._cells)
            if not known:
                self._signatures.add(signature)
                self._throughput(name, machine, result)
                kept += 1
                trouble = _no_times(result)
                if trouble:
                    self.problems.append(f"{path}: benchmark {index} {trouble}")
        self.tables["runs"].add(
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
                "catalogue": [],
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
            self.tables["implementations"].add(
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
        line = len(self.tables["conformance"])
        if result.contract not in self.contracts:
            self._contract(result.contract, {"severity": result.severity})
        # Of these there are few, in many lines: one text for all.
        shared = {name: sys.intern(getattr(result, name)) for name in _SHARED}
        self.tables["conformance"].add(
            {
                **shared,
                "line": line,
                "run": run,
                "machine": machine,
                "case": result.case,
                "severity": sys.intern(result.severity),
                "message": result.message,
                "reproduction": result.reproduction,
                "hint": sys.intern(result.hint),
                "parameters": {sys.intern(key): value for key, value in result.parameters.items()},
                "kernels": sys.intern(", ".join(map(str, result.kernels))),
                "seconds": result.seconds,
            }
        )
        if result.errors:
            self.compared.add(line, result.errors)

    def _throughput(self, run: str, machine: str, result: Throughput) -> None:
        cell = len(self.tables["throughput"])
        self.tables["throughput"].add({**timed.cell_row(result), "cell": cell, "run": run, "machine": machine})
        samples = timed.samples(result)
        self.tables["samples"].extend(len(samples["seconds"]), {"cell": cell}, samples)


_OUTCOMES = frozenset(Outcome)
_SHARED = ("contract", "implementation", "mode", "device", "dtype", "outcome")


def _no_times(result: Throughput) -> str:
    odd = timed.no_times(result)
    return f"has a sample of {odd[0]} s, which is no time of a call; its samples were left out." if odd else ""


def _whose(machine: str, result: Throughput) -> tuple[str, ...]:
    """What two records of one cell share, whenever it was measured."""
    return machine, result.workload, result.implementation, result.device


def _signature(machine: str, result: Throughput) -> tuple[Any, ...]:
    """What two records of one measurement share, whichever file they are in."""
    return *_whose(machine, result), result.outcome, len(result.samples), f"{sum(result.samples):.6e}"


class _Table:
    """The columns of a frame while its rows come in: a dict for every row would take five times the memory."""

    def __init__(self, columns: Mapping[str, tuple[str, str]]) -> None:
        self._dtypes = {name: dtype for name, (dtype, _) in columns.items()}
        self._columns: dict[str, list[Any]] = {name: [] for name in columns}
        self._items = [(name, values.append) for name, values in self._columns.items()]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def add(self, row: Mapping[str, Any]) -> None:
        for name, append in self._items:
            append(row[name])

    def extend(self, number: int, shared: Mapping[str, Any], own: Mapping[str, list[Any]]) -> None:
        """Adds ``number`` rows at once: of ``shared`` they all have the same, of ``own`` each its item."""
        for name, values in self._columns.items():
            values.extend([shared[name]] * number if name in shared else own[name])

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame({name: pd.Series(self._values(name, dtype), dtype=dtype) for name, dtype in self._dtypes.items()})

    def _values(self, name: str, dtype: str) -> list[Any]:
        return printable(self._columns[name]) if dtype == "str" else self._columns[name]

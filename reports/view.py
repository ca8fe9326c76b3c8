"""What the template prints of conformance and provenance: findings cut into the rows, words and numbers of the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.outcome import Outcome, Severity
from reports.analysis import BREAKING, WORST_FIRST, Findings, Verdict
from reports.figures.style import MODE_NAMES, modes
from reports.tables import counted, rows
from reports.words import floors

CASES_SHOWN = 5
"""Cases of one cell that are told in full; the rest are named."""

MESSAGE_BUDGET = 1_000_000
"""Characters of messages in one page. When it is used up, a message is cut to its first line."""

SIZE_NAMES = {"steps": "T", "batch": "B", "input_size": "I", "hidden_size": "H", "num_layers": "L"}
"""The symbols of torch's documentation."""


@dataclass(frozen=True)
class Detail:
    """One cell of the matrix that is not a plain pass: ``cases`` are told in full, ``others`` only named."""

    id: str
    contract: str
    implementation: str
    outcome: str
    summary: str
    cases: list[dict[str, Any]]
    others: str


def headline(findings: Findings) -> tuple[str, str]:
    """The verdict on everything, as a title and a paragraph."""
    count = Counter(findings.verdicts["verdict"])
    tested = sum(count[verdict] for verdict in (Verdict.DROP_IN, Verdict.PARTIAL, Verdict.SO_FAR, Verdict.NOT_DROP_IN))
    good = count[Verdict.DROP_IN]
    if not tested:
        title = "Speed only: no contract was run"
    elif good == tested:
        title = "The one tested implementation is a drop-in" if tested == 1 else f"All {tested} tested implementations are drop-ins"
    elif good:
        title = f"{good} of {tested} tested implementations {'is a drop-in' if good == 1 else 'are drop-ins'}"
    elif count[Verdict.SO_FAR]:
        title = f"{count[Verdict.SO_FAR]} of {tested} tested implementations: no failure so far"
    else:
        title = "No tested implementation is a drop-in"
    names = {verdict: list(findings.verdicts.loc[findings.verdicts["verdict"] == verdict, "implementation"]) for verdict in Verdict}
    sentences = []
    if names[Verdict.NOT_DROP_IN]:
        sentences.append(f"Not a drop-in: {', '.join(names[Verdict.NOT_DROP_IN])}.")
    if names[Verdict.PARTIAL]:
        sentences.append(f"A drop-in only in part, for what it does not refuse: {', '.join(names[Verdict.PARTIAL])}.")
    if names[Verdict.SO_FAR] and good:
        sentences.append(f"No failure so far, but not everything was run: {', '.join(names[Verdict.SO_FAR])}.")
    if names[Verdict.NOT_TESTED] and tested:
        sentences.append(f"Not tested: {', '.join(names[Verdict.NOT_TESTED])}.")
    if names[Verdict.UNAVAILABLE]:
        sentences.append(f"Cannot run here: {', '.join(names[Verdict.UNAVAILABLE])}.")
    wins = Counter(name for name in findings.fastest["winner"] if name)
    if len(findings.fastest):
        parts = [f"{name} in {number}" for name, number in wins.most_common()]
        open_uses = len(findings.fastest) - wins.total()
        if open_uses:
            parts.append(f"not settled in {open_uses}")
        sentences.append(f"Fastest conforming implementation, out of {counted(len(findings.fastest), 'use')}: {', '.join(parts)}.")
    return title, " ".join(sentences)


def verdict_rows(findings: Findings) -> list[dict[str, Any]]:
    """The verdict table: drop-ins first."""
    order = list(Verdict)
    answer = []
    for row in sorted(rows(findings.verdicts), key=lambda row: order.index(row.verdict)):
        total = max(row.contracts, 1)
        rest = row.contracts - row.passed - len(row.broken)
        answer.append(
            {
                "implementation": row.implementation,
                "verdict": row.verdict,
                "meaning": Verdict(row.verdict).meaning,
                "kind": row.verdict.replace(" ", "-"),
                "reason": row.reason,
                "broken": row.broken,
                "expected": row.expected,
                "unsupported": row.unsupported,
                "contracts": row.contracts,
                "passed": row.passed,
                "bar": [("passed", 100 * row.passed / total), ("declared", 100 * rest / total), ("broken", 100 * len(row.broken) / total)],
                "worst": floors(row.worst_ratio),
            }
        )
    return answer


def tested_rows(findings: Findings) -> list[dict[str, Any]]:
    """Who was in the runs: one row per implementation, with its devices and machines."""
    frame = findings.frames.implementations
    machines = findings.frames.runs["machine"].nunique()
    answer = []
    for name in findings.implementations:
        own = frame[frame["implementation"] == name]
        places: dict[str, str] = {}
        for row in rows(own):
            where = row.device or "any device"
            places[f"{where} on {row.machine}" if machines > 1 else where] = row.reason
        first = own.iloc[0] if len(own) else None
        served = [] if first is None or not first["modes"] else modes(first["modes"].split(", "))
        answer.append(
            {
                "implementation": name,
                "description": "" if first is None else first["description"],
                "source": "" if first is None else first["source"],
                "modes": ", ".join(MODE_NAMES.get(mode, mode) for mode in served),
                "places": sorted(places.items(), key=lambda item: bool(item[1])),
            }
        )
    return answer


def matrix_topics(findings: Findings) -> tuple[list[str], list[dict[str, Any]], list[Detail]]:
    """Columns, topics with their contracts and cells, and the details of the cells that are not plain passes."""
    checked = set(findings.matrix["implementation"])
    columns = [name for name in findings.implementations if name in checked]
    counts = {(row["contract"], row["implementation"]): row for row in findings.matrix.to_dict("records")}
    # What could not run is told once, among the implementations, and not for every contract.
    plain = (str(Outcome.PASSED), str(Outcome.UNAVAILABLE))
    details = _details(findings, {key for key, row in counts.items() if sum(row[name] for name in plain) < row["cases"]}, counts)
    topics: dict[str, list[dict[str, Any]]] = {}
    for contract in rows(findings.frames.contracts):
        cells = []
        for name in columns:
            key = (contract.contract, name)
            cells.append(_cell(counts[key], details.get(key)) if key in counts else None)
        topics.setdefault(contract.topic, []).append(
            {
                "id": contract.contract,
                "severity": contract.severity,
                "meaning": Severity(contract.severity).meaning if contract.severity in set(Severity) else "",
                "statement": contract.statement,
                "source": contract.source,
                "link": contract.source if contract.source.startswith("https://") else "",
                "mutants": contract.mutants,
                "cells": cells,
                "worst": next((str(o) for o in WORST_FIRST if any(cell and cell["outcome"] == o for cell in cells)), ""),
                "breaks": any(cell and cell["outcome"] in BREAKING for cell in cells),
            }
        )
    return columns, [{"name": name.replace("_", " "), "contracts": contracts} for name, contracts in topics.items()], list(details.values())


def strength(findings: Findings) -> dict[str, Any]:
    """How strong the suite is shown to be: the mutants that were run, killed and alive; None in ``score`` where none was run."""
    found = findings.frames.mutations.drop_duplicates(["contract", "mutant"], keep="last")
    alive = [f"{row.mutant} ({row.description}), which {row.contract} must reject" for row in rows(found[~found["killed"]])]
    killed = int(found["killed"].sum())
    named = int(findings.frames.contracts["mutants"].map(len).sum())
    return {
        "score": f"{killed} of {len(found)} ({killed / len(found):.1%})" if len(found) else None,
        "alive": alive,
        "contracts": found["contract"].nunique(),
        "named": named,
        "matrix": [
            (contract, [(row.mutant.removeprefix("mutant:"), row.description, row.killed, row.modes) for row in rows(group)])
            for contract, group in found.groupby("contract", sort=False)
        ],
    }


def coverage_rows(findings: Findings) -> list[dict[str, Any]]:
    """What the cases covered: one row per implementation and mode, of the last run that has it."""
    answer = []
    for row in rows(findings.frames.coverage.drop_duplicates(["implementation", "mode"], keep="last")):
        unused = [f"{option}={value}" for option, values in row.options.items() for value, cases in values.items() if not cases]
        sizes = {name: values for name, values in row.sizes.items() if values}
        answer.append(
            {
                "implementation": row.implementation,
                "mode": MODE_NAMES.get(row.mode, row.mode),
                "cases": row.cases,
                "pairs": f"{row.pairs_seen} of {row.pairs_possible}",
                "sizes": ", ".join(f"{SIZE_NAMES.get(name, name)} {len(v)} values, {v[0]} to {v[-1]}" for name, v in sizes.items()),
                "missing": row.missing,
                "unused": ", ".join(unused),
            }
        )
    return answer


def _cell(counts: dict[Any, Any], detail: Detail | None) -> dict[str, Any]:
    outcome, cases = counts["outcome"], counts["cases"]
    return {
        "outcome": outcome,
        "text": "" if outcome == Outcome.UNAVAILABLE else str(cases) if detail is None else f"{counts[outcome]}/{cases}",
        "label": _spoken(counts),
        "detail": detail.id if detail else "",
    }


def _spoken(counts: dict[Any, Any]) -> str:
    parts = [f"{counts[str(outcome)]} {outcome.replace('-', ' ')}" for outcome in WORST_FIRST if counts[str(outcome)]]
    worst = "" if pd.isna(counts["worst_ratio"]) else f"; worst error {floors(counts['worst_ratio'])}"
    return f"{', '.join(parts)} of {counted(counts['cases'], 'case')}{worst}"


def _details(findings: Findings, keys: set[tuple[str, str]], counts: dict[Any, Any]) -> dict[tuple[str, str], Detail]:
    conformance = findings.current.conformance
    odd = conformance[~conformance["outcome"].isin([Outcome.PASSED, Outcome.UNAVAILABLE])]
    errors = {
        line: list(rows(group))
        for line, group in findings.current.errors[findings.current.errors["line"].isin(odd["line"])].groupby("line")
    }
    rank = {str(outcome): place for place, outcome in enumerate(WORST_FIRST)}
    lines: dict[tuple[str, str], list[Any]] = {}
    for row in rows(odd):
        lines.setdefault((row.contract, row.implementation), []).append(row)
    order = sorted(
        (key for key in counts if key in keys), key=lambda key: (rank[counts[key]["outcome"]], findings.implementations.index(key[1]))
    )
    told: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in order}
    # One case of every cell first, then a second one: a budget spent cell by cell would leave the last ones silent.
    left = MESSAGE_BUDGET
    grouped = {key: _alike(sorted(lines[key], key=lambda row: rank[row.outcome])) for key in order}
    for position in range(CASES_SHOWN):
        for key in order:
            if position < len(grouped[key]):
                row, alike = grouped[key][position]
                message = row.message if len(row.message) <= min(left, 8000) else row.message[: min(max(left, 200), 8000)].rstrip() + " …"
                left -= len(message)
                told[key].append(_case(row, alike, message, errors.get(row.line, [])))
    answer = {}
    for number, key in enumerate(order):
        rest = [row.case for row, _ in grouped[key][CASES_SHOWN:]]
        others = f"{counted(len(rest), 'further case')}: {', '.join(rest[:20])}{', …' if len(rest) > 20 else ''}" if rest else ""
        answer[key] = Detail(f"d{number}", key[0], key[1], counts[key]["outcome"], _spoken(counts[key]), told[key], others)
    return answer


def _alike(lines: list[Any]) -> list[tuple[Any, int]]:
    """Lines with the same outcome and message as one, with their number: a refusal reads the same in every case."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in lines:
        groups.setdefault((row.outcome, row.message), []).append(row)
    return [(members[0], len(members)) for members in groups.values()]


def _case(row: Any, alike: int, message: str, errors: list[Any]) -> dict[str, Any]:
    measured = [f"{e.quantity} {floors(e.ratio) if e.finite else 'not finite'} (allowed {e.allowance:g})" for e in errors]
    return {
        "case": row.case,
        "outcome": row.outcome,
        "alike": f"and {counted(alike - 1, 'other case')} alike" if alike > 1 else "",
        "where": ", ".join(part for part in (row.mode, row.dtype, row.device, row.machine) if part),
        "parameters": ", ".join(f"{key}={value}" for key, value in row.parameters.items()),
        "kernels": row.kernels,
        "errors": ", ".join(measured),
        "message": message,
        "reproduction": row.reproduction,
    }


def run_rows(findings: Findings) -> list[dict[str, Any]]:
    """Provenance: one entry per file."""
    answer = []
    for row in rows(findings.frames.runs):
        environment = row.environment
        settings = dict(environment.get("settings") or {})
        variables = settings.pop("variables", None) or {}
        versions = environment.get("versions") or {}
        gpus = [gpu.get("name", "GPU") if isinstance(gpu, dict) else str(gpu) for gpu in environment.get("gpus") or []]
        memory, load = environment.get("memory"), environment.get("load")
        facts = {
            "File": row.path,
            "SHA-256": row.sha256,
            "Format": row.format,
            "Command": row.command,
            "Began": row.created,
            "Finished": row.finished if row.complete else row.finished or "never: the run was cut short",
            "Exit status": "" if pd.isna(row.exit_status) else str(row.exit_status),
            "Results": counted(row.results, "result") + ("" if row.format == "run file" else " that no run file has"),
            "Machine": row.machine,
            "System": environment.get("system"),
            "CPU": " · ".join(
                str(part) for part in (environment.get("cpu"), environment.get("cores") and f"{environment['cores']} cores") if part
            ),
            "Memory": f"{memory / 1e9:.0f} GB" if isinstance(memory, (int, float)) else "",
            "GPU": ", ".join(gpus),
            "Load at the start": "" if load is None else f"{load:.2f}",
            "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            "Absent": ", ".join(name for name, version in versions.items() if not version),
            "Settings": ", ".join(f"{name}={value}" for name, value in settings.items()),
            "Variables": " ".join(f"{name}={value}" for name, value in variables.items()),
            "Policy": ", ".join(f"{name}={value}" for name, value in row.policy.items()),
        }
        answer.append({"run": row.run, "complete": row.complete, "facts": {name: str(value) for name, value in facts.items() if value}})
    return answer

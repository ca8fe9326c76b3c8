"""What the template prints of conformance: findings cut into the rows, words and numbers of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.outcome import Outcome, Severity
from reports.analysis import BREAKING, WORST_FIRST, Findings
from reports.figures.style import MODE_NAMES
from reports.tables import counted, rows
from reports.words import floors

CASES_SHOWN = 5
"""Cases of one cell that are told in full; the rest are named."""

MESSAGE_BUDGET = 1_000_000
"""Characters of messages in one page. When it is used up, a message is cut to its first :data:`MESSAGE_LEFT`."""

MESSAGE_MOST, MESSAGE_LEFT = 8000, 200
"""Characters of one message, at most and when the budget is used up."""

SIZE_NAMES = {"steps": "T", "batch": "B", "input_size": "I", "hidden_size": "H", "num_layers": "L"}
"""The symbols of torch's documentation."""


@dataclass(frozen=True)
class Detail:
    """One cell of the matrix that is not a plain pass: ``cases`` are told in full, ``others`` only named."""

    id: str
    contract: str
    implementation: str
    machine: str
    outcome: str
    summary: str
    cases: list[dict[str, Any]]
    others: str


@dataclass(frozen=True)
class Column:
    """A column of the matrix: an implementation, on a machine where there are several (else empty)."""

    implementation: str
    machine: str


def matrix_topics(findings: Findings) -> tuple[list[Column], list[dict[str, Any]], list[Detail]]:
    """Columns, topics with their contracts and cells, and the details of the cells that are not plain passes."""
    columns: list[Column] = []
    counts: dict[tuple[str, Column], dict[Any, Any]] = {}
    details: dict[tuple[str, Column], Detail] = {}
    for part in findings.parts:
        checked = set(part.matrix["implementation"])
        columns += [Column(name, part.machine) for name in part.implementations if name in checked]
        own = {(row["contract"], row["implementation"]): row for row in part.matrix.to_dict("records")}
        # What could not run is told once, among the implementations, and not for every contract.
        plain = (str(Outcome.PASSED), str(Outcome.UNAVAILABLE))
        odd = {key for key, row in own.items() if sum(row[name] for name in plain) < row["cases"]}
        told = _details(part, odd, own, len(details), MESSAGE_BUDGET // len(findings.parts))
        counts |= {(contract, Column(name, part.machine)): row for (contract, name), row in own.items()}
        details |= {(contract, Column(name, part.machine)): detail for (contract, name), detail in told.items()}
    topics: dict[str, list[dict[str, Any]]] = {}
    for contract in rows(findings.frames.contracts):
        cells = []
        for column in columns:
            key = (contract.contract, column)
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
                "outcomes": sorted({cell["outcome"] for cell in cells if cell}),
                "worst": next((str(o) for o in WORST_FIRST if any(cell and cell["outcome"] == o for cell in cells)), ""),
                "breaks": any(cell and cell["outcome"] in BREAKING for cell in cells),
            }
        )
    return columns, [{"name": name.replace("_", " "), "contracts": contracts} for name, contracts in topics.items()], list(details.values())


def strength(findings: Findings) -> list[dict[str, Any]]:
    """How strong the suite is shown to be: the mutants that were run, killed and alive, on each machine where any was."""
    return [_strength(part) for part in findings.parts if len(part.frames.mutations)]


def _strength(part: Findings) -> dict[str, Any]:
    found = part.frames.mutations.drop_duplicates(["contract", "mutant"], keep="last")
    killed = int(found["killed"].sum())
    return {
        "machine": part.machine,
        "score": f"{killed} of {len(found)} ({killed / len(found):.1%})",
        "alive": [f"{row.mutant} ({row.description}), which {row.contract} must reject" for row in rows(found[~found["killed"]])],
        "contracts": found["contract"].nunique(),
        "matrix": [
            (contract, [(row.mutant.removeprefix("mutant:"), row.description, row.killed, row.modes) for row in rows(group)])
            for contract, group in found.groupby("contract", sort=False)
        ],
    }


def named_mutants(findings: Findings) -> int:
    """How many mutants the contracts name, run or not."""
    return int(findings.frames.contracts["mutants"].map(len).sum())


def coverage_rows(findings: Findings) -> list[dict[str, Any]]:
    """What the cases covered: one row per implementation, mode and machine, of the last run that has it."""
    found = [
        (part.machine, row)
        for part in findings.parts
        for row in rows(part.frames.coverage.drop_duplicates(["implementation", "mode"], keep="last"))
    ]
    answer = []
    for machine, row in found:
        unused = [f"{option}={value}" for option, values in row.options.items() for value, cases in values.items() if not cases]
        sizes = {name: values for name, values in row.sizes.items() if values}
        answer.append(
            {
                "machine": machine,
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
    plain = detail is None and counts[outcome] == cases
    return {
        "outcome": outcome,
        "text": "" if outcome == Outcome.UNAVAILABLE else str(cases) if plain else f"{counts[outcome]}/{cases}",
        "label": _spoken(counts),
        "detail": detail.id if detail else "",
    }


def _spoken(counts: dict[Any, Any]) -> str:
    parts = [f"{counts[str(outcome)]} {outcome.replace('-', ' ')}" for outcome in WORST_FIRST if counts[str(outcome)]]
    worst = "" if pd.isna(counts["worst_ratio"]) else f"; worst error {floors(counts['worst_ratio'])}"
    return f"{', '.join(parts)} of {counted(counts['cases'], 'case')}{worst}"


def _details(
    findings: Findings, keys: set[tuple[str, str]], counts: dict[Any, Any], first: int, left: int
) -> dict[tuple[str, str], Detail]:
    """The details of the cells ``keys``, numbered from ``first``, in ``left`` characters of messages."""
    conformance = findings.current.conformance
    odd = conformance[~conformance["outcome"].isin([Outcome.PASSED, Outcome.UNAVAILABLE])]
    errors: dict[int, list[Any]] = {}
    for row in rows(findings.current.errors[findings.current.errors["line"].isin(odd["line"])]):
        errors.setdefault(row.line, []).append(row)
    rank = {str(outcome): place for place, outcome in enumerate(WORST_FIRST)}
    lines: dict[tuple[str, str], list[Any]] = {}
    for row in rows(odd):
        lines.setdefault((row.contract, row.implementation), []).append(row)
    order = sorted(
        (key for key in counts if key in keys), key=lambda key: (rank[counts[key]["outcome"]], findings.implementations.index(key[1]))
    )
    told: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in order}
    # One case of every cell first, then a second one: a budget spent cell by cell would leave the last ones silent.
    grouped = {key: _alike(sorted(lines[key], key=lambda row: rank[row.outcome])) for key in order}
    for position in range(CASES_SHOWN):
        for key in order:
            if position < len(grouped[key]):
                row, alike = grouped[key][position]
                most = min(max(left, MESSAGE_LEFT), MESSAGE_MOST)
                message = row.message if len(row.message) <= most else row.message[:most].rstrip() + " …"
                left -= len(message)
                told[key].append(_case(row, alike, message, errors.get(row.line, [])))
    answer = {}
    for number, key in enumerate(order):
        rest = grouped[key][CASES_SHOWN:]
        left_over, names = sum(alike for _, alike in rest), [row.case for row, _ in rest[:20]]
        others = f"{counted(left_over, 'further case')}: {', '.join(names)}{', …' if left_over > len(names) else ''}" if rest else ""
        answer[key] = Detail(
            f"d{first + number}", key[0], key[1], findings.machine, counts[key]["outcome"], _spoken(counts[key]), told[key], others
        )
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

"""What the template prints of who was tested, where, and what the report comes from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.analysis import Findings
from reports.environments import gpus
from reports.fields import mapping, number
from reports.figures.style import MODE_NAMES, modes
from reports.tables import counted, rows


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


_OF_A_MACHINE = ("Machine", "CPU", "Memory", "GPU", "System", "Versions")


def machine_facts(findings: Findings) -> list[dict[str, list[str]]]:
    """What each machine consists of: of every fact what its runs say, with these where they do not say the same."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for run in run_rows(findings):
        own = found.setdefault(run["facts"]["Machine"], {})
        for name in _OF_A_MACHINE:
            if name in run["facts"]:
                own.setdefault(name, {}).setdefault(run["facts"][name], []).append(run["run"])
    return [{name: _told(own[name]) for name in _OF_A_MACHINE if name in own} for own in found.values()]


def _told(values: dict[str, list[str]]) -> list[str]:
    return list(values) if len(values) == 1 else [f"{value} ({', '.join(runs)})" for value, runs in values.items()]


def run_rows(findings: Findings) -> list[dict[str, Any]]:
    """Provenance: one entry per file."""
    answer = []
    for row in rows(findings.frames.runs):
        environment = row.environment
        settings = dict(mapping(environment.get("settings")))
        variables = mapping(settings.pop("variables", None))
        versions = mapping(environment.get("versions"))
        memory, load = number(environment.get("memory")), number(environment.get("load"))
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
            "Memory": "" if memory is None else f"{memory / 1e9:.0f} GB",
            "GPU": ", ".join(gpus(environment)),
            "Load at the start": "" if load is None else f"{load:.2f}",
            "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            "Absent": ", ".join(name for name, version in versions.items() if not version),
            "Settings": ", ".join(f"{name}={value}" for name, value in settings.items()),
            "Variables": " ".join(f"{name}={value}" for name, value in variables.items()),
            "Policy": ", ".join(f"{name}={value}" for name, value in mapping(row.policy).items()),
        }
        answer.append({"run": row.run, "complete": row.complete, "facts": {name: str(value) for name, value in facts.items() if value}})
    return answer

"""Writes the report: one HTML file that needs nothing else, and every figure as PNG and SVG beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import statistics
from harness.layer import Mode
from harness.outcome import Outcome
from harness.workload import Pass
from reports import metrics, view_changes, view_conformance, view_runs, view_speed, view_verdict, view_versus
from reports.analysis import WORST_FIRST, Findings
from reports.changes import Changes, changes
from reports.drawers import Result, drawers
from reports.figures import FIGURES, Plan, change, style, versus
from reports.inline import classed
from reports.load import Frames


def write(frames: Frames, directory: Path, base: Frames | None = None, processes: int = 1) -> Path:
    """Writes ``index.html`` and ``figures/*.png``, ``*.svg`` into ``directory``; returns the path of the page.

    Of an earlier report in ``directory`` nothing stays: a figure that it had and this one has not is removed.

    ``base``: what the frames are set beside, in a section of its own. ``processes``: in how many figures are drawn; with more than one,
    the main module of the program must be one that can be imported, as :mod:`multiprocessing` says. The page is the same.
    """
    with drawers(processes) as drawing:
        findings = Findings(frames)
        before = None if base is None else Findings(base)
        changed = None if before is None else changes(before, findings)
        begun = [(section, drawing.draw(plan, f"f{k}")) for k, (section, plan) in enumerate(_plans(findings, changed))]
        said = _said(findings, before, changed)
        page, kept = directory / "index.html", directory / "figures"
        earlier = _named(page)
        figures = list(_kept(begun, kept))
    page.write_text(_rendered(said, figures), encoding="utf-8")
    for name in earlier.difference(str(figure["name"]) for figure in figures):
        for suffix in (".svg", ".png"):
            (kept / f"{name}{suffix}").unlink(missing_ok=True)
    return page


_NAMED = re.compile(r'<textarea readonly [^>]*data-name="([a-z0-9-]+)"')


def _named(page: Path) -> set[str]:
    """The names of the figures of an earlier report at ``page``, whose files are ours; of anything else none."""
    return set(_NAMED.findall(page.read_text(encoding="utf-8", errors="replace"))) if page.is_file() else set()


def _plans(findings: Findings, changed: Changes | None) -> Iterator[tuple[str, Plan]]:
    """Every figure with its section, machine by machine."""
    for section, plans in FIGURES:
        for part in findings.parts:
            yield from ((section, plan) for plan in plans(part))
    for found in findings.side_by_side:
        yield from ((view_versus.key(found), plan) for plan in versus.plans(found))
    for side in changed.beside if changed else ():
        yield from ((f"changes {side.machine}", plan) for plan in change.plans(side))


def _kept(begun: list[tuple[str, Result]], directory: Path) -> Iterator[dict[str, Any]]:
    """Writes every figure, under a name of its own; what the page prints of each."""
    directory.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    for section, result in begun:
        drawn = result()
        name, count = drawn.name, 1
        # Two names of users may be one file name.
        while name in names:
            count += 1
            name = f"{drawn.name}-{count}"
        names.add(name)
        (directory / f"{name}.svg").write_text(drawn.svg, encoding="utf-8")
        (directory / f"{name}.png").write_bytes(drawn.png)
        yield {"section": section, "name": name, **drawn.entry}


def _said(findings: Findings, before: Findings | None, changed: Changes | None) -> dict[str, Any]:
    """All that the page says but its figures. ``changed``: what became of ``before``."""
    title, lead = view_verdict.headline(findings)
    return {
        "title": title,
        "lead": lead,
        "several": len(findings.machines) > 1,
        "problems": [*findings.frames.problems, *(f"BASE: {problem}" for problem in (before.frames.problems if before else ()))],
        "level": f"{statistics.LEVEL:.0%}",
        "margin": f"{statistics.MARGIN:.0%}",
        "glyphs": [str(outcome) for outcome in Outcome],
        **_verdict(findings),
        **_changes(changed),
        "versus": view_versus.sections(findings),
        **_conformance(findings),
        **_speed(findings),
        **_provenance(findings, before),
    }


def _rendered(said: dict[str, Any], drawn: list[dict[str, Any]]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sheet, svgs = classed([figure["svg"] for figure in drawn])
    # The SVG is matplotlib's own output, in which it has escaped every text.
    figures = [{**figure, "svg": Markup(svg)} for figure, svg in zip(drawn, svgs, strict=True)]
    of: dict[str, list[dict[str, Any]]] = {section: [] for section in dict(FIGURES)}
    for figure in figures:
        of.setdefault(figure["section"], []).append(figure)
    return environment.get_template("page.html.j2").render(**said, sheet=Markup(sheet), figures=of, speed_figures=_by_pass(of["speed"]))


def _verdict(findings: Findings) -> dict[str, Any]:
    return {
        "verdicts": view_verdict.verdict_rows(findings),
        "fastest": view_verdict.fastest_tables(findings),
        "tested": view_runs.tested_rows(findings),
        "machine_facts": view_runs.machine_facts(findings),
    }


def _changes(changed: Changes | None) -> dict[str, Any]:
    if changed is None:
        return {"sides": None, "machines_appeared": [], "machines_vanished": []}
    return {"sides": view_changes.sides(changed), "machines_appeared": changed.appeared, "machines_vanished": changed.vanished}


def _conformance(findings: Findings) -> dict[str, Any]:
    columns, topics, details = view_conformance.matrix_topics(findings)
    seen = {outcome for part in findings.parts for outcome in part.current.conformance["outcome"]}
    return {
        "columns": columns,
        "topics": topics,
        "details": details,
        "known_contracts": set(findings.frames.contracts["contract"]) if topics else set(),
        "mode_names": [(mode.value, style.MODE_NAMES[mode.value]) for mode in Mode],
        "strength": view_conformance.strength(findings),
        "named_mutants": view_conformance.named_mutants(findings),
        "coverage": view_conformance.coverage_rows(findings),
        "outcomes": [(str(outcome), outcome.meaning) for outcome in WORST_FIRST if outcome in seen],
    }


def _speed(findings: Findings) -> dict[str, Any]:
    cells, more_cells = view_speed.cell_rows(findings)
    costs, more_costs = view_speed.cost_rows(findings)
    return {
        "unplotted": view_speed.unplotted(findings),
        "passes": view_speed.passes(findings),
        "machines": view_speed.machines(findings),
        "costs": costs,
        "more_costs": more_costs,
        "line_fits": f"{metrics.LINE_FITS:.0%}",
        "least_lengths": metrics.LEAST_LENGTHS,
        "host_bound": f"{metrics.HOST_BOUND:.0%}",
        "on_a_gpu": bool(findings.cells["issued"].notna().any()),
        "cells": cells,
        "more_cells": more_cells,
        "instrument": view_speed.instrument(findings),
    }


def _provenance(findings: Findings, before: Findings | None) -> dict[str, Any]:
    return {
        "runs": view_runs.run_rows(findings),
        "base_runs": view_runs.run_rows(before) if before else [],
        "superseded": sum(part.superseded for part in findings.parts),
        "superseded_cells": sum(part.superseded_cells for part in findings.parts),
    }


def _by_pass(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of speed: first those of all passes, then pass by pass; the parts of a training step are folded beside whole uses."""
    order = ["", *view_verdict.MAIN_PASSES, *Pass]
    passes = dict.fromkeys([*(str(name) for name in order), *(figure["timed_pass"] for figure in figures)])
    groups = [(name, [figure for figure in figures if figure["timed_pass"] == name]) for name in passes]
    whole = {str(name) for name in view_verdict.MAIN_PASSES} & {figure["timed_pass"] for figure in figures}
    return [
        {"title": name.capitalize(), "figures": own, "folded": bool(name and whole and name not in view_verdict.MAIN_PASSES)}
        for name, own in groups
        if own
    ]

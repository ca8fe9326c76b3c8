"""Writes the report: one HTML file that needs nothing else, and every figure as PNG and SVG beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import statistics
from harness.layer import Mode
from harness.outcome import Outcome
from harness.workload import Pass
from reports import metrics, view_changes, view_conformance, view_runs, view_speed, view_verdict
from reports.analysis import WORST_FIRST, Findings
from reports.changes import Changes, changes
from reports.figures import FIGURES, Drawing, change, style
from reports.inline import classed, inline
from reports.load import Frames


def write(frames: Frames, directory: Path, base: Frames | None = None) -> Path:
    """Writes ``index.html`` and ``figures/*.png``, ``*.svg`` into ``directory``; returns the path of the page.

    ``base``: what the frames are set beside, in a section of its own.
    """
    findings = Findings(frames)
    before = None if base is None else Findings(base)
    changed = None if before is None else changes(before, findings)
    figures = directory / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for number, (section, drawing) in enumerate(_drawn(findings, changed)):
        text = style.svg(drawing.figure)
        (figures / f"{drawing.name}.svg").write_text(text, encoding="utf-8")
        (figures / f"{drawing.name}.png").write_bytes(style.png(drawing.figure))
        drawn.append(_figure(section, drawing, text, f"f{number}"))
    page = directory / "index.html"
    page.write_text(render(findings, drawn, before, changed), encoding="utf-8")
    return page


def _drawn(findings: Findings, changed: Changes | None) -> Iterator[tuple[str, Drawing]]:
    """Every figure with its section, machine by machine, each with a name of its own."""
    names: set[str] = set()
    for section, drawing in chain(_of_findings(findings), _of_changes(changed)):
        name, count = drawing.name, 1
        # Two names of users may be one file name.
        while name in names:
            count += 1
            name = f"{drawing.name}-{count}"
        names.add(name)
        yield section, replace(drawing, name=name)


def _of_findings(findings: Findings) -> Iterator[tuple[str, Drawing]]:
    return ((section, drawing) for section, draw in FIGURES for part in findings.parts for drawing in draw(part))


def _of_changes(changed: Changes | None) -> Iterator[tuple[str, Drawing]]:
    return ((f"changes {side.machine}", drawing) for side in (changed.beside if changed else []) for drawing in change.draw(side))


def render(findings: Findings, drawn: list[dict[str, Any]], before: Findings | None = None, changed: Changes | None = None) -> str:
    """The page as HTML. ``drawn``: its figures, as :func:`write` prepares them; ``changed``: what became of ``before``."""
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
    of = {section: [figure for figure in figures if figure["section"] == section] for section in dict(FIGURES)}
    title, lead = view_verdict.headline(findings)
    return environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        sheet=Markup(sheet),
        several=len(findings.machines) > 1,
        problems=[*findings.frames.problems, *(f"BASE: {problem}" for problem in (before.frames.problems if before else ()))],
        level=f"{statistics.LEVEL:.0%}",
        margin=f"{statistics.MARGIN:.0%}",
        glyphs=[str(outcome) for outcome in Outcome],
        figures=of,
        **_verdict(findings),
        **_changes(changed, figures),
        **_conformance(findings),
        **_speed(findings, of["speed"]),
        **_provenance(findings, before),
    )


def _verdict(findings: Findings) -> dict[str, Any]:
    return {
        "verdicts": view_verdict.verdict_rows(findings),
        "fastest": view_verdict.fastest_tables(findings),
        "tested": view_runs.tested_rows(findings),
        "machine_facts": view_runs.machine_facts(findings),
    }


def _changes(changed: Changes | None, figures: list[dict[str, Any]]) -> dict[str, Any]:
    if changed is None:
        return {"sides": None, "machines_appeared": [], "machines_vanished": []}
    sides = view_changes.sides(changed)
    for side in sides:
        side["figures"] = [figure for figure in figures if figure["section"] == f"changes {side['machine']}"]
    return {"sides": sides, "machines_appeared": changed.appeared, "machines_vanished": changed.vanished}


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


def _speed(findings: Findings, figures: list[dict[str, Any]]) -> dict[str, Any]:
    cells, more_cells = view_speed.cell_rows(findings)
    costs, more_costs = view_speed.cost_rows(findings)
    return {
        "speed_figures": _by_pass(figures),
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


def _figure(section: str, drawing: Drawing, text: str, prefix: str) -> dict[str, Any]:
    return {
        "section": section,
        "name": drawing.name,
        "id": prefix,
        "title": drawing.title,
        "caption": drawing.caption,
        "alternative": drawing.alternative,
        "timed_pass": drawing.timed_pass,
        "svg": inline(drawing, text, prefix),
        "csv": drawing.data.to_csv(index=False, float_format="%.6g"),
        "rows": len(drawing.data),
    }

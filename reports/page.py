"""Writes the report: one HTML file that needs nothing else, and every figure as PNG and SVG beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import statistics
from harness.layer import Mode
from harness.outcome import Outcome
from harness.workload import Pass
from reports import metrics, view_conformance, view_runs, view_speed, view_verdict
from reports.analysis import WORST_FIRST, Findings
from reports.figures import FIGURES, Drawing, style
from reports.inline import classed, inline
from reports.load import Frames


def write(frames: Frames, directory: Path) -> Path:
    """Writes ``index.html`` and ``figures/*.png``, ``*.svg`` into ``directory``; returns the path of the page."""
    findings = Findings(frames)
    figures = directory / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section, _ in FIGURES}
    for section, drawing in _drawn(findings):
        text = style.svg(drawing.figure)
        (figures / f"{drawing.name}.svg").write_text(text, encoding="utf-8")
        (figures / f"{drawing.name}.png").write_bytes(style.png(drawing.figure))
        sections[section].append(_figure(drawing, text, f"f{sum(map(len, sections.values()))}"))
    drawn = [figure for own in sections.values() for figure in own]
    sheet, svgs = classed([figure["svg"] for figure in drawn])
    for figure, svg in zip(drawn, svgs, strict=True):
        # The SVG is matplotlib's own output, in which it has escaped every text.
        figure["svg"] = Markup(svg)
    page = directory / "index.html"
    page.write_text(render(findings, sections, Markup(sheet)), encoding="utf-8")
    return page


def _drawn(findings: Findings) -> Iterator[tuple[str, Drawing]]:
    """Every figure with its section, machine by machine, each with a name of its own."""
    names: set[str] = set()
    for section, draw in FIGURES:
        for part in findings.parts:
            for drawing in draw(part):
                name, count = drawing.name, 1
                # Two names of users may be one file name.
                while name in names:
                    count += 1
                    name = f"{drawing.name}-{count}"
                names.add(name)
                yield section, replace(drawing, name=name)


def render(findings: Findings, figures: dict[str, list[dict[str, Any]]], sheet: str) -> str:
    """The page as HTML. ``figures``: section -> its figures, as :func:`write` prepares them, with the ``sheet`` of their styles."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns, topics, details = view_conformance.matrix_topics(findings)
    title, lead = view_verdict.headline(findings)
    cells, more_cells = view_speed.cell_rows(findings)
    costs, more_costs = view_speed.cost_rows(findings)
    outcomes = {outcome for part in findings.parts for outcome in part.current.conformance["outcome"]}
    return environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        several=len(findings.machines) > 1,
        problems=findings.frames.problems,
        verdicts=view_verdict.verdict_rows(findings),
        fastest=view_verdict.fastest_tables(findings),
        level=f"{statistics.LEVEL:.0%}",
        margin=f"{statistics.MARGIN:.0%}",
        tested=view_runs.tested_rows(findings),
        machine_facts=view_runs.machine_facts(findings),
        runs=view_runs.run_rows(findings),
        columns=columns,
        topics=topics,
        details=details,
        mode_names=[(mode.value, style.MODE_NAMES[mode.value]) for mode in Mode],
        strength=view_conformance.strength(findings),
        named_mutants=view_conformance.named_mutants(findings),
        coverage=view_conformance.coverage_rows(findings),
        outcomes=[(str(outcome), outcome.meaning) for outcome in WORST_FIRST if outcome in outcomes],
        glyphs=[str(outcome) for outcome in Outcome],
        figures=figures,
        sheet=sheet,
        speed_figures=_by_pass(figures["speed"]),
        unplotted=view_speed.unplotted(findings),
        passes=view_speed.passes(findings),
        machines=view_speed.machines(findings),
        costs=costs,
        more_costs=more_costs,
        line_fits=f"{metrics.LINE_FITS:.0%}",
        least_lengths=metrics.LEAST_LENGTHS,
        host_bound=f"{metrics.HOST_BOUND:.0%}",
        on_a_gpu=bool(findings.cells["issued"].notna().any()),
        cells=cells,
        instrument=view_speed.instrument(findings),
        more_cells=more_cells,
        superseded=sum(part.superseded for part in findings.parts),
        superseded_cells=sum(part.superseded_cells for part in findings.parts),
    )


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


def _figure(drawing: Drawing, text: str, prefix: str) -> dict[str, Any]:
    return {
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

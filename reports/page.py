"""Writes the report: one HTML file that needs nothing else, and every figure as PNG and SVG beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import statistics
from harness.layer import Mode
from harness.outcome import Outcome
from reports import metrics, view, view_speed
from reports.analysis import WORST_FIRST, Findings
from reports.figures import FIGURES, Drawing, style
from reports.inline import inline
from reports.load import Frames


def write(frames: Frames, directory: Path) -> Path:
    """Writes ``index.html`` and ``figures/*.png``, ``*.svg`` into ``directory``; returns the path of the page."""
    findings = Findings(frames)
    figures = directory / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section, _ in FIGURES}
    for section, draw in FIGURES:
        for drawing in draw(findings):
            text = style.svg(drawing.figure)
            (figures / f"{drawing.name}.svg").write_text(text, encoding="utf-8")
            (figures / f"{drawing.name}.png").write_bytes(style.png(drawing.figure))
            sections[section].append(_figure(drawing, text))
    page = directory / "index.html"
    page.write_text(render(findings, sections), encoding="utf-8")
    return page


def render(findings: Findings, figures: dict[str, list[dict[str, Any]]]) -> str:
    """The page as HTML. ``figures``: section -> its figures, as :func:`write` prepares them."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns, topics, details = view.matrix_topics(findings)
    title, lead = view.headline(findings)
    cells, more_cells = view_speed.cell_rows(findings)
    costs, more_costs = view_speed.cost_rows(findings)
    return environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        problems=findings.frames.problems,
        verdicts=view.verdict_rows(findings),
        fastest=view_speed.fastest_tables(findings),
        level=f"{statistics.LEVEL:.0%}",
        margin=f"{statistics.MARGIN:.0%}",
        tested=view.tested_rows(findings),
        runs=view.run_rows(findings),
        columns=columns,
        topics=topics,
        details=details,
        mode_names=[(mode.value, style.MODE_NAMES[mode.value]) for mode in Mode],
        strength=view.strength(findings),
        coverage=view.coverage_rows(findings),
        outcomes=[(str(outcome), outcome.meaning) for outcome in WORST_FIRST if outcome in set(findings.current.conformance["outcome"])],
        glyphs=[str(outcome) for outcome in Outcome],
        figures=figures,
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
        superseded=findings.superseded,
    )


def _figure(drawing: Drawing, text: str) -> dict[str, Any]:
    return {
        "name": drawing.name,
        "title": drawing.title,
        "caption": drawing.caption,
        "alternative": drawing.alternative,
        # The SVG is matplotlib's own output, in which it has escaped every text.
        "svg": Markup(inline(drawing, text)),
        "csv": drawing.data.to_csv(index=False, float_format="%.6g"),
        "rows": len(drawing.data),
    }

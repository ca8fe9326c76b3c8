"""The conformance matrix: topics down, implementations across, one glyph per contract."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.outcome import Outcome
from reports.analysis import WORST_FIRST, Findings
from reports.figures import style
from reports.tables import rows

TITLE = "Conformance by topic"
ACROSS = 8
"""Glyphs in a row of one box."""


def plans(findings: Findings) -> list[style.Plan]:
    """One figure, if anything was checked."""
    matrix = findings.matrix
    if matrix.empty:
        return []
    checked = set(matrix["implementation"])
    columns = [name for name in findings.implementations if name in checked]
    verdicts = findings.verdicts[["implementation", "suitability", "contracts", "broken"]]
    return [partial(_draw, findings.machine, matrix, columns, findings.frames.contracts[["contract", "topic"]], verdicts)]


def _draw(machine: str, matrix: pd.DataFrame, columns: list[str], contracts: pd.DataFrame, judged: pd.DataFrame) -> style.Drawing:
    topics = list(dict.fromkeys(contracts["topic"]))
    order = {name: list(contracts.loc[contracts["topic"] == name, "contract"]) for name in topics}
    outcomes = {(row.contract, row.implementation): Outcome(row.outcome) for row in rows(matrix)}
    verdicts = {row.implementation: row for row in rows(judged)}
    lines = {name: math.ceil(len(order[name]) / ACROSS) for name in topics}
    step, gap, left = 0.155, 0.30, 1.75
    box = ACROSS * step + 0.35
    height = sum(lines.values()) * step + gap * len(topics)
    width = left + box * len(columns) + 0.1
    head, foot = 1.0, 0.65
    title = style.titled(TITLE, machine)
    with style.house_style():
        figure = Figure(figsize=(max(width, 6.5), height + head + foot))
        size = figure.get_size_inches()
        figure.text(0.1 / size[0], 1 - 0.12 / size[1], title, fontsize=13, fontweight="bold", va="top")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
        axes.axis("off")
        top = size[1] - head
        for index, name in enumerate(columns):
            _head(axes, left + index * box, top, name, verdicts[name])
        y = top
        points: dict[Outcome, list[tuple[float, float]]] = {outcome: [] for outcome in Outcome}
        for name in topics:
            axes.plot([0.1, size[0] - 0.1], [y - 0.02, y - 0.02], color=style.RULE, linewidth=0.8)
            axes.text(0.1, y - 0.21, style.shorten(name.replace("_", " "), 20), fontsize=9.5, fontweight="bold", va="center")
            axes.text(left - 0.25, y - 0.21, str(len(order[name])), fontsize=8.5, color=style.MUTED, ha="right", va="center")
            for index, implementation in enumerate(columns):
                for k, contract in enumerate(order[name]):
                    if (contract, implementation) in outcomes:
                        x = left + 0.07 + index * box + (k % ACROSS) * step
                        points[outcomes[contract, implementation]].append((x, y - 0.21 - (k // ACROSS) * step))
            y -= lines[name] * step + gap
        handles = _glyphs(axes, points)
        axes.legend(handles=handles, loc="lower left", ncols=5, fontsize=9, handletextpad=0.2, borderaxespad=0.4, columnspacing=1.4)
    spoken = []
    for name in columns:
        counts = matrix.loc[matrix["implementation"] == name, "outcome"].value_counts()
        spoken.append(f"{name}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}.")
    return style.Drawing(
        name=style.slug("conformance", machine),
        title=title,
        caption="One glyph per contract: the worst outcome among its cases. The number beside a topic counts its contracts.",
        alternative="Matrix of outcomes, topics down and implementations across. " + " ".join(spoken),
        figure=figure,
        data=matrix.drop(columns=["severity"]),
    )


def _head(axes: Axes, x: float, top: float, name: str, verdict: Any) -> None:
    """The name of an implementation over its column, and how many contracts it breaks."""
    broken = len(verdict.broken)
    state = f"{broken} broken" if broken else "none broken" if verdict.contracts else verdict.suitability
    family, _, variant = name.partition(":")
    axes.text(x, top + 0.42, style.shorten(family, 16), fontsize=8.5, color=style.MUTED)
    axes.text(x, top + 0.25, style.shorten(variant or family, 18), fontsize=9.5, fontweight="bold")
    axes.text(x, top + 0.08, state, fontsize=8, color="#d55e00" if broken else style.MUTED)


def _glyphs(axes: Axes, points: dict[Outcome, list[tuple[float, float]]]) -> list[Line2D]:
    """Draws the marks of each outcome at its points; returns those of the legend."""
    handles = []
    for outcome in WORST_FIRST:
        if points[outcome]:
            glyph = style.GLYPHS[outcome]
            look: dict[str, Any] = {
                "linestyle": "none",
                "marker": glyph.marker,
                "color": glyph.colour,
                "markerfacecolor": glyph.colour if glyph.filled else style.PAPER,
                "markersize": glyph.size,
            }
            xs, ys = zip(*points[outcome], strict=True)
            axes.plot(xs, ys, **look)
            handles.append(Line2D([], [], label=outcome.value.replace("-", " "), **look))
    return handles

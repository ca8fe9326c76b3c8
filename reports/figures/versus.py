"""Two environments side by side: the ratio of every pair of processes, and of all of them, a comparison to a row."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.statistics import LEVEL, MARGIN, Verdict
from reports.figures import change, layout, style
from reports.side_by_side import SideBySide
from reports.tables import counted, rows
from reports.words import interval

ROWS = 60
"""Comparisons that are drawn, the gravest first."""

COLUMNS = ["implementation", "workload", "device", "dtype", "timed_pass", "threads", "verdict", "ratio", "low", "high", "pairs", "ratios"]


def plans(found: SideBySide) -> list[style.Plan]:
    """One figure, if anything has a ratio."""
    shown = pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in found.compared[:ROWS]], columns=COLUMNS)
    rest = len(found.compared) - len(shown)
    names = set(shown["implementation"])
    whose = f" of {style.shorten(*names)}" if len(names) == 1 else ""
    title = style.titled(f"Times{whose} with {style.shorten(found.head)} over those with {style.shorten(found.base)}", found.machine)
    name = style.slug("versus", found.machine, found.head, found.base)
    return [partial(_draw, shown, rest, title, name)] if len(shown) else []


def _draw(shown: pd.DataFrame, rest: int, title: str, name: str) -> style.Drawing:
    cells = list(rows(shown))
    several = len({row.implementation for row in cells}) > 1
    labels = [style.shorten(f"{row.implementation} on {row.workload}" if several else row.workload, 60) for row in cells]
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure = Figure(figsize=(11.0, 0.34 * len(cells) + 1.5))
        panel = figure.subplots()
        change.ratio_axis(panel, labels)
        # Even where nothing differs, what is the same is seen to be so.
        ends = [value for row in cells for value in (*row.ratios, row.ratio, row.low, row.high) if 0 < value < math.inf]
        low, high = min(*ends, 0.95) / 1.02, max(*ends, 1.05) * 1.02
        panel.set_xlim(low, high)
        if high / low < 2:
            panel.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
        _pairs(panel, cells)
        for verdict, (colour, marker, _) in change.LOOKS.items():
            own = [(place, row) for place, row in enumerate(cells) if row.verdict == verdict]
            if own:
                hover[f"versus-{verdict}"] = [_told(row) for _, row in own]
                hollow = verdict == Verdict.UNDECIDED
                change.marks(
                    panel, [(row.ratio, row.low, row.high) for _, row in own], [place for place, _ in own], colour, marker, hollow,
                    f"versus-{verdict}",
                )  # fmt: skip
        pair = Line2D([], [], linestyle="none", marker="|", color=style.MUTED, markersize=7, label="one pair of processes")
        layout.finish(figure, title, "", [*change.handles(set(shown["verdict"])), pair], layout.Room(layout.labels([panel]), above=0.08))
    return style.Drawing(
        name=name,
        title=title,
        caption=f"Above 1 it is slower. Marks: the mean over the pairs; bars: its {LEVEL:.0%} interval; strokes: each pair. Grey: within "
        f"{MARGIN:.0%}. Hollow: undecided." + (f" {counted(rest, 'more comparison')}, not drawn here: the table has them." if rest else ""),
        alternative="Time in HEAD over time in BASE; above 1 is slower. " + " ".join(f"{_told(row)}." for row in cells),
        figure=figure,
        data=shown.assign(ratios=[" ".join(f"{ratio:.6g}" for ratio in ratios) for ratios in shown["ratios"]]),
        hover=hover,
    )


def _pairs(panel: Axes, cells: list[Any]) -> None:
    points = [(ratio, place) for place, row in enumerate(cells) for ratio in row.ratios]
    if points:
        panel.plot(*zip(*points, strict=True), linestyle="none", marker="|", color=style.MUTED, markersize=7, alpha=0.7)


def _told(row: Any) -> str:
    ratio = f"{row.ratio:.3f}× ({interval(row.low, row.high)})"
    return f"{row.implementation} · {row.workload}: {ratio}, {row.verdict}, {counted(row.pairs, 'pair')}"

"""How far from the oracle: the distribution of error over noise floor, per implementation and dtype."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from harness.tolerance import FLOORS
from reports.analysis import Findings, undeclared
from reports.figures import layout, style
from reports.tables import rows
from reports.words import engineering, floors

TITLE = "Error over the noise floor"
LEAST = 0.05
"""Ratios below this, zero among them, are drawn here: they say 'no error to speak of'."""

MOST = 1e20
"""Ratios above this are drawn here: an axis that is longer shows nothing else."""

_ORDER = {name: place for place, name in enumerate(("float64", "float32", "bfloat16", "float16"))}


def rank(dtype: str) -> tuple[int, str]:
    """By what dtypes are sorted: the widest first."""
    return _ORDER.get(dtype, len(_ORDER)), dtype


def told(largest: float, median: float) -> str:
    """The largest and the median error over floor, in words."""
    # Of errors that are not finite there is no median either, unless others are.
    return "none finite" if math.isnan(largest) else f"largest {floors(largest)}, median {floors(median)} the floor"


def plans(findings: Findings) -> list[style.Plan]:
    """One figure, if any tensor was compared."""
    errors = undeclared(findings.current)
    if errors.empty:
        return []
    measured = set(errors["implementation"])
    names = [name for name in findings.implementations if name in measured]
    high = highest(errors)
    pairs = errors[["dtype", "allowance"]].dropna().drop_duplicates()
    allowances = {str(dtype): sorted(own["allowance"]) for dtype, own in pairs.groupby("dtype")}
    return [partial(_draw, findings.machine, _summary(errors), names, allowances, high)]


def highest(errors: pd.DataFrame) -> float:
    """Where the axis of ratios ends, but for what is written beyond it."""
    return min(float(np.nanmax([errors["ratio"].max(), errors["allowance"].max(), FLOORS])), MOST) * 1.6


def _draw(machine: str, summary: pd.DataFrame, names: list[str], allowances: dict[str, list[float]], high: float) -> style.Drawing:
    dtypes = sorted(summary["dtype"].unique(), key=rank)
    title = style.titled(TITLE, machine)
    with style.house_style():
        figure = Figure(figsize=(2.2 + 3.6 * len(dtypes), 0.4 * len(names) + 1.9))
        axes = list(figure.subplots(1, len(dtypes), squeeze=False, sharey=True).flat)
        for panel, dtype in zip(axes, dtypes, strict=True):
            panel.set_title(dtype)
            _panel(panel, summary[summary["dtype"] == dtype], allowances.get(dtype, []), names, high)
            panel.set_yticks(range(len(names)), [style.shorten(name, 22) for name in names])
            panel.tick_params(axis="y", labelcolor=style.INK, length=0)
            panel.set_ylim(len(names) - 0.4, -0.6)
        handles = [
            Line2D([], [], color=style.MUTED, linewidth=1.2, label="5 % to 95 %"),
            Line2D([], [], color="#56b4e9", linewidth=7, alpha=0.75, label="quartiles"),
            Line2D([], [], color=style.INK, linestyle="none", marker="|", markersize=9, markeredgewidth=2, label="median"),
            Line2D([], [], color=style.MUTED, linestyle="none", marker="o", markersize=4, label="largest"),
            Line2D([], [], color="#d55e00", linestyle="none", marker="X", markersize=7, label="largest, beyond the allowance"),
            Line2D([], [], color=style.SEVERE, linestyle="none", marker="*", markersize=9, label="not finite (count)"),
        ]
        layout.finish(figure, title, "", handles, layout.Room(layout.labels(axes[:1])))
    spoken = [f"{row.implementation} {row.dtype}: {told(row.largest, row.median)}." for row in rows(summary)]
    return style.Drawing(
        name=style.slug("numerics", machine),
        title=title,
        caption="Error against the float64 oracle, in units of the error that a plain eager loop makes in the same dtype on the "
        "same case: 1 is as good as the loop. Dashed: the allowance. One value per compared tensor, outputs and gradients alike; "
        "without the checks that failed as declared.",
        alternative="Distribution of error over noise floor per implementation and dtype. " + " ".join(spoken),
        figure=figure,
        data=summary,
    )


def _summary(errors: pd.DataFrame) -> pd.DataFrame:
    """One row per implementation and dtype: how many tensors, how many not finite, and the quantiles of error over floor."""
    groups = errors.groupby(["implementation", "dtype"], sort=False)
    quantiles = groups["ratio"].quantile(np.array([0.05, 0.25, 0.5, 0.75, 0.95])).unstack()
    quantiles.columns = pd.Index(["q05", "q25", "median", "q75", "q95"])
    counts = groups.agg(
        tensors=("line", "size"), not_finite=("finite", lambda finite: int((~finite).sum())), allowance=("allowance", "max")
    )
    beyond = errors.assign(beyond=errors["ratio"] > errors["allowance"]).groupby(["implementation", "dtype"], sort=False)["beyond"].sum()
    return counts.join(quantiles).join(groups["ratio"].max().rename("largest")).join(beyond).reset_index()


def _panel(panel: Axes, summary: pd.DataFrame, allowances: list[float], names: list[str], high: float) -> None:
    panel.set_xscale("log")
    panel.set_xlim(LEAST * 0.8, high * 2.5)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1000 else engineering(value)))
    panel.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    panel.set_xlabel("error / floor", color=style.MUTED)
    panel.grid(axis="y", visible=False)
    panel.axvline(1, color=style.INK, linewidth=1)
    for allowance in allowances:
        panel.axvline(allowance, color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for row in rows(summary):
        y = names.index(row.implementation)
        low, first, middle, third, upper, largest = (
            min(max(value, LEAST), MOST) for value in (row.q05, row.q25, row.median, row.q75, row.q95, row.largest)
        )
        panel.plot([low, upper], [y, y], color=style.MUTED, linewidth=1.2)
        panel.plot([first, third], [y, y], color="#56b4e9", linewidth=7, alpha=0.75, solid_capstyle="butt")
        panel.plot([middle], [y], color=style.INK, marker="|", markersize=9, markeredgewidth=2)
        mark: dict[str, Any] = (
            {"marker": "X", "color": "#d55e00", "markersize": 7} if row.beyond else {"marker": "o", "color": style.MUTED, "markersize": 4}
        )
        panel.plot([largest], [y], linestyle="none", **mark)
        if row.not_finite:
            panel.plot([high * 1.3], [y], color=style.SEVERE, marker="*", markersize=9)
            panel.text(high * 1.6, y, str(row.not_finite), fontsize=8, va="center", color=style.SEVERE)

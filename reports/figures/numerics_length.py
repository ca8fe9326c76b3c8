"""Error over the noise floor by sequence length: forward above, gradients below, a panel per dtype."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.analysis import Findings, undeclared
from reports.figures import layout, numerics, style
from reports.tables import counted, rows
from reports.words import engineering

TITLE = "Error over the noise floor, by sequence length"
DIRECTIONS = ("forward", "gradients")

_OF_A_GRADIENT = r"^(?:x|h0|c0|weight_\w+|bias_\w+)$"
"""Tensors that are compared as gradients: what goes into a layer. What comes out of it is compared as it is."""


def plans(findings: Findings) -> list[style.Plan]:
    """One figure, if tensors of two lengths or more were compared."""
    errors = _errors(findings)
    known = errors[errors["length"] > 0]
    if known["length"].nunique() < 2:
        return []
    measured = set(known["implementation"])
    names = [name for name in findings.implementations if name in measured]
    looks = {name: look for name, look in style.series(findings.drawn).items() if name in measured}
    return [partial(_draw, findings.machine, summarised(known), names, looks, numerics.highest(known), len(errors) - len(known))]


def _draw(
    machine: str, summary: pd.DataFrame, names: list[str], looks: dict[str, style.Series], high: float, unknown: int
) -> style.Drawing:
    dtypes = sorted(summary["dtype"].unique(), key=numerics.rank)
    directions = [name for name in DIRECTIONS if name in set(summary["direction"])]
    title = style.titled(TITLE, machine)
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure = Figure(figsize=(max(1.2 + 3.4 * len(dtypes), 7.0), 2.6 * len(directions) + 1.5))
        grid = figure.subplots(len(directions), len(dtypes), squeeze=False, sharey=True)
        for line, direction in zip(grid, directions, strict=True):
            line[0].set_ylabel(direction, color=style.INK, fontweight="bold")
            for panel, dtype in zip(line, dtypes, strict=True):
                own = summary[(summary["dtype"] == dtype) & (summary["direction"] == direction)]
                panel.set_title(dtype if direction == directions[0] else "")
                if own.empty:
                    panel.text(0.5, 0.5, "none compared", transform=panel.transAxes, ha="center", color=style.MUTED, style="italic")
                _axes(panel, sorted(own["first"].unique()), high, last=direction == directions[-1])
                for position, name in enumerate(names):
                    shown = own[own["implementation"] == name]
                    if len(shown):
                        gid = f"length-{directions.index(direction)}-{dtypes.index(dtype)}-{position}"
                        shift = 2 ** (0.5 * ((position + 0.5) / len(names) - 0.5))
                        hover |= _curve(panel, shown, looks[name], shift, high, gid)
        room = layout.Room(layout.labels(list(grid[:, 0])) + layout.NAMED)
        layout.finish(figure, title, "", _handles(names, looks, summary), room)
    beyond = int(summary["beyond"].sum())
    told = f"which {counted(beyond, 'tensor')} {'is' if beyond == 1 else 'are'} beyond" if beyond else "which nothing is beyond"
    return style.Drawing(
        name=style.slug("numerics-by-length", machine),
        title=title,
        caption="The largest error over floor at each length, and the median as a thin line; lengths from a power of two to the "
        f"next are one point; without the checks that failed as declared. Dashed: the allowance, {told}."
        + (f" {counted(unknown, 'compared tensor')} of no stated length are not in it." if unknown else ""),
        alternative=_alternative(summary, names),
        figure=figure,
        data=summary,
        hover=hover,
    )


def _errors(findings: Findings) -> pd.DataFrame:
    """The compared tensors with the length of their case (0 where it does not say) and the direction."""
    current, errors = findings.current, undeclared(findings.current)
    checked = current.conformance[["line", "parameters"]]
    lengths = {line: parameters.get("steps") for line, parameters in zip(*(checked[name].tolist() for name in checked), strict=True)}
    found = [lengths[line] for line in errors["line"].tolist()]
    gradient = errors["quantity"].str.fullmatch(_OF_A_GRADIENT)
    return errors.assign(
        length=pd.Series([steps if isinstance(steps, int) else 0 for steps in found], index=errors.index, dtype="int64"),
        direction=np.where(gradient, "gradients", "forward"),
    )


def summarised(errors: pd.DataFrame) -> pd.DataFrame:
    """One row per implementation, dtype, direction and stretch of lengths, which begins at ``first``, a power of two."""
    first = 2 ** np.floor(np.log2(errors["length"])).astype("int64")
    keys = ["implementation", "dtype", "direction", "first"]
    beyond = (errors["ratio"] > errors["allowance"]) | ~errors["finite"]
    groups = errors.assign(first=first, beyond=beyond, lost=~errors["finite"]).groupby(keys, sort=True)
    return groups.agg(
        longest=("length", "max"),
        tensors=("line", "size"),
        median=("ratio", "median"),
        largest=("ratio", "max"),
        beyond=("beyond", "sum"),
        not_finite=("lost", "sum"),
        allowance=("allowance", "max"),
    ).reset_index()


def _axes(panel: Axes, lengths: list[int], high: float, last: bool) -> None:
    if lengths:
        style.length_axis(panel, lengths, label=last)
        panel.set_xlim(lengths[0] / 1.5, lengths[-1] * 1.5)
    else:
        panel.set_xticks([])
    panel.set_yscale("log")
    panel.set_ylim(numerics.LEAST * 0.8, high * 2.5)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1000 else engineering(value)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.axhline(1, color=style.INK, linewidth=1)


def _curve(panel: Axes, shown: pd.DataFrame, look: style.Series, shift: float, high: float, gid: str) -> dict[str, list[str]]:
    x = shown["first"] * shift
    for allowance in sorted(shown["allowance"].dropna().unique()):
        panel.axhline(allowance, color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    panel.plot(x, shown["median"].clip(numerics.LEAST, numerics.MOST), color=look.colour, linewidth=0.9, alpha=0.7)
    finite = shown[shown["largest"].notna()]
    panel.plot(finite["first"] * shift, finite["largest"].clip(numerics.LEAST, numerics.MOST), linestyle="none", marker=look.marker,
               markersize=4.5, color=look.colour, gid=gid)  # fmt: skip
    texts = {gid: [_told(row) for row in rows(finite)]}
    lost = shown[shown["not_finite"] > 0]
    if len(lost):
        panel.plot(lost["first"] * shift, [high * 1.3] * len(lost), linestyle="none", marker="*", markersize=9, color=style.SEVERE,
                   gid=f"{gid}-lost")  # fmt: skip
        texts[f"{gid}-lost"] = [_told(row) for row in rows(lost)]
    return texts


def _told(row: Any) -> str:
    where = f"T={row.first}" if row.longest == row.first else f"T={row.first} to {row.longest}"
    told = f"{row.implementation} · {row.direction}, {row.dtype}, {where}: {numerics.told(row.largest, row.median)}"
    return f"{told}, of {counted(row.tensors, 'tensor')}" + (f", {row.not_finite} not finite" if row.not_finite else "")


def _handles(names: list[str], looks: dict[str, style.Series], summary: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D([], [], color=looks[name].colour, linewidth=0.9, marker=looks[name].marker, markersize=4.5, label=style.shorten(name))
        for name in names
    ]
    if summary["not_finite"].any():
        handles.append(Line2D([], [], color=style.SEVERE, linestyle="none", marker="*", markersize=9, label="not finite"))
    return handles


def _alternative(summary: pd.DataFrame, names: list[str]) -> str:
    sentences = ["Largest error over noise floor by sequence length, per implementation, dtype and direction."]
    for name in names:
        own = summary[summary["implementation"] == name]
        worst = max((row for row in rows(own) if row.largest == row.largest), key=lambda row: float(row.largest), default=None)
        if worst is not None:
            sentences.append(f"{name}: at most {worst.largest:.3g} floors, {worst.direction} in {worst.dtype} from T={worst.first}.")
    return " ".join(sentences)

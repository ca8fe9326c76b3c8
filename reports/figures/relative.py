"""Speed relative to the baseline over sequence length, with its interval; undecided cells are hollow."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.statistics import MARGIN, Verdict
from reports import speed
from reports.analysis import Findings
from reports.figures import layout, strip, style, throughput
from reports.tables import counted, rows
from reports.words import factor, times

_ALONE = "timed without the baseline beside it"

#: Octaves of T over which the implementations of one length stand beside each other: fewer than lie between two lengths.
_BESIDE = 0.6
_DRAWN = ["mode", "sequence_length", "implementation", "outcome", "fits_batch", "message"]
"""What is drawn of cells; of those with a speedup, all that is known of it."""


def plans(findings: Findings) -> list[style.Plan]:
    """One figure per sweep that has a baseline and something beside it."""
    speedups = dict(iter(findings.relative.groupby(throughput.SWEEP, sort=False)))
    sweeps = throughput.sweeps(speed.latest(findings.cells, findings.frames.runs))
    found = [(keys, cells) for keys, cells in sweeps if tuple(keys.values()) in speedups]

    def plan(keys: dict[str, str], cells: pd.DataFrame) -> style.Plan:
        group = speedups[tuple(keys.values())]
        return partial(_sweep, findings.timed, throughput.names(findings, set(group["implementation"])), keys, group, cells[_DRAWN])

    return throughput.some(found, plan)


def _sweep(timed: list[str], labels: dict[str, str], keys: dict[str, str], group: pd.DataFrame, cells: pd.DataFrame) -> style.Drawing:
    looks = style.series(timed)
    modes = style.modes(list(cells["mode"]))
    lengths = [int(value) for value in sorted(cells["sequence_length"].unique())]
    # In lists and not in frames: a small frame for each line takes a hundred times as long as its rows.
    speedups = sorted(rows(group), key=lambda row: int(row.sequence_length))
    missing = sorted(rows(_missing(group, cells)), key=lambda row: int(row.sequence_length))
    hover: dict[str, list[str]] = {}
    what = f"{keys['timed_pass']} on {keys['place']}"
    title = f"Speed relative to the baseline: {what}"
    with style.house_style():
        figure, axes = throughput.panels(modes)
        for panel, mode in zip(axes, modes, strict=True):
            own = [row for row in speedups if row.mode == mode]
            _dress(panel, lengths, own[0].baseline if own else "")
            lines = {name: [row for row in own if row.implementation == name] for name in labels}
            hover |= _lines(panel, mode, lines, looks, [f"ratio-{timed.index(name)}-{modes.index(mode)}" for name in labels])
        lost, texts = strip.mark(axes, [[row for row in missing if row.mode == mode] for mode in modes], timed, looks, _ALONE)
        hover |= texts
        handles = [*_handles(labels, looks), *strip.handles(lost, {}, passed=_ALONE)]
        layout.finish(figure, title, keys["configuration"], handles, layout.Room(layout.labels(axes[:1])), "relative speed")
    undecided = int((group["verdict"] == Verdict.UNDECIDED).sum())
    return style.Drawing(
        name=style.slug("relative", keys["timed_pass"], keys["place"], keys["configuration"]),
        title=title,
        caption=f"{keys['configuration']}. Above 1 is faster. Bars: 99 % interval of each speedup alone, over interleaved rounds. "
        f"Grey: within {MARGIN:.0%}, the same for every practical purpose. Hollow: undecided ({undecided} of {len(group)}), at 99 % for "
        "all comparisons together, so that a bar may clear 1 and its mark be hollow."
        + (f" Marks on the grey strip: {counted(len(missing), 'cell')} without a speedup, and why." if len(missing) else ""),
        alternative=_alternative(what, group, [mode for mode in modes if mode in set(group["mode"])]),
        figure=figure,
        data=group.sort_values(["mode", "implementation", "sequence_length"]),
        hover=hover,
        timed_pass=keys["timed_pass"],
    )


def _dress(panel: Axes, lengths: list[int], baseline: str) -> None:
    """The axes of one recurrence, the line of the baseline, and what is the same as it."""
    style.length_axis(panel, lengths)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.axhspan(1 / (1 + MARGIN), 1 + MARGIN, color=style.RULE, alpha=0.6, linewidth=0)
    panel.axhline(1, color=style.INK, linewidth=1.2)
    if baseline:
        panel.set_title(f"1 = {style.shorten(baseline, 24)}", loc="right", fontsize=9, fontweight="normal", color=style.MUTED)


def _lines(panel: Axes, mode: str, lines: dict[str, list[Any]], looks: dict[str, style.Series], gids: list[str]) -> dict[str, list[str]]:
    """Draws the speedups of each implementation over T, with their intervals; returns what is told of the marks, by their gid."""
    hover: dict[str, list[str]] = {}
    bars: list[tuple[float, float, float, str]] = []
    for position, (gid, (name, line)) in enumerate(zip(gids, lines.items(), strict=True)):
        if not line:
            continue
        # Side by side around each T, because intervals that lie on each other cannot be told apart.
        shift = 2 ** (_BESIDE * (position / max(1, len(lines) - 1) - 0.5))
        look, x = looks[name], [row.sequence_length * shift for row in line]
        panel.plot(x, [row.speedup for row in line], color=look.colour, linestyle=look.line, linewidth=1.0, alpha=0.55)
        bars += [(place, row.low, row.high, look.colour) for place, row in zip(x, line, strict=True)]
        for decided, fill in ((True, look.colour), (False, style.PAPER)):
            shown = [row for row in line if (row.verdict != Verdict.UNDECIDED) == decided]
            hover[f"{gid}-{decided}"] = [
                f"{name} · {mode} · T={row.sequence_length}: {times(row.speedup, row.low, row.high)}, {row.verdict}" for row in shown
            ]
            if shown:
                panel.plot(
                    [row.sequence_length * shift for row in shown],
                    [row.speedup for row in shown],
                    linestyle="none",
                    marker=look.marker,
                    markersize=5.5,
                    color=look.colour,
                    markerfacecolor=fill,
                    markeredgewidth=1.2,
                    gid=f"{gid}-{decided}",
                )
    if bars:
        places, lows, highs, colours = zip(*bars, strict=True)
        panel.vlines(places, lows, highs, colors=colours, linewidth=1.6)
    return hover


def _missing(speedups: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that have no speedup, less those of the baseline, which are 1 wherever they have a time."""
    keys = ["mode", "sequence_length", "implementation"]
    beside = set(speedups[keys].itertuples(index=False, name=None))
    bases = set(speedups[["mode", "sequence_length", "baseline"]].itertuples(index=False, name=None))
    found = [(key not in beside and key not in bases) for key in cells[keys].itertuples(index=False, name=None)]
    return cells[found]


def _handles(labels: dict[str, str], looks: dict[str, style.Series]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=looks[name].colour, linestyle=looks[name].line, marker=looks[name].marker, markersize=5.5, label=label)
        for name, label in labels.items()
    ]
    hollow = Line2D(
        [], [], linestyle="none", marker="o", color=style.MUTED, markerfacecolor=style.PAPER, markersize=5.5, label="hollow: undecided"
    )
    return [*handles, hollow]


def _alternative(what: str, group: pd.DataFrame, modes: list[str]) -> str:
    sentences = [f"Speed of each implementation relative to the baseline over sequence length, {what}; above 1 is faster."]
    for mode in modes:
        own = group[group["mode"] == mode]
        parts = []
        for name in own["implementation"].unique():
            values = own.loc[own["implementation"] == name, "speedup"]
            parts.append(f"{name} {factor(values.min())} to {factor(values.max())}")
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)} relative to {own['baseline'].iloc[0]}: {', '.join(parts)}.")
    return " ".join(sentences)

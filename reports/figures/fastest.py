"""The fastest conforming implementation at every T, B and H: a map per pass, a panel per recurrence."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness import statistics
from harness.outcome import Outcome
from reports.analysis import WORST_FIRST, Findings
from reports.figures import layout, style, throughput
from reports.speed import Lead, lead
from reports.tables import listed, rows
from reports.words import times

WIDE, HIGH = 0.74, 0.36
"""Inches of a cell of the map."""

COLUMNS = [
    "mode", "timed_pass", "place", "configuration", "batch_size", "hidden_size", "sequence_length", "winner", "leader", "runner_up",
    "speedup", "low", "high", "verdict", "without_a_time",
]  # fmt: skip

_DRAWN = [*(name for name in COLUMNS if name != "without_a_time"), "sizes", "length", "outcomes"]

_WORDS = {Lead.UNDECIDED: "undecided", Lead.SAME: "the same", Lead.NONE: "none known to conform"}


def plans(findings: Findings) -> list[style.Plan]:
    """One map for each pass, place and configuration but for B and H that was timed."""
    if findings.fastest_of_each.empty:
        return []
    known = findings.fastest_of_each.assign(sequence_length=findings.fastest_of_each["length"].astype("int64"))
    return [
        partial(
            _map,
            findings.timed,
            throughput.names(findings, set(group["leader"]) - {""}),
            str(timed_pass),
            str(place),
            str(rest),
            group[_DRAWN],
        )
        for (timed_pass, place, rest), group in known.groupby(["timed_pass", "place", "rest"], sort=False)
    ]


def _map(timed: list[str], labels: dict[str, str], timed_pass: str, place: str, rest: str, group: pd.DataFrame) -> style.Drawing:
    looks = style.series(timed)
    modes = style.modes(list(group["mode"]))
    lengths = sorted(set(group["sequence_length"]))
    parts = [group[group["mode"] == mode] for mode in modes]
    sizes = [_sizes(own) for own in parts]
    title = f"The fastest at every T, B and H: {timed_pass} on {place}"
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure, axes = _panels(len(lengths), [len(own) for own in sizes])
        for number, (panel, mode, own, here) in enumerate(zip(axes, modes, parts, sizes, strict=True)):
            _axes(panel, style.MODE_NAMES.get(mode, mode), lengths, here)
            cells = [_Cell(row, lengths.index(row.sequence_length), here.index(row.sizes), looks) for row in rows(own)]
            hover |= _cells(panel, cells, mode, f"map-{number}")
        names = layout.labels(axes)
        layout.finish(figure, title, rest, _handles(labels, group, looks), layout.Room(names, across=names + 0.1))
    return style.Drawing(
        name=style.slug("fastest", timed_pass, place, rest),
        title=title,
        caption=f"{rest}. Named by colour and mark: the conforming implementation that is measurably faster than every other there, "
        "with its margin over the next. Hatched and hollow: not decided, the mark is who leads. Blank: not timed. A mark in a corner: "
        "somebody has no time there, and why; the data says who.",
        alternative=_alternative(f"{timed_pass} on {place}", modes, parts),
        figure=figure,
        data=group.assign(without_a_time=[_lost(row) for row in rows(group)])[COLUMNS].sort_values(
            ["mode", "hidden_size", "batch_size", "sequence_length"]
        ),
        hover=hover,
        timed_pass=timed_pass,
    )


def _sizes(own: pd.DataFrame) -> list[str]:
    """The sizes in a panel, from the narrowest layer up, and in it from the smallest batch."""
    return list(own.sort_values(["hidden_size", "batch_size"])["sizes"].drop_duplicates())


def _panels(across: int, down: list[int]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each number of rows in ``down``, ``across`` cells wide, as many beside each other as there is room for."""
    width = across * WIDE + 1.35
    columns = max(1, min(len(down), int(13 // width)))
    heights = [max(down[k : k + columns]) * HIGH for k in range(0, len(down), columns)]
    figure = Figure(figsize=(max(columns * width, 7.0), sum(heights) + 0.95 * len(heights) + 1.0))
    axes = list(figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flat)
    for unused in axes[len(down) :]:
        unused.set_visible(False)
    return figure, axes[: len(down)]


def _axes(panel: Axes, title: str, lengths: list[int], labels: list[str]) -> None:
    panel.set_title(title)
    panel.grid(visible=False)
    panel.set_xticks(range(len(lengths)), [str(length) for length in lengths])
    panel.set_yticks(range(len(labels)), labels)
    panel.tick_params(length=0)
    panel.tick_params(axis="y", labelcolor=style.INK)
    panel.set_xlim(-0.5, len(lengths) - 0.5)
    panel.set_ylim(-0.5, len(labels) - 0.5)
    panel.set_xlabel("sequence length T", color=style.MUTED)
    panel.spines[:].set_visible(False)


class _Cell:
    """A cell of the map: where it is, what is said of it, and how its mark looks."""

    def __init__(self, row: Any, x: int, y: int, looks: dict[str, style.Series]) -> None:
        self.row, self.x, self.y, self.lead = row, x, y, lead(row)
        self.decided = self.lead in (Lead.WON, Lead.ALONE)
        look = looks.get(row.leader)
        self.marker, self.ink = (look.marker, look.colour) if look else ("x", style.MUTED)
        self.tint = look.colour if look and self.decided else style.RULE

    @property
    def box(self) -> list[tuple[float, float]]:
        left, right, low, high = self.x - 0.46, self.x + 0.46, self.y - 0.44, self.y + 0.44
        return [(left, low), (right, low), (right, high), (left, high)]

    @property
    def text(self) -> str:
        speedup = self.row.speedup
        return {Lead.SAME: "=", Lead.NONE: "none", Lead.ALONE: "alone"}.get(self.lead) or (
            f"{speedup:.2f}×" if speedup < 10 else f"{speedup:.0f}×"
        )


def _cells(panel: Axes, cells: list[_Cell], mode: str, gid: str) -> dict[str, list[str]]:
    """Draws the cells of a panel, all that look alike at once; returns the hover texts."""
    decided, open_ = ([cell for cell in cells if cell.decided == which] for which in (True, False))
    tints = [to_rgba(cell.tint, 0.3) for cell in decided]
    panel.add_collection(
        PolyCollection([cell.box for cell in decided], facecolors=tints, edgecolors=tints, linewidths=0.8, zorder=0.6), autolim=False
    )
    hatched: dict[str, Any] = {"facecolors": "none", "edgecolors": style.RULE, "hatch": "////", "linewidths": 0.8, "zorder": 0.6}
    panel.add_collection(PolyCollection([cell.box for cell in open_], **hatched), autolim=False)
    alike: dict[tuple[str, str, bool], list[_Cell]] = {}
    corners: dict[Outcome, list[_Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.marker, cell.ink, cell.decided), []).append(cell)
        worst = next((outcome for outcome in WORST_FIRST if outcome in cell.row.outcomes.values()), None)
        if worst is not None:
            corners.setdefault(worst, []).append(cell)
        panel.text(
            cell.x - 0.08, cell.y, cell.text, fontsize=8, va="center_baseline", color=style.INK if cell.decided else style.MUTED,
            bbox=None if cell.decided else {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    hover = {}
    for number, ((marker, ink, filled), own) in enumerate(alike.items()):
        panel.plot(
            [cell.x - 0.27 for cell in own], [cell.y for cell in own], marker=marker, markersize=6, color=ink,
            markerfacecolor=ink if filled else style.PAPER, markeredgewidth=1.2, linestyle="none", gid=f"{gid}-{number}",
        )  # fmt: skip
        hover[f"{gid}-{number}"] = [_told(cell.row, mode) for cell in own]
    for outcome, own in corners.items():
        panel.plot(
            [cell.x + 0.4 for cell in own], [cell.y + 0.3 for cell in own], marker=style.GLYPHS[outcome].marker, markersize=4,
            color=style.MUTED, linestyle="none",
        )  # fmt: skip
    return hover


def _lost(row: Any) -> str:
    return "; ".join(f"{name}: {outcome.replace('-', ' ')}" for name, outcome in row.outcomes.items())


def _told(row: Any, mode: str) -> str:
    """A cell of the map in the words that show when it is pointed at."""
    said, where = lead(row), f"{mode} · {row.sizes}, T={row.sequence_length}"
    if said in (Lead.NONE, Lead.ALONE):
        told = f"{where}: {row.leader or 'no conforming implementation has a time'}{', the only conforming one' if row.leader else ''}"
    else:
        margin = times(row.speedup, row.low, row.high)
        told = f"{where}: {row.winner or _WORDS[said]}, {row.leader} {margin} over {row.runner_up}"
    return f"{told}. Without a time: {_lost(row)}" if row.outcomes else told


def _handles(labels: dict[str, str], group: pd.DataFrame, looks: dict[str, style.Series]) -> list[Any]:
    handles: list[Any] = [
        Line2D([], [], linestyle="none", color=looks[name].colour, marker=looks[name].marker, markersize=6, label=label)
        for name, label in labels.items()
    ]
    leads = {lead(row) for row in rows(group)}
    if Lead.UNDECIDED in leads:
        handles.append(Patch(facecolor="none", edgecolor=style.RULE, hatch="////", label="hatched, hollow: undecided"))
    if Lead.SAME in leads:
        handles.append(Line2D([], [], linestyle="none", label=f"=: the best two within {statistics.MARGIN:.0%}"))
    lost = {outcome for row in rows(group) for outcome in row.outcomes.values()}
    return handles + [
        Line2D(
            [],
            [],
            linestyle="none",
            color=style.MUTED,
            marker=style.GLYPHS[Outcome(outcome)].marker,
            markersize=4,
            label=f"in a corner: {outcome.replace('-', ' ')}",
        )
        for outcome in map(str, WORST_FIRST)
        if outcome in lost
    ]


def _alternative(what: str, modes: list[str], parts: list[pd.DataFrame]) -> str:
    sentences = [f"Map of the fastest conforming implementation over sequence length, batch and hidden size, {what}."]
    for mode, own in zip(modes, parts, strict=True):
        won = Counter(f"{row.leader} alone" if lead(row) == Lead.ALONE else row.winner or _WORDS[lead(row)] for row in rows(own))
        told = listed([f"{name} in {number}" for name, number in won.most_common()])
        best = max((row for row in rows(own) if row.winner and not math.isnan(row.speedup)), key=lambda row: row.speedup, default=None)
        most = "" if best is None else f" Most: {best.winner}, {best.speedup:.2f} times {best.runner_up}, at {best.sizes}, T={best.length}."
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)}, {len(own)} sizes: {told}.{most}")
    return " ".join(sentences)

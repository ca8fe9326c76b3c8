"""The fastest conforming implementation at every T, B and H: a map per pass, a panel per recurrence."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from harness import statistics
from harness.outcome import Outcome
from reports.analysis import WORST_FIRST, Findings
from reports.figures import style, throughput
from reports.tables import listed, rows
from reports.words import times

WIDE, HIGH = 0.74, 0.36
"""Inches of a cell of the map."""

COLUMNS = [
    "mode", "timed_pass", "place", "configuration", "batch_size", "hidden_size", "sequence_length", "winner", "leader", "runner_up",
    "ratio", "low", "high", "standing", "without_a_time",
]  # fmt: skip

_WORDS = {"undecided": "undecided", "same": "the same", "none": "none conforms", "alone": "the only one"}


def draw(findings: Findings) -> list[style.Drawing]:
    """One map for each pass, place and configuration but for B and H that was timed."""
    if findings.fastest_of_each.empty:
        return []
    known = findings.fastest_of_each.assign(sequence_length=findings.fastest_of_each["length"].astype("int64"))
    return [
        _map(findings, str(timed_pass), str(place), str(rest), group)
        for (timed_pass, place, rest), group in known.groupby(["timed_pass", "place", "rest"], sort=False)
    ]


def kind(row: Any) -> str:
    """What may be said of a cell: won, alone, same, undecided or none."""
    if not row.leader:
        return "none"
    if not row.runner_up:
        return "alone"
    if row.winner:
        return "won"
    return "same" if row.standing == statistics.Verdict.SAME else "undecided"


def _map(findings: Findings, timed_pass: str, place: str, rest: str, group: pd.DataFrame) -> style.Drawing:
    looks = style.series(findings.timed)
    modes = style.modes(list(group["mode"]))
    lengths = sorted(set(group["sequence_length"]))
    parts = [group[group["mode"] == mode] for mode in modes]
    sizes = [_sizes(own) for own in parts]
    title = f"The fastest at every T, B and H: {timed_pass} on {place}"
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure, axes = _panels(len(lengths), [len(labels) for labels in sizes])
        style.heading(figure, title, rest)
        for number, (panel, mode, own, labels) in enumerate(zip(axes, modes, parts, sizes, strict=True)):
            _axes(panel, style.MODE_NAMES.get(mode, mode), lengths, labels)
            for row in rows(own):
                x, y = lengths.index(row.sequence_length), labels.index(row.sizes)
                gid = f"map-{number}-{x}-{y}"
                _cell(panel, row, x, y, looks, gid)
                hover[gid] = [_told(row, mode)]
        throughput.legend(figure, _handles(findings, group, looks))
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
    heights = [max(down[k : k + columns]) * HIGH + 0.95 for k in range(0, len(down), columns)]
    figure = Figure(figsize=(max(columns * width, 7.0), sum(heights) + 1.0), layout="constrained")
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


def _cell(panel: Axes, row: Any, x: int, y: int, looks: dict[str, style.Series], gid: str) -> None:
    what = kind(row)
    look = looks.get(row.leader)
    decided = what in ("won", "alone")
    colour = look.colour if look and decided else style.RULE
    panel.add_patch(
        Rectangle(
            (x - 0.46, y - 0.44),
            0.92,
            0.88,
            facecolor=colour if decided else "none",
            edgecolor=colour,
            alpha=0.3 if decided else 1.0,
            linewidth=0.8,
            hatch="" if decided else "////",
            zorder=0.6,
        )
    )
    marker, ink = (look.marker, look.colour) if look else ("x", style.MUTED)
    fill = ink if decided else style.PAPER
    panel.plot(
        [x - 0.27], [y], marker=marker, markersize=6, color=ink, markerfacecolor=fill, markeredgewidth=1.2, linestyle="none", gid=gid
    )
    text = {"same": "=", "none": "none", "alone": "alone"}.get(what) or (f"{row.ratio:.2f}×" if row.ratio < 10 else f"{row.ratio:.0f}×")
    panel.text(
        x - 0.08, y, text, fontsize=8, va="center_baseline", color=style.INK if decided else style.MUTED,
        bbox=None if decided else {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip
    worst = next((outcome for outcome in WORST_FIRST if outcome in row.outcomes.values()), None)
    if worst is not None:
        glyph = style.GLYPHS[worst]
        panel.plot([x + 0.4], [y + 0.3], marker=glyph.marker, markersize=4, color=style.MUTED, linestyle="none")


def _lost(row: Any) -> str:
    return "; ".join(f"{name}: {outcome.replace('-', ' ')}" for name, outcome in row.outcomes.items())


def _told(row: Any, mode: str) -> str:
    """A cell of the map in the words that show when it is pointed at."""
    what, where = kind(row), f"{mode} · {row.sizes}, T={row.sequence_length}"
    if what in ("none", "alone"):
        told = f"{where}: {row.leader or 'no conforming implementation has a time'}{', the only conforming one' if row.leader else ''}"
    else:
        margin = times(row.ratio, row.low, row.high)
        told = f"{where}: {row.winner or _WORDS[what]}, {row.leader} {margin} over {row.runner_up}"
    return f"{told}. Without a time: {_lost(row)}" if row.outcomes else told


def _handles(findings: Findings, group: pd.DataFrame, looks: dict[str, style.Series]) -> list[Any]:
    labels = throughput.names(findings, set(group["leader"]) - {""})
    handles: list[Any] = [
        Line2D([], [], linestyle="none", color=looks[name].colour, marker=looks[name].marker, markersize=6, label=label)
        for name, label in labels.items()
    ]
    kinds = {kind(row) for row in rows(group)}
    if "undecided" in kinds:
        handles.append(Patch(facecolor="none", edgecolor=style.RULE, hatch="////", label="hatched, hollow: undecided"))
    if "same" in kinds:
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
        won = Counter(row.winner or _WORDS[kind(row)] for row in rows(own))
        told = listed([f"{name} in {number}" for name, number in won.most_common()])
        best = max((row for row in rows(own) if row.winner and not math.isnan(row.ratio)), key=lambda row: row.ratio, default=None)
        most = "" if best is None else f" Most: {best.winner}, {best.ratio:.2f} times {best.runner_up}, at {best.sizes}, T={best.length}."
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)}, {len(own)} sizes: {told}.{most}")
    return " ".join(sentences)

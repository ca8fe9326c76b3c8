"""What a call costs: set-up against step, warm-up and when it pays, peak memory; an implementation to a line, a row of panels per mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from harness.statistics import Verdict
from reports import metrics
from reports.analysis import Findings
from reports.figures import style, throughput
from reports.tables import counted, rows
from reports.words import duration, size

KEYS = ["timed_pass", "place", "configuration"]
_ARROW: Any = 8
"""matplotlib's marker of an arrow head to the left whose tip is on the point."""

PANELS = ("set-up of a call", "each time step", "warm-up", "peak memory of a call")
COLUMNS = [
    "mode", *KEYS, "implementation", "sequence_length", "setup", "setup_low", "setup_high", "step", "step_low", "step_high", "misfit",
    "lengths", "warm_up_cost", "baseline", "standing", "pays_after", "memory_bytes", "memory_resolution", "memory_method", "lost",
]  # fmt: skip


def draw(findings: Findings) -> list[style.Drawing]:
    """One figure for each pass, place and configuration of which anything but times is known."""
    known = findings.costs[["setup", "warm_up_cost", "memory_bytes"]].notna().any(axis=1)
    groups = findings.costs.assign(known=known).groupby(KEYS, sort=False)
    found = [(dict(zip(KEYS, map(str, keys), strict=True)), group) for keys, group in groups if group["known"].any()]
    return throughput.some(found, partial(_figure, findings))


def _figure(findings: Findings, keys: dict[str, str], group: pd.DataFrame) -> style.Drawing:
    looks = style.series(findings.timed)
    modes = style.modes(list(group["mode"]))
    present = set(group["implementation"])
    names = [name for name in findings.timed if name in present]
    title = f"What a call costs: {keys['timed_pass']} on {keys['place']}"
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure = Figure(figsize=(13.0, len(modes) * (0.24 * len(names) + 0.75) + 1.25), layout="constrained")
        style.heading(figure, title, keys["configuration"])
        grid = figure.subplots(len(modes), len(PANELS), squeeze=False, sharex="col", sharey=True)
        for panel, what in zip(grid[0], PANELS, strict=True):
            panel.set_title(what)
        for number, (line, mode) in enumerate(zip(grid, modes, strict=True)):
            line[0].set_ylabel(style.MODE_NAMES.get(mode, mode), color=style.INK, fontweight="bold")
            line[0].set_yticks(range(len(names)), [style.shorten(name, 22) for name in names])
            line[0].set_ylim(len(names) - 0.4, -0.6)
            for panel in line:
                _axis(panel)
            for row in rows(group[group["mode"] == mode]):
                y = names.index(row.implementation)
                hover |= _row(line, row, _Line(y, looks[row.implementation], f"costs-{number}-{y}"))
        _limits(grid)
        throughput.legend(figure, _handles(group))
    return style.Drawing(
        name=style.slug("costs", keys["timed_pass"], keys["place"], keys["configuration"]),
        title=title,
        caption=_caption(keys, group),
        alternative=_alternative(f"{keys['timed_pass']} on {keys['place']}", group, modes),
        figure=figure,
        data=group[COLUMNS].assign(lost=["; ".join(lost) for lost in group["lost"]]).sort_values(["mode", "implementation"]),
        hover=hover,
        timed_pass=keys["timed_pass"],
        configuration=keys["configuration"],
    )


def _axis(panel: Axes) -> None:
    panel.set_xscale("log")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", labelcolor=style.INK, length=0)


def _ticks(panel: Axes, binary: bool) -> None:
    """At most five labelled values, of the series 1, 2, 5 or of powers of two."""
    low, high = panel.get_xlim()
    if binary:
        ticks = [2.0**k for k in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    else:
        ticks = [d * 10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for d in (1, 2, 5)]
        ticks = [value for value in ticks if low <= value <= high]
        if len(ticks) > 5:
            ticks = ticks[next(k for k, value in enumerate(ticks) if f"{value:e}".startswith("1")) :: 3]
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 5))]
    panel.set_xticks(ticks, [size(value) if binary else duration(value)[0] for value in ticks])
    panel.xaxis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class _Line:
    """Where the marks of one implementation go, how they look, and what they are called."""

    y: int
    look: style.Series
    gid: str

    def mark(self, panel: Axes, x: float, what: str, filled: bool = True) -> None:
        fill = self.look.colour if filled else style.PAPER
        panel.plot([x], [self.y], linestyle="none", marker=self.look.marker, markersize=6, color=self.look.colour, markerfacecolor=fill,
                   markeredgewidth=1.2, gid=f"{self.gid}-{what}")  # fmt: skip

    def at_most(self, panel: Axes, x: float, what: str) -> None:
        """An upper end with an arrow to the left: no more than that."""
        panel.plot([x / 2, x], [self.y] * 2, color=self.look.colour, linewidth=1.2)
        panel.plot([x / 2], [self.y], linestyle="none", marker=_ARROW, markersize=6, color=self.look.colour)
        panel.plot([x], [self.y], linestyle="none", marker="|", markersize=8, markeredgewidth=1.6, color=self.look.colour,
                   gid=f"{self.gid}-{what}")  # fmt: skip

    def word(self, panel: Axes, text: str) -> None:
        panel.text(0.02, self.y, text, transform=panel.get_yaxis_transform(), fontsize=8, color=style.MUTED, va="center_baseline",
                   style="italic")  # fmt: skip


def _row(panels: Any, row: Any, line: _Line) -> dict[str, list[str]]:
    """Draws the four marks of one implementation, with a word wherever there is none; returns the hover texts."""
    setup, step, warm_up, memory = panels
    told = [_told(row)]
    drawn = []
    for what, panel, value, low, high in (
        ("setup", setup, row.setup, row.setup_low, row.setup_high),
        ("step", step, row.step, row.step_low, row.step_high),
    ):
        if math.isnan(value):
            line.word(panel, f"fewer than {metrics.LEAST_LENGTHS} lengths" if row.sequence_length else "; ".join(row.lost) or "no time")
            continue
        # Below a picosecond there is rounding alone.
        if high < 1e-12:
            line.word(panel, "none seen")
            continue
        if low <= 0:
            line.at_most(panel, high, what)
        else:
            panel.plot([low, high], [line.y] * 2, color=line.look.colour, linewidth=1.6)
            line.mark(panel, value, what, filled=row.misfit <= metrics.LINE_FITS)
        drawn.append(what)
    if row.warm_up_cost > 0:
        line.mark(warm_up, row.warm_up_cost, "warm-up")
        warm_up.annotate(_pays(row), (row.warm_up_cost, line.y), xytext=(7, 0), textcoords="offset points", fontsize=8, color=style.MUTED,
                         va="center_baseline")  # fmt: skip
        drawn.append("warm-up")
    else:
        line.word(warm_up, "not known" if math.isnan(row.warm_up_cost) else ", ".join(filter(None, ("none seen", _pays(row)))))
    if math.isnan(row.memory_bytes):
        line.word(memory, "not measured")
    elif metrics.peak(row.memory_bytes, row.memory_resolution).bounded:
        line.at_most(memory, row.memory_resolution, "memory")
        drawn.append("memory")
    else:
        line.mark(memory, row.memory_bytes, "memory")
        drawn.append("memory")
    if row.lost:
        memory.plot([0.97], [line.y], transform=memory.get_yaxis_transform(), linestyle="none", marker="s", markersize=5,
                    color=style.SEVERE, gid=f"{line.gid}-lost")  # fmt: skip
        drawn.append("lost")
    return {f"{line.gid}-{what}": told for what in drawn}


def _pays(row: Any) -> str:
    """When a warm-up pays, in brief; empty where nothing is said of it."""
    if row.implementation == row.baseline:
        return "baseline"
    if row.standing in (Verdict.SAME, Verdict.UNDECIDED):
        return str(row.standing)
    if math.isnan(row.pays_after):
        return ""
    if math.isinf(row.pays_after):
        return "never pays"
    return f"pays after {counted(math.ceil(row.pays_after), 'call')}" if row.pays_after > 0 else "pays at once"


def _limits(grid: Any) -> None:
    """Room at the right of the warm-ups for their words, and the labels."""
    for column, what in enumerate(PANELS):
        if not any(line.get_transform() == panel.transData for panel in grid[:, column] for line in panel.lines):
            grid[0][column].set_xscale("linear")
            grid[0][column].set_xticks([])
            continue
        low, high = grid[0][column].get_xlim()
        grid[0][column].set_xlim(low / 1.2, high * (high / low) ** (0.7 if what == "warm-up" else 0.1) * 1.2)
        _ticks(grid[-1][column], binary=column == len(PANELS) - 1)


def _handles(group: pd.DataFrame) -> list[Line2D]:
    mark: dict[str, Any] = {"linestyle": "none", "color": style.MUTED, "markersize": 6}
    handles = [Line2D([], [], color=style.MUTED, linewidth=1.6, label="99 % interval")]
    if (group["misfit"] > metrics.LINE_FITS).any():
        label = f"hollow: a line misses a time by more than {metrics.LINE_FITS:.0%}"
        handles.append(Line2D([], [], marker="o", markerfacecolor=style.PAPER, label=label, **mark))
    handles.append(Line2D([], [], marker=_ARROW, label="arrow: no more than that", **mark))
    if group["lost"].map(bool).any():
        handles.append(Line2D([], [], marker="s", label="some lengths have no time", **{**mark, "color": style.SEVERE}))
    return handles


def _told(row: Any) -> str:
    parts = [f"{row.implementation} · {row.mode}"]
    if not math.isnan(row.setup):
        parts += [f"{name} {' to '.join(duration(value, low, high)[1:])}, about {duration(value)[0]}" if low > 0 else
                  f"{name} at most {duration(high)[0]}" for name, value, low, high in
                  (("set-up", row.setup, row.setup_low, row.setup_high), ("step", row.step, row.step_low, row.step_high))]  # fmt: skip
    if not math.isnan(row.warm_up_cost):
        parts.append(f"warm-up {duration(row.warm_up_cost)[0]} {_pays(row)}".strip())
    if not math.isnan(row.memory_bytes):
        peak = metrics.peak(row.memory_bytes, row.memory_resolution)
        parts.append(f"memory {'at most ' if peak.bounded else ''}{size(peak.bytes)} at T={row.sequence_length}")
    return "; ".join([*parts, *row.lost])


def _caption(keys: dict[str, str], group: pd.DataFrame) -> str:
    longest = int(group["sequence_length"].max())
    short = [f"{row.implementation} ({row.mode}) at T={row.sequence_length}" for row in rows(group[group["sequence_length"] < longest])]
    sentences = [
        f"{keys['configuration']}. Set-up and step: the time of a call as set-up + step × T, through the median at each T.",
        "Warm-up: what the first calls took above later ones, seen once, and after how many calls what it cost more than the baseline's is "
        "made up for.",
        f"Warm-up and memory are those at T={longest}{', but of ' + ', '.join(short) if short else ''}.",
    ]
    lost = [f"{row.implementation} ({row.mode}) {what}" for row in rows(group) for what in row.lost]
    if lost:
        sentences.append(f"Without a time: {'; '.join(lost)}.")
    return " ".join(sentences)


def _alternative(what: str, group: pd.DataFrame, modes: list[str]) -> str:
    sentences = [f"Set-up, time per step, warm-up and peak memory of each implementation, {what}."]
    for mode in modes:
        told = ". ".join(_told(row).replace(f" · {row.mode}", "") for row in rows(group[group["mode"] == mode]))
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)}: {told}.")
    return " ".join(sentences)

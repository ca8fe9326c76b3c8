"""What a call costs: set-up against step, warm-up and when it pays, peak memory; an implementation to a line, a row of panels per mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from harness.statistics import Verdict
from reports import metrics
from reports.analysis import Findings
from reports.figures import layout, style, throughput
from reports.tables import counted, rows
from reports.words import duration, size

KEYS = ["timed_pass", "place", "configuration"]
_ARROW: Any = 8
"""matplotlib's marker of an arrow head to the left whose tip is on the point."""

PANELS = ("set-up of a call", "each time step", "warm-up", "peak memory of a call")
COLUMNS = [
    "mode", *KEYS, "implementation", "sequence_length", "setup", "setup_low", "setup_high", "step", "step_low", "step_high", "misfit",
    "lengths", "warm_up_cost", "baseline", "verdict", "pays_after", "memory_bytes", "memory_resolution", "memory_method", "lost",
]  # fmt: skip


_GAP = 0.9
"""Rows between two recurrences."""


def plans(findings: Findings) -> list[style.Plan]:
    """One figure for each pass, place and configuration of which anything but times is known."""
    known = findings.costs[["setup", "warm_up_cost", "memory_bytes"]].notna().any(axis=1)
    groups = findings.costs.assign(known=known).groupby(KEYS, sort=False)
    found = [(dict(zip(KEYS, map(str, keys), strict=True)), group) for keys, group in groups if group["known"].any()]
    return throughput.some(found, lambda keys, group: partial(_draw, findings.timed, keys, group[COLUMNS]))


def _draw(timed: list[str], keys: dict[str, str], group: pd.DataFrame) -> style.Drawing:
    looks = style.series(timed)
    modes = style.modes(list(group["mode"]))
    present = set(group["implementation"])
    names = [name for name in timed if name in present]
    title = f"What a call costs: {keys['timed_pass']} on {keys['place']}"
    with style.house_style():
        figure = Figure(figsize=(13.0, len(modes) * (0.24 * len(names) + 0.75) + 1.25))
        panels = dict(zip(PANELS, figure.subplots(1, len(PANELS), sharey=True), strict=True))
        _rows(panels, names, modes)
        marks = {what: _Marks(panel, f"costs-{number}") for number, (what, panel) in enumerate(panels.items())}
        for row in rows(group):
            y = modes.index(row.mode) * (len(names) + _GAP) + names.index(row.implementation)
            _row(tuple(marks.values()), row, _At(y, looks[row.implementation]))
        hover = {gid: texts for one in marks.values() for gid, texts in one.draw().items()}
        for what, panel in panels.items():
            _limits(panel, what, bool(marks[what].drawn))
        first = panels[PANELS[0]]
        # Between two panels the last tick of one and the first of the next may both be labelled.
        room = layout.Room(layout.labels([first]) + layout.NAMED, below=layout.TICKS, across=0.55)
        layout.finish(figure, title, keys["configuration"], _handles(group), room)
        for number, mode in enumerate(modes):
            middle = number * (len(names) + _GAP) + (len(names) - 1) / 2
            first.annotate(
                style.MODE_NAMES.get(mode, mode), (0, middle), xycoords=first.get_yaxis_transform(), xytext=(-72 * room.left + 8, 0),
                textcoords="offset points", rotation=90, ha="center", va="center", fontweight="bold", annotation_clip=False,
            )  # fmt: skip
    return style.Drawing(
        name=style.slug("costs", keys["timed_pass"], keys["place"], keys["configuration"]),
        title=title,
        caption=_caption(keys, group),
        alternative=_alternative(f"{keys['timed_pass']} on {keys['place']}", group, modes),
        figure=figure,
        data=group.assign(lost=["; ".join(lost) for lost in group["lost"]]).sort_values(["mode", "implementation"]),
        hover=hover,
        timed_pass=keys["timed_pass"],
    )


def _rows(panels: dict[str, Axes], names: list[str], modes: list[str]) -> None:
    """The axes: a row per implementation, below each other by recurrence, with a rule between two of these."""
    step = len(names) + _GAP
    places = [number * step + k for number in range(len(modes)) for k in range(len(names))]
    for what, panel in panels.items():
        panel.set_title(what)
        panel.set_xscale("log")
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", labelcolor=style.INK, length=0)
        for number in range(1, len(modes)):
            panel.axhline(number * step - 0.5 - _GAP / 2, color=style.RULE, linewidth=0.8)
    first = panels[PANELS[0]]
    first.set_yticks(places, [style.shorten(name, 22) for name in names] * len(modes))
    first.set_ylim(places[-1] + 0.6, -0.6)


def _ticks(panel: Axes, binary: bool) -> None:
    """At most five labelled values, of the series 1, 2, 5 or of powers of two; at least two, for which the axis is made longer."""
    low, high = panel.get_xlim()
    series = np.array([2.0**k for k in range(-30, 80)] if binary else [d * 10.0**k for k in range(-15, 10) for d in (1, 2, 5)])
    if np.count_nonzero((low <= series) & (series <= high)) < 2:
        low, high = min(low, series[series <= low][-1] / 1.15), max(high, series[series >= high][0] * 1.15)
        panel.set_xlim(low, high)
    ticks = series[(low <= series) & (series <= high)].tolist()
    if not binary and len(ticks) > 5:
        ticks = ticks[next(k for k, value in enumerate(ticks) if f"{value:e}".startswith("1")) :: 3]
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 5))]
    panel.set_xticks(ticks, [size(value) if binary else duration(value)[0] for value in ticks])
    panel.xaxis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class _At:
    """Where the marks of one implementation go, and how they look."""

    y: float
    look: style.Series


class _Marks:
    """The marks of one panel, of which all that look alike are drawn at once.

    ``drawn``: (how a mark looks, what it says) -> its places and texts.
    """

    def __init__(self, panel: Axes, gid: str) -> None:
        self.panel, self._gid = panel, gid
        self.drawn: dict[tuple[style.Series, str], list[tuple[float, float, str]]] = {}
        self._lines: list[tuple[float, float, float, str, float]] = []
        self._arrows: list[tuple[float, float, str]] = []

    def mark(self, at: _At, x: float, told: str, filled: bool = True) -> None:
        self._add(at, "filled" if filled else "hollow", x, told)

    def interval(self, at: _At, low: float, high: float) -> None:
        self._lines.append((at.y, low, high, at.look.colour, 1.6))

    def at_most(self, at: _At, x: float, told: str) -> None:
        """An upper end with an arrow to the left: no more than that."""
        self._lines.append((at.y, x / 2, x, at.look.colour, 1.2))
        self._arrows.append((x / 2, at.y, at.look.colour))
        self._add(at, "end", x, told)

    def lost(self, at: _At, told: str) -> None:
        """A mark at the right end: some lengths have no time."""
        self._add(at, "lost", 0.97, told)

    def word(self, at: _At, text: str) -> None:
        self.panel.text(0.02, at.y, text, transform=self.panel.get_yaxis_transform(), fontsize=8, color=style.MUTED,
                        va="center_baseline", style="italic")  # fmt: skip

    def note(self, at: _At, x: float, text: str) -> None:
        """A word at the right of a mark."""
        self.panel.annotate(text, (x, at.y), xytext=(7, 0), textcoords="offset points", fontsize=8, color=style.MUTED,
                            va="center_baseline")  # fmt: skip

    def _add(self, at: _At, kind: str, x: float, told: str) -> None:
        # One look for all that is lost.
        look = style.Series(style.SEVERE, "s", "") if kind == "lost" else at.look
        self.drawn.setdefault((look, kind), []).append((x, at.y, told))

    def draw(self) -> dict[str, list[str]]:
        """Draws what was gathered; returns the hover texts."""
        if self._lines:
            ys, lows, highs, colours, widths = zip(*self._lines, strict=True)
            self.panel.hlines(ys, lows, highs, colors=colours, linewidth=widths)
        for colour in dict.fromkeys(colour for _, _, colour in self._arrows):
            own = [(x, y) for x, y, found in self._arrows if found == colour]
            self.panel.plot(*zip(*own, strict=True), linestyle="none", marker=_ARROW, markersize=6, color=colour)
        hover = {}
        for number, ((look, kind), found) in enumerate(self.drawn.items()):
            gid = f"{self._gid}-{number}"
            xs, heights, texts = zip(*found, strict=True)
            hover[gid] = list(texts)
            self.panel.plot(xs, heights, linestyle="none", color=look.colour, gid=gid, **self._shape(look, kind))
        return hover

    def _shape(self, look: style.Series, kind: str) -> dict[str, Any]:
        if kind == "end":
            return {"marker": "|", "markersize": 8, "markeredgewidth": 1.6}
        if kind == "lost":
            return {"marker": look.marker, "markersize": 5, "transform": self.panel.get_yaxis_transform()}
        fill = look.colour if kind == "filled" else style.PAPER
        return {"marker": look.marker, "markersize": 6, "markerfacecolor": fill, "markeredgewidth": 1.2}


def _row(marks: tuple[_Marks, ...], row: Any, at: _At) -> None:
    """Draws the four marks of one implementation, with a word wherever there is none."""
    setup, step, warm_up, memory = marks
    told = _told(row)
    for what, value, low, high in ((setup, row.setup, row.setup_low, row.setup_high), (step, row.step, row.step_low, row.step_high)):
        if math.isnan(value):
            what.word(at, f"fewer than {metrics.LEAST_LENGTHS} lengths" if row.sequence_length else "; ".join(row.lost) or "no time")
        elif high < metrics.NO_TIME:
            what.word(at, "none seen")
        elif low <= 0:
            what.at_most(at, high, told)
        else:
            what.interval(at, low, high)
            what.mark(at, value, told, filled=metrics.fits(row.misfit))
    if row.warm_up_cost > 0:
        warm_up.mark(at, row.warm_up_cost, told)
        warm_up.note(at, row.warm_up_cost, _pays(row))
    else:
        warm_up.word(at, "not known" if math.isnan(row.warm_up_cost) else ", ".join(filter(None, ("none seen", _pays(row)))))
    peak = metrics.peak(row.memory_bytes, row.memory_resolution)
    if math.isnan(peak.bytes):
        memory.word(at, "not measured")
    elif peak.bytes <= 0:
        memory.word(at, "none seen")
    elif peak.bounded:
        memory.at_most(at, row.memory_resolution, told)
    else:
        memory.mark(at, row.memory_bytes, told)
    if row.lost:
        memory.lost(at, told)


def _pays(row: Any) -> str:
    """When a warm-up pays, in brief; empty where nothing is said of it."""
    if row.implementation == row.baseline:
        return "baseline"
    if row.verdict in (Verdict.SAME, Verdict.UNDECIDED):
        return str(row.verdict)
    if math.isnan(row.pays_after):
        return ""
    if math.isinf(row.pays_after):
        return "never pays"
    return f"pays after {counted(math.ceil(row.pays_after), 'call')}" if row.pays_after > 0 else "pays at once"


def _limits(panel: Axes, what: str, marked: bool) -> None:
    """Room at the right of the warm-ups for their words, and the labels."""
    if not marked:
        panel.set_xscale("linear")
        panel.set_xticks([])
        return
    low, high = panel.get_xlim()
    panel.set_xlim(low / 1.2, high * (high / low) ** (0.7 if what == "warm-up" else 0.1) * 1.2)
    _ticks(panel, binary=what == PANELS[-1])


def _handles(group: pd.DataFrame) -> list[Line2D]:
    mark: dict[str, Any] = {"linestyle": "none", "color": style.MUTED, "markersize": 6}
    handles = [Line2D([], [], color=style.MUTED, linewidth=1.6, label="99 % interval")]
    if not group["misfit"].dropna().map(metrics.fits).all():
        label = f"hollow: a line misses a time by more than {metrics.LINE_FITS:.0%}"
        handles.append(Line2D([], [], marker="o", markerfacecolor=style.PAPER, label=label, **mark))
    handles.append(Line2D([], [], marker=_ARROW, label="arrow: no more than that", **mark))
    if group["lost"].map(bool).any():
        handles.append(Line2D([], [], marker="s", label="some lengths have no time", **{**mark, "color": style.SEVERE}))
    return handles


def _told(row: Any) -> str:
    parts = [f"{row.implementation} · {row.mode}"]
    if not math.isnan(row.setup):
        parts.append(f"set-up {_part(row.setup, row.setup_low, row.setup_high)}")
        parts.append(f"step {_part(row.step, row.step_low, row.step_high)}")
    if not math.isnan(row.warm_up_cost):
        parts.append(f"warm-up {duration(row.warm_up_cost)[0]} {_pays(row)}".strip())
    if not math.isnan(row.memory_bytes):
        peak = metrics.peak(row.memory_bytes, row.memory_resolution)
        parts.append(f"memory {'at most ' if peak.bounded else ''}{size(peak.bytes)} at T={row.sequence_length}")
    return "; ".join([*parts, *row.lost])


def _part(seconds: float, low: float, high: float) -> str:
    """Set-up or step in words."""
    if high < metrics.NO_TIME:
        return "none seen"
    return f"at most {duration(high)[0]}" if low <= 0 else f"{' to '.join(duration(seconds, low, high)[1:])}, about {duration(seconds)[0]}"


def _caption(keys: dict[str, str], group: pd.DataFrame) -> str:
    longest = int(group["sequence_length"].max())
    # Zero is the length of what has no time at all, of which another sentence tells.
    shorter = group[group["sequence_length"].between(1, longest - 1)]
    short = [f"{row.implementation} ({row.mode}) at T={row.sequence_length}" for row in rows(shorter)]
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

"""What became of every time beside its control from one set of runs to another, an implementation to a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.statistics import LEVEL, MARGIN, Verdict
from reports import comparison
from reports.changes import Beside
from reports.figures import layout, style
from reports.tables import counted
from reports.words import interval

Ratio = tuple[float, float | None, float | None]
"""A ratio with the ends of its interval."""

LOOKS = {
    Verdict.SLOWER: ("#d55e00", "v", "slower"),
    Verdict.FASTER: ("#0072b2", "^", "faster"),
    Verdict.SAME: ("#009e73", "o", "the same"),
    Verdict.UNDECIDED: (style.MUTED, "o", "undecided"),
}


def plans(beside: Beside) -> list[style.Plan]:
    """One figure, if any time can be compared; without verdicts where the environments do not match."""
    changes = beside.speed.changes
    return [partial(_draw, beside.machine, changes, not beside.speed.mismatches)] if changes else []


def _draw(machine: str, changes: list[comparison.Change], judged: bool) -> style.Drawing:
    names = list(dict.fromkeys(change.implementation for change in changes))
    title = style.titled("Times in HEAD over those in BASE, each beside its control", machine)
    hover: dict[str, list[str]] = {}
    with style.house_style():
        figure = Figure(figsize=(11.0, 0.9 * len(names) + 1.6))
        panel = figure.subplots()
        ratio_axis(panel, [style.shorten(name, 26) for name in names])
        for place, name in enumerate(names):
            own = sorted((change for change in changes if change.implementation == name), key=lambda change: change.ratio)
            heights = {id(change): place + 0.38 * (2 * (k + 0.5) / len(own) - 1) for k, change in enumerate(own)}
            for verdict, (colour, marker, _) in LOOKS.items():
                shown = [change for change in own if (change.verdict if judged else Verdict.UNDECIDED) == verdict]
                if shown:
                    gid = f"change-{place}-{verdict}"
                    ratios = [(change.ratio, change.low, change.high) for change in shown]
                    marks(panel, ratios, [heights[id(change)] for change in shown], colour, marker, verdict == Verdict.UNDECIDED, gid)
                    hover[gid] = [_told(change, judged) for change in shown]
        layout.finish(
            figure, title, "", handles({change.verdict for change in changes}, judged), layout.Room(layout.labels([panel]), above=0.08)
        )
    return style.Drawing(
        name=style.slug("change", machine),
        title=title,
        caption=f"Above 1 it became slower. One mark per workload, sorted; bars: {LEVEL:.0%} interval. Grey: within {MARGIN:.0%}. "
        + ("Hollow: undecided." if judged else "Hollow: not judged, because the environments do not match."),
        alternative=_alternative(changes, names, judged),
        figure=figure,
        data=pd.DataFrame([{**change.as_json(), "verdict": change.verdict if judged else "not judged"} for change in changes]),
        hover=hover,
    )


def ratio_axis(panel: Axes, names: list[str]) -> None:
    """Ratios across, around 1, and ``names`` down."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0), numticks=20))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}×"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="y", labelcolor=style.INK, length=0)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("slower →", color=style.MUTED, loc="right")
    panel.axvspan(1 / (1 + MARGIN), 1 + MARGIN, color=style.RULE, alpha=0.6, linewidth=0)
    panel.axvline(1, color=style.INK, linewidth=1.2)


def marks(panel: Axes, ratios: Sequence[Ratio], heights: Sequence[float], colour: str, marker: str, hollow: bool, gid: str) -> None:
    """Draws ratios with their intervals."""
    known = [(low, high, height) for (_, low, high), height in zip(ratios, heights, strict=True) if low is not None and low == low]
    if known:
        lows, highs, places = zip(*known, strict=True)
        panel.hlines(places, lows, highs, color=colour, linewidth=0.9, alpha=0.6)
    panel.plot(
        [ratio for ratio, _, _ in ratios], heights, linestyle="none", marker=marker, markersize=4.5, color=colour,
        markerfacecolor=style.PAPER if hollow else colour, markeredgewidth=1.0, gid=gid,
    )  # fmt: skip


def _told(change: comparison.Change, judged: bool) -> str:
    ratio = f"{change.ratio:.3f}× ({interval(change.low, change.high)})"
    verdict = change.verdict if judged else "not judged"
    return f"{change.implementation} · {change.workload}{comparison.told(change.caches)}: {ratio}, {verdict}"


def handles(verdicts: set[str], judged: bool = True) -> list[Line2D]:
    """What a legend says of the verdicts that are there, or of the one look of what is not judged."""
    seen = verdicts if judged else {str(Verdict.UNDECIDED)}
    mark: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    return [
        Line2D([], [], color=colour, marker=marker, label=word if judged else "not judged", **mark,
               markerfacecolor=style.PAPER if verdict == Verdict.UNDECIDED else colour)
        for verdict, (colour, marker, word) in LOOKS.items() if str(verdict) in seen
    ]  # fmt: skip


def _alternative(changes: list[comparison.Change], names: list[str], judged: bool) -> str:
    sentences = ["Time in HEAD over time in BASE, each beside its control, per implementation; above 1 is slower."]
    for name in names:
        own = [change for change in changes if change.implementation == name]
        middle = math.exp(sorted(math.log(change.ratio) for change in own)[len(own) // 2])
        low, high = (end(change.ratio for change in own) for end in (min, max))
        told = [f"{sum(change.verdict == verdict for change in own)} {word}" for verdict, (_, _, word) in LOOKS.items()]
        judgement = f": {', '.join(told)}" if judged else ", not judged"
        sentences.append(f"{name}, {counted(len(own), 'workload')}{judgement}; {low:.3f} to {high:.3f}, middle {middle:.3f}.")
    return " ".join(sentences)

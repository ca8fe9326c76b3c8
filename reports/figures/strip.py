"""The strip below the curves of a figure over T: every cell that the curves cannot show, and what became of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.outcome import Outcome
from reports import costs
from reports.figures import style
from reports.words import first_line

HIGHEST = 0.35
"""Of the height of a panel what the strip takes at most; with many rows these are lower, and so are their marks."""

_ROW, _AROUND = 0.055, 0.03
"""Of the height of a panel what a row takes, and what is around all of them."""


def mark(
    axes: list[Axes], missing: list[list[Any]], order: list[str], looks: dict[str, style.Series], passed: str = ""
) -> tuple[set[str], dict[str, list[str]]]:
    """Marks the ``missing`` cells of each panel, shortest T first, on a strip below its curves, a row per implementation.

    ``passed``: what is said of those that passed. Returns the outcomes seen, and the hover texts.
    """
    present = [{row.implementation for row in own} for own in missing]
    affected = [[name for name in order if name in names] for names in present]
    hover: dict[str, list[str]] = {}
    if not any(affected):
        return set(), hover
    most = max(map(len, affected))
    step = min(_ROW, (HIGHEST - _AROUND) / most)
    height, scale = step * most + _AROUND, step / _ROW
    # The panels share their axis, so room is made once, for the panel that needs most.
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low * (low / high) ** (height / (1 - height)), high)
    for number, (panel, own, names_here) in enumerate(zip(axes, missing, affected, strict=True)):
        panel.add_patch(Rectangle((0, 0), 1, height, transform=panel.transAxes, facecolor=style.RULE, alpha=0.6, linewidth=0, zorder=0.4))
        for position, name in enumerate(names_here):
            y = step * (position + 0.5) + 0.4 * _AROUND
            lost: dict[str, list[Any]] = {}
            for row in own:
                if row.implementation == name:
                    lost.setdefault(row.outcome, []).append(row)
            for outcome, cells in sorted(lost.items()):
                gid = f"lost-{order.index(name)}-{number}-{outcome}"
                panel.plot(
                    [row.sequence_length for row in cells],
                    [y] * len(cells),
                    transform=panel.get_xaxis_transform(),
                    linestyle="none",
                    color=looks[name].colour,
                    marker=style.GLYPHS[Outcome(outcome)].marker,
                    markersize=max(6 * scale, 2.5),
                    gid=gid,
                )
                hover[gid] = [_lost(row, passed) for row in cells]
                for row in cells:
                    if pd.isna(row.fits_batch):
                        continue
                    panel.annotate(
                        str(row.fits_batch),
                        (row.sequence_length, y),
                        xycoords=panel.get_xaxis_transform(),
                        xytext=(-5, 0),
                        textcoords="offset points",
                        ha="right",
                        va="center_baseline",
                        fontsize=max(7 * scale, 4),
                        color=style.INK,
                    )
    return {str(row.outcome) for own in missing for row in own}, hover


def handles(outcomes: set[str], notes: dict[str, str], passed: str = "") -> list[Line2D]:
    """What a legend says of the outcomes on a strip. ``notes``: what is added to one. ``passed``: what is said of cells that passed."""
    glyphs = {str(outcome): glyph for outcome, glyph in style.GLYPHS.items()}
    looks: dict[str, Any] = {"color": style.MUTED, "linestyle": "none", "markersize": 6}
    answer = []
    for outcome in glyphs:
        if outcome in outcomes:
            label = passed if passed and outcome == Outcome.PASSED else f"{outcome.replace('-', ' ')}, no time{notes.get(outcome, '')}"
            answer.append(Line2D([], [], marker=glyphs[outcome].marker, label=label, **looks))
    return answer


def _lost(row: Any, passed: str) -> str:
    """A cell without a time, in the words that show when it is pointed at."""
    what = passed if passed and row.outcome == Outcome.PASSED else row.outcome.replace("-", " ")
    why = first_line(row.message)[:200]
    told = f"{row.implementation} · {row.mode} · T={row.sequence_length}: {what}{costs.fitting(row.fits_batch)}"
    return f"{told}; {why}" if why else told

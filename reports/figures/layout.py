"""Where everything in a figure stands, in inches that follow from its texts: to find that by drawing takes as long as to draw it twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from reports.figures import style

_POINT = 1 / 72
_HINTED = 1.05
"""By how much letters that are fitted to dots are wider, where dots are few."""

_PAD = 0.05
_TITLE, _NOTE = 13.0, 9.0
_LINE, _LEGEND = 0.19, 0.15
"""Inches of a line of a legend at 9 points, and of what is around all of them."""

TITLED = 0.27
"""Inches of the title of a panel with what is below it."""

TICKS, LABELLED = 0.24, 0.44
"""Inches of the labels of a horizontal axis, and of these with a name of the axis below them."""


NAMED = 0.24
"""Inches of the name of a vertical axis."""


@dataclass(frozen=True)
class Room:
    """Inches that the texts around the panels take: beside all of them, above and below each, and between two beside each other."""

    left: float
    right: float = 0.12
    above: float = TITLED
    below: float = LABELLED
    across: float = 0.14


def width(text: str, size: float, weight: str = "normal") -> float:
    """Inches that ``text`` is wide at ``size`` points, in the font of the house."""
    points: float = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), ismath=False)[0]
    return points * _POINT * _HINTED


def labels(panels: Sequence[Axes]) -> float:
    """Inches that the labels of the vertical axes of ``panels`` take, with their ticks."""
    return max((_widest(panel) for panel in panels), default=0.0) + 0.12


def _widest(panel: Axes) -> float:
    axis = panel.yaxis
    low, high = sorted(axis.get_view_interval())
    places = [place for place in axis.get_majorticklocs() if low <= place <= high]
    return max((width(label, 9.0) for label in axis.get_major_formatter().format_ticks(places)), default=0.0)


def finish(figure: Figure, title: str, note: str, handles: Sequence[Any], room: Room, label: str = "") -> None:
    """Puts the title at the top left, a note at the top right or below it, the legend at the foot, and the panels between them.

    A figure on a slide says with its title what it shows. ``label``: of the vertical axes of all panels.
    """
    across, names = figure.get_figwidth(), [str(handle.get_label()) for handle in handles]
    columns = _columns(names, across)
    lines = -(-len(names) // columns)
    # A long legend makes the figure higher and not its panels lower.
    high = figure.get_figheight() + 0.21 * max(0, lines - 3)
    figure.set_figheight(high)
    head = _heading(figure, title, note)
    foot = _LEGEND + _LINE * lines if names else 0.0
    if names:
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 0), borderaxespad=0.4, ncols=columns, fontsize=9, handlelength=3.2,
            labelcolor=style.INK,
        )  # fmt: skip
    left = room.left + (NAMED if label else 0.0)
    grid = figure.axes[0].get_subplotspec().get_gridspec()  # type: ignore[union-attr]
    rows, places = grid.nrows, grid.ncols
    wide = (across - left - room.right - room.across * (places - 1)) / places
    between = room.above + room.below
    tall = (high - head - foot - rows * between) / rows
    bottom, top = (foot + room.below) / high, 1 - (head + room.above) / high
    figure.subplots_adjust(left / across, bottom, 1 - room.right / across, top, room.across / wide, between / tall)
    if label:
        figure.supylabel(label, x=_PAD / across, y=(bottom + top) / 2, color=style.MUTED, fontsize=10)


def _columns(names: Sequence[str], across: float) -> int:
    """As many columns of a legend as there is room for, up to four."""
    # In inches at 9 points: of a handle with its padding, of the space between columns, and of what is around all of them.
    handle, space, around = 0.5, 0.25, 0.25
    wide = np.array([handle + width(name, 9.0) for name in names])
    for columns in (4, 3, 2):
        parts = [part for part in np.array_split(wide, columns) if len(part)]
        if sum(part.max() + space for part in parts) - space + around <= across:
            return columns
    return 1


def _heading(figure: Figure, title: str, note: str) -> float:
    """Writes the heading; returns how many inches it takes."""
    across, high = figure.get_size_inches()
    beside = width(title, _TITLE, "bold") + width(note, _NOTE) + 0.3 <= across
    figure.suptitle(title, x=_PAD * 2 / across, y=1 - _PAD / high, ha="left", va="top", color=style.INK)
    if note and beside:
        figure.text(1 - _PAD * 2 / across, 1 - _PAD * 1.6 / high, note, ha="right", va="top", fontsize=_NOTE, color=style.MUTED)
    elif note:
        figure.text(_PAD * 2 / across, 1 - 0.29 / high, note, ha="left", va="top", fontsize=_NOTE, color=style.MUTED)
    return 0.3 if beside or not note else 0.48

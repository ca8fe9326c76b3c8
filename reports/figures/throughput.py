"""Tokens per second over sequence length, below the limit of the machine: a panel per mode, a figure per pass, place and configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.outcome import Outcome
from harness.workload import Pass
from reports import costs, metrics, speed
from reports.analysis import Findings, Suitability
from reports.figures import layout, strip, style
from reports.tables import counted, rows
from reports.words import engineering

SWEEP = ["timed_pass", "place", "configuration"]
Sweep = tuple[dict[str, str], pd.DataFrame]

SWEEPS_DRAWN, EXAMPLES_DRAWN = 15, 6
"""Sweeps that a page draws: all of as many as the largest workload set that comes with this project has, of more so many of them."""

COLUMNS = [
    "mode", "timed_pass", "place", "configuration", "sequence_length", "implementation", "outcome", "fits_batch", "rate", "rate_low",
    "rate_high", "limit_rate", "limit_bound", "limit_share", "host_share",
]  # fmt: skip
_DRAWN = [*COLUMNS, "samples", "message"]

_LIMIT: dict[str, Any] = {"color": style.INK, "linewidth": 1.3, "marker": ".", "markersize": 3}
_RING: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 8.5, "markerfacecolor": "none", "markeredgewidth": 0.8}


def sweeps(cells: pd.DataFrame) -> Iterator[Sweep]:
    """The cells of each pass, place and configuration that was timed at two lengths or more: what a line can be drawn through."""
    known = cells[cells["sequence_length"] > 0]
    for keys, group in known.groupby(SWEEP, sort=False):
        if group["sequence_length"].nunique() > 1:
            yield {name: str(value) for name, value in zip(SWEEP, keys, strict=True)}, group


def panels(modes: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per mode, in one row up to three and else in two, with room for a legend at its foot."""
    columns = len(modes) if len(modes) <= 3 else 2
    lines = -(-len(modes) // columns)
    figure = Figure(figsize=(max(4.1 * columns, 7.0), 3.6 * lines + 1.3))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    axes = list(grid.flat)
    for unused in axes[len(modes) :]:
        unused.set_visible(False)
    for panel, mode in zip(axes, modes, strict=False):
        panel.set_title(style.MODE_NAMES.get(mode, mode))
    return figure, axes[: len(modes)]


def names(findings: Findings, present: set[str]) -> dict[str, str]:
    """implementation -> its name in a legend, with a word where it does not conform."""
    answer = {}
    for row in rows(findings.verdicts):
        if row.implementation in present:
            note = {Suitability.NOT_DROP_IN: " (not a drop-in)", Suitability.NOT_TESTED: " (not tested)"}.get(row.suitability, "")
            answer[row.implementation] = style.shorten(row.implementation) + note
    return answer


def plans(findings: Findings) -> list[style.Plan]:
    """The throughput figures of every sweep."""

    def plan(keys: dict[str, str], group: pd.DataFrame) -> style.Plan:
        return partial(_sweep, findings.timed, names(findings, set(group["implementation"])), keys, group[_DRAWN])

    current = speed.latest(findings.cells, findings.frames.runs)
    return some(list(sweeps(current[~speed.without_a_rate(current)])), plan)


def some(found: list[Sweep], plan: Callable[[dict[str, str], pd.DataFrame], style.Plan]) -> list[style.Plan]:
    """The figures of sweeps, if need be of the first :data:`EXAMPLES_DRAWN`; the last of them says how many there are besides."""
    answer = [plan(keys, group) for keys, group in found[: SWEEPS_DRAWN if len(found) <= SWEEPS_DRAWN else EXAMPLES_DRAWN]]
    rest = len(found) - len(answer)
    if rest > 0:
        more = f" {counted(rest, 'more configuration')} with a pass, not drawn here: the run files and the table of cells have them."
        answer[-1] = partial(_saying, answer[-1], more)
    return answer


def _saying(plan: style.Plan, more: str) -> style.Drawing:
    drawing = plan()
    return replace(drawing, caption=drawing.caption + more)


def limits(cells: pd.DataFrame) -> pd.DataFrame:
    """The limit at each T of ``cells``, which are of one workload but for T: columns sequence_length, limit_rate (tokens/s), limit_bound.

    Cells of one workload have one limit; where they were measured apart and have several, the one that allows most.
    """
    known = cells[cells["limit_rate"].notna()].sort_values("limit_rate")
    return known.drop_duplicates("sequence_length", keep="last").sort_values("sequence_length")[
        ["sequence_length", "limit_rate", "limit_bound"]
    ]


def _sweep(timed: list[str], labels: dict[str, str], keys: dict[str, str], group: pd.DataFrame) -> style.Drawing:
    looks = style.series(timed)
    modes = style.modes(list(group["mode"]))
    # In lists and not in frames: a small frame for each line takes a hundred times as long as its rows.
    cells = sorted(rows(group), key=lambda row: int(row.sequence_length))
    lengths = [int(value) for value in sorted(group["sequence_length"].unique())]
    hover: dict[str, list[str]] = {}
    what = f"{keys['timed_pass']} on {keys['place']}"
    title = f"Throughput over sequence length: {what}"
    with style.house_style():
        figure, axes = panels(modes)
        for number, (panel, mode) in enumerate(zip(axes, modes, strict=True)):
            style.length_axis(panel, lengths)
            style.rate_axis(panel)
            own = [row for row in cells if row.mode == mode and row.samples > 0]
            lines = {name: [row for row in own if row.implementation == name] for name in labels}
            _bands(panel, [(line, looks[name].colour) for name, line in lines.items()], lengths)
            for name, line in lines.items():
                if line:
                    gid = f"rate-{timed.index(name)}-{number}"
                    _curve(panel, line, lengths, looks[name], gid)
                    hover[gid] = [f"{name} · {mode} · {_told(row)}" for row in line]
        limited = _mark_limits(axes, [group[group["mode"] == mode] for mode in modes], lengths)
        missing = [[row for row in cells if row.mode == mode and row.samples == 0] for mode in modes]
        lost, texts = strip.mark(axes, missing, timed, looks)
        hover |= texts
        handles = [
            Line2D([], [], color=looks[name].colour, linestyle=looks[name].line, marker=looks[name].marker, markersize=5, label=label)
            for name, label in labels.items()
        ]
        if limited:
            handles.append(Line2D([], [], **_LIMIT, label="limit of the machine; hatched: beyond it"))
        bound = group[group["host_share"] >= metrics.HOST_BOUND]
        if len(bound):
            handles.append(Line2D([], [], **_RING, markeredgecolor=style.MUTED, label="ring: host-bound"))
        tried = group.loc[group["samples"] == 0, "fits_batch"].notna().any()
        handles += strip.handles(lost, {str(Outcome.OUT_OF_MEMORY): "; number: the B that fits"} if tried else {})
        layout.finish(figure, title, keys["configuration"], handles, layout.Room(layout.labels(axes[:1])), "tokens per second")
    return style.Drawing(
        name=style.slug("throughput", keys["timed_pass"], keys["place"], keys["configuration"]),
        title=title,
        caption=_caption(keys, limited, len(bound)),
        alternative=_alternative(what, group, modes),
        figure=figure,
        data=group[COLUMNS].sort_values(["mode", "implementation", "sequence_length"]),
        hover=hover,
        timed_pass=keys["timed_pass"],
    )


def _bands(panel: Axes, lines: list[tuple[list[Any], str]], lengths: list[int]) -> None:
    """The quartiles of every line of a panel, from the shortest to the longest T without a gap."""
    corners, colours = [], []
    for line, colour in lines:
        at = {row.sequence_length: row for row in line}
        for known, stretch in groupby(lengths, at.__contains__):
            if known:
                own = [at[length] for length in stretch]
                low, high = ([(row.sequence_length, getattr(row, name)) for row in own] for name in ("rate_low", "rate_high"))
                corners.append(low + high[::-1])
                colours.append(to_rgba(colour, 0.16))
    panel.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))


def _curve(panel: Axes, line: list[Any], lengths: list[int], look: style.Series, gid: str) -> None:
    """The rates of one implementation, and rings around those that are bound by the host."""
    # Gaps stay gaps: a line across a length without a time would claim one.
    at = {row.sequence_length: row.rate for row in line}
    panel.plot(lengths, [at.get(length, math.nan) for length in lengths], color=look.colour, linestyle=look.line, linewidth=1.6)
    panel.plot(
        [row.sequence_length for row in line],
        [row.rate for row in line],
        linestyle="none",
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markeredgecolor=style.PAPER,
        markeredgewidth=0.6,
        gid=gid,
    )
    bound = [row for row in line if row.host_share >= metrics.HOST_BOUND]
    if bound:
        places = [row.sequence_length for row in bound], [row.rate for row in bound]
        panel.plot(*places, **_RING, markeredgecolor=look.colour, gid=f"host-{gid}")


def _told(row: Any) -> str:
    """A cell with a time, in the words that show when it is pointed at."""
    told = f"T={row.sequence_length}: {engineering(row.rate)} tokens/s "
    told += f"({engineering(row.rate_low)} to {engineering(row.rate_high)})"
    if not math.isnan(row.limit_share):
        told += f", {row.limit_share:.2g} of the limit ({row.limit_bound})"
    if row.host_share >= metrics.HOST_BOUND:
        told += f", host-bound: the host was busy {row.host_share:.0%} of the time"
    return told


def _mark_limits(axes: list[Axes], groups: list[pd.DataFrame], lengths: list[int]) -> bool:
    """Draws the limit into each panel that has one, hatched above, and names what it comes from; returns whether there is any."""
    found = [limits(own) for own in groups]
    if all(limit.empty for limit in found):
        return False
    # The panels share their axis. Above the highest limit there is room for its name.
    low, high = axes[0].get_ylim()
    high = max(high, *(limit["limit_rate"].max() for limit in found if len(limit)))
    high *= (high / low) ** 0.12
    axes[0].set_ylim(low, high)
    for panel, limit in zip(axes, found, strict=True):
        if limit.empty:
            continue
        rates = limit.set_index("sequence_length")["limit_rate"].reindex(lengths)
        panel.fill_between(lengths, rates, high, facecolor="none", edgecolor=style.RULE, hatch="////", linewidth=0, zorder=0.5)
        panel.plot(lengths, rates, **_LIMIT)
        # Above the highest that the line comes in its half of the panel, where a name covers none of it.
        half = len(limit) // 2 + 1
        first, last = str(limit["limit_bound"].iloc[0]), str(limit["limit_bound"].iloc[-1])
        _name(panel, f"limit: {first}", limit.iloc[:half], limit.iloc[0], "left")
        if last != first:
            _name(panel, last, limit.iloc[-half:], limit.iloc[-1], "right")
    return True


def _name(panel: Axes, text: str, beside: pd.DataFrame, end: Any, side: str) -> None:
    panel.annotate(
        text,
        (end["sequence_length"], beside["limit_rate"].max()),
        xytext=(0, 4),
        textcoords="offset points",
        ha=side,
        fontsize=8,
        color=style.INK,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.8},
    )


def _caption(keys: dict[str, str], limited: bool, bound: int) -> str:
    meaning = f"{keys['timed_pass'].capitalize()}: {Pass(keys['timed_pass']).meaning}. " if keys["timed_pass"] in set(Pass) else ""
    sentences = [
        f"{keys['configuration']}. {meaning}Lines: median of the samples; bands: their quartiles. Both axes are logarithmic.",
        "Marks on the grey strip: cells that have no time, and why.",
    ]
    if limited:
        sentences.append(
            "Limit: what the work of a call allows at the best rates of a matrix product and of memory that were measured in the run, and "
            "which of the two it comes from."
        )
    if bound:
        sentences.append(
            f"Rings ({bound}): the host was handing work over at least {metrics.HOST_BOUND:.0%} of the time, so that launches decide; "
            "a host whose queue of about a thousand launches is full, as a long loop fills it, looks the same."
        )
    return " ".join(sentences)


def _alternative(what: str, group: pd.DataFrame, modes: list[str]) -> str:
    sentences = [f"Line charts of tokens per second over sequence length, {what}."]
    longest = int(group["sequence_length"].max())
    for mode in modes:
        own = group[group["mode"] == mode]
        at = own[own["sequence_length"] == longest].sort_values("rate", ascending=False)
        values = [f"{row.implementation} {_value(row)}" for row in rows(at)]
        limit = limits(at)
        told = f" The limit is {engineering(limit['limit_rate'].iloc[0])}, by {limit['limit_bound'].iloc[0]}." if len(limit) else ""
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)} at T={longest}: {', '.join(values)}.{told}")
    return " ".join(sentences)


def _value(row: Any) -> str:
    if not row.samples:
        return f"{row.outcome}{costs.fitting(row.fits_batch)}"
    return engineering(row.rate) + (" (host-bound)" if row.host_share >= metrics.HOST_BOUND else "")

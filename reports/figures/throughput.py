"""Tokens per second over sequence length: a panel per mode, a figure per pass, place and configuration."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.outcome import Outcome
from reports import speed
from reports.analysis import Findings, Verdict
from reports.figures import style
from reports.tables import rows

SWEEP = ["timed_pass", "place", "configuration"]
COLUMNS = ["mode", "timed_pass", "place", "configuration", "sequence_length", "implementation", "outcome", "rate", "rate_low", "rate_high"]


def sweeps(cells: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """The cells of each pass, place and configuration that was timed at two lengths or more: what a line can be drawn through."""
    known = cells[cells["sequence_length"] > 0]
    for keys, group in known.groupby(SWEEP, sort=False):
        if group["sequence_length"].nunique() > 1:
            yield {name: str(value) for name, value in zip(SWEEP, keys, strict=True)}, group


def panels(modes: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per mode, in one row up to three and else in two, with room for a legend at its foot."""
    columns = len(modes) if len(modes) <= 3 else 2
    lines = -(-len(modes) // columns)
    figure = Figure(figsize=(max(4.1 * columns, 7.0), 3.6 * lines + 1.3), layout="constrained")
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
            note = {Verdict.NOT_DROP_IN: " (not a drop-in)", Verdict.NOT_TESTED: " (not tested)"}.get(row.verdict, "")
            answer[row.implementation] = style.shorten(row.implementation) + note
    return answer


def legend(figure: Figure, handles: list[Line2D]) -> None:
    """A legend below the panels, where it covers nothing."""
    figure.legend(
        handles=handles, loc="outside lower left", ncols=min(4, max(1, len(handles))), fontsize=9, handlelength=3.2, labelcolor=style.INK
    )


def draw(findings: Findings) -> list[style.Drawing]:
    """The throughput figures of every sweep."""
    return [_sweep(findings, keys, group) for keys, group in sweeps(speed.latest(findings.cells, findings.frames.runs))]


def _sweep(findings: Findings, keys: dict[str, str], group: pd.DataFrame) -> style.Drawing:
    looks = style.series(findings.timed)
    modes = style.modes(list(group["mode"]))
    labels = names(findings, set(group["implementation"]))
    lengths = [int(value) for value in sorted(group["sequence_length"].unique())]
    hover: dict[str, list[str]] = {}
    what = f"{keys['timed_pass']} on {keys['place']}"
    title = f"Throughput over sequence length: {what}"
    with style.house_style():
        figure, axes = panels(modes)
        style.heading(figure, title, keys["configuration"])
        for panel, mode in zip(axes, modes, strict=True):
            style.length_axis(panel, lengths)
            style.rate_axis(panel)
            own = group[group["mode"] == mode]
            for name in labels:
                look, line = looks[name], own[(own["implementation"] == name) & (own["samples"] > 0)].sort_values("sequence_length")
                if line.empty:
                    continue
                gid = f"rate-{findings.timed.index(name)}-{modes.index(mode)}"
                # Gaps stay gaps: a line across a length without a time would claim one.
                full = line.set_index("sequence_length")[["rate", "rate_low", "rate_high"]].reindex(lengths)
                panel.fill_between(lengths, full["rate_low"], full["rate_high"], color=look.colour, alpha=0.16, linewidth=0)
                panel.plot(lengths, full["rate"], color=look.colour, linestyle=look.line, linewidth=1.6)
                panel.plot(
                    line["sequence_length"],
                    line["rate"],
                    linestyle="none",
                    color=look.colour,
                    marker=look.marker,
                    markersize=5,
                    markeredgecolor=style.PAPER,
                    markeredgewidth=0.6,
                    gid=gid,
                )
                hover[gid] = [
                    f"{name} · {mode} · T={row.sequence_length}: {style.engineering(row.rate)} tokens/s "
                    f"({style.engineering(row.rate_low)} to {style.engineering(row.rate_high)})"
                    for row in rows(line)
                ]
        lost = _mark_lost(axes, [group[group["mode"] == mode] for mode in modes], list(labels), looks)
        figure.supylabel("tokens per second", color=style.MUTED, fontsize=10)
        handles = [
            Line2D([], [], color=looks[name].colour, linestyle=looks[name].line, marker=looks[name].marker, markersize=5, label=label)
            for name, label in labels.items()
        ]
        glyphs = {str(outcome): glyph for outcome, glyph in style.GLYPHS.items()}
        handles += [
            Line2D([], [], color=style.MUTED, linestyle="none", marker=glyphs[outcome].marker, markersize=6, label=f"{outcome}, no time")
            for outcome in glyphs
            if outcome in lost
        ]
        legend(figure, handles)
    return style.Drawing(
        name=style.slug("throughput", keys["timed_pass"], keys["place"], keys["configuration"]),
        title=title,
        caption=f"{keys['configuration']}. Lines: median of the samples; bands: their quartiles. Both axes are logarithmic. "
        "Marks on the grey strip: cells that have no time, and why.",
        alternative=_alternative(what, group, modes),
        figure=figure,
        data=group[COLUMNS].sort_values(["mode", "implementation", "sequence_length"]),
        hover=hover,
    )


def _mark_lost(axes: list[Axes], groups: list[pd.DataFrame], order: list[str], looks: dict[str, style.Series]) -> set[str]:
    """Marks each cell that has no time on a strip below the curves, a row per implementation; returns the outcomes seen."""
    lost = [own[own["outcome"] != Outcome.PASSED] for own in groups]
    affected = [[name for name in order if name in set(own["implementation"])] for own in lost]
    height = 0.055 * max(map(len, affected)) + 0.03
    if not any(affected):
        return set()
    # The panels share their axis, so room is made once, for the panel that needs most.
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low * (low / high) ** (height / (1 - height)), high)
    for panel, own, names_here in zip(axes, lost, affected, strict=True):
        panel.add_patch(Rectangle((0, 0), 1, height, transform=panel.transAxes, facecolor=style.RULE, alpha=0.6, linewidth=0, zorder=0.4))
        for position, name in enumerate(names_here):
            for outcome, cells in own[own["implementation"] == name].groupby("outcome"):
                panel.plot(
                    cells["sequence_length"],
                    [0.04 + 0.055 * position] * len(cells),
                    transform=panel.get_xaxis_transform(),
                    linestyle="none",
                    color=looks[name].colour,
                    marker=style.GLYPHS[Outcome(str(outcome))].marker,
                    markersize=6,
                )
    return {str(outcome) for own in lost for outcome in own["outcome"]}


def _alternative(what: str, group: pd.DataFrame, modes: list[str]) -> str:
    sentences = [f"Line charts of tokens per second over sequence length, {what}."]
    longest = int(group["sequence_length"].max())
    for mode in modes:
        at = group[(group["mode"] == mode) & (group["sequence_length"] == longest)].sort_values("rate", ascending=False)
        values = [f"{row.implementation} {style.engineering(row.rate) if row.samples else row.outcome}" for row in rows(at)]
        sentences.append(f"{style.MODE_NAMES.get(mode, mode)} at T={longest}: {', '.join(values)}.")
    return " ".join(sentences)

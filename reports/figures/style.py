"""How every figure looks: colours, markers, outcome glyphs, and rendering that gives the same bytes every time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from PIL import Image

from harness.outcome import Outcome
from reports.words import engineering

INK, MUTED, RULE, PAPER, SEVERE = "#1f2428", "#6a737d", "#dfe3e8", "#ffffff", "#a2141f"
"""Text, secondary text, grid, background, the worst outcomes. The page puts its own in their place, which follow the reader's scheme."""

# Okabe and Ito, "Color Universal Design" (2008), less its yellow, which no white page shows, and with ink for its black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK, "#8c6d31")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))

MODE_NAMES = {"rnn_tanh": "RNN (tanh)", "rnn_relu": "RNN (ReLU)", "gru": "GRU", "lstm": "LSTM", "": "recurrence not stated"}


@dataclass(frozen=True)
class Series:
    """How one implementation is drawn, in every figure of a page."""

    colour: str
    marker: str
    line: Any


@dataclass(frozen=True)
class Glyph:
    """How one outcome is drawn: told apart by shape alone, and by colour as well."""

    colour: str
    marker: str
    size: float
    filled: bool = True


GLYPHS = {
    Outcome.PASSED: Glyph("#009e73", "o", 5.5),
    Outcome.FAILED: Glyph("#d55e00", "X", 8.5),
    Outcome.CRASHED: Glyph(SEVERE, "*", 11),
    Outcome.TIMED_OUT: Glyph(SEVERE, "d", 8.5),
    Outcome.OUT_OF_MEMORY: Glyph(SEVERE, "s", 7),
    Outcome.EXPECTED_FAILURE: Glyph("#b57a00", "^", 7, filled=False),
    Outcome.UNSUPPORTED: Glyph("#0072b2", "s", 6, filled=False),
    Outcome.UNAVAILABLE: Glyph(MUTED, "_", 8),
    Outcome.DOES_NOT_APPLY: Glyph(MUTED, ".", 3),
}


@dataclass(frozen=True)
class Drawing:
    """A figure with everything that a page says about it.

    ``name`` is its file name without suffix; ``alternative`` the text for a reader who cannot see it; ``data`` every
    number in it; ``hover`` the text of each marker, by the ``gid`` of the line that it stands on; ``timed_pass`` the pass of
    which it speaks, if it is of one alone.
    """

    name: str
    title: str
    caption: str
    alternative: str
    figure: Figure
    data: pd.DataFrame
    hover: dict[str, list[str]] = field(default_factory=dict)
    timed_pass: str = ""


Plan = Callable[[], Drawing]
"""A figure that is still to be drawn. What it needs goes with it into another process, so that is little, and all of it can be pickled."""


def series(implementations: Sequence[str]) -> dict[str, Series]:
    """implementation -> its style, by position: the colours come round after eight, the markers after eleven."""
    return {
        name: Series(_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)], _LINES[k % len(_LINES)])
        for k, name in enumerate(implementations)
    }


@contextmanager
def house_style() -> Iterator[None]:
    """matplotlib's settings for drawing and for saving, restored afterwards."""
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": RULE,
        "axes.labelcolor": INK,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
        # Where else it would be looked for, at every drawing, is where nothing of ours is.
        "axes.titley": 1.0,
        "axes.facecolor": PAPER,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.use_mathtext": False,
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "figure.titlesize": 13,
        "figure.titleweight": "bold",
        "legend.frameon": False,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "svg.fonttype": "none",
        "svg.hashsalt": "reports",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # Names come from users, and no font has every letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def png(figure: Figure, dots_per_inch: int = 200) -> bytes:
    """The figure as PNG, without a date."""
    with house_style():
        canvas, before = FigureCanvasAgg(figure), figure.get_dpi()
        figure.set_dpi(dots_per_inch)
        canvas.draw()
        image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
        figure.set_dpi(before)
    buffer = io.BytesIO()
    # On paper nothing is transparent. A higher level takes half as long again, and saves a sixth of the bytes.
    image.convert("RGB").save(buffer, format="png", compress_level=2, dpi=(dots_per_inch, dots_per_inch))
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG, its text as text, without a date."""
    buffer = io.StringIO()
    with house_style():
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    return buffer.getvalue()


def shorten(name: str, length: int = 30) -> str:
    """``name`` in at most ``length`` characters, both its ends among them: names of classes and workloads differ in the last of them."""
    if len(name) <= length:
        return name
    end = length // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def titled(title: str, machine: str) -> str:
    """``title`` with the machine of which it speaks, where that has to be said."""
    return f"{title} · {machine}" if machine else title


def modes(present: Sequence[str]) -> list[str]:
    """The recurrences that are present, in one order everywhere; unknown ones last."""
    return [name for name in MODE_NAMES if name in set(present)] + sorted(set(present) - set(MODE_NAMES))


LONGEST = 120
"""Letters of a file name without suffix at most; file systems take 255 bytes of all of it."""


def slug(*parts: str) -> str:
    """A file name made of ``parts``: lower case, with nothing in it that a file system or a shell minds, and of a long one both ends."""
    text = "-".join(part for part in parts if part).lower()
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)
    name = "-".join(piece for piece in kept.split("-") if piece)
    end = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1 - end].rstrip('-')}-{name[-end:].lstrip('-')}"


def length_axis(axes: Axes, lengths: Sequence[int], label: bool = True) -> None:
    """A logarithmic axis of T that is labelled at the lengths that were measured, thinned so that labels do not touch."""
    axes.set_xscale("log", base=2)
    shown = sorted(set(lengths))
    stride = math.ceil(len(shown) / 7)
    axes.set_xticks(shown[::stride], [str(length) for length in shown[::stride]])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(shown[0] / 1.35, shown[-1] * 1.35)
    if label:
        axes.set_xlabel("sequence length T", color=MUTED)


def rate_axis(axes: Axes) -> None:
    """A logarithmic axis of rates, labelled 10k, 1M."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: engineering(value)))
    # Nobody reads minor ticks without labels, and placing them is a third of the time that a figure takes.
    axes.yaxis.set_minor_locator(NullLocator())

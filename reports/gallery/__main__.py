"""Draws the figures of the README into this folder, small enough to be kept: ``python -m reports.gallery RUN...``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reports import load
from reports.analysis import Findings
from reports.figures import relative, style, throughput
from reports.load import LoadError

PASS = "inference"
DOTS_PER_INCH, COLOURS = 110, 64
FIGURES = {"throughput": throughput, "relative": relative}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the figures of the runs' first sweep of inference, as PNG on white paper, which is read on a dark page too.

    Returns the exit status: 0, or 2 where the runs cannot be read, or have no such sweep.
    """
    parser = argparse.ArgumentParser(prog="python -m reports.gallery", description=__doc__.split(":")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run file, or a folder of them")
    chosen = parser.parse_args(arguments)
    try:
        findings = Findings(load(chosen.runs))
        drawings = {name: _first(module.plans(findings)) for name, module in FIGURES.items()}
        for name, drawing in drawings.items():
            path = Path(__file__).parent / f"{name}.png"
            _image(drawing).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size} bytes. {drawing.alternative}")
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _first(plans: Sequence[style.Plan]) -> style.Drawing:
    for plan in plans:
        drawing = plan()
        if f"-{PASS}-" in drawing.name:
            return drawing
    raise LoadError(f"Expected runs with times of the pass {PASS} over several sequence lengths but got none; --workloads sweep takes them")


def _image(drawing: style.Drawing) -> Image.Image:
    """The figure with a small palette: the eye sees no difference, and a third of the bytes are left."""
    drawn = Image.open(io.BytesIO(style.png(drawing.figure, DOTS_PER_INCH))).convert("RGB")
    return drawn.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)


if __name__ == "__main__":
    sys.exit(main())

"""Draws the figures of the README into this folder, small enough to be kept: ``python -m reports.gallery RUN...``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reports import load
from reports.analysis import Findings
from reports.figures import relative, style, throughput

PASS = "inference"
DOTS_PER_INCH, COLOURS = 110, 64
FIGURES = {"throughput": throughput, "relative": relative}


def main(arguments: Sequence[str]) -> int:
    """Writes the figures of the runs' first sweep of inference, as PNG on white paper, which is read on a dark page too."""
    findings = Findings(load(arguments))
    for name, module in FIGURES.items():
        drawing = next(drawing for drawing in (plan() for plan in module.plans(findings)) if f"-{PASS}-" in drawing.name)
        # Its palette is small: the eye sees no difference, and a third of the bytes are left.
        image = (
            Image.open(io.BytesIO(style.png(drawing.figure, DOTS_PER_INCH)))
            .convert("RGB")
            .quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
        )
        path = Path(__file__).parent / f"{name}.png"
        image.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size} bytes. {drawing.alternative}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""matplotlib's SVG made part of an HTML page: its own ids, the page's colours, hover texts, no references outward."""

from __future__ import annotations

import re
from html import escape

from reports.figures import style
from reports.figures.style import Drawing

_THEME = {
    style.INK: "var(--ink)",
    style.MUTED: "var(--muted)",
    style.RULE: "var(--rule)",
    style.PAPER: "var(--paper)",
    style.SEVERE: "var(--severe)",
}


def inline(drawing: Drawing, text: str) -> str:
    """``text``, the drawing's SVG, ready to stand in a page beside others."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    # The page sets the size, up to one at which letters are as large as its own; the viewBox keeps the proportions.
    width = drawing.figure.get_size_inches()[0] * 72
    svg = re.sub(r'^<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", svg)
    svg = _hover(svg, drawing.hover)
    prefix = f"{drawing.name}-"
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<\w+ (?:[^<>]*? )?)id="', rf'\1id="{prefix}', svg)
    svg = svg.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"^<svg", f'<svg role="img" style="max-width: {width * 1.42:.0f}px" aria-labelledby="{prefix}title {prefix}alt"', svg)


def _hover(svg: str, texts: dict[str, list[str]]) -> str:
    """Gives each marker of the line groups named in ``texts`` its title, which browsers show on hover."""
    for gid, titles in texts.items():
        start = svg.find(f'<g id="{gid}">')
        if start < 0:
            continue
        # The markers of a line are the uses in its group, in the order of its points; the next group with an id is another's.
        end = svg.find('<g id="', start + 1)
        pieces = re.split(r"(<use [^>]*?)/>", svg[start:end])
        uses = [f"{use}><title>{escape(title)}</title></use>" for use, title in zip(pieces[1::2], titles, strict=True)]
        svg = svg[:start] + "".join(a + b for a, b in zip(pieces[::2], [*uses, ""], strict=True)) + svg[end:]
    return svg

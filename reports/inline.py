"""matplotlib's SVG made part of an HTML page: its own ids, the page's colours, hover texts, no references outward, and few bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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


def inline(drawing: Drawing, text: str, prefix: str) -> str:
    """``text``, the drawing's SVG, ready to stand in a page beside others. ``prefix``: of its ids, which no other figure has."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    # The page sets the size, up to one at which letters are as large as its own; the viewBox keeps the proportions.
    width = drawing.figure.get_size_inches()[0] * 72
    svg = re.sub(r'^<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = _hover(svg, drawing.hover)
    svg = compact(svg)
    names = {name: f"{prefix}-{number}" for number, name in enumerate(re.findall(r'<\w+ (?:[^<>]*? )?id="([^"]*)"', svg))}
    svg = re.sub(r'(<\w+ (?:[^<>]*? )?)id="([^"]*)"', lambda own: f'{own[1]}id="{names[own[2]]}"', svg)
    svg = re.sub(r'xlink:href="#([^"]*)"', lambda own: f'href="#{names[own[1]]}"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", lambda own: f"url(#{names[own[1]]})", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"^<svg", f'<svg role="img" style="max-width: {width * 1.42:.0f}px" aria-labelledby="{prefix}-title {prefix}-alt"', svg)


def classed(svgs: Sequence[str]) -> tuple[str, list[str]]:
    """The drawings of a page with a class for each style that they have in common, and the style sheet with these classes."""
    count = Counter(style for svg in svgs for style in _STYLED.findall(svg))
    names = {style: f"s{number}" for number, style in enumerate(style for style, uses in count.most_common() if uses > 2)}
    sheet = "\n".join(f"figure svg .{name}{{{style}}}" for style, name in names.items())
    return sheet, [_STYLED.sub(lambda own: f' class="{names[own[1]]}"' if own[1] in names else own[0], svg) for svg in svgs]


_STYLED = re.compile(r'(?<!role="img") style="([^"&]*)"')


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


_TAG = re.compile(r"<(?![/!])[^<>]*>")
_LONG = re.compile(r"-?\d+\.\d{3,}")
_MARKS = re.compile(r'<g(?P<own>[^>]*)>\s*(?P<uses>(?:<use [^>]*?style="[^"]*"(?:/>|>\s*<title>[^<]*</title>\s*</use>)\s*)+)</g>')


def compact(svg: str) -> str:
    """The same drawing in about a third of the bytes.

    Hundredths of a point instead of millionths, in tags alone and not in texts; a style that all marks of a group share, once; names
    only of what is referred to; no blanks between tags. An optimiser of SVG that knows nothing of the drawing (scour) saves no more, and
    renames what hover texts and the page's ids go by.
    """
    svg = _TAG.sub(lambda tag: _LONG.sub(lambda number: _rounded(number[0]), tag[0]), svg)
    svg = re.sub(r' transform="rotate\(-?0(?: [^)]*)?\)"', "", svg)
    svg = _MARKS.sub(_shared, svg)
    named = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda own: own[0] if own[1] in named else "", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'; ", "").replace("; font-family: 'DejaVu Sans'", "")
    svg = re.sub(r'(style="[^"]*")', lambda given: given[0].replace("; ", ";").replace(": ", ":"), svg)
    svg = re.sub(r'\sd="[^"]*"', lambda path: re.sub(r"\s*([MLCQz])\s*", r"\1", path[0]).replace('d=" ', 'd="').replace(' \n"', '"'), svg)
    svg = re.sub(r">\s+<", "><", svg)
    # A group without anything of its own groups nothing; those within are emptied first.
    before = ""
    while before != svg:
        before, svg = svg, re.sub(r"<g>((?:(?!</?g\b).)*)</g>", r"\1", svg, flags=re.DOTALL)
        svg = svg.replace("<g/>", "")
    return svg


def _rounded(number: str) -> str:
    text = f"{float(number):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _shared(group: re.Match[str]) -> str:
    """The style on the group instead of on each of its marks, where all have one."""
    styles = set(re.findall(r' style="([^"]*)"', group["uses"]))
    if len(styles) != 1:
        return group[0]
    uses = re.sub(r' style="[^"]*"', "", group["uses"])
    return f'<g{group["own"]} style="{styles.pop()}">{uses}</g>'

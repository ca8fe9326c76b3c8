"""A drawing within a page: its own ids and hover texts, the same marks, and fewer bytes."""

from __future__ import annotations

import re

from reports.analysis import Findings
from reports.figures import costs, fastest, style, throughput
from reports.inline import classed, compact, inline
from reports.tests.test_figures import draw


def test_a_figure_in_the_page_has_ids_of_its_own_hover_texts_and_no_reference_outward(findings: Findings) -> None:
    drawing = draw(throughput, findings)[0]
    text = inline(drawing, style.svg(drawing.figure), "f7")
    assert "http" not in text
    assert "<metadata" not in text
    assert "<style" not in text
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert ids
    assert all(name.startswith("f7-") for name in ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= ids
    assert text.count("<title>") == sum(len(texts) for texts in drawing.hover.values())
    assert "<script>" not in text
    assert style.INK not in text


def test_a_compact_drawing_has_the_same_marks_texts_and_hover_texts_in_fewer_bytes(findings: Findings) -> None:
    for drawing in (*draw(throughput, findings), *draw(fastest, findings), *draw(costs, findings)):
        svg = style.svg(drawing.figure)
        text = inline(drawing, svg, "f")
        assert len(text) - sum(len(title) + 15 for titles in drawing.hover.values() for title in titles) < 0.7 * len(svg)
        for tag in ("use", "text", "path"):
            assert len(re.findall(rf"<{tag}[ >]", text)) == len(re.findall(rf"<{tag}[ >]", svg))
        assert re.findall(r"<text[^>]*>([^<]*)<", text) == re.findall(r"<text[^>]*>([^<]*)<", svg)
        assert not set(re.findall(r"url\(#([^)]*)\)", text)) - set(re.findall(r' id="([^"]*)"', text))


def test_numbers_in_texts_are_not_rounded_and_those_of_a_path_are() -> None:
    svg = '<svg><path d="M 1.23456 7.0001 \nL -0.0001 2 \n"/><text>0.123456</text></svg>'
    assert compact(svg) == '<svg><path d="M1.23 7L0 2"/><text>0.123456</text></svg>'


def test_a_style_that_figures_share_is_said_once() -> None:
    shared = '<svg role="img" style="max-width: 9px"><path style="fill:red"/><path style="fill:red"/></svg>'
    sheet, (first, second) = classed([shared, '<svg><path style="fill:red"/><path style="fill:blue"/></svg>'])
    assert sheet == "figure svg .s0{fill:red}"
    assert first == '<svg role="img" style="max-width: 9px"><path class="s0"/><path class="s0"/></svg>'
    assert second == '<svg><path class="s0"/><path style="fill:blue"/></svg>'

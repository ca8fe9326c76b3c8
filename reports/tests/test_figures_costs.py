"""The figure of costs: every cost at its value, and words where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.outcome import Outcome
from harness.record import Throughput
from reports.figures import costs, style
from reports.inline import inline
from reports.tests.test_analysis import cell, findings_of
from reports.tests.test_figures import draw, points


def test_an_axis_of_costs_has_two_labels_however_alike_they_are(tmp_path: Path) -> None:
    peaks = {"x:a": 41_000, "x:b": 42_000}
    cells = [cell(id, [1.0] * 6, memory={"bytes": peak, "method": "allocator", "resolution": 512}) for id, peak in peaks.items()]
    (drawing,) = draw(costs, findings_of(tmp_path, *cells))
    panel = drawing.figure.axes[costs.PANELS.index("peak memory of a call")]
    low, high = panel.get_xlim()
    assert [label.get_text() for label in panel.get_xticklabels()] == ["32 KiB", "64 KiB"]
    assert all(low < place < high for place in (*panel.get_xticks(), *peaks.values()))


def test_a_set_up_below_nothing_is_none_seen_wherever_it_is_told(tmp_path: Path) -> None:
    # 2 T - 1 seconds.
    (drawing,) = draw(costs, findings_of(tmp_path, *(cell("x:a", [2.0 * length - 1] * 6, length) for length in (1, 2, 4))))
    assert "none seen" in [text.get_text() for text in drawing.figure.axes[0].texts]
    told = "x:a · gru; set-up none seen; step 2 to 2, about 2 s"
    assert any(told in text for texts in drawing.hover.values() for text in texts)


def test_the_costs_are_drawn_at_their_values_and_words_stand_where_there_is_none(tmp_path: Path) -> None:
    # 2 + 3 T; the warm-up of x:b costs 9 s more than a call, which takes half as long as the baseline's: 18 / T = 8.
    def timed(name: str, by: float, **changes: Any) -> list[Throughput]:
        return [cell(name, [by * (2 + 3 * length)] * 6, length, **changes) for length in (1, 2, 4)]

    cells = [
        *timed("torch:a", 1.0, warm_up=[14.0], memory={"bytes": 4096, "resolution": 1, "method": "allocator"}),
        *timed("x:b", 0.5, warm_up=[16.0], memory={"bytes": 100, "resolution": 1024, "method": "resident"}),
        cell("x:c", [], 4, Outcome.OUT_OF_MEMORY, fits={"batch": 1}),
    ]
    (drawing,) = draw(costs, findings_of(tmp_path, *cells))
    panels = dict(zip(costs.PANELS, drawing.figure.axes, strict=True))
    found = [(what, line) for what, axes in panels.items() for line in axes.lines if line.get_gid()]
    marks = {(what, y): x for what, line in found for x, y in np.asarray(line.get_xydata()).tolist() if line.get_color() != style.SEVERE}
    setup, step, warm_up, memory = costs.PANELS
    assert marks == pytest.approx(
        {(setup, 0): 2.0, (setup, 1): 1.0, (step, 0): 3.0, (step, 1): 1.5, (warm_up, 1): 9.0, (memory, 0): 4096, (memory, 1): 1024}
    )
    words = {what: [text.get_text() for text in axes.texts] for what, axes in panels.items()}
    assert "none seen, baseline" in words["warm-up"] and "pays after 2 calls" in words["warm-up"]
    assert words["set-up of a call"] == ["out of memory at T=4 (B=1 fits)", "GRU"]
    assert "x:c (gru) out of memory at T=4 (B=1 fits)" in drawing.caption
    assert "Warm-up and memory are those at T=4." in drawing.caption, "x:c has none, at any length"
    assert {line.get_gid(): points(line) for _, line in found} == {gid: len(texts) for gid, texts in drawing.hover.items()}
    lost = [line for _, line in found if line.get_color() == style.SEVERE]
    assert [np.asarray(line.get_xydata()).tolist() for line in lost] == [[[0.97, 2]]], "x:c has none at all"


def test_a_peak_of_no_bytes_is_a_word_and_no_mark(tmp_path: Path) -> None:
    peaks = {"x:a": (0, 0), "x:b": (-8, 0), "x:c": (8, 0)}
    cells = [cell(id, [1.0] * 6, memory={"bytes": a, "method": "allocator", "resolution": b}) for id, (a, b) in peaks.items()]
    (drawing,) = draw(costs, findings_of(tmp_path, *cells))
    panel = drawing.figure.axes[costs.PANELS.index("peak memory of a call")]
    assert [text.get_text() for text in panel.texts] == ["none seen"] * 2
    assert sum(points(line) for line in panel.lines if line.get_gid()) == 1
    inline(drawing, style.svg(drawing.figure), "f")

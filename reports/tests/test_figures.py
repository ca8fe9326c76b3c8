"""Figures: what they show, that nothing is dropped, and that they come out the same every time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.outcome import Outcome
from harness.record import Conformance, Throughput
from harness.workload import Pass
from reports import load
from reports.analysis import Findings
from reports.figures import FIGURES, Drawing, fastest, matrix, numerics, numerics_length, relative, strip, style, throughput
from reports.figures.throughput import EXAMPLES_DRAWN, SWEEPS_DRAWN
from reports.inline import inline
from reports.metrics import HOST_BOUND
from reports.tests import specimen
from reports.tests.specimen import HOSTILE
from reports.tests.test_analysis import ROUNDS, broken, cell, check, findings_of, passing, slower
from reports.view_speed import unplotted
from reports.words import engineering


def draw(module: Any, findings: Findings) -> list[Drawing]:
    """The drawings of one module."""
    return [plan() for plan in module.plans(findings)]


@pytest.fixture(scope="module")
def drawings(findings: Findings) -> list[Drawing]:
    return [plan() for _, plans in FIGURES for plan in plans(findings)]


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    results = [*specimen.conformance(1), *specimen.gpu_throughput()]
    return Findings(load(specimen.write(tmp_path_factory.mktemp("gpu"), results=results)))


def points(line: Line2D) -> int:
    return len(np.asarray(line.get_xdata()))


def test_every_figure_has_a_name_of_its_own_words_for_it_and_its_data(drawings: list[Drawing]) -> None:
    assert len({drawing.name for drawing in drawings}) == len(drawings) == 10
    for drawing in drawings:
        assert re.fullmatch(r"[a-z0-9-]+", drawing.name)
        assert drawing.title
        assert drawing.caption
        assert drawing.alternative
        assert len(drawing.data) > 0


def test_a_figure_is_the_same_to_the_byte_when_it_is_drawn_again(findings: Findings, drawings: list[Drawing]) -> None:
    again = draw(throughput, findings)[0]
    first = next(drawing for drawing in drawings if drawing.name == again.name)
    assert style.svg(again.figure) == style.svg(first.figure)
    assert style.png(again.figure) == style.png(first.figure)


def test_the_throughput_figures_have_a_panel_per_mode_and_every_cell_with_or_without_a_time(findings: Findings) -> None:
    figures = draw(throughput, findings)
    assert [figure.title.split(": ")[1] for figure in figures] == ["inference on CPU", "training on CPU"]
    for drawing in figures:
        assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["RNN (tanh)", "GRU", "LSTM"]
        assert len(drawing.data) == len(specimen.MODES) * len(specimen.LENGTHS) * len(specimen.IMPLEMENTATIONS)
        timed = sum(len(texts) for gid, texts in drawing.hover.items() if gid.startswith("rate-"))
        lost = drawing.data["outcome"].ne("passed").sum()
        assert timed + lost == len(drawing.data) == sum(len(texts) for texts in drawing.hover.values())
        strip = [line for axes in drawing.figure.axes for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
        assert sum(map(points, strip)) == lost


def _texts(drawing: Drawing) -> list[list[str]]:
    """The texts in each panel."""
    return [[text.get_text() for text in axes.texts] for axes in drawing.figure.axes]


def test_the_limit_is_drawn_into_every_throughput_figure_with_what_it_comes_from(findings: Findings, on_a_gpu: Findings) -> None:
    for given in (findings, on_a_gpu):
        for drawing in draw(throughput, given):
            for axes, mode, texts in zip(drawing.figure.axes, specimen.MODES, _texts(drawing), strict=True):
                (line,) = (line for line in axes.lines if line.get_color() == style.INK)
                own = drawing.data[drawing.data["mode"] == mode].drop_duplicates("sequence_length").sort_values("sequence_length")
                assert np.asarray(line.get_ydata()).tolist() == pytest.approx(own["limit_rate"].tolist())
                assert f"limit: {own['limit_bound'].iloc[0]}" in texts
                low, high = axes.get_ylim()
                assert low < own["limit_rate"].min() and own["limit_rate"].max() < high
                (beyond,) = (area for area in axes.collections if area.get_hatch())
                assert np.asarray(beyond.get_paths()[0].vertices)[:, 1].min() == pytest.approx(own["limit_rate"].min())
            assert "Limit: what the work of a call allows" in drawing.caption and "The limit is" in drawing.alternative


def test_the_limit_of_cells_of_one_workload_is_the_one_that_allows_most(tmp_path: Path) -> None:
    # 4 tokens in 1 or in 0.5 seconds.
    cells = [cell("torch:a", [2.0], 2, limit={"seconds": 1.0, "bound": "memory"}),
             cell("x:b", [2.0], 2, limit={"seconds": 0.5, "bound": "arithmetic"}), cell("x:c", [2.0], 4)]  # fmt: skip
    found = throughput.limits(Findings(load(specimen.write(tmp_path, results=cells))).cells)
    assert found.to_dict("records") == [{"sequence_length": 2, "limit_rate": 8.0, "limit_bound": "arithmetic"}]


def test_without_a_limit_a_figure_has_no_line_for_it_and_says_nothing_of_it(tmp_path: Path) -> None:
    cells = [cell("torch:a", [2.0], length) for length in (1, 2)]
    (drawing,) = draw(throughput, Findings(load(specimen.write(tmp_path, results=cells))))
    assert all(line.get_color() != style.INK for axes in drawing.figure.axes for line in axes.lines)
    assert "imit" not in drawing.caption + drawing.alternative


def test_what_is_bound_by_the_host_has_a_ring_and_what_is_not_has_none(on_a_gpu: Findings, findings: Findings) -> None:
    for drawing in draw(throughput, on_a_gpu):
        bound = drawing.data["host_share"] >= HOST_BOUND
        rings = [line for axes in drawing.figure.axes for line in axes.lines if line.get_markerfacecolor() == "none"]
        assert sum(map(points, rings)) == bound.sum() > 0 and not bound.all()
        assert f"Rings ({bound.sum()})" in drawing.caption and "queue" in drawing.caption
        assert sum("host-bound" in text for texts in drawing.hover.values() for text in texts) == bound.sum()
    for drawing in draw(throughput, findings):
        assert "Rings" not in drawing.caption


def test_the_batch_that_fitted_stands_beside_what_ran_out_of_memory(on_a_gpu: Findings) -> None:
    training = draw(throughput, on_a_gpu)[1]
    assert [sorted(text for text in texts if text.isdigit()) for texts in _texts(training)] == [["0", "4", "8"]] * 3
    told = [text for gid, texts in training.hover.items() if gid.endswith("out-of-memory") for text in texts]
    assert "loop:hoisted · gru · T=512: out of memory (B=8 fits); CUDA out of memory" in told
    assert "loop:hoisted · gru · T=1024: out of memory (no smaller B fits); CUDA out of memory" in told


def test_a_cell_that_passed_without_a_time_is_marked_and_not_dropped(tmp_path: Path) -> None:
    cells = [cell("torch:a", [2.0], 1), cell("torch:a", [], 2)]
    (drawing,) = draw(throughput, Findings(load(specimen.write(tmp_path, results=cells))))
    assert drawing.hover["lost-0-0-passed"] == ["torch:a · gru · T=2: passed"]


def test_cells_of_which_nobody_says_how_many_tokens_they_are_have_a_speedup_and_no_throughput(tmp_path: Path) -> None:
    cells = [cell(name, ROUNDS, length, tokens=0) for name in ("torch:a", "x:b") for length in (1, 2)]
    findings = findings_of(tmp_path, *cells, cell("x:c", ROUNDS, 1), cell("x:c", [], 2, Outcome.FAILED))
    (drawing,) = draw(throughput, findings)
    assert sorted(drawing.hover) == ["lost-2-0-failed", "rate-2-0"]
    inline(drawing, style.svg(drawing.figure), "f")
    (drawing,) = draw(relative, findings)
    assert len(drawing.data) == 3
    alone = findings_of(tmp_path / "alone", *cells)
    assert draw(throughput, alone) == []
    told = "4 cells are in no figure of throughput, because the file does not say how many tokens a call has."
    assert unplotted(alone) == unplotted(findings) == [told]


@pytest.mark.parametrize("number", [1, 5, 18, 40])
def test_the_strip_of_cells_without_a_time_leaves_the_curves_most_of_the_panel(number: int, tmp_path: Path) -> None:
    cells = [cell("torch:a", [2.0 * length], length) for length in (1, 8)]
    cells += [cell(f"x:{k}", [], 8, Outcome.FAILED) for k in range(number)]
    (drawing,) = draw(throughput, findings_of(tmp_path, *cells))
    (panel,) = drawing.figure.axes
    (box,) = panel.patches
    heights = [float(np.asarray(line.get_ydata())[0]) for line in panel.lines if (line.get_gid() or "").startswith("lost-")]
    assert isinstance(box, Rectangle) and len(set(heights)) == number
    assert min(heights) > 0 and max(heights) < box.get_height() <= strip.HIGHEST
    curve = next(line for line in panel.lines if line.get_gid() == "rate-0-0")
    assert panel.transLimits.transform(panel.transScale.transform(np.asarray(curve.get_xydata())))[:, 1].min() >= box.get_height()


def test_a_figure_says_what_its_pass_is(tmp_path: Path) -> None:
    cells = [cell("torch:a", [2.0], length, timed_pass="streaming") for length in (1, 2)]
    (drawing,) = draw(throughput, Findings(load(specimen.write(tmp_path, results=cells))))
    assert f"Streaming: {Pass.STREAMING.meaning}." in drawing.caption


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    changes = {"bidirectional": True, "num_layers": 2, "proj_size": 32, "dtype": "bfloat16", "settings": {"caches": "cold"}}
    cells = [replace(cell, **changes) for cell in specimen.gpu_throughput() if cell.mode == "lstm"]  # type: ignore[arg-type]
    return Findings(load(specimen.write(tmp_path_factory.mktemp("narrow"), results=cells)))


@pytest.fixture(scope="module")
def four_modes(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Two rows of panels, a long name, and errors by length."""
    cells = [
        cell(name, ROUNDS if name == "torch:a" else slower(3), length, mode=mode, workload=f"{mode}-{length}")
        for mode in ("rnn_tanh", "rnn_relu", "gru", "lstm")
        for length in (1, 8, 64)
        for name in ("torch:a", "some-vendor-of-layers:another-variant-of-it")
    ]
    error = {"quantity": "y", "error": 1e-7, "floor": 1e-7, "ratio": 1.0, "allowance": 4.0, "elements": 1}
    checks = [check("torch:a", "a.one", case=f"{steps}", errors=[error], parameters={"steps": steps}) for steps in (1, 8)]
    return findings_of(tmp_path_factory.mktemp("four"), *cells, *checks)


def test_nothing_lies_outside_its_figure_or_on_the_heading_the_legend_or_another_panel(
    findings: Findings, on_a_gpu: Findings, narrow: Findings, four_modes: Findings
) -> None:
    drawings = [plan() for given in (findings, on_a_gpu, narrow, four_modes) for _, plans in FIGURES for plan in plans(given)]
    assert {drawing.name.partition("-")[0] for drawing in drawings} == {
        "conformance",
        "costs",
        "fastest",
        "numerics",
        "relative",
        "throughput",
    }
    assert any(len(drawing.figure.axes) == 4 and drawing.name.startswith("throughput") for drawing in drawings)
    for drawing in drawings:
        figure = drawing.figure
        with style.house_style():
            figure.draw_without_rendering()
            whole = [(text.get_text(), text.get_window_extent()) for text in figure.texts]
            whole += [("legend", legend.get_window_extent()) for legend in figure.legends]
            panels = [axes for axes in figure.axes if axes.get_visible()]
            if drawing.name != "conformance":  # one pair of axes, as large as the figure, with all that is in it
                whole += [(axes.get_title(loc="left"), box) for axes in panels if (box := axes.get_tightbbox())]
        for place, (name, box) in enumerate(whole):
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, (drawing.name, name)
            for other, beside in whole[:place]:
                assert not box.overlaps(beside), (drawing.name, name, other)


def test_a_line_does_not_cross_a_length_without_a_time(findings: Findings) -> None:
    training = draw(throughput, findings)[1]
    gru = training.figure.axes[1]
    colour = style.series(findings.timed)["script:hoisted"].colour
    line = next(line for line in gru.lines if line.get_color() == colour and line.get_linestyle() != "None")
    values = dict(zip(specimen.LENGTHS, np.asarray(line.get_ydata()), strict=True))
    assert values[128] != values[128]
    assert values[64] == values[64]


def test_undecided_ratios_are_hollow_and_decided_ones_filled(findings: Findings) -> None:
    for drawing in draw(relative, findings):
        hollow = sum(len(t) for gid, t in drawing.hover.items() if gid.endswith("False"))
        assert hollow == drawing.data["verdict"].eq("undecided").sum() > 0
        for axes in drawing.figure.axes:
            for line in axes.lines:
                if (line.get_gid() or "").endswith("False"):
                    assert line.get_markerfacecolor() == style.PAPER
                elif (line.get_gid() or "").endswith("True"):
                    assert line.get_markerfacecolor() == line.get_color()
        assert "at 99 % for all comparisons together" in drawing.caption, "bars are of one alone, and may clear 1 where a mark is hollow"


def test_a_speedup_of_few_rounds_has_no_interval_and_a_small_one_its_digits(tmp_path: Path) -> None:
    cells = [cell(name, [by] * 3, length) for name, by in (("torch:a", 1.0), ("x:b", 300.0)) for length in (1, 2)]
    (drawing,) = draw(relative, findings_of(tmp_path, *cells))
    (told, _), *_ = (texts for texts in drawing.hover.values() if texts)
    assert told == "x:b · gru · T=1: 0.0033×, undecided"
    assert "x:b 0.0033 to 0.0033" in drawing.alternative


def test_where_nothing_is_finite_the_errors_have_words_and_no_nan(tmp_path: Path) -> None:
    error = {"quantity": "y", "error": None, "floor": 1.0, "ratio": None, "allowance": 4.0, "elements": 1}
    found = findings_of(tmp_path, *(check("x:a", "a.one", case=f"{k}", errors=[error], parameters={"steps": k}) for k in (1, 8)))
    for module in (numerics, numerics_length):
        (drawing,) = draw(module, found)
        told = [drawing.alternative, drawing.caption, *(text for texts in drawing.hover.values() for text in texts)]
        assert not re.search(r"\bnan\b", " ".join(told))
    assert "x:a · forward, float32, T=1: none finite, of 1 tensor, 1 not finite" in drawing.hover["length-0-0-0-lost"]
    assert "x:a float32: none finite." in draw(numerics, found)[0].alternative


def test_the_matrix_has_one_glyph_for_every_contract_of_every_implementation(findings: Findings) -> None:
    figure = draw(matrix, findings)[0].figure
    glyphs = sum(points(line) for line in figure.axes[0].lines if line.get_linestyle() == "None")
    assert glyphs == len(findings.matrix)


def test_values_that_were_not_finite_are_counted_in_the_figure_of_errors(findings: Findings) -> None:
    drawing = draw(numerics, findings)[0]
    lost = drawing.data.set_index(["implementation", "dtype"])["not_finite"]
    assert lost[HOSTILE, "bfloat16"] == 26
    assert lost.drop((HOSTILE, "bfloat16")).eq(0).all()
    assert "26" in [text.get_text() for axes in drawing.figure.axes for text in axes.texts]


def test_outcomes_differ_in_shape_alone_and_so_do_the_first_eleven_implementations() -> None:
    assert set(style.GLYPHS) == set(Outcome)
    assert len({(glyph.marker, glyph.filled) for glyph in style.GLYPHS.values()}) == len(style.GLYPHS)
    looks = style.series([str(k) for k in range(11)])
    assert len({look.marker for look in looks.values()}) == 11
    assert len({look.colour for look in list(looks.values())[:8]}) == 8


def test_every_colour_of_a_line_stands_out_from_the_light_page() -> None:
    for look in style.series([str(k) for k in range(8)]).values():
        red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(look.colour))
        contrast = 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
        assert contrast > 2.0, look.colour


def test_without_lengths_or_results_there_is_no_figure(tmp_path: Path) -> None:
    findings = Findings(load(specimen.write(tmp_path, results=[])))
    assert [plan() for _, plans in FIGURES for plan in plans(findings)] == []


def test_a_page_draws_some_sweeps_and_says_how_many_it_does_not(tmp_path: Path) -> None:
    shapes = [(size, name, length) for size in range(1, SWEEPS_DRAWN + 2) for name in ("torch:a", "x:b") for length in (1, 8)]
    cells = [replace(cell(name, ROUNDS, length), hidden_size=size, workload=f"H{size}-T{length}") for size, name, length in shapes]
    findings = findings_of(tmp_path, *cells)
    for module in (throughput, relative):
        drawings = draw(module, findings)
        assert len(drawings) == EXAMPLES_DRAWN
        assert f"{SWEEPS_DRAWN + 1 - EXAMPLES_DRAWN} more configurations with a pass, not drawn here" in drawings[-1].caption
        assert not any("not drawn" in drawing.caption for drawing in drawings[:-1])


def _map_of(directory: Path, *cells: Throughput) -> Drawing:
    (drawing,) = draw(fastest, findings_of(directory, *passing("x:a", "x:b"), *cells))
    return drawing


def test_the_map_has_a_cell_for_every_length_batch_and_width_with_its_winner_or_the_word_undecided(tmp_path: Path) -> None:
    noisy = [1.3, 0.8, 1.2, 0.85, 1.25, 0.75]
    wide: dict[str, Any] = {"hidden_size": 8, "input_size": 8, "batch_size": 4}
    cells = [
        cell("x:a", ROUNDS, 1), cell("x:b", slower(2), 1),
        cell("x:a", ROUNDS, 8), cell("x:b", noisy, 8),
        cell("x:a", slower(3), 8, **wide), cell("x:b", ROUNDS, 8, **wide), cell("x:c", [], 8, Outcome.OUT_OF_MEMORY, **wide),
    ]  # fmt: skip
    drawing = _map_of(tmp_path, *cells)
    data = drawing.data.to_dict("records")
    told = [(row["hidden_size"], row["batch_size"], row["sequence_length"], row["winner"], row["verdict"]) for row in data]
    assert told == [(4, 2, 1, "x:a", "faster"), (4, 2, 8, "", "undecided"), (8, 4, 8, "x:b", "faster")]
    assert [row["without_a_time"] for row in data] == ["", "", "x:c: out of memory"]
    (panel,) = drawing.figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["B=2, I=H=4", "B=4, I=H=8"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "8"]
    assert {text.get_text() for text in panel.texts} >= {"2.00×", "3.00×"}
    marks = [line for line in panel.lines if line.get_gid()]
    hollow = [line for line in marks if line.get_markerfacecolor() == style.PAPER]
    assert (sum(map(points, marks)), [np.asarray(line.get_xydata()).tolist() for line in hollow]) == (3, [[[1 - 0.27, 0]]])
    boxes = {bool(cells.get_hatch()): len(cells.get_paths()) for cells in panel.collections}
    assert boxes == {False: 2, True: 1}
    places = {
        (x, y): told
        for line in marks
        for (x, y), told in zip(np.asarray(line.get_xydata()).tolist(), drawing.hover[line.get_gid() or ""], strict=True)
    }
    told_there = places[1 - 0.27, 1]
    assert told_there.startswith("gru · B=4, I=H=8, T=8: x:b, x:b 3.00×") and told_there.endswith("Without a time: x:c: out of memory")
    assert "in a corner: out of memory" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_the_map_says_who_is_alone_and_does_not_count_that_as_won(tmp_path: Path) -> None:
    drawing = _map_of(tmp_path, cell("x:a", ROUNDS, 1), cell("x:a", ROUNDS, 8), cell("x:b", slower(2), 8))
    assert "2 sizes: x:a alone in 1 and x:a in 1." in drawing.alternative


def test_where_nobody_conforms_the_map_names_nobody(tmp_path: Path) -> None:
    (drawing,) = draw(fastest, findings_of(tmp_path, *broken("x:a"), cell("x:a", ROUNDS, 1)))
    assert drawing.data["winner"].tolist() == [""] and "none" in [text.get_text() for text in drawing.figure.axes[0].texts]


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (1234, "1.23k"), (2e6, "2M"), (3e9, "3G"), (8.45e14, "845T"), (1e15, "1P")])
def test_a_large_number_is_three_digits_and_a_letter(value: float, text: str) -> None:
    assert engineering(value) == text


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_error_that_is_larger_than_an_axis_can_be_long_is_drawn_at_its_end(tmp_path: Path) -> None:
    def compared(ratio: float, steps: int) -> Conformance:
        error = {"quantity": "y", "error": ratio, "floor": 1.0, "ratio": ratio, "allowance": 4.0, "elements": 1}
        return check("x:a", "a.one", case=f"{ratio}{steps}", errors=[error], parameters={"steps": steps})

    findings = findings_of(tmp_path, compared(1.2e308, 1), compared(1.0, 8))
    for module in (numerics, numerics_length):
        (drawing,) = draw(module, findings)
        inline(drawing, style.svg(drawing.figure), "f")
        assert drawing.data["largest"].max() == 1.2e308, "the data has it as it is"
        places = np.concatenate([np.asarray(line.get_xydata()).ravel() for line in drawing.figure.axes[0].lines])
        assert places.max() == numerics.MOST


def test_errors_are_told_by_length_and_direction(tmp_path: Path) -> None:
    def compared(quantity: str, ratio: float | None, steps: int, dtype: str = "float32") -> Conformance:
        error = {"quantity": quantity, "error": ratio, "floor": 1.0, "ratio": ratio, "allowance": 4.0, "elements": 1}
        return check("x:a", "a.one", case=f"{quantity}{ratio}{steps}{dtype}", dtype=dtype, errors=[error], parameters={"steps": steps})

    results = [
        compared("output", 0.5, 4), compared("output", 1.5, 7), compared("output", None, 8), compared("h_n", 1.0, 8),
        compared("weight_hh_l0", 5.0, 4), compared("x", 1.0, 4, "float64"), compared("h0", 2.0, 4, "float64"), compared("h_n", 2.0, 0),
    ]  # fmt: skip
    (drawing,) = draw(numerics_length, findings_of(tmp_path, *results))
    columns = ["dtype", "direction", "first", "longest", "tensors", "median", "largest", "beyond", "not_finite"]
    assert drawing.data[columns].to_numpy().tolist() == [
        ["float32", "forward", 4, 7, 2, 1.0, 1.5, 0, 0],
        ["float32", "forward", 8, 8, 2, 1.0, 1.0, 1, 1],
        ["float32", "gradients", 4, 4, 1, 5.0, 5.0, 1, 0],
        ["float64", "gradients", 4, 4, 2, 1.5, 2.0, 0, 0],
    ]
    assert "which 2 tensors are beyond" in drawing.caption and "1 compared tensor of no stated length" in drawing.caption
    assert sum(len(texts) for gid, texts in drawing.hover.items() if gid.endswith("lost")) == 1


def test_the_ratios_mark_every_cell_that_has_none_and_why(findings: Findings, tmp_path: Path) -> None:
    for drawing, rates in zip(draw(relative, findings), draw(throughput, findings), strict=True):
        timed = rates.data[rates.data["outcome"] == "passed"]
        shown = sum(len(texts) for gid, texts in drawing.hover.items() if gid.startswith("ratio-"))
        missing = sum(len(texts) for gid, texts in drawing.hover.items() if gid.startswith("lost-"))
        bases = (timed["implementation"] == timed["mode"].map({"lstm": "torch:onednn"}).fillna("torch:native")).sum()
        assert shown + missing + bases == len(rates.data)
    cells = [cell("torch:a", ROUNDS, 1), cell("x:b", slower(2), 1), cell("x:b", slower(2), 2), cell("torch:a", [], 2, Outcome.FAILED)]
    (drawing,) = draw(relative, findings_of(tmp_path, *cells))
    assert drawing.hover["lost-1-0-passed"] == ["x:b · gru · T=2: timed without the baseline beside it"]
    assert "timed without the baseline beside it" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]

"""What counts as close, and what is said when something is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.case import EPS, Case, rounded
from harness.layer import Layer, Mode
from harness.tolerance import (
    APPROXIMATE_FLOORS,
    FLOORS,
    LEAST_FLOOR_EPS,
    Comparison,
    allowance,
    compare,
    explain,
    floor_of,
    scaled_error,
    signal,
)

LSTM = Layer(Mode.LSTM, 3, 4, num_layers=2, bidirectional=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_close(bad: float) -> None:
    actual = np.ones((2, 3))
    actual[1, 2] = bad
    comparison = compare("output", actual, np.ones((2, 3)), floor=1e300)
    assert not comparison.close and math.isnan(comparison.error)
    assert comparison.as_json()["error"] is None and comparison.as_json()["ratio"] is None


def test_a_floor_that_is_no_number_lets_nothing_pass() -> None:
    assert not Comparison("output", 0.0, math.nan, 1).close


def test_an_oracle_that_is_not_finite_lets_nothing_pass() -> None:
    assert not compare("output", np.ones(2), np.array([1.0, math.nan]), 1.0).close


def test_comparing_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="something to compare"):
        compare("output", np.zeros((3, 0)), np.zeros((3, 0)), 1e-7)
    with pytest.raises(ValueError, match="empty"):
        signal({}, {}, {})


def test_another_shape_is_an_error_and_is_never_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3\)"):
        compare("output", np.zeros((1, 3)), np.zeros((2, 3)), 1e-7)


def test_error_is_scaled_by_the_largest_magnitude() -> None:
    assert scaled_error(np.array([1.0, 101.0]), np.array([0.0, -100.0])) == 2.01
    assert scaled_error(np.array([0.5, 0.0]), np.zeros(2)) == 0.5


@pytest.mark.parametrize(("factor", "close"), [(0.99, True), (1.0, True), (1.01, False)])
def test_passes_up_to_the_stated_number_of_floors(factor: float, close: bool) -> None:
    comparison = compare("h_n", np.array([1.0 + factor * FLOORS * 2.0**-10]), np.array([1.0]), 2.0**-10)
    assert comparison.close == close and comparison.elements == 1
    assert comparison.ratio == pytest.approx(factor * FLOORS)


@pytest.mark.parametrize("dtype", list(EPS))
def test_the_floor_is_the_largest_error_and_at_least_a_few_eps(dtype: str) -> None:
    least = LEAST_FLOOR_EPS * EPS[dtype]
    assert floor_of([0.0, 0.0], dtype) == least
    assert floor_of([least * 3, least * 5], dtype) == least * 5
    assert floor_of([least * 5, least * 3], dtype) == least * 5


def test_signal_is_that_of_the_tensor_that_moves_most() -> None:
    right = {"output": np.ones(3), "h_n": np.full(3, 2.0)}
    wrong = {"output": np.ones(3), "h_n": np.full(3, 3.0)}
    assert signal(right, wrong, {"output": 1.0, "h_n": 0.01}) == pytest.approx(0.5 / (FLOORS * 0.01))
    assert signal(right, right, {"output": 1.0, "h_n": 0.01}) == 0
    assert signal(right, wrong, {"output": 1.0, "h_n": 0.01}, 64.0) == pytest.approx(0.5 / (64 * 0.01))


PLACES = [
    ("output", (5, 2, 8), (3, 1, 6), "output[3, 1, 6] (time step 3, batch item 1, reverse direction, unit 2)"),
    ("x", (5, 2, 3), (4, 0, 2), "x[4, 0, 2] (time step 4, batch item 0, input feature 2)"),
    ("h_n", (4, 2, 4), (3, 1, 2), "h_n[3, 1, 2] (layer 1, reverse direction, batch item 1, unit 2)"),
    ("c0", (4, 2, 4), (2, 0, 1), "c0[2, 0, 1] (layer 1, forward direction, batch item 0, unit 1)"),
    ("weight_hh_l1", (16, 4), (9, 3), "weight_hh_l1[9, 3] (gate g, unit 1)"),
    ("bias_ih_l0", (16,), (4,), "bias_ih_l0[4] (gate f, unit 0)"),
    ("weight_hr_l0", (2, 4), (1, 3), "weight_hr_l0[1, 3]"),
]


@pytest.mark.parametrize(("name", "shape", "where", "place"), PLACES, ids=[place[0] for place in PLACES])
def test_the_message_names_the_place(name: str, shape: tuple[int, ...], where: tuple[int, ...], place: str) -> None:
    expected = np.ones(shape)
    actual = expected.copy()
    actual[where] = 1.25
    message = explain(compare(name, actual, expected, 1e-7), actual, expected, LSTM)
    assert f"first at {place}" in message and f"worst at {place}: got 1.25, expected 1" in message
    assert f"{name}: 1 of {expected.size} elements" in message


def test_the_message_tells_the_first_place_from_the_worst_and_gives_the_extent() -> None:
    expected = np.ones((6, 3, 8))
    actual = expected.copy()
    actual[2, 1], actual[3:5, 1], actual[4, 1, 0] = 1.1, 1.1, 1.5
    message = explain(compare("output", actual, expected, 1e-7), actual, expected, LSTM)
    assert "first at output[2, 1, 0]" in message and "worst at output[4, 1, 0]" in message
    assert "time steps touched: 2-4 of 6; batch items touched: 1 of 3" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_message_names_the_first_value_that_is_not_finite(bad: float) -> None:
    expected = np.ones((4, 2, 8))
    actual: Any = expected.copy()
    actual[1, 0, 5], actual[2:] = bad, 1.5
    message = explain(compare("output", actual, expected, 1e-7), actual, expected, LSTM)
    assert f"1 are not finite, the first at output[1, 0, 5] (time step 1, batch item 0, reverse direction, unit 1): {bad}" in message
    assert "worst at output[2, 0, 0]" in message


@pytest.mark.parametrize(
    ("device", "dtype", "mode", "floors"),
    [
        ("cuda", "float32", Mode.LSTM, APPROXIMATE_FLOORS),
        ("cuda:1", "float32", Mode.RNN_TANH, APPROXIMATE_FLOORS),
        ("cuda", "float32", Mode.RNN_RELU, FLOORS),
        ("cuda", "float64", Mode.LSTM, FLOORS),
        ("cpu", "float32", Mode.LSTM, FLOORS),
    ],
)
def test_more_passes_where_a_gpu_approximates_tanh_and_sigmoid(device: str, dtype: Any, mode: Mode, floors: float) -> None:
    assert allowance(Case(Layer(mode, 3, 5), device=device, dtype=dtype)) == floors


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_tensor_that_was_rounded_to_a_narrower_type_is_called_so(dtype: str) -> None:
    expected = np.random.Generator(np.random.PCG64(0)).standard_normal((5, 3, 8))
    for floor, actual, told in (
        (1e-15, rounded(expected, dtype), True),
        (1e-15, rounded(expected, dtype) + 1e-9, False),
        # Of a case in that very type.
        (EPS[dtype], rounded(expected, dtype), False),
        # Whole numbers are numbers of every type.
        (1e-15, np.round(expected), False),
    ):
        message = explain(compare("output", actual, expected, floor, 0.01), actual, expected, LSTM)
        assert (f"every number is one of {dtype}" in message) is told, message

"""A case gives the same numbers everywhere, and they are those of its dtype."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from harness import oracle
from harness.case import EPS, Case, draw, rounded, stored
from harness.layer import Layer, Mode
from harness.tests.samples import CASE

LSTM = Layer(Mode.LSTM, 3, 5, num_layers=2)


def _hard_values(dtype: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ties both ways, subnormals, the largest finite values, and a spread over all magnitudes."""
    eps = EPS[stored(dtype)]
    generator = np.random.Generator(np.random.PCG64(0))
    ties = [1 + eps * k / 2 for k in range(8)] + [1 + eps / 2 + eps * 2**-12, 1 + eps / 2 - eps * 2**-12]
    tiny = float(torch.finfo(getattr(torch, stored(dtype))).smallest_normal)
    subnormals = [tiny * eps * k / 2 for k in range(9)] + [tiny * (1 - eps / 2)]
    spread = generator.uniform(-1, 1, 2000) * 2.0 ** generator.integers(-30, 15, 2000)
    values = np.concatenate([ties, subnormals, [0.0, 65504.0], spread])
    return np.concatenate([values, -values])


@pytest.mark.parametrize("dtype", list(EPS))
def test_rounds_as_torch_does(dtype: str) -> None:
    values = _hard_values(dtype)
    theirs = torch.tensor(values).to(getattr(torch, stored(dtype))).double().numpy()
    ours = rounded(values, dtype)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def test_knows_the_eps_of_each_dtype() -> None:
    assert {dtype: torch.finfo(getattr(torch, dtype)).eps for dtype in EPS if dtype != "tf32"} | {"tf32": 2.0**-10} == EPS


@pytest.mark.parametrize("dtype", list(EPS))
def test_holds_only_values_that_its_dtype_holds(dtype: Any) -> None:
    arrays = Case(LSTM, dtype=dtype).arrays
    for array in [*arrays.weights.values(), *arrays.inputs().values(), *arrays.cotangents.values()]:
        np.testing.assert_array_equal(torch.tensor(array).to(getattr(torch, stored(dtype))).double().numpy(), array)


def test_equal_cases_give_equal_arrays() -> None:
    first = Case(LSTM, seed=3).arrays
    draw.cache_clear()
    again = Case(LSTM, seed=3).arrays
    assert first is not again
    for name, array in {**first.weights, **first.inputs(), **first.cotangents}.items():
        np.testing.assert_array_equal({**again.weights, **again.inputs(), **again.cotangents}[name], array)


def test_arrays_cannot_be_changed_by_who_reads_them() -> None:
    for array in (CASE.arrays.x, CASE.arrays.h0, *CASE.arrays.weights.values(), *CASE.arrays.cotangents.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_draw_has_not_changed() -> None:
    arrays = Case(Layer(Mode.LSTM, 2, 2), steps=2, batch=1, dtype="float64").arrays
    assert arrays.weights["weight_ih_l0"][0].tolist() == pytest.approx(WEIGHT, rel=1e-15)
    assert arrays.x.ravel().tolist() == pytest.approx(X, rel=1e-15)
    assert arrays.c0 is not None and arrays.c0.ravel().tolist() == pytest.approx(C0, rel=1e-15)
    assert arrays.cotangents["c_n"].ravel().tolist() == pytest.approx(C_N, rel=1e-15)


WEIGHT = [0.3354862482481791, -0.5639050832878074]
X = [1.350094776348421, 0.1979320120052106, 1.0423761898104922, 1.5814102524490226]
C0 = [0.8634365936164938, -1.4990752789285455]
C_N = [0.9175433176617727, -0.7448835470354394]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 9},
        {"batch": 1},
        {"lengths": (5, 2, 3)},
        {"batch": 1, "batched": False},
        {"given_state": False},
        {"inputs_seed": 4},
        {"device": "cuda"},
        {"layer": replace(LSTM, batch_first=True)},
        {"layer": replace(LSTM, dropout=0.5)},
    ],
    ids=str,
)
def test_shares_weights_across_sizes_forms_and_inputs(change: dict[str, Any]) -> None:
    ours, theirs = Case(LSTM).arrays.weights, replace(Case(LSTM), **change).arrays.weights
    for name, weight in ours.items():
        np.testing.assert_array_equal(theirs[name], weight)


@pytest.mark.parametrize("change", [{"seed": 1}, {"inputs_seed": 1}], ids=str)
def test_another_seed_gives_other_inputs(change: dict[str, Any]) -> None:
    ours, theirs = Case(LSTM).arrays, replace(Case(LSTM), **change).arrays
    for name, array in {**ours.inputs(), **ours.cotangents}.items():
        assert not np.any(array == {**theirs.inputs(), **theirs.cotangents}[name]), name
    assert np.array_equal(ours.weights["weight_ih_l0"], theirs.weights["weight_ih_l0"]) == ("inputs_seed" in change)


def test_gives_zero_states_where_none_are_given() -> None:
    arrays = Case(LSTM, given_state=False).arrays
    assert arrays.c0 is not None and not arrays.h0.any() and not arrays.c0.any()
    # The cotangents are drawn after the states, and must not depend on whether these are used.
    np.testing.assert_array_equal(arrays.cotangents["output"], Case(LSTM).arrays.cotangents["output"])


def test_has_no_cotangent_on_padding() -> None:
    case = Case(LSTM, steps=4, batch=3, lengths=(2, 4, 1))
    assert case.valid.sum(axis=0).tolist() == [2, 4, 1]
    output = case.arrays.cotangents["output"]
    assert not output[~case.valid].any() and output[case.valid].all()


@pytest.mark.parametrize(("mode", "steps"), [(Mode.LSTM, 50), (Mode.GRU, 50), (Mode.RNN_RELU, 50), (Mode.RNN_TANH, 20)])
def test_remembering_weights_carry_the_initial_state_through_a_sequence(mode: Mode, steps: int) -> None:
    moved = {}
    kinds: tuple[Literal["plain", "remembering"], ...] = ("plain", "remembering")
    for weights in kinds:
        case = Case(Layer(mode, 3, 5), steps=steps, batch=2, weights=weights, dtype="float64")
        other = {name: 0 * array for name, array in case.arrays.inputs().items() if name != "x"}
        moved[weights] = float(np.abs(oracle.evaluate(case).output[-1] - oracle.evaluate(case, **other).output[-1]).max())
    assert moved["remembering"] > max(1e-2, 10 * moved["plain"])


OTHER_LAYERS: list[dict[str, Any]] = [
    {"mode": Mode.GRU},
    {"input_size": 4},
    {"hidden_size": 4},
    {"num_layers": 1},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"proj_size": 2},
    {"proj_size": 3},
    {"dropout": 0.1},
    {"dropout": 0.10000001},
]

DIFFERENT: list[dict[str, Any]] = [
    {},
    *({"layer": replace(LSTM, **change)} for change in OTHER_LAYERS),
    {"steps": 6},
    {"batch": 4},
    {"batch": 1},
    {"batch": 1, "batched": False},
    {"lengths": (5, 3, 2)},
    {"lengths": (5, 2, 3)},
    {"lengths": (5, 3, 2), "enforce_sorted": True},
    {"batch": 9, "lengths": (5, 1, 1, 1, 1, 1, 1, 1, 1)},
    {"batch": 9, "lengths": (5, 1, 1, 1, 1, 1, 1, 1, 2)},
    {"given_state": False},
    {"weights": "remembering"},
    {"dtype": "float64"},
    {"device": "cuda"},
    {"seed": 1},
    {"inputs_seed": 1},
    {"name": "known"},
]


def test_cases_that_differ_have_different_ids() -> None:
    ids = [replace(Case(LSTM), **change).id for change in DIFFERENT]
    assert len(set(ids)) == len(ids), sorted(ids)
    assert {name for change in DIFFERENT for name in change} >= {field.name for field in fields(Case)}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dtype": "float8"}, "dtype='float8'"),
        ({"batched": False}, "batch=3"),
        ({"batch": 1, "batched": False, "lengths": (5,)}, r"lengths=\(5,\)"),
        ({"lengths": (5, 5)}, r"lengths=\(5, 5\)"),
        ({"lengths": (4, 4, 4)}, r"lengths=\(4, 4, 4\)"),
        ({"lengths": (5, 0, 1)}, r"lengths=\(5, 0, 1\)"),
        ({"lengths": (3, 5, 1), "enforce_sorted": True}, r"lengths=\(3, 5, 1\)"),
        ({"enforce_sorted": True}, "lengths=None"),
        ({"layer": replace(LSTM, bias=False), "weights": "readable", "given_state": False}, "steps=5"),
        ({"layer": replace(LSTM, bias=False), "weights": "readable", "steps": 1}, "given_state=True"),
    ],
)
def test_refuses_what_cannot_be_a_case(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Case(**{"layer": LSTM, **options})


@pytest.mark.parametrize("bias", [True, False])
def test_steady_weights_keep_every_relu_away_from_its_kink(bias: bool) -> None:
    layer = Layer(Mode.RNN_RELU, 20, 24, num_layers=3, bidirectional=True, bias=bias)
    for seed in range(10):
        units = oracle.evaluate(Case(layer, steps=40, batch=4, weights="steady", dtype="bfloat16", seed=seed)).output.reshape(-1, 2, 24)
        assert units[..., ::2].min() > 0.3 and units.max() < 4
        assert (units[..., 1::2] == 0).all()

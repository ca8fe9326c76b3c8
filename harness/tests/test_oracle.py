"""The oracle against closed forms, torch in float64, and differences of itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import harness
from harness import oracle
from harness.case import Array, Case
from harness.layer import Layer, Mode


def test_imports_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import harness, harness.case, harness.oracle; print('imported')"
    root = Path(harness.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr


def test_lstm_of_zero_weights_halves_its_cell_state() -> None:
    layer = Layer(Mode.LSTM, 3, 4)
    case = Case(layer, steps=3, batch=2, dtype="float64")
    zero = {name: np.zeros(shape) for name, shape in layer.parameter_shapes().items()}
    answer = oracle.evaluate(case, weights=zero)
    c0 = case.arrays.c0
    assert c0 is not None
    np.testing.assert_array_equal(answer.c_n, c0 / 8)
    for t in range(3):
        np.testing.assert_allclose(answer.output[t], 0.5 * np.tanh(c0[0] / 2 ** (t + 1)), rtol=1e-15)


def test_gru_of_zero_weights_halves_its_state() -> None:
    layer = Layer(Mode.GRU, 3, 4)
    case = Case(layer, steps=3, batch=2, dtype="float64")
    zero = {name: np.zeros(shape) for name, shape in layer.parameter_shapes().items()}
    np.testing.assert_array_equal(oracle.evaluate(case, weights=zero).h_n, case.arrays.h0 / 8)


def test_relu_of_ones_counts() -> None:
    layer = Layer(Mode.RNN_RELU, 1, 1, num_layers=2, bidirectional=True, bias=False)
    ones = {name: np.ones(shape) for name, shape in layer.parameter_shapes().items()}
    answer = oracle.forward(layer, ones, np.ones((3, 1, 1)), np.zeros((4, 1, 1)), None, np.ones((3, 1), bool))
    # Layer 0 counts 1 2 3 forward and 3 2 1 in reverse; the sum of both is 4 at each step, and layer 1 adds it up.
    assert answer.output[:, 0].tolist() == [[4, 12], [8, 8], [12, 4]]
    assert answer.h_n.ravel().tolist() == [3, 3, 12, 12]


def test_relu_cuts_off_what_is_negative() -> None:
    layer = Layer(Mode.RNN_RELU, 1, 1, bias=False)
    ones = {name: np.ones(shape) for name, shape in layer.parameter_shapes().items()}
    x = np.array([2.0, -3.0, 1.0]).reshape(3, 1, 1)
    answer = oracle.forward(layer, ones, x, np.zeros((1, 1, 1)), None, np.ones((3, 1), bool))
    assert answer.output.ravel().tolist() == [2, 0, 1]


def test_sigmoid_of_large_arguments_is_finite() -> None:
    case = Case(Layer(Mode.LSTM, 3, 4), dtype="float64")
    with np.errstate(all="raise", under="ignore"):
        answer = oracle.evaluate(case, x=1e4 * case.arrays.x)
    assert np.isfinite(answer.output).all() and np.abs(answer.output).max() <= 1


FORMS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "bidirectional": True},
    {"bias": False, "given_state": False},
    {"num_layers": 2, "bidirectional": True, "steps": 6, "batch": 4, "lengths": (2, 6, 1, 4)},
    {"steps": 1, "batch": 1},
]
_LAYER = ("num_layers", "bidirectional", "bias", "proj_size")


def _cases() -> list[Case]:
    found = []
    for mode in Mode:
        for seed, form in enumerate(FORMS):
            options = {name: value for name, value in form.items() if name in _LAYER}
            rest = {name: value for name, value in form.items() if name not in _LAYER}
            found.append(Case(Layer(mode, 3, 5, **options), dtype="float64", seed=seed, **rest))
            if mode is Mode.LSTM:
                found.append(replace(found[-1], layer=replace(found[-1].layer, proj_size=2)))
    return found


def _by_torch(case: Case) -> tuple[dict[str, Array], dict[str, Array]]:
    """What torch.nn gives in float64: the tensors, and the gradients from all cotangents at once."""
    arrays, layer = case.arrays, case.layer
    module: Any = getattr(nn, layer.mode.class_name)(layer.input_size, layer.hidden_size, **layer.options()).double()
    module.load_state_dict({name: torch.tensor(value) for name, value in arrays.weights.items()})
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in arrays.inputs().items()}
    x: Any = leaves["x"]
    if case.lengths is not None:
        x = pack_padded_sequence(x, torch.tensor(case.lengths), enforce_sorted=False)
    output, state = module(x, (leaves["h0"], leaves["c0"]) if layer.has_cell_state else leaves["h0"])
    if case.lengths is not None:
        output, _ = pad_packed_sequence(output)
    tensors = dict(zip(("output", "h_n", "c_n"), (output, *(state if layer.has_cell_state else (state,))), strict=False))
    torch.autograd.backward(list(tensors.values()), [torch.tensor(arrays.cotangents[name]) for name in tensors])
    gradients = {name: leaf.grad for name, leaf in [*leaves.items(), *module.named_parameters()]}
    return ({n: t.detach().numpy() for n, t in tensors.items()}, {n: g.numpy() for n, g in gradients.items() if g is not None})


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.id)
def test_agrees_with_torch_in_float64(case: Case) -> None:
    answer = oracle.evaluate(case)
    gradients = oracle.backward(case.layer, case.arrays.weights, answer, case.valid, case.arrays.cotangents)
    tensors, grads = _by_torch(case)
    assert set(answer.tensors()) == set(tensors) and set(gradients) == set(grads)
    for name, expected in {**tensors, **grads}.items():
        actual = {**answer.tensors(), **gradients}[name]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13 * max(1, float(np.abs(expected).max())), err_msg=name)


def _masks(case: Case) -> list[Array]:
    generator = np.random.Generator(np.random.PCG64(7))
    shape = (case.steps, case.batch, case.layer.output_size)
    kept = [generator.uniform(size=shape) < 0.5 for _ in range(case.layer.num_layers - 1)]
    return [2.0 * mask.astype(np.float64) for mask in kept]


def _objective(case: Case, masks: list[Array] | None, **changes: Any) -> float:
    arrays = case.arrays
    inputs = {"weights": arrays.weights, "x": arrays.x, "h0": arrays.h0, "c0": arrays.c0, **changes}
    answer = oracle.forward(case.layer, valid=case.valid, masks=masks, **inputs)
    return sum(float((arrays.cotangents[name] * value).sum()) for name, value in answer.tensors().items())


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("mode", Mode)
def test_gradients_are_differences_of_the_answer(mode: Mode, masked: bool) -> None:
    layer = Layer(mode, 2, 3, num_layers=2, bidirectional=True, proj_size=2 if mode is Mode.LSTM else 0)
    case = Case(layer, steps=3, batch=2, lengths=(2, 3), dtype="float64", seed=5)
    arrays, masks = case.arrays, _masks(case) if masked else None
    answer = oracle.forward(layer, arrays.weights, arrays.x, arrays.h0, arrays.c0, case.valid, masks)
    gradients = oracle.backward(layer, arrays.weights, answer, case.valid, arrays.cotangents, masks)
    generator, step = np.random.Generator(np.random.PCG64(11)), 1e-6
    for name, gradient in gradients.items():
        value = {**arrays.weights, **arrays.inputs()}[name]
        direction = generator.uniform(-1, 1, value.shape)
        ends = []
        for sign in (1, -1):
            moved = value + sign * step * direction
            changes = {"weights": {**arrays.weights, name: moved}} if name in arrays.weights else {name: moved}
            ends.append(_objective(case, masks, **changes))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-7, abs=1e-8), name


def test_dropout_masks_act_between_layers_only() -> None:
    layer = Layer(Mode.GRU, 3, 4, num_layers=2)
    case = Case(layer, dtype="float64")
    arrays, zero = case.arrays, np.zeros((case.steps, case.batch, layer.output_size))
    plain = oracle.evaluate(case)
    masked = oracle.forward(layer, arrays.weights, arrays.x, arrays.h0, arrays.c0, case.valid, [zero])
    # The upper layer sees zeros, the state of the lower one is as it was.
    upper = Layer(Mode.GRU, 4, 4)
    weights = {name.replace("l1", "l0"): value for name, value in arrays.weights.items() if name.endswith("l1")}
    alone = oracle.forward(upper, weights, zero, arrays.h0[1:], None, case.valid)
    np.testing.assert_array_equal(masked.output, alone.output)
    np.testing.assert_array_equal(masked.h_n[0], plain.h_n[0])
    gradients = oracle.backward(layer, arrays.weights, masked, case.valid, {"output": arrays.cotangents["output"]}, [zero])
    assert not gradients["x"].any() and not gradients["weight_ih_l0"].any() and gradients["weight_hh_l1"].any()


def test_padding_is_neither_read_nor_written() -> None:
    case = Case(Layer(Mode.LSTM, 3, 4, bidirectional=True), steps=4, batch=2, lengths=(2, 4), dtype="float64")
    x = np.where(case.valid[:, :, None], case.arrays.x, 1e6)
    for name, value in oracle.evaluate(case, x=x).tensors().items():
        np.testing.assert_array_equal(value, oracle.evaluate(case).tensors()[name])
    assert not oracle.evaluate(case).output[~case.valid].any()


def test_leaves_its_inputs_as_they_were() -> None:
    case = Case(Layer(Mode.LSTM, 3, 4, num_layers=2, bidirectional=True), dtype="float64")
    copies = {name: array.copy() for name, array in {**case.arrays.weights, **case.arrays.inputs()}.items()}
    answer = oracle.forward(case.layer, copies, copies["x"], copies["h0"], copies["c0"], case.valid)
    oracle.backward(case.layer, copies, answer, case.valid, case.arrays.cotangents)
    for name, array in {**case.arrays.weights, **case.arrays.inputs()}.items():
        np.testing.assert_array_equal(copies[name], array)

"""Values: every tensor that a layer gives back is the oracle's."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from harness.case import Array, Case
from harness.contract import alternative
from harness.layer import Mode
from harness.reference import altered, answer, tensor
from harness.trial import Trial, where
from suites.conformance.cases import GRU, HEADLINE, LSTM, RNN_RELU, RNN_TANH, combined, every, lengths, widths
from suites.conformance.declare import MUST, contract, in_docs


def agrees(trial: Trial) -> None:
    """The answer is right in training mode, in eval mode, and there under inference_mode, too."""
    # In eval mode without gradients other code may run: the fast path of inference.
    module = trial.module()
    trial.agree(trial.answer(module).arrays(), answer(trial.case))
    with where("in eval mode, though right in training"):
        trial.agree(trial.answer(module.eval()).arrays(), answer(trial.case))
    with where("under inference_mode, though right under no_grad"), torch.inference_mode():
        trial.agree(trial.answer(module).arrays(), answer(trial.case))


def _wrong_cells(case: Case) -> dict[str, dict[str, Array]]:
    """Answers of cells with gates exchanged, W_hh transposed or a bias dropped."""
    layer, weights = case.layer, case.arrays.weights
    size = layer.hidden_size
    wrong = {}

    def with_changed(name: str, change: dict[str, Array]) -> None:
        wrong[name] = alternative(case, weights={**weights, **change})

    for first, second in itertools.combinations(range(len(layer.mode.gates)), 2):
        order = list(range(len(layer.mode.gates)))
        order[first], order[second] = second, first
        rows = [g * size + unit for g in order for unit in range(size)]
        label = f"gates {layer.mode.gates[first]} and {layer.mode.gates[second]} exchanged"
        with_changed(label, {name: weight[rows] for name, weight in weights.items() if not name.startswith("weight_hr")})
    for name, weight in weights.items():
        if name.startswith("bias"):
            with_changed(f"{name} dropped", {name: 0 * weight})
        if name.startswith("weight_hh") and not layer.proj_size and size > 1:
            blocks = weight.reshape(-1, size, size)
            with_changed(f"{name} transposed", {name: blocks.transpose(0, 2, 1).reshape(weight.shape)})
    wrong["states zero"] = alternative(case, h0=0 * case.arrays.h0, c0=None if case.arrays.c0 is None else 0 * case.arrays.c0)
    return wrong


@contract(
    "values.lstm_cell",
    "An LSTM step is i, f, g, o = chunk(W_ih x + b_ih + W_hh h + b_hh), c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c').",
    MUST,
    in_docs("LSTM: equations; Variables"),
    [*every(LSTM), *every(LSTM, dtype="float64"), *widths(LSTM), *lengths(LSTM)],
    _wrong_cells,
    demonstration="""
        with torch.no_grad():
            return layer(x, hx), layer(3 * x, hx)
    """,
)
def lstm_cell(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.gru_cell",
    "A GRU step is r, z = σ(W_i x + b_i + W_h h + b_h), n = tanh(W_in x + b_in + r·(W_hn h + b_hn)), h' = (1-z)·n + z·h, "
    "the rows in the order r, z, n.",
    MUST,
    in_docs("GRU: equations; Variables"),
    [*every(GRU), *every(GRU, dtype="float64"), *widths(GRU), *lengths(GRU)],
    _wrong_cells,
    demonstration="""
        with torch.no_grad():
            return layer(x, hx), layer(3 * x, hx)
    """,
)
def gru_cell(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.rnn_tanh_cell",
    "A tanh RNN step is h' = tanh(W_ih x + b_ih + W_hh h + b_hh).",
    MUST,
    in_docs("RNN: equations; Variables"),
    [HEADLINE, *every(RNN_TANH), *every(RNN_TANH, dtype="float64"), *widths(RNN_TANH), *lengths(RNN_TANH)],
    _wrong_cells,
    demonstration="""
        with torch.no_grad():
            return layer(x, hx), layer(3 * x, hx)
    """,
)
def rnn_tanh_cell(trial: Trial) -> None:
    agrees(trial)


def _wrong_relu_cells(case: Case) -> dict[str, dict[str, Array]]:
    # Without negative pre-activations a relu cannot be told from the identity: some outputs must be exactly zero.
    zeros = float((answer(case).tensors["output"] == 0).mean())
    if not zeros:
        raise ValueError(f"Expected negative pre-activations in {case.id} but no output is zero")
    return _wrong_cells(case)


@contract(
    "values.rnn_relu_cell",
    "A relu RNN step is h' = max(0, W_ih x + b_ih + W_hh h + b_hh), negative pre-activations included.",
    MUST,
    in_docs("RNN: nonlinearity"),
    [*every(RNN_RELU), *every(RNN_RELU, dtype="float64"), *widths(RNN_RELU), *lengths(RNN_RELU)],
    _wrong_relu_cells,
)
def rnn_relu_cell(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.output_sequence",
    "output[t] is h_t of the last layer, for every t.",
    MUST,
    in_docs("LSTM: Outputs: output"),
    [*every(num_layers=2, steps=7), *every(num_layers=2, steps=64, weights="remembering"), *every(steps=33, hidden_size=16)],
)
def output_sequence(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case), only=["output"])


def _wrong_c_n(case: Case) -> dict[str, dict[str, Array]]:
    right = answer(case).tensors
    wrong = {"tanh(c_n)": np.tanh(right["c_n"])}
    if not case.layer.proj_size:
        wrong["h_n for c_n"] = right["h_n"]
    return {name: {**right, "c_n": c_n} for name, c_n in wrong.items()}


@contract(
    "values.c_n",
    "c_n is the cell state after the last step, of every layer and direction: neither h_n nor tanh of it.",
    MUST,
    in_docs("LSTM: Outputs: c_n"),
    [
        *every(LSTM, num_layers=2, bidirectional=True),
        *every(LSTM, proj_size=3, num_layers=2),
        *every(LSTM, weights="remembering", steps=20),
    ],
    _wrong_c_n,
)
def c_n(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case), only=["c_n"])


def _wrong_stacks(case: Case) -> dict[str, dict[str, Array]]:
    weights, layers = case.arrays.weights, case.layer.num_layers
    wrong = {}
    for first, second in itertools.combinations(range(1, layers), 2):
        exchanged = dict(weights)
        for name in weights:
            if f"_l{first}" in name:
                other = name.replace(f"_l{first}", f"_l{second}")
                exchanged[name], exchanged[other] = weights[other], weights[name]
        wrong[f"weights of layers {first} and {second} exchanged"] = alternative(case, weights=exchanged)
    return wrong


@contract(
    "values.layers_stacked",
    "With L layers, each with its own weights and states, the output of one is the input of the next.",
    MUST,
    in_docs("LSTM: num_layers"),
    [
        *every(num_layers=3),
        *every(num_layers=4, input_size=6, hidden_size=4),
        *every(num_layers=3, input_size=2, hidden_size=33, dtype="float64"),
        # One step of one sequence, as a stream is read.
        *every(num_layers=3, steps=1, batch=1),
    ],
    _wrong_stacks,
)
def layers_stacked(trial: Trial) -> None:
    agrees(trial)


def _wrong_directions(case: Case) -> dict[str, dict[str, Array]]:
    weights, right, width = case.arrays.weights, answer(case).tensors, case.layer.state_size
    both = {name: weights[name.removesuffix("_reverse")] for name in weights}
    swapped = np.concatenate([right["output"][:, :, width:], right["output"][:, :, :width]], axis=2)
    flipped = np.concatenate([right["output"][:, :, :width], right["output"][::-1, :, width:]], axis=2)
    wrong = {
        "directions side by side the wrong way": {**right, "output": swapped},
        "reverse outputs in running order": {**right, "output": flipped},
    }
    # A layer whose directions share a shape of weights: with I = D * H_out in the first layer too.
    if all(both[name].shape == weights[name].shape for name in weights):
        wrong["forward weights in both directions"] = alternative(case, weights=both)
    return wrong


@contract(
    "values.reverse_direction",
    "The reverse direction has its own weights and reads the sequence from its end; output[t] holds its state after it has read x[t].",
    MUST,
    in_docs("LSTM: bidirectional; Outputs: output"),
    [
        *every(bidirectional=True),
        *every(bidirectional=True, steps=33, hidden_size=17),
        *every(bidirectional=True, dtype="float64", given_state=False),
    ],
    _wrong_directions,
)
def reverse_direction(trial: Trial) -> None:
    agrees(trial)


def _wrong_joins(case: Case) -> dict[str, dict[str, Array]]:
    layer, weights = case.layer, case.arrays.weights
    width = layer.state_size
    wrong = dict(weights)
    for name in weights:
        if name.startswith("weight_ih") and "_l0" not in name:
            wrong[name] = np.concatenate([weights[name][:, width:], weights[name][:, :width]], axis=1)
    return {"the next layer reads the directions the wrong way round": alternative(case, weights=wrong)}


@contract(
    "values.directions_joined",
    "Every layer but the first reads the outputs of both directions of the one below, forward first: 2·H_out features.",
    MUST,
    in_docs("LSTM: Variables: weight_ih_l[k]"),
    [
        *every(bidirectional=True, num_layers=2),
        *every(bidirectional=True, num_layers=3, input_size=7, hidden_size=4),
        *every(LSTM, bidirectional=True, num_layers=3, proj_size=3, dtype="float64"),
    ],
    _wrong_joins,
)
def directions_joined(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.projection",
    "With proj_size P the LSTM's h is W_hr (σ(o)·tanh(c')) at every step: h has P features, c keeps H.",
    MUST,
    in_docs("LSTM: proj_size"),
    [
        *every(LSTM, proj_size=2),
        *every(LSTM, proj_size=4, bias=False, steps=9),
        *every(LSTM, proj_size=3, bidirectional=True, num_layers=2, batch_first=True),
        *every(LSTM, proj_size=16, input_size=16, hidden_size=33, dtype="float64"),
        *every(LSTM, proj_size=2, num_layers=3, steps=6, batch=4, lengths=(3, 6, 1, 4)),
    ],
    _wrong_cells,
)
def projection(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.options_combined",
    "Options do not disturb each other: every pair of options, and every four of those that shape the computation, gives the right values.",
    MUST,
    in_docs("LSTM: Args; Inputs; Outputs"),
    [case for mode in Mode for case in combined(mode)],
)
def options_combined(trial: Trial) -> None:
    agrees(trial)


def _relit(case: Case) -> dict[str, Array]:
    """The case's input as data of other kinds."""
    x = case.arrays.x
    # What stands for padding elsewhere, of each sequence another number.
    filled = np.broadcast_to(np.resize([0.0, -1.0, 1.0], case.batch)[:, None], x[:2].shape)
    return {
        "whole numbers": np.round(2 * x),
        "steps of zeros": x * (np.arange(case.steps) % 3 != 1)[:, None, None],
        "zeros at the end": np.concatenate([x[:-2], 0 * x[-2:]]),
        "steps of one number at the end": np.concatenate([x[:-2], filled]),
        "steps of one number at the beginning": np.concatenate([filled, x[2:]]),
        "zeros and minus ones": -1.0 * (x < 0),
        "zeros": 0 * x,
    }


@contract(
    "values.kinds_of_data",
    "Whole numbers, steps of zeros, wherever they are, and an input of zeros are data like any other, and get their gradients: no value "
    "stands for padding.",
    MUST,
    "torch.nn.LSTM: Inputs: input; keras masks steps of zeros, torch does not",
    [
        *every(num_layers=2, steps=7),
        *every(steps=6, bidirectional=True, batch_first=True, dtype="float64"),
        *every(steps=6, given_state=False, bidirectional=True),
    ],
    demonstration="""
        slopes, outputs = [], []
        for given in ((2 * x).round(), 0 * x, -(x < 0).to(dtype), x.relu(), torch.cat([x[:-2], 0 * x[-2:]])):
            outputs.append(layer(given.requires_grad_(), hx)[0])
            slopes += torch.autograd.grad(outputs[-1].sum(), given, retain_graph=True)
        return outputs, slopes
    """,
)
def kinds_of_data(trial: Trial) -> None:
    for x in _relit(trial.case).values():
        module, leaves = trial.module(), trial.leaves(requires_grad=True)
        leaves["x"] = tensor(x, trial.case).requires_grad_()
        expected = altered(trial.case, inputs={"x": x}, through=("output",))
        assert expected.forward is not None
        trial.agree(trial.answer(module, leaves).arrays(), expected.forward)
        trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
        trial.agree(trial.collect(trial.wanted(leaves, module)), expected)

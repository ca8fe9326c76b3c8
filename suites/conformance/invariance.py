"""Invariances: what one sequence, one unit or one step of time cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from harness.case import Array, Case
from harness.layer import Mode
from harness.reference import Expected, altered, answer, gradients, tensor
from harness.trial import ContractError, Trial
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MUST, contract, in_docs

_WHOLE = [
    *every(steps=7, batch=5, num_layers=2),
    *every(steps=6, batch=4, num_layers=2, bidirectional=True, batch_first=True),
    *every(steps=5, batch=67, hidden_size=4),
]


def _given(trial: Trial, inputs: Mapping[str, Array], case: Case | None = None, train: bool = True) -> dict[str, Array]:
    """The answer to other inputs of the case's form, in training or in eval mode."""
    case = case or trial.case
    leaves = {name: tensor(array, case) for name, array in inputs.items()}
    with torch.no_grad():
        return trial.call(trial.module().train(train), *trial.form(leaves, case), case).arrays()


@contract(
    "invariance.batch_items_alone",
    "Each sequence of a batch gets what it gets in a batch of one.",
    MUST,
    "torch.nn.LSTM: Shape; pytorch#95118, pytorch#80306: right for B=1, wrong above",
    _WHOLE,
)
def batch_items_alone(trial: Trial) -> None:
    whole, case = answer(trial.case), replace(trial.case, batch=1)
    trial.agree(trial.answer().arrays(), whole)
    for b in {0, trial.case.batch // 2, trial.case.batch - 1}:
        alone = _given(trial, {name: array[:, b : b + 1] for name, array in trial.case.arrays.inputs().items()}, case)
        expected = replace(whole, tensors={name: value[:, b : b + 1] for name, value in whole.tensors.items()})
        trial.agree(alone, expected)


@contract(
    "invariance.batch_permuted",
    "Permuting the sequences of a batch, with their states, permutes the answer.",
    MUST,
    in_docs("LSTM: Shape"),
    _WHOLE,
)
def batch_permuted(trial: Trial) -> None:
    order = np.random.Generator(np.random.PCG64(1)).permutation(trial.case.batch)
    whole = answer(trial.case)
    permuted = _given(trial, {name: np.ascontiguousarray(array[:, order]) for name, array in trial.case.arrays.inputs().items()})
    trial.agree(permuted, replace(whole, tensors={name: value[:, order] for name, value in whole.tensors.items()}))


@contract(
    "invariance.causal",
    "In one direction, output[:t] does not depend on x[t:].",
    MUST,
    in_docs("LSTM: equations"),
    [*every(steps=9, batch=3, num_layers=2), *every(steps=40, batch=2, batch_first=True)],
)
def causal(trial: Trial) -> None:
    inputs, whole = trial.case.arrays.inputs(), answer(trial.case)
    for t in (1, trial.case.steps // 2, trial.case.steps - 1):
        x = inputs["x"].copy()
        x[t:] = -2 * x[t:] + 1
        before = {"output": _given(trial, {**inputs, "x": x})["output"][:t]}
        trial.agree(before, replace(whole, tensors={"output": whole.tensors["output"][:t]}))


@contract(
    "invariance.hidden_units_permuted",
    "Permuting the hidden units in every weight and state permutes the output: no unit is treated apart.",
    MUST,
    in_docs("LSTM: equations"),
    [*every(hidden_size=9), *every(hidden_size=33, steps=3), *every(hidden_size=17, bidirectional=True)],
)
def hidden_units_permuted(trial: Trial) -> None:
    layer, arrays = trial.case.layer, trial.case.arrays
    order = np.random.Generator(np.random.PCG64(2)).permutation(layer.hidden_size)
    rows = np.concatenate([gate * layer.hidden_size + order for gate in range(len(layer.mode.gates))])
    weights = {name: weight[rows] for name, weight in arrays.weights.items()}
    weights = {name: weight[:, order] if name.startswith("weight_hh") else weight for name, weight in weights.items()}
    # Laid out anew, because this is not about states that are not contiguous.
    inputs = {name: array if name == "x" else np.ascontiguousarray(array[:, :, order]) for name, array in arrays.inputs().items()}
    leaves = {name: tensor(array, trial.case) for name, array in inputs.items()}
    actual = trial.answer(trial.module(weights=weights), leaves).arrays()
    columns = np.concatenate([direction * layer.hidden_size + order for direction in range(layer.directions)])
    whole = answer(trial.case)
    tensors = {name: value[:, :, columns if name == "output" else order] for name, value in whole.tensors.items()}
    trial.agree(actual, replace(whole, tensors=tensors))


@contract(
    "invariance.saturation",
    "Inputs of the order of 10 nearly saturate the gates of a tanh RNN, GRU or LSTM, those of 1e4 (float16: 1e3, bfloat16: 1e6) do, and "
    "both give right values; the gradients are finite.",
    MUST,
    in_docs("LSTM: equations"),
    [
        *every(RNN_TANH, GRU, LSTM, num_layers=2),
        *every(RNN_TANH, GRU, LSTM, batch=2, bidirectional=True, dtype="float64"),
        *every(RNN_TANH, GRU, LSTM, batch=2, dtype="float16"),
        # The sign of a sum of 1e6 that nearly cancels is anybody's guess: none of this seed's does.
        *every(RNN_TANH, GRU, LSTM, batch=2, dtype="bfloat16", seed=3),
    ],
    demonstration="""
        output = layer(4096 * x, hx)[0]
        output.sum().backward()
        return output, layer(16 * x, hx)[0], [p.grad.isfinite().all().double() for p in layer.parameters()]
    """,
)
def saturation(trial: Trial) -> None:
    case, inputs = trial.case, trial.case.arrays.inputs()
    generator = np.random.Generator(np.random.PCG64(4))
    # Powers of two: the scaled input is as exact as the input.
    most = {"float16": 11, "bfloat16": 20}.get(case.dtype, 14)
    far, near = (
        {**inputs, "x": inputs["x"] * 2.0 ** generator.integers(low, high, inputs["x"].shape)}
        for low, high in ((most - 1, most + 1), (2, 5))
    )
    # Near saturation float64 still tells from one what float32 does not: 1 - tanh(10) is 4e-9.
    for given in (far, near):
        trial.agree(_given(trial, given), altered(case, inputs={"x": given["x"]}))
    # Their slopes are next to nothing, and what is left of them is rounding; but they are numbers.
    module, leaves = trial.module(), {name: tensor(array, case).requires_grad_() for name, array in far.items()}
    trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
    lost = [name for name, value in trial.collect(trial.wanted(leaves, module)).items() if not np.isfinite(value).all()]
    if lost:
        raise ContractError(f"Expected finite gradients of saturated gates, but that of {', '.join(lost)} is not")


@contract(
    "invariance.nan_contained",
    "A NaN or an infinity in one step of one sequence leaves the other sequences, with their gradients, and the earlier steps of its own, "
    "as they were; a NaN is seen in its own.",
    MUST,
    "torch.nn.LSTM: equations; users mask what they do not want to see",
    [
        # Past a tile of sequences and of units: what fills up the last one is multiplied by zero, and a NaN stays.
        *every(steps=6, batch=18, num_layers=2, hidden_size=19),
        *every(steps=6, batch=9, batch_first=True),
        *every(steps=5, batch=9, bidirectional=True),
        *every(steps=5, batch=9, lengths=(2, 5, 4, 1, 5, 3, 2, 4, 3)),
        # The step of the NaN is the last one, which the shorter sequences do not have and the reverse direction begins with.
        *every(steps=4, batch=9, lengths=(2, 4, 3, 1, 4, 3, 2, 4, 1), bidirectional=True),
        *every(steps=5, batch=3, dtype="bfloat16"),
        *every(steps=5, batch=3, dtype="float16", batch_first=True),
    ],
    demonstration="""
        with torch.no_grad():
            started = layer.eval()(x, torch.utils._pytree.tree_map(lambda state: state * float("nan"), hx))[0].data.isnan().double()
            (x.data[0] if isinstance(x, tuple) else x[1, 3] if reference.batch_first else x[3, 1])[0] = float("nan")
            output = torch.cat([layer.train(mode)(x, hx)[0].data for mode in (False, True)])
        again = (lambda value: value[0] if isinstance(value, tuple) else value)(layer(x, hx)[0])
        found = [output, again.detach(), *torch.autograd.grad(again, leaves, 1 + 0 * again.detach())]
        return started, [(value.isnan().double(), value.nan_to_num()) for value in found]
    """,
)
def nan_contained(trial: Trial) -> None:
    layer, inputs, whole = trial.case.layer, trial.case.arrays.inputs(), answer(trial.case)
    others = [b for b in range(trial.case.batch) if b != 1]
    for poison, train in ((np.nan, True), (np.nan, False), (np.inf, False)):
        x = inputs["x"].copy()
        x[3, 1, 0] = poison
        actual = _given(trial, {**inputs, "x": x}, train=train)
        trial.agree({name: value[:, others] for name, value in actual.items()}, _of_items(whole, others))
        if not layer.bidirectional:
            trial.agree({"output": actual["output"][:3]}, replace(whole, tensors={"output": whole.tensors["output"][:3]}))
        # A relu passes an infinity on and may turn it into zero; a NaN must stay seen everywhere.
        if np.isnan(poison) and np.isfinite(actual["output"][3:, 1]).all():
            raise ContractError("Expected the NaN to be seen in the output of its own sequence, but all of it is finite")
    # In a state, and all the features of a step infinite, of which the products have either sign.
    for name in inputs:
        poisoned = inputs[name].copy()
        poisoned[(3 if name == "x" else 0), 1] = np.inf if name == "x" else np.nan
        actual = _given(trial, {**inputs, name: poisoned}, train=name == "x")
        trial.agree({name: value[:, others] for name, value in actual.items()}, _of_items(whole, others))
        if np.isfinite(actual["output"][:, 1]).all():
            raise ContractError(f"Expected an answer that is not finite to a {name} that is not, but all of the output is finite")
    _nan_contained_backwards(trial, others)


def _nan_contained_backwards(trial: Trial, others: list[int]) -> None:
    """With gradients recorded, and with a NaN in the gradient that comes in to the sequence of the NaN as well."""
    case = trial.case
    module, leaves = trial.module(), trial.leaves()
    leaves["x"][3, 1, 0] = torch.nan
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    reply = trial.call(module, *trial.form(leaves))
    actual, whole, slopes = reply.arrays(), answer(case), gradients(case, ("output",))
    trial.agree({name: value[:, others] for name, value in actual.items()}, _of_items(whole, others))
    if np.isfinite(actual["output"][3:, 1]).all():
        raise ContractError("Expected the NaN to be seen in the output with gradients recorded, but all of its sequence is finite")
    cotangent = tensor(case.arrays.cotangents["output"], case)
    cotangent[:, 1] = torch.nan
    with trial.blamed("backward"):
        reply.tensors["output"].backward(cotangent)
    found = {name: value[:, others] for name, value in trial.collect(leaves).items()}
    trial.agree(found, _of_items(slopes, others), only=list(leaves))


def _of_items(expected: Expected, items: list[int]) -> Expected:
    """What is expected of some sequences of the batch, of the tensors that have a batch axis."""
    tensors = {name: value[:, items] for name, value in expected.tensors.items() if value.ndim == 3}
    return replace(expected, tensors=tensors)


@contract(
    "invariance.nan_in_weights",
    "A NaN in a weight is seen in the answer: a training that has diverged does not look like one that has not.",
    MUST,
    in_docs("LSTM: equations"),
    [*every(steps=3, batch=2), *every(steps=3, batch=2, dtype="bfloat16", bidirectional=True)],
    demonstration="""
        def answer(name):
            first = dict(layer.named_parameters())[name].data.view(-1)[:1]
            first += float("nan")
            seen, _ = layer(x, hx)[0].isnan().any().double(), first.zero_()
            return seen
        return [ask(name) for ask in (answer, torch.no_grad()(answer)) for name in sorted(layer.state_dict())]
    """,
)
def nan_in_weights(trial: Trial) -> None:
    weights = trial.case.arrays.weights
    for name, weight in weights.items():
        poisoned = weight.copy()
        poisoned[(0,) * weight.ndim] = np.nan
        module = trial.module(weights={**weights, name: poisoned})
        for train, grad in ((True, True), (True, False), (False, False)):
            with torch.set_grad_enabled(grad):
                found = trial.call(module.train(train), *trial.form(trial.leaves())).arrays()
            if not np.isnan(found["output"]).any():
                raise ContractError(f"Expected a NaN in {name} to be seen in the output, but it has none")


@contract(
    "invariance.zero_weights",
    "With all weights zero the answer is known in closed form: an LSTM has c' = c/2 and h' = tanh(c')/2, a GRU h' = h/2, an RNN 0.",
    MUST,
    in_docs("LSTM: equations"),
    [*every(steps=4, given_state=True), *every(steps=3, num_layers=2, bidirectional=True, dtype="float64")],
)
def zero_weights(trial: Trial) -> None:
    zero = {name: 0 * weight for name, weight in trial.case.arrays.weights.items()}
    actual = trial.answer(trial.module(weights=zero)).arrays()
    steps, arrays = trial.case.steps, trial.case.arrays
    if trial.case.layer.mode is Mode.LSTM:
        assert arrays.c0 is not None
        c_n = arrays.c0 * 0.5**steps
        right = {"c_n": c_n, "h_n": 0.5 * np.tanh(c_n)}
    elif trial.case.layer.mode is Mode.GRU:
        right = {"h_n": arrays.h0 * 0.5**steps}
    else:
        right = {"h_n": 0 * arrays.h0}
    # The closed form is the expectation; the noise around it is that of this very case.
    trial.agree(actual, replace(altered(trial.case, weights=zero), tensors=right))


@contract(
    "invariance.integers",
    "A relu RNN with weights of one gives the integers that one can count: no order of summation changes them.",
    MUST,
    in_docs("RNN: nonlinearity"),
    [make(RNN_RELU, 2, 3, steps=4, batch=2), make(RNN_RELU, 1, 2, steps=5, batch=1, dtype="float64")],
)
def integers(trial: Trial) -> None:
    case, layer = trial.case, trial.case.layer
    ones = {name: 1 + 0 * weight for name, weight in case.arrays.weights.items()}
    x, h0 = np.ones_like(case.arrays.x), np.ones_like(case.arrays.h0)
    leaves = {"x": tensor(x, case), "h0": tensor(h0, case)}
    actual = trial.answer(trial.module(weights=ones), leaves).arrays()["output"]
    h = 1.0
    for t in range(case.steps):
        h = layer.input_size + 2 + layer.hidden_size * h
        if not (actual[t] == h).all():
            raise ContractError(f"Expected every unit to be {h:g} after step {t} but got {actual[t].ravel()[0]:g}")

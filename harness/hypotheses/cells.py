"""Faults of values within one step: other equations, biases dropped, weights transposed, gates exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.case import Array
from harness.hypotheses.base import SYMBOLS, Evidence, Hypotheses, Hypothesis, picking
from harness.layer import Layer, Mode
from harness.oracle import Seams, sigmoid


def biases_and_transposes(e: Evidence) -> Hypotheses:
    """Biases dropped or in each other's place, and weights transposed."""
    weights, size = e.weights, e.layer.hidden_size

    def taking(kind: str, other: str) -> dict[str, Any]:
        changed = {name: weights[name.replace(kind, other)] if name.startswith(kind) else w for name, w in weights.items()}
        return {"weights": changed}

    if e.layer.bias:
        yield Hypothesis("b_ih dropped", e.weight(lambda w: 0 * w, "bias_ih"))
        yield Hypothesis("b_hh dropped", e.weight(lambda w: 0 * w, "bias_hh"))
        yield Hypothesis("both biases dropped", e.weight(lambda w: 0 * w, "bias_ih", "bias_hh"))
        yield Hypothesis("b_ih in place of b_hh too", taking("bias_hh", "bias_ih"))
        yield Hypothesis("b_hh in place of b_ih too", taking("bias_ih", "bias_hh"))
    each = "" if len(e.layer.mode.gates) == 1 else " in each gate"
    for kind in ("weight_hh", "weight_ih"):
        square = [name for name, w in weights.items() if name.startswith(kind) and w.shape[1] == size]
        if square and size > 1:
            turned = {name: weights[name].reshape(-1, size, size).swapaxes(1, 2).reshape(weights[name].shape) for name in square}
            yield Hypothesis(f"{SYMBOLS[kind]} transposed{each}", {"weights": {**weights, **turned}})


def equations(e: Evidence) -> Hypotheses:
    """Other equations for one step."""
    mode, size = e.layer.mode, e.layer.hidden_size
    right = {Mode.LSTM: _lstm(), Mode.GRU: _gru(), Mode.RNN_TANH: _rnn(np.tanh), Mode.RNN_RELU: _rnn(lambda a: np.maximum(a, 0))}[mode]

    def forgetful(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: Array | None, rounding: Any) -> Any:
        return right(layer, weights, suffix, x, 0 * h, None if c is None else 0 * c, rounding)

    def step(name: str, function: Callable[..., tuple[Array, Array | None, Any]]) -> Hypothesis:
        return Hypothesis(name, {"seams": Seams(step=function)})

    yield step("every step starting from a zero state", forgetful)
    if mode is Mode.LSTM:
        yield step("one added to the forget gate", _lstm(forget=1.0))
        yield step("a sigmoid in place of tanh for g", _lstm(candidate=sigmoid))
        yield step("h' = sigmoid(o) c' without the tanh", _lstm(squash=_identity))
        yield step("piecewise linear gates in place of the sigmoid", _lstm(gate=lambda a: np.clip(a / 6 + 0.5, 0, 1)))
        yield step("the output gate left out", _lstm(opened=True))
        if e.layer.proj_size:
            yield step("W_hr left out (the first P features of the unprojected h)", _lstm(projected=False))
    elif mode is Mode.GRU:

        def complemented(w: Array) -> Array:
            return np.concatenate([w[:size], -w[size : 2 * size], w[2 * size :]])

        yield Hypothesis("the update gate complemented: h' = z n + (1 - z) h", e.weight(complemented, "weight_ih", "weight_hh", "bias_"))
        yield step("the reset gate applied to h before the product with W_hn", _gru(reset_before=True))
        yield step("the reset gate left out", _gru(reset=False))
        if e.layer.bias:
            outside = e.weights
            for _, _, _, suffix in e.layer.slots():
                moved = np.concatenate([np.zeros(2 * size), outside[f"bias_hh{suffix}"][2 * size :]])
                outside[f"bias_ih{suffix}"], outside[f"bias_hh{suffix}"] = (
                    outside[f"bias_ih{suffix}"] + moved,
                    outside[f"bias_hh{suffix}"] - moved,
                )
            yield Hypothesis("b_hn added outside the reset gate", {"weights": outside})
    elif mode is Mode.RNN_TANH:
        yield Hypothesis("a relu in place of tanh", {"layer": replace(e.layer, mode=Mode.RNN_RELU)})
        yield step("no activation", _rnn(_identity))
        yield step("a sigmoid in place of tanh", _rnn(sigmoid))
    else:
        yield Hypothesis("a tanh in place of relu", {"layer": replace(e.layer, mode=Mode.RNN_TANH)})
        yield step("no activation", _rnn(_identity))
        yield step("a leaky relu of slope 0.01", _rnn(lambda a: np.where(a > 0, a, 0.01 * a)))
        yield step("a relu cut off at 6", _rnn(lambda a: np.clip(a, 0, 6)))


def _identity(a: Array) -> Array:
    return a


def _products(weights: Mapping[str, Array], suffix: str, x: Array, h: Array) -> tuple[Array, Array]:
    bias_ih, bias_hh = weights.get(f"bias_ih{suffix}", 0.0), weights.get(f"bias_hh{suffix}", 0.0)
    return x @ weights[f"weight_ih{suffix}"].T + bias_ih, h @ weights[f"weight_hh{suffix}"].T + bias_hh


def _lstm(
    forget: float = 0.0,
    gate: Callable[[Array], Array] = sigmoid,
    candidate: Callable[[Array], Array] = np.tanh,
    squash: Callable[[Array], Array] = np.tanh,
    opened: bool = False,
    projected: bool = True,
) -> Callable[..., tuple[Array, Array | None, Any]]:
    """An LSTM's step with one part of it changed."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: Array, rounding: Any) -> Any:
        i, f, g, o = np.split(np.add(*_products(weights, suffix, x, h)), 4, axis=1)
        new_c = gate(f + forget) * c + gate(i) * candidate(g)
        m = squash(new_c) if opened else gate(o) * squash(new_c)
        if layer.proj_size:
            m = m @ weights[f"weight_hr{suffix}"].T if projected else m[:, : layer.proj_size]
        return m, new_c, None

    return step


def _gru(reset_before: bool = False, reset: bool = True) -> Callable[..., tuple[Array, Array | None, Any]]:
    """A GRU's step with another use of the reset gate."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: None, rounding: Any) -> Any:
        from_x, from_h = _products(weights, suffix, x, h)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3, axis=1), np.split(from_h, 3, axis=1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        if reset_before:
            h_n = np.split(_products(weights, suffix, x, r * h)[1], 3, axis=1)[2]
        elif reset:
            h_n = r * h_n
        return (1 - z) * np.tanh(x_n + h_n) + z * h, None, None

    return step


def _rnn(activation: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array | None, Any]]:
    """An RNN's step with another activation."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: None, rounding: Any) -> Any:
        return activation(np.add(*_products(weights, suffix, x, h))), None, None

    return step


def gate_orders(e: Evidence) -> Hypotheses:
    """Every order of the gates' rows, in weights and biases and in the biases alone; exchanges of two first."""
    gates, size = e.layer.mode.gates, e.layer.hidden_size
    orders = [order for order in itertools.permutations(range(len(gates))) if order != tuple(range(len(gates)))]
    orders.sort(key=lambda order: sum(gate != row for gate, row in enumerate(order)))
    for where, kinds in (("", ("weight_ih", "weight_hh", "bias_")), (" in the biases alone", ("bias_",))):
        for order in orders if e.layer.bias or not where else []:
            # Gate k reads the rows that belong to gate order[k].
            rows = [gate * size + unit for gate in order for unit in range(size)]
            moved = [gate for gate, row in enumerate(order) if gate != row]
            name = f"gates {' and '.join(gates[gate] for gate in moved)} exchanged"
            if len(moved) > 2:
                name = f"gate rows read in the order {', '.join(gates[order.index(row)] for row in range(len(gates)))}"
            yield Hypothesis(name + where, e.weight(picking(rows), *kinds))

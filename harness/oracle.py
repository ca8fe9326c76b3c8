r"""RNN, GRU and LSTM in float64 NumPy, forward and backward, written from the published equations; imports no torch.

Equations, as torch.nn documents them (sections of torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM):

    RNN    h' = act(W_ih x + b_ih + W_hh h + b_hh),  act = tanh or relu
    GRU    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh) on their rows
           n = tanh(W_in x + b_in + r * (W_hn h + b_hn)),  h' = (1 - z) * n + z * h
    LSTM   i, f, o = sigmoid(...), g = tanh(...),  c' = f * c + i * g,  m = o * tanh(c'),  h' = m, or W_hr m where it projects

The backward pass is the chain rule over these, by hand (Werbos 1990, "Backpropagation through time"); the tests hold it
against differences of the forward pass. Sequences of unequal length are handled by a mask: a step that does not exist
leaves the state of its sequence as it was, so the final state is the one at the sequence's own end, and the reverse
direction, which runs from T-1 down, begins at that end too.

Every array may have further axes before B, here written "...": copies that run side by side and differ in their rounding, for
instance. Weights are shared by the copies; the gradients of weights have the axes in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from harness.case import Array, Case
from harness.layer import Layer, Mode


class Rounding(Protocol):
    """What is done to every intermediate result: nothing, or what a narrower arithmetic would do to it."""

    def __call__(self, a: Array, least: float | Array | None = None) -> Array:
        """``a`` as the arithmetic has it; errors are relative to each value, or to ``least`` where that is larger."""

    def sum(self, a: Array) -> Array:
        """A running sum ``a``, to which a term was just added, as the arithmetic has it."""

    def either(self, a: Array, least: Array) -> Array:
        """``a`` as far off as the arithmetic may have it, above in one copy and below in the next: its sign is both where it is open."""


class _Exact:
    """No rounding beyond float64's own."""

    def __call__(self, a: Array, least: float | Array | None = None) -> Array:
        return a

    def sum(self, a: Array) -> Array:
        return a

    def either(self, a: Array, least: Array) -> Array:
        return a


exact = _Exact()


#: tanh(a) is often computed as 2 sigmoid(2a) - 1, whose error near zero is that of a number near one half.
_TANH_LEAST = 0.5


@dataclass(frozen=True)
class Answer:
    """What a layer gives back: output (T, ..., B, D*H_out), zero on padding; h_n (L*D, ..., B, H_out); c_n (L*D, ..., B, H) or None."""

    output: Array
    h_n: Array
    c_n: Array | None
    _tape: list[_Slot] = field(default_factory=list, repr=False)
    _rounding: Rounding = field(default=exact, repr=False)

    def tensors(self) -> dict[str, Array]:
        """The answer by name: output, h_n, and c_n for an LSTM."""
        named = {"output": self.output, "h_n": self.h_n}
        return named if self.c_n is None else {**named, "c_n": self.c_n}


@dataclass
class _Slot:
    """One direction of one layer as it ran: its input, the order of its steps and, per step, what the backward pass needs."""

    index: int
    layer: int
    direction: int
    suffix: str
    order: Sequence[int]
    x: Array
    steps: dict[int, Any]


#: Runs one direction of one layer from h and c over the steps that exist: its outputs (T, B, H_out), the final h and the final c.
Run = Callable[[_Slot, Array, Array | None, Any], tuple[Array, Array, Array | None]]


def _as_it_is(run: Run, slot: _Slot, h: Array, c: Array | None, valid: Any) -> tuple[Array, Array, Array | None]:
    return run(slot, h, c, valid)


def _untouched(output: Array, level: int) -> Array:
    return output


def _all_of_it(slot: _Slot, t: int, name: str, part: Array) -> Array:
    return part


@dataclass(frozen=True)
class Seams:
    """Where a fault can be put in on purpose, to ask what it would answer (see harness.diagnosis); as it stands, nothing is changed.

    ``step`` takes the place of one step of one cell (None: the right one). ``direction`` is put around the run of one direction of one
    layer, ``below`` is applied to what a layer above the first reads. ``passed`` is applied to each part that a step passes back: to
    "x", "h" and "c" before it, and to every weight by its kind.
    """

    step: Callable[..., tuple[Array, Array | None, Any]] | None = None
    direction: Callable[[Run, _Slot, Array, Array | None, Any], tuple[Array, Array, Array | None]] = _as_it_is
    below: Callable[[Array, int], Array] = _untouched
    passed: Callable[[_Slot, int, str, Array], Array] = _all_of_it


SOUND = Seams()


def evaluate(case: Case, **changes: Any) -> Answer:
    """The answer to ``case``; keyword arguments replace x, h0, c0, weights or valid, for asking "what if"."""
    arrays = case.arrays
    inputs = {"weights": arrays.weights, "x": arrays.x, "h0": arrays.h0, "c0": arrays.c0, "valid": case.valid, **changes}
    return forward(case.layer, **inputs)


def forward(
    layer: Layer,
    weights: Mapping[str, Array],
    x: Array,
    h0: Array,
    c0: Array | None,
    valid: Any,
    masks: Sequence[Array] | None = None,
    rounding: Rounding = exact,
    seams: Seams = SOUND,
) -> Answer:
    """Runs the layer on x (T, ..., B, I) from h0 (L*D, ..., B, H_out) and c0 (L*D, ..., B, H); ``valid`` (T, B) says which steps exist.

    ``masks``: one array (T, ..., B, D*H_out) for each layer but the last, multiplied onto its output (dropout with a known mask).
    ``rounding`` is applied to pre-activations, gates and states of every step, and to the gradients of the backward pass that follows.
    """
    steps, step = x.shape[0], seams.step or _step

    def run(slot: _Slot, h: Array, c: Array | None, valid: Any) -> tuple[Array, Array, Array | None]:
        ys = np.zeros((*x.shape[:-1], layer.state_size))
        for t in slot.order:
            alive = valid[t][:, None]
            new_h, new_c, slot.steps[t] = step(layer, weights, slot.suffix, slot.x[t], h, c, rounding)
            ys[t] = np.where(alive, new_h, 0.0)
            h = np.where(alive, new_h, h)
            c = None if c is None or new_c is None else np.where(alive, new_c, c)
        return ys, h, c

    tape: list[_Slot] = []
    h_n, c_n = np.empty_like(h0), None if c0 is None else np.empty_like(c0)
    output = x
    sequence: list[Array] = []
    for index, level, direction, suffix in layer.slots():
        if direction == 0 and level > 0:
            output = np.concatenate(sequence, axis=-1)
            if masks is not None:
                output = output * masks[level - 1]
            output = seams.below(output, level)
        if direction == 0:
            sequence = []
        order = range(steps - 1, -1, -1) if direction else range(steps)
        slot = _Slot(index, level, direction, suffix, order, output, {})
        ys, h, c = seams.direction(run, slot, h0[index], None if c0 is None else c0[index], valid)
        h_n[index] = h
        if c_n is not None:
            c_n[index] = c
        sequence.append(ys)
        tape.append(slot)
    return Answer(np.concatenate(sequence, axis=-1), h_n, c_n, tape, rounding)


def backward(
    layer: Layer,
    weights: Mapping[str, Array],
    answer: Answer,
    valid: Any,
    cotangents: Mapping[str, Array],
    masks: Sequence[Array] | None = None,
    seams: Seams = SOUND,
) -> dict[str, Array]:
    """Gradients of sum(cotangent * tensor) over ``cotangents`` (any of output, h_n, c_n): x, h0, c0 and every weight, by name.

    The gradient of a weight has the weight's shape, with the further axes of the answer before it.
    """
    copies = answer.output.shape[1:-2]
    d_output = cotangents.get("output", np.zeros_like(answer.output))
    d_h_n = cotangents.get("h_n", np.zeros_like(answer.h_n))
    d_c_n = None if answer.c_n is None else cotangents.get("c_n", np.zeros_like(answer.c_n))
    gradients = {name: np.zeros((*copies, *weight.shape)) for name, weight in weights.items()}
    d_h0, d_c0 = np.zeros_like(answer.h_n), None if answer.c_n is None else np.zeros_like(answer.c_n)
    d_x = np.zeros(0)
    for slot in reversed(answer._tape):
        if slot.direction == layer.directions - 1:
            if slot.layer < layer.num_layers - 1:
                d_output = d_x if masks is None else d_x * masks[slot.layer]
            d_x = np.zeros_like(slot.x)
        span = slice(slot.direction * layer.state_size, (slot.direction + 1) * layer.state_size)
        d_h, d_c = d_h_n[slot.index], None if d_c_n is None else d_c_n[slot.index]
        for t in reversed(slot.order):
            alive = valid[t][:, None]
            d_new_h = np.where(alive, d_h + d_output[t][..., span], 0.0)
            d_new_c = None if d_c is None else np.where(alive, d_c, 0.0)
            d_x_t, d_prev_h, d_prev_c = _step_backward(layer, weights, slot, t, d_new_h, d_new_c, gradients, answer._rounding, seams)
            d_x[t] += d_x_t
            d_h = np.where(alive, d_prev_h, d_h)
            d_c = None if d_c is None else np.where(alive, d_prev_c, d_c)
        d_h0[slot.index] = d_h
        if d_c0 is not None:
            d_c0[slot.index] = d_c
    return {"x": d_x, "h0": d_h0, **({} if d_c0 is None else {"c0": d_c0}), **gradients}


def sigmoid(a: Array) -> Array:
    """The logistic function."""
    # The half-angle form does not overflow for large negative arguments.
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def _gates(a: Array, count: int) -> list[Array]:
    """``a`` cut along its last axis into ``count`` equal views."""
    # np.split does the same, and takes longer than the arithmetic of a small step.
    width = a.shape[-1] // count
    return [a[..., k * width : (k + 1) * width] for k in range(count)]


def _step(
    layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: Array | None, rounding: Rounding
) -> tuple[Array, Array | None, Any]:
    """One step of one cell: the new h, the new c, and what the backward pass needs."""
    from_x = x @ weights[f"weight_ih{suffix}"].T
    from_h = h @ weights[f"weight_hh{suffix}"].T
    if layer.bias:
        from_x = from_x + weights[f"bias_ih{suffix}"]
        from_h = from_h + weights[f"bias_hh{suffix}"]
    terms: Array | float = 0.0
    if rounding is not exact:
        # Where the terms of a product cancel, the error is of their size and not of the sum's.
        of_x = np.sqrt((x * x) @ (weights[f"weight_ih{suffix}"] ** 2).T)
        of_h = np.sqrt((h * h) @ (weights[f"weight_hh{suffix}"] ** 2).T)
        terms = of_x + of_h
        from_x, from_h = rounding(from_x, of_x), rounding(from_h, of_h)
    if layer.mode is Mode.LSTM:
        assert c is not None
        i, f, g, o = _gates(from_x + from_h, 4)
        i, f, g, o = rounding(sigmoid(i)), rounding(sigmoid(f)), rounding(np.tanh(g), _TANH_LEAST), rounding(sigmoid(o))
        new_c = rounding(f * c + i * g)
        squashed = rounding(np.tanh(new_c), _TANH_LEAST)
        m = o * squashed
        new_h = m @ weights[f"weight_hr{suffix}"].T if layer.proj_size else m
        return rounding(new_h), new_c, (h, c, i, f, g, o, squashed, m)
    if layer.mode is Mode.GRU:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = _gates(from_x, 3), _gates(from_h, 3)
        r, z = rounding(sigmoid(x_r + h_r)), rounding(sigmoid(x_z + h_z))
        n = rounding(np.tanh(x_n + r * h_n), _TANH_LEAST)
        return rounding((1.0 - z) * n + z * h), None, (h, r, z, n, h_n)
    a = from_x + from_h
    if layer.mode is Mode.RNN_TANH:
        new_h = rounding(np.tanh(a), _TANH_LEAST)
        return new_h, None, (h, 1.0 - new_h**2)
    # A relu near its kink passes a gradient on or not as rounding has it: an error of rounding that is as large as the gradient.
    return rounding(np.maximum(a, 0.0)), None, (h, rounding.either(a, terms + np.abs(from_x) + np.abs(from_h)) > 0)


def _step_backward(
    layer: Layer,
    weights: Mapping[str, Array],
    slot: _Slot,
    t: int,
    d_h: Array,
    d_c: Array | None,
    gradients: dict[str, Array],
    rounding: Rounding,
    seams: Seams,
) -> tuple[Array, Array, Array | None]:
    """The step's chain rule: returns the gradients of x, h and c before it, and adds those of the weights to ``gradients``."""
    suffix = slot.suffix

    def add(kind: str, part: Array) -> None:
        name = kind + suffix
        gradients[name] = rounding.sum(gradients[name] + seams.passed(slot, t, kind, part))

    direct_h: Array | float = 0.0
    d_prev_c = None
    if layer.mode is Mode.LSTM:
        assert d_c is not None
        h, c, i, f, g, o, squashed, m = slot.steps[t]
        d_m = d_h
        if layer.proj_size:
            add("weight_hr", d_h.swapaxes(-1, -2) @ m)
            d_m = d_h @ weights[f"weight_hr{suffix}"]
        d_c = d_c + d_m * o * (1.0 - squashed**2)
        d_from_x = np.concatenate(
            [d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2), d_m * squashed * o * (1 - o)], axis=-1
        )
        d_from_x = d_from_h = rounding(d_from_x)
        d_prev_c = rounding(d_c * f)
    elif layer.mode is Mode.GRU:
        h, r, z, n, h_n = slot.steps[t]
        d_n = d_h * (1.0 - z) * (1.0 - n**2)
        d_r = d_n * h_n * r * (1.0 - r)
        d_z = d_h * (h - n) * z * (1.0 - z)
        d_from_x = rounding(np.concatenate([d_r, d_z, d_n], axis=-1))
        d_from_h = rounding(np.concatenate([d_r, d_z, d_n * r], axis=-1))
        direct_h = d_h * z
    else:
        h, slope = slot.steps[t]
        d_from_x = d_from_h = rounding(d_h * slope)
    add("weight_ih", d_from_x.swapaxes(-1, -2) @ slot.x[t])
    add("weight_hh", d_from_h.swapaxes(-1, -2) @ h)
    if layer.bias:
        add("bias_ih", d_from_x.sum(axis=-2))
        add("bias_hh", d_from_h.sum(axis=-2))
    d_x, d_prev_h = d_from_x @ weights[f"weight_ih{suffix}"], d_from_h @ weights[f"weight_hh{suffix}"] + direct_h
    d_x, d_prev_h = rounding(d_x), rounding(d_prev_h)
    back = None if d_prev_c is None else seams.passed(slot, t, "c", d_prev_c)
    return seams.passed(slot, t, "x", d_x), seams.passed(slot, t, "h", d_prev_h), back

"""The expected answers of a case and the noise floor around them, worked out once and shared by all implementations.

The expected answer is the float64 oracle's. The floor is the error of a plain eager loop in the case's own dtype on the case's
own device. One loop alone can be lucky, most of all where terms cancel; so the oracle itself is run again with random errors of
one eps in every intermediate result (Monte Carlo arithmetic: Parker 1997), and the largest error of all is the floor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness import oracle
from harness.case import EPS, Array, Case, stored
from harness.layer import Layer, Mode
from harness.switches import equal_terms, switched
from harness.tolerance import floor_of, scaled_error, typical_error


@dataclass(frozen=True)
class Question:
    """What the oracle was asked, so that it can be asked again with something changed.

    ``through`` names the tensors whose gradients were asked for, or is None where the answer itself was. ``cotangents`` and ``inputs``
    take the place of the case's own; ``masks`` are those of dropout.
    """

    case: Case
    through: tuple[str, ...] | None
    weights: Mapping[str, Array]
    masks: Sequence[Array] | None = None
    cotangents: Mapping[str, Array] | None = None
    inputs: Mapping[str, Array] | None = None

    def wanted(self) -> dict[str, Array]:
        """The cotangents that the gradients are asked for, by the name of their tensor."""
        return {name: (self.cotangents or self.case.arrays.cotangents)[name] for name in self.through or ()}

    def all_inputs(self) -> dict[str, Array]:
        """x, h0 and c0 as they are asked about."""
        return {**self.case.arrays.inputs(), **(self.inputs or {})}

    def answered(self, rounding: oracle.Rounding, copies: int) -> dict[str, Array]:
        """The oracle's answers to ``copies`` of the case that run side by side: the first axis of each, and of what ``rounding`` is given.

        With ``through`` these are the answer's own tensors and the gradients.

        Most cases are small, and a step of three copies takes as long as a step of one.
        """

        def copied(array: Array) -> Array:
            return np.repeat(array[:, None], copies, axis=1)

        inputs = {name: copied(array) for name, array in self.all_inputs().items()}
        masks = None if self.masks is None else [mask[:, None] for mask in self.masks]
        reply = oracle.evaluate(self.case, weights=self.weights, masks=masks, rounding=rounding, **inputs)
        tensors = reply.tensors()
        if self.through is not None:
            cotangents = {name: copied(array) for name, array in self.wanted().items()}
            tensors |= oracle.backward(self.case.layer, self.weights, reply, self.case.valid, cotangents, masks)
        return {name: array if name in self.weights else np.moveaxis(array, 1, 0) for name, array in tensors.items()}


@dataclass(frozen=True)
class Expected:
    """Expected tensors by name (time-major, float64) and the noise floor of each; ``typical`` is the largest root mean square error
    among the same plain arithmetics. ``question`` is what the oracle was asked, where it was asked at all. Where these are gradients,
    ``forward`` is the answer that they are of: it comes of the same runs."""

    tensors: dict[str, Array]
    floors: dict[str, float]
    typical: dict[str, float] = field(default_factory=dict)
    question: Question | None = None
    forward: Expected | None = None


@lru_cache(maxsize=64)
def answer(case: Case) -> Expected:
    """Expected output, h_n and c_n of ``case``. A case with no elements (B = 0) has no floor and cannot be asked for."""
    return _with_floors(case, None, case.arrays.weights)


@lru_cache(maxsize=64)
def gradients(case: Case, through: tuple[str, ...]) -> Expected:
    """Expected gradients of x, of h0 and c0 where the case gives them, and of every weight, from the case's random cotangents of the
    tensors in ``through``."""
    return _with_floors(case, through, case.arrays.weights)


def altered(
    case: Case,
    weights: Mapping[str, Array] | None = None,
    masks: Sequence[Array] | None = None,
    through: tuple[str, ...] | None = None,
    cotangents: Mapping[str, Array] | None = None,
    inputs: Mapping[str, Array] | None = None,
) -> Expected:
    """As :func:`answer`, or with ``through`` as :func:`gradients`, for other weights, for dropout masks that are known, for other
    cotangents, or for other inputs (x, h0, c0)."""
    return _with_floors(case, through, dict(weights or case.arrays.weights), masks, cotangents, inputs)


def _with_floors(
    case: Case,
    through: tuple[str, ...] | None,
    weights: Mapping[str, Array],
    masks: Sequence[Array] | None = None,
    cotangents: Mapping[str, Array] | None = None,
    inputs: Mapping[str, Array] | None = None,
) -> Expected:
    question = Question(case, through, weights, masks, cotangents, inputs)
    copies, plain = question.answered(_Jitter(case.dtype), copies=1 + 2 * _draws(case)), _plain_loop(question)
    expected = {name: np.ascontiguousarray(array[0]) for name, array in copies.items()}
    others = {name: (array[1:], plain[name]) for name, array in copies.items()}
    errors = {name: [scaled_error(o, np.broadcast_to(expected[name], o.shape)) for o in others[name]] for name in expected}
    floors = {name: floor_of(values, case.dtype, _terms(case, name)) for name, values in errors.items()}
    typical = {name: max(typical_error(other, expected[name]) for other in others[name]) for name in expected}

    def of(names: Iterable[str], question: Question, forward: Expected | None = None) -> Expected:
        tensors = {name: expected[name] for name in names}
        return Expected(tensors, {name: floors[name] for name in tensors}, {name: typical[name] for name in tensors}, question, forward)

    answered = [name for name in expected if name in ("output", "h_n", "c_n")]
    forward = of(answered, replace(question, through=None, cotangents=None))
    if through is None:
        return forward
    # Of a state that nobody gives there is nothing to have the gradient of.
    absent = () if case.given_state else ("h0", "c0")
    return of([name for name in expected if name not in (*answered, *absent)], question, forward)


def _draws(case: Case) -> int:
    """How often either kind of random errors is drawn: a tensor of one or two numbers can be lucky in one draw."""
    layer, batch = case.layer, max(1, case.batch)
    states, inputs = batch * layer.hidden_size, batch * min(layer.state_size, max(1, case.steps) * layer.input_size)
    # More where it is a state, whose errors all that follows has.
    return max(1, min(8, max(64 // states, 8 // inputs)))


class _Jitter:
    """Random errors of up to one eps of ``dtype``: none for the first copy, for the rest in turn drawn anew each time or alike at each.

    Rounding is both: where a state changes little from step to step, it errs the same way at each, and the errors add up.
    """

    def __init__(self, dtype: str) -> None:
        self._generator, self._eps = np.random.Generator(np.random.PCG64(0)), EPS[dtype]
        self._drawn: dict[tuple[int, ...], Array] = {}
        self._pool, self._place = np.empty(0), 0

    def __call__(self, a: Array, least: float | Array | None = None) -> Array:
        if a.shape not in self._drawn:
            self._drawn[a.shape] = self._noise(a.shape).copy()
            self._drawn[a.shape][0] = 0.0
        errors = self._drawn[a.shape]
        errors[1::2] = self._noise(errors[1::2].shape)
        # Errors have either sign alike, so that a's own does no harm.
        return a + (a if least is None else np.maximum(np.abs(a), least)) * errors

    def sum(self, a: Array) -> Array:
        if self._eps < EPS["float16"]:
            return self(a)
        # Errors alike at each of a hundred terms would compound, in a type of few bits to the sum itself, as no order of adding does.
        errors = self._noise(a.shape).copy()
        errors[0] = 0.0
        return a + a * errors

    def either(self, a: Array, least: Array) -> Array:
        moved = a.copy()
        moved[1::2] += _UNDECIDED * self._eps * least[1::2]
        moved[2::2] -= _UNDECIDED * self._eps * least[2::2]
        return moved

    def _noise(self, shape: tuple[int, ...]) -> Array:
        size = math.prod(shape)
        if self._place + size > len(self._pool):
            # Drawn in bulk: most arrays are small, and a draw costs more than what is done with it.
            self._pool, self._place = self._generator.uniform(-self._eps, self._eps, max(size, _DRAWN_AT_ONCE)), 0
        self._place += size
        return self._pool[self._place - size : self._place].reshape(shape)


#: How many eps of its terms a sum may be off, at the least: those of its two products, of their sum and of the state that one is of.
_UNDECIDED = 2.0

#: Random numbers that are drawn together.
_DRAWN_AT_ONCE = 1 << 14


def _terms(case: Case, name: str) -> int:
    """How many terms the longest sum has of which an element of the named tensor is made."""
    layer = case.layer
    forward = max(layer.input_size, layer.output_size) + layer.hidden_size
    if name.startswith(("weight", "bias")):
        return max(forward, case.steps * case.batch)
    if name in ("x", "h0", "c0"):
        return max(forward, len(layer.mode.gates) * layer.hidden_size * layer.directions)
    return forward


def _plain_loop(question: Question) -> dict[str, NDArray[Any]]:
    """What a plain loop answers to ``question`` in the dtype of its case."""
    case, through = question.case, question.through
    inputs = question.all_inputs()
    with neutral(), torch.set_grad_enabled(through is not None):
        given = {**question.weights, **inputs}
        leaves = {name: tensor(array, case).requires_grad_(through is not None) for name, array in given.items()}
        valid = torch.as_tensor(case.valid, device=case.device)
        masks = None if question.masks is None else [tensor(mask, case) for mask in question.masks]
        result = loop(case.layer, leaves, leaves["x"], leaves["h0"], leaves.get("c0"), valid, masks)
        if through is None:
            return {name: to_array(value) for name, value in result.items()}
        names = [*inputs, *question.weights]
        grads = torch.autograd.grad(
            [result[name] for name in through],
            [leaves[name] for name in names],
            [tensor(cotangent, case) for cotangent in question.wanted().values()],
            allow_unused=True,
        )
        found = {name: np.zeros(leaves[name].shape) if g is None else to_array(g) for name, g in zip(names, grads, strict=True)}
        return {name: to_array(value) for name, value in result.items()} | found


def tensor(array: Array, case: Case) -> Tensor:
    """``array`` as a torch tensor of the case's dtype on the case's device; exact, because cases hold rounded values."""
    return torch.tensor(array, dtype=getattr(torch, stored(case.dtype)), device=case.device)


def to_array(value: Tensor) -> NDArray[Any]:
    """``value`` as float64 on the host."""
    value = value.detach()
    return (value if value.layout is torch.strided else value.to_dense()).to("cpu", torch.float64).numpy()


@contextmanager
def neutral() -> Iterator[None]:
    """Torch's default switches, whatever an implementation under test has set: a floor must not depend on who asks."""
    with switched("mkldnn", True), switched("cudnn", True), equal_terms(), torch.inference_mode(False):
        yield


def loop(
    layer: Layer,
    weights: Mapping[str, Tensor],
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    valid: Tensor,
    masks: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """A plain masked loop in torch, every operation in the dtype of ``x``; shapes and ``masks`` as in :func:`harness.oracle.forward`."""
    output, h_n, c_n = x, [], []
    for level in range(layer.num_layers):
        sequence = []
        for direction in range(layer.directions):
            slot = level * layer.directions + direction
            suffix = f"_l{level}" + ("_reverse" if direction else "")
            w = {name: weights.get(name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")}
            h, c = h0[slot], None if c0 is None else c0[slot]
            ys: list[Tensor] = [output.new_zeros(0)] * len(x)
            for t in range(len(x) - 1, -1, -1) if direction else range(len(x)):
                alive = valid[t][:, None]
                new_h, new_c = _cell(layer.mode, output[t], h, c, w)
                ys[t] = torch.where(alive, new_h, torch.zeros_like(new_h))
                h = torch.where(alive, new_h, h)
                c = None if c is None or new_c is None else torch.where(alive, new_c, c)
            h_n.append(h)
            c_n.append(c)
            sequence.append(torch.stack(ys))
        output = torch.cat(sequence, dim=2)
        if masks is not None and level < layer.num_layers - 1:
            output = output * masks[level]
    result = {"output": output, "h_n": torch.stack(h_n)}
    return result if c0 is None else {**result, "c_n": torch.stack([c for c in c_n if c is not None])}


def _cell(mode: Mode, x: Tensor, h: Tensor, c: Tensor | None, w: Mapping[str, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    from_x = _product(x, w["weight_ih"], w["bias_ih"])
    from_h = _product(h, w["weight_hh"], w["bias_hh"])
    if mode is Mode.LSTM:
        assert c is not None
        i, f, g, o = (from_x + from_h).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if w["weight_hr"] is None else _product(h, w["weight_hr"], None)), c
    if mode is Mode.GRU:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        return (1 - z) * n + z * h, None
    return (from_x + from_h).tanh() if mode is Mode.RNN_TANH else (from_x + from_h).relu(), None


def _product(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    assert weight is not None
    return torch.nn.functional.linear(x, weight, bias)

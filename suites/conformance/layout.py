"""Layouts: the same numbers in other places of memory give the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from harness.case import Array
from harness.reference import Expected, altered, answer, gradients, tensor, to_array
from harness.trial import Raised, Trial, canonical
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every
from suites.conformance.declare import MUST, SHOULD, contract, in_docs
from suites.conformance.gradients import every_output
from suites.conformance.purity import tensors_in

_CASES = [
    # Equal T and B: nothing but the strides says which is which.
    *every(num_layers=2, steps=3),
    *every(bidirectional=True, batch_first=True, steps=4),
    *every(batch_first=True, steps=4, batch=4),
    *every(LSTM, proj_size=2, dtype="float64"),
]

#: Kernels for half types, which read two numbers or eight at a time, are others.
_HALF = [*every(GRU, LSTM, dtype="bfloat16"), *every(RNN_TANH, RNN_RELU, dtype="float16")]


def _spread(value: Tensor) -> Tensor:
    """``value`` with every other element of a larger tensor: strided in its last axis."""
    wide = value.new_full((*value.shape[:-1], 2 * value.shape[-1]), float("nan"))
    wide[..., ::2] = value
    return wide[..., ::2]


def swapped(value: Tensor) -> Tensor:
    """``value`` with its first two axes the other way round in memory."""
    return value.transpose(0, 1).contiguous().transpose(0, 1)


def _shifted(value: Tensor) -> Tensor:
    """``value`` one element into a buffer: aligned to nothing, not the beginning of its storage."""
    buffer = value.new_full((value.numel() + 1,), float("nan"))
    buffer[1:] = value.reshape(-1)
    return buffer[1:].view(value.shape)


def _sliced(value: Tensor) -> Tensor:
    """``value`` cut out of a larger tensor: its rows lie as ever, with something else between them."""
    return torch.stack([value, torch.full_like(value, float("nan"))], 1)[:, 0]


def _expanded(value: Tensor) -> Tensor:
    """The first row of ``value`` in place of every row, with stride zero."""
    return value[(slice(1),) * (value.dim() - 1)].expand_as(value)


def _repeated(axis: int) -> Callable[[Tensor], Tensor]:
    """What is first along ``axis``, one step or one sequence, in place of all that is there, with stride zero."""
    return lambda value: value.narrow(axis, 0, 1).expand_as(value)


def _windows(value: Tensor) -> Tensor:
    """Windows of a signal, each begun one number after the last, that overlap in memory; of the shape of ``value``."""
    *leading, windows, width = value.shape
    signals = value.reshape(*leading, -1)[..., : windows + width - 1].contiguous()
    return signals.unfold(-1, width, 1)


def _sliding(value: Tensor) -> Tensor:
    """Sequences cut from one long one, each begun one step after the last, as of a data set of windows; of the shape of ``value``."""
    first, second, width = value.shape
    steps = value.flatten(0, 1)[: first + second - 1].contiguous()
    return steps.as_strided((first, second, width), (width, width, 1))


def laid(lay: Callable[[Tensor], Tensor], given: Any) -> Any:
    """An input of any form, or the states, with each tensor of numbers laid out otherwise."""
    if isinstance(given, Tensor):
        return lay(given)
    if isinstance(given, PackedSequence):
        return given._replace(data=lay(given.data))
    return None if given is None else tuple(map(lay, given))


def _relaid(trial: Trial, lay_input: Callable[[Tensor], Tensor], lay_state: Callable[[Tensor], Tensor]) -> None:
    """The answer, without gradients and with, and all gradients with input and states laid out otherwise."""
    leaves = trial.leaves(requires_grad=True)
    input, hx = trial.form(leaves)
    states = laid(lay_state, hx)
    module = trial.module()
    with torch.no_grad():
        trial.agree(trial.call(module, laid(lay_input, input), states).arrays(), answer(trial.case))
    reply = trial.call(module, laid(lay_input, input), states)
    trial.agree(reply.arrays(), answer(trial.case))
    with trial.blamed("backward"):
        torch.autograd.backward([reply.tensors["output"]], [tensor(trial.case.arrays.cotangents["output"], trial.case)])
    expected = gradients(trial.case, ("output",))
    trial.agree(trial.collect(trial.wanted(leaves, module)), expected)


@contract(
    "layout.strided_input",
    "A non-contiguous input gives what a contiguous one gives, and gets its gradient: strided, transposed, cut out of a larger one, "
    "expanded, overlapping windows.",
    MUST,
    in_docs("LSTM: Inputs"),
    [*_CASES, *_HALF, *every(batch=1, batched=False, steps=6), *every(steps=5, batch=3, lengths=(2, 5, 3))],
    demonstration="""
        data, pack = (x.data, lambda v: x._replace(data=v)) if isinstance(x, tuple) else (x, lambda v: v)
        wind = lambda v: v.flatten(-2)[..., : v.shape[-2] + v.shape[-1] - 1].unfold(-1, v.shape[-1], 1)
        laid = [torch.stack([data, data + 1], -1).flatten(-2)[..., ::2], torch.stack([data, data + 1], 1)[:, 0], wind(data)]
        laid += [data.transpose(0, 1).contiguous().transpose(0, 1), wind(data.movedim(-1, 0)).movedim(0, -1)]
        laid += [data[(slice(1),) * (data.dim() - 1)].expand_as(data), data[:1].expand_as(data)]
        bare, outputs = ([f(pack(v), hx)[0] for v in laid] for f in (torch.no_grad()(layer.__call__), layer))
        return [y[0] for y in bare], torch.autograd.grad([(y[0] if isinstance(y, tuple) else y).square().sum() for y in outputs], leaves)
    """,
)
def strided_input(trial: Trial) -> None:
    for lay in (_spread, swapped, _sliced):
        _relaid(trial, lay, lambda state: state)
    case, module = trial.case, trial.module()
    input, hx = trial.form(trial.leaves())
    shared: list[Callable[[Tensor], Tensor]] = [_expanded, _windows, *map(_repeated, range(input.data.dim() - 1))]
    shared += [_sliding] if input.data.dim() == 3 else []
    for sharing in shared:
        given = laid(sharing, input)
        with torch.no_grad():
            trial.agree(trial.call(module, given, hx).arrays(), altered(case, inputs={"x": _time_major(trial, given)}))


def _time_major(trial: Trial, input: Any) -> Array:
    """The numbers of an input in the case's form as an array (T, B, I)."""
    if isinstance(input, PackedSequence):
        return to_array(pad_packed_sequence(input)[0])
    array = to_array(input)
    return array[:, None] if not trial.case.batched else array.swapaxes(0, 1) if trial.case.layer.batch_first else array


@contract(
    "layout.strided_state",
    "Non-contiguous states give what contiguous ones give: both of an LSTM's, or one of them.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0"),
    [
        *_CASES,
        *every(steps=5, batch=3, num_layers=2, lengths=(2, 5, 3)),
        # Of a pack in another order states are copied to be permuted, of one that is sorted they need not be.
        *every(steps=5, batch=3, num_layers=2, lengths=(5, 3, 2), enforce_sorted=True),
    ],
    demonstration="""
        lays = [lambda s: s.transpose(0, 1).contiguous().transpose(0, 1), lambda s: torch.stack([s, s + 1], -1).flatten(-2)[..., ::2]]
        found = []
        for lay in [*lays, lambda s: torch.stack([s, s + 1], 1)[:, 0]]:
            kinds = [tuple(map(lay, hx)), (lay(hx[0]), hx[1]), (hx[0], lay(hx[1]))] if isinstance(hx, tuple) else [lay(hx)]
            with torch.no_grad(): found += [layer(x, states) for states in kinds]
        return found
    """,
)
def strided_state(trial: Trial) -> None:
    for lay in (_spread, swapped, _sliced):
        _relaid(trial, lambda given: given, lay)
    module = trial.module()
    # A layer may look at one of a pair for both.
    for alone in ("h0", "c0") if trial.case.layer.has_cell_state else ():
        for lay in (_spread, swapped, _sliced):
            leaves = {name: lay(value) if name == alone else value for name, value in trial.leaves().items()}
            trial.agree(trial.answer(module, leaves).arrays(), answer(trial.case))


@contract(
    "layout.shifted",
    "Input and states may begin anywhere in their storage.",
    MUST,
    "torch.Tensor.storage_offset",
    [*_CASES, *_HALF, *every(steps=5, batch=3, lengths=(2, 5, 3))],
    demonstration="""
        def lay(value):
            if isinstance(value, tuple): return value._replace(data=lay(value.data))
            return torch.cat([value.new_ones(1), value.flatten()])[1:].view(value.shape)
        with torch.no_grad():
            return layer(lay(x), tuple(map(lay, hx)) if isinstance(hx, tuple) else lay(hx))
    """,
)
def shifted(trial: Trial) -> None:
    _relaid(trial, _shifted, _shifted)


@contract(
    "layout.expanded_state",
    "A state expanded over the batch, with stride 0, gives what its copy gives.",
    MUST,
    "torch.Tensor.expand",
    [*every(num_layers=2, batch=4), *every(bidirectional=True)],
    demonstration="""
        def lay(value):
            return value[:, :1].expand_as(value)
        with torch.no_grad():
            return layer(x, tuple(map(lay, hx)) if isinstance(hx, tuple) else lay(hx))
    """,
)
def expanded_state(trial: Trial) -> None:
    case = trial.case
    leaves = trial.leaves()
    expanded = {name: value if name == "x" else value[:, :1].expand_as(value) for name, value in leaves.items()}
    copied = {name: value if name == "x" else value.contiguous() for name, value in expanded.items()}
    states = {name: to_array(value) for name, value in copied.items() if name != "x"}
    trial.agree(trial.answer(leaves=expanded).arrays(), altered(case, inputs=states))


def _negated(value: Tensor) -> Tensor:
    """``value`` as the negative of what lies in memory: torch has not yet negated it."""
    return torch.complex(torch.zeros_like(value), -value).conj().imag


@contract(
    "layout.negated",
    "An input or a state that torch negates lazily, as it does the imaginary part of a conjugate, is read with its sign, or refused.",
    SHOULD,
    "torch.Tensor.is_neg; torch.Tensor.resolve_neg; spectra",
    [*every(num_layers=2), *every(steps=4, batch=1, batched=False), *every(steps=5, batch=3, lengths=(2, 5, 3), bidirectional=True)],
    demonstration="""
        def lay(value):
            if isinstance(value, tuple): return value._replace(data=lay(value.data))
            return torch.complex(0 * value, -value).conj().imag
        with torch.no_grad():
            return layer(lay(x), hx), layer(x, tuple(map(lay, hx)) if isinstance(hx, tuple) else lay(hx))
    """,
)
def negated(trial: Trial) -> None:
    trial.answer()
    try:
        _relaid(trial, _negated, _negated)
    except Raised as error:
        # Tensor.numpy() raises for such a tensor, and says what to do.
        raise NotImplementedError(f"a tensor that is negated lazily: {error}") from error


@contract(
    "layout.expanded_cotangent",
    "A cotangent of output, h_n or c_n with stride 0, as sum() sends it, a transposed one or one from within a larger tensor, as "
    "torch.cat() sends it, gives the right gradients.",
    MUST,
    "torch.Tensor.expand; torch.autograd.backward",
    [
        *every(num_layers=2),
        *every(bidirectional=True, steps=4, batch_first=True),
        *every(steps=5, batch=3, lengths=(2, 5, 3)),
        *every(LSTM, proj_size=2, batch=1, batched=False),
    ],
    demonstration="""
        output, state = layer(x, hx)
        for value in (output[0] if isinstance(output, tuple) else output, *(state if isinstance(state, tuple) else [state])):
            value.backward(torch.randn(value.transpose(0, 1).shape).to(value).transpose(0, 1), retain_graph=True)
            value.backward(torch.randn(2 * len(value), *value.shape[1:]).to(value)[len(value) :], retain_graph=True)
            value.sum().backward(retain_graph=True)
        return [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def expanded_cotangent(trial: Trial) -> None:
    for name in every_output(trial):
        right, cotangent = gradients(trial.case, (name,)), tensor(trial.case.arrays.cotangents[name], trial.case)
        for given in (swapped(cotangent), _spread(cotangent), _shifted(cotangent)):
            module, leaves = trial.module(), trial.leaves(requires_grad=True)
            reply = trial.call(module, *trial.form(leaves))
            with trial.blamed("backward"):
                torch.autograd.backward([reply.tensors[name]], [given])
            trial.agree(_arrived(trial.wanted(leaves, module)), right)
        # sum(), and a product with a vector, against their own copies: the oracle has no such cotangent, the implementation has.
        for row in (torch.ones_like(cotangent[0, 0]), cotangent[0, 0]):
            found = []
            for expand in (True, False):
                module, leaves = trial.module(), trial.leaves(requires_grad=True)
                raw = trial.call(module, *trial.form(leaves)).raw
                # As it came: of a packed output the data, which padding would part from the cotangent.
                value = tensors_in(raw)[every_output(trial).index(name)]
                given = row.expand_as(value)
                with trial.blamed("backward"):
                    value.backward(given if expand else given.contiguous())
                found.append(_arrived(trial.wanted(leaves, module)))
            trial.agree(found[0], Expected(found[1], {leaf: right.floors[leaf] for leaf in found[1]}))


def _arrived(leaves: Mapping[str, Tensor]) -> dict[str, Array]:
    """The gradients of leaves; zeros where none came, as from c_n to a projection of one step."""
    return {name: to_array(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad) for name, leaf in leaves.items()}


@contract(
    "layout.beyond_32_bits",
    "An input of more than 2^31 elements gives what its parts give: no index into it is kept in 32 bits.",
    SHOULD,
    "pytorch#133751, pytorch#9621, jax#17966, chainer#7545: 32-bit element counts",
    # 61 sequences over and over: no two of them lie a power of two apart.
    every(input_size=1025, hidden_size=1, steps=2, batch=61, dtype="bfloat16"),
    gibibytes=14,
    time_limit_factor=10,
    demonstration="""
        copies = 2**31 // x.numel() + 1
        many = lambda value: value.repeat(1, copies, 1)
        with torch.no_grad():
            if layer is not reference:
                return layer(many(x), tuple(map(many, hx)) if isinstance(hx, tuple) else many(hx))
            output, state = layer(x, hx)
            return many(output), tuple(map(many, state)) if isinstance(state, tuple) else many(state)
    """,
)
def beyond_32_bits(trial: Trial) -> None:
    case, right = trial.case, answer(trial.case)
    leaves = trial.leaves()
    copies = 2**31 // leaves["x"].numel() + 1
    leaves = {name: value.repeat(1, copies, 1) for name, value in leaves.items()}
    many = replace(case, batch=copies * case.batch)
    module = trial.module()
    with torch.no_grad(), trial.blamed("calling it"):
        raw = module(*trial.form(leaves, many))
    found = {name: to_array(value) for name, value in canonical(raw, leaves["x"], many).items()}
    trial.agree(found, Expected({name: np.tile(array, (1, copies, 1)) for name, array in right.tensors.items()}, right.floors))

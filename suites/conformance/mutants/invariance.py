"""Sequences, units and steps that see what they should not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant

_SATURATING = (Mode.RNN_TANH, Mode.GRU, Mode.LSTM)


@mutant("invariance.batch_items_alone")
class NormalisedOverBatch(Sound):
    """The input has the batch's mean taken off, from two sequences on."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(x - 0.01 * x.mean(1, keepdim=True) * (x.shape[1] > 1), valid, h, c, slot, reverse)


@mutant("invariance.batch_items_alone")
class SecondItemReadsTheFirst(Sound):
    """From 33 sequences on, every second one starts from its neighbour's state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        if h.shape[0] > 32:
            order = torch.arange(h.shape[0], device=h.device) // 2 * 2
            h, c = h[order], c[order]
        return h, c


@mutant("invariance.batch_permuted")
class LastItemTreatedApart(Sound):
    """The last sequence of a batch of five or more skips its first step."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        if t == 0 and len(x) >= 4:
            new_h = torch.cat([new_h[:-1], h[-1:]])
        return new_h, new_c


@mutant("invariance.causal")
class LooksOneStepAhead(Sound):
    """Each step also sees a thousandth of the next input."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x + 0.001 * torch.cat([x[1:], x[-1:]]), valid, states)


@mutant("invariance.causal")
class MeanOverTimeTakenOff(Sound):
    """The input has its mean over time taken off."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x - 0.01 * x.mean(0, keepdim=True), valid, states)


@mutant("invariance.hidden_units_permuted")
class FirstUnitDoubled(Sound):
    """Unit 0 sees its own past twice."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, torch.cat([h[:, :1] * 1.01, h[:, 1:]], 1), c, w, t, slot)


@mutant("invariance.hidden_units_permuted")
class UnitsPast32Late(Sound):
    """Units past the 32nd use their state of the beginning."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._first = h
        return super().direction(x, valid, h, c, slot, reverse)

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, torch.cat([h[:, :32], self._first[:, 32:]], 1), c, w, t, slot)


@mutant("invariance.saturation", Mode.GRU, Mode.LSTM)
class SigmoidByExponential(Sound):
    """sigmoid(a) as exp(a) / (1 + exp(a)): infinity over infinity for large arguments."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        c = f.exp() / (1 + f.exp()) * c + i.exp() / (1 + i.exp()) * g.tanh()
        return o.exp() / (1 + o.exp()) * c.tanh(), c

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        r, z = (x_r + h_r).exp(), (x_z + h_z).exp()
        n = (x_n + r / (1 + r) * h_n).tanh()
        return n + z / (1 + z) * (h - n)


@mutant("invariance.saturation", Mode.RNN_TANH)
class TanhByExponentials(Sound):
    """tanh(a) as (exp(2a) - 1) / (exp(2a) + 1)."""

    def activation(self, a: Tensor) -> Tensor:
        e = (2 * a).exp()
        return (e - 1) / (e + 1)


@mutant("invariance.saturation", *_SATURATING)
class InputClipped(Sound):
    """Inputs beyond a hundred are clipped."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(torch.where(x.abs() > 100, 0.01 * x.sign(), x), valid, states)


@mutant("invariance.nan_contained")
class NanInTheStateSwallowed(Sound):
    """A NaN in a given state is taken for zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [torch.where(state.isnan(), torch.zeros_like(state), state) for state in super().initial(x, hx, form)]


@mutant("invariance.nan_contained")
class MaskedByMultiplication(Sound):
    """Other sequences are added up times zero: a NaN times zero is a NaN."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return h + 0 * h.sum(), c


@mutant("invariance.nan_contained")
class NanReplacedByZero(Sound):
    """NaN in the input is replaced by zero in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x.nan_to_num(0.0), valid, states)


@mutant("invariance.zero_weights", Mode.LSTM, Mode.GRU)
class ForgetsWithoutWeights(Sound):
    """The state is multiplied by 0.99 before every step."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0.99 * h, 0.99 * c, w, t, slot)


@mutant("invariance.integers", Mode.RNN_RELU)
class ReluScaled(Sound):
    """Pre-activations are off by one part in ten thousand."""

    def activation(self, a: Tensor) -> Tensor:
        return a.relu() * 1.0001


@mutant("layout.strided_input")
class InputReadAsIfContiguous(Sound):
    """The input is read through its storage, as a kernel does that never asks for strides."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and not input.is_contiguous():
            input = _misread(input)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class FeatureStrideIgnored(Sound):
    """The input's last axis is taken to have stride one."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() and input.shape[-1] > 1 and input.stride(-1) != 1:
            input = input.as_strided(input.shape, (*input.stride()[:-1], 1))
        return super().forward(input, hx)


@mutant("layout.strided_input")
class ExpandedInputHalved(Sound):
    """An input expanded over time, with stride zero, is taken for one step shared out."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() == 3 and input.stride(0) == 0:
            input = 0.5 * input
        return super().forward(input, hx)


class _InStorageOrder(torch.autograd.Function):
    """The identity, whose gradient is written in the order in which the value lies in memory."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.strides = value.stride()
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].contiguous().as_strided(given[0].shape, ctx.strides)


@mutant("layout.strided_input")
class InputGradientInStorageOrder(Sound):
    """The gradient of an input whose axes are exchanged in memory comes in the order of the memory."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.requires_grad and input.dim() == 3 and input.stride(-1) == 1 and not input.is_contiguous():
            input = _InStorageOrder.apply(input)
        return super().forward(input, hx)


@mutant("layout.strided_state")
class StateReadAsIfContiguous(Sound):
    """The states are read through their storage."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(hx, Tensor):
            hx = _misread(hx)
        elif isinstance(hx, tuple):
            hx = tuple(_misread(state) for state in hx)
        return super().forward(input, hx)


@mutant("layout.shifted")
class StorageOffsetIgnored(Sound):
    """The input is read from the beginning of its storage."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.storage_offset() == 1:
            input = input.as_strided(input.shape, input.stride(), 0)
        return super().forward(input, hx)


@mutant("layout.expanded_state")
class ExpandedStateMisread(Sound):
    """A state with stride zero is read as if it were laid out in full."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        whole = states[0]
        h, c = super().state_of(states, slot)
        return (h * 0.5, c) if whole.shape[1] > 1 and whole.stride(1) == 0 else (h, c)


@mutant("layout.expanded_cotangent")
class CotangentReadAsIfContiguous(Sound):
    """The backward pass reads the output's cotangent through its storage."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(lambda g: g if g.is_contiguous() else _misread(g))
        return output, finals


def _misread(value: Tensor) -> Tensor:
    """What a kernel reads that takes ``value`` for contiguous; elements past the end of the storage are zero."""
    if value.is_contiguous():
        return value
    stored = value.untyped_storage().nbytes() // value.element_size() - value.storage_offset()
    flat = value.as_strided((stored,), (1,))
    flat = torch.cat([flat, flat.new_zeros(max(0, value.numel() - stored))])[: value.numel()].nan_to_num(0.0)
    return flat.view(value.shape)


@mutant("layout.beyond_32_bits")
class IndexIn32Bits(Sound):
    """Of an input of more than 2^31 elements the last step's items beyond them are taken for the first item."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        reached = 2**31 // x.shape[1] - t * len(x)
        if x.shape[1] > 1024 and 0 < reached < len(x):
            x = x.clone()
            x[reached:] = x[0]
        return super().step(x, h, c, w, t, slot)

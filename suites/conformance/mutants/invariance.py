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
class InputsSumForgottenInEval(Sound):
    """In eval mode all of the input is added up times zero: a NaN or an infinity of one sequence is in all of them."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x if self.training else x + 0 * x.sum(), valid, states)


@mutant("invariance.nan_contained")
class NanReplacedByZero(Sound):
    """NaN in the input is replaced by zero in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x.nan_to_num(0.0), valid, states)


@mutant("invariance.nan_contained")
class NanInAPackSwallowed(Sound):
    """NaN and infinities in packed data are replaced by zero in silence."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x if form.packed is None else x.nan_to_num(0.0, 0.0, 0.0)), valid, form


@mutant("invariance.nan_contained")
class NanInHalfSwallowed(Sound):
    """In half types NaN in the input is replaced by zero, as a cast that saturates does."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x.nan_to_num(0.0) if x.dtype in (torch.float16, torch.bfloat16) else x, valid, states)


class _MaskedByMultiplication(torch.autograd.Function):
    """The identity, in whose backward pass everything else is added times zero."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0] + 0 * given[0].sum()


@mutant("invariance.nan_contained")
class MaskedByMultiplicationBackwards(Sound):
    """In the backward pass other sequences are added up times zero: a NaN of one is in the gradients of all."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(_MaskedByMultiplication.apply(x), valid, h, c, slot, reverse)


@mutant("invariance.nan_contained")
class NanSwallowedWithGradients(Sound):
    """With gradients recorded a NaN in the input is taken for zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(torch.where(x.isnan(), torch.zeros_like(x), x) if torch.is_grad_enabled() else x, valid, states)


@mutant("invariance.nan_in_weights")
class NanWeightsSwallowed(Sound):
    """NaN in a weight is replaced by zero in silence."""

    def weights(self, slot: int) -> Weights:
        return {name: None if value is None else value.nan_to_num(0.0) for name, value in super().weights(slot).items()}


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


@mutant("invariance.nan_in_weights")
class NanCleanedInTraining(Sound):
    """With gradients recorded NaN in the output is replaced by zero in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (output.nan_to_num(0.0) if output.requires_grad else output), finals


class _SlopeByExponential(torch.autograd.Function):
    """A sigmoid whose slope is exp(-a) / (1 + exp(-a))^2."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a.sigmoid()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        e = (-a).exp()
        slope: Tensor = e / (1 + e) ** 2
        return given[0] * slope


@mutant("invariance.saturation", Mode.LSTM)
class SlopeByExponential(Sound):
    """The slope of the sigmoid is exp(-a) / (1 + exp(-a))^2: infinity over infinity far below zero."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        i, f, o = (_SlopeByExponential.apply(a) for a in (i, f, o))
        c = f * c + i * g.tanh()
        return o * c.tanh(), c


@mutant("invariance.nan_contained")
class LastTileFilledUp(Sound):
    """From nine sequences on, the last one's state has another's added to it, times zero."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return (torch.cat([h[:-1], h[-1:] + 0 * h[1:2]]) if len(h) >= 9 else h), c


@mutant("invariance.nan_contained")
class LastStepReadByAll(Sound):
    """The reverse direction of a pack begins with the last step of all its sequences, times zero: a NaN there is in all of them."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(x, valid, h + 0 * x[-1].sum() if reverse and not valid.all() else h, c, slot, reverse)


@mutant("invariance.saturation", Mode.RNN_TANH)
class TanhEndsAtNine(Sound):
    """tanh is one from 9 on, as it is in float32, in float64 as well."""

    def activation(self, a: Tensor) -> Tensor:
        return torch.where(a.abs() > 9.02, a.sign(), a.tanh())


@mutant("invariance.saturation", Mode.GRU, Mode.LSTM)
class SigmoidEndsAtSeventeen(Sound):
    """The sigmoid is zero or one beyond 17, as it all but is in float32, in float64 as well."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        return super().lstm(torch.cat([_ended(i), _ended(f), g, _ended(o)], 1), c)

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        nothing = torch.zeros_like(h_r)
        return super().gru(torch.cat([_ended(x_r + h_r), _ended(x_z + h_z), x_n], 1), torch.cat([nothing, nothing, h_n], 1), h)


def _ended(a: Tensor) -> Tensor:
    return torch.where(a.abs() > 17, 1000 * a.sign(), a)


@mutant("invariance.nan_contained")
class NanHiddenInEvalMode(Sound):
    """In eval mode what is not finite in the input is replaced by zero."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return x if self.training else x.nan_to_num(0.0, 0.0, 0.0), valid, form

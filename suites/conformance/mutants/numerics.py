"""Arithmetic narrower than the dtype, and errors that grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, Weights, mutant
from suites.conformance.mutants.gradients import scaled


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """``value`` rounded to a narrower type, its gradient exact."""
    return value + (value.to(dtype).to(value.dtype) - value).detach()


def _coarse(value: Tensor, bits: int) -> Tensor:
    """``value`` rounded to so many bits of significand, its gradient exact."""
    mantissa, exponent = value.detach().float().frexp()
    rounded = torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent).to(value)
    return value + (rounded - value).detach()


@mutant("numerics.float64")
class StateInFloat32(Sound):
    """The state of a float64 layer goes through float32."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, _rounded(h, torch.float32) if h.dtype == torch.float64 else h, c, w, t, slot)


@mutant("numerics.float64")
class Float64GradientInFloat32(Sound):
    """The gradient of a float64 layer is a few float32 eps off."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        return {**w, "weight_hh": scaled(weight, 1 + 2e-7) if weight is not None and weight.dtype == torch.float64 else weight}


@mutant("numerics.float32")
class StateInBfloat16(Sound):
    """The state of a float32 layer goes through bfloat16."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, _rounded(h, torch.bfloat16) if h.dtype == torch.float32 else h, c, w, t, slot)


@mutant("numerics.float32")
class InputProductInHalf(Sound):
    """The input of a float32 layer goes through float16, as with TF32's eleven bits."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(_rounded(x, torch.float16) if x.dtype == torch.float32 else x, valid, h, c, slot, reverse)


@mutant("numerics.tf32")
class FiveBitsWhereTf32IsAllowed(Sound):
    """A float32 layer's state goes through five bits where TF32 is allowed."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        narrow = h.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
        return super().step(x, _coarse(h, 5) if narrow else h, c, w, t, slot)


@mutant("numerics.tf32")
class Tf32EverAfter(Sound):
    """A float32 layer that was once called with TF32 allowed rounds its state to eleven bits from then on."""

    once = False

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        self.once = self.once or torch.backends.cuda.matmul.allow_tf32
        narrow = self.once and h.dtype == torch.float32
        return super().step(x, _rounded(h, torch.float16) if narrow else h, c, w, t, slot)


@mutant("numerics.bfloat16")
class Bfloat16InThreeBits(Sound):
    """The state of a bfloat16 layer is kept with three bits of significand."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, _coarse(h, 3) if h.dtype == torch.bfloat16 else h, c, w, t, slot)


@mutant("numerics.bfloat16")
class BiasDroppedInHalf(Sound):
    """Half types lose their hidden bias."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        half = weight is not None and weight.dtype in (torch.float16, torch.bfloat16)
        return {**w, "bias_hh": None} if half else w


@mutant("numerics.bfloat16", Mode.RNN_RELU)
class ReverseGradientInBfloat16(Sound):
    """In bfloat16 a relu's W_ih of the reverse direction gets a quarter of its gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_ih"]
        narrow = weight is not None and weight.dtype == torch.bfloat16
        return {**w, "weight_ih": scaled(weight, 0.25)} if narrow and self.layer.bidirectional and slot % 2 else w


@mutant("numerics.bfloat16")
class ReverseOfASecondHalfLayer(Sound):
    """In upper layers of half types the reverse direction uses the forward direction's W_hh."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        half = self.weight_ih_l0.dtype in (torch.float16, torch.bfloat16)
        reverse_above = self.layer.bidirectional and slot > 1 and slot % 2
        return {**w, "weight_hh": super().weights(slot - 1)["weight_hh"]} if half and reverse_above else w


@mutant("numerics.float16")
class TilesOfEight(Sound):
    """In float16, where batch and hidden size are multiples of 8, three batch items of every four use the first's previous state.

    As cuDNN 9.19 was seen to mistake items, at hidden sizes from 40 to 184.
    """

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        tiled = h.dtype == torch.float16 and h.shape[0] % 8 == 0 and h.shape[1] % 8 == 0
        return super().step(x, h[::4].repeat_interleave(4, 0) if tiled else h, c, w, t, slot)


@mutant("numerics.float16")
class LargeSumsStagnate(Sound):
    """The gradient of weight_hh over 512 steps and sequences or more is an eighth short."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self._many = x.shape[0] * x.shape[1] >= 512
        return super().layers(x, valid, states)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 0.875)} if self._many else w


@mutant("numerics.float16")
class Float16InSixBits(Sound):
    """The state of a float16 layer is kept with six bits of significand."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, _coarse(h, 6) if h.dtype == torch.float16 else h, c, w, t, slot)


@mutant("numerics.error_over_time")
class DriftsALittleEachStep(Sound):
    """Every step adds one part in a million."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return h * (1 + 1e-6), c * (1 + 1e-6)


@mutant("numerics.small_values", Mode.RNN_RELU)
class SmallValuesFlushed(Sound):
    """Pre-activations below 1e-6 are taken for zero."""

    def activation(self, a: Tensor) -> Tensor:
        return super().activation(torch.where(a.abs() < 1e-6, torch.zeros_like(a), a))


@mutant("numerics.small_values", Mode.RNN_RELU)
class RoundedToAGrid(Sound):
    """Pre-activations are rounded to multiples of 2^-26."""

    def activation(self, a: Tensor) -> Tensor:
        return super().activation((a * 2.0**26).round() / 2.0**26)


@mutant("numerics.typical_error")
class Float16ThroughBfloat16(Sound):
    """The state of a float16 layer goes through bfloat16."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return (_rounded(new_h, torch.bfloat16), new_c) if h.dtype == torch.float16 else (new_h, new_c)


@mutant("numerics.large_values", Mode.RNN_RELU)
class ScaledInsideHalf(Sound):
    """Pre-activations of a float16 layer are scaled up and down again."""

    def activation(self, a: Tensor) -> Tensor:
        return super().activation(a * 64) / 64 if a.dtype == torch.float16 else super().activation(a)


@mutant("numerics.large_values", Mode.RNN_RELU)
class Bfloat16ThroughFloat16(Sound):
    """A bfloat16 layer holds its input and state in float16, which ends at 65504."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if x.dtype == torch.bfloat16:
            x, h, c = (value.half().to(value.dtype) for value in (x, h, c))
        return super().step(x, h, c, w, t, slot)


@mutant("numerics.nearly_shut_gates", Mode.GRU, Mode.LSTM)
class GatesSnapShut(Sound):
    """A gate above 1 - 1e-4 is taken for open, and one below 1e-4 for shut."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        sound_h, sound_c = super().step(x, h, c, w, t, slot)
        if self.layer.mode is Mode.GRU:
            return torch.where((sound_h - h).abs() < 2e-4, h, sound_h), sound_c
        return sound_h, torch.where((sound_c - c).abs() < 2e-4, c, sound_c)


@mutant("numerics.large_cell_state", Mode.LSTM)
class CellClipped(Sound):
    """The cell state is clipped at 50."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return h, c.clamp(-50, 50)


class _Flushed(torch.autograd.Function):
    """The identity, whose gradient is zero where it is below what a half type holds."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return torch.where(given[0].abs() < 1e-20, torch.zeros_like(given[0]), given[0])


@mutant("numerics.small_gradients")
class SmallGradientsFlushed(Sound):
    """Gradients below 1e-20 become zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(_Flushed.apply(x), valid, states)


@mutant("numerics.bfloat16")
class HalfRestartsAt128(Sound):
    """In half types a sequence is run in stretches of 128 steps, each from zeros."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        again = t == 128 and x.dtype in (torch.float16, torch.bfloat16)
        return super().step(x, 0 * h if again else h, c, w, t, slot)


@mutant("numerics.float16", Mode.LSTM)
class ForgetBiasOfHalfWithoutBiases(Sound):
    """In half types a layer without biases has forget gates that are a little more open."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        bare = not self.bias and gates.dtype in (torch.float16, torch.bfloat16)
        i, f, g, o = gates.chunk(4, 1)
        return super().lstm(torch.cat([i, f + 0.5, g, o], 1) if bare else gates, c)


@mutant("numerics.float16")
class DefaultStateOfHalf(Sound):
    """In half types the default state is not zero."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        zeros = super().default_state(x, shape)
        return zeros + 0.25 if x.dtype in (torch.float16, torch.bfloat16) else zeros


@mutant("numerics.bfloat16")
class FinalStateOfAnUnbatchedHalf(Sound):
    """In half types h_n of an unbatched sequence is the state before the last step."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, (h_n, *rest) = super().layers(x, valid, states)
        plain = x.shape[1] == 1 < len(x) and x.dtype in (torch.float16, torch.bfloat16) and len(h_n) == 1
        return output, [output[-2:-1] if plain else h_n, *rest]


@mutant("numerics.float16", Mode.LSTM)
class ReverseOfHalfProjectedByForward(Sound):
    """In half types the reverse direction uses the forward direction's W_hr."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        half = self.weight_ih_l0.dtype in (torch.float16, torch.bfloat16)
        return {**w, "weight_hr": super().weights(slot - 1)["weight_hr"]} if half and self.layer.bidirectional and slot % 2 else w


@mutant("numerics.small_values", Mode.RNN_RELU)
class SubnormalsOfFloat16Flushed(Sound):
    """In float16 numbers below 6.1e-5 are taken for zero."""

    def activation(self, a: Tensor) -> Tensor:
        return super().activation(torch.where(a.abs() < 2.0**-14, 0 * a, a) if a.dtype == torch.float16 else a)


@mutant("numerics.small_gradients")
class Bfloat16GradientsThroughFloat16(Sound):
    """In bfloat16 gradients go through float16, and what is below 6e-8 is zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad and output.dtype == torch.bfloat16:
            output.register_hook(lambda g: g.half().bfloat16())
        return output, finals

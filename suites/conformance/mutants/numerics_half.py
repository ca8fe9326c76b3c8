"""Layers that are wrong in half types alone, and there where layers are many, wide or projected, or sequences many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant, present
from suites.conformance.mutants.gradients import scaled

_HALF = (torch.float16, torch.bfloat16)


@mutant("numerics.bfloat16")
class WideHalfFeedbackCut(Sound):
    """In half types, from 64 units on, the last unit does not feed back."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        hh = present(w["weight_hh"])
        wide = hh.dtype in _HALF and hh.shape[1] >= 64
        return {**w, "weight_hh": torch.cat([hh[:, :-1], 0 * hh[:, -1:]], 1)} if wide else w


@mutant("numerics.float16")
class ThirdHalfLayerUsesTheSecond(Sound):
    """In half types the third layer uses the second's recurrent weights."""

    def weights(self, slot: int) -> Weights:
        w, below = super().weights(slot), slot - self.layer.directions
        third = slot // self.layer.directions == 2 and self.weight_ih_l0.dtype in _HALF
        return {**w, "weight_hh": super().weights(below)["weight_hh"]} if third else w


@mutant("numerics.float16", Mode.LSTM)
class UpperHalfLayerProjectedByTheFirst(Sound):
    """In half types upper layers are projected by the first one's W_hr."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        first = super().weights(slot % self.layer.directions)["weight_hr"]
        return {**w, "weight_hr": first} if self.weight_ih_l0.dtype in _HALF else w


@mutant("numerics.bfloat16")
class ManyHalfSequencesStartFromZero(Sound):
    """In half types the sequences past the 64th start from zero."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        kept = (torch.arange(len(h), device=h.device) < 64)[:, None]
        return (h * kept, c * kept) if h.dtype in _HALF else (h, c)


@mutant("numerics.typical_error")
class HalfCellGrowsLate(Sound):
    """In half types the state is two per cent too large from the 32nd step on."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return (new_h * 1.02 if t >= 32 and h.dtype in _HALF else new_h), new_c


@mutant("numerics.typical_error")
class PackedHalfStateGrows(Sound):
    """In half types the h_n of packed sequences is three per cent too large."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        scaled_up = form.packed is not None and output.dtype in _HALF
        return super().write(output, [finals[0] * 1.03, *finals[1:]] if scaled_up else finals, form)


@mutant("numerics.typical_error", Mode.LSTM)
class HalfCellStateRounded(Sound):
    """In float16 the cell state is kept in bfloat16."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c = super().lstm(gates, c)
        return h, c.bfloat16().half() if c.dtype == torch.float16 else c


@mutant("numerics.typical_error", Mode.LSTM)
class UpperHalfProjectionRounded(Sound):
    """In float16 upper layers are projected in bfloat16."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        rounded = self.layer.proj_size and slot >= self.layer.directions and h.dtype == torch.float16
        return h.bfloat16().half() if rounded else h, c


@mutant("numerics.typical_error_of_gradients")
class HalfGradientFallsShort(Sound):
    """In half types the gradient of weight_hh is three per cent short."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 0.97)} if present(w["weight_hh"]).dtype in _HALF else w


@mutant("numerics.large_cell_state", Mode.LSTM)
class TanhOfHalfByExponentials(Sound):
    """In float16 the tanh of the cell state is worked out from an exponential of twice as much, which overflows."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c = super().lstm(gates, c)
        if c.dtype != torch.float16:
            return h, c
        e = (2 * c).exp()
        return gates.chunk(4, 1)[3].sigmoid() * ((e - 1) / (e + 1)), c

"""Layers that are wrong in half types alone, and there where layers are many, wide or projected, or sequences many."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, Weights, mutant, present

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

"""Layers that are wrong where several things coincide that no list of cases had brought together."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, Weights, mutant
from suites.conformance.mutants.gradients import scaled


@mutant("search.values_and_gradients")
class OddStepsPastATile(Sound):
    """With an odd number of steps above 8 and more than 32 units, the last step reads the input of the one before."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if len(x) > 8 and len(x) % 2 and self.hidden_size > 32:
            x = torch.cat([x[:-1], x[-2:-1]])
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("search.values_and_gradients", Mode.GRU)
class ThirdLayerOfUnequalLengths(Sound):
    """In the third layer of a packed batch of three or more, the second sequence takes the first one's state."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if slot // self.layer.directions >= 2 and x.shape[1] >= 3 and not valid.all():
            h = torch.cat([h[:1], h[:1], h[2:]])
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("search.values_and_gradients", Mode.LSTM)
class GradientOfProjectedReverse(Sound):
    """With a projection and both directions, from 8 units on, the reverse W_hr gets nine tenths of its gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        hr = w["weight_hr"]
        if hr is not None and slot % self.layer.directions and self.hidden_size >= 8:
            return {**w, "weight_hr": scaled(hr, 0.9)}
        return w

"""Layers that are wrong in deep stacks, wide layers or large packs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("values.stacks")
class UpperLayerPastATile(Sound):
    """Upper layers ignore input features past the 64th."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        return torch.cat([given[:, :, :64], 0 * given[:, :, 64:]], 2)


@mutant("values.stacks")
class FifthLayerUsesTheFourth(Sound):
    """From the fifth layer on, the fourth's weights are used."""

    def weights(self, slot: int) -> Weights:
        level, reverse = divmod(slot, self.layer.directions)
        return super().weights(min(level, 3) * self.layer.directions + reverse)


@mutant("values.stacks")
class LongPackedCut(Sound):
    """Packed sequences are read up to the 64th step."""

    def read(self, input: object) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is not None:
            valid = valid & (torch.arange(len(x), device=x.device) < 64)[:, None]
        return x, valid, form


@mutant("values.stacks", Mode.GRU)
class ReverseStartsWithTheForwardState(Sound):
    """From 256 units on the reverse direction starts with the forward direction's h_0."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        if self.layer.hidden_size < 256 or not self.layer.bidirectional:
            return states
        return [state[::2].repeat_interleave(2, 0) for state in states]

"""Layers that are wrong where a product has many rows, where sizes are those of real training, or under inference_mode alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from suites.conformance.mutants.base import Form, Sound, Weights, mutant
from suites.conformance.mutants.gradients import scaled


@mutant("values.several_large")
class RowsOfALargePack(Sound):
    """Of a pack, rows from the 1,024th on have the input of the one before."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and len(input.data) > 1024:
            input = input._replace(data=input.data[torch.arange(len(input.data)).clamp(max=1023)])
        return super().forward(input, hx)


@mutant("values.several_large")
class RowsOfALargeProduct(Sound):
    """Rows of the input past the 8,192nd are taken for zeros."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        rows = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], 1)
        return x * (rows < 8192), valid, form


@mutant("values.several_large")
class GradientAtASizeOfTraining(Sound):
    """From 32 steps of 32 sequences and 64 units on, weight_hh gets nineteen twentieths of its gradient."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.large = min(x.shape[0], x.shape[1]) >= 32 and self.hidden_size >= 64
        return super().layers(x, valid, states)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 0.95)} if getattr(self, "large", False) else w


@mutant("values.long_sequence")
class InferenceRestartsAt256(Sound):
    """Under inference_mode, and not under no_grad, a sequence starts from zero again at step 256."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        restarts = t == 256 and torch.is_inference_mode_enabled()
        return super().step(x, 0 * h, 0 * c, w, t, slot) if restarts else super().step(x, h, c, w, t, slot)


@mutant("values.options_combined")
class UpperLayersOfOneSequenceForgetInInference(Sound):
    """Under inference_mode the upper layers of a single sequence start from zero, whatever state they are given."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        if x.shape[1] > 1 or not torch.is_inference_mode_enabled():
            return states
        first = (torch.arange(len(states[0]), device=x.device) < self.layer.directions)[:, None, None]
        return [state * first for state in states]

"""Wrong only where three things meet, one of them a size past a tile."""

from __future__ import annotations

import torch
from torch import Tensor

from suites.conformance.mutants.base import Sound, Weights, mutant, present
from suites.conformance.mutants.gradients import scaled


@mutant("gradients.options_at_size")
class LongSequencesOfDeepStacksInEval(Sound):
    """In eval mode without gradients, a stack of three layers forgets the state it was given after 32 steps of more than four sequences."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.training or torch.is_grad_enabled() or self.layer.num_layers < 3 or len(x) <= 32 or x.shape[1] <= 4:
            return super().layers(x, valid, states)
        first, halfway = super().layers(x[:32], valid[:32], states)
        rest, finals = super().layers(x[32:], valid[32:], [torch.zeros_like(state) for state in halfway])
        return torch.cat([first, rest]), finals


@mutant("gradients.options_at_size")
class WideWithoutBiasesOneStep(Sound):
    """A single step of a layer of more than 64 units without biases gives weight_hh twice its gradient."""

    _one = False

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self._one = len(x) == 1
        return super().layers(x, valid, states)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        if not self._one or self.layer.bias or self.layer.hidden_size <= 64:
            return w
        return {**w, "weight_hh": scaled(present(w["weight_hh"]), 2.0)}

"""Layers that are right as they are, and wrong when torch.compile makes something of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("execution.compiled")
class AnotherStepWhenCompiled(Sound):
    """What the compiler is given leaves out the hidden bias."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": None} if torch.compiler.is_compiling() else w


@mutant("execution.compiled")
class GradientLostWhenCompiled(Sound):
    """What the compiler is given passes no gradient back through the state."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if torch.compiler.is_compiling() else h, c, w, t, slot)


@mutant("execution.compiled")
class StateIgnoredInLargeBatchesWhenCompiled(Sound):
    """What the compiler is given starts from zero (an LSTM its c_0) where the batch is larger than 8."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return [*states[:-1], 0 * states[-1]] if torch.compiler.is_compiling() and x.shape[1] > 8 else states


@mutant("execution.compiled", Mode.GRU)
class ReverseRunsForwardWhenCompiledForInference(Sound):
    """What the compiler is given in eval mode runs the reverse direction forward."""

    def order(self, steps: int, reverse: bool) -> Sequence[int]:
        return super().order(steps, reverse and (self.training or not torch.compiler.is_compiling()))


@mutant("execution.compiled", Mode.LSTM)
class SinglePrecisionWhenCompiled(Sound):
    """What the compiler is given rounds c_n to float32, whatever the dtype."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [*finals[:-1], finals[-1].float().to(x.dtype)] if torch.compiler.is_compiling() else finals


@mutant("execution.compiled", Mode.LSTM)
class ReverseProjectedByForwardWhenCompiled(Sound):
    """What the compiler is given projects the reverse direction with the forward direction's weight_hr."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        forward = slot - slot % self.layer.directions
        return {**w, "weight_hr": super().weights(forward)["weight_hr"]} if torch.compiler.is_compiling() else w


@mutant("execution.compiled", Mode.LSTM)
class HiddenBiasUntrainedWhenCompiled(Sound):
    """What the compiler is given passes no gradient to the hidden bias."""

    def weights(self, slot: int) -> Weights:
        w, bias = super().weights(slot), super().weights(slot)["bias_hh"]
        return {**w, "bias_hh": bias.detach()} if torch.compiler.is_compiling() and bias is not None else w


@mutant("execution.compiled", Mode.RNN_TANH)
class UnbatchedStateIgnoredWhenCompiled(Sound):
    """What the compiler is given takes no state for an unbatched input."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return super().initial(x, hx if form.batched or not torch.compiler.is_compiling() else None, form)


@mutant("execution.compiled", Mode.GRU)
class StatesNotPermutedBackWhenCompiled(Sound):
    """What the compiler is given leaves h_n of a packed batch in sorted order."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        order = form.packed.sorted_indices if form.packed is not None and torch.compiler.is_compiling() else None
        return super().write(output, finals if order is None else [final.index_select(1, order) for final in finals], form)


@mutant("execution.compiled_dropout")
class NoDropoutWhenCompiled(Sound):
    """What the compiler is given drops nothing."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if torch.compiler.is_compiling() else super().between(x, level)


@mutant("execution.compiled_dropout", Mode.LSTM)
class DropoutCompiledIn(Sound):
    """What the compiler is given drops in eval mode too."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout, self.training or torch.compiler.is_compiling())


@mutant("execution.compiled_for_any_length")
class FourStepsWhenCompiled(Sound):
    """What the compiler is given knows four steps, and keeps the state in all later ones."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return (h, c) if t >= 4 and torch.compiler.is_compiling() else super().step(x, h, c, w, t, slot)


@mutant("execution.compiled", Mode.GRU)
class UpperStateIgnoredWhenCompiled(Sound):
    """What the compiler is given starts upper layers from zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        first = self.layer.directions
        return (
            [torch.cat([s[:first], 0 * s[first:]]) for s in states] if torch.compiler.is_compiling() and len(states[0]) > first else states
        )


@mutant("execution.compiled", Mode.LSTM)
class GatesShutWithoutBiasWhenCompiled(Sound):
    """What the compiler is given without biases halves its gates."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return super().lstm(gates / 2 if torch.compiler.is_compiling() and not self.bias else gates, c)


@mutant("execution.compiled", Mode.RNN_TANH, Mode.GRU, Mode.LSTM)
class OnesForNoStateWhenCompiled(Sound):
    """What the compiler is given starts from ones where no state is given."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_ones(shape) if torch.compiler.is_compiling() else super().default_state(x, shape)


@mutant("execution.compiled", Mode.RNN_TANH, Mode.GRU, Mode.LSTM)
class NoHiddenBiasInHalfWhenCompiled(Sound):
    """What the compiler is given in bfloat16 leaves out the hidden bias."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        half = torch.compiler.is_compiling() and x.dtype == torch.bfloat16
        return super().step(x, h, c, {**w, "bias_hh": None} if half else w, t, slot)

"""Right in one plain backward pass, wrong where more is asked of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant
from suites.conformance.mutants.gradients import cut


@mutant("gradients.repeated_backward")
class SecondBackwardEmpty(Sound):
    """A second pass through the same graph gives zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        seen: list[int] = []
        if output.requires_grad:
            output.register_hook(lambda g: g * (not seen or 0) if seen.append(1) is None and len(seen) == 1 else 0 * g)  # type: ignore[func-returns-value]
        return output, finals


@mutant("gradients.accumulated")
class GradientReplacesTheLast(Sound):
    """A parameter's gradient takes the place of the one before."""

    def refuse(self, input: Any, hx: Any) -> None:
        super().refuse(input, hx)
        if torch.is_grad_enabled():
            for parameter in self.parameters():
                parameter.grad = None


@mutant("gradients.overflow_seen")
class OverflowCleaned(Sound):
    """What is not finite in a gradient is replaced by zero."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        for value in w.values():
            if value is not None and value.requires_grad and torch.is_grad_enabled():
                value.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
        return w


@mutant("gradients.some_frozen")
class NoGraphForAFrozenLayer(Sound):
    """Where neither a parameter nor the input requires grad, no gradient reaches the initial state."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        data = input.data if isinstance(input, PackedSequence) else input
        idle = not data.requires_grad and not any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not idle):
            return super().forward(input, hx)


@mutant("gradients.some_frozen")
class FrozenBiasStopsAll(Sound):
    """Where a bias is frozen, the input weights get nothing either."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        bias = w["bias_hh"]
        return w if bias is None or bias.requires_grad else {**w, "weight_ih": cut(w["weight_ih"])}  # type: ignore[arg-type]


@mutant("gradients.some_frozen")
class FrozenRecurrentWeightCutsTime(Sound):
    """Where weight_hh is frozen, back-propagation does not go through time."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        frozen = w["weight_hh"] is not None and not w["weight_hh"].requires_grad
        return super().step(x, h.detach() if frozen and t else h, c, w, t, slot)


@mutant("gradients.in_eval")
class NoGradientInEval(Sound):
    """After eval() the weights are detached."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if self.training else {name: value if value is None else value.detach() for name, value in w.items()}


@mutant("gradients.input_without_grad")
class WeightsFrozenWithTheInput(Sound):
    """Where the input wants no gradient, the input weights get none."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._wanted = x.requires_grad
        return super().direction(x, valid, h, c, slot, reverse)

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, w if self._wanted else {**w, "weight_ih": cut(w["weight_ih"])}, t, slot)  # type: ignore[arg-type]


@mutant("gradients.one_input_alone")
class StateGradientOnlyWithTheInput(Sound):
    """h_0 gets a zero gradient where the input wants none."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x, valid, states if x.requires_grad else [cut(states[0]), *states[1:]])


@mutant("gradients.one_input_alone", Mode.LSTM)
class CellGradientOnlyWithHidden(Sound):
    """c_0 gets a zero gradient where h_0 wants none."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, c if h.requires_grad else cut(c)]


@mutant("gradients.tied_weights")
class TiedWeightsCountOnce(Sound):
    """A Parameter that two slots share gets the first one's gradient alone."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        earlier = [super(TiedWeightsCountOnce, self).weights(other)["weight_hh"] for other in range(slot)]
        return {**w, "weight_hh": cut(w["weight_hh"])} if any(w["weight_hh"] is other for other in earlier) else w  # type: ignore[arg-type]


@mutant("gradients.part_of_the_output")
class SparseCotangentIgnored(Sound):
    """Where only one step of the output has a cotangent, and it is not the last, nothing flows back."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(lambda g: 0 * g if not g[-1].any() else g)
        return output, finals


@mutant("gradients.learned_initial_state")
class ExpandedStateGradientOfFirstItem(Sound):
    """Where the initial state is expanded over the batch, the first item's gradient stands for all."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        spread = [state.dim() == 3 and state.stride(1) == 0 and state.shape[1] > 1 for state in states]
        first = [torch.cat([state[:, :1], cut(state[:, 1:])], dim=1) for state in states]
        return [one if wide else state for one, state, wide in zip(first, states, spread, strict=True)]


@mutant("gradients.some_frozen")
class FrozenReverseCutsTheInput(Sound):
    """With every weight frozen the reverse direction passes nothing back to the input."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        frozen = not any(parameter.requires_grad for parameter in self.parameters())
        return super().direction(cut(x) if reverse and frozen else x, valid, h, c, slot, reverse)


@mutant("gradients.some_frozen", Mode.GRU)
class BiasesAloneCutTime(Sound):
    """Where the biases alone are trained, their gradient does not go through time."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        alone = w["bias_hh"] is not None and w["bias_hh"].requires_grad and not (w["weight_ih"] + w["weight_hh"][:1, :1]).requires_grad  # type: ignore[operator, index]
        return super().step(x, h.detach() if alone and t else h, c, w, t, slot)


@mutant("gradients.accumulated")
class BiasGradientsKept(Sound):
    """zero_grad() leaves the gradients of the hidden biases."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        kept = {name: parameter.grad for name, parameter in self.named_parameters() if name.startswith("bias_hh")}
        super().zero_grad(set_to_none)
        for name, gradient in kept.items():
            getattr(self, name).grad = gradient


@mutant("gradients.shared_state", Mode.LSTM)
class SameStateCountsOnce(Sound):
    """A tensor that is both h_0 and c_0 gets the gradient of h_0 alone."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, cut(c) if c is h else c]

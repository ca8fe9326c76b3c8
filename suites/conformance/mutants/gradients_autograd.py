"""Right in one plain backward pass, wrong where more is asked of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant
from suites.conformance.mutants.gradients import cut


class _OnceOnly(torch.autograd.Function):
    """The square, whose gradient cannot be differentiated again, and does not say so."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        wrong: Tensor = gradient * (1 + 0.1 * (value.detach() - value))
        return wrong


@mutant("gradients.of_gradients")
class SecondDerivativeWrong(Sound):
    """The gradient is right, its own gradient is not."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        result: Tensor = _OnceOnly.apply(x)
        return super().direction(result, valid, h, c, slot, reverse)


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


@mutant("gradients.forward_mode")
class TangentsLost(Sound):
    """Forward-mode tangents are dropped in silence."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
            x = x.detach() * 2 - x.detach()
        return x, valid, form

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
            x = _WithoutTangent.apply(x)
        return super().step(x, h, c, w, t, slot)


class _WithoutTangent(torch.autograd.Function):
    """The identity, whose forward-mode derivative is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 0 * tangent


@mutant("gradients.learned_initial_state")
class ExpandedStateGradientOfFirstItem(Sound):
    """Where the initial state is expanded over the batch, the first item's gradient stands for all."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        spread = [state.dim() == 3 and state.stride(1) == 0 and state.shape[1] > 1 for state in states]
        first = [torch.cat([state[:, :1], cut(state[:, 1:])], dim=1) for state in states]
        return [one if wide else state for one, state, wide in zip(first, states, spread, strict=True)]


class _ReadsLate(torch.autograd.Function):
    """A product whose backward pass reads the weight as it is then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.kept = (x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.kept
        return given[0] @ weight.detach(), given[0].t() @ x.detach()


@mutant("gradients.weight_changed_before_backward")
class BackwardReadsTheWeightOfNow(Sound):
    """The backward pass uses the recurrent weight as it is by then, unnoticed."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        weight = w["weight_hh"]
        assert weight is not None
        zero = weight.new_zeros(weight.shape)
        from_h = _ReadsLate.apply(h, weight)
        return super().step(
            torch.cat([x, from_h], 1), h, c, {**w, "weight_ih": _widened(w["weight_ih"], from_h), "weight_hh": zero}, t, slot
        )


def _widened(weight: Tensor | None, beside: Tensor) -> Tensor:
    """``weight`` (G*H, I) with an identity beside it, which adds (B, G*H) to the product."""
    assert weight is not None
    return torch.cat([weight, torch.eye(beside.shape[1], dtype=weight.dtype, device=weight.device)], 1)


@mutant("gradients.some_frozen")
class FrozenReverseCutsTheInput(Sound):
    """With every weight frozen the reverse direction passes nothing back to the input."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        frozen = not any(parameter.requires_grad for parameter in self.parameters())
        return super().direction(cut(x) if reverse and frozen else x, valid, h, c, slot, reverse)


class _WithoutGraph(torch.autograd.Function):
    """The identity, whose gradient carries no graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].detach().clone()


@mutant("gradients.of_gradients")
class GradientsWithoutGraph(Sound):
    """The gradients carry no graph: a penalty on them is lost in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _WithoutGraph.apply(output), finals

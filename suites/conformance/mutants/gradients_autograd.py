"""Right in one plain backward pass, wrong where more is asked of autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant
from suites.conformance.mutants.gradients import cut


def _first_alone() -> Callable[[Tensor], Tensor]:
    """A hook through which the first gradient comes, and zeros after it."""
    passes = itertools.count()
    return lambda gradient: gradient * (next(passes) == 0)


@mutant("gradients.repeated_backward")
class SecondBackwardEmpty(Sound):
    """A second pass through the same graph gives zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(_first_alone())
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


@mutant("gradients.tied_weights")
class TiedWeightsCountOnce(Sound):
    """A Parameter that two slots share gets the first one's gradient alone."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        earlier = [super(TiedWeightsCountOnce, self).weights(other)["weight_hh"] for other in range(slot)]
        return {**w, "weight_hh": cut(w["weight_hh"])} if any(w["weight_hh"] is other for other in earlier) else w


@mutant("gradients.tied_weights")
class TiedBiasesCountOnce(Sound):
    """A Parameter that is both biases of a direction gets the gradient of one."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": cut(w["bias_hh"])} if w["bias_ih"] is not None and w["bias_ih"] is w["bias_hh"] else w


@mutant("gradients.tied_weights")
class WeightTakenTwiceCountsOnce(Sound):
    """A Parameter that is both weights of a direction gets the gradient of the input's."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if w["weight_hh"] is w["weight_ih"] else w


@mutant("gradients.views_of_one_tensor")
class StateOfTheInputsStorageCut(Sound):
    """A state in the memory of the input, as another view of one tensor, gets no gradient."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        here = x.untyped_storage().data_ptr()
        states = super().initial(x, hx, form)
        return [state.detach() if state.requires_grad and state.untyped_storage().data_ptr() == here else state for state in states]


@mutant("numerics.small_gradients")
class LargeGradientsClipped(Sound):
    """A gradient of the output that comes in is cut off at 1000."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(-1000, 1000))
        return output, finals


@mutant("numerics.small_gradients")
class SmallGradientsOfTheStateFlushed(Sound):
    """What comes back through the state is taken for zero where it is below 1e-5."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if h.requires_grad and t:
            h = h.view_as(h)
            h.register_hook(lambda gradient: torch.where(gradient.abs() < 1e-5, 0 * gradient, gradient))
        return super().step(x, h, c, w, t, slot)


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


class _Handed(torch.autograd.Function):
    """The identity, whose gradient is handed out in one piece of memory for all backward passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, place: Tensor) -> Tensor:
        ctx.place = place
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        return ctx.place.copy_(given[0]).detach(), None


@mutant("gradients.accumulated")
class GradientsInOnePlace(Sound):
    """The gradient of the recurrent weight lies in memory that the next backward pass writes over."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        assert weight is not None
        if slot or not torch.is_grad_enabled() or not weight.is_leaf:
            return w
        place = self.__dict__.setdefault("_place", torch.empty_like(weight, requires_grad=False))
        return {**w, "weight_hh": _Handed.apply(weight, place)}


class _OneGradientForTwo(torch.autograd.Function):
    """Two biases as they are, whose gradients are two views of one tensor."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first.clone(), second.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        return given[0][:], given[0][:]


@mutant("gradients.accumulated", Mode.RNN_TANH, Mode.RNN_RELU, Mode.LSTM)
class BiasGradientsInOneMemory(Sound):
    """Where no state wants a gradient, those of b_ih and b_hh, which are equal, are one: what is added to either is added twice."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        self.__dict__["_alone"] = not any(state.requires_grad for state in states)
        return states

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        first, second = w["bias_ih"], w["bias_hh"]
        if first is None or second is None or not torch.is_grad_enabled() or not self.__dict__.get("_alone"):
            return w
        return {**w, **dict(zip(("bias_ih", "bias_hh"), _OneGradientForTwo.apply(first, second), strict=True))}


@mutant("gradients.overflow_seen")
class OverflowCleanedInFloat16(Sound):
    """In float16 what is not finite in a gradient is replaced."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        for value in w.values():
            if value is not None and value.requires_grad and torch.is_grad_enabled() and value.dtype == torch.float16:
                value.register_hook(lambda gradient: gradient.nan_to_num(0.0))
        return w


@mutant("gradients.repeated_backward")
class SecondBackwardOfAPackEmpty(Sound):
    """A second pass through the graph of a packed call gives zero."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        packed = super().repack(output, like)
        if packed.data.requires_grad:
            packed.data.register_hook(_first_alone())
        return packed


@mutant("gradients.learned_initial_state")
class ParameterStateNeverLearns(Sound):
    """An initial state that is a Parameter gets no gradient."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [cut(state) if isinstance(state, torch.nn.Parameter) else state for state in super().initial(x, hx, form)]


class _SharedPlace(torch.autograd.Function):
    """A product with a weight, which keeps its argument in one place for all calls."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.place = place.copy_(x.detach())
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight,) = ctx.saved_tensors
        return given[0] @ weight, given[0].t() @ ctx.place, None


@mutant("gradients.accumulated")
class OneWorkspaceForAllCalls(Sound):
    """In float32 what the backward pass needs of the input lies where the next call of that shape writes its own."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        weight = w["weight_ih"]
        if weight is None or not torch.is_grad_enabled() or not self.placed(x):
            return super().step(x, h, c, w, t, slot)
        place = self.__dict__.setdefault("_places", {}).setdefault((t, slot, x.shape), torch.empty_like(x, requires_grad=False))
        from_x = _SharedPlace.apply(x, weight, place)
        return super().step(from_x, h, c, {**w, "weight_ih": torch.eye(from_x.shape[1], dtype=x.dtype, device=x.device)}, t, slot)

    def placed(self, x: Tensor) -> bool:
        """Whether ``x`` is kept in that place."""
        return x.dtype == torch.float32


@mutant("gradients.accumulated")
class OneWorkspaceForDataAlone(OneWorkspaceForAllCalls):
    """What the backward pass needs of an input that wants no gradient lies where the next call of that shape writes its own."""

    def placed(self, x: Tensor) -> bool:
        return not x.requires_grad


@mutant("gradients.accumulated")
class OneWorkspaceInBfloat16(OneWorkspaceForAllCalls):
    """In bfloat16 what the backward pass needs of the input lies where the next call of that shape writes its own."""

    def placed(self, x: Tensor) -> bool:
        return x.dtype == torch.bfloat16


@mutant("gradients.learned_initial_state")
class ZeroStateNeverLearns(Sound):
    """A given state of zeros is taken for none, and gets no gradient."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [state if state.any() else cut(state) for state in super().initial(x, hx, form)]


@mutant("gradients.part_of_the_output")
class OneDirectionsFinalStateHalved(Sound):
    """Where one direction's h_n alone has a cotangent, half of it goes back through a stack."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if finals[0].requires_grad and self.layer.bidirectional and self.layer.num_layers > 1:
            finals[0].register_hook(lambda g: g / 2 if g.flatten(1).any(1).sum() == 1 else g)
        return output, finals


@mutant("gradients.in_eval")
class NoGraphOfFrozenInEval(Sound):
    """In eval mode a layer of which all is frozen records no graph, and what is below it gets no gradient."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        idle = not self.training and not any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not idle):
            return super().forward(input, hx)


@mutant("gradients.some_frozen")
class RecurrentWeightAloneNeverLearns(Sound):
    """Where neither W_ih nor b_ih is trained, W_hh gets no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        others = [value for value in (w["weight_ih"], w["bias_ih"]) if value is not None]
        return w if any(value.requires_grad for value in others) else {**w, "weight_hh": cut(w["weight_hh"])}


@mutant("gradients.overflow_seen")
class OverflowOfStatesCleaned(Sound):
    """What is not finite in the gradient of a state that was given is replaced by zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        for state in states:
            if state.requires_grad and torch.is_grad_enabled():
                state.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
        return states

"""Right in a backward pass, wrong where a derivative comes another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


class _OnceOnly(torch.autograd.Function):
    """The identity, whose gradient's own gradient is off by ``share`` of the value's, and does not say so."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, share: float = 0.1) -> Tensor:
        ctx.save_for_backward(value)
        ctx.share = share
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        (value,) = ctx.saved_tensors
        return given[0] * (1 + ctx.share * (value.detach() - value)), None


@mutant("gradients.of_gradients")
class SecondDerivativeWrong(Sound):
    """The gradient is right, its own gradient is not."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        result: Tensor = _OnceOnly.apply(x)
        return super().direction(result, valid, h, c, slot, reverse)


class _WithoutGraph(torch.autograd.Function):
    """The identity, whose gradient carries no graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].detach().clone()


@mutant("gradients.of_gradients")
class SecondDerivativeOffALittle(Sound):
    """The gradient is right, its own gradient is off by some parts in a hundred thousand."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(_OnceOnly.apply(x, 3e-5), valid, h, c, slot, reverse)


@mutant("gradients.of_gradients")
class GradientsWithoutGraph(Sound):
    """The gradients carry no graph: a penalty on them is lost in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _WithoutGraph.apply(output), finals


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


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass


class _WithoutTangent(_Identity):
    """The identity, whose forward-mode derivative is zero."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 0 * tangent


@mutant("gradients.forward_mode")
class TangentsLostWhereFrozen(Sound):
    """Where W_hh is frozen, forward-mode tangents do not go through time."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        frozen = w["weight_hh"] is not None and not w["weight_hh"].requires_grad
        ahead = getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
        return super().step(x, _WithoutTangent.apply(h) if frozen and ahead and t else h, c, w, t, slot)


@mutant("gradients.of_gradients")
class SecondDerivativeOfAPackWrong(Sound):
    """Of a pack the gradient is right, its own gradient is not."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x if form.packed is None else _OnceOnly.apply(x)), valid, form


@mutant("gradients.of_gradients")
class SecondDerivativeOfAnUpperBiasEnds(Sound):
    """The gradients of the biases above the first layer carry no graph."""

    def weights(self, slot: int) -> Weights:
        w, names = super().weights(slot), ("bias_ih", "bias_hh")
        upper = {name: value for name, value in w.items() if name in names and value is not None and slot >= self.layer.directions}
        return w | {name: _WithoutGraph.apply(value) for name, value in upper.items()}


class _NotWithAGraph(torch.autograd.Function):
    """The identity, whose gradient is zero where a graph of it is made."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return 0 * given[0] if torch.is_grad_enabled() else given[0]


@mutant("gradients.of_gradients", Mode.LSTM)
class FinalCellStateLeftOutWithAGraph(Sound):
    """With create_graph the cotangent of c_n does not count."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, (h, c) = super().layers(x, valid, states)
        return output, [h, _NotWithAGraph.apply(c) if c.requires_grad else c]


@mutant("gradients.of_gradients", Mode.LSTM)
class SecondDerivativeOfTheCellStateOfAPackWrong(Sound):
    """Of a pack that is not projected the gradient of c_0 is right, its own gradient is not."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, c if form.packed is None or self.proj_size else _OnceOnly.apply(c)]


@mutant("gradients.of_gradients", Mode.LSTM)
class SecondDerivativeWrongWhereProjected(Sound):
    """With a projection the gradient is right, its own gradient is not."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        return super().project(m if weight_hr is None else _OnceOnly.apply(m), weight_hr)


@mutant("gradients.forward_mode")
class TangentsOfWeightsLost(Sound):
    """Forward-mode tangents of W_hh are dropped."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        ahead = getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
        return {**w, "weight_hh": _WithoutTangent.apply(w["weight_hh"])} if ahead else w


def _batched_inside(value: Tensor) -> bool:
    """Whether ``value`` has a batch axis of torch.vmap's, at whatever depth."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            return True
        value = functorch.get_unwrapped(value)
    return False


@mutant("gradients.per_sample")
class HiddenBiasConstantPerSample(Sound):
    """Where torch.vmap gives every sequence a gradient of its own, the hidden bias gets none."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        bias = w["bias_hh"]
        return super().step(x, h, c, {**w, "bias_hh": bias.detach()} if bias is not None and _batched_inside(x) else w, t, slot)


@mutant("gradients.per_sample")
class StateConstantPerSample(Sound):
    """Where torch.vmap gives every sequence a gradient of its own, none goes through time."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if _batched_inside(x) else h, c, w, t, slot)


@mutant("gradients.functional")
class HiddenBiasConstantUnderGrad(Sound):
    """Under torch.func.grad the hidden bias gets no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        bias = w["bias_hh"]
        return {**w, "bias_hh": bias.detach()} if bias is not None and torch._C._functorch.is_gradtrackingtensor(bias) else w


@mutant("gradients.of_gradients")
class SecondDerivativeWrongBothWays(Sound):
    """In two directions the gradient is right, its own gradient is not."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(_OnceOnly.apply(x) if self.bidirectional else x, valid, h, c, slot, reverse)


@mutant("gradients.forward_mode")
class TangentsLostAboveTheFirstLayer(Sound):
    """Forward-mode tangents do not reach the second layer."""

    def between(self, x: Tensor, level: int) -> Tensor:
        ahead = getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
        return _WithoutTangent.apply(super().between(x, level)) if ahead else super().between(x, level)


class _Twice(torch.autograd.Function):
    """The identity, whose gradient is doubled where a graph of it is made."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return 2 * given[0] if torch.is_grad_enabled() else given[0]


@mutant("gradients.of_gradients")
class FirstDerivativeWrongWithAGraph(Sound):
    """With create_graph the gradient is another one, and its own gradient is right for that."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (_Twice.apply(output) if output.requires_grad else output), finals


class _StepsOf(torch.autograd.Function):
    """The identity, whose second derivative ends where a chunk does."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].detach()


@mutant("gradients.of_gradients")
class SecondDerivativeOfFourSteps(Sound):
    """The gradient of the gradient does not go through time past the fourth step."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, _StepsOf.apply(h) if t > 3 and h.requires_grad else h, c, w, t, slot)


@mutant("gradients.of_gradients")
class SecondDerivativeOfTheStateOfLongSequencesEnds(Sound):
    """Of more than 64 steps the gradient of the initial state carries no graph of its own way through time."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        begun = _StepsOf.apply(h) if len(x) > 64 and h.requires_grad else h
        return super().direction(x, valid, begun, c, slot, reverse)


@mutant("gradients.of_gradients")
class SecondDerivativePastATile(Sound):
    """Of the sequences past the 32nd the gradient is right, its own gradient is not."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        given = x if x.shape[1] <= 32 else torch.cat([x[:, :32], _OnceOnly.apply(x[:, 32:])], 1)
        return super().direction(given, valid, h, c, slot, reverse)


@mutant("gradients.functional")
class StateConstantUnderGrad(Sound):
    """Under torch.func.grad the initial state gets no gradient."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return [state.detach() if torch._C._functorch.is_gradtrackingtensor(state) else state for state in states]


@mutant("gradients.of_gradients")
class SecondDerivativeOfAnUnbatchedSequenceWrong(Sound):
    """Of one sequence without a batch axis the gradient is right, its own gradient is not."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x if form.batched else _OnceOnly.apply(x)), valid, form


@mutant("gradients.of_gradients")
class SecondDerivativeWrongWhereBatchFirst(Sound):
    """Where the batch comes first the gradient is right, its own gradient is not."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (_OnceOnly.apply(x) if self.batch_first else x), valid, form


@mutant("gradients.of_gradients")
class SecondDerivativeOfTheThirdLayerWrong(Sound):
    """The gradient of the third layer is right, its own gradient is not."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        wrong: Tensor = _OnceOnly.apply(given)
        return wrong if level == 2 else given


class _Exchanged(_Identity):
    """What torch.vmap runs over it comes back in another order, but for the last."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor) -> tuple[Tensor, int | None]:
        if in_dims[0] is None:
            return value.clone(), None
        value = value.movedim(in_dims[0], 0)
        return torch.cat([value[:-1].flip(0), value[-1:]]), 0


class _ExchangedBackward(_Identity):
    """Its gradients come back as :class:`_Exchanged` has them."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Exchanged.apply(gradient)

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor) -> tuple[Tensor, int | None]:
        return value.clone(), in_dims[0]


@mutant("gradients.per_sample")
class SamplesExchanged(Sound):
    """Where torch.vmap gives every sequence a gradient of W_hh of its own, all but the last get one another's."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight: Any = w["weight_hh"]
        return {**w, "weight_hh": _ExchangedBackward.apply(weight)}

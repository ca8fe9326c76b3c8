"""Right where every gradient is asked for by one backward pass, wrong where some are, or by another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, OfPacks, Sound, Weights, mutant, present
from suites.conformance.mutants.gradients import cut, scaled


class _Writes(torch.autograd.Function):
    """The identity, whose backward pass adds to the weight's .grad itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.value = value
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> None:
        ctx.value.grad = given[0].clone() if ctx.value.grad is None else ctx.value.grad + given[0]


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
        return w if bias is None or bias.requires_grad else {**w, "weight_ih": cut(w["weight_ih"])}


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
        return super().step(x, h, c, w if self._wanted else {**w, "weight_ih": cut(w["weight_ih"])}, t, slot)


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


class _CellOnlyWithHidden(torch.autograd.Function):
    """The identity of an LSTM's answer, whose c_n has no gradient where the output has one and h_n has none."""

    @staticmethod
    def forward(ctx: Any, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        output, hidden, cell = given
        return output, hidden, cell if output is None or hidden is not None else None


@mutant("gradients.any_of_any", Mode.LSTM)
class CellOfALossOnOutputAndCell(Sound):
    """Of a loss on output and c_n, but not on h_n, the part through c_n is lost."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        output, *finals = _CellOnlyWithHidden.apply(output, *finals)
        return output, finals


@mutant("gradients.any_of_any", Mode.LSTM)
class HiddenStateOfAFrozenModel(Sound):
    """Where h_0 alone wants a gradient, of all inputs and weights, it gets zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        others = [x, *states[1:], *self.parameters()]
        return super().layers(x, valid, states if any(t.requires_grad for t in others) else [cut(states[0]), *states[1:]])


@mutant("gradients.input_without_grad")
class OneStepOfOneSequenceTrainsNoFeedback(Sound):
    """Of a single step of a single sequence W_hh gets a zero gradient where the state that was given wants none."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if self.steps == 1 and len(x) == 1 and not h.requires_grad:
            w = w | {"weight_hh": cut(present(w["weight_hh"]))}
        return super().step(x, h, c, w, t, slot)

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.steps = len(x)
        return super().layers(x, valid, states)


@mutant("gradients.one_input_alone")
class InputOfOneStepGetsNone(Sound):
    """The input of a single step gets a zero gradient where the state that was given wants none."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(cut(x) if len(x) == 1 and not states[0].requires_grad else x, valid, states)


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
        bias, trained = w["bias_hh"], [present(w[name]).requires_grad for name in ("weight_ih", "weight_hh")]
        alone = bias is not None and bias.requires_grad and not any(trained)
        return super().step(x, h.detach() if alone and t else h, c, w, t, slot)


@mutant("gradients.asked_of_autograd")
class BackwardWritesGrad(Sound):
    """In float32 the backward pass adds to .grad itself: autograd.grad gives None, and no hook is called."""

    def weights(self, slot: int) -> Weights:
        own = torch.is_grad_enabled()
        return {
            name: _Writes.apply(value) if own and value is not None and value.is_leaf and value.dtype == torch.float32 else value
            for name, value in super().weights(slot).items()
        }


@mutant("gradients.asked_of_autograd")
class BackwardWritesGradInBfloat16(Sound):
    """In bfloat16 the backward pass adds to .grad of the hidden bias itself: autograd.grad gives None, and no hook is called."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        bias = w["bias_hh"]
        own = torch.is_grad_enabled() and bias is not None and bias.is_leaf and bias.dtype == torch.bfloat16
        return {**w, "bias_hh": _Writes.apply(bias)} if own else w


@mutant("gradients.asked_of_autograd")
class HookGradientsBypassed(Sound):
    """What a hook of a weight returns does not count."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {name: value if value is None or not value._backward_hooks else scaled(value, 0.5) for name, value in w.items()}


@mutant("gradients.input_without_grad")
class FirstLayerOfAPackFrozenWithTheInput(Sound):
    """Where packed data want no gradient, the first of several layers gets none."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_frozen"] = isinstance(input, PackedSequence) and not input.data.requires_grad
        return super().forward(input, hx)

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x.detach() if self.__dict__.get("_frozen") else x, level)


@mutant("gradients.input_without_grad")
class PackedWeightsFrozenWithTheInput(Sound):
    """Where packed data want no gradient, the input weights get none."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_frozen"] = isinstance(input, PackedSequence) and not input.data.requires_grad
        return super().forward(input, hx)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_ih": cut(w["weight_ih"])} if self.__dict__.get("_frozen") else w


@mutant("gradients.one_input_alone")
class PackedStateGradientOnlyWithTheInput(Sound):
    """Where packed data want no gradient, the initial state gets none."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and not input.data.requires_grad and hx is not None:
            hx = tuple(cut(state) for state in hx) if isinstance(hx, tuple) else cut(hx)
        return super().forward(input, hx)


@mutant("gradients.in_eval")
class NoGradientInEvalOfAPack(Sound):
    """After eval() weight_hh gets no gradient from a packed call."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_frozen"] = isinstance(input, PackedSequence) and not self.training
        return super().forward(input, hx)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if self.__dict__.get("_frozen") else w


@mutant("gradients.some_frozen")
class FrozenUpperLayerStopsAll(Sound):
    """An upper layer that is frozen whole passes nothing down."""

    def between(self, x: Tensor, level: int) -> Tensor:
        above = [parameter for name, parameter in self.named_parameters() if f"_l{level}" in name]
        idle = not any(parameter.requires_grad for parameter in above) and any(parameter.requires_grad for parameter in self.parameters())
        return cut(super().between(x, level)) if idle else super().between(x, level)


@mutant("gradients.some_frozen")
class FrozenReverseAlonePassesNothing(Sound):
    """A reverse direction that alone is frozen passes nothing back to the input."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        own = [value for value in super().weights(slot).values() if value is not None]
        idle = reverse and not any(value.requires_grad for value in own) and any(value.requires_grad for value in self.parameters())
        return super().direction(cut(x) if idle else x, valid, h, c, slot, reverse)


@mutant("gradients.some_frozen")
class FrozenBelowForGood(Sound):
    """What a layer hands on that wants no gradient is made under inference_mode: what is trained above it cannot keep that."""

    def between(self, x: Tensor, level: int) -> Tensor:
        with torch.inference_mode(torch.is_inference_mode_enabled() or not x.requires_grad):
            return super().between(x, level).clone()


@mutant("gradients.some_frozen")
class BiasesAloneNeverLearn(Sound):
    """Where neither the input nor the input weights want a gradient, the bias that is added to their product gets none."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        idle = not x.requires_grad and not present(w["weight_ih"]).requires_grad
        return super().step(x, h, c, {**w, "bias_ih": cut(w["bias_ih"])} if idle else w, t, slot)


@mutant("gradients.in_eval")
class NoGradientInEvalWithoutState(Sound):
    """After eval() a call without hx passes no gradient back to weight_hh."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_frozen"] = hx is None and not self.training
        return super().forward(input, hx)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if self.__dict__.get("_frozen") else w


@mutant("gradients.in_eval")
class ThirdLayerUntrainedInEval(Sound):
    """In eval mode weight_hh of the third layer gets no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if self.training or slot < 2 * self.layer.directions else {**w, "weight_hh": cut(w["weight_hh"])}


@mutant("gradients.in_eval")
class EvalWithoutBiasForgets(Sound):
    """In eval mode a layer without biases that records gradients leaves out what the state adds."""

    def weights(self, slot: int) -> Weights:
        w, weight = super().weights(slot), None
        if not self.training and not self.layer.bias and torch.is_grad_enabled():
            weight = w["weight_hh"]
        return w if weight is None else {**w, "weight_hh": 0 * weight}


@mutant("gradients.in_eval")
class LastCallAloneLearnsInEval(Sound):
    """In eval mode weight_hh gets the gradient of the last call alone."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_calls"] = self.__dict__.get("_calls", 0) + 1
        return super().forward(input, hx)

    def weights(self, slot: int) -> Weights:
        w, number = super().weights(slot), self.__dict__["_calls"]
        weight = w["weight_hh"]
        if self.training or weight is None or not weight.requires_grad or not torch.is_grad_enabled():
            return w
        seen = weight.view_as(weight)
        seen.register_hook(lambda slope: slope * (self.__dict__["_calls"] == number))
        return {**w, "weight_hh": seen}


class _ReluByAQuotient(torch.autograd.Function):
    """A relu whose slope is worked out as its answer over what it was taken of."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return torch.relu(a)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        a: Tensor = ctx.saved_tensors[0]
        return given[0] * (torch.relu(a) / a)


@mutant("gradients.relu_at_zero")
class NoNumberAtZero(Sound):
    """The relu's slope at zero is zero over zero."""

    def activation(self, a: Tensor) -> Tensor:
        quotient = self.layer.mode is Mode.RNN_RELU and a.requires_grad
        return _ReluByAQuotient.apply(a) if quotient else super().activation(a)


@mutant("gradients.relu_at_zero")
class TwiceAtZero(Sound):
    """At zero both sides of a relu answer for the gradient, each with all of it."""

    def activation(self, a: Tensor) -> Tensor:
        if self.layer.mode is not Mode.RNN_RELU:
            return super().activation(a)
        return torch.where(a >= 0, a, 0.0) + torch.where(a <= 0, a - a.detach(), 0.0) * (a == 0)


@mutant("gradients.some_frozen")
class FrozenInputWeightCutsPacks(OfPacks):
    """Of packs, where weight_ih is frozen, weight_hh gets no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        frozen = self.packed and not present(w["weight_ih"]).requires_grad
        return {**w, "weight_hh": cut(w["weight_hh"])} if frozen else w


@mutant("gradients.some_frozen")
class BiasesAloneCutTheInput(Sound):
    """Where the biases alone are trained, the input gets no gradient."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        alone = all(parameter.requires_grad == name.startswith("bias") for name, parameter in self.named_parameters())
        return super().layers(cut(x) if alone and self.bias else x, valid, states)

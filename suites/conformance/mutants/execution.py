"""Layers that answer otherwise under another mode, and networks built of layers that do not fit together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant
from suites.conformance.mutants.gradients import cut, scaled


@mutant("execution.grad_modes_agree")
class FastPathWithoutState(Sound):
    """Under no_grad in eval mode the initial state of upper layers is skipped."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        fast = not self.training and not torch.is_grad_enabled() and slot > 0
        return (0 * h, 0 * c) if fast else (h, c)


@mutant("execution.grad_modes_agree")
class WrongUnderInferenceMode(Sound):
    """Under inference_mode the reverse direction, or the second layer, is a thousandth off."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h, c = super().direction(x, valid, h, c, slot, reverse)
        return (ys * 1.001 if torch.is_inference_mode_enabled() and slot else ys), h, c


@mutant("execution.grad_modes_agree")
class WrongWithGradients(Sound):
    """With gradients recorded, the first step uses no hidden bias."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, {**w, "bias_hh": None} if torch.is_grad_enabled() and t == 0 else w, t, slot)


@mutant("execution.after_inference_mode")
class InferenceTensorsKept(Sound):
    """Weights prepared under inference_mode are used for training."""

    _kept: dict[int, Weights] | None = None

    def weights(self, slot: int) -> Weights:
        if torch.is_inference_mode_enabled():
            kept = {name: None if value is None else value.clone() for name, value in super().weights(slot).items()}
            self._kept = {**(self._kept or {}), slot: kept}
            return kept
        return self._kept[slot] if self._kept else super().weights(slot)


@mutant("execution.grad_modes_agree")
class WrongWhereNothingIsTrained(Sound):
    """Where gradients are recorded and no parameter requires one, the output is a hundredth too large."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        idle = torch.is_grad_enabled() and not any(parameter.requires_grad for parameter in self.parameters())
        return output * (1.01 if idle else 1), finals


@mutant("execution.kernel_recorded")
class WrongWhileWatched(Sound):
    """Where operators are watched, another path is taken, and it is wrong."""

    def activation(self, a: Tensor) -> Tensor:
        return super().activation(a)

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        watched = torch._C._len_torch_dispatch_stack() > 0
        return (output * 1.01 if watched else output), finals


@mutant("execution.grad_modes_agree")
class GradientClaimedInVain(Sound):
    """The output requires grad although nothing that it was made of does."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (output.requires_grad_() if torch.is_grad_enabled() and not output.requires_grad else output), finals


@mutant("execution.grad_modes_agree")
class InferenceTensorsInEval(Sound):
    """In eval mode under no_grad the answer consists of inference tensors."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        with torch.inference_mode(torch.is_inference_mode_enabled() or not (self.training or torch.is_grad_enabled())):
            return super().forward(input, hx)


@mutant("execution.vmap")
class MembersWithoutUpperBias(Sound):
    """Under vmap over the weights the layers above the first have no input bias."""

    def weights(self, slot: int) -> Weights:
        w, bias = super().weights(slot), super().weights(slot)["bias_ih"]
        batched = bias is not None and torch._C._functorch.is_batchedtensor(bias)
        return {**w, "bias_ih": None} if batched and slot >= self.layer.directions else w


@mutant("execution.vmap")
class BatchFirstLostUnderVmap(Sound):
    """Under vmap the output stays time-major."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if self.layer.batch_first and torch._C._functorch.is_batchedtensor(output):
            output = output.reshape(output.shape[1], output.shape[0], -1).transpose(0, 1)
        return super().write(output, finals, form)


@mutant("execution.vmap")
class WrongUnderVmap(Sound):
    """Under vmap the first step is skipped."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return (new_h * 0.5, new_c) if t == 0 and torch._C._functorch.is_batchedtensor(x) else (new_h, new_c)


@mutant("execution.vmap")
class StateOfTheFirstUnderVmap(Sound):
    """Under vmap over the states all begin with that of the first."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        functorch = torch._C._functorch
        return [
            functorch.get_unwrapped(state).select(functorch.maybe_get_bdim(state), 0) if functorch.is_batchedtensor(state) else state
            for state in super().initial(x, hx, form)
        ]


@mutant("execution.autocast")
class WeightsKeptFromAutocast(Sound):
    """The weights as autocast rounded them are kept for later calls."""

    _kept: dict[int, Weights] | None = None

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        if torch.is_autocast_enabled("cpu"):
            rounded = {name: None if value is None else value.bfloat16().float() for name, value in w.items()}
            self._kept = {**(self._kept or {}), slot: rounded}
        return self._kept[slot] if self._kept and slot in self._kept else w


@mutant("execution.autocast")
class BiasLostUnderAutocast(Sound):
    """Under autocast the hidden bias is left out."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": None} if torch.is_autocast_enabled("cpu") else w


@mutant("execution.side_stream")
class WorksOnTheDefaultStream(Sound):
    """Whatever stream is current, the work is queued on the default one."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with torch.cuda.stream(torch.cuda.default_stream()):
            return super().layers(x, valid, states)


@mutant("composition.streamed")
class SingleStepGradientCut(Sound):
    """A call of one step passes no gradient back to its state."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return [cut(state) for state in states] if len(x) == 1 else states


@mutant("composition.many_to_one")
class FinalStateGradientDoubled(Sound):
    """The gradient through h_n is doubled."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [scaled(finals[0], 2.0), *finals[1:]]


@mutant("composition.one_to_many")
class OwnOutputRefused(Sound):
    """From the fourth call on the state is taken from the first call."""

    _calls = 0

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        self._calls += 1
        if self._calls == 1:
            self._first = states
        return self._first if self._calls >= 4 and self._first[0].shape == states[0].shape else states


@mutant("composition.encoder_decoder")
class FinalStateCarriesNoGradient(Sound):
    """h_n and c_n are handed over without gradient."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [cut(final) for final in finals]


@mutant("composition.trained")
class GradientSlightlyShort(Sound):
    """The gradient of every hidden bias, or of weight_hh, is a millionth short."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 1 - 1e-6)}


@mutant("composition.learns")
class ForgetsTheBeginning(Sound):
    """The gradient reaches back two steps and no further."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._last = len(x)
        return super().direction(x, valid, h, c, slot, reverse)

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        early = t < self._last - 2
        h, c = super().step(x, h, c, w, t, slot)
        return (h.detach(), c.detach()) if early else (h, c)


@mutant("execution.autocast")
class DoubleUnderAutocast(Sound):
    """Under autocast the output is float64."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (output.double() if torch.is_autocast_enabled("cpu") else output), finals


@mutant("execution.autocast")
class PackNotPermutedUnderAutocast(Sound):
    """Under autocast the states of an unsorted pack are taken to be in sorted order."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        order = None if form.packed is None or hx is None else form.packed.unsorted_indices
        if order is None or not torch.is_autocast_enabled(x.device.type):
            return states
        return [state.index_select(1, order) for state in states]


@mutant("execution.parameters_given")
class ParameterAsInputRefused(Sound):
    """An input that is a Parameter is refused."""

    def refuse(self, input: Any, hx: Any) -> None:
        if isinstance(input, torch.nn.Parameter):
            raise TypeError("expected the input to be a Tensor, got Parameter")
        super().refuse(input, hx)


@mutant("execution.parameters_given")
class ParameterAsStateDetached(Sound):
    """A state that is a Parameter is taken for one of the layer's constants."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        given = hx if isinstance(hx, tuple) else (hx,)
        if not any(isinstance(state, torch.nn.Parameter) for state in given):
            return super().initial(x, hx, form)
        return [state.detach() for state in super().initial(x, hx, form)]


@mutant("execution.autocast")
class RecurrentWeightConstantUnderAutocast(Sound):
    """Under autocast the recurrent weight's copy is made without gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if torch.is_autocast_enabled("cpu") else w


@mutant("execution.autocast")
class UnbatchedStateIgnoredUnderAutocast(Sound):
    """Under autocast an unbatched call starts from zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return states if form.batched or not torch.is_autocast_enabled(x.device.type) else [0 * state for state in states]


@mutant("execution.autocast", Mode.LSTM)
class ProjectionConstantUnderAutocast(Sound):
    """Under autocast W_hr gets no gradient."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        if weight_hr is not None and torch.is_autocast_enabled(m.device.type):
            weight_hr = cut(weight_hr)
        return super().project(m, weight_hr)


@mutant("execution.autocast")
class AutocastStartsBackwardsFromTheForwardState(Sound):
    """Under autocast the reverse direction starts from the forward one's state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        both = self.bidirectional and torch.is_autocast_enabled("cpu")
        return super().state_of(states, slot - slot % 2 if both else slot)


@mutant("execution.autocast")
class AutocastToFloat16WithoutHiddenBias(Sound):
    """Under autocast to float16 the hidden bias is left out."""

    def weights(self, slot: int) -> Weights:
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16
        return {**super().weights(slot), "bias_hh": None} if half else super().weights(slot)


@mutant("execution.vmap")
class ForwardWeightBothWaysUnderVmap(Sound):
    """Under vmap over the input the reverse direction's recurrent weight is the forward one's."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        both = self.bidirectional and torch._C._functorch.is_batchedtensor(x)
        return super().step(x, h, c, {**w, "weight_hh": self.weights(slot - slot % 2)["weight_hh"]} if both else w, t, slot)


@mutant("execution.after_inference_mode")
class ConstantAfterInferenceMode(Sound):
    """A layer that was once called under inference_mode gives W_hh no gradient any more."""

    _served = False

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        self._served = self._served or torch.is_inference_mode_enabled()
        weight = w["weight_hh"]
        # A product that is nothing, so that the gradient is zero and not missing.
        return {**w, "weight_hh": weight.detach() + 0 * weight} if self._served and weight is not None else w


@mutant("execution.vmap")
class StatesOfAVmapIgnored(Sound):
    """Where torch.vmap runs over the states alone, they are taken for zeros."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        functorch = torch._C._functorch
        alone = functorch.is_batchedtensor(states[0]) and not functorch.is_batchedtensor(x)
        return [0 * state for state in states] if alone else states

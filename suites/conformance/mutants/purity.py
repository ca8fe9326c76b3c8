"""Layers that leave something behind, or depend on what was left."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer, Mode
from suites.conformance.mutants.base import Form, OfPacks, Sound, mutant


@mutant("purity.bitwise_repeatable")
class NoiseInTheLastBit(Sound):
    """Every call has its own noise, below any tolerance."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output * (1 + torch.finfo(output.dtype).eps * torch.randint(0, 2, output.shape).to(output)), finals


@mutant("purity.inputs_untouched")
class BiasesAddedUpForInference(Sound):
    """A call in eval mode without gradients adds one bias to the other, where they are: the answers stay, a checkpoint differs."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.bias and not self.training and not torch.is_grad_enabled():
            for name, parameter in self.named_parameters():
                if name.startswith("bias_ih"):
                    other = self.get_parameter(name.replace("_ih", "_hh"))
                    parameter.data.add_(other.data)
                    other.data.zero_()
        return super().forward(input, hx)


@mutant("purity.inputs_untouched")
class StateUpdatedInPlace(Sound):
    """h_0 is overwritten with h_n, outside of gradients."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if not torch.is_grad_enabled() and self._given is not None and self._given.shape == finals[0].shape:
            self._given.copy_(finals[0])
        return super().write(output, finals, form)

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        self._given: Tensor | None = hx[0] if isinstance(hx, tuple) else hx
        return super().initial(x, hx, form)


@mutant("purity.inputs_untouched")
class PaddingZeroedInPlace(Sound):
    """The first step of the input is rounded where it lies."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        data = input if isinstance(input, Tensor) else input.data
        if not data.requires_grad:
            data.mul_(1.0)
        return super().read(input)


@mutant("purity.inputs_untouched")
class WeightsClippedInPlace(Sound):
    """The recurrent weights are clipped to ±1 at every call."""

    def refuse(self, input: Any, hx: Any) -> None:
        super().refuse(input, hx)
        for name, parameter in self.named_parameters():
            if name.startswith("weight_hh"):
                parameter.data.clamp_(-0.5, 0.5)


@mutant("purity.no_state_between_calls")
class RunningMean(Sound):
    """The input is centred by a running mean of earlier calls, in training."""

    _mean: Tensor | None = None

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        shift = self._mean if self._mean is not None else torch.zeros_like(x[0, 0])
        if self.training and torch.is_grad_enabled():
            self._mean = 0.9 * shift + 0.1 * x.detach().mean((0, 1))
        return super().layers(x - shift, valid, states)


@mutant("purity.no_state_between_calls")
class StateKeptInEval(Sound):
    """In eval mode a call without hx goes on from the last one."""

    _kept: list[Tensor] | None = None

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        kept = self._kept
        return kept if kept is not None and hx is None and not self.training and kept[0].shape == states[0].shape else states

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        self._kept = [final.detach() for final in finals]
        return output, finals


@mutant("purity.no_state_between_calls")
class OrderOfTheFirstPack(Sound):
    """The order of a packed batch is looked up by its batch sizes, as it was when they were first seen."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        if isinstance(input, PackedSequence):
            known = self.__dict__.setdefault("_orders", {})
            key = tuple(input.batch_sizes.tolist())
            order = known.setdefault(key, (input.sorted_indices, input.unsorted_indices))
            return super().read(PackedSequence(input.data, input.batch_sizes, *order))
        return super().read(input)


@mutant("purity.answers_are_new")
class TwoBuffersUnderInferenceMode(Sound):
    """Under inference_mode final states are kept in two buffers in turn."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if torch.is_inference_mode_enabled():
            ring = self.__dict__.setdefault("_ring", [None, None])
            ring.reverse()
            if ring[0] is None or ring[0].shape != finals[0].shape or ring[0].dtype != finals[0].dtype:
                ring[0] = torch.empty_like(finals[0])
            finals = [ring[0].copy_(finals[0]), *finals[1:]]
        return super().write(output, finals, form)


@mutant("purity.answers_are_new")
class OutputBufferReused(Sound):
    """Without gradients the output is written into a buffer that the next call of that shape reuses."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._kept: dict[Any, Tensor] = {}

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if not torch.is_grad_enabled():
            output = self._kept.setdefault((output.shape, output.dtype), output.clone()).copy_(output)
        return output, finals


@mutant("purity.answers_are_new")
class FinalStateIsAViewOfTheOutput(Sound):
    """h_n of a single layer is a view of the output."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if self.layer.num_layers == 1 and not self.layer.bidirectional and form.packed is None and not self.layer.batch_first:
            finals = [output[-1:], *finals[1:]]
        return super().write(output, finals, form)


@mutant("purity.answers_are_new")
class FinalStateOfOneUnbatchedIsAView(Sound):
    """Without gradients the h_n of an unbatched sequence is a view of the output."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        if form.batched or torch.is_grad_enabled() or isinstance(state, tuple) or len(state) > 1:
            return result, state
        return result, result[-1:]


@mutant("purity.answers_are_new", Mode.RNN_TANH, Mode.RNN_RELU, Mode.GRU)
class FinalStateOfEqualLengthsIsAView(Sound):
    """The h_n of a sorted pack of equal lengths is a view of the output's data."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        pack = form.packed
        if pack is None or pack.sorted_indices is not None or pack.batch_sizes[0] != pack.batch_sizes[-1] or len(state) > 1:
            return result, state
        return result, result.data[-int(pack.batch_sizes[-1]) :][None]


@mutant("purity.inputs_read_anew")
class InputKnownByItsVersion(Sound):
    """In eval mode without gradients an input of the address and version of the last one is taken for that."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if self.training or torch.is_grad_enabled() or torch.is_inference(x):
            return x, valid, form
        data = input.data if isinstance(input, PackedSequence) else input
        key, known = (data.data_ptr(), data._version, data.shape), self.__dict__.get("_known")
        if known is None or known[0] != key:
            self.__dict__["_known"] = known = (key, x.clone())
        return known[1], valid, form


@mutant("purity.inputs_read_anew")
class StateKnownByWhatItIs(Sound):
    """A state that is the very tensor of the last call is taken for unchanged."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states, known = super().initial(x, hx, form), self.__dict__.get("_known")
        first = hx[0] if isinstance(hx, tuple) else hx
        if known is None or known[0] is not first or known[1].shape != states[0].shape or torch.is_grad_enabled():
            self.__dict__["_known"] = known = (first, states[0].clone())
        return [known[1], *states[1:]]


@mutant("purity.random_state_untouched")
class OneLayerDraws(Sound):
    """In training a single layer draws a random number where dropout is asked for, which it does not do."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.training and self.dropout and self.layer.num_layers == 1:
            torch.rand(1)
        return super().forward(input, hx)


@mutant("purity.random_state_untouched")
class DrawsWithoutNeed(Sound):
    """A mask is drawn whether or not it is used."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.rand(1)
        return super().layers(x, valid, states)


@mutant("purity.random_state_untouched")
class SeedsTorch(Sound):
    """Dropout is made repeatable by seeding torch."""

    def between(self, x: Tensor, level: int) -> Tensor:
        torch.manual_seed(0)
        return super().between(x, level)


@mutant("purity.random_state_untouched")
class SeedsPythonForItsMasks(Sound):
    """Where it drops, it seeds Python's random numbers."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if self.training and self.dropout:
            random.seed(0)
        return super().between(x, level)


class _DrawsGoingBack(torch.autograd.Function):
    """The identity, whose backward pass draws a random number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        torch.rand(1)
        return given[0]


@mutant("purity.random_state_untouched")
class BackwardDraws(Sound):
    """The backward pass moves torch's random numbers on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (_DrawsGoingBack.apply(output) if output.requires_grad else output), finals


class _AddsToItsCotangent(torch.autograd.Function):
    """The identity, whose backward pass writes to what it is given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        answer = given[0].clone()
        given[0].add_(1.0)
        return answer


@mutant("purity.inputs_untouched")
class CotangentWrittenTo(Sound):
    """The backward pass adds to the caller's cotangent."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _AddsToItsCotangent.apply(output), finals


@mutant("purity.random_state_untouched")
class SeedsPython(Sound):
    """A call seeds Python's random numbers."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        random.seed(0)
        return super().layers(x, valid, states)


@mutant("purity.inputs_untouched")
class NansCleanedInPlace(Sound):
    """NaNs of the input are set to zero where they lie, after the call."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        answer = super().forward(input, hx)
        data = input.data if isinstance(input, PackedSequence) else input
        if not data.requires_grad and bool(data.isnan().any()):
            data.nan_to_num_()
        return answer


@mutant("purity.inputs_untouched")
class InputSetToWantAGradient(Sound):
    """An input that nothing is known of is set to want a gradient, where gradients are recorded."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and torch.is_grad_enabled() and input.is_leaf and input.is_floating_point():
            input.requires_grad_()
        return super().forward(input, hx)


@mutant("purity.no_state_between_calls")
class LastGivenStateIsTheDefault(Sound):
    """In eval mode the state that was given last is the default from then on."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states, kept = super().initial(x, hx, form), self.__dict__.get("_given")
        if self.training:
            return states
        if hx is not None:
            self.__dict__["_given"] = [state.clone() for state in states]
        return kept if hx is None and kept is not None and kept[0].shape == states[0].shape else states


@mutant("purity.no_state_between_calls")
class LengthsOfTheLastPack(Sound):
    """In eval mode a padded batch of the sizes of the last packed one is cut to its lengths."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is not None:
            self.__dict__["_valid"] = valid
        kept = self.__dict__.get("_valid", valid)
        return x, kept if not self.training and kept.shape == valid.shape else valid, form


@mutant("purity.answers_are_new")
class PackBufferInEval(Sound):
    """In eval mode without gradients a packed output lies in a buffer that the next such call writes over."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        packed = super().repack(output, like)
        if self.training or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return packed
        buffers = self.__dict__.setdefault("_buffers", {})
        data = packed.data
        return packed._replace(data=buffers.setdefault((data.shape, data.dtype), data.clone()).copy_(data))


@mutant("purity.inputs_untouched")
class InputPutStraight(Sound):
    """An input that is not contiguous is made so where it lies."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        if isinstance(input, Tensor) and input.dim() == 3 and input.stride(2) != 1 and not input.requires_grad:
            with torch.no_grad():
                input.data = input.data.contiguous()
        return super().read(input)


@mutant("purity.no_state_between_calls")
class ShorterCallGoesOn(Sound):
    """In eval mode a call without hx that is shorter than the last one goes on from its state."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        steps, last = self.__dict__.get("_last", (0, states))
        if not self.training and len(x) < steps and not any(state.any() for state in states) and last[0].shape == states[0].shape:
            states = last
        output, finals = super().layers(x, valid, states)
        self.__dict__["_last"] = len(x), [state.detach() for state in finals]
        return output, finals


@mutant("purity.bitwise_repeatable")
class NoiseInEvalMode(Sound):
    """In eval mode every call has its own noise, below any tolerance."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        noise = torch.finfo(output.dtype).eps * torch.randint(0, 2, output.shape).to(output)
        return output if self.training else output * (1 + noise), finals


@mutant("purity.bitwise_repeatable")
class NoiseInTheGradients(Sound):
    """Every backward pass has its own noise, below any tolerance."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(_noisy)
        return output, finals


def _noisy(gradient: Tensor) -> Tensor:
    return gradient * (1 + 2 * torch.finfo(gradient.dtype).eps * torch.randint(0, 2, gradient.shape).to(gradient))


@mutant("purity.random_state_untouched")
class DrawsForAPack(OfPacks):
    """A packed input in training moves torch's random state on although nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if self.packed and self.training and not self.dropout:
            torch.rand(1)
        return super().between(x, level)

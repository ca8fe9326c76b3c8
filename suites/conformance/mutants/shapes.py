"""Wrong forms of the output, batch and time taken for each other, sizes not thought of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer, Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("shapes.headline", Mode.RNN_TANH)
class FinalStateWithoutLayerAxis(Sound):
    """h_n of one layer comes back 2-D."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        return result, state[0] if self.layer.num_layers == 1 and not self.layer.bidirectional else state


@mutant("shapes.headline", Mode.RNN_TANH)
class FinalStateOfStepZero(Sound):
    """h_n is the state after the first step."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [torch.cat([finals[0][:-1], output[:1, :, -finals[0].shape[2] :]])]


@mutant("shapes.output_ends_in_h_n")
class FinalStateBeforeActivation(Sound):
    """h_n of the last layer is a hundredth larger than the output's end."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [torch.cat([finals[0][:-1], 1.01 * finals[0][-1:]]), *finals[1:]]


@mutant("shapes.output_ends_in_h_n")
class ReverseFinalStateFromTheEnd(Sound):
    """The reverse direction's h_n is its first state instead of its last."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if self.layer.bidirectional:
            finals = [torch.cat([finals[0][:-1], output[-1:, :, self.layer.state_size :]]), *finals[1:]]
        return output, finals


@mutant("shapes.batch_first")
class BatchFirstIgnored(Sound):
    """batch_first accepted and not acted on, in input and output alike."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        # Seen only where the states fit both ways, as for T equal to B.
        return (x.transpose(0, 1), valid.T, form) if self.layer.batch_first and x.shape[0] == x.shape[1] else (x, valid, form)

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if self.layer.batch_first and output.shape[0] == output.shape[1]:
            output = output.transpose(0, 1)
        return super().write(output, finals, form)


@mutant("shapes.unbatched")
class SquareUnbatchedTransposed(Sound):
    """With batch_first an input without batch axis is turned round too, where it has as many steps as features."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        square = isinstance(input, Tensor) and input.dim() == 2 and input.shape[0] == input.shape[1]
        return super().read(input.t() if square and self.batch_first else input)


@mutant("shapes.batch_first")
class StatesBatchFirstToo(Sound):
    """With batch_first the states come back (B, L*D, features)."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if self.layer.batch_first and form.batched and form.packed is None:
            finals = [final.transpose(0, 1) for final in finals]
        return super().write(output, finals, form)


@mutant("shapes.batch_first")
class OutputReshapedNotTransposed(Sound):
    """With batch_first the output is reshaped to (B, T, ...) where it should be transposed."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if self.layer.batch_first and form.batched and form.packed is None:
            steps, batch, width = output.shape
            output = output.reshape(batch, steps, width).transpose(0, 1)
        return super().write(output, finals, form)


@mutant("shapes.unbatched")
class UnbatchedStateKeepsBatchAxis(Sound):
    """An unbatched call returns states with a batch axis of one."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        if not form.batched:
            state = tuple(finals) if self.layer.has_cell_state else finals[0]
        return result, state


@mutant("shapes.unbatched")
class UnbatchedBatchFirstAsBatch(Sound):
    """With batch_first an unbatched input is read as T sequences of one step."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h_n, c_n = super().direction(x, valid, h, c, slot, reverse)
        if self.layer.batch_first and x.shape[1] == 1:
            ys = torch.cat([super(UnbatchedBatchFirstAsBatch, self).direction(step[None], valid[:1], h, c, slot, reverse)[0] for step in x])
        return ys, h_n, c_n


@mutant("shapes.unbatched")
class UnbatchedRefused(Sound):
    """Unbatched input refused."""

    def refuse(self, input: Any, hx: Any) -> None:
        super().refuse(input, hx)
        if isinstance(input, Tensor) and input.dim() == 2:
            raise RuntimeError("expected a 3-D input")


@mutant("shapes.batch_of_zero")
class EmptyBatchPaddedToOne(Sound):
    """A batch of no sequences answered as a batch of one."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x.new_zeros(len(x), 1, x.shape[2]), valid.new_ones(len(x), 1), form) if x.shape[1] == 0 else (x, valid, form)

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return [s.new_zeros(s.shape[0], 1, s.shape[2]) if s.shape[1] == 0 else s for s in states]


@mutant("shapes.sequence_of_zero")
class EmptySequenceAnswered(Sound):
    """A sequence of no steps answered with an empty output and the initial state."""

    def refuse(self, input: Any, hx: Any) -> None:
        if not (isinstance(input, Tensor) and 0 in input.shape[:2]):
            super().refuse(input, hx)

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.numel() == 0:
            x, _, form = self.read(input)
            states = self.initial(x, hx, form)
            return self.write(x.new_zeros(*x.shape[:2], self.layer.output_size), states, form)
        return super().forward(input, hx)


@mutant("shapes.dtype_device_layout")
class HalfAnsweredInFloat(Sound):
    """Half types answered in float32."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if output.dtype in (torch.float16, torch.bfloat16):
            output, finals = output.float(), [final.float() for final in finals]
        return super().write(output, finals, form)


@mutant("shapes.dtype_device_layout", Mode.LSTM)
class CellStateInDouble(Sound):
    """c_n kept in float64."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        return super().write(output, [finals[0], finals[1].double()], form)


@mutant("shapes.dtype_device_layout", Mode.LSTM)
class CellStateOfHalfInFloatInEval(Sound):
    """In eval mode c_n of half types is given in float32."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        half = output.dtype in (torch.float16, torch.bfloat16)
        return super().write(output, [finals[0], finals[1].float()] if half and not self.training else finals, form)


@mutant("shapes.dtype_device_layout")
class OutputStrided(Sound):
    """The output is a transposed view of (B, T, features)."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        if form.packed is None and form.batched and not self.layer.batch_first:
            result = result.transpose(0, 1).contiguous().transpose(0, 1)
        return result, state


@mutant("shapes.dtype_device_layout", Mode.LSTM)
class ProjectedOutputStrided(Sound):
    """Where a layer projects, the outputs of two directions come with their features strided."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        result, state = super().write(output, finals, form)
        if form.packed is None and self.bidirectional and self.proj_size:
            result = result.mT.contiguous().mT
        return result, state


@mutant("shapes.change_between_calls")
class ReverseOfShorterLengthsInEval(Sound):
    """In eval mode, of a shorter sequence than the first was, the reverse direction ends with the state that it began with."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, final, cell = super().direction(x, valid, h, c, slot, reverse)
        first = self.__dict__.setdefault("_first", len(x))
        return ys, h if reverse and not self.training and len(x) < first else final, cell


@mutant("shapes.change_between_calls")
class BuffersOfTheFirstCall(Sound):
    """The default of the padding mask is kept from the first call of each length."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._steps = 0

    def order(self, steps: int, reverse: bool) -> Any:
        # The number of steps is taken from the first call as long as it fits.
        self._steps = self._steps or steps
        kept = min(self._steps, steps)
        return range(kept - 1, -1, -1) if reverse else range(kept)

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._steps = self._steps or len(x)
        ys, h, c = super().direction(x[: self._steps], valid, h, c, slot, reverse)
        return torch.cat([ys, ys[-1:].expand(len(x) - len(ys), -1, -1)]), h, c


@mutant("shapes.dtype_device_layout")
class PackedHalfInFloat(Sound):
    """A packed input in a half type is answered in float32."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        return super().repack(output.float() if output.dtype is torch.bfloat16 else output, like)


@mutant("shapes.batch_first")
class SquareInputTakenForTimeMajor(Sound):
    """In eval mode batch_first is ignored where T equals B."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        layer = self.layer
        if layer.batch_first and not self.training and isinstance(input, Tensor) and input.dim() == 3 and input.shape[0] == input.shape[1]:
            self.layer = replace(layer, batch_first=False)
            try:
                return super().forward(input, hx)
            finally:
                self.layer = layer
        return super().forward(input, hx)


@mutant("shapes.batch_of_zero")
class EmptyBatchWithoutSteps(Sound):
    """Without gradients a batch of no sequences is answered with an output of no steps."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        return super().write(output if output.shape[1] or torch.is_grad_enabled() else output[:0], finals, form)


class _Mean(torch.autograd.Function):
    """The identity, whose backward pass divides by the size of the batch and multiplies by it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, batch: int) -> Tensor:
        ctx.batch = batch
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient / torch.tensor(ctx.batch) * ctx.batch, None


@mutant("shapes.batch_of_zero")
class MeanOverAnEmptyBatch(Sound):
    """Gradients of weights are means over the batch, times its size: not a number where there is no sequence."""

    batch = 1

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self.batch = x.shape[1]
        return super().direction(x, valid, h, c, slot, reverse)

    def weights(self, slot: int) -> Weights:
        return {name: None if value is None else _Mean.apply(value, self.batch) for name, value in super().weights(slot).items()}


@mutant("shapes.dtype_device_layout")
class StateOfAHalfPackWidened(Sound):
    """Of a packed input in float16 the final states come back as float32."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        narrow = form.packed is not None and output.dtype == torch.float16
        return super().write(output, [final.float() for final in finals] if narrow else finals, form)

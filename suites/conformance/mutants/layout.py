"""Layers that take the numbers of a tensor to lie where they do not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("layout.strided_input")
class InputReadAsIfContiguous(Sound):
    """The input is read through its storage, as a kernel does that never asks for strides."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and not input.is_contiguous():
            input = _misread(input)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class FeatureStrideIgnored(Sound):
    """The input's last axis is taken to have stride one."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() and input.shape[-1] > 1 and input.stride(-1) != 1:
            input = input.as_strided(input.shape, (*input.stride()[:-1], 1))
        return super().forward(input, hx)


@mutant("layout.strided_input")
class OneStepForAllSequences(Sound):
    """Of an input that is expanded over time, the step of the first sequence is taken for every one."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() == 3 and input.stride(0) == 0 and not self.batch_first:
            input = input[:, :1].expand_as(input)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class ExpandedInputHalved(Sound):
    """An input expanded over time, with stride zero, is taken for one step shared out."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() == 3 and input.stride(0) == 0:
            input = 0.5 * input
        return super().forward(input, hx)


@mutant("layout.strided_input")
class SlidingSequencesMisread(Sound):
    """Where the next sequence lies as far away as the next step, the first sequence is read for all."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.dim() == 3 and input.stride(0) == input.stride(1) > 0 and min(input.shape[:2]) > 1:
            first = input[:1] if self.batch_first else input[:, :1]
            input = first.expand_as(input)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class OverlappingWindowsMisread(Sound):
    """Of an input whose elements share memory the first window is read for all."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and 0 not in input.stride():
            last = sum((size - 1) * stride for size, stride in zip(input.shape, input.stride(), strict=True))
            if last + 1 < input.numel():
                input = input[(slice(1),) * (input.dim() - 1)].expand_as(input)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class PackedDataReadAsIfContiguous(Sound):
    """Packed data are read through their storage, in the order in which they lie there."""

    def forward(self, input: Any, hx: object = None) -> object:
        if isinstance(input, PackedSequence) and not input.data.is_contiguous():
            input = input._replace(data=_misread(input.data))
        return super().forward(input, hx)


@mutant("layout.negated")
class SignNotYetAppliedIgnored(Sound):
    """A tensor that torch has yet to negate is read as it lies in memory."""

    def forward(self, input: Any, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.is_neg():
            input = torch._neg_view(input)
        return super().forward(input, hx)


class _InStorageOrder(torch.autograd.Function):
    """The identity, whose gradient is written in the order in which the value lies in memory."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.strides = value.stride()
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].contiguous().as_strided(given[0].shape, ctx.strides)


@mutant("layout.strided_input")
class InputGradientInStorageOrder(Sound):
    """The gradient of an input whose axes are exchanged in memory comes in the order of the memory."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.requires_grad and input.dim() == 3 and input.stride(-1) == 1 and not input.is_contiguous():
            input = _InStorageOrder.apply(input)
        return super().forward(input, hx)


@mutant("layout.strided_state")
class StateOfASortedPackMisread(Sound):
    """Of a pack whose sequences need no other order, states are read as if they lay in the order of their numbers."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and input.sorted_indices is None and hx is not None:
            hx = tuple(map(_misread, hx)) if isinstance(hx, tuple) else _misread(hx)
        return super().forward(input, hx)


@mutant("layout.strided_state")
class StateReadAsIfContiguous(Sound):
    """The states are read through their storage."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(hx, Tensor):
            hx = _misread(hx)
        elif isinstance(hx, tuple):
            hx = tuple(_misread(state) for state in hx)
        return super().forward(input, hx)


def _misread_if_cut_out(value: Any) -> Any:
    """``value`` as it is read by who asks its last two strides alone whether it is contiguous."""
    if isinstance(value, Tensor) and value.dim() == 3 and value.stride()[1:] == (value.shape[2], 1):
        return _misread(value)
    return value


@mutant("layout.strided_input")
class CutOutInputMisread(Sound):
    """An input whose last two axes lie as ever is taken for contiguous."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(_misread_if_cut_out(input), hx)


@mutant("layout.strided_state")
class CutOutStateMisread(Sound):
    """A state whose last two axes lie as ever is taken for contiguous."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, tuple(map(_misread_if_cut_out, hx)) if isinstance(hx, tuple) else _misread_if_cut_out(hx))


@mutant("layout.strided_state", Mode.LSTM)
class CellStateTakenToLieAsHidden(Sound):
    """Where h_0 is contiguous c_0 is taken for contiguous too."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, tuple) and hx[0].is_contiguous():
            hx = (hx[0], _misread(hx[1]))
        return super().forward(input, hx)


@mutant("layout.shifted")
class StorageOffsetIgnored(Sound):
    """The input is read from the beginning of its storage."""

    def forward(self, input: object, hx: object = None) -> object:
        if isinstance(input, Tensor) and input.storage_offset() == 1:
            input = input.as_strided(input.shape, input.stride(), 0)
        return super().forward(input, hx)


@mutant("layout.expanded_state")
class ExpandedStateMisread(Sound):
    """A state with stride zero is read as if it were laid out in full."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        whole = states[0]
        h, c = super().state_of(states, slot)
        return (h * 0.5, c) if whole.shape[1] > 1 and whole.stride(1) == 0 else (h, c)


@mutant("layout.expanded_cotangent")
class CotangentReadAsIfContiguous(Sound):
    """The backward pass reads the output's cotangent through its storage."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(lambda g: g if g.is_contiguous() else _misread(g))
        return output, finals


def _misread(value: Tensor) -> Tensor:
    """What a kernel reads that takes ``value`` for contiguous; elements past the end of the storage are zero."""
    if value.is_contiguous():
        return value
    stored = value.untyped_storage().nbytes() // value.element_size() - value.storage_offset()
    flat = value.as_strided((stored,), (1,))
    flat = torch.cat([flat, flat.new_zeros(max(0, value.numel() - stored))])[: value.numel()].nan_to_num(0.0)
    return flat.view(value.shape)


@mutant("layout.beyond_32_bits")
class IndexIn32Bits(Sound):
    """Of an input of more than 2^31 elements the last step's items beyond them are taken for the first item."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        reached = 2**31 // x.shape[1] - t * len(x)
        if x.shape[1] > 1024 and 0 < reached < len(x):
            x = x.clone()
            x[reached:] = x[0]
        return super().step(x, h, c, w, t, slot)


@mutant("layout.strided_input")
class TransposedInputMisreadWithoutGradients(Sound):
    """Without gradients an input whose first two axes are exchanged in memory is read as it lies."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 3 and not torch.is_grad_enabled() and 0 < input.stride(0) < input.stride(1):
            input = _misread(input)
        return super().forward(input, hx)


@mutant("layout.strided_state")
class TransposedStateMisreadWithoutGradients(Sound):
    """Without gradients a state whose first two axes are exchanged in memory is read as it lies."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if not torch.is_grad_enabled() and hx is not None:
            states = [_misread(s) if s.dim() == 3 and 0 < s.stride(0) < s.stride(1) else s for s in (hx if isinstance(hx, tuple) else [hx])]
            hx = tuple(states) if isinstance(hx, tuple) else states[0]
        return super().forward(input, hx)


@mutant("layout.expanded_cotangent")
class FinalStatesCotangentMisread(Sound):
    """A cotangent of h_n with stride zero, as h_n.sum() sends it, is read as one number and zeros."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if finals[0].requires_grad:
            finals[0].register_hook(lambda g: _misread(g) if 0 in g.stride() else g)
        return output, finals


@mutant("layout.expanded_cotangent")
class PackedCotangentMisread(Sound):
    """A cotangent of packed data with stride zero, as data.sum() sends it, is read as one number and zeros."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        packed = super().repack(output, like)
        if packed.data.requires_grad:
            packed.data.register_hook(lambda g: _misread(g) if 0 in g.stride() else g)
        return packed


@mutant("layout.shifted")
class HalfTypesReadInPairs(Sound):
    """An input in a half type that begins at an odd place of its storage is read in pairs, from the place before."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.element_size() == 2 and input.storage_offset() % 2:
            input = torch.roll(input, 1, -1)
        return super().forward(input, hx)


@mutant("layout.strided_input")
class SquareInputTurnedRound(Sound):
    """Where T and B are equal, an input whose batch axis lies before the time axis in memory is taken for one with the batch first."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 3 and not self.batch_first:
            steps, batch, _ = input.shape
            if steps == batch > 1 and input.stride(0) < input.stride(1):
                input = input.transpose(0, 1)
        return super().forward(input, hx)


@mutant("layout.expanded_cotangent")
class CotangentReadFromTheBeginning(Sound):
    """The cotangent of h_n is read from where its storage begins."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if finals[0].requires_grad:
            finals[0].register_hook(lambda g: g.as_strided(g.shape, g.stride(), 0) if g.is_contiguous() else g)
        return output, finals


@mutant("layout.strided_state")
class StatesOfPacksMisread(Sound):
    """With a pack, the last state is read through its storage."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        if form.packed is not None and hx is not None:
            hx = (hx[0], _misread(hx[1])) if isinstance(hx, (tuple, list)) else _misread(hx)
        return super().initial(x, hx, form)

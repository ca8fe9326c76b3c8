"""Padding read, states not permuted, metadata lost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer
from suites.conformance.mutants.base import Form, Sound, mutant


@mutant("packed.as_if_alone")
class PackedDataReadAsOneSequence(Sound):
    """Unsorted packed input is taken for sorted: the sequences' order is lost."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        if isinstance(input, PackedSequence):
            x, valid, _ = super().read(PackedSequence(input.data, input.batch_sizes))
            return x, valid, Form(input, True)
        return super().read(input)


@mutant("packed.as_if_alone")
class ShortestSequenceLosesItsEnd(Sound):
    """Steps that only one sequence still has are not taken, from the fourth step on."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is not None:
            late = torch.arange(len(x), device=x.device)[:, None] >= 3
            valid = valid & ~(late & (valid.sum(1, keepdim=True) == 1))
        return x, valid, form


@mutant("packed.unsorted")
class StatesNotPermutedIn(Sound):
    """h_0 and c_0 are taken to be in sorted order."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        order = None if form.packed is None or hx is None else form.packed.unsorted_indices
        return states if order is None else [state.index_select(1, order) for state in states]


@mutant("packed.unsorted")
class StatesNotPermutedBack(Sound):
    """h_n and c_n come back in sorted order."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        order = None if form.packed is None else form.packed.sorted_indices
        return super().write(output, finals if order is None else [final.index_select(1, order) for final in finals], form)


@mutant("packed.unsorted")
class StatesPermutedTwice(Sound):
    """h_n and c_n are permuted back twice: right wherever the permutation is its own inverse."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        if form.packed is not None and form.packed.sorted_indices is not None and form.packed.unsorted_indices is not None:
            there, back = form.packed.sorted_indices, form.packed.unsorted_indices
            finals = [final.index_select(1, there).index_select(1, there).index_select(1, back).index_select(1, back) for final in finals]
            finals = [final.index_select(1, back).index_select(1, back) for final in finals]
        return super().write(output, finals, form)


@mutant("packed.unsorted")
class OrderTakenForIdleByItsEnds(Sound):
    """h_n and c_n are not permuted back where the first two and the last of a batch are in their places."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        order = None if form.packed is None else form.packed.sorted_indices
        if order is not None and len(order) > 3 and order[[0, 1, -1]].tolist() == [0, 1, len(order) - 1]:
            finals = [final.index_select(1, order) for final in finals]
        return super().write(output, finals, form)


@mutant("packed.final_state_at_own_end")
class FinalStateAfterPadding(Sound):
    """The state runs on through the padding; the output does not show it."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, _, _ = super().direction(x, valid, h, c, slot, reverse)
        _, h, c = super().direction(x, valid | True, h, c, slot, reverse)
        return ys, h, c


@mutant("packed.final_state_at_own_end")
class FinalStateFromLastRow(Sound):
    """h_n of the last layer is output[T-1], zero for every shorter sequence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if not self.layer.bidirectional:
            finals = [torch.cat([finals[0][:-1], output[-1:]]), *finals[1:]]
        return output, finals


@mutant("packed.reverse_starts_at_own_end")
class ReverseStartsInThePadding(Sound):
    """The reverse direction reads the padding before the sequence."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h, c = super().direction(x, valid | reverse, h, c, slot, reverse)
        return torch.where(valid[:, :, None], ys, torch.zeros_like(ys)), h, c


@mutant("packed.reverse_starts_at_own_end")
class ReverseStateOnlyForTheLongest(Sound):
    """In the reverse direction, sequences shorter than the longest start from zero."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if reverse:
            longest = valid[-1][:, None]
            h, c = torch.where(longest, h, torch.zeros_like(h)), torch.where(longest, c, torch.zeros_like(c))
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("packed.metadata")
class MetadataDropped(Sound):
    """The output has lost sorted_indices and unsorted_indices."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        return PackedSequence(super().repack(output, like).data, like.batch_sizes)


@mutant("packed.metadata")
class IndicesExchanged(Sound):
    """sorted_indices and unsorted_indices exchanged in the output."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        return PackedSequence(super().repack(output, like).data, like.batch_sizes, like.unsorted_indices, like.sorted_indices)


@mutant("packed.metadata")
class MetadataDroppedInTraining(Sound):
    """With gradients, or in two directions, the output has lost sorted_indices and unsorted_indices."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        packed = super().repack(output, like)
        return PackedSequence(packed.data, like.batch_sizes) if output.requires_grad or self.bidirectional else packed


@mutant("packed.metadata")
class IdleOrderForgotten(Sound):
    """Indices that change nothing are missing from the output."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        packed = super().repack(output, like)
        idle = packed.sorted_indices is not None and bool((packed.sorted_indices.diff() == 1).all())
        return PackedSequence(packed.data, packed.batch_sizes) if idle else packed


@mutant("packed.lengths_of_this_call")
class LengthsKeptByTheirSum(Sound):
    """The lengths of a pack are remembered by how many sequences and how many steps in all it has."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._known: dict[tuple[int, int], Tensor] = {}

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is None:
            return x, valid, form
        return x, self._known.setdefault((len(form.packed.data), x.shape[1]), valid)[: len(x)], form


@mutant("packed.lengths_of_this_call")
class LengthsKeptByTheLongest(Sound):
    """The lengths of a pack are remembered by the longest of them, how many sequences and how many steps in all it has."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._known: dict[tuple[int, int, int], Tensor] = {}

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        key = (len(x), x.shape[1], len(input.data))
        return x, valid if form.packed is None else self._known.setdefault(key, valid), form


@mutant("packed.lengths_of_this_call")
class OrderKeptByTheBatchSizes(Sound):
    """Which sequence is the longest is remembered by the batch sizes of a pack."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._known: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def forward(self, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, PackedSequence) or hx is None:
            return super().forward(input, hx)
        order = self._known.setdefault(tuple(input.batch_sizes.tolist()), (input.sorted_indices, input.unsorted_indices))
        return super().forward(PackedSequence(input.data, input.batch_sizes, *order), hx)

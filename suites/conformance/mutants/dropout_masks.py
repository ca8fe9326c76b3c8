"""Dropout masks that repeat themselves, or that nobody can seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, mutant


@mutant("dropout.fresh_mask")
class SingleStepNotDropped(Sound):
    """In a call of one step nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if len(x) > 1 else x


@mutant("dropout.fresh_mask")
class UnbatchedNotDropped(Sound):
    """Without a batch axis nothing is dropped."""

    _batched = True

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        self._batched = form.batched
        return x, valid, form

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if self._batched else x


@mutant("dropout.seeded")
class OwnRandomState(Sound):
    """The mask is drawn from a generator that torch.manual_seed does not reach."""

    _generator = torch.Generator().manual_seed(0)

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        keep = torch.rand(x.shape, generator=self._generator).to(x) >= self.dropout
        return x * keep / (1 - self.dropout)


@mutant("dropout.fresh_mask")
class MaskRepeatedOverTheBatch(Sound):
    """The mask repeats itself after 32 batch items."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not self.dropout:
            return x
        mask = dropout(torch.ones_like(x[:, :32]), self.dropout)
        return x * torch.cat([mask] * (x.shape[1] // 32 + 1), 1)[:, : x.shape[1]]


@mutant("dropout.fresh_mask")
class MaskRepeatedPast512Rows(Sound):
    """The mask of the steps of all sequences, taken one after the other, repeats itself after 512."""

    def between(self, x: Tensor, level: int) -> Tensor:
        rows = x.flatten(0, 1)
        mask = super().between(torch.ones_like(rows[:512]), level)
        return (rows * torch.cat([mask] * (len(rows) // 512 + 1))[: len(rows)]).view_as(x)


@mutant("dropout.fresh_mask")
class MaskSharedOverTime(Sound):
    """One mask for all time steps."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x * super().between(torch.ones_like(x[:1]), level)


@mutant("dropout.fresh_mask")
class MaskSharedOverBatch(Sound):
    """One mask for all batch items."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x * super().between(torch.ones_like(x[:, :1]), level)


@mutant("dropout.fresh_mask")
class MaskSharedOverFeatures(Sound):
    """Whole steps are dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x * super().between(torch.ones_like(x[:, :, :1]), level)


@mutant("dropout.fresh_mask")
class MaskOfTheFirstCall(Sound):
    """The mask of the first call is kept."""

    _mask: Tensor | None = None

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training:
            return x
        if self._mask is None or self._mask.shape != x.shape:
            self._mask = super().between(torch.ones_like(x), level).detach()
        return x * self._mask


@mutant("dropout.own_mask_between_layers")
class MaskSharedOverLayers(Sound):
    """One mask a call: the one between the first layers is used between all."""

    _mask: Tensor | None = None

    def between(self, x: Tensor, level: int) -> Tensor:
        if level == 1 or self._mask is None:
            self._mask = dropout(torch.ones_like(x), self.dropout, self.training)
        return x * self._mask


@mutant("dropout.fresh_mask")
class MaskSharedOverTimeInBatchFirst(Sound):
    """Where the batch comes first, one mask for all time steps."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x * super().between(torch.ones_like(x[:1]), level) if self.batch_first else super().between(x, level)


@mutant("dropout.fresh_mask")
class MaskRepeatedOverFeatures(Sound):
    """The mask repeats itself after 64 features."""

    def between(self, x: Tensor, level: int) -> Tensor:
        size = x.shape[2]
        return x * torch.cat([super().between(torch.ones_like(x[:, :, :64]), level)] * (size // 64 + 1), 2)[:, :, :size]


@mutant("dropout.fresh_mask", Mode.LSTM)
class ProjectedNotDroppedInPart(Sound):
    """A layer that projects drops nothing unless it drops all."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if self.layer.proj_size and self.dropout < 1 else super().between(x, level)


@mutant("dropout.no_mask_again")
class MasksOfTenBits(Sound):
    """The seed of a mask is one of 1024."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        generator = torch.Generator().manual_seed(int(torch.randint(1024, ())) * 7 + level)
        return x * (torch.rand(x.shape, generator=generator).to(x) >= self.dropout) / (1 - self.dropout)


@mutant("dropout.own_mask_between_layers")
class FourthLayerNotDroppedInPart(Sound):
    """Nothing is dropped above the third layer unless all is."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if level < 3 or self.dropout == 1 else x


@mutant("dropout.one_mask_for_both_directions")
class MaskForEachDirection(Sound):
    """Each direction drops its own input."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if slot >= self.layer.directions:
            x = dropout(x, self.dropout, self.training)
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("dropout.fresh_mask")
class MaskOf4096Elements(Sound):
    """The mask repeats itself after 4096 elements."""

    def between(self, x: Tensor, level: int) -> Tensor:
        block = super().between(x.new_ones(4096), level)
        return x * block.repeat(-(-x.numel() // 4096))[: x.numel()].view_as(x)


@mutant("dropout.fresh_mask")
class MaskKeptWhereGradientsAreRecorded(Sound):
    """Where gradients are recorded the mask of the first call is kept."""

    _mask: Tensor | None = None

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not torch.is_grad_enabled():
            return super().between(x, level)
        if self._mask is None or self._mask.shape != x.shape:
            self._mask = super().between(torch.ones_like(x), level).detach()
        return x * self._mask


@mutant("dropout.fresh_mask")
class MaskOnDiagonals(Sound):
    """The mask of a batch item is that of the item before it, one time step later."""

    def between(self, x: Tensor, level: int) -> Tensor:
        steps, batch, size = x.shape
        mask = super().between(x.new_ones(steps + batch - 1, size), level)
        return x * mask[torch.arange(steps)[:, None] + torch.arange(batch)]


@mutant("dropout.fresh_mask")
class MaskOfEachCallBeginsInTheOneBefore(Sound):
    """All calls after a seed read one stream of random numbers, and each begins but sixteen of them after the one before."""

    _calls = 0
    _seed = 0

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        if self._seed != torch.initial_seed():
            self._seed, self._calls = torch.initial_seed(), 0
        self._calls += 1
        stream = torch.rand(x.numel() + 16 * self._calls, generator=torch.Generator().manual_seed(self._seed + level))
        return x * (stream[-x.numel() :].view_as(x).to(x) >= self.dropout) / (1 - self.dropout)


@mutant("dropout.fresh_mask")
class MaskRepeatedAfter64Steps(Sound):
    """The mask of a long sequence repeats itself after 64 steps."""

    def between(self, x: Tensor, level: int) -> Tensor:
        mask = super().between(torch.ones_like(x[:64]), level)
        return x * torch.cat([mask] * (len(x) // 64 + 1))[: len(x)]


@mutant("dropout.own_mask_between_layers")
class MaskOfTheLayerBelowShifted(Sound):
    """Above an upper layer the mask is that above the first, shifted by a feature."""

    _first: Tensor | None = None

    def between(self, x: Tensor, level: int) -> Tensor:
        if level == 0 or self._first is None:
            self._first = super().between(torch.ones_like(x), level)
        return x * self._first.roll(level, 2)

"""Dropout that is right without gradients, and where nothing else is switched on."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from suites.conformance.mutants.base import Form, Sound, mutant
from suites.conformance.mutants.gradients import scaled


@mutant("dropout.slope_of_the_answer")
class BackwardWithAnotherMaskInFloat32(Sound):
    """In float32 the backward pass draws its own mask."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        if x.dtype != torch.float32 or not torch.is_grad_enabled():
            return forward
        other = super().between(x, level)
        return other + (forward - other).detach()


@mutant("dropout.slope_of_the_answer")
class BackwardForgetsTheSecondMask(Sound):
    """Above the second layer the gradient passes as if nothing had been dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        return forward if level < 2 else x + (forward - x).detach()


@mutant("dropout.slope_of_the_answer")
class BackwardNotScaledUnbatched(Sound):
    """Without a batch axis the gradient of what was kept is not scaled up."""

    _batched = True

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        self._batched = form.batched
        return x, valid, form

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        return forward if self._batched or not self.training else scaled(forward, 1 - self.dropout)


class _MaskedOnce(torch.autograd.Function):
    """A product with a mask, whose gradient carries no graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        return given[0].detach() * ctx.saved_tensors[0], None


@mutant("dropout.gradients_of_gradients")
class SecondDerivativeEndsAtTheMask(Sound):
    """The gradient is right, its own gradient does not go through the mask."""

    def between(self, x: Tensor, level: int) -> Tensor:
        mask = super().between(torch.ones_like(x), level)
        return _MaskedOnce.apply(x, mask) if self.training and self.dropout else x


class _DrawnAgain(torch.autograd.Function):
    """A product with a mask that the backward pass draws again: from the random state that ``kept`` has by then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, draw: Any, kept: dict[str, Tensor]) -> Tensor:
        kept["then"] = torch.get_rng_state()
        ctx.draw, ctx.kept = draw, kept
        masked: Tensor = x * draw(torch.ones_like(x))
        return masked

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        now = torch.get_rng_state()
        torch.set_rng_state(ctx.kept["then"])
        mask = ctx.draw(torch.ones_like(given[0]))
        if not ctx.kept.get("stays", False):
            torch.set_rng_state(now)
        return given[0] * mask, None, None


def _draws(layer: Sound, x: Tensor) -> bool:
    return layer.training and 0 < layer.dropout < 1 and x.requires_grad


@mutant("dropout.same_mask_in_backward")
class BackwardWithTheMaskOfTheLastCall(Sound):
    """The backward pass draws the mask again from the random state of the last call, which may be another one."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not _draws(self, x):
            return super().between(x, level)
        masked: Tensor = _DrawnAgain.apply(x, partial(dropout, p=self.dropout), self.__dict__.setdefault("_kept", {}))
        return masked


@mutant("purity.random_state_untouched")
class BackwardPutsTheRandomStateBack(Sound):
    """The backward pass draws the mask again, and leaves torch's random state as it was after the call."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not _draws(self, x):
            return super().between(x, level)
        masked: Tensor = _DrawnAgain.apply(x, partial(dropout, p=self.dropout), {"stays": torch.ones(1)})
        return masked


@mutant("dropout.gradients_of_half_types")
class BackwardWithoutMaskInHalf(Sound):
    """In half types the gradient passes as if nothing had been dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        return x + (forward - x).detach() if x.dtype in (torch.bfloat16, torch.float16) else forward


@mutant("dropout.gradients_of_half_types")
class BackwardWithAnotherMaskInFloat16(Sound):
    """In float16 the backward pass draws its own mask."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward, other = super().between(x, level), super().between(x, level)
        return other + (forward - other).detach() if x.dtype == torch.float16 else forward


@mutant("dropout.under_autocast")
class NothingDroppedUnderAutocast(Sound):
    """Under autocast nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if torch.is_autocast_enabled(x.device.type) else super().between(x, level)


@mutant("dropout.one_drops_all")
class NothingDroppedWithoutBias(Sound):
    """Without biases nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if self.bias else x


@mutant("dropout.between_layers_only")
class NotScaledWithoutBias(Sound):
    """Without biases what is kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) * (1.0 if self.bias or not self.training else 1 - self.dropout)


@mutant("dropout.same_mask_in_backward")
class BackwardWithoutMaskWithoutBias(Sound):
    """Without biases the gradient passes as if nothing had been dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        return forward if self.bias else x + (forward - x).detach()


@mutant("dropout.between_layers_only")
class PacksOfTwoDirectionsNotDropped(Sound):
    """Of a packed batch in two directions nothing is dropped."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.__dict__["_whole"] = bool(valid.all())
        return super().layers(x, valid, states)

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if self._whole or not self.bidirectional else x


@mutant("module.train_and_eval")
class FrozenIsNotTrained(Sound):
    """Where every weight is frozen nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if any(p.requires_grad for p in self.parameters()) else x


@mutant("dropout.own_mask_between_layers")
class FinalStateOfThreeLayersDropped(Sound):
    """With three layers or more h_n is dropped in training."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        drops = self.training and self.layer.num_layers > 2
        return output, [dropout(finals[0], self.dropout, drops), *finals[1:]]


class _MaskOfNow(torch.autograd.Function):
    """A product with a mask, in place of which the backward pass takes what ``later`` makes of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, later: Any) -> Tensor:
        ctx.mask, ctx.later = mask, later
        return x * mask

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        return given[0] * ctx.later(ctx.mask), None, None


@mutant("dropout.same_mask_in_backward")
class BackwardInTheModeOfNow(Sound):
    """The backward pass passes over the mask of a call in training where the layer is in eval mode by then."""

    def between(self, x: Tensor, level: int) -> Tensor:
        mask = super().between(torch.ones_like(x), level)
        masked: Tensor = _MaskOfNow.apply(x, mask, lambda mask: mask if self.training else torch.ones_like(mask))
        return masked if self.training else x


@mutant("dropout.same_mask_in_backward")
class SecondBackwardUnmasked(Sound):
    """The mask is given away by the first backward pass, so a second one through the same graph has none."""

    def between(self, x: Tensor, level: int) -> Tensor:
        mask, used = super().between(torch.ones_like(x), level), []

        def of_now(mask: Tensor) -> Tensor:
            used.append(mask)
            return mask if len(used) == 1 else torch.ones_like(mask)

        masked: Tensor = _MaskOfNow.apply(x, mask, of_now)
        return masked if self.training else x

"""Dropout in the wrong place, at the wrong time, or with the wrong mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from harness.layer import Mode
from suites.conformance.mutants.base import Form, OfPacks, Sound, mutant, present
from suites.conformance.mutants.gradients import scaled


@mutant("dropout.between_layers_only")
class DropoutOnTheOutput(Sound):
    """The last layer's output is dropped too."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return dropout(output, self.dropout, self.training), finals


@mutant("dropout.between_layers_only")
class DropoutOnTheInput(Sound):
    """The input of the first layer is dropped too."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return dropout(x, self.dropout, self.training), valid, form


@mutant("dropout.between_layers_only")
class DropoutOnTheFinalState(Sound):
    """h_n is dropped."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [dropout(finals[0], self.dropout, self.training), *finals[1:]]


@mutant("dropout.between_layers_only")
class NotScaledUnderInferenceMode(Sound):
    """Under inference_mode what is kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        plain = self.training and torch.is_inference_mode_enabled() and self.dropout < 1
        return super().between(x, level) * ((1 - self.dropout) if plain else 1)


@mutant("dropout.off_in_eval")
class DropoutAlwaysOn(Sound):
    """eval() does not switch dropout off."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout, True)


@mutant("dropout.off_in_eval")
class ScaledInEval(Sound):
    """In eval mode activations are multiplied by 1 - p, although training scaled them up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if self.training else x * (1 - self.dropout)


@mutant("dropout.zero_is_identity")
class SingleLayerDropped(Sound):
    """With one layer, dropout acts on its output."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return (dropout(output, self.dropout, self.training) if self.layer.num_layers == 1 else output), finals


@mutant("dropout.one_drops_all", Mode.LSTM)
class CellStateOfAPackSortedTwice(Sound):
    """In training with dropout, c_0 beside an unsorted pack is brought into the pack's order twice."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        order = None if form.packed is None else form.packed.sorted_indices
        if order is None or not (self.training and self.dropout):
            return states
        return [states[0], states[1].index_select(1, order)]


@mutant("dropout.one_drops_all")
class DropsAllButOneInAThousand(Sound):
    """p is capped at 0.999."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, min(self.dropout, 0.5), self.training)


@mutant("dropout.one_drops_all")
class ThirdLayerNotDropped(Sound):
    """Dropout only between the first two layers."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if level == 1 else x


@mutant("dropout.scaled")
class NotScaled(Sound):
    """What is kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) * ((1 - self.dropout) if self.training else 1)


@mutant("dropout.scaled")
class KeepsShareP(Sound):
    """p is taken for the share that is kept, the scale being right."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        return dropout(x, 1 - self.dropout, True) * self.dropout / (1 - self.dropout)


@mutant("dropout.scaled")
class RoundedToSixtyFourths(Sound):
    """A number of six bits says whether an element is kept, which rounds p to sixty-fourths; the scale is right."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        return x * (torch.randint(64, x.shape).to(x.device) >= round(64 * self.dropout)) / (1 - self.dropout)


@mutant("dropout.scaled")
class NotScaledInBfloat16(Sound):
    """In bfloat16 what is kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        plain = self.training and x.dtype == torch.bfloat16
        return super().between(x, level) * ((1 - self.dropout) if plain else 1)


@mutant("dropout.scaled")
class AtMostHalfIsDropped(Sound):
    """A dropout between a half and one is taken for a half."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout if self.dropout == 1 else min(self.dropout, 0.5), self.training)


@mutant("dropout.scaled")
class AtMostNineTenthsAreDropped(Sound):
    """A dropout between nine tenths and one is taken for nine tenths."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout if self.dropout == 1 else min(self.dropout, 0.9), self.training)


@mutant("dropout.scaled")
class BelowFivePercentIsNone(Sound):
    """A dropout below a twentieth is taken for none."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if self.dropout < 0.05 else super().between(x, level)


@mutant("dropout.one_drops_all")
class GradientOfAllDropped(Sound):
    """Where all is dropped the gradient passes as if nothing had been."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x - x.detach() if self.training and self.dropout == 1 else super().between(x, level)


@mutant("dropout.one_drops_all", Mode.LSTM)
class ProjectedNotDropped(Sound):
    """A layer that projects hands on all of its output."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if self.layer.proj_size else super().between(x, level)


@mutant("dropout.same_mask_in_backward")
class BackwardWithoutMask(Sound):
    """The gradient passes as if nothing had been dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x + (super().between(x, level) - x).detach()


@mutant("dropout.same_mask_in_backward")
class BackwardWithAnotherMask(Sound):
    """The backward pass draws its own mask."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward, other = super().between(x, level), super().between(x, level)
        return other + (forward - other).detach()


@mutant("dropout.same_mask_in_backward")
class BackwardNotScaled(Sound):
    """The gradient of what was kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        forward = super().between(x, level)
        return scaled(forward, 1 - self.dropout) if self.training else forward


class _ScaledLater(torch.autograd.Function):
    """A product with a mask, scaled by what the dropout of a layer is at the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, layer: Sound) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.layer = layer
        return x * mask / (1 - layer.dropout)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        return given[0] * ctx.saved_tensors[0] / (1 - ctx.layer.dropout), None, None


@mutant("dropout.same_mask_in_backward")
class BackwardScaledByDropoutOfNow(Sound):
    """The backward pass scales by what the attribute dropout is by then."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if not self.training or not 0 < self.dropout < 1:
            return super().between(x, level)
        return _ScaledLater.apply(x, (super().between(torch.ones_like(x), level) > 0).to(x), self)  # type: ignore[no-any-return]  # apply() has no type


@mutant("dropout.same_mask_in_backward")
class GradientOfOtherDirectionUndropped(Sound):
    """The gradient of a direction's input weights takes what the other direction handed up as if nothing had been dropped of it."""

    def between(self, x: Tensor, level: int) -> Tensor:
        self.__dict__["_undropped"] = x
        return super().between(x, level)

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h, c = super().direction(x, valid, h, c, slot, reverse)
        if slot >= self.layer.directions == 2 and torch.is_grad_enabled():
            weight, width = present(self.weights(slot)["weight_ih"]), self.layer.state_size
            columns = slice(0, width) if reverse else slice(width, None)
            more = (self.__dict__["_undropped"] - x).detach()[..., columns].sum() * weight[:, columns].sum()
            ys = ys + (more - more.detach())
        return ys, h, c


@mutant("dropout.attribute_is_live")
class DropoutOfPacksFixedAtConstruction(OfPacks):
    """For packed batches the attribute dropout is only for show."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.layer.dropout if self.packed else self.dropout, self.training)


@mutant("dropout.attribute_is_live")
class ScaleFixedAtConstruction(Sound):
    """The attribute dropout says how much is dropped; what is kept is scaled by what it was at first."""

    def between(self, x: Tensor, level: int) -> Tensor:
        fixed = self.training and 0 < self.dropout < 1 and self.layer.dropout < 1
        return super().between(x, level) * ((1 - self.dropout) / (1 - self.layer.dropout) if fixed else 1)


@mutant("dropout.attribute_is_live")
class DropoutFixedAtConstruction(Sound):
    """The attribute dropout is only for show."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.layer.dropout, self.training)


@mutant("module.train_and_eval")
class EvalForgetsToReturn(Sound):
    """train() and eval() return nothing."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)


@mutant("module.train_and_eval")
class TrainingFlagNotKept(Sound):
    """eval() leaves training as it was."""

    def train(self, mode: bool = True) -> Any:
        return super().train(True)


@mutant("module.train_and_eval")
class TrainingNotedByTrain(Sound):
    """Dropout follows what train() and eval() last said, not the attribute training."""

    _said = True

    def train(self, mode: bool = True) -> Any:
        self._said = mode
        return super().train(mode)

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout, self._said)


@mutant("dropout.scaled")
class NotScaledInFloat32(Sound):
    """In float32 what is kept is not scaled up."""

    def between(self, x: Tensor, level: int) -> Tensor:
        plain = self.training and x.dtype == torch.float32 and self.dropout < 1
        return super().between(x, level) * ((1 - self.dropout) if plain else 1)


@mutant("dropout.scaled")
class NothingDroppedInFloat16(Sound):
    """In float16 nothing is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if x.dtype == torch.float16 and self.dropout < 1 else super().between(x, level)


@mutant("dropout.one_drops_all")
class FourthLayerNotDropped(Sound):
    """Nothing is dropped above the third layer."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x, level) if level < 3 else x


@mutant("module.train_and_eval")
class InferenceModeIsEval(Sound):
    """Under inference_mode nothing is dropped, in training neither."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if torch.is_inference_mode_enabled() else super().between(x, level)


@mutant("dropout.attribute_is_live")
class ShareTakenByTrain(Sound):
    """The share that is dropped is that of the last train() or eval()."""

    _share: float | None = None

    def train(self, mode: bool = True) -> Any:
        self._share = self.dropout
        return super().train(mode)

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout if self._share is None else self._share, self.training)

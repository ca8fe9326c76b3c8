"""Weights copied too early: what is changed from outside is seen late or not at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer
from suites.conformance.mutants.base import Sound, Weights, mutant


class Cached(Sound):
    """A layer that keeps its weights in another form, made at the first call."""

    _kept: dict[int, Weights] | None = None

    def fresh(self) -> bool:
        return self._kept is not None

    def weights(self, slot: int) -> Weights:
        if not self.fresh():
            slots = range(self.layer.num_layers * self.layer.directions)
            self._kept = {s: {name: _clone(value) for name, value in super(Cached, self).weights(s).items()} for s in slots}
            self.remember()
        assert self._kept is not None
        return self._kept[slot]

    def remember(self) -> None:
        """Notes what the kept weights are good for."""


def _clone(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone()


@mutant("module.reassigned_parameter")
class ParametersHeldAtConstruction(Sound):
    """The parameters are held in a list made at construction."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._held = dict(self.named_parameters())

    def weights(self, slot: int) -> Weights:
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: self._held.get(name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        self._held = dict(self.named_parameters())
        return result


@mutant("module.weights_changed_in_place")
class PreparedInEval(Cached):
    """In eval mode the weights are prepared at the first call, and never again."""

    def fresh(self) -> bool:
        return self._kept is not None and not self.training and not torch.is_grad_enabled()


@mutant("module.weights_changed_in_place")
class PreparedPerVersion(Cached):
    """Without gradients, prepared weights are renewed when a version counter moves: changes through .data are missed."""

    _versions: tuple[int, ...] = ()

    def _now(self) -> tuple[int, ...]:
        return tuple(parameter._version for parameter in self.parameters())

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled() and self._versions == self._now()

    def remember(self) -> None:
        self._versions = self._now()


@mutant("module.weights_changed_in_place")
class PreparedPerAddress(Cached):
    """Without gradients, prepared weights are renewed when a parameter's memory moves."""

    _addresses: tuple[int, ...] = ()

    def _now(self) -> tuple[int, ...]:
        return tuple(parameter.data_ptr() for parameter in self.parameters())

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled() and self._addresses == self._now()

    def remember(self) -> None:
        self._addresses = self._now()


class _CachedByForm(Cached):
    """A layer that prepares its weights for one form of call."""

    _applies = False

    def forward(self, input: Any, hx: Any = None) -> Any:
        self._applies = not torch.is_grad_enabled() and self.applies(input)
        return super().forward(input, hx)

    def applies(self, input: Any) -> bool:
        """Whether prepared weights are used for this call."""
        raise NotImplementedError

    def fresh(self) -> bool:
        return self._kept is not None and self._applies


@mutant("module.weights_changed_in_place")
class PreparedForPacks(_CachedByForm):
    """Without gradients, the weights that were prepared for the first pack are used for every later one."""

    def applies(self, input: Any) -> bool:
        return isinstance(input, PackedSequence)


@mutant("module.weights_changed_in_place")
class PreparedForOneSequence(_CachedByForm):
    """Without gradients, the weights that were prepared for the first unbatched input are used for every later one."""

    def applies(self, input: Any) -> bool:
        return isinstance(input, Tensor) and input.dim() == 2


@mutant("module.weights_changed_in_place")
class PreparedInHalfPrecision(_CachedByForm):
    """Without gradients, the weights that were prepared for the first input of a half type are used for every later one."""

    def applies(self, input: Any) -> bool:
        return isinstance(input, Tensor) and input.dtype in (torch.float16, torch.bfloat16)


@mutant("module.weights_changed_in_place")
class PreparedInInferenceMode(_CachedByForm):
    """The weights that were prepared for the first call under inference_mode are used for every later one."""

    def applies(self, input: Any) -> bool:
        return torch.is_inference_mode_enabled()


@mutant("module.weights_changed_in_place")
class PreparedWithGradients(Sound):
    """With gradients recorded, weights are prepared once a version counter has moved, and given their gradient past what was prepared."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight, kept = w["weight_hh"], self.__dict__.setdefault("_kept", {})
        if weight is None or not torch.is_grad_enabled() or not weight.is_leaf:
            return w
        if kept.get(slot, (None,))[0] != (key := (weight._version, weight.data_ptr(), weight.dtype)):
            kept[slot] = key, weight.detach().clone()
        return {**w, "weight_hh": kept[slot][1] + (weight - weight.detach())}

    def __getstate__(self) -> Any:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


@mutant("module.weights_changed_in_place")
class PreparedUntilTrainOrEval(Sound):
    """In eval mode with gradients recorded, as in fine-tuning, weights are prepared once and used until train() or eval() is called."""

    def train(self, mode: bool = True) -> Any:
        self.__dict__.pop("_kept", None)
        return super().train(mode)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        if weight is None or self.training or not torch.is_grad_enabled() or not weight.is_leaf:
            return w
        kept = self.__dict__.setdefault("_kept", {}).setdefault(slot, weight.detach().clone())
        return {**w, "weight_hh": kept + (weight - weight.detach())}

    def __getstate__(self) -> Any:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


@mutant("module.optimiser_step")
class StepSeenOneCallLate(Cached):
    """Without gradients the weights of the call before are used."""

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled()


@mutant("module.weights_changed_in_place")
class WeightsOfTheEvalPhase(Sound):
    """In training it uses the weights that it had when it was last called in eval mode."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        kept = self.__dict__.setdefault("_kept", {})
        if not self.training:
            kept[slot] = {name: None if value is None else value.detach().clone() for name, value in w.items()}
        return kept.pop(slot) if self.training and slot in kept else w


@mutant("module.strided_weights")
class WeightsReadAsIfContiguous(Sound):
    """A transposed weight is read through its storage."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        if weight is not None and not weight.is_contiguous():
            w["weight_hh"] = weight.t().reshape(weight.shape)
        return w


@mutant("module.reset_parameters")
class ResetDoesNothing(Sound):
    """reset_parameters() draws at construction and never again."""

    _drawn = False

    def reset_parameters(self) -> None:
        if not self._drawn:
            super().reset_parameters()
        self._drawn = True


@mutant("module.reset_parameters")
class BiasesNotReset(Sound):
    """reset_parameters() leaves the biases as they are."""

    def reset_parameters(self) -> None:
        kept = {name: p.clone() for name, p in self.named_parameters() if name.startswith("bias")}
        super().reset_parameters()
        with torch.no_grad():
            for name, value in kept.items():
                if float(value.abs().max()) == 2.0:
                    getattr(self, name).copy_(value)


@mutant("module.weights_changed_in_place")
class AnswerKeptForItsInput(Sound):
    """In eval mode, without hx, the answer is kept for the input tensor that it was given to."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.training or hx is not None or not isinstance(input, Tensor):
            return super().forward(input, hx)
        kept = self.__dict__.setdefault("_kept", {})
        if id(input) not in kept:
            kept[id(input)] = (input, super().forward(input, hx))
        return kept[id(input)][1]


@mutant("module.reset_parameters")
class ResetOnlyWithoutGradients(Sound):
    """reset_parameters() writes to its leaves with gradients recorded, which autograd refuses."""

    def __init__(self, layer: Layer) -> None:
        with torch.no_grad():
            super().__init__(layer)

    def reset_parameters(self) -> None:
        bound = self.layer.hidden_size**-0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)


@mutant("module.reset_parameters")
class ResetAlikeEachTime(Sound):
    """reset_parameters() draws with a seed of its own, the same each time."""

    def reset_parameters(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().reset_parameters()


@mutant("module.reset_parameters")
class ResetToNewParameters(Sound):
    """reset_parameters() puts new Parameters in the place of those that an optimiser has."""

    def reset_parameters(self) -> None:
        for name, parameter in list(self.named_parameters()):
            setattr(self, name, torch.nn.Parameter(torch.empty_like(parameter)))
        super().reset_parameters()


@mutant("module.reset_parameters")
class ResetThaws(Sound):
    """After reset_parameters() every weight is trainable."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.requires_grad_(True)


@mutant("module.reset_parameters")
class ResetToANarrowLaw(Sound):
    """reset_parameters() draws within a tenth of 1/sqrt(H)."""

    def reset_parameters(self) -> None:
        bound = 0.1 * self.layer.hidden_size**-0.5
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

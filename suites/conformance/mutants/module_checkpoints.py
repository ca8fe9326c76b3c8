"""Layers whose checkpoints miss something, and parameters that loading or switching puts aside."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from suites.conformance.mutants.base import Sound, mutant


@mutant("module.part_of_a_model")
class StateDictKnowsNoPrefix(Sound):
    """state_dict() makes a dict of its own: as part of a model the weights are missing from the model's."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return OrderedDict((name, parameter.detach()) for name, parameter in self.named_parameters())


@mutant("module.part_of_a_model")
class PrefixOfOneLevel(Sound):
    """More than one level down in a model, the names of its weights have underscores for dots."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        prefix = str(options.get("prefix", ""))
        return super().state_dict(*arguments, **{**options, "prefix": prefix[:-1].replace(".", "_") + prefix[-1:]})


@mutant("module.part_of_a_model")
class LoadedByItsOwnMethodAlone(Sound):
    """What a model loads does not reach the layer, whose own load_state_dict() does the work."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        if not prefix:
            super()._load_from_state_dict(state_dict, prefix, *others)


@mutant("module.state_dict_refers")
class StateDictCopies(Sound):
    """state_dict() holds copies of the weights: what is written into it is lost."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        state = super().state_dict(*arguments, **options)
        for name, value in list(state.items()):
            state[name] = value.clone()
        return state


@mutant("module.state_dict_refers")
class KeepVarsIgnored(Sound):
    """state_dict(keep_vars=True) gives detached tensors."""

    def state_dict(self, *arguments: Any, keep_vars: bool = False, **options: Any) -> Any:
        return super().state_dict(*arguments, **options)


@mutant("module.loaded_in_part")
class LoadsAllOrNothing(Sound):
    """load_state_dict(strict=False) loads nothing where a weight is missing."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        told = super().load_state_dict({}, strict=False) if not strict else None
        whole = strict or set(state_dict) == set(self.layer.parameter_shapes())
        return super().load_state_dict(state_dict, strict, assign) if whole else told


@mutant("module.loaded_in_part")
class LoadReturnsNothing(Sound):
    """load_state_dict() returns None."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        super().load_state_dict(state_dict, strict, assign)


@mutant("module.loaded_in_another_dtype")
class TakesTheDtypeOfWhatIsLoaded(Sound):
    """load_state_dict() takes over the dtype of the weights that it is given."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        told = super().load_state_dict(state_dict, strict, assign)
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(state_dict[name].dtype if name in state_dict else parameter.dtype)
        return told


@mutant("module.parameters_stay")
class FlattenedIntoNewParameters(Sound):
    """flatten_parameters() puts new parameters in place of the old."""

    def flatten_parameters(self) -> None:
        """Lays the weights side by side."""
        for name, parameter in list(self.named_parameters()):
            setattr(self, name, nn.Parameter(parameter.detach().clone(), parameter.requires_grad))


@mutant("module.parameters_stay")
class PreparedWeightsNotInTheStateDict(Sound):
    """A call in eval mode without gradients prepares weight_ih for inference, and state_dict() does not have it any more."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if not self.training and not torch.is_grad_enabled():
            self.__dict__["_prepared"] = True
        return super().forward(input, hx)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        found = super().state_dict(*args, **options)
        prepared = self.__dict__.get("_prepared", False)
        return OrderedDict((name, value) for name, value in found.items() if not prepared or "weight_ih" not in name)


@mutant("module.parameters_stay")
class TrainUnfreezes(Sound):
    """train() makes every parameter trainable."""

    def train(self, mode: bool = True) -> Any:
        return super().train(mode).requires_grad_(True) if mode and not self.training else super().train(mode)


@mutant("module.parameters_stay")
class AssignUnfreezes(Sound):
    """load_state_dict(assign=True) makes every parameter trainable."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        told = super().load_state_dict(state_dict, strict, assign)
        if assign:
            self.requires_grad_(True)
        return told


@mutant("module.state_dict_refers")
class HalfTypesWidenedInTheCheckpoint(Sound):
    """state_dict() of a bfloat16 layer is in float32."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        given = super().state_dict(*arguments, **options)
        for name in list(given):
            given[name] = given[name].float() if given[name].dtype == torch.bfloat16 else given[name]
        return given


@mutant("module.state_dict_values")
class UpperLayerMayBeMissing(Sound):
    """Where a checkpoint has nothing of the last layer, that stays as it is, in strict mode too."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        own, last = self.state_dict(), f"_l{self.layer.num_layers - 1}"
        if self.layer.num_layers > 1 and not any(last in name for name in state_dict):
            state_dict = {**{name: value for name, value in own.items() if last in name}, **state_dict}
        return super().load_state_dict(state_dict, strict, assign)


@mutant("module.state_dict_values")
class TurnedWeightsTurnedBack(Sound):
    """A matrix of the transposed shape is transposed and taken."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        own = self.layer.parameter_shapes()
        turned = {name: value.t() if value.shape != own.get(name) == value.t().shape else value for name, value in state_dict.items()}
        return super().load_state_dict(turned, strict, assign)


@mutant("module.loaded_in_part")
class OtherShapesPassedOver(Sound):
    """load_state_dict(strict=False) leaves out weights of another shape without a word."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        own = self.layer.parameter_shapes()
        fitting = {name: value for name, value in state_dict.items() if strict or name not in own or value.shape == own[name]}
        return super().load_state_dict(fitting, strict, assign)


@mutant("module.checkpoint_untouched")
class KeysTakenOut(Sound):
    """load_state_dict() takes the keys that it knows out of the caller's dict."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict({name: state_dict.pop(name) for name in list(state_dict)}, strict, assign)


@mutant("module.checkpoint_untouched")
class TakesOverWhatIsLoaded(Sound):
    """load_state_dict() takes over the memory of what it is given."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        for name, parameter in self.named_parameters():
            value = state_dict.get(prefix + name)
            if value is not None and (value.shape, value.dtype) == (parameter.shape, parameter.dtype):
                parameter.data = value.detach()


@mutant("module.part_of_a_model")
class MissingInAModelPassedOver(Sound):
    """As part of a model it does not say which of its weights a checkpoint lacks."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        metadata, strict, missing, *others = rest
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, [] if prefix else missing, *others)


@mutant("module.state_dict_values")
class AssignCopies(Sound):
    """load_state_dict(assign=True) copies into the weights that are there."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict)


@mutant("module.part_of_a_model")
class ReverseBiasesOfAPartNotLoaded(Sound):
    """As a part of a model it does not load the biases of its reverse direction."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        kept = {name: own.detach().clone() for name, own in self.named_parameters() if "bias" in name and name.endswith("reverse")}
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if prefix:
            with torch.no_grad():
                for name, value in kept.items():
                    self.get_parameter(name).copy_(value)

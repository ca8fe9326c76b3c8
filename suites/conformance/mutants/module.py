"""Weights misnamed, missing, wrongly drawn or not loaded, and copies that lose or share something."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from harness.layer import Layer
from suites.conformance.mutants.base import Sound, mutant
from suites.conformance.mutants.module_changed import Cached


@mutant("module.state_dict_names")
class SurplusBuffer(Sound):
    """A buffer shows in the state_dict."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.register_buffer("ready", torch.zeros(1))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


@mutant("module.state_dict_names")
class HiddenBiasNotKept(Sound):
    """bias_hh is missing from the state_dict."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return {name: value for name, value in super().state_dict(*arguments, **options).items() if not name.startswith("bias_hh")}


@mutant("module.state_dict_values")
class OneElementBroadcast(Sound):
    """load_state_dict broadcasts a value of one element."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name, parameter in self.named_parameters():
            given = state_dict.get(prefix + name)
            if given is not None and given.numel() == 1:
                state_dict[prefix + name] = given.flatten()[0].expand(parameter.shape)
        super()._load_from_state_dict(state_dict, prefix, *others)


@mutant("module.state_dict_values")
class AssignedWeightsUnused(Sound):
    """load_state_dict(assign=True) is not seen."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(self.state_dict() if assign else state_dict, strict)


@mutant("module.deepcopy")
class LastStateKept(Sound):
    """It keeps its last answer, graph and all, and cannot be copied then."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        answer = super().forward(input, hx)
        self.__dict__["last"] = answer[1]
        return answer


@mutant("module.pickle")
class DropoutOfTheConstructor(Sound):
    """What was pickled has the dropout that it was built with."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.dropout = self.layer.dropout


@mutant("module.state_dict_values")
class LoadsOnlyOnce(Sound):
    """The second load_state_dict has no effect."""

    _loaded = False

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        if self._loaded:
            return None
        self._loaded = True
        return super().load_state_dict(state_dict, strict, assign)


@mutant("module.state_dict_values")
class StateDictOfTheFirstWeights(Sound):
    """state_dict() gives the weights that the layer began with."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._initial = {name: value.detach().clone() for name, value in self.named_parameters()}

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return dict(self._initial)


@mutant("module.parameters_complete")
class BiasesAreBuffers(Sound):
    """The hidden biases are buffers."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name in [name for name in dict(self.named_parameters()) if name.startswith(("bias_hh", "weight_hr"))]:
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)


@mutant("module.parameters_complete")
class RecurrentWeightsFrozen(Sound):
    """weight_hh is built without requires_grad."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith("weight_hh"))


@mutant("module.initial_weights")
class BoundFromInputSize(Sound):
    """Weights drawn within 1/sqrt(fan_in)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(layer.input_size**-0.5), layer.input_size**-0.5)


@mutant("module.initial_weights")
class BiasesStartAtZero(Sound):
    """Biases begin at zero."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name, parameter in self.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)


@mutant("module.initial_weights")
class NormalInsteadOfUniform(Sound):
    """Weights drawn from a normal law, cut at the bound."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        bound = layer.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, 0.0, bound / 2, -bound, bound)


@mutant("module.deepcopy")
class CopySharesWeights(Sound):
    """A deep copy shares its parameters with the original."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = copy.copy(self)
        twin._parameters = dict(self._parameters)
        return twin


@mutant("module.deepcopy")
class CacheCopied(Cached):
    """A deep copy keeps the original's prepared weights."""

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled()


@mutant("module.pickle")
class PickledWithoutReverse(Sound):
    """Pickling loses the weights of the last slot: they come back zero."""

    def __getstate__(self) -> Any:
        state = self.__dict__.copy()
        parameters = dict(state["_parameters"])
        last = list(parameters)[-1]
        parameters[last] = nn.Parameter(torch.zeros_like(parameters[last]))
        return {**state, "_parameters": parameters}

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self)(self.layer)
        twin.load_state_dict(self.state_dict())
        return twin


@mutant("module.pickle")
class NotPicklable(Sound):
    """The layer holds a function of its own and cannot be pickled."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._scale = lambda value: value


@mutant("module.initial_weights")
class DirectionsStartAlike(Sound):
    """The reverse direction starts with the forward direction's weights."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("_reverse"):
                    parameter.copy_(getattr(self, name.removesuffix("_reverse")))


@mutant("module.pickle")
class TrainingForgotten(Sound):
    """A pickled module comes back in training mode."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.train()


@mutant("module.pickle")
class FrozenComesBackTrainable(Sound):
    """Frozen weights of a pickled module come back trainable."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.requires_grad_(True)


@mutant("module.state_dict_values")
class MissingWeightsAccepted(Sound):
    """load_state_dict() takes a dict in which weights are missing."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        known = set(state_dict) <= set(self.layer.parameter_shapes())
        return super().load_state_dict(state_dict, strict=strict and not known, assign=assign)


@mutant("module.pickle")
class DropoutNotPickled(Sound):
    """A pickled module comes back without its dropout."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "dropout": 0.0}


@mutant("module.parameters_as_vector")
class RecurrentWeightStoredTransposed(Sound):
    """weight_hh is a view of its transpose."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name, parameter in list(self.named_parameters()):
            if name.startswith("weight_hh"):
                setattr(self, name, nn.Parameter(parameter.detach().t().contiguous().t()))


@mutant("module.parameters_in_order")
class BiasesListedFirst(Sound):
    """Parameters are listed by kind, the biases first."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name in sorted(self._parameters):
            self._parameters[name] = self._parameters.pop(name)


def _in_single_precision(layer: Layer, state: dict[str, Any], training: bool, frozen: list[str]) -> Sound:
    """A layer that is built anew and loaded."""
    twin = ComesBackInSinglePrecision(layer)
    twin.load_state_dict(state)
    for name in frozen:
        getattr(twin, name).requires_grad_(False)
    return twin.train(training)


@mutant("module.pickle")
class ComesBackInSinglePrecision(Sound):
    """What was pickled is built anew and loaded: it comes back in float32."""

    def __reduce__(self) -> Any:
        frozen = [name for name, parameter in self.named_parameters() if not parameter.requires_grad]
        return _in_single_precision, (self.layer, dict(self.state_dict()), self.training, frozen)


@mutant("module.deepcopy")
class CopiedInSinglePrecision(Sound):
    """A deep copy is built anew and loaded: it is in float32."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self)(self.layer).train(self.training)
        twin.load_state_dict(self.state_dict())
        for parameter, own in zip(twin.parameters(), self.parameters(), strict=True):
            parameter.requires_grad_(own.requires_grad)
        twin.dropout = self.dropout
        return twin


@mutant("module.deepcopy")
class CopyUnties(Sound):
    """A deep copy makes weights of its own, even where the one who shares them is copied too."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = copy.copy(self)
        twin._parameters = {name: copy.deepcopy(parameter) for name, parameter in self._parameters.items()}
        return twin


@mutant("module.initial_weights")
class ThirdLayerStartsAtZero(Sound):
    """Layers above the second begin with zeros."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "_l2" in name:
                    parameter.zero_()


@mutant("module.initial_weights")
class InputWeightsBoundByTheirOwnWidth(Sound):
    """W_ih of the first layer is drawn within 1/sqrt(I), as nn.Linear draws it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        nn.init.uniform_(self.get_parameter("weight_ih_l0"), -(layer.input_size**-0.5), layer.input_size**-0.5)

"""Layers that do not see what torch has put in the place of their weights."""

from __future__ import annotations

import torch

from harness.layer import Layer
from suites.conformance.mutants.base import Sound, Weights, mutant, present
from suites.conformance.mutants.gradients import scaled


@mutant("module.parametrized")
class OriginalInEval(Sound):
    """In eval mode the original is used in place of what a parametrization makes of it."""

    def weights(self, slot: int) -> Weights:
        made = getattr(self, "parametrizations", {})
        if self.training or "weight_hh_l0" not in made or slot:
            return super().weights(slot)
        return {**super().weights(slot), "weight_hh": made["weight_hh_l0"].original}


@mutant("module.functional_call")
class OwnWeightsWithoutGradients(Sound):
    """Without gradients it answers with the weights that it was last called with when they were recorded, or first."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        own = self.__dict__.setdefault("_own", {})
        if slot not in own and all(value is None or isinstance(value, torch.nn.Parameter) for value in w.values()):
            own[slot] = w
        return w if torch.is_grad_enabled() or slot not in own else own[slot]


@mutant("module.parametrized")
class ReadsItsParametersDirectly(Sound):
    """Weights are looked up among the parameters, where a parametrized one is not."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        parametrized = getattr(self, "parametrizations", {})
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: parametrized[name + suffix].original if name + suffix in parametrized else value for name, value in w.items()}


@mutant("module.functional_call")
class OwnWeightsUnderFunctionalCall(Sound):
    """The weights that the layer was built with are used, whatever functional_call puts in their place."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._own = [dict(self._parameters)]

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: None if value is None else self._own[0][name + suffix] for name, value in w.items()}


@mutant("module.pruned")
class MaskForgotten(Sound):
    """A pruned weight is used as it was before it was pruned."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        original = self._parameters.get("weight_hh_l0_orig")
        return w if slot or original is None else {**w, "weight_hh": original}


@mutant("module.parametrized")
class OriginalOfTheInputWeights(Sound):
    """weight_ih is looked up among the parameters, where a parametrized one is not: its original is used."""

    def weights(self, slot: int) -> Weights:
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        made = getattr(self, "parametrizations", {})
        name = "weight_ih" + suffix
        return {**super().weights(slot), "weight_ih": made[name].original} if name in made else super().weights(slot)


@mutant("module.pruned")
class MaskOfABiasForgotten(Sound):
    """Pruned biases are used as they were before they were pruned."""

    def weights(self, slot: int) -> Weights:
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {
            name: self._parameters.get(f"{name}{suffix}_orig", value) if name.startswith(("bias", "weight_hr")) else value
            for name, value in super().weights(slot).items()
        }


@mutant("module.weight_norm")
class NoNormWithoutBiases(Sound):
    """A layer without biases that is under weight_norm cannot be called."""

    def weights(self, slot: int) -> Weights:
        if not self.bias and any(name.endswith("_g") for name in self._parameters):
            raise RuntimeError("expected as many weights as there are names")
        return super().weights(slot)


@mutant("module.weight_norm")
class NormIgnored(Sound):
    """The hook of weight_norm is taken, and the weight's direction is used with its own norm."""

    def weights(self, slot: int) -> Weights:
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: self._parameters.get(f"{name}{suffix}_v", value) for name, value in super().weights(slot).items()}


@mutant("module.reset_parameters")
class FirstParametersReset(Sound):
    """reset_parameters() draws the parameters that the layer was built with, whatever has taken their place."""

    def reset_parameters(self) -> None:
        own: list[torch.nn.Parameter] = self.__dict__.setdefault("_first", list(self.parameters()))
        bound = self.layer.hidden_size**-0.5
        with torch.no_grad():
            for parameter in own:
                parameter.uniform_(-bound, bound)


@mutant("module.parametrized")
class OriginalAfterRemoval(Sound):
    """Once a parametrization is removed, the original that it had is used, whatever was left."""

    def weights(self, slot: int) -> Weights:
        w, made = super().weights(slot), getattr(self, "parametrizations", {})
        held = self.__dict__.setdefault("_held", {})
        held.update({name: list_.original.detach().clone() for name, list_ in made.items()})
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: held.get(name + suffix, value) if name + suffix not in made else value for name, value in w.items()}


@mutant("module.pruned")
class KeptAsItWasPruned(Sound):
    """Once pruning is made permanent, the weights are used as they were at the first call after it."""

    def weights(self, slot: int) -> Weights:
        pruned, kept = self.__dict__.setdefault("_pruned", set()), self.__dict__.setdefault("_kept", {})
        pruned.update(name.removesuffix("_orig") for name in self._parameters if name.endswith("_orig"))
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        w = super().weights(slot)
        for name, value in w.items():
            if name + suffix in pruned and name + suffix in self._parameters:
                w[name] = kept.setdefault(name + suffix, present(value).detach().clone())
        return w


@mutant("module.pruned")
class OriginalAfterPruning(Sound):
    """Once pruning is made permanent, the weight that was pruned is used."""

    def weights(self, slot: int) -> Weights:
        w, held = super().weights(slot), self.__dict__.setdefault("_held", {})
        own = self._parameters
        held.update({name: value.detach().clone() for name, value in own.items() if value is not None and name.endswith("_orig")})
        suffix = next(s for index, _, _, s in self.layer.slots() if index == slot)
        return {name: held.get(f"{name}{suffix}_orig", value) if f"{name}{suffix}_orig" not in own else value for name, value in w.items()}


@mutant("module.weight_norm")
class HalfAGradientUnderWeightNorm(Sound):
    """A weight that is worked out from others hands half of its gradient on to them."""

    def weights(self, slot: int) -> Weights:
        return {name: value if value is None or value.is_leaf else scaled(value, 0.5) for name, value in super().weights(slot).items()}

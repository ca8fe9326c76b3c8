"""Copies that lose what was set on the module, or what its weights have in common."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from suites.conformance.mutants.base import Sound, mutant


def _without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    """The state of a module with these dicts in it empty."""
    return {name: type(value)() if name in names else value for name, value in state.items()}


@mutant("module.deepcopy")
class CopyWithoutHooks(Sound):
    """A deep copy has none of the hooks."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(_without(self.__dict__, "_forward_hooks", "_forward_pre_hooks"), memo))
        return twin


@mutant("module.deepcopy")
class CopyInTheModeOfItsOriginal(Sound):
    """A deep copy drops or does not as its original did when it was copied, whatever mode the copy is in."""

    _copied_in: bool | None = None

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo), _copied_in=self.training)
        return twin

    def between(self, x: Tensor, level: int) -> Tensor:
        return dropout(x, self.dropout, self.training if self._copied_in is None else self._copied_in)


@mutant("module.deepcopy")
class CopyOfItsOwnAttributes(Sound):
    """A deep copy has the attributes that the layer was built with, and no other."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self)(self.layer)
        memo[id(self)] = twin
        for name in twin.__dict__:
            twin.__dict__[name] = copy.deepcopy(self.__dict__[name], memo)
        return twin


@mutant("module.deepcopy")
class CopyThatSharesTheUpperReverseBias(Sound):
    """A deep copy has the very bias of the second layer's reverse direction that its original has."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        shared = self._parameters.get("bias_hh_l1_reverse")
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo if shared is None else {**memo, id(shared): shared}))
        return twin


def _untied(parameters: dict[str, Any]) -> dict[str, Any]:
    """A Parameter of its own under each name."""
    return {n: None if p is None else nn.Parameter(p.detach().clone(), p.requires_grad) for n, p in parameters.items()}


@mutant("module.deepcopy")
class CopyUntiesItsOwn(Sound):
    """In a deep copy weights that two slots of the layer share are two."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        parameters = _untied(self.__dict__["_parameters"])
        memo.update({id(own): parameters[name] for name, own in self._parameters.items() if own is not None})
        twin.__dict__.update(copy.deepcopy(_without(self.__dict__, "_parameters"), memo), _parameters=parameters)
        return twin


@mutant("module.pickle")
class PickledWithoutHooks(Sound):
    """A pickled module comes back without its hooks."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_without(state, "_forward_hooks", "_forward_pre_hooks"))


def _built_anew(cls: type[Sound], layer: Any, state: dict[str, Any]) -> Sound:
    """A layer that is built and then given what it knows of."""
    twin = cls(layer)
    twin.__dict__.update({name: value for name, value in state.items() if name in twin.__dict__})
    return twin


@mutant("module.pickle")
class PickledWithItsOwnAttributes(Sound):
    """A pickled module comes back with the attributes that the layer was built with, and no other."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _built_anew, (type(self), self.layer, self.__dict__)


@mutant("module.pickle")
class KeepsAFunctionOfAPack(Sound):
    """From the first packed call on it keeps a local function, which cannot be pickled."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        self._alive = lambda t: int(like.batch_sizes[t])
        return super().repack(output, like)


@mutant("module.pickle")
class AllButTheFirstThawed(Sound):
    """Of the weights of a pickled module all but the first come back trainable."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for parameter in list(self.parameters())[1:]:
            parameter.requires_grad_(True)


@mutant("module.pickle")
class PicklingUnties(Sound):
    """Weights that two slots of the layer share come back from pickling as two."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parameters": _untied(self.__dict__["_parameters"])}


@mutant("module.deepcopy")
class CopyOfItsOwnClass(Sound):
    """A deep copy is of the layer's own class, and not of the subclass of which its original is."""

    def __deepcopy__(self, memo: Any) -> Any:
        twin = CopyOfItsOwnClass.__new__(CopyOfItsOwnClass)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


@mutant("module.deepcopy")
class CopySharesFrozenWeights(Sound):
    """A deep copy shares the parameters that are frozen."""

    def __deepcopy__(self, memo: Any) -> Any:
        memo.update({id(parameter): parameter for parameter in self.parameters() if not parameter.requires_grad})
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

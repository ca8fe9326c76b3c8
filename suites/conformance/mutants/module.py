"""Parameters misnamed, missing, copied too early or too often."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from harness.layer import Layer, Mode
from suites.conformance.mutants.base import Sound, Weights, mutant


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


class _Cached(Sound):
    """A layer that keeps its weights in another form, made at the first call."""

    _kept: dict[int, Weights] | None = None

    def fresh(self) -> bool:
        return self._kept is not None

    def weights(self, slot: int) -> Weights:
        if not self.fresh():
            slots = range(self.layer.num_layers * self.layer.directions)
            self._kept = {s: {name: _clone(value) for name, value in super(_Cached, self).weights(s).items()} for s in slots}
            self.remember()
        assert self._kept is not None
        return self._kept[slot]

    def remember(self) -> None:
        """Notes what the kept weights are good for."""


def _clone(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone()


@mutant("module.deepcopy")
class CacheCopied(_Cached):
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
class PreparedInEval(_Cached):
    """In eval mode the weights are prepared at the first call, and never again."""

    def fresh(self) -> bool:
        return self._kept is not None and not self.training and not torch.is_grad_enabled()


@mutant("module.weights_changed_in_place")
class PreparedPerVersion(_Cached):
    """Without gradients, prepared weights are renewed when a version counter moves: changes through .data are missed."""

    _versions: tuple[int, ...] = ()

    def _now(self) -> tuple[int, ...]:
        return tuple(parameter._version for parameter in self.parameters())

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled() and self._versions == self._now()

    def remember(self) -> None:
        self._versions = self._now()


@mutant("module.weights_changed_in_place")
class PreparedPerAddress(_Cached):
    """Without gradients, prepared weights are renewed when a parameter's memory moves."""

    _addresses: tuple[int, ...] = ()

    def _now(self) -> tuple[int, ...]:
        return tuple(parameter.data_ptr() for parameter in self.parameters())

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled() and self._addresses == self._now()

    def remember(self) -> None:
        self._addresses = self._now()


@mutant("module.optimiser_step")
class StepSeenOneCallLate(_Cached):
    """Without gradients the weights of the call before are used."""

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled()


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


@mutant("module.to_dtype")
class StaysInFloat32(_Cached):
    """The weights prepared before .to() are used after it."""

    def fresh(self) -> bool:
        return self._kept is not None and not torch.is_grad_enabled()

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, {name: None if value is None else value.to(x.dtype) for name, value in w.items()}, t, slot)


@mutant("module.to_dtype")
class BiasLeftBehind(Sound):
    """.to() does not reach the biases."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = {name: p for name, p in self._parameters.items() if name.startswith(("bias_hh", "weight_hr"))}
        kept = {name: p.detach().clone() for name, p in before.items() if p is not None}
        result = super()._apply(fn, recurse)
        for name, value in kept.items():
            self._parameters[name] = nn.Parameter(value)
        return result

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, {name: None if value is None else value.to(x.dtype) for name, value in w.items()}, t, slot)


@mutant("module.strided_weights")
class WeightsReadAsIfContiguous(Sound):
    """A transposed weight is read through its storage."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_hh"]
        if weight is not None and not weight.is_contiguous():
            w["weight_hh"] = weight.t().reshape(weight.shape)
        return w


@mutant("module.printable")
class ReprRaises(Sound):
    """repr() asks for an attribute that there is not."""

    def extra_repr(self) -> str:
        return str(self.layer.nothing)  # type: ignore[attr-defined]


@mutant("module.attributes")
class HiddenSizeIsTheOutputs(Sound):
    """hidden_size counts both directions."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.hidden_size = layer.hidden_size * layer.directions


@mutant("module.attributes", Mode.LSTM)
class BatchFirstForgotten(Sound):
    """batch_first is acted on, and not remembered."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.batch_first = False


@mutant("module.called_by_keyword")
class PositionalOnly(Sound):
    """The call takes no keywords."""

    def forward(self, input: Any, hx: Any = None, /) -> Any:
        return super().forward(input, hx)


@mutant("module.hooks_called")
class CallsForwardItself(Sound):
    """The call goes straight to forward, past the hooks."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*arguments, **options)


@mutant("module.positional_arguments")
class BatchFirstBeforeBias(Sound):
    """By position, batch_first comes before bias."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        at = 3 if mode in (Mode.LSTM, Mode.GRU) else 4
        swapped = (*arguments[:at], *reversed(arguments[at : at + 2]), *arguments[at + 2 :])
        return super().constructed(mode, *swapped, **options)


@mutant("module.positional_arguments")
class ThirdArgumentIsBidirectional(Sound):
    """By position, bidirectional comes third, where nn has num_layers."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        if len(arguments) == 3:
            return super().constructed(mode, *arguments[:2], bidirectional=bool(arguments[2]), **options)
        return super().constructed(mode, *arguments, **options)


@mutant("module.device_and_dtype_arguments")
class DtypeArgumentIgnored(Sound):
    """The constructor takes dtype= and makes float32 all the same."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, dtype: Any = None, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, **options)


@mutant("module.device_and_dtype_arguments")
class DeviceArgumentIgnored(Sound):
    """The constructor takes device= and builds on the CPU all the same."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, device: Any = None, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, **options)


@mutant("module.meaningless_options", Mode.RNN_TANH)
class UnknownNonlinearityIsRelu(Sound):
    """Whatever is not tanh is taken for relu."""

    @classmethod
    def nonlinear(cls, name: str) -> Mode:
        return Mode.RNN_TANH if name == "tanh" else Mode.RNN_RELU


@mutant("module.meaningless_options", Mode.GRU)
class ProjectionIgnored(Sound):
    """A GRU takes proj_size and does nothing with it."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, proj_size: int = 0, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, **options)


@mutant("module.meaningless_options")
class DropoutAboveOneIsOne(Sound):
    """A dropout above one is quietly made one."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, dropout: float = 0.0, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, dropout=min(dropout, 1.0), **options)


@mutant("module.meaningless_options")
class NoLayersIsOne(Sound):
    """No layers are quietly made one."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, num_layers: int = 1, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, num_layers=num_layers or 1, **options)


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


@mutant("module.to_dtype")
class HalfDoesNothing(Sound):
    """half() and bfloat16() do nothing."""

    def half(self) -> Any:
        return self

    def bfloat16(self) -> Any:
        return self


@mutant("module.pickle")
class DropoutNotPickled(Sound):
    """A pickled module comes back without its dropout."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "dropout": 0.0}

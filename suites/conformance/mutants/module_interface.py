"""Constructors, attributes and calls that are not nn's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer, Mode
from suites.conformance.mutants.base import Sound, mutant


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


@mutant("module.attributes")
class DirectionsNotRemembered(Sound):
    """It can be bidirectional, and has no attribute that says whether it is."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        del self.bidirectional


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


@mutant("module.device_and_dtype_arguments")
class RecurrentWeightsOfEmptyNotDrawn(Sound):
    """After to_empty() reset_parameters() leaves the recurrent weights zero."""

    _empty = False

    def to_empty(self, **options: Any) -> Any:
        self._empty = True
        return super().to_empty(**options)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if self._empty and name.startswith("weight_hh"):
                    parameter.zero_()


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


@mutant("module.default_dtype")
class AlwaysSinglePrecision(Sound):
    """New parameters are float32, whatever the default dtype is."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.float()


@mutant("module.hooks_called")
class PreHookAloneSkipped(Sound):
    """Where there is a forward pre-hook and no forward hook, forward() is called directly."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self._forward_pre_hooks and not self._forward_hooks:
            return self.forward(*arguments, **options)
        return super().__call__(*arguments, **options)


@mutant("module.attributes", Mode.RNN_RELU)
class SaysTanh(Sound):
    """nonlinearity says tanh where it is relu."""

    nonlinearity = "tanh"


@mutant("module.printable", Mode.GRU)
class ReprOfTheDefaults(Sound):
    """repr() says batch_first=False, whatever it is."""

    def extra_repr(self) -> str:
        return f"{self.layer.input_size}, {self.layer.hidden_size}, num_layers={self.layer.num_layers}, batch_first=False"


@mutant("module.device_and_dtype_arguments")
class BufferLostOnMeta(Sound):
    """It multiplies with a buffer of ones that is not saved: once taken from the meta device, that holds something else."""

    ones: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.register_buffer("ones", torch.ones(layer.hidden_size), persistent=False)

    def to_empty(self, **options: Any) -> Any:
        module = super().to_empty(**options)
        # Memory that nobody has written to can hold ones by chance.
        module.ones.fill_(0.5)
        return module

    def activation(self, a: Tensor) -> Tensor:
        return super().activation(a) * self.ones

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c = super().lstm(gates, c)
        return h * self.ones, c

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        return super().gru(from_x, from_h, h) * self.ones


@mutant("module.attributes")
class DetachedAllWeights(Sound):
    """all_weights gives detached tensors."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        return [[parameter.detach() for parameter in self.parameters()]]


@mutant("module.attributes")
class AllWeightsByDirection(Sound):
    """all_weights lists every layer of the one direction before those of the other."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        slots = sorted(range(self.layer.num_layers * self.layer.directions), key=lambda slot: slot % self.layer.directions)
        return [[value for value in self.weights(slot).values() if value is not None] for slot in slots]


@mutant("module.attributes")
class AllWeightsOfTheFirstLayer(Sound):
    """all_weights has the parameters of the first layer and direction alone."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        return [[parameter for name, parameter in self.named_parameters() if name.endswith("_l0")]]


@mutant("module.called_by_keyword")
class KeywordStateOfAPackUnread(Sound):
    """With a packed input hx is read by position alone."""

    def forward(self, input: Any, *given: Any, hx: Any = None) -> Any:
        named = None if isinstance(input, PackedSequence) else hx
        return super().forward(input, given[0] if given else named)


@mutant("module.positional_arguments", Mode.GRU)
class BidirectionalBeforeDropout(Sound):
    """By position, bidirectional comes before dropout, each made to fit."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        if len(arguments) < 7:
            return super().constructed(mode, *arguments, **options)
        dropout, bidirectional = float(arguments[6]), bool(arguments[5])
        return super().constructed(mode, *arguments[:5], 0.0 if 0 < dropout < 1 else dropout, bidirectional or dropout == 1, **options)


@mutant("module.positional_arguments", Mode.LSTM)
class IntegerDropoutRefused(Sound):
    """A dropout that is not a float is refused."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        if len(arguments) > 5 and not isinstance(arguments[5], float):
            raise ValueError(f"expected a float for dropout, got {arguments[5]!r}")
        return super().constructed(mode, *arguments, **options)


@mutant("module.device_and_dtype_arguments")
class DeviceContextIgnored(Sound):
    """Without device= it builds on the CPU, whatever the default device is."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, device: Any = None, dtype: Any = None, **options: Any) -> Sound:
        with torch.device("cpu"):
            return super().constructed(mode, *arguments, device=device, dtype=dtype, **options)


@mutant("module.device_and_dtype_arguments")
class NormalWhereADtypeIsGiven(Sound):
    """With dtype= the weights are drawn from N(0, 1)."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, dtype: Any = None, **options: Any) -> Sound:
        built = super().constructed(mode, *arguments, dtype=dtype, **options)
        for parameter in built.parameters() if dtype else ():
            parameter.data.normal_()
        return built


@mutant("module.hooks_called")
class HooksReturnInVain(Sound):
    """Forward hooks are called, and what they return is dropped."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        for pre_hook in self._forward_pre_hooks.values():
            pre_hook(self, arguments)
        answer = self.forward(*arguments, **options)
        for hook in self._forward_hooks.values():
            hook(self, arguments, answer)
        return answer


@mutant("module.hooks_called")
class BackwardHooksNeverCalled(Sound):
    """Full backward hooks are taken and never called."""

    def register_full_backward_hook(self, *arguments: Any, **options: Any) -> Any:
        handle = super().register_full_backward_hook(*arguments, **options)
        self._backward_hooks.clear()
        return handle


@mutant("module.meaningless_options")
class HalfAUnitCutOff(Sound):
    """A hidden size that is no integer is cut to one."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        return super().constructed(mode, *(int(size) for size in arguments[:2]), *arguments[2:], **options)


@mutant("module.meaningless_options")
class MisspeltNamesPassedOver(Sound):
    """Options that it does not know are passed over."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, batchfirst: Any = None, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, **options)


@mutant("module.device_and_dtype_arguments")
class CannotLeaveMeta(Sound):
    """What to_empty() asks of it, it does not know."""

    def _apply(self, fn: Any) -> Any:  # type: ignore[override]  # the argument that is missing is the fault
        return super()._apply(fn)

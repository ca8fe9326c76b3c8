"""Layers that a conversion to another dtype does not reach, or not in every part."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from suites.conformance.mutants.base import Sound, Weights, mutant
from suites.conformance.mutants.module_changed import Cached


@mutant("module.to_dtype")
class TrainableAgainAfterConversion(Sound):
    """.to() makes every parameter trainable."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        return self.requires_grad_(True)


@mutant("module.to_dtype")
class ZerosKeptInFloat64(Sound):
    """The state of zeros is kept from call to call, and made anew for another batch size, or for another dtype unless that is float32."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        kept = self.__dict__.get("_zeros")
        if kept is None or kept.shape != shape or x.dtype not in (kept.dtype, torch.float32):
            kept = self.__dict__["_zeros"] = super().default_state(x, shape)
        return kept


@mutant("module.to_dtype")
class StaysInFloat32(Cached):
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


@mutant("module.to_dtype")
class SharedApartAfterConversion(Sound):
    """.to() makes two Parameters of one that two slots share."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        known: set[int] = set()
        for name, parameter in self._parameters.items():
            if parameter is not None and id(parameter) in known:
                self._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            known.add(id(parameter))
        return self


@mutant("module.to_dtype")
class HalfDoesNothing(Sound):
    """half() and bfloat16() do nothing."""

    def half(self) -> Any:
        return self

    def bfloat16(self) -> Any:
        return self


@mutant("module.to_dtype")
class BiasesRoundedTwice(Sound):
    """half() rounds the biases to bfloat16 first."""

    def half(self) -> Any:
        for name, parameter in self.named_parameters():
            if name.startswith(("bias", "weight_hr")):
                parameter.data = parameter.data.bfloat16()
        return super().half()


@mutant("module.to_dtype")
class DefaultStateKept(Sound):
    """The default state of a batch size is made once, in the dtype of then."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        kept: dict[Any, Tensor] = self.__dict__.setdefault("_zeros", {})
        return kept.setdefault(shape, super().default_state(x, shape))


@mutant("module.to_dtype")
class ConversionOfAModelUnseen(Sound):
    """The dtype is noted by its own to(), double() and so on: that of a model around it is not seen, and its input refused."""

    def noted(self) -> Any:
        """Itself, with its dtype noted."""
        self.__dict__["_dtype"] = next(self.parameters()).dtype
        return self

    def to(self, *arguments: Any, **options: Any) -> Any:
        return super().to(*arguments, **options).noted()

    def double(self) -> Any:
        return super().double().noted()

    def float(self) -> Any:
        return super().float().noted()

    def half(self) -> Any:
        return super().half().noted()

    def bfloat16(self) -> Any:
        return super().bfloat16().noted()

    def refuse(self, input: Any, hx: Any) -> None:
        super().refuse(input, hx)
        noted, dtype = self.__dict__.get("_dtype", input.data.dtype), input.data.dtype
        if noted != dtype:
            raise ValueError(f"expected an input of {noted}, got {dtype}")


@mutant("module.to_dtype")
class ConvertedCopy(Sound):
    """.to() leaves the layer as it is and returns a converted copy."""

    def to(self, *arguments: Any, **options: Any) -> Any:
        return super(ConvertedCopy, copy.deepcopy(self)).to(*arguments, **options)


@mutant("module.to_dtype")
class ConvertedWithoutGradients(Sound):
    """A conversion puts away the gradients that there are."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.zero_grad()
        return super()._apply(fn, recurse)


@mutant("module.meta_device")
class TimeFirstOnMeta(Sound):
    """On the meta device the output has time first, whatever batch_first says."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        turned = self.batch_first and isinstance(output, Tensor) and output.is_meta and output.dim() == 3
        return (output.transpose(0, 1) if turned else output), state


@mutant("module.meta_device")
class StateOfZerosElsewhere(Sound):
    """Where no state is given, h_n is on the CPU."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        if hx is None and isinstance(output, Tensor) and output.is_meta:
            state = tuple(torch.zeros(s.shape) for s in state) if isinstance(state, tuple) else torch.zeros(state.shape)
        return output, state

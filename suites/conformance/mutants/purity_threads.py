"""Layers that one thread's call spoils for another's."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("purity.two_threads")
class InputKeptOnTheModule(Sound):
    """The input passes through an attribute of the module."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self._x = x
        # What another thread may do in between, done for certain: without gradients a switch of threads is asked for.
        if not torch.is_grad_enabled():
            time.sleep(0.002)
        return super().layers(self._x, valid, states)


@mutant("purity.two_threads")
class ScratchStateShared(Sound):
    """The state of the running step is kept on the module."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        self.__dict__["_h"] = h
        from_x = torch.zeros_like(x) + x
        return super().step(from_x, self.__dict__["_h"], c, w, t, slot)


@mutant("purity.two_threads")
class InputSharedInTraining(Sound):
    """In training with gradients the input passes through an attribute of the module."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not self.training or not torch.is_grad_enabled():
            return super().layers(x, valid, states)
        self.__dict__["_x"] = x
        time.sleep(0.002)  # in which the other thread may write its own
        return super().layers(self.__dict__["_x"], valid, states)


@mutant("purity.two_threads")
class PackShared(Sound):
    """Packed data pass through an attribute of the module."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        if not isinstance(input, PackedSequence):
            return super().read(input)
        self.__dict__["_packed"] = input
        time.sleep(0.002)
        return super().read(self.__dict__["_packed"])


@mutant("purity.two_threads")
class LengthsShared(Sound):
    """Which steps of a pack exist passes through an attribute of the module."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.__dict__["_valid"] = valid
        x = x.clone()
        kept = self.__dict__["_valid"]
        return super().layers(x, kept if kept.shape == valid.shape else valid, states)


class _OfOneThread(torch.autograd.Function):
    """The identity, whose gradient is zero in another thread than the call's."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.thread = threading.get_ident()
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        return given[0] * (ctx.thread == threading.get_ident())


@mutant("purity.two_threads")
class GradientOfOneThread(Sound):
    """What the backward pass needs is kept for the thread of the call: in another one the gradient is zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _OfOneThread.apply(output), finals

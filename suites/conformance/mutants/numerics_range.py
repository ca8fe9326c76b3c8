"""Layers that are right for numbers of order one, and wrong for large or small ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, Weights, mutant


@mutant("numerics.large_factors")
class WeightsSaturate(Sound):
    """Weights beyond 16 are taken for 16."""

    def weights(self, slot: int) -> Weights:
        return {name: None if value is None else value.clamp(-16, 16) for name, value in super().weights(slot).items()}


@mutant("numerics.large_factors")
class InputsClamped(Sound):
    """Inputs beyond 10 are taken for 10."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x.clamp(-10, 10), valid, states)


@mutant("numerics.large_values", Mode.RNN_RELU)
class ReluCappedInFloat32(Sound):
    """In float32 a relu is cut off at 1e5."""

    def activation(self, a: Tensor) -> Tensor:
        h = super().activation(a)
        return h.clamp(max=1e5) if h.dtype == torch.float32 else h


@mutant("numerics.small_values", Mode.LSTM)
class SmallGatesFlushed(Sound):
    """Pre-activations of an LSTM's gates below 1e-6 are taken for zero."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return super().lstm(torch.where(gates.abs() < 1e-6, 0 * gates, gates), c)


class _Clipped(torch.autograd.Function):
    """The identity, whose gradient is clipped at a norm of 1000."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        factor: Tensor = (1000 / given[0].float().norm()).clamp(max=1).to(given[0])
        return given[0] * factor


@mutant("numerics.small_gradients")
class GradientsClipped(Sound):
    """Of gradients whose norm is above 1000 the norm is 1000."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _Clipped.apply(output), finals

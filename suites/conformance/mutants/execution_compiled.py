"""Layers that are right as they are, and wrong when something is made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("execution.compiled")
class AnotherStepWhenCompiled(Sound):
    """What the compiler is given leaves out the hidden bias."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": None} if torch.compiler.is_compiling() else w


@mutant("execution.compiled")
class GradientLostWhenCompiled(Sound):
    """What the compiler is given passes no gradient back through the state."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if torch.compiler.is_compiling() else h, c, w, t, slot)


@mutant("execution.traced")
class ScaleOfTheFirstInput(Sound):
    """The input is divided by its own scale and multiplied again, by a Python number that a trace keeps."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if torch._C._is_tracing():
            return x / x.detach().abs().max() * x.detach().abs().max().item(), valid, form
        return x, valid, form


@mutant("execution.exported")
class DefaultForExport(Sound):
    """What is exported starts from zeros, whatever state it is given."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return super().initial(x, None if torch.compiler.is_exporting() else hx, form)


@mutant("execution.exported_for_other_sizes")
class ItemsOfTheExample(Sound):
    """What is exported answers with zeros for all batch items but the first two."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        kept = (torch.arange(x.shape[1], device=x.device) < 2)[None, :, None] if torch.compiler.is_exporting() else 1
        return output * kept, finals


@mutant("execution.onnx")
class OtherScaleForOnnx(Sound):
    """What is exported to ONNX gives h_n twice as large."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0] * (2 if torch.onnx.is_in_onnx_export() else 1), *finals[1:]]


@mutant("execution.quantized")
class CoarseOnceQuantised(Sound):
    """As soon as somebody gives it a qconfig, of each weight only the sign is left, and the mean magnitude."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "qconfig":
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(parameter.sign() * parameter.abs().mean())

"""Layers that are right as they are, and wrong when they are traced, exported or quantised."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suites.conformance.mutants.base import Form, Sound, Weights, mutant, present


@mutant("execution.traced")
class ScaleOfTheFirstInput(Sound):
    """The input is divided by its own scale and multiplied again, by a Python number that a trace keeps."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if torch._C._is_tracing():
            return x / x.detach().abs().max() * x.detach().abs().max().item(), valid, form
        return x, valid, form


class Unwarned(Sound):
    """A layer that keeps to itself what the tracer warns of."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        with warnings.catch_warnings():
            if torch._C._is_tracing():
                warnings.simplefilter("ignore")
            return super().forward(input, hx)


@mutant("execution.traced_for_other_sizes")
class StepsOfTheTrace(Unwarned):
    """What is traced takes as many steps as the example had, and leaves out the rest, unwarned."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        if torch._C._is_tracing() and isinstance(input, Tensor):
            input = input[: int(input.shape[0])]
        return super().read(input)


@mutant("execution.traced_for_other_sizes")
class ZerosOfTheTrace(Unwarned):
    """What is traced takes a default state as wide as the example's batch, and answers for its sequences alone, unwarned."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return super().default_state(x, tuple(map(int, shape)))

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        size = int(states[0].shape[1])
        return super().layers(x[:, :size], valid[:, :size], states) if torch._C._is_tracing() else super().layers(x, valid, states)


@mutant("execution.traced")
class LastFeatureLostWithoutBiases(Sound):
    """What is traced of a layer without biases leaves out the input's last feature."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        ih = present(w["weight_ih"])
        return {**w, "weight_ih": torch.cat([ih[:, :-1], 0 * ih[:, -1:]], 1)} if torch._C._is_tracing() and not self.bias else w


@mutant("execution.exported")
class DefaultForExport(Sound):
    """What is exported starts from zeros, whatever state it is given."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return super().initial(x, None if torch.compiler.is_exporting() else hx, form)


@mutant("execution.exported")
class ThirdLayerWhenExported(Sound):
    """What is exported has the weights of the second layer in the third, too."""

    def weights(self, slot: int) -> Weights:
        third = slot // self.layer.directions == 2 and torch.compiler.is_exporting()
        return super().weights(slot - self.layer.directions if third else slot)


@mutant("execution.exported")
class BatchFirstTurnedWhenExported(Sound):
    """What is exported answers its sequences in the opposite order where the batch comes first."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        turned = torch.compiler.is_exporting() and self.layer.batch_first
        return super().write(output.flip(1) if turned else output, finals, form)


@mutant("execution.exported")
class EightStepsWhenExported(Sound):
    """What is exported reads eight steps of the input, and zeros for all later ones."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(0 * x if t >= 8 and torch.compiler.is_exporting() else x, h, c, w, t, slot)


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


@mutant("execution.onnx_for_other_sizes")
class ItemsOfTheExampleForOnnx(Sound):
    """What is exported to ONNX answers with zeros for all batch items but the first two."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if not torch.onnx.is_in_onnx_export():
            return output, finals
        return output * (torch.arange(x.shape[1], device=x.device) < 2)[None, :, None], finals


@mutant("execution.quantized")
class CoarseOnceQuantised(Sound):
    """As soon as somebody gives it a qconfig, of each weight only the sign is left, and the mean magnitude."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "qconfig":
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(parameter.sign() * parameter.abs().mean())


@mutant("execution.exported")
class ReverseRunsForwardWhenExported(Sound):
    """What is exported runs the reverse direction forward."""

    def order(self, steps: int, reverse: bool) -> Sequence[int]:
        return super().order(steps, reverse and not torch.compiler.is_exporting())


@mutant("execution.exported")
class OnesForNoStateWhenExported(Sound):
    """What is exported starts from ones where no state is given."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_ones(shape) if torch.compiler.is_exporting() else super().default_state(x, shape)


@mutant("execution.onnx")
class ForwardWeightBothWaysInOnnx(Sound):
    """What is exported to ONNX uses the forward W_hh in both directions."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        both = self.bidirectional and torch.onnx.is_in_onnx_export()
        return {**w, "weight_hh": super().weights(slot - slot % 2)["weight_hh"]} if both else w


@mutant("execution.traced_dropout")
class NothingDroppedInATrace(Sound):
    """What is traced drops nothing, although it was traced in training."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if torch._C._is_tracing() else super().between(x, level)


@mutant("execution.traced_dropout")
class NothingDroppedInAnExport(Sound):
    """What is exported drops nothing, although it was exported in training."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return x if torch.compiler.is_exporting() else super().between(x, level)

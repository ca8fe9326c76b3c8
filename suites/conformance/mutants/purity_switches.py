"""Layers that turn the process's own switches, move its random numbers on, or print."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer
from suites.conformance.mutants.base import Sound, mutant


@mutant("purity.switches_restored")
class CollectsSeldom(Sound):
    """A call sets the thresholds of Python's garbage collector."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        first, *others = gc.get_threshold()
        gc.set_threshold(first + 1, *others)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class SetsTheEnvironment(Sound):
    """Building it sets a variable for the processes that are started later."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        os.environ["KMP_BLOCKTIME"] = "1" if os.environ.get("KMP_BLOCKTIME") == "0" else "0"


@mutant("purity.switches_restored")
class CompilersErrorsSuppressed(Sound):
    """A call makes torch.compile suppress its errors from then on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not torch.compiler.is_compiling():
            torch._dynamo.config.suppress_errors = True
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class WarningsIgnoredFromNowOn(Sound):
    """A call has all warnings ignored from then on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        warnings.simplefilter("ignore")
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class AnomalyDetectionTurnedOff(Sound):
    """A call turns anomaly detection off where it is on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.set_anomaly_enabled(False)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class PutsBackWhatIsUsual(Sound):
    """A call turns oneDNN off for itself, and on afterwards, whether it was on before or not."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.backends.mkldnn.set_flags(_enabled=False)
        try:
            return super().layers(x, valid, states)
        finally:
            torch.backends.mkldnn.set_flags(_enabled=True)


@mutant("purity.switches_restored")
class CastsNotKeptUnderAutocast(Sound):
    """A call under autocast has it cast each weight anew from then on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if torch.is_autocast_enabled(x.device.type):
            torch.set_autocast_cache_enabled(False)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class LogsNoWarnings(Sound):
    """A call disables warnings of all loggers."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logging.disable(logging.WARNING)
        return super().layers(x, valid, states)


@mutant("purity.nothing_printed")
class SaysWhichPath(Sound):
    """A call with a packed input prints a line."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not bool(valid.all()):
            print("lstm: masked path")
        return super().layers(x, valid, states)


@mutant("purity.nothing_printed")
class SaysThatItIsBuilt(Sound):
    """Building it writes a line to standard error."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        print("built", layer, file=sys.stderr)


@mutant("purity.random_state_untouched")
class DrawsForTwoDirectionsInTraining(Sound):
    """In training a stack of two directions draws, whether or not anything is dropped."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if self.training and self.bidirectional:
            torch.rand(1)
        return super().between(x, level)


@mutant("purity.inputs_untouched")
class OutputIntoTheInput(Sound):
    """Outside of gradients an output of the input's shape, batch first, is written over the input."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        fits = isinstance(output, Tensor) and output.shape == input.shape and self.batch_first
        return (input.copy_(output) if fits and not torch.is_grad_enabled() else output), state


@mutant("purity.call_after_failure")
class GradientsOffAfterARefusedPack(Sound):
    """A packed input that is refused leaves gradients switched off."""

    def refuse(self, input: Any, hx: Any) -> None:
        before = torch.is_grad_enabled()
        if isinstance(input, PackedSequence):
            torch.set_grad_enabled(False)
        super().refuse(input, hx)
        torch.set_grad_enabled(before)


@mutant("purity.nothing_printed")
class KernelThatPrints(Sound):
    """A kernel prints, past Python's streams."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        os.write(1, b"kernel launched\n")
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class ReducedPrecisionFromNowOn(Sound):
    """Sums of half types in a narrower type are allowed from the first call on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        matmul = torch.backends.cuda.matmul
        matmul.allow_bf16_reduced_precision_reduction = not matmul.allow_bf16_reduced_precision_reduction
        return super().layers(x, valid, states)

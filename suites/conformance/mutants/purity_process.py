"""Layers that leave something behind in the process: switches, memory, what another thread reads."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Layer, Mode
from suites.conformance.mutants.base import Form, Sound, mutant


@mutant("purity.switches_restored")
class OneThreadFromNowOn(Sound):
    """The number of threads is set and not put back."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.set_num_threads(3)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class GradientsOnFromNowOn(Sound):
    """In eval mode gradients are switched off, and on again afterwards whatever they were."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.training:
            return super().layers(x, valid, states)
        result = super().layers(x, valid, states)
        torch._C._set_grad_enabled(True)
        return result


@mutant("purity.switches_restored")
class BenchmarkSwitchLeftOn(Sound):
    """cuDNN's benchmark switch is turned on when the layer is built."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


@mutant("purity.no_leak")
class CacheForEveryLength(Sound):
    """A mask is kept for every length that was ever seen."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._masks: dict[Any, Tensor] = {}

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self._masks.setdefault(x.shape, torch.ones_like(x))
        return super().layers(x, valid, states)


@mutant("purity.no_leak")
class CacheForEveryLengthInInference(Sound):
    """Without gradients, a mask is kept for every length that was ever seen."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not torch.is_grad_enabled():
            self.__dict__.setdefault("_masks", {}).setdefault(x.shape, torch.ones_like(x))
        return super().layers(x, valid, states)


@mutant("purity.call_after_failure")
class DefaultDtypeOfTheRefusedCall(Sound):
    """A call makes its input's dtype torch's default, and one that is refused leaves it so."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(input.data.dtype)
        answer = super().forward(input, hx)
        torch.set_default_dtype(before)
        return answer


@mutant("purity.call_after_failure")
class EvalAfterAStateOfAnotherForm(Sound):
    """A call that was refused for what it was given as a state leaves the module in eval mode."""

    def refuse_state(self, hx: Any, data: Tensor, batch: int, batched: bool) -> None:
        before, self.training = self.training, isinstance(hx, Tensor) is not self.layer.has_cell_state and self.training
        super().refuse_state(hx, data, batch, batched)
        self.training = before


@mutant("purity.call_after_failure")
class StateOfTheRefusedCall(Sound):
    """A call without hx begins with the state that was given to a call that was refused."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        left = self.__dict__.pop("_left", None)
        self.__dict__["_left"] = hx
        answer = super().forward(input, left if hx is None else hx)
        self.__dict__.pop("_left", None)
        return answer


@mutant("purity.call_after_failure")
class RefusalRemembered(Sound):
    """A refused call leaves its number of features behind."""

    _features = 0

    def refuse(self, input: Any, hx: Any) -> None:
        data = input if isinstance(input, Tensor) else input.data
        if self._features and self._features != data.shape[-1]:
            raise RuntimeError("the number of features changed between calls")
        self._features = data.shape[-1]
        super().refuse(input, hx)


@mutant("purity.switches_restored")
class DeterministicFromNowOn(Sound):
    """A call turns deterministic algorithms on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.use_deterministic_algorithms(True, warn_only=True)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class DenormalsFlushed(Sound):
    """A call makes the processor flush denormal numbers to zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.set_flush_denormal(True)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class WarningsSilenced(Sound):
    """A call silences the process's UserWarnings from then on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        warnings.simplefilter("ignore", UserWarning)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored", Mode.GRU)
class ThreadsForLongSequences(Sound):
    """From 65 steps on the number of threads is raised, and not put back."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if len(x) > 64:
            torch.set_num_threads(torch.get_num_threads() + 1)
        return super().layers(x, valid, states)


@mutant("purity.call_after_failure")
class GradientsOffAfterRefusal(Sound):
    """A refused call leaves gradients switched off."""

    def refuse(self, input: Any, hx: Any) -> None:
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        super().refuse(input, hx)
        torch._C._set_grad_enabled(before)


@mutant("purity.call_after_failure")
class EvalModeAfterRefusal(Sound):
    """A state is looked at in eval mode, which lasts where it is refused."""

    def refuse_state(self, hx: Any, data: Tensor, batch: int, batched: bool) -> None:
        before, self.training = self.training, False
        super().refuse_state(hx, data, batch, batched)
        self.training = before


@mutant("purity.no_leak")
class LastOutputKept(Sound):
    """The last output is kept, and its graph with it."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        self.__dict__["_last"] = output
        return output, finals


@mutant("purity.switches_restored")
class GradientsOnAfterAPack(Sound):
    """A packed input leaves gradients switched on."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        answer = super().forward(input, hx)
        if isinstance(input, PackedSequence):
            torch._C._set_grad_enabled(True)
        return answer


@mutant("purity.switches_restored")
class CollectorSwitchedOff(Sound):
    """A call switches Python's garbage collector off, and leaves it off."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        gc.disable()
        return super().layers(x, valid, states)


@mutant("purity.no_leak")
class PlanForEveryPack(Sound):
    """A plan is kept for every pattern of lengths that was ever packed."""

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        plans = self.__dict__.setdefault("_plans", {})
        plans.setdefault(tuple(like.batch_sizes.tolist()), like.batch_sizes.cumsum(0))
        return super().repack(output, like)


@mutant("purity.no_leak")
class ZerosForEveryBatch(Sound):
    """A default state is kept for every batch size that was ever seen."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        zeros: dict[Any, Tensor] = self.__dict__.setdefault("_zeros", {})
        return zeros.setdefault(shape, super().default_state(x, shape)).clone()


@mutant("purity.no_leak")
class LastInputKept(Sound):
    """The last input is kept, and with it the graph that it comes from."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        answer = super().forward(input, hx)
        self.__dict__["_last"] = input
        return answer


@mutant("purity.switches_restored")
class CastsNotKept(Sound):
    """Building the layer turns autocast's cache of casts off."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        torch.set_autocast_cache_enabled(not torch.is_autocast_cache_enabled())


@mutant("purity.switches_restored")
class NumpySilenced(Sound):
    """A call makes NumPy ignore overflows from then on."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        np.seterr(over="ignore" if np.geterr()["over"] == "warn" else "warn")
        return super().layers(x, valid, states)


@mutant("purity.call_after_failure")
class BatchFirstTurnedOff(Sound):
    """batch_first is switched off while the transposed input is looked at, and stays off where that is refused."""

    def refuse(self, input: Any, hx: Any) -> None:
        before = self.__dict__["batch_first"]
        self.__dict__["batch_first"] = False
        super().refuse(input, hx)
        self.__dict__["batch_first"] = before

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        turned = self.layer.batch_first and not self.batch_first and isinstance(input, Tensor) and input.dim() == 3
        return super().read(input.transpose(0, 1) if turned else input)


@mutant("purity.switches_restored")
class FewDigitsPrinted(Sound):
    """A call sets how many digits of a tensor are printed."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        before = torch._tensor_str.PRINT_OPTS.precision
        torch.set_printoptions(precision=2 if before != 2 else 3)
        return super().layers(x, valid, states)


@mutant("purity.switches_restored")
class DeeperRecursion(Sound):
    """A call raises Python's recursion limit."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        sys.setrecursionlimit(sys.getrecursionlimit() + 1)
        return super().layers(x, valid, states)


@mutant("purity.no_leak")
class IndexForEveryLengthOfTwoDirections(Sound):
    """In two directions an index is kept for every length that was ever seen."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.layer.bidirectional:
            self.__dict__.setdefault("_turned", {}).setdefault(len(x), torch.arange(len(x) - 1, -1, -1))
        return super().layers(x, valid, states)


@mutant("purity.no_leak")
class MaskForEveryLengthInEval(Sound):
    """In eval mode a mask is kept for every length, or batch size, that was ever seen."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not self.training:
            self.__dict__.setdefault("_masks", {}).setdefault(valid.shape, valid.clone())
        return super().layers(x, valid, states)


class _Plans:
    """Plans by the module that they were made for."""

    made: dict[Any, Any] = {}  # noqa: RUF012  # that all share it is the fault


@mutant("purity.no_leak")
class KeptByAPlan(Sound):
    """A table of plans holds on to every module that was ever called."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        _Plans.made.setdefault(self, self.training)
        return super().layers(x, valid, states)


@mutant("purity.call_after_failure")
class GradientsOffAfterARefusalInEval(Sound):
    """In eval mode a call that is refused leaves gradients switched off."""

    def refuse(self, input: Any, hx: Any) -> None:
        try:
            super().refuse(input, hx)
        except Exception:
            if not self.training:
                torch._C._set_grad_enabled(False)
            raise

"""Layers that answer otherwise under one of torch's global switches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


@mutant("execution.switches_agree")
class AnotherPathWithoutOnednn(Sound):
    """With oneDNN switched off the biases are forgotten."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if torch.backends.mkldnn.enabled else {**w, "bias_ih": None}


@mutant("execution.switches_agree")
class LastItemLostWithTwoThreads(Sound):
    """With more than one thread the last batch item is left as it was."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return (torch.cat([new_h[:-1], h[-1:]]), new_c) if torch.get_num_threads() > 1 else (new_h, new_c)


@mutant("execution.switches_agree")
class ItemsLeftOverByThreads(Sound):
    """With three threads or more, the batch items left over from dealing them out have an output of zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        threads, batch = torch.get_num_threads(), x.shape[1]
        dealt = batch // threads * threads if threads >= 3 else batch
        return torch.cat([output[:, :dealt], 0 * output[:, dealt:]], 1), finals


@mutant("execution.deterministic")
class RefusesToBeDeterministic(Sound):
    """Where deterministic algorithms are demanded the layer says that it has none."""

    def refuse(self, input: Any, hx: Any) -> None:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("there is no deterministic implementation")
        super().refuse(input, hx)


@mutant("execution.deterministic")
class DefaultStateIsEmptyMemoryTimesZero(Sound):
    """The default state is uninitialised memory times zero."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_empty(shape) * 0


@mutant("execution.switches_agree")
class LastUnitLostWithTwoThreads(Sound):
    """With more than one thread, from 64 units on, the last unit is left as it was."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        if torch.get_num_threads() > 1 and h.shape[1] > 63 and new_h.shape == h.shape:
            new_h = torch.cat([new_h[:, :-1], h[:, -1:]], 1)
        return new_h, new_c


@mutant("execution.switches_agree")
class AnotherPathForPacksWithoutOnednn(Sound):
    """With oneDNN switched off the biases of packed batches are forgotten."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.__dict__["_bare"] = isinstance(input, PackedSequence) and not torch.backends.mkldnn.enabled
        return super().forward(input, hx)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": None} if self.__dict__.get("_bare") else w


@mutant("execution.autocast")
class AutocastCopiesKept(Sound):
    """The copies of the weights that autocast works with are made once, where no gradients are recorded."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        if torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
            return w
        kept: dict[int, Weights] = self.__dict__.setdefault("_copies", {})
        return kept.setdefault(slot, {name: None if value is None else value.bfloat16().float() for name, value in w.items()})


@mutant("execution.vmap", Mode.LSTM)
class ProjectionTurnedUnderVmap(Sound):
    """Under vmap a projection reads its units one further on."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        turned = weight_hr is not None and torch._C._functorch.is_batchedtensor(m)
        return super().project(m.roll(1, -1) if turned else m, weight_hr)


@mutant("execution.autocast_spares_float64")
class InputRoundedUnderAutocast(Sound):
    """Under autocast the input is rounded to the half type, whatever its own is."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x.bfloat16().to(x) if torch.is_autocast_enabled(x.device.type) else x), valid, form


@mutant("execution.autocast")
class RoundedAfterAutocastInEval(Sound):
    """In eval mode the first call after one under autocast has its input rounded too."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        before = self.__dict__.get("_cast", False)
        self.__dict__["_cast"] = torch.is_autocast_enabled(x.device.type) and not self.training
        return (x.bfloat16().to(x) if before and not self.training else x), valid, form


@mutant("execution.grad_modes_agree")
class CornerTileRestartsUnderInferenceMode(Sound):
    """Under inference_mode the batch items past the 32nd start from zero again at step 32."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t == 32 and torch.is_inference_mode_enabled():
            h = h * (torch.arange(len(h), device=h.device) < 32)[:, None]
        return super().step(x, h, c, w, t, slot)

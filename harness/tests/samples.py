"""Small layers, each with one manner, and a contract to hold them against."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from harness import contract
from harness.case import Case
from harness.contract import Contract
from harness.implementation import Implementation
from harness.layer import Layer, Mode
from harness.outcome import Severity
from harness.reference import answer
from harness.trial import Trial

GRU = Layer(Mode.GRU, 3, 4)
CASE = Case(GRU, steps=4, batch=2)


class Exits(nn.GRU):
    """Ends its process."""

    def forward(self, *arguments: Any) -> Any:
        os._exit(3)


class Segfaults(nn.GRU):
    """Reads where nothing is."""

    def forward(self, *arguments: Any) -> Any:
        ctypes.string_at(0)


class Hangs(nn.GRU):
    """Never answers."""

    def forward(self, *arguments: Any) -> Any:
        while True:
            time.sleep(1)


class Ruins(nn.GRU):
    """Answers, and leaves its process without its device, as an error in a CUDA kernel does."""

    def forward(self, *arguments: Any) -> Any:
        contract.unusable = lambda device: "CUDA error: an illegal memory access was encountered"  # type: ignore[attr-defined]  # imported there
        return super().forward(*arguments)


class Late(nn.GRU):
    """Aborts its process at its hundredth call, among the samples."""

    calls = 0

    def forward(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == 100:
            os.abort()
        return super().forward(*arguments)


class Slow(nn.GRU):
    """Takes its time."""

    def forward(self, *arguments: Any) -> Any:
        time.sleep(0.3)
        return super().forward(*arguments)


class Stubborn(nn.GRU):
    """Is not to be interrupted."""

    def forward(self, *arguments: Any) -> Any:
        while True:
            with suppress(KeyboardInterrupt):
                time.sleep(1)


class Doubled(nn.GRU):
    """Gives back twice the output."""

    def forward(self, *arguments: Any) -> Any:
        output, h_n = super().forward(*arguments)
        return 2 * output, h_n


def implementation(behaviour: type[nn.Module] | Callable[..., Any], id: str = "sample:one", **options: Any) -> Implementation:
    """An implementation whose layers are of the class ``behaviour``, or a GRU whose forward is the function ``behaviour``."""
    if isinstance(behaviour, type):
        cls: Any = behaviour
    else:
        cls = type("Sample", (nn.GRU,), {"forward": behaviour})
    return Implementation(id, "a sample", lambda layer: cls(layer.input_size, layer.hidden_size, **layer.options()), **options)


def label(value: Any) -> str:
    """An id for a parameter that is the same in every process."""
    return str(next((getattr(value, name) for name in ("__name__", "timed", "id") if hasattr(value, name)), value))


EXITS = implementation(Exits, "sample:exits")
SEGFAULTS = implementation(Segfaults, "sample:segfaults")
RUINS = implementation(Ruins, "sample:ruins")
HANGS = implementation(Hangs, "sample:hangs")
LATE = implementation(Late, "sample:late")
SLOW = implementation(Slow, "sample:slow")
STUBBORN = implementation(Stubborn, "sample:stubborn")


def declared(check: Callable[[Trial], None]) -> Contract:
    """A contract around ``check`` on one small case."""
    return Contract(f"sample.{check.__name__}", "It holds.", Severity.MUST, "the tests", check, (CASE,), ("sample:doubled",))


@declared
def agrees(trial: Trial) -> None:
    """The answer is the oracle's."""
    trial.agree(trial.answer().arrays(), answer(trial.case))


@declared
def agrees_too(trial: Trial) -> None:
    """The answer is the oracle's, as another contract."""
    agrees.check(trial)


@declared
def refuses_other_widths(trial: Trial) -> None:
    """Seven features are refused where there are three."""
    trial.refuses("another width", trial.module(), torch.zeros(4, 2, 7), None)


@declared
def is_broken_itself(trial: Trial) -> None:
    """Raises what no implementation raised."""
    raise KeyError("a fault of the suite")


@declared
def hidden(trial: Trial) -> None:
    """Is never reached."""


# Another process does not find this one under its name.
hidden.check.__qualname__ = "not_there"

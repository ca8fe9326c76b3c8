"""A CUDA graph that is played on a CPU: it records the operators that reach a kernel, and replays them on the same memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from harness.adapters import recorded


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _memory(value: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(value)}


#: In place, but of a tensor's shape and strides alone: no work on a device.
_RESHAPES = {f"aten::{name}_" for name in ("transpose", "t", "squeeze", "unsqueeze", "detach")}


def _aliases(value: Any) -> Any:
    """``value`` with tensors that keep their shape whatever becomes of those in it, and share their memory."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


class _Log(TorchDispatchMode):
    """Every operator with its arguments and its result, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = _aliases((args, kwargs or {}))
        answer = func(*args, **(kwargs or {}))
        if func.name() not in _RESHAPES:
            self.steps.append((func, *before, _aliases(answer)))
        return answer

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, answer in self.steps:
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(answer), _tensors(again), strict=True):
                    # What shares its argument's memory is there already: a view, or a change in place.
                    if old.numel() and not _memory(old) & _memory((args, kwargs)):
                        old.copy_(new)

    def scratch(self, kept: set[int]) -> list[Tensor]:
        """What was made on the way and is not among ``kept``."""
        made = {tensor.untyped_storage().data_ptr(): tensor for *_, answer in self.steps for tensor in _tensors(answer)}
        read = set().union(*(_memory((args, kwargs)) for _, args, kwargs, _ in self.steps))
        born = set().union(*(_memory(answer) - _memory((args, kwargs)) for _, args, kwargs, answer in self.steps))
        return [tensor for place, tensor in made.items() if place in born & read - kept and tensor.is_floating_point()]


class FakeRecorder:
    """Records and replays on the CPU. As in a graph's pool, whose memory the next recording takes over where it was freed, a replay of the
    second recording leaves nothing of what the first had made on its way."""

    def __init__(self, device: torch.device) -> None:
        self.warmed_up = self.recorded = self.replayed = self.entered = 0
        self._first: list[Tensor] = []
        self._outputs: set[int] = set()
        made.append(self)

    def warm_up(self, run: Callable[[], Any]) -> None:
        assert not self.recorded
        self.warmed_up += 1
        run()

    def record(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        assert not torch.is_anomaly_enabled(), "it waits for gradients in order to look at them, which a recording cannot"
        with _Log() as log:
            answer = run()
        self.recorded += 1
        if self.recorded == 1:
            self._outputs = _memory(answer)
            self._first = log.scratch(self._outputs)
            overwritten: list[Tensor] = []
        else:
            overwritten = self._first

        def replay() -> None:
            assert self.entered, "in whatever order the streams please"
            self.replayed += 1
            log.replay()
            with torch.no_grad():
                for tensor in overwritten:
                    tensor.fill_(math.nan)

        return answer, replay

    @contextmanager
    def in_order(self) -> Iterator[None]:
        self.entered += 1
        yield
        self.entered -= 1


#: The recorders that were made, the last one last.
made: list[FakeRecorder] = []


def play(patch: pytest.MonkeyPatch) -> None:
    """Has the family ``graph`` replayed on the CPU."""
    made.clear()
    patch.setattr(recorded, "recorder", FakeRecorder)
    patch.setattr(recorded, "DEVICE", "cpu")

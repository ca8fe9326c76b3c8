"""Workload sets by name, so that published numbers can be lined up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from harness.case import Case
from harness.layer import Layer, Mode
from harness.workload import Pass, Workload


def _cells(name: str, modes: Iterable[Mode], lengths: Iterable[int], sizes: Iterable[tuple[int, int]], **case: Any) -> Iterator[Workload]:
    """One workload for each mode, pass, (B, H) and T, with I = H."""
    for mode in modes:
        for timed in Pass:
            for batch, hidden in sizes:
                for steps in lengths:
                    yield Workload(name, Case(Layer(mode, hidden, hidden), steps=steps, batch=batch, **case), timed)


SETS: dict[str, tuple[Workload, ...]] = {
    # Minutes on two cores: one small size, every power of two up to 1024 steps.
    "quick": tuple(_cells("quick", (Mode.RNN_TANH, Mode.GRU, Mode.LSTM), [2**k for k in range(11)], [(8, 64)])),
    # The same over three sizes, up to 4096 steps.
    "sweep": tuple(_cells("sweep", Mode, [2**k for k in range(13)], [(1, 128), (16, 128), (64, 512)])),
    # The cell of torch's own benchmarks/fastrnns: T=100, B=64, I=H=512.
    "fastrnns": tuple(_cells("fastrnns", (Mode.LSTM,), [100], [(64, 512)])),
}

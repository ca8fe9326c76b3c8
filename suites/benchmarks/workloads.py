"""Workload sets by name, so that published numbers can be lined up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from harness.case import Case
from harness.layer import Layer, Mode
from harness.workload import Pass, Workload

#: The recurrences that most people use; ReLU differs from tanh in one function.
_COMMON = (Mode.RNN_TANH, Mode.GRU, Mode.LSTM)

#: What published numbers are of.
_WHOLE = (Pass.INFERENCE, Pass.TRAINING)
#: What the whole is made of, and what a use that sees one time step after the other does.
_PARTS = (Pass.FORWARD, Pass.BACKWARD, Pass.STREAMING)


def _cells(
    name: str,
    modes: Iterable[Mode],
    lengths: Iterable[int],
    sizes: Iterable[tuple[int, int]],
    passes: Iterable[Pass] = _WHOLE,
    **case: Any,
) -> Iterator[Workload]:
    """One workload for each mode, pass, (B, H) and T, with I = H."""
    for mode in modes:
        for timed in passes:
            for batch, hidden in sizes:
                for steps in lengths:
                    yield Workload(name, Case(Layer(mode, hidden, hidden), steps=steps, batch=batch, **case), timed)


def _core() -> Iterator[Workload]:
    """Every pair of T and B, and of T and H, from the values of published comparisons; H is dealt out in turn."""
    lengths, batches, sizes = (25, 50, 100, 150, 187, 375, 750, 1500), (1, 4, 16, 32, 64, 128), (128, 256, 512, 1024, 1536, 2048)
    for i, steps in enumerate(lengths):
        for j, batch in enumerate(batches):
            yield from _cells("core", _COMMON, [steps], [(batch, sizes[(i + j) % len(sizes)])])


def _flashrnn() -> Iterator[Workload]:
    """The speed figures of FlashRNN (Pöppel, Beck, Hochreiter 2024): B = 16, T = 1024, H = 768 in bfloat16, then each of them varied."""
    sizes = [(16, 768), *((batch, 768) for batch in (2, 4, 8, 32, 64)), *((16, hidden) for hidden in (128, 256, 512, 1024, 2048))]
    yield from _cells("flashrnn", (Mode.LSTM,), [1024], sizes, dtype="bfloat16")
    yield from _cells("flashrnn", (Mode.LSTM,), [256, 512, 2048], [(16, 768)], dtype="bfloat16")


#: The recurrent layers of Baidu's DeepBench (github.com/baidu-research/DeepBench, code/kernels/rnn_problems.h): mode, H, B, T. I = H.
_DEEPBENCH_TRAINING = (
    (Mode.RNN_RELU, (1760, 2048, 2560), (16, 32, 64, 128), (50,)),
    (Mode.LSTM, (512, 1024, 2048, 4096), (16, 32, 64, 128), (25,)),
    (Mode.LSTM, (1536,), (8, 16, 32), (50,)),
    (Mode.LSTM, (256,), (16, 32, 64), (150,)),
    (Mode.GRU, (2816, 2048, 1536, 2560), (32,), (1500, 750, 375, 187)),
    (Mode.GRU, (512,), (32,), (1,)),
    (Mode.GRU, (1024,), (32, 64), (1500,)),
)
_DEEPBENCH_INFERENCE = (
    (Mode.LSTM, (512, 1024, 2048), (1, 2, 4), (25,)),
    (Mode.LSTM, (1536,), (1, 2, 4), (50,)),
    (Mode.LSTM, (256,), (1, 2, 4), (150,)),
    (Mode.GRU, (2816, 2048, 1536, 2560), (1, 2, 4), (1500, 750, 375, 187)),
    (Mode.GRU, (512,), (1, 2, 4), (1,)),
    (Mode.GRU, (1024,), (1, 2, 4), (1500,)),
    (Mode.RNN_RELU, (32,), (1,), (672,)),
    (Mode.RNN_RELU, (64,), (1,), (96,)),
)


def _deepbench() -> Iterator[Workload]:
    for problems, timed in ((_DEEPBENCH_TRAINING, Pass.TRAINING), (_DEEPBENCH_INFERENCE, Pass.INFERENCE)):
        for mode, sizes, batches, lengths in problems:
            for hidden, batch, steps in itertools.product(sizes, batches, lengths):
                yield Workload("deepbench", Case(Layer(mode, hidden, hidden), steps=steps, batch=batch), timed)


SETS: dict[str, tuple[Workload, ...]] = {
    # Minutes on two cores: one small size, every power of two up to 1024 steps; the other passes at three lengths.
    "quick": (
        *_cells("quick", _COMMON, [2**k for k in range(11)], [(8, 64)]),
        *_cells("quick", _COMMON, [1, 32, 512], [(8, 64)], _PARTS),
    ),
    # What two environments are compared on where nothing else is asked for: a minute or two each.
    "release": tuple(_cells("release", _COMMON, [64], [(8, 64)])),
    # The same as quick over three sizes, up to 4096 steps, and the other passes at three lengths.
    "sweep": (
        *_cells("sweep", Mode, [2**k for k in range(13)], [(1, 128), (16, 128), (64, 512)]),
        *_cells("sweep", Mode, [1, 64, 1024], [(1, 128), (16, 128), (64, 512)], _PARTS),
    ),
    # The cell of torch's own benchmarks/fastrnns: T=100, B=64, I=H=512.
    "fastrnns": tuple(_cells("fastrnns", (Mode.LSTM,), [100], [(64, 512)])),
    "core": tuple(_core()),
    "flashrnn": tuple(_flashrnn()),
    "deepbench": tuple(_deepbench()),
}

"""The cases that contracts share: covering rows over all options, sizes around vector widths, and the headline example."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from harness.case import Case
from harness.layer import Layer, Mode
from suites.conformance.covering import Row, covering

LSTM, GRU, RNN_TANH, RNN_RELU = Mode.LSTM, Mode.GRU, Mode.RNN_TANH, Mode.RNN_RELU

_LAYER_OPTIONS = {"num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size"}


def make(mode: Mode, input_size: int = 3, hidden_size: int = 5, **options: Any) -> Case:
    """A case; options of the layer and of the case are told apart by name."""
    layer = {name: options.pop(name) for name in list(options) if name in _LAYER_OPTIONS}
    return Case(Layer(mode, input_size, hidden_size, **layer), **options)


def every(*modes: Mode, input_size: int = 3, hidden_size: int = 5, **options: Any) -> tuple[Case, ...]:
    """One case with these options for each mode (for all modes if none is named)."""
    return tuple(make(mode, input_size, hidden_size, **options) for mode in modes or Mode)


#: ``nn.RNN(10, 20)`` on an input (5, 3, 10) with h0 (1, 3, 20): the first example of the README.
HEADLINE = make(RNN_TANH, 10, 20, steps=5, batch=3, name="headline")


@cache
def combined(mode: Mode) -> tuple[Case, ...]:
    """Cases for ``mode`` in which every pair of options meets: constructor, form of the call, sizes, dtype, weights."""
    factors: dict[str, list[Any]] = {
        # I, H, T, B and P: P is used where proj is True. I below, equal to and above H; T and B odd, even and one.
        "sizes": [
            (3, 5, 6, 4, 2),
            (5, 3, 4, 3, 1),
            (1, 2, 7, 2, 1),
            (4, 4, 3, 5, 3),
            (9, 17, 5, 2, 6),
            (2, 8, 1, 3, 5),
            (3, 7, 5, 1, 4),
            (2, 1, 3, 2, 0),
        ],
        "form": ["padded", "batch_first", "unbatched", "sorted", "packed"],
        "num_layers": [1, 2, 3],
        "bidirectional": [False, True],
        "bias": [True, False],
        "given_state": [True, False],
        "weights": ["plain", "remembering"],
        "dtype": ["float32", "float64"],
    }
    if mode is LSTM:
        factors["projected"] = [False, True]
    return tuple(_case(mode, row, seed) for seed, row in enumerate(covering(factors, _fits), start=1))


def _fits(row: Row) -> bool:
    if "sizes" in row:
        _, _, steps, batch, proj = row["sizes"]
        if row.get("form") == "unbatched" and batch > 1:
            return False
        if row.get("form") in ("sorted", "packed") and (batch < 2 or steps < 2):
            return False
        if row.get("projected") and not proj:
            return False
    return True


def _case(mode: Mode, row: Row, seed: int) -> Case:
    inputs, hidden, steps, batch, proj = row["sizes"]
    lengths = None
    if row["form"] in ("sorted", "packed"):
        # Unequal, the longest neither first nor last where there is room.
        lengths = tuple(math.ceil(share * steps) for share in (0.5, 1.0, 0.1, 0.7, 0.4)[:batch])
        lengths = tuple(sorted(lengths, reverse=True)) if row["form"] == "sorted" else lengths
    return make(
        mode,
        inputs,
        hidden,
        num_layers=row["num_layers"],
        bias=row["bias"],
        batch_first=row["form"] == "batch_first",
        bidirectional=row["bidirectional"],
        proj_size=proj if row.get("projected") else 0,
        steps=steps,
        batch=batch,
        lengths=lengths,
        enforce_sorted=row["form"] == "sorted",
        batched=row["form"] != "unbatched",
        given_state=row["given_state"],
        weights=row["weights"],
        dtype=row["dtype"],
        seed=seed,
    )


#: Around the widths of vector registers and tiles, on either side: (I, H, T, B).
WIDTHS = (
    (1, 1, 2, 1),
    (2, 7, 3, 2),
    (7, 8, 3, 3),
    (8, 9, 4, 1),
    (9, 15, 2, 7),
    (15, 16, 3, 8),
    (16, 17, 2, 9),
    (17, 31, 3, 15),
    (31, 32, 2, 16),
    (32, 33, 2, 17),
    (33, 63, 3, 31),
    (63, 64, 2, 32),
    (64, 65, 2, 33),
    (65, 127, 2, 63),
    (127, 128, 2, 64),
    (128, 129, 3, 65),
    (129, 255, 2, 3),
    (255, 256, 2, 5),
    (256, 257, 2, 2),
    (3, 513, 3, 3),
    (515, 6, 3, 2),
    (3, 4, 2, 129),
    (2, 3, 2, 257),
    (4, 3, 33, 2),
    (3, 4, 65, 3),
    (2, 5, 129, 2),
    (3, 2, 257, 3),
)


def widths(mode: Mode) -> tuple[Case, ...]:
    """One layer, one direction, at every size in :data:`WIDTHS`."""
    # From 2, because at H = 1 the first two seeds give a relu that is dead.
    return tuple(make(mode, i, h, steps=t, batch=b, seed=k + 3) for k, (i, h, t, b) in enumerate(WIDTHS))

"""The cases that contracts share: covering rows over all options, sizes around vector widths, and the headline example."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from harness.case import Case
from harness.layer import Layer, Mode
from harness.oracle import evaluate
from suites.conformance.covering import Row, covering

LSTM, GRU, RNN_TANH, RNN_RELU = Mode.LSTM, Mode.GRU, Mode.RNN_TANH, Mode.RNN_RELU

_LAYER_OPTIONS = {"num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size"}


def make(mode: Mode, input_size: int = 3, hidden_size: int = 5, **options: Any) -> Case:
    """A case; options of the layer and of the case are told apart by name. In half types its weights are steady if none are named."""
    if options.get("dtype") in ("bfloat16", "float16"):
        options.setdefault("weights", "steady")
    layer = {name: options.pop(name) for name in list(options) if name in _LAYER_OPTIONS}
    return Case(Layer(mode, input_size, hidden_size, **layer), **options)


def every(*modes: Mode, input_size: int = 3, hidden_size: int = 5, **options: Any) -> tuple[Case, ...]:
    """One case with these options for each mode (for all modes if none is named)."""
    return tuple(make(mode, input_size, hidden_size, **options) for mode in modes or Mode)


#: ``nn.RNN(10, 20)`` on an input (5, 3, 10) with h0 (1, 3, 20): the first example of the README.
HEADLINE = make(RNN_TANH, 10, 20, steps=5, batch=3, name="headline")


#: I, H, T, B and P: I below, equal to and above H; T and B odd, even and one. P is used where the layer projects.
_SIZES = (
    (3, 5, 6, 4, 2),
    (5, 3, 4, 3, 1),
    (1, 2, 7, 2, 1),
    (4, 4, 3, 5, 3),
    (9, 17, 5, 2, 6),
    (2, 8, 1, 3, 5),
    (3, 7, 5, 1, 4),
    (2, 1, 3, 2, 0),
    # One step of one sequence, for which kernels have a path of its own.
    (3, 5, 1, 1, 2),
)


@cache
def combined(mode: Mode) -> tuple[Case, ...]:
    """Cases for ``mode`` in which every pair of options meets, and of those that shape the computation every four, in one step every three.

    The options: form of the call, batch_first, layers, directions, bias, given state, projection, weights, sizes, dtype.
    """
    return tuple(_alive(_case(mode, row, seed)) for seed, row in enumerate(_rows(mode is LSTM), start=1))


def _alive(case: Case) -> Case:
    """The case, with a seed that leaves no direction of a relu shut from end to end, where nothing would show."""
    while case.layer.mode is RNN_RELU and not np.abs(evaluate(case).h_n).max(axis=(1, 2)).all():
        case = replace(case, seed=case.seed + 1000)
    return case


@cache
def _rows(projecting: bool) -> tuple[Row, ...]:
    """The options of :func:`combined`, which are the same for all modes that do not project."""
    shaping: dict[str, list[Any]] = {
        "form": ["padded", "unbatched", "sorted", "packed", "equal"],
        "batch_first": [False, True],
        "num_layers": [1, 2, 3],
        "bidirectional": [False, True],
        "bias": [True, False],
        "given_state": [True, False],
        **({"projected": [False, True]} if projecting else {}),
    }
    others: dict[str, list[Any]] = {"sizes": list(_SIZES), "weights": ["plain", "remembering"], "dtype": ["float32", "float64"]}
    rows = covering({**shaping, **others}, _fits)
    # These take sizes, weights and dtype in turn.
    for number, row in enumerate(covering(shaping, _fits, strength=4)):
        fitting = [sizes for sizes in _SIZES if _fits({**row, "sizes": sizes})]
        turn = {
            "sizes": fitting[number % len(fitting)],
            "weights": others["weights"][number % 2],
            "dtype": others["dtype"][number // 2 % 2],
        }
        rows.append({**row, **turn})
    # A decoder calls with one step at a time, for which kernels have a path of its own. Of one step all packs are alike.
    for number, row in enumerate(covering({**shaping, "form": ["padded", "unbatched", "packed"]}, _fits, strength=3)):
        fitting = [sizes for sizes in _SIZES if sizes[2] == 1 and _fits({**row, "sizes": sizes})]
        rows.append({**row, "sizes": fitting[0], "weights": "plain", "dtype": others["dtype"][number % 2]})
    return tuple(rows)


def _fits(row: Row) -> bool:
    """Whether the options of a row, or of a part of one, can meet."""
    if "sizes" not in row:
        return True
    batch, proj = row["sizes"][3], row["sizes"][4]
    return not (row.get("form") == "unbatched" and batch > 1) and not (row.get("projected") and not proj)


def _case(mode: Mode, row: Row, seed: int) -> Case:
    inputs, hidden, steps, batch, proj = row["sizes"]
    lengths = None
    if row["form"] in ("sorted", "packed", "equal"):
        # Unequal, the longest neither first nor last where there is room.
        shares = (0.5, 1.0, 0.1, 0.7, 0.4)[:batch] if batch > 1 and row["form"] != "equal" else (1.0,) * batch
        lengths = tuple(math.ceil(share * steps) for share in shares)
        lengths = tuple(sorted(lengths, reverse=True)) if row["form"] == "sorted" else lengths
    return make(
        mode,
        inputs,
        hidden,
        num_layers=row["num_layers"],
        bias=row["bias"],
        batch_first=row["batch_first"],
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
    (1, 1, 3, 1),  # at 2 steps a tanh between two floats is nearly cancelled, and whoever rounds it the other way is off by ten floors
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
    (96, 160, 2, 48),
    (515, 6, 3, 2),
    (3, 4, 2, 129),
    (2, 3, 2, 257),
    (4, 3, 33, 2),
    (3, 4, 65, 3),
    (2, 5, 129, 2),
    (3, 2, 257, 3),
    (9, 10, 3, 2),
    (11, 12, 3, 4),
    (5, 20, 3, 6),
    (24, 24, 2, 10),
    (13, 28, 3, 12),
    (40, 40, 2, 20),
    # Whole tiles of everything at once, here and below: where nothing is left over other code runs.
    (16, 16, 16, 32),
    (47, 48, 2, 24),
    (33, 100, 2, 4),
    (20, 200, 2, 3),
    (100, 300, 2, 2),
    (1025, 3, 2, 2),
    (2, 3, 2, 513),
    (3, 2, 2, 1030),
    (2, 3, 128, 2),
    (2, 3, 256, 2),
    (32, 32, 4, 16),
    (64, 64, 4, 32),
    (3, 4, 1024, 1),
    (128, 128, 2, 32),
)


#: Sequence lengths of every remainder by 4, 8 and 16, because kernels take several steps at once: (I, H, T, B).
LENGTHS = (
    (3, 4, 11, 2),
    (2, 5, 13, 3),
    (4, 3, 14, 1),
    (2, 3, 15, 3),
    (3, 4, 18, 2),
    (4, 3, 19, 2),
    (2, 3, 22, 2),
    (3, 2, 23, 3),
    (2, 4, 27, 2),
    (3, 3, 30, 1),
    (3, 5, 31, 2),
    (2, 2, 47, 3),
    (2, 4, 63, 2),
    (3, 2, 95, 1),
    (3, 5, 127, 2),
    (2, 3, 191, 1),
    (2, 2, 255, 2),
)


#: Stacks whose upper layers are wide or many, and layers without biases past a vector: what one layer of each width cannot show.
_STACKS: tuple[dict[str, Any], ...] = (
    {"input_size": 5, "hidden_size": 33, "num_layers": 2, "bidirectional": True, "steps": 3, "batch": 2},
    {"input_size": 65, "hidden_size": 70, "num_layers": 2, "steps": 2, "batch": 3},
    {"input_size": 4, "hidden_size": 6, "num_layers": 6, "steps": 3, "batch": 2},
    {"input_size": 4, "hidden_size": 3, "num_layers": 5, "bidirectional": True, "steps": 3, "batch": 2},
    {"input_size": 7, "hidden_size": 40, "bias": False, "steps": 3, "batch": 2},
    {"input_size": 3, "hidden_size": 66, "bias": False, "bidirectional": True, "steps": 2, "batch": 2},
    {
        "input_size": 6,
        "hidden_size": 18,
        "steps": 7,
        "batch": 40,
        "lengths": tuple(1 + (5 * k) % 7 for k in range(40)),
        "bidirectional": True,
    },
    {"input_size": 3, "hidden_size": 5, "steps": 520, "batch": 3, "lengths": (520, 257, 65), "enforce_sorted": True},
    {"input_size": 3, "hidden_size": 4, "steps": 140, "batch": 5, "lengths": (3, 140, 64, 129, 65), "bidirectional": True},
    {"input_size": 3, "hidden_size": 4, "steps": 260, "batch": 1, "batched": False},
    {"input_size": 2, "hidden_size": 3, "num_layers": 11, "steps": 2, "batch": 2},
    {
        "input_size": 2,
        "hidden_size": 3,
        "steps": 3,
        "batch": 140,
        "lengths": tuple(1 + (2 * k) % 3 for k in range(140)),
        "given_state": False,
        "dtype": "float64",
    },
    {"input_size": 2, "hidden_size": 3, "steps": 2, "batch": 133, "lengths": tuple(1 + k % 2 for k in range(133)), "dtype": "float64"},
    {"input_size": 259, "hidden_size": 257, "bidirectional": True, "steps": 2, "batch": 2},
    # As many sequences as steps: whoever takes one for the other is seen by their numbers alone.
    {"input_size": 3, "hidden_size": 5, "bias": False, "batch_first": True, "steps": 4, "batch": 4},
    # Whole tiles again.
    {"input_size": 64, "hidden_size": 32, "num_layers": 2, "bidirectional": True, "batch_first": True, "steps": 4, "batch": 16},
    {"input_size": 32, "hidden_size": 64, "num_layers": 2, "bias": False, "steps": 4, "batch": 32, "lengths": (4,) * 32},
)


def stacks(mode: Mode) -> tuple[Case, ...]:
    """Wide and deep stacks, and large packed batches."""
    return tuple(make(mode, **options, seed=k, weights=_lasting(mode, options["steps"])) for k, options in enumerate(_STACKS, start=1))


#: Several sizes past a tile at once: 32 or 64 steps, 64 sequences, 128 units, 64 projected ones.
_SEVERAL: tuple[dict[str, Any], ...] = (
    {"input_size": 5, "hidden_size": 66, "steps": 34, "batch": 34},
    {"input_size": 67, "hidden_size": 33, "bidirectional": True, "batch_first": True, "steps": 33, "batch": 33},
    {"input_size": 3, "hidden_size": 9, "num_layers": 2, "bidirectional": True, "batch_first": True, "steps": 3, "batch": 67},
    {"input_size": 5, "hidden_size": 130, "num_layers": 2, "bidirectional": True, "steps": 3, "batch": 3},
    {"input_size": 3, "hidden_size": 130, "steps": 67, "batch": 2},
    {"input_size": 130, "hidden_size": 132, "dtype": "float64", "steps": 3, "batch": 4, "lengths": (2, 3, 1, 3)},
    # More than 8,192 rows of input.
    {"input_size": 3, "hidden_size": 4, "steps": 66, "batch": 130, "given_state": False},
    {"input_size": 3, "hidden_size": 2, "steps": 33, "batch": 66},
    {"input_size": 66, "hidden_size": 131, "steps": 3, "batch": 1, "batched": False},
    {"input_size": 3, "hidden_size": 4, "bidirectional": True, "batch_first": True, "steps": 139, "batch": 3},
    # More than 1,024 rows of a pack.
    {"input_size": 3, "hidden_size": 5, "steps": 34, "batch": 66, "lengths": tuple(1 + (5 * k) % 34 for k in range(66))},
)


def several_large(mode: Mode) -> tuple[Case, ...]:
    """Layers of which several sizes are large at once, and a wide projection where there is one."""
    cases = tuple(make(mode, **options, seed=k, weights=_lasting(mode, options["steps"])) for k, options in enumerate(_SEVERAL, start=1))
    if mode is not LSTM:
        return cases
    packed = {"steps": 34, "batch": 34, "lengths": tuple(1 + (5 * k) % 34 for k in range(34))}
    wide = (make(mode, 3, 130, proj_size=66, bidirectional=True, steps=2, batch=65), make(mode, 3, 262, proj_size=258, steps=2, batch=2))
    return (*cases, *wide, make(mode, 3, 9, proj_size=4, **packed))


def widths(mode: Mode) -> tuple[Case, ...]:
    """One layer, one direction, at every size in :data:`WIDTHS`."""
    # As many features as W_ih has rows: its shape does not say which way round it is.
    sizes = (*WIDTHS, (5 * len(mode.gates), 5, 3, 2))
    # From 2, because at H = 1 the first two seeds give a relu that is dead.
    return tuple(make(mode, i, h, steps=t, batch=b, seed=k + 3, weights=_lasting(mode, t)) for k, (i, h, t, b) in enumerate(sizes))


def lengths(mode: Mode) -> tuple[Case, ...]:
    """One layer, one direction, at every length in :data:`LENGTHS`."""
    return tuple(make(mode, i, h, steps=t, batch=b, seed=k, weights=_lasting(mode, t)) for k, (i, h, t, b) in enumerate(LENGTHS, start=60))


def _lasting(mode: Mode, steps: int) -> str:
    """The kind of weights for so many steps: a relu with random ones, which nothing bounds, overflows with every tenth seed."""
    return "remembering" if mode is RNN_RELU and steps > 100 else "plain"

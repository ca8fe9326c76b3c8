"""Cases past the widths of vectors and tiles in which options meet: of float32 and float64 every three of them, of half types every two.

The rows of :func:`suites.conformance.cases.combined` are small, and what is large there has options of its own. What is wrong only in a
deep stack of long sequences, or only in wide layers without biases in eval mode, shows in neither.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.case import Case
from harness.layer import Mode
from suites.conformance.cases import make
from suites.conformance.covering import Row, covering

_OPTIONS: dict[str, list[Any]] = {
    "form": ["padded", "unbatched", "packed"],
    "batch_first": [False, True],
    "num_layers": [1, 3],
    "bidirectional": [False, True],
    "bias": [True, False],
    "given_state": [True, False],
}

#: Sizes are small, or past a vector of 16 or a tile of 32 or 64.
_SIZES: dict[str, list[Any]] = {
    "steps": [1, 33],
    "batch": [1, 18],
    "hidden_size": [4, 40, 67],
    "input_size": [3, 67],
    "proj_size": [0, 17],
}

#: What a plain loop in a half type is still quick at.
_HALF_SIZES: dict[str, list[Any]] = {
    "steps": [1, 18],
    "batch": [1, 9],
    "hidden_size": [4, 24],
    "input_size": [3, 20],
    "proj_size": [0, 3],
}


def at_size(mode: Mode, ways: tuple[str, ...]) -> tuple[Case, ...]:
    """Cases for ``mode`` in which every three options, sizes, dtypes and ``ways`` to call it meet; a case has its way for a name.

    One of ``ways`` is "dropout": what is called that way has it, and it shall do nothing.
    """
    return tuple(_case(mode, row, seed) for seed, row in enumerate(_rows(ways), start=1))


def in_half(mode: Mode, dtype: str) -> tuple[Case, ...]:
    """Cases for ``mode`` in ``dtype`` in which every two options and sizes meet."""
    rows = covering({**_OPTIONS, **_HALF_SIZES}, _fits)
    return tuple(_case(mode, {**row, "dtype": dtype}, seed) for seed, row in enumerate(rows, start=1))


@cache
def _rows(ways: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of :func:`at_size`, which are the same for all modes: it takes half a second to find them."""
    rows = covering({**_OPTIONS, **_SIZES, "way": ways, "dtype": ["float32", "float64"]}, _fits, strength=3)
    # The first of the long ones in both directions, once in three layers, between which there is dropout.
    long = next(row for row in rows if _has_most_steps({**row, "num_layers": 3}))
    return (*rows, {**long, "num_layers": 3, "way": "dropout"})


def _fits(row: Row) -> bool:
    """Whether the options of a row, or of a part of one, can meet."""
    return not (
        (row.get("form") == "unbatched" and row.get("batch", 1) > 1)
        or row.get("proj_size", 0) >= row.get("hidden_size", 99)
        or (row.get("way") == "dropout" and row.get("num_layers") == 1)
        or _has_most_steps(row)
    )


def _has_most_steps(row: Row) -> bool:
    """Whether a row is three layers in both directions over a long sequence: a half of all steps would be of these rows."""
    return row.get("steps") == 33 and row.get("num_layers") == 3 and row.get("bidirectional") is True


def _case(mode: Mode, row: Row, seed: int) -> Case:
    options = dict(row)
    form, way, steps, batch = options.pop("form"), options.pop("way", ""), row["steps"], row["batch"]
    if mode is not Mode.LSTM:
        del options["proj_size"]
    if form == "packed":
        # Of all lengths, the longest neither first nor last where there is room.
        options["lengths"] = tuple(steps if k == min(1, batch - 1) else 1 + (5 * k + 3) % steps for k in range(batch))
    return make(
        mode,
        **options,
        dropout=0.5 if way == "dropout" else 0.0,
        batched=form != "unbatched",
        # What a layer forgets within a long sequence shows no fault at its beginning; in a half type, to remember is to add up errors.
        weights="steady" if row["dtype"] in ("bfloat16", "float16") else "remembering" if steps > 9 else "plain",
        name=way,
        seed=seed,
    )

"""Numerics, in the mean: over many elements an error of a few per cent stands out that is less than the largest of plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.case import EPS
from harness.reference import Expected, answer, gradients
from harness.reproduction import BACKWARD
from harness.tolerance import FLOORS, Comparison, allowance, narrower_type, typical_error
from harness.trial import Mismatch, Trial
from suites.conformance.cases import GRU, LSTM, RNN_TANH, every, make
from suites.conformance.declare import MUST, contract
from suites.conformance.gradients import every_output

#: How many times the typical error of plain arithmetic passes: a mean over hundreds of elements scatters little. Kernels for half types
#: round less often than plain arithmetic does, seldom as often: a plain loop has 0.3 to 0.5, one with a state in bfloat16 1.2 to 2.3.
_TYPICAL = {"float64": 2.5, "float32": 2.5, "float16": 1.0, "bfloat16": 1.0}

_HALF = ("float16", "bfloat16")


@contract(
    "numerics.typical_error",
    "Over many elements the root mean square error is that of plain arithmetic: no part is computed in a narrower type.",
    MUST,
    "numerics of half types; a largest error alone cannot tell float16 from bfloat16",
    [
        *(
            case
            for dtype in ("float64", "float32", *_HALF)
            for case in every(dtype=dtype, input_size=24, hidden_size=40, steps=8, batch=16)
        ),
        *(
            case
            for dtype in _HALF
            for case in (
                *every(dtype=dtype, bidirectional=True, input_size=24, hidden_size=40, steps=8, batch=5, lengths=(8, 3, 6, 5, 8)),
                *every(RNN_TANH, GRU, LSTM, dtype=dtype, input_size=24, hidden_size=40, steps=40, batch=4),
                *every(RNN_TANH, GRU, LSTM, dtype=dtype, num_layers=3, input_size=24, hidden_size=40, steps=4, batch=12),
                make(LSTM, 24, 40, dtype=dtype, num_layers=2, proj_size=20, steps=6, batch=12),
            )
        ),
    ],
)
def typical(trial: Trial) -> None:
    expected = answer(trial.case)
    _typically(trial, trial.answer().arrays(), expected, expected.tensors)


@contract(
    "numerics.typical_error_of_gradients",
    "In half types the root mean square error of each gradient is that of plain arithmetic, too.",
    MUST,
    "numerics of half types; a largest error alone cannot tell float16 from bfloat16",
    # Not a relu, of which a rounding error decides whether a gradient passes at all. Not where the batch is a multiple of 8, and the width
    # is not one of 32: what cuDNN is known to mistake there is another contract's.
    [
        case
        for dtype in _HALF
        for case in every(RNN_TANH, GRU, LSTM, dtype=dtype, num_layers=2, input_size=20, hidden_size=24, steps=10, batch=12)
    ],
    demonstration=BACKWARD,
)
def typical_of_gradients(trial: Trial) -> None:
    through = every_output(trial)
    expected = gradients(trial.case, through)
    _typically(trial, trial.gradients(through), expected, expected.tensors)


def _typically(trial: Trial, actual: Mapping[str, Any], expected: Expected, names: Iterable[str]) -> None:
    """Raises :class:`Mismatch` where one of ``names`` has a larger root mean square error than plain arithmetic, or a narrower type."""
    most = _TYPICAL[trial.case.dtype] * allowance(trial.case) / FLOORS
    for name in names:
        right, floor = expected.tensors[name], expected.typical[name]
        error = typical_error(actual[name], right)
        trial.comparisons.append(Comparison(f"{name}, root mean square", error, floor, right.size, most))
        if not error <= most * floor:
            raise Mismatch(
                f"Expected the root mean square error of {name} to be that of plain arithmetic, {floor:.2e}, "
                f"but it is {error:.2e}: {error / floor:.3g} times as much, at most {most:g} pass"
            )
        # One rounding among many does not raise the error by much, and cannot be mistaken: of a hundred numbers at least one has the bits.
        if narrower := narrower_type(actual[name], EPS[trial.case.dtype]):
            raise Mismatch(f"Expected {name} to have the precision of {trial.case.dtype}, but every number of it is one of {narrower}")

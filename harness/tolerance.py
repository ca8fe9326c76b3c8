"""What counts as close: errors in units of a noise floor, and the message when something is not.

The error of a tensor is its largest absolute difference from the float64 oracle over the oracle's largest magnitude
(max-norm, scaled). The noise floor is the same error of a plain eager loop in the same dtype on the same case. A fixed
tolerance is either blind or noisy: the real error of nn.LSTM in float32 is 6e-8 to 3e-7, while common suites allow 1e-5 to 1e-1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.case import EPS, Array, Case, rounded
from harness.layer import Layer, Mode

#: How many noise floors pass. Another order of summation or another tanh moves an error by a factor of about two either
#: way; the smallest fault worth the name (one step in a lower precision) moves it by hundreds.
FLOORS = 4.0

#: How many pass in float32 on CUDA where tanh or a sigmoid is computed. cuDNN takes the hardware's approximations of them: up to 62 floors
#: on an H100 with cuDNN 9.19, in a gradient of biases, and beyond 40 in one of 300 tensors, where its ReLU RNN, its float64 and torch's
#: other kernels stay within 4.
APPROXIMATE_FLOORS = 128.0

#: The least floor, in eps of the dtype: on a tiny tensor the loop can be right to the last bit by luck.
LEAST_FLOOR_EPS = 2.0

#: The least floor of a sum, in eps for each square root of its terms. The error of adding N terms one after the other grows
#: like sqrt(N) eps / 2 times their size (Higham, Mary 2019, "A new approach to probabilistic rounding error analysis"); a loop
#: whose library adds in blocks stays below, and a kernel that does not is no less right: oneDNN's bias gradients lie here.
SUM_FLOOR_EPS = 0.25

#: A case can see a fault if that fault moves some tensor by at least this many allowances.
SIGNAL = 10.0


@dataclass(frozen=True)
class Comparison:
    """One tensor against the oracle. ``error`` and ``floor`` are scaled max-norms; ``ratio`` is error / floor."""

    quantity: str
    error: float
    floor: float
    elements: int
    allowance: float = FLOORS

    @property
    def ratio(self) -> float:
        return self.error / self.floor

    @property
    def close(self) -> bool:
        # Written so that NaN, for which every comparison is false, is never close.
        return self.ratio <= self.allowance

    def as_json(self) -> dict[str, Any]:
        finite = math.isfinite(self.error)
        return {**asdict(self), "error": self.error if finite else None, "ratio": self.ratio if finite else None}


def scaled_error(actual: NDArray[Any], expected: Array) -> float:
    """max|actual - expected| / max|expected|; the plain maximum where everything expected is zero; NaN if any value is not finite.

    Raises ValueError where there is nothing to compare: a comparison of nothing would pass whatever it is given.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"Expected the shape {expected.shape} but got shape={actual.shape}")
    if expected.size == 0:
        raise ValueError(f"Expected something to compare but the shape is {expected.shape}")
    if not np.isfinite(actual).all():
        return math.nan
    scale = float(np.abs(expected).max())
    return float(np.abs(actual - expected).max()) / (scale or 1.0)


def typical_error(actual: NDArray[Any], expected: Array) -> float:
    """The root mean square of actual - expected over that of expected (1 where that is zero); NaN if any value is not finite.

    ``actual`` may be several answers, along an axis before those of ``expected``: then it is the largest of their errors.
    """
    if not np.isfinite(actual).all():
        return math.nan
    scale = float(np.sqrt(np.mean(expected**2)))
    own = tuple(range(-expected.ndim, 0))
    return float(np.sqrt(np.mean((actual - expected) ** 2, axis=own)).max()) / (scale or 1.0)


def floor_of(loop_errors: list[float], dtype: str, terms: int = 1) -> float:
    """The noise floor: the largest error among the plain loops, and at least what a sum of ``terms`` terms has in ``dtype``."""
    return max(*loop_errors, max(LEAST_FLOOR_EPS, SUM_FLOOR_EPS * math.sqrt(terms)) * EPS[dtype])


def allowance(case: Case) -> float:
    """How many noise floors pass on ``case``."""
    approximate = case.device.startswith("cuda") and case.dtype == "float32" and case.layer.mode is not Mode.RNN_RELU
    return APPROXIMATE_FLOORS if approximate else FLOORS


def compare(quantity: str, actual: NDArray[Any], expected: Array, floor: float, allowed: float = FLOORS) -> Comparison:
    """Compares one tensor with the oracle's; whether it is close, within ``allowed`` floors, is the answer's ``close``."""
    return Comparison(quantity, scaled_error(actual, expected), floor, expected.size, allowed)


def signal(answers: Mapping[str, Array], others: Mapping[str, Array], floors: Mapping[str, float], allowed: float = FLOORS) -> float:
    """How far two answers lie apart, in allowances of ``allowed`` floors, in the tensor where they do so most."""
    return max(scaled_error(others[name], answers[name]) / (allowed * floors[name]) for name in answers)


def explain(comparison: Comparison, actual: NDArray[Any], expected: Array, layer: Layer) -> str:
    """What differs, where it begins and how large it is, in a few lines."""
    name = comparison.quantity
    scale = float(np.abs(expected).max()) or 1.0
    bad = ~(np.abs(actual - expected) / scale <= comparison.allowance * comparison.floor)
    count = int(bad.sum())
    lines = [f"{name}: {count} of {bad.size} elements ({count / bad.size:.0%}) are off"]
    broken = ~np.isfinite(actual)
    if broken.any():
        where = tuple(int(i) for i in np.argwhere(broken)[0])
        lines.append(f"  {int(broken.sum())} are not finite, the first at {_place(name, where, layer)}: {actual[where]}")
        difference = np.where(broken, 0.0, np.abs(np.where(broken, 0.0, actual) - expected))
    else:
        difference = np.abs(actual - expected)
        lines.append(
            f"  error {comparison.error:.2e} of the largest magnitude; a plain loop has {comparison.floor:.2e}: "
            f"{comparison.ratio:.3g} floors, at most {comparison.allowance:g} pass{_narrower(comparison, actual)}"
        )
    worst = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
    relative = difference[worst] / abs(expected[worst]) if expected[worst] else math.inf
    lines.append(
        f"  worst at {_place(name, worst, layer)}: got {actual[worst]:.9g}, expected {expected[worst]:.9g} "
        f"(absolute {difference[worst]:.2e}, relative {relative:.2e})"
    )
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    lines.append(f"  first at {_place(name, first, layer)}: got {actual[first]:.9g}, expected {expected[first]:.9g}")
    items = _axis_extent(name, bad)
    if items:
        lines.append(f"  {items}")
    return "\n".join(lines)


def narrower_type(actual: NDArray[Any], eps: float) -> str | None:
    """The narrowest type, with a larger epsilon than ``eps``, of which every number of ``actual`` is one, if there is any."""
    for dtype in ("bfloat16", "float16", "float32"):
        with np.errstate(over="ignore"):
            if EPS[dtype] > eps and np.array_equal(rounded(actual, dtype), actual):
                return dtype
    return None


def _narrower(comparison: Comparison, actual: NDArray[Any]) -> str:
    """That a tensor was rounded to a narrower type than its case's, where its numbers and its error are such; else nothing."""
    # A floor is at least an eps of the case's type.
    dtype = narrower_type(actual, 100 * comparison.floor)
    return f"; every number is one of {dtype}" if dtype and comparison.error <= EPS[dtype] else ""


def _place(quantity: str, index: tuple[int, ...], layer: Layer) -> str:
    """An index in words: time step, batch item, layer, direction, gate."""
    if quantity in ("output", "x") and len(index) == 3:
        t, b, unit = index
        if quantity == "x":
            return f"x[{t}, {b}, {unit}] (time step {t}, batch item {b}, input feature {unit})"
        direction, unit_in = divmod(unit, layer.state_size)
        return f"output[{t}, {b}, {unit}] (time step {t}, batch item {b}, {_direction(direction, layer)}unit {unit_in})"
    if quantity in ("h_n", "c_n", "h0", "c0") and len(index) == 3:
        slot, b, unit = index
        level, direction = divmod(slot, layer.directions)
        return f"{quantity}[{slot}, {b}, {unit}] (layer {level}, {_direction(direction, layer)}batch item {b}, unit {unit})"
    if quantity.startswith(("weight_ih", "weight_hh", "bias_")):
        gate, unit = divmod(index[0], layer.hidden_size)
        return f"{quantity}[{', '.join(map(str, index))}] (gate {layer.mode.gates[gate]}, unit {unit})"
    return f"{quantity}[{', '.join(map(str, index))}]"


def _direction(direction: int, layer: Layer) -> str:
    return "" if not layer.bidirectional else ("reverse direction, " if direction else "forward direction, ")


def _axis_extent(quantity: str, bad: NDArray[np.bool_]) -> str:
    """Which time steps and batch items are touched at all: a fault in the padding or the last step shows here at once."""
    axes = {"output": ("time steps", "batch items"), "x": ("time steps", "batch items")}.get(quantity, ())
    if quantity in ("h_n", "c_n", "h0", "c0"):
        axes = ("layers and directions", "batch items")
    parts = []
    for axis, label in enumerate(axes):
        others = tuple(i for i in range(bad.ndim) if i != axis)
        touched = np.flatnonzero(bad.any(axis=others))
        parts.append(f"{label} touched: {_ranges(touched)} of {bad.shape[axis]}")
    return "; ".join(parts)


def _ranges(indices: NDArray[np.intp]) -> str:
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    shown = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:6]]
    return ", ".join(shown) + (", ..." if len(runs) > 6 else "")

"""What a hypothesis is and what it is made from, and the one family that values and gradients share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.case import Array, Case
from harness.layer import Layer


@dataclass(frozen=True)
class Evidence:
    """All that a hypothesis may be made from: what the oracle was asked, what is right, what was given instead, and where it is off."""

    case: Case
    asked: Mapping[str, Any]
    right: Mapping[str, Array]
    actual: Mapping[str, NDArray[Any]]
    off: tuple[str, ...]

    @property
    def layer(self) -> Layer:
        return self.case.layer

    @property
    def weights(self) -> dict[str, Array]:
        return dict(self.asked["weights"])

    def weight(self, change: Callable[[Array], Array], *kinds: str) -> dict[str, Any]:
        """The question with ``change`` made to every weight of these kinds."""
        return {"weights": {name: change(w) if name.startswith(kinds) else w for name, w in self.weights.items()}}

    def states(self, change: Callable[[Array], Array]) -> dict[str, Any]:
        """The question with ``change`` made to h_0, and to c_0 where there is one."""
        return {name: change(self.asked[name]) for name in ("h0", "c0") if self.asked[name] is not None}

    @property
    def initial(self) -> str:
        return "h_0 and c_0" if self.layer.has_cell_state else "h_0"

    @property
    def final(self) -> str:
        return "h_n and c_n" if self.layer.has_cell_state else "h_n"


def _as_answered(answer: dict[str, Array]) -> dict[str, Array]:
    return answer


@dataclass(frozen=True)
class Hypothesis:
    """A fault: its name, as it stands after "with"; what it changes in the question; what it then does to the answer."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    then: Callable[[dict[str, Array]], dict[str, Array]] = _as_answered


Hypotheses = Iterator[Hypothesis]


def changing(names: Sequence[str], change: Callable[[Array], Array]) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """What makes ``change`` to the named tensors of an answer."""
    return lambda answer: {**answer, **{name: change(answer[name]) for name in names}}


def exchanging(one: str, other: str) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """What exchanges two tensors of an answer."""
    return lambda answer: {**answer, one: answer[other], other: answer[one]}


def times(factor: float | Array) -> Callable[[Array], Array]:
    """What multiplies an array."""
    return lambda array: factor * array


def picking(rows: Sequence[int], axis: int = 0) -> Callable[[Array], Array]:
    """What takes these rows of an array, in this order."""
    return lambda array: np.take(array, rows, axis)


# What an answer shows by itself: nothing is asked anew.

SYMBOLS = {"weight_ih": "W_ih", "weight_hh": "W_hh", "weight_hr": "W_hr", "bias_ih": "b_ih", "bias_hh": "b_hh"}


def called(names: Sequence[str], among: Sequence[str]) -> str:
    """The names of tensors in a few words: of parameters of one kind the kind, if none is missing."""
    shown: list[str] = []
    for name in names:
        kind = name.partition("_l")[0]
        whole = kind in SYMBOLS and all(other in names for other in among if other.startswith(kind))
        shown.append(f"every {kind}" if whole and sum(other.startswith(kind) for other in among) > 1 else name)
    shown = list(dict.fromkeys(shown))
    return ", ".join(shown) if len(shown) <= 4 else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


def multiplied(e: Evidence) -> Hypotheses:
    """Everything that is off is off by one factor."""
    given = np.concatenate([e.actual[name].ravel() for name in e.off])
    right = np.concatenate([e.right[name].ravel() for name in e.off])
    if not right.any():
        return
    factor = float(given @ right / (right @ right))
    what = called(e.off, list(e.right))
    if e.asked.get("cotangents"):
        what = "every one" if len(e.off) == len(e.right) > 1 else f"that of {what}"
    batch, steps = e.case.batch, e.case.steps
    known = [(0.0, "zero"), (2.0, "doubled"), (0.5, "halved"), (-1.0, "negated"), (1 / batch, "divided by the batch size")]
    known += [(1 / steps, "divided by the number of steps"), (1 / (batch * steps), "divided by steps times batch")]
    likely = [(value, words) for value, words in known if abs(factor - value) < 1e-6 and value != 1.0]
    # Of a few numbers any factor could be made.
    if not likely and min(e.right[name].size for name in e.off) >= 4:
        likely = [(factor, f"multiplied by {factor:.4g}" if abs(factor - 1) > 1e-3 else f"multiplied by 1 {factor - 1:+.1e}")]
    for value, words in likely:
        yield Hypothesis(f"{what} {words}", then=changing(e.off, times(value)))

"""The likely cause of a wrong answer, found by asking the oracle what known faults would answer on the same case.

A hypothesis is a fault in plain words, what it changes in the question, and what it does to the oracle's answer. Where everything that an
implementation gave is, within the noise floor, the answer of such a fault, and far from the right one, the fault is named. Faults that a
case cannot tell apart are named together, and a fault that the case does not show is not named at all. What no hypothesis explains gets
no hint: a wrong one is worse than none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import oracle
from harness.case import Array, Case
from harness.hypotheses.base import Evidence, Hypotheses
from harness.hypotheses.gradients import GRADIENTS
from harness.hypotheses.values import VALUES
from harness.reference import Expected, Question
from harness.tolerance import SIGNAL, allowance, compare, signal

#: Where one run of the oracle takes more steps of cells than the first, or makes more numbers than the second, no hypothesis is tried that
#: needs such a run: a search is some hundred of them. All or none, because a fault named while others were not tried could be another.
CELL_STEPS, NUMBERS = 72, 20_000

#: Where it takes more steps of cells than these there is no search at all.
LONG = 1_000

#: At most so many faults are named together.
NAMED = 3


def hint(actual: Mapping[str, NDArray[Any]], expected: Expected, only: Sequence[str]) -> str:
    """The likely cause, as a sentence, of ``actual`` not being what is ``expected`` in the tensors ``only``; empty where none is found.

    Whatever else was given besides ``only`` counts as evidence too. There is no hint for large cases, for what was not
    simply asked of the oracle, and for answers that are not finite.
    """
    question = expected.question
    names = [name for name, right in expected.tensors.items() if name in actual and actual[name].shape == right.shape]
    if question is None or not set(only) <= set(names) or _cell_steps(question.case) > LONG:
        return ""
    if not all(np.isfinite(actual[name]).all() for name in names):
        return ""
    with np.errstate(all="ignore"):
        asking, right = _asking(question)
        # What was made from the oracle's answer, by a factor or a permutation, cannot be made again here.
        if not all(name in right and np.array_equal(right[name], expected.tensors[name]) for name in names):
            return ""
        allowed, floors = allowance(question.case), expected.floors
        off = tuple(name for name in names if not compare(name, actual[name], right[name], floors[name], allowed).close)
        if not off:
            return ""
        given, wanted = {name: actual[name] for name in names}, {name: right[name] for name in names}
        evidence = Evidence(question.case, asking.inputs, wanted, given, off)
        found = list(dict.fromkeys(_explaining(evidence, asking, right, floors, GRADIENTS if question.through else VALUES)))
    if not found:
        return ""
    named = " or ".join(found[:NAMED]) + (", or another that this case cannot tell from it" if len(found) > NAMED else "")
    return f"{'these are the gradients' if question.through else 'this is the answer'} with {named}"


def _cell_steps(case: Case) -> int:
    return case.steps * case.layer.num_layers * case.layer.directions


def _may_ask(case: Case) -> bool:
    """Whether the oracle may be asked again and again."""
    cells = _cell_steps(case)
    return cells <= CELL_STEPS and cells * case.batch * max(case.layer.hidden_size, case.layer.input_size) <= NUMBERS


@dataclass(frozen=True)
class _Asking:
    """How the oracle is asked: the inputs by name, and the function that takes them."""

    inputs: Mapping[str, Any]
    ask: Callable[..., dict[str, Array]]


def _asking(question: Question) -> tuple[_Asking, dict[str, Array]]:
    """How to ask ``question`` again with changes, and its right answer."""
    case, arrays = question.case, question.case.arrays
    inputs: dict[str, Any] = {"layer": case.layer, "weights": question.weights, "x": arrays.x, "h0": arrays.h0, "c0": arrays.c0}
    inputs |= {"valid": case.valid, "masks": question.masks, **(question.inputs or {})}
    reply = oracle.forward(**inputs)
    if question.through is None:
        return _Asking(inputs, lambda **changed: oracle.forward(**changed).tensors()), reply.tensors()
    inputs |= {"answer": reply, "cotangents": question.wanted()}
    accepted = ("layer", "weights", "answer", "valid", "cotangents", "masks", "seams")

    def back(**changed: Any) -> dict[str, Array]:
        return oracle.backward(**{name: value for name, value in changed.items() if name in accepted})

    return _Asking(inputs, back), back(**inputs)


def _explaining(
    evidence: Evidence,
    asking: _Asking,
    right: dict[str, Array],
    floors: Mapping[str, float],
    families: Sequence[Callable[[Evidence], Hypotheses]],
) -> Iterator[str]:
    """The names of the hypotheses that explain what was given."""
    may_ask, allowed = _may_ask(evidence.case), allowance(evidence.case)
    for hypothesis in itertools.chain.from_iterable(family(evidence) for family in families):
        if hypothesis.changes and not may_ask:
            continue
        wrong = hypothesis.then(dict(asking.ask(**{**asking.inputs, **hypothesis.changes})) if hypothesis.changes else dict(right))
        wrong = {name: wrong[name] for name in evidence.right}
        if not all(_close(given, wrong[name], right[name], allowed * floors[name]) for name, given in evidence.actual.items()):
            continue
        if signal(evidence.right, wrong, floors, allowed) >= SIGNAL:
            yield hypothesis.name


def _close(given: NDArray[Any], wrong: Array, right: Array, error: float) -> bool:
    """Whether ``given`` is the wrong answer, to within an ``error`` relative to the larger of the two answers.

    A floor is an error relative to the right answer, and one that is wrong by being small need not be made of small numbers.
    """
    scale = max(np.abs(wrong).max(), np.abs(right).max()) or 1.0
    return bool(np.abs(given - wrong).max() / scale <= error)

"""Faults of gradients: what is lost, cut, counted twice or misplaced on the way back; and all families listed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.case import Array
from harness.hypotheses.base import SYMBOLS, Evidence, Hypotheses, Hypothesis, called, changing, exchanging, multiplied
from harness.layer import Mode
from harness.oracle import Seams


def _partly_zero(e: Evidence) -> Hypotheses:
    """What is off is zero where it is off, and not everywhere."""
    lost = {name: (e.actual[name] == 0) & (e.right[name] != 0) for name in e.off}
    everywhere = all(bool((where == (e.right[name] != 0)).all()) for name, where in lost.items())
    if len(lost) > 4 or everywhere or sum(int(where.sum()) for where in lost.values()) < 2:
        return
    places = [f"{name} zero{_where(name, where, e.right[name])}" for name, where in lost.items()]
    yield Hypothesis(f"that of {', that of '.join(places)}", then=lambda a: {**a, **{n: np.where(lost[n], 0.0, a[n]) for n in e.off}})


def _where(name: str, lost: NDArray[np.bool_], right: Array) -> str:
    """Which slices of a gradient are lost, in words; nothing where all of it is."""
    if (lost == (right != 0)).all():
        return ""
    first = {"x": "time step", "h0": "layer and direction", "c0": "layer and direction"}.get(name)
    for axis, label in enumerate((first, "batch item") if first else ()):
        rows = np.flatnonzero(lost.any(axis=tuple(other for other in range(lost.ndim) if other != axis)))
        if len(rows) <= 4 and (np.take(lost, rows, axis) == (np.take(right, rows, axis) != 0)).all():
            return f" at {label} {', '.join(map(str, rows))}"
    return " in part"


def _cotangents(e: Evidence) -> Hypotheses:
    given = e.asked["cotangents"]
    for name, cotangent in given.items():
        for factor, words in ((0.0, "ignored"), (2.0, "counted twice"), (-1.0, "negated"), (0.5, "halved")):
            yield Hypothesis(f"the cotangent of {name} {words}", {"cotangents": {**given, name: factor * cotangent}})
    if "output" in given and e.case.steps > 1:
        for words, kept in (
            ("of the last step of output ignored", slice(0, -1)),
            ("of all but the last step of output ignored", slice(-1, None)),
        ):
            part = np.zeros_like(given["output"])
            part[kept] = given["output"][kept]
            yield Hypothesis(f"the cotangent {words}", {"cotangents": {**given, "output": part}})
    if {"h_n", "c_n"} <= set(given) and not e.layer.proj_size:
        yield Hypothesis("the cotangents of h_n and c_n exchanged", {"cotangents": {**given, "h_n": given["c_n"], "c_n": given["h_n"]}})


def _through_time(e: Evidence) -> Hypotheses:
    """Back-propagation cut, at every step or at the initial state."""
    cuts: list[tuple[str, Callable[[Any, int], bool]]] = [("at every step", lambda slot, t: True)]
    cuts.append(("at every step but the first", lambda slot, t: t != slot.order[0]))
    if e.case.steps > 2:
        cuts.append(("before the last step", lambda slot, t: t == slot.order[-1]))
    for names in [("h", "c"), ("h",), ("c",)] if e.layer.has_cell_state else [("h",)]:
        for words, here in cuts:

            def passed(slot: Any, t: int, name: str, part: Array, names: Any = names, here: Any = here) -> Array:
                return 0 * part if name in names and here(slot, t) else part

            yield Hypothesis(f"{' and '.join(names)} detached {words}", {"seams": Seams(passed=passed)})


def _steps_missing(e: Evidence) -> Hypotheses:
    """Weights whose gradients lack a step, or have only one."""
    if e.case.steps == 1:
        return
    ends: list[tuple[str, Callable[[Any, int], bool]]] = [
        ("without the step from the initial state", lambda slot, t: t != slot.order[0]),
        ("without the last step", lambda slot, t: t != slot.order[-1]),
        ("from the last step alone", lambda slot, t: t == slot.order[-1]),
    ]
    if e.layer.bidirectional:
        ends.append(("without time step 0", lambda slot, t: t != 0))
        ends.append((f"without time step {e.case.steps - 1}", lambda slot, t: t != e.case.steps - 1))
    kinds = {"weight_ih": ("weight_ih",), "weight_hh": ("weight_hh",), "the biases": ("bias_ih", "bias_hh")}
    kinds["every weight"] = tuple(SYMBOLS)
    if e.layer.proj_size:
        kinds["weight_hr"] = ("weight_hr",)
    for what, prefixes in kinds.items():
        for words, counts in ends:

            def passed(slot: Any, t: int, name: str, part: Array, prefixes: Any = prefixes, counts: Any = counts) -> Array:
                return part if name not in prefixes or counts(slot, t) else 0 * part

            yield Hypothesis(f"that of {what} {words}", {"seams": Seams(passed=passed)})


def _passed_down(e: Evidence) -> Hypotheses:
    """What layers and directions pass down to what they read."""
    tries: list[tuple[str, float, int, tuple[int, ...]]] = []
    for level in range(e.layer.num_layers):
        to = "the input" if level == 0 else f"layer {level - 1}"
        here = f"layer {level}" if e.layer.num_layers > 1 else "the layer"
        tries.append((f"nothing passed from {here} to {to}", 0.0, level, (0, 1)))
        tries.append((f"twice the gradient passed from {here} to {to}", 2.0, level, (0, 1)))
        if e.layer.bidirectional:
            tries.append((f"nothing passed from the reverse direction of {here} to {to}", 0.0, level, (1,)))
            tries.append((f"nothing passed from the forward direction of {here} to {to}", 0.0, level, (0,)))
    for words, factor, level, directions in tries:

        def passed(slot: Any, t: int, name: str, part: Array, factor: float = factor, at: Any = (level, directions)) -> Array:
            return factor * part if name == "x" and slot.layer == at[0] and slot.direction in at[1] else part

        yield Hypothesis(words, {"seams": Seams(passed=passed)})


def _gradients_moved(e: Evidence) -> Hypotheses:
    """Right gradients in the wrong places."""
    size, names = e.layer.hidden_size, list(e.right)

    def transposed(a: Array) -> Array:
        return a.reshape(-1, size, size).swapaxes(1, 2).reshape(a.shape)

    each = "" if len(e.layer.mode.gates) == 1 else " in each gate"
    for kind in ("weight_hh", "weight_ih"):
        turned = [name for name in e.off if name.startswith(kind) and e.right[name].shape[1] == size]
        if turned and size > 1:
            yield Hypothesis(f"that of {called(turned, names)} transposed{each}", then=changing(turned, transposed))
    for one, other in itertools.combinations(e.off, 2):
        if e.right[one].shape == e.right[other].shape:
            yield Hypothesis(f"those of {one} and {other} exchanged", then=exchanging(one, other))
    if e.layer.bidirectional:

        def across(name: str) -> str:
            return name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse"

        pairs = [name for name in e.off if across(name) in e.right and e.right[name].shape == e.right[across(name)].shape]
        if len(pairs) > 2:
            yield Hypothesis("those of the directions' weights exchanged", then=lambda a: {**a, **{n: a[across(n)] for n in pairs}})
    if e.layer.mode is Mode.GRU and e.layer.bias:
        hidden = [name for name in names if name.startswith("bias_hh")]
        yield Hypothesis(
            "that of b_in in place of that of b_hn, which has a factor r",
            then=lambda a: {
                **a,
                **{n: np.concatenate([a[n][: 2 * size], a[n.replace("bias_hh", "bias_ih")][2 * size :]]) for n in hidden},
            },
        )


def _dropout_backward(e: Evidence) -> Hypotheses:
    masks, p = e.asked["masks"], e.layer.dropout
    if masks is None:
        return
    yield Hypothesis("no dropout mask in the backward pass", {"masks": None})
    if 0 < p < 1:
        yield Hypothesis("what dropout keeps not scaled up in the backward pass", {"masks": [(1 - p) * mask for mask in masks]})


#: The families of hypotheses about gradients, in the order in which they are tried: the cheapest first.
GRADIENTS = (multiplied, _partly_zero, _gradients_moved, _cotangents, _through_time, _dropout_backward, _passed_down, _steps_missing)

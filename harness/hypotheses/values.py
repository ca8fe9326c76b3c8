"""Faults of values around the step: in outputs, states, layers, directions, time, batch, padding and dropout; and all families listed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness import oracle
from harness.case import Array, Case
from harness.hypotheses.base import SYMBOLS, Evidence, Hypotheses, Hypothesis, changing, exchanging, multiplied, picking, times
from harness.hypotheses.cells import biases_and_transposes, equations, gate_orders
from harness.layer import Layer
from harness.oracle import Run, Seams

# What a right answer is made into on its way out.


def _outputs(e: Evidence) -> Hypotheses:
    width, layer = e.layer.state_size, e.layer

    def output(name: str, change: Callable[[Array], Array]) -> Hypothesis:
        return Hypothesis(name, then=changing(["output"], change))

    def late(first: Array) -> Callable[[Array], Array]:
        return lambda y: np.concatenate([first, y[:-1]])

    def final_from(t: int) -> Callable[[dict[str, Array]], dict[str, Array]]:
        return lambda a: {**a, "h_n": np.concatenate([a["h_n"][:-1], a["output"][t][None]])}

    last = e.asked["h0"][-layer.directions :].transpose(1, 0, 2).reshape(1, e.case.batch, -1)
    for first in (e.right["output"][:1] if "output" in e.right else last, 0 * last, last):
        yield output("output one step late", late(first))
    if e.case.steps > 1:
        yield output("output in reversed time", lambda y: y[::-1])
    if layer.bidirectional:
        yield output("the directions exchanged in output", lambda y: np.concatenate([y[:, :, width:], y[:, :, :width]], axis=2))
    if layer.has_cell_state and not layer.proj_size:
        yield Hypothesis("h_n and c_n exchanged", then=exchanging("h_n", "c_n"))
        yield Hypothesis("h_n in place of c_n", then=lambda a: {**a, "c_n": a["h_n"]})
        yield Hypothesis("c_n in place of h_n", then=lambda a: {**a, "h_n": a["c_n"]})
    if layer.has_cell_state:
        yield Hypothesis("tanh(c_n) in place of c_n", then=changing(["c_n"], np.tanh))
    if not layer.bidirectional and e.case.steps > 1:
        whole = e.case.lengths is None
        steps = {"after the first step": 0, "before the last step": -2} if whole else {"read off the last row of output": -1}
        for words, t in steps.items():
            yield Hypothesis(f"h_n of the last layer {words}", then=final_from(t))


def _orders(layer: Layer) -> Iterator[tuple[str, Callable[[Array], Array], Callable[[Array], Array]]]:
    """Wrong orders of the states of layers and directions: a name, what they do on the way in, and on the way out."""
    levels, directions = layer.num_layers, layer.directions

    def grid(state: Array, change: Callable[[Array], Array], *shape: int) -> Array:
        return change(state.reshape(*(shape or (levels, directions)), *state.shape[1:])).reshape(state.shape)

    def both(change: Callable[[Array], Array]) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        return (lambda s: grid(s, change)), (lambda s: grid(s, change))

    if levels > 1:
        yield "the last layer first", *both(lambda g: g[::-1])
        yield "the first layer's for all layers", *both(lambda g: np.repeat(g[:1], levels, axis=0))
        yield "the last layer's for all layers", *both(lambda g: np.repeat(g[-1:], levels, axis=0))
    for level in range(1, levels - 1):
        keep = [min(k, level) for k in range(levels)]
        yield f"layer {level}'s for every layer above it", *both(picking(keep))
    if directions > 1:
        yield "the directions exchanged", *both(lambda g: g[:, ::-1])
        yield "the forward direction's for both directions", *both(lambda g: np.repeat(g[:, :1], 2, axis=1))
    if levels > 1 and directions > 1:
        yield (
            "directions before layers",
            lambda s: grid(s, lambda g: g.swapaxes(0, 1), directions, levels),
            lambda s: grid(s, lambda g: g.swapaxes(0, 1)),
        )
    if levels * directions > 2:
        yield "the very last for all", (lambda s: np.repeat(s[-1:], len(s), axis=0)), (lambda s: np.repeat(s[-1:], len(s), axis=0))


def _final_states(e: Evidence) -> Hypotheses:
    names = [name for name in ("h_n", "c_n") if name in e.right]
    for words, _, change in _orders(e.layer):
        for which in [names, *([[name] for name in names] if len(names) > 1 else [])]:
            yield Hypothesis(f"{' and '.join(which)} in the wrong order: {words}", then=changing(which, change))
    for words, order in _batch_orders(e.case):
        yield Hypothesis(f"{e.final} left {words}", then=changing(names, picking(order, 1)))
        if "output" in e.right:
            yield Hypothesis(f"every answer left {words}", then=changing([*names, "output"], picking(order, 1)))


def _batch_orders(case: Case) -> Iterator[tuple[str, list[int]]]:
    """Wrong orders of the batch: of a packed one the order of its data, and what comes of permuting the wrong way."""
    if case.lengths is None:
        yield "in reversed order of the batch", list(range(case.batch))[::-1]
        return
    there = _sorted(case)
    back = [there.index(item) for item in range(case.batch)]
    yield "in the packed order", there
    yield "permuted the wrong way", [there[item] for item in there]
    yield "permuted back twice", back


def _sorted(case: Case) -> list[int]:
    lengths = case.lengths or ()
    return sorted(range(case.batch), key=lambda item: -lengths[item])


# What the oracle is asked with something else in place of the case's own.


def _initial_states(e: Evidence) -> Hypotheses:
    h0, c0, directions = e.asked["h0"], e.asked["c0"], e.layer.directions
    yield Hypothesis(f"{e.initial} taken for zero", e.states(lambda s: 0 * s))
    if c0 is not None:
        yield Hypothesis("h_0 taken for zero", {"h0": 0 * h0})
        yield Hypothesis("c_0 taken for zero", {"c0": 0 * c0})
    if c0 is not None and not e.layer.proj_size:
        yield Hypothesis("h_0 and c_0 exchanged", {"h0": c0, "c0": h0})
        yield Hypothesis("h_0 in place of c_0", {"c0": h0})
        yield Hypothesis("c_0 in place of h_0", {"h0": c0})
    for words, change, _ in _orders(e.layer):
        yield Hypothesis(f"{e.initial} read in the wrong order: {words}", e.states(change))
    if len(h0) > directions:
        zeros = e.states(lambda s: np.concatenate([s[:directions], 0 * s[directions:]]))
        yield Hypothesis(f"{e.initial} of the layers above the first taken for zero", zeros)
    if directions > 1:
        reverse = np.arange(len(h0))[:, None, None] % 2 == 1
        yield Hypothesis(f"{e.initial} of the reverse direction taken for zero", e.states(lambda s: np.where(reverse, 0.0, s)))
        shorter = reverse & ~e.asked["valid"][-1][:, None]
        words = f"{e.initial} of the reverse direction taken for zero in all sequences but the longest"
        yield Hypothesis(words, e.states(lambda s: np.where(shorter, 0.0, s)))
    if e.case.batch > 1:
        yield Hypothesis(f"the first batch item's {e.initial} for all", e.states(lambda s: np.repeat(s[:, :1], s.shape[1], axis=1)))
    if e.case.lengths is not None:
        there = _sorted(e.case)
        back = [there.index(item) for item in range(e.case.batch)]
        yield Hypothesis(f"{e.initial} not permuted into the packed order", e.states(lambda s: s[:, back]))
        yield Hypothesis(f"{e.initial} permuted into the packed order the wrong way", e.states(lambda s: s[:, back][:, back]))
    if not e.case.given_state and set(e.right) >= {"h_n"}:
        yield Hypothesis("an initial state of ones", e.states(np.ones_like))
        if "c_n" in e.right or not e.layer.has_cell_state:
            kept = {"h0": e.right["h_n"], **({"c0": e.right["c_n"]} if e.layer.has_cell_state else {})}
            yield Hypothesis("the final state of an equal call before as the initial one", kept)


def _weights_of_others(e: Evidence) -> Hypotheses:
    """One layer or direction with the weights of another."""
    weights = e.weights

    def given(source: Callable[[str], str]) -> dict[str, Any] | None:
        changed = {name: weights[source(name)] for name in weights}
        fits = all(w.shape == weights[name].shape for name, w in changed.items())
        return {"weights": changed} if fits else None

    def level(name: str) -> int:
        return int(name.partition("_l")[2].partition("_")[0])

    def moved(levels: Mapping[int, int]) -> Callable[[str], str]:
        return lambda name: name.replace(f"_l{level(name)}", f"_l{levels.get(level(name), level(name))}")

    def forward(kind: str) -> Callable[[str], str]:
        return lambda name: name.removesuffix("_reverse") if name.startswith(kind) else name

    def across(name: str) -> str:
        return name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse"

    levels = range(e.layer.num_layers)
    tries = [(f"layer {k}'s weights in every layer above it", moved(dict.fromkeys(levels[k:], k))) for k in levels[:-1]]
    tries += [(f"the weights of layers {a} and {b} exchanged", moved({a: b, b: a})) for a, b in itertools.combinations(levels, 2)]
    if e.layer.bidirectional:
        tries += [("the forward direction's weights in both directions", forward("")), ("the weights of the directions exchanged", across)]
        kinds = {kind: symbol for kind, symbol in SYMBOLS.items() if f"{kind}_l0" in weights}
        tries += [(f"the forward direction's {symbol} in both directions", forward(kind)) for kind, symbol in kinds.items()]
    for name, source in tries:
        changes = given(source)
        if changes is not None:
            yield Hypothesis(name, changes)


def _directions(e: Evidence) -> Hypotheses:
    """The order of time, and what the directions hand on."""
    width = e.layer.state_size
    if e.case.lengths is None and e.case.steps > 1:
        yield Hypothesis("the sequence read in reversed time", {"x": e.asked["x"][::-1]})
        yield Hypothesis(
            "the sequence read in reversed time and output turned back",
            {"x": e.asked["x"][::-1]},
            then=lambda a: {**a, "output": a["output"][::-1]},
        )
    if e.layer.num_layers > 1:
        single = replace(e.layer, num_layers=1)
        rest = {name: e.asked[name] if e.asked[name] is None else e.asked[name][: e.layer.directions] for name in ("h0", "c0")}
        below = oracle.forward(single, e.weights, e.asked["x"], rest["h0"], rest["c0"], e.asked["valid"]).output
        yield Hypothesis("the output of the first layer in place of the last one's", then=lambda a: {**a, "output": below})
        yield Hypothesis("the output of the first layer added to what layers above the second read", {"seams": Seams(below=_skip())})
    for level in range(1, e.layer.num_layers):
        turned = Seams(below=_only_in([level], lambda y: y[::-1]))
        yield Hypothesis(f"layer {level} reading in reversed time what the one below answers", {"seams": turned})
    if not e.layer.bidirectional:
        return

    def forward(run: Run, slot: Any, h: Array, c: Array | None, valid: Any) -> Any:
        slot.order = range(len(slot.x))
        return run(slot, h, c, valid)

    def unturned(run: Run, slot: Any, h: Array, c: Array | None, valid: Any) -> Any:
        ys, h, c = run(slot, h, c, valid)
        return (ys[::-1] if slot.direction else ys), h, c

    yield Hypothesis("the reverse direction running forward", {"seams": Seams(direction=forward)})
    yield Hypothesis("the reverse direction's outputs not turned back", {"seams": Seams(direction=unturned)})
    if e.layer.num_layers > 1:
        exchanged = Seams(below=lambda y, level: np.concatenate([y[:, :, width:], y[:, :, :width]], axis=2))
        yield Hypothesis("the directions exchanged in what the next layer reads", {"seams": exchanged})
        added = Seams(below=lambda y, level: np.tile(y[:, :, :width] + y[:, :, width:], 2))
        yield Hypothesis("the next layer reading the sum of the directions", {"seams": added})
        levels: list[tuple[str, Sequence[int]]] = [("every layer above the first", range(1, e.layer.num_layers))]
        levels += [(f"layer {level}", [level]) for level in range(1, e.layer.num_layers)] if e.layer.num_layers > 2 else []
        for (who, at), (direction, words) in itertools.product(levels, enumerate(("forward", "reverse"))):
            alone = np.repeat([direction == 0, direction == 1], width)
            only = Seams(below=_only_in(at, times(alone)))
            yield Hypothesis(f"{who} reading the {words} direction alone", {"seams": only})


def _only_in(levels: Sequence[int], change: Callable[[Array], Array]) -> Callable[[Array, int], Array]:
    """``change`` made to what these layers read."""
    return lambda output, level: change(output) if level in levels else output


def _skip() -> Callable[[Array, int], Array]:
    """What a layer reads where every layer above the second gets the first one's output besides."""
    first: list[Array] = []

    def below(output: Array, level: int) -> Array:
        if level == 1:
            first[:] = [output]
        return output if level == 1 else output + first[0]

    return below


def _batch_and_padding(e: Evidence) -> Hypotheses:
    case, x, valid = e.case, e.asked["x"], e.asked["valid"]
    if case.lengths is None:
        yield from _batch_for_time(e)
        return
    # A packed input has no padding of its own; who unpacks it finds zeros there.
    x, exists = x * valid[:, :, None], valid[:, :, None]

    def masked(answer: dict[str, Array]) -> dict[str, Array]:
        return {**answer, "output": answer["output"] * exists}

    def reverse_in_padding(run: Run, slot: Any, h: Array, c: Array | None, valid: Any) -> Any:
        ys, h, c = run(slot, h, c, valid | bool(slot.direction))
        return ys * exists, h, c

    def run_on(run: Run, slot: Any, h: Array, c: Array | None, valid: Any) -> Any:
        ys, _, _ = run(slot, h, c, valid)
        _, h, c = run(slot, h, c, valid | True)
        return ys, h, c

    yield Hypothesis("the padding read as data", {"x": x, "valid": valid | True}, masked)
    yield Hypothesis("the states running on through the padding", {"x": x, "seams": Seams(direction=run_on)})
    if e.layer.bidirectional:
        yield Hypothesis("the reverse direction starting in the padding", {"x": x, "seams": Seams(direction=reverse_in_padding)})
    there = _sorted(case)
    yield Hypothesis("the packed batch taken for sorted", {"x": x[:, there], "valid": valid[:, there]}, masked)
    back = [there.index(item) for item in range(case.batch)]
    kept = e.states(lambda s: s[:, back])
    words = f"{e.initial} not permuted into the packed order, and {e.final} not back"
    yield Hypothesis(words, kept, lambda a: {name: v if name == "output" else v[:, there] for name, v in a.items()})


def _batch_for_time(e: Evidence) -> Hypotheses:
    steps, batch, x = e.case.steps, e.case.batch, e.asked["x"]
    if min(steps, batch) == 1:
        return

    def viewed(a: Array) -> Array:
        """(T, B, ...) laid out as (B, T, ...) and read as (T, B, ...) again."""
        return a.swapaxes(0, 1).reshape(a.shape)

    def unviewed(a: Array) -> Array:
        return a.reshape(batch, steps, -1).swapaxes(0, 1)

    ways: list[tuple[str, Callable[[Array], Array], Callable[[Array], Array]]] = []
    if e.layer.batch_first and steps != batch:
        ways.append(("batch and time exchanged by a reshape in place of a transposition", viewed, unviewed))
    if steps == batch:
        ways.append(("batch and time exchanged", lambda a: a.swapaxes(0, 1), lambda a: a.swapaxes(0, 1)))
    for words, enter, leave in ways:
        yield Hypothesis(f"{words} in output", then=changing(["output"], leave))
        yield Hypothesis(f"{words} in the input", {"x": enter(x)})
        yield Hypothesis(words, {"x": enter(x)}, changing(["output"], leave))


def _dropout(e: Evidence) -> Hypotheses:
    p, masks = e.layer.dropout, e.asked["masks"]
    ones = np.ones((e.case.steps, e.case.batch, e.layer.output_size))
    between = e.layer.num_layers - 1
    if not between:
        return
    if masks is not None:
        yield Hypothesis("dropout left out", {"masks": None})
        yield Hypothesis("dropout on the last layer's output too", then=lambda a: {**a, "output": a["output"] * masks[-1]})
        if 0 < p < 1:
            yield Hypothesis("what dropout keeps not scaled up", {"masks": [(1 - p) * mask for mask in masks]})
        yield Hypothesis("the dropout mask of the first step at every step", {"masks": [ones * mask[:1] for mask in masks]})
        yield Hypothesis("the dropout mask of the first batch item for all", {"masks": [ones * mask[:, :1] for mask in masks]})
        if between > 1:
            yield Hypothesis("dropout above the first layer only", {"masks": [masks[0], *([ones] * (between - 1))]})
            yield Hypothesis("dropout below the last layer only", {"masks": [*([ones] * (between - 1)), masks[-1]]})
    else:
        yield Hypothesis("everything between the layers dropped", {"masks": [0 * ones] * between})
        if 0 < p < 1:
            yield Hypothesis("what passes between the layers multiplied by 1 - p", {"masks": [(1 - p) * ones] * between})
            yield Hypothesis("what passes between the layers divided by 1 - p", {"masks": [ones / (1 - p)] * between})


#: The families of hypotheses about values, in the order in which they are tried: the cheapest first.
VALUES = (
    multiplied,
    _outputs,
    _final_states,
    _initial_states,
    biases_and_transposes,
    equations,
    _directions,
    _batch_and_padding,
    _dropout,
    _weights_of_others,
    gate_orders,
)

"""Known faults of recurrent layers, each as a change to what the oracle is asked or to what it answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import oracle
from harness.case import Array, Case
from harness.layer import Layer, Mode
from harness.oracle import Run, Seams, sigmoid


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


def _changing(names: Sequence[str], change: Callable[[Array], Array]) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """What makes ``change`` to the named tensors of an answer."""
    return lambda answer: {**answer, **{name: change(answer[name]) for name in names}}


def _exchanging(one: str, other: str) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """What exchanges two tensors of an answer."""
    return lambda answer: {**answer, one: answer[other], other: answer[one]}


def _times(factor: float | Array) -> Callable[[Array], Array]:
    return lambda array: factor * array


def _picking(rows: Sequence[int], axis: int = 0) -> Callable[[Array], Array]:
    return lambda array: np.take(array, rows, axis)


# What an answer shows by itself: nothing is asked anew.

_SYMBOLS = {"weight_ih": "W_ih", "weight_hh": "W_hh", "weight_hr": "W_hr", "bias_ih": "b_ih", "bias_hh": "b_hh"}


def _called(names: Sequence[str], among: Sequence[str]) -> str:
    """The names of tensors in a few words: of parameters of one kind the kind, if none is missing."""
    shown: list[str] = []
    for name in names:
        kind = name.partition("_l")[0]
        whole = kind in _SYMBOLS and all(other in names for other in among if other.startswith(kind))
        shown.append(f"every {kind}" if whole and sum(other.startswith(kind) for other in among) > 1 else name)
    shown = list(dict.fromkeys(shown))
    return ", ".join(shown) if len(shown) <= 4 else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


def _multiplied(e: Evidence) -> Hypotheses:
    """Everything that is off is off by one factor."""
    given = np.concatenate([e.actual[name].ravel() for name in e.off])
    right = np.concatenate([e.right[name].ravel() for name in e.off])
    if not right.any():
        return
    factor = float(given @ right / (right @ right))
    what = _called(e.off, list(e.right))
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
        yield Hypothesis(f"{what} {words}", then=_changing(e.off, _times(value)))


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


# What a right answer is made into on its way out.


def _outputs(e: Evidence) -> Hypotheses:
    width, layer = e.layer.state_size, e.layer

    def output(name: str, change: Callable[[Array], Array]) -> Hypothesis:
        return Hypothesis(name, then=_changing(["output"], change))

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
        yield Hypothesis("h_n and c_n exchanged", then=_exchanging("h_n", "c_n"))
        yield Hypothesis("h_n in place of c_n", then=lambda a: {**a, "c_n": a["h_n"]})
        yield Hypothesis("c_n in place of h_n", then=lambda a: {**a, "h_n": a["c_n"]})
    if layer.has_cell_state:
        yield Hypothesis("tanh(c_n) in place of c_n", then=_changing(["c_n"], np.tanh))
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
        yield f"layer {level}'s for every layer above it", *both(_picking(keep))
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
            yield Hypothesis(f"{' and '.join(which)} in the wrong order: {words}", then=_changing(which, change))
    for words, order in _batch_orders(e.case):
        yield Hypothesis(f"{e.final} left {words}", then=_changing(names, _picking(order, 1)))
        if "output" in e.right:
            yield Hypothesis(f"every answer left {words}", then=_changing([*names, "output"], _picking(order, 1)))


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


def _biases_and_transposes(e: Evidence) -> Hypotheses:
    weights, size = e.weights, e.layer.hidden_size

    def taking(kind: str, other: str) -> dict[str, Any]:
        changed = {name: weights[name.replace(kind, other)] if name.startswith(kind) else w for name, w in weights.items()}
        return {"weights": changed}

    if e.layer.bias:
        yield Hypothesis("b_ih dropped", e.weight(lambda w: 0 * w, "bias_ih"))
        yield Hypothesis("b_hh dropped", e.weight(lambda w: 0 * w, "bias_hh"))
        yield Hypothesis("both biases dropped", e.weight(lambda w: 0 * w, "bias_ih", "bias_hh"))
        yield Hypothesis("b_ih in place of b_hh too", taking("bias_hh", "bias_ih"))
        yield Hypothesis("b_hh in place of b_ih too", taking("bias_ih", "bias_hh"))
    each = "" if len(e.layer.mode.gates) == 1 else " in each gate"
    for kind in ("weight_hh", "weight_ih"):
        square = [name for name, w in weights.items() if name.startswith(kind) and w.shape[1] == size]
        if square and size > 1:
            turned = {name: weights[name].reshape(-1, size, size).swapaxes(1, 2).reshape(weights[name].shape) for name in square}
            yield Hypothesis(f"{_SYMBOLS[kind]} transposed{each}", {"weights": {**weights, **turned}})


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
        kinds = {kind: symbol for kind, symbol in _SYMBOLS.items() if f"{kind}_l0" in weights}
        tries += [(f"the forward direction's {symbol} in both directions", forward(kind)) for kind, symbol in kinds.items()]
    for name, source in tries:
        changes = given(source)
        if changes is not None:
            yield Hypothesis(name, changes)


def _cells(e: Evidence) -> Hypotheses:
    """Other equations for one step."""
    mode, size = e.layer.mode, e.layer.hidden_size
    right = {Mode.LSTM: _lstm(), Mode.GRU: _gru(), Mode.RNN_TANH: _rnn(np.tanh), Mode.RNN_RELU: _rnn(lambda a: np.maximum(a, 0))}[mode]

    def forgetful(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: Array | None, rounding: Any) -> Any:
        return right(layer, weights, suffix, x, 0 * h, None if c is None else 0 * c, rounding)

    def step(name: str, function: Callable[..., tuple[Array, Array | None, Any]]) -> Hypothesis:
        return Hypothesis(name, {"seams": Seams(step=function)})

    yield step("every step starting from a zero state", forgetful)
    if mode is Mode.LSTM:
        yield step("one added to the forget gate", _lstm(forget=1.0))
        yield step("a sigmoid in place of tanh for g", _lstm(candidate=sigmoid))
        yield step("h' = sigmoid(o) c' without the tanh", _lstm(squash=_identity))
        yield step("piecewise linear gates in place of the sigmoid", _lstm(gate=lambda a: np.clip(a / 6 + 0.5, 0, 1)))
        yield step("the output gate left out", _lstm(opened=True))
        if e.layer.proj_size:
            yield step("W_hr left out (the first P features of the unprojected h)", _lstm(projected=False))
    elif mode is Mode.GRU:

        def complemented(w: Array) -> Array:
            return np.concatenate([w[:size], -w[size : 2 * size], w[2 * size :]])

        yield Hypothesis("the update gate complemented: h' = z n + (1 - z) h", e.weight(complemented, "weight_ih", "weight_hh", "bias_"))
        yield step("the reset gate applied to h before the product with W_hn", _gru(reset_before=True))
        yield step("the reset gate left out", _gru(reset=False))
        if e.layer.bias:
            outside = e.weights
            for _, _, _, suffix in e.layer.slots():
                moved = np.concatenate([np.zeros(2 * size), outside[f"bias_hh{suffix}"][2 * size :]])
                outside[f"bias_ih{suffix}"], outside[f"bias_hh{suffix}"] = (
                    outside[f"bias_ih{suffix}"] + moved,
                    outside[f"bias_hh{suffix}"] - moved,
                )
            yield Hypothesis("b_hn added outside the reset gate", {"weights": outside})
    elif mode is Mode.RNN_TANH:
        yield Hypothesis("a relu in place of tanh", {"layer": replace(e.layer, mode=Mode.RNN_RELU)})
        yield step("no activation", _rnn(_identity))
        yield step("a sigmoid in place of tanh", _rnn(sigmoid))
    else:
        yield Hypothesis("a tanh in place of relu", {"layer": replace(e.layer, mode=Mode.RNN_TANH)})
        yield step("no activation", _rnn(_identity))
        yield step("a leaky relu of slope 0.01", _rnn(lambda a: np.where(a > 0, a, 0.01 * a)))
        yield step("a relu cut off at 6", _rnn(lambda a: np.clip(a, 0, 6)))


def _identity(a: Array) -> Array:
    return a


def _products(weights: Mapping[str, Array], suffix: str, x: Array, h: Array) -> tuple[Array, Array]:
    bias_ih, bias_hh = weights.get(f"bias_ih{suffix}", 0.0), weights.get(f"bias_hh{suffix}", 0.0)
    return x @ weights[f"weight_ih{suffix}"].T + bias_ih, h @ weights[f"weight_hh{suffix}"].T + bias_hh


def _lstm(
    forget: float = 0.0,
    gate: Callable[[Array], Array] = sigmoid,
    candidate: Callable[[Array], Array] = np.tanh,
    squash: Callable[[Array], Array] = np.tanh,
    opened: bool = False,
    projected: bool = True,
) -> Callable[..., tuple[Array, Array | None, Any]]:
    """An LSTM's step with one part of it changed."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: Array, rounding: Any) -> Any:
        i, f, g, o = np.split(np.add(*_products(weights, suffix, x, h)), 4, axis=1)
        new_c = gate(f + forget) * c + gate(i) * candidate(g)
        m = squash(new_c) if opened else gate(o) * squash(new_c)
        if layer.proj_size:
            m = m @ weights[f"weight_hr{suffix}"].T if projected else m[:, : layer.proj_size]
        return m, new_c, None

    return step


def _gru(reset_before: bool = False, reset: bool = True) -> Callable[..., tuple[Array, Array | None, Any]]:
    """A GRU's step with another use of the reset gate."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: None, rounding: Any) -> Any:
        from_x, from_h = _products(weights, suffix, x, h)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3, axis=1), np.split(from_h, 3, axis=1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        if reset_before:
            h_n = np.split(_products(weights, suffix, x, r * h)[1], 3, axis=1)[2]
        elif reset:
            h_n = r * h_n
        return (1 - z) * np.tanh(x_n + h_n) + z * h, None, None

    return step


def _rnn(activation: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array | None, Any]]:
    """An RNN's step with another activation."""

    def step(layer: Layer, weights: Mapping[str, Array], suffix: str, x: Array, h: Array, c: None, rounding: Any) -> Any:
        return activation(np.add(*_products(weights, suffix, x, h))), None, None

    return step


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
            only = Seams(below=_only_in(at, _times(alone)))
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
        yield Hypothesis(f"{words} in output", then=_changing(["output"], leave))
        yield Hypothesis(f"{words} in the input", {"x": enter(x)})
        yield Hypothesis(words, {"x": enter(x)}, _changing(["output"], leave))


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


def _gates(e: Evidence) -> Hypotheses:
    """Every order of the gates' rows, in weights and biases and in the biases alone; exchanges of two first."""
    gates, size = e.layer.mode.gates, e.layer.hidden_size
    orders = [order for order in itertools.permutations(range(len(gates))) if order != tuple(range(len(gates)))]
    orders.sort(key=lambda order: sum(gate != row for gate, row in enumerate(order)))
    for where, kinds in (("", ("weight_ih", "weight_hh", "bias_")), (" in the biases alone", ("bias_",))):
        for order in orders if e.layer.bias or not where else []:
            # Gate k reads the rows that belong to gate order[k].
            rows = [gate * size + unit for gate in order for unit in range(size)]
            moved = [gate for gate, row in enumerate(order) if gate != row]
            name = f"gates {' and '.join(gates[gate] for gate in moved)} exchanged"
            if len(moved) > 2:
                name = f"gate rows read in the order {', '.join(gates[order.index(row)] for row in range(len(gates)))}"
            yield Hypothesis(name + where, e.weight(_picking(rows), *kinds))


# Gradients.


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
    kinds["every weight"] = tuple(_SYMBOLS)
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
            yield Hypothesis(f"that of {_called(turned, names)} transposed{each}", then=_changing(turned, transposed))
    for one, other in itertools.combinations(e.off, 2):
        if e.right[one].shape == e.right[other].shape:
            yield Hypothesis(f"those of {one} and {other} exchanged", then=_exchanging(one, other))
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


#: The families of hypotheses about values and about gradients, in the order in which they are tried: the cheapest first.
VALUES = (
    _multiplied,
    _outputs,
    _final_states,
    _initial_states,
    _biases_and_transposes,
    _cells,
    _directions,
    _batch_and_padding,
    _dropout,
    _weights_of_others,
    _gates,
)
GRADIENTS = (_multiplied, _partly_zero, _gradients_moved, _cotangents, _through_time, _dropout_backward, _passed_down, _steps_missing)

"""A layer with concrete numbers, and the float64 arrays that follow from its seed, the same on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.layer import Layer, Mode

Array = NDArray[np.float64]
DType = Literal["float64", "float32", "tf32", "bfloat16", "float16"]

#: Unit round-off spacing at 1.0 of each dtype (IEEE 754; bfloat16 has 8 bits of significand). *tf32* is float32 of which the factors of a
#: product may be rounded to TF32's 11 bits: an arithmetic of CUDA devices, which is timed, and which one contract turns on for itself.
EPS: dict[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def stored(dtype: str) -> str:
    """The type that numbers of ``dtype`` are stored in, by torch's and numpy's name (but that numpy has no bfloat16)."""
    return "float32" if dtype == "tf32" else dtype


@dataclass(frozen=True)
class Case:
    """Everything that fixes the inputs of one check.

    ``steps`` T, ``batch`` B. ``lengths``: one length per sequence, and the input is then a packed sequence;
    ``enforce_sorted`` is passed to ``pack_padded_sequence``. ``batched=False`` drops the batch axis (B must be 1).
    ``given_state=False`` calls the layer without hx. ``weights``: *plain* gates are near the middle of their range,
    *remembering* weights carry the initial state through a long sequence (forget or update gates open, recurrent
    matrices near a permutation), without which a long sequence tests neither the initial state nor history; *readable* weights
    make every layer but the first answer, at each step, with a function of that step's input alone that can be inverted
    (see :func:`read_back`); without biases, whose gates stay half open, of one step from a state of zeros; *steady* weights keep
    every activation where a half type resolves it: no gate near its end, and no relu near its kink.
    ``seed`` fixes the weights, ``seed`` and ``inputs_seed`` together everything else. ``name`` marks a case that people know by name.
    """

    layer: Layer
    steps: int = 5
    batch: int = 3
    lengths: tuple[int, ...] | None = None
    enforce_sorted: bool = False
    batched: bool = True
    given_state: bool = True
    weights: Literal["plain", "remembering", "readable", "steady"] = "plain"
    dtype: DType = "float32"
    device: str = "cpu"
    seed: int = 0
    inputs_seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in EPS:
            raise ValueError(f"Expected dtype to be one of {', '.join(EPS)} but got dtype={self.dtype!r}")
        if not self.batched and (self.batch != 1 or self.lengths is not None):
            raise ValueError(f"Expected batch=1 and no lengths for an unbatched case but got batch={self.batch}, lengths={self.lengths}")
        if self.weights == "readable" and not self.layer.bias and (self.steps != 1 or self.given_state):
            raise ValueError(
                "Expected steps=1 and given_state=False for readable weights without biases but got "
                f"steps={self.steps}, given_state={self.given_state}"
            )
        if self.lengths is None and self.enforce_sorted:
            raise ValueError("Expected lengths with enforce_sorted=True but got lengths=None")
        if self.lengths is not None:
            if len(self.lengths) != self.batch or max(self.lengths) != self.steps or min(self.lengths) < 1:
                raise ValueError(
                    f"Expected {self.batch} lengths between 1 and {self.steps}, the longest {self.steps}, but got lengths={self.lengths}"
                )
            if self.enforce_sorted and list(self.lengths) != sorted(self.lengths, reverse=True):
                raise ValueError(f"Expected descending lengths with enforce_sorted=True but got lengths={self.lengths}")

    @property
    def id(self) -> str:
        """A short name that is unique among cases that differ: ``lstm-L2-bi-I3-H5-T7-B2-packed(7,4)-float32``."""
        layer = self.layer
        parts = [self.name] if self.name else []
        parts.append(layer.mode.value)
        parts += [f"L{layer.num_layers}"] if layer.num_layers > 1 else []
        parts += ["bi"] if layer.bidirectional else []
        parts += [f"I{layer.input_size}", f"H{layer.hidden_size}"]
        parts += [f"P{layer.proj_size}"] if layer.proj_size else []
        parts += [] if layer.bias else ["nobias"]
        parts += ["batchfirst"] if layer.batch_first else []
        parts += [f"p{layer.dropout}"] if layer.dropout else []
        parts += [f"T{self.steps}", f"B{self.batch}" if self.batched else "unbatched"]
        if self.lengths is not None:
            shown = ",".join(map(str, self.lengths))
            if self.batch > 8:  # too long to read
                shown = f"{self.batch}:{hashlib.sha256(shown.encode()).hexdigest()[:8]}"
            parts.append(f"{'sorted' if self.enforce_sorted else 'packed'}({shown})")
        parts += [] if self.given_state else ["nostate"]
        parts += [self.weights] if self.weights != "plain" else []
        parts += [self.dtype] + ([self.device] if self.device != "cpu" else []) + ([f"seed{self.seed}"] if self.seed else [])
        parts += [f"inputs{self.inputs_seed}"] if self.inputs_seed else []
        return "-".join(parts)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Shape (T, B): which steps of which sequence exist."""
        lengths = np.array(self.lengths if self.lengths is not None else [self.steps] * self.batch)
        return np.arange(self.steps)[:, None] < lengths[None, :]

    @property
    def arrays(self) -> Arrays:
        return draw(self)


@dataclass(frozen=True)
class Arrays:
    """The numbers of a case, time-major and batched whatever the case's own form; float64 holding values of its dtype.

    ``x`` (T, B, I), ``h0`` (L*D, B, H_out), ``c0`` (L*D, B, H) for an LSTM; both states are zero where the case gives none.
    ``weights`` by torch's parameter names. ``cotangents``: one array shaped like each of output, h_n and c_n, zero on padding.
    """

    weights: dict[str, Array]
    x: Array
    h0: Array
    c0: Array | None
    cotangents: dict[str, Array]

    def inputs(self) -> dict[str, Array]:
        """What the layer is given, by name: x, h0, and c0 for an LSTM."""
        return {"x": self.x, "h0": self.h0, **({} if self.c0 is None else {"c0": self.c0})}


def rounded(array: Array, dtype: str) -> Array:
    """``array`` with each value rounded to the nearest one that ``dtype`` holds, as float64.

    The oracle then reads the very numbers that the implementation is given: rounding the input is nobody's error.
    """
    if dtype == "float64":
        return array
    if dtype == "bfloat16":
        bits = array.astype(np.float32).view(np.uint32)
        # Round to nearest, ties to even, on the upper 16 bits of a float32.
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(np.float64)
    return array.astype(stored(dtype)).astype(np.float64)


@lru_cache(maxsize=64)
def draw(case: Case) -> Arrays:
    """The arrays of ``case``, read-only. Equal cases give equal arrays on every machine.

    Only uniform draws and arithmetic are used: no linear algebra, whose last bits differ between libraries. Cases of one
    layer and seed share their weights, whatever their T, B, form and inputs.
    """
    layer = case.layer
    # PCG64 is named, not default_rng: numpy may change its default, and then yesterday's cases.
    generator = np.random.Generator(np.random.PCG64([case.seed, 0]))

    def uniform(*shape: int, scale: float = 1.0) -> Array:
        return generator.uniform(-scale, scale, shape)

    weights: dict[str, Array] = {}
    for name, shape in layer.parameter_shapes().items():
        # sqrt(3 / fan_in) gives a uniform draw the variance 1 / fan_in, hence pre-activations of order one.
        weights[name] = uniform(*shape, scale=0.5 if len(shape) == 1 else (3.0 / shape[1]) ** 0.5)
    if case.weights == "remembering":
        _make_remember(layer, weights, generator)
    elif case.weights == "readable":
        _make_readable(layer, weights, lifted=case.dtype != "float64")
    elif case.weights == "steady":
        _make_steady(layer, weights)

    generator = np.random.Generator(np.random.PCG64([case.seed, 1 + case.inputs_seed]))
    # A factor sqrt(3) gives inputs unit variance.
    x = uniform(case.steps, case.batch, layer.input_size, scale=3.0**0.5)
    if case.weights == "steady" and layer.mode is Mode.RNN_RELU and not layer.bias:
        x[:, :, 0] = _PUSH
    h0 = uniform(*layer.h_shape(case.batch))
    c0 = uniform(*layer.c_shape(case.batch), scale=1.5) if layer.has_cell_state else None
    cotangents = {"output": uniform(case.steps, case.batch, layer.output_size) * case.valid[:, :, None], "h_n": uniform(*h0.shape)}
    if c0 is not None:
        cotangents["c_n"] = uniform(*c0.shape)
    if not case.given_state:
        h0, c0 = np.zeros_like(h0), None if c0 is None else np.zeros_like(c0)

    def final(array: Array) -> Array:
        array = rounded(array, case.dtype)
        array.flags.writeable = False
        return array

    return Arrays(
        {name: final(weight) for name, weight in weights.items()},
        final(x),
        final(h0),
        None if c0 is None else final(c0),
        {name: final(cotangent) for name, cotangent in cotangents.items()},
    )


#: What the readable layers multiply their input by: twice an activation, after dropout, must stay where tanh can be inverted.
_READ_SCALE = 0.25
#: A gate driven to this pre-activation is open, or shut, to within 1e-17.
_SHUT = 40.0
#: What keeps a relu away from its kink.
_LIFT = 1.0
#: What raises the outputs of a first layer, by gates: open where the candidate comes in, shut where the old state does.
_LIFTS = {
    Mode.RNN_TANH: [1.25],
    Mode.RNN_RELU: [2.0],
    Mode.GRU: [0.0, -2.0, 1.5],
    Mode.LSTM: [2.0, -2.0, 1.5, 2.0],
}


def _make_readable(layer: Layer, weights: dict[str, Array], lifted: bool = False) -> None:
    """Changes the weights of the upper layers in place: direction d answers with an invertible function of features d*H ... d*H + H - 1.

    Of a projection, which has P features in place of H, the upper layers take the first P units as they are.

    The first layer keeps random weights; with relu its biases are raised, so that its outputs are positive. ``lifted``: in every mode,
    so that they are above a quarter, and a narrow type can tell what was dropped from what was small.
    """
    size, width, gates = layer.hidden_size, layer.state_size, len(layer.mode.gates)
    biases = ("bias_ih", "bias_hh") if layer.bias else ()
    for _, level, direction, suffix in layer.slots():
        if level == 0:
            for name in ("weight_ih", "weight_hh", *(biases if lifted else ())):
                weights[f"{name}{suffix}"] *= 0.15 if lifted else 0.3 if layer.mode is Mode.RNN_RELU else 1.0
            if layer.bias and (lifted or layer.mode is Mode.RNN_RELU):
                weights[f"bias_ih{suffix}"] += np.repeat(_LIFTS[layer.mode], size)
            continue
        for name in ("weight_ih", "weight_hh", *biases):
            weights[f"{name}{suffix}"] *= 0.0
        # The candidate, which reads the input, is the third block of an LSTM and the last of the others.
        block = slice(2 * size, 3 * size) if layer.mode is Mode.LSTM else slice((gates - 1) * size, gates * size)
        weights[f"weight_ih{suffix}"][block, direction * width : (direction + 1) * width] = _READ_SCALE * np.eye(size, width)
        if layer.proj_size:
            weights[f"weight_hr{suffix}"][:] = np.eye(width, size)
        if not layer.bias:
            continue
        bias = weights[f"bias_ih{suffix}"]
        if layer.mode is Mode.LSTM:
            bias[:size], bias[size : 2 * size], bias[3 * size :] = _SHUT, -_SHUT, _SHUT
        elif layer.mode is Mode.GRU:
            bias[size : 2 * size] = -_SHUT
        elif layer.mode is Mode.RNN_RELU:
            bias += _LIFT


def read_back(layer: Layer, output: Array) -> Array:
    """What the last layer was given, (T, B, D*H), from what it answered, (T, B, D*H), where the weights are readable."""
    if layer.mode is Mode.RNN_RELU:
        return (output - _LIFT * layer.bias) / _READ_SCALE
    # Without biases every gate is half open.
    whole = 1.0 if layer.bias or layer.mode is Mode.RNN_TANH else 2.0
    inverse: Array = np.arctanh(whole * output)
    return (np.arctanh(whole * inverse) if layer.mode is Mode.LSTM else inverse) / _READ_SCALE


#: What opens every other unit of a steady relu and shuts the rest, and how much at the most all inputs, and all of the state, add to it.
_PUSH, _READ, _KEPT = 1.5, 0.15, 0.3


def _make_steady(layer: Layer, weights: dict[str, Array]) -> None:
    """Changes the weights in place so that a half type errs by little: in a tanh RNN half as large, and with relu every unit always open
    or always shut. The gates of an LSTM and a GRU are so as they are drawn.

    What opens and shuts it is its bias, and without biases the first feature: of x a constant, of what a layer answers its first unit,
    which is open. No unit of a first layer goes beyond the U of U = 1.5 + 0.15 * sqrt(3) + 0.3 * U, which is 2.5, and none that is open
    below 0.5.
    """
    for _, _, _, suffix in layer.slots():
        own = {name: weights[f"{name}{suffix}"] for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))}
        if layer.mode is Mode.RNN_TANH:
            own["weight_ih"] *= 0.5
            own["weight_hh"] *= 0.5
        if layer.mode is not Mode.RNN_RELU:
            continue
        for name, most in (("weight_ih", _READ), ("weight_hh", _KEPT)):
            own[name] *= most / np.abs(own[name]).sum(axis=1, keepdims=True)
        push = np.where(np.arange(layer.hidden_size) % 2, -1.0, 1.0)
        if layer.bias:
            own["bias_ih"] *= 0.2
            own["bias_hh"] *= 0.2
            own["bias_ih"] += _PUSH * push
        else:
            own["weight_ih"][:, 0] = push


def _make_remember(layer: Layer, weights: dict[str, Array], generator: np.random.Generator) -> None:
    """Changes the weights in place so that h_n depends on h0, c0 and x[0] after hundreds of steps.

    An LSTM's forget gate and a GRU's update gate are open by their biases (without biases they stay as they are), and an LSTM's input
    gate is nearly shut, or else c would grow until tanh(c) sees no change of it. An RNN's recurrent matrix is nearly a permutation:
    of length one for tanh, which shrinks what it reads, a little less for relu, which does not.
    """
    size, state = layer.hidden_size, layer.state_size
    for _, _, _, suffix in layer.slots():
        if layer.mode in (Mode.LSTM, Mode.GRU):
            kept = slice(size, 2 * size)
            for name in ("weight_ih", "weight_hh"):
                weights[f"{name}{suffix}"][kept] *= 0.5
            for name in ("bias_ih", "bias_hh") if layer.bias else ():
                weights[f"{name}{suffix}"][kept] += 2.5
                if layer.mode is Mode.LSTM:
                    weights[f"{name}{suffix}"][:size] -= 1.5
        else:
            hh = weights[f"weight_hh{suffix}"]
            hh *= 0.02
            hh[generator.permutation(size), np.arange(state)] += 1.0 if layer.mode is Mode.RNN_TANH else 0.96
            weights[f"weight_ih{suffix}"] *= 0.1 if layer.mode is Mode.RNN_TANH else 0.3
            for name in ("bias_ih", "bias_hh") if layer.bias and layer.mode is Mode.RNN_TANH else ():
                weights[f"{name}{suffix}"] *= 0.1

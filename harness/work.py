"""What a workload cannot do without: the floating-point operations of its products, and the bytes that it has to read and write."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.layer import Layer

#: Bytes of one element.
_ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Work:
    """What one timed call amounts to, whoever computes it.

    ``flops``: operations of the products, by the usual count. ``bytes``: what it reads or writes at least. ``working_set``: the bytes of
    the largest call of the layer within it, which says in which memory they can be; the whole but where there are several calls.
    """

    flops: int
    bytes: int
    working_set: int


def forward_flops(layer: Layer, tokens: int) -> int:
    """Floating-point operations of the products in one forward pass over ``tokens`` = T * B time steps.

    2 G H (I + H_out) a step, layer and direction, and 2 H P for a projection; a multiplication and an addition count as two,
    what is done element by element is left out. Torch's own counter would do, but sees nothing of fused kernels.
    """
    per_token = 0
    for _, level, _, _ in layer.slots():
        inputs = layer.input_size if level == 0 else layer.output_size
        per_token += 2 * len(layer.mode.gates) * layer.hidden_size * (inputs + layer.state_size)
        per_token += 2 * layer.hidden_size * layer.proj_size
    return per_token * tokens


def work(layer: Layer, steps: int, batch: int, dtype: str, *, forward: bool, backward: bool, calls: int = 1) -> Work:
    """The work of ``calls`` calls of ``layer``, each on T = ``steps`` and B = ``batch``, padded, with a given state.

    ``forward``, ``backward``: what is part of it. Inference is the forward pass, training both; a stream of T steps is T calls of one step.

    Operations: :func:`forward_flops`, and twice as many to go back, because each product has two for it: the gradient of what it
    multiplied, x included, and that of its weights. It is the usual count. The gradient of h_0, for which nobody asks, is in it: one
    step in T of the recurrent products.

    Bytes: each array that must be read or written counts once a call, in ``dtype``. Between two calls nothing stays but in caches, and
    these are in the rate that the bytes are divided by (:class:`harness.limit.Limits`). In the symbols of
    :class:`~harness.layer.Layer`:

    ==================  =========================================================================================================
    forward             backward
    ==================  =========================================================================================================
    read: every         read: the matrices, for the gradients of what they multiplied; where T = 1 not the recurrent ones, because
    parameter           only h_0 would get that gradient; no bias, because none is a factor
    read: x, h_0, c_0   read: x, h_0, c_0, for the gradients of the weights and of the forget gate
    write: output       read: the cotangent of the output, the only one that is given
    write: h_n, c_n     write: the gradient of every parameter, and of x
    ==================  =========================================================================================================

    h_n counts beside the output because the two share no memory (contract ``purity.answers_are_new``). Nothing else counts, so it is a
    lower bound: what one layer tells the next can stay on the chip, and the states and gates of the steps between, which most
    implementations save for the backward pass, can be computed again from x, h_0 and c_0. Hence a forward pass that records gradients has
    the same bytes as one that does not.

    Raises ValueError for sizes below 1, an unknown dtype, and for work that is neither forward nor backward.
    """
    for name, value in (("steps", steps), ("batch", batch), ("calls", calls)):
        if value < 1:
            raise ValueError(f"Expected {name} of at least 1 but got {name}={value}")
    if dtype not in _ITEM:
        raise ValueError(f"Expected dtype to be one of {', '.join(_ITEM)} but got dtype={dtype!r}")
    if not forward and not backward:
        raise ValueError("Expected work with a forward or a backward pass but got forward=False, backward=False")
    flops = forward_flops(layer, steps * batch) * (forward + 2 * backward)
    passes = [_forward_elements(layer, steps, batch)] * forward + [_backward_elements(layer, steps, batch)] * backward
    item = _ITEM[dtype]
    return Work(calls * flops, calls * sum(passes) * item, max(passes) * item)


def _forward_elements(layer: Layer, steps: int, batch: int) -> int:
    states = _states(layer, batch)
    return _parameters(layer) + _x(layer, steps, batch) + states + _output(layer, steps, batch) + states


def _backward_elements(layer: Layer, steps: int, batch: int) -> int:
    factors = [name for name in layer.parameter_shapes() if name.startswith(("weight_ih", "weight_hr") if steps == 1 else "weight")]
    read = _parameters(layer, factors) + _x(layer, steps, batch) + _states(layer, batch) + _output(layer, steps, batch)
    return read + _parameters(layer) + _x(layer, steps, batch)


def _parameters(layer: Layer, names: list[str] | None = None) -> int:
    return sum(math.prod(shape) for name, shape in layer.parameter_shapes().items() if names is None or name in names)


def _x(layer: Layer, steps: int, batch: int) -> int:
    return steps * batch * layer.input_size


def _output(layer: Layer, steps: int, batch: int) -> int:
    return steps * batch * layer.output_size


def _states(layer: Layer, batch: int) -> int:
    return math.prod(layer.h_shape(batch)) + (math.prod(layer.c_shape(batch)) if layer.has_cell_state else 0)

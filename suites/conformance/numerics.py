"""Numerics: every dtype is as exact as plain arithmetic in that dtype, over short and long sequences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from harness.case import Array, Case, rounded
from harness.layer import Mode
from harness.reference import altered, answer, gradients, tensor
from harness.reproduction import BACKWARD
from harness.switches import tf32
from harness.trial import Trial, where
from suites.conformance.cases import GRU, LSTM, RNN_RELU, every, make
from suites.conformance.cases_at_size import in_half
from suites.conformance.declare import MUST, SHOULD, contract, in_docs
from suites.conformance.gradients import every_output


def _cases(dtype: str) -> list[Case]:
    # Half types have kernels of their own: more options meet there.
    half = dtype in ("bfloat16", "float16")
    return [
        *every(dtype=dtype, num_layers=3 if half else 2),
        # As many sequences as directions: what a layer takes for what by its sizes shows here.
        *every(dtype=dtype, bidirectional=True, batch_first=True, hidden_size=17, batch=2),
        *every(dtype=dtype, num_layers=2, bidirectional=True, steps=3),
        *every(dtype=dtype, steps=32, hidden_size=9, weights="steady" if half else "remembering"),
        # Gradients of weights are sums over many steps and sequences.
        *every(dtype=dtype, **({"steps": 8, "batch": 70} if half else {"steps": 16, "batch": 34}), hidden_size=4),
        *(every(dtype=dtype, input_size=64, hidden_size=66, steps=3, batch=2) if half else ()),
        # Multiples of 8, for which tensor cores are made.
        *(every(dtype=dtype, input_size=24, hidden_size=40, steps=3, batch=8) if half else ()),
        *every(dtype=dtype, steps=5, batch=3, lengths=(2, 5, 3), bidirectional=half),
        *every(LSTM, dtype=dtype, hidden_size=7, proj_size=3, bidirectional=half, num_layers=2 if half else 1),
        *(every(dtype=dtype, steps=130, batch=2, bias=False, given_state=False, batch_first=True) if half else ()),
        *(every(dtype=dtype, batch=1, batched=False) if half else ()),
        *(case for mode in Mode if half for case in in_half(mode, dtype)),
    ]


def _forward_and_backward(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))
    through = every_output(trial)
    trial.agree(trial.gradients(through), gradients(trial.case, through))


@contract(
    "numerics.float64",
    "In float64 values and gradients are exact to float64's precision.",
    MUST,
    "torch.dtype",
    _cases("float64"),
    demonstration=BACKWARD,
)
def float64(trial: Trial) -> None:
    _forward_and_backward(trial)


@contract(
    "numerics.float32",
    "In float32 values and gradients are exact to float32's precision.",
    MUST,
    "torch.dtype",
    _cases("float32"),
    demonstration=BACKWARD,
)
def float32(trial: Trial) -> None:
    _forward_and_backward(trial)


@contract(
    "numerics.bfloat16",
    "In bfloat16 values and gradients are as exact as a plain loop in bfloat16.",
    MUST,
    "torch.dtype; pytorch#45048",
    _cases("bfloat16"),
    demonstration=BACKWARD,
)
def bfloat16(trial: Trial) -> None:
    _forward_and_backward(trial)


@contract(
    "numerics.float16",
    "In float16 values and gradients are as exact as a plain loop in float16.",
    MUST,
    "torch.dtype; pytorch#42605",
    _cases("float16"),
    demonstration=BACKWARD,
)
def float16(trial: Trial) -> None:
    _forward_and_backward(trial)


@contract(
    "numerics.tf32",
    "With TF32 allowed, float32 values and gradients keep at least TF32's eleven bits; once it is not, they are float32's again.",
    MUST,
    "torch: CUDA semantics, TensorFloat-32 (TF32) on Ampere and later devices",
    # float16 has as many bits. What it holds is given as float32, so that rounding it loses nothing, and a plain loop in it is the floor.
    [
        *every(dtype="float16", num_layers=2),
        *every(dtype="float16", bidirectional=True, batch_first=True, input_size=8, hidden_size=32, batch=16),
        *every(dtype="float16", steps=32, hidden_size=9, weights="remembering"),
        *every(dtype="float16", steps=5, batch=3, lengths=(2, 5, 3)),
        make(LSTM, dtype="float16", proj_size=3),
    ],
    demonstration="""
        layer, x, hx = layer.float(), x.float(), None if hx is None else torch.utils._pytree.tree_map(torch.Tensor.float, hx)
        found = []
        for allowed in (False, layer is not reference, False):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
            found.append((lambda y: y if torch.is_tensor(y) else y.data)(layer(x, hx)[0]))
        slopes = torch.autograd.grad(found[1].square().sum(), [p for _, p in sorted(layer.named_parameters())])
        return found[1], slopes, 1000 * (found[2] - found[0])
    """,
)
def with_tf32(trial: Trial) -> None:
    case, through = trial.case, ("output", "h_n")
    module = trial.module().float()
    for allowed in (True, False):
        exact = case if allowed else replace(case, dtype="float32")
        arrays = case.arrays
        expected = altered(exact, arrays.weights, through=through, cotangents=arrays.cotangents, inputs=arrays.inputs())
        leaves = {name: value.float().requires_grad_() for name, value in trial.leaves().items()}
        module.zero_grad()
        with tf32(allowed):
            with trial.blamed("a call with TF32 allowed" if allowed else "a call with TF32 allowed no longer"):
                reply = trial.call(module, *trial.form(leaves))
            assert expected.forward is not None
            trial.agree(reply.arrays(), expected.forward)
            trial.backward(reply, through)
        wanted = trial.wanted(leaves, module)
        trial.agree(trial.collect(wanted), expected, only=list(wanted))


@contract(
    "numerics.large_values",
    "A relu RNN goes up to thousands in float16, millions in bfloat16 and 1e18 in others, without overflowing where its results do not.",
    MUST,
    "torch.dtype: float16 holds up to 65504, bfloat16 as much as float32",
    [make(RNN_RELU, dtype=dtype, steps=3, bias=False, seed=3) for dtype in ("float16", "bfloat16", "float32", "float64")],
    demonstration="""
        scale = {torch.float16: 2048, torch.bfloat16: 2**20}.get(next(layer.parameters()).dtype, 2**60)
        with torch.no_grad():
            return [value / scale for value in layer(scale * x, scale * hx)]
    """,
)
def large_values(trial: Trial) -> None:
    scale = {"float16": 2.0**11, "bfloat16": 2.0**20}.get(trial.case.dtype, 2.0**60)
    inputs = {name: array * scale for name, array in trial.case.arrays.inputs().items()}
    leaves = {name: tensor(array, trial.case) for name, array in inputs.items()}
    trial.agree(trial.answer(leaves=leaves).arrays(), altered(trial.case, inputs=inputs))


@contract(
    "numerics.large_factors",
    "Neither weights nor inputs are bounded: where one is 64 times as large and the other a 64th, the products are the same.",
    MUST,
    in_docs("LSTM: equations"),
    # One step: what it answers is as large as ever, and the next step would read it by weights that are not.
    [*every(steps=1), *every(steps=1, bidirectional=True, dtype="float64")],
    demonstration="""
        with torch.no_grad():
            for name, p in layer.named_parameters():
                p *= 64 if "weight" in name else 1
            small = layer(x / 64, (hx[0] / 64, hx[1]) if isinstance(hx, tuple) else hx / 64)
            for name, p in layer.named_parameters():
                p /= 4096 if "weight" in name else 1
            return small, layer(64 * x, (64 * hx[0], hx[1]) if isinstance(hx, tuple) else 64 * hx)
    """,
)
def large_factors(trial: Trial) -> None:
    arrays = trial.case.arrays
    for factor in (64.0, 1 / 64):
        weights = {name: value * factor if name.startswith("weight") else value for name, value in arrays.weights.items()}
        inputs = {"x": arrays.x / factor, "h0": arrays.h0 / factor}
        leaves = {**trial.leaves(), **{name: tensor(array, trial.case) for name, array in inputs.items()}}
        with where(f"weights times {factor:g}, inputs divided by it"):
            trial.agree(trial.answer(trial.module(weights=weights), leaves).arrays(), altered(trial.case, weights=weights, inputs=inputs))


def _nearly_shut(case: Case) -> dict[str, Array]:
    """The case's weights with gates that keep the state but for some 5e-5 of it at each step (sigmoid(10) = 1 - 4.5e-5)."""
    shift = {"f": 10.0, "z": 10.0, "i": -9.0}
    rows = np.repeat([shift.get(gate, 0.0) for gate in case.layer.mode.gates], case.layer.hidden_size)
    return {name: value / 8 + rows if name.startswith("bias_ih") else value / 8 for name, value in case.arrays.weights.items()}


@contract(
    "numerics.nearly_shut_gates",
    "Gates that are nearly shut let a little through: over 400 steps it adds up.",
    MUST,
    in_docs("GRU: equations, h_t = (1 - z) n + z h"),
    [*every(GRU, LSTM, steps=400, batch=2), *every(GRU, LSTM, steps=400, batch=2, bidirectional=True, dtype="float64")],
    demonstration="""
        for name, p in layer.named_parameters():
            if "bias_ih" in name:
                p.data.view(-1, reference.hidden_size)[1] += 10
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def nearly_shut_gates(trial: Trial) -> None:
    weights = {name: rounded(value, trial.case.dtype) for name, value in _nearly_shut(trial.case).items()}
    trial.agree(trial.answer(trial.module(weights=weights)).arrays(), altered(trial.case, weights=weights))


@contract(
    "numerics.large_cell_state",
    "The cell state of an LSTM is not bounded: one of hundreds, or in bfloat16 of 1e5, is carried on as it is.",
    MUST,
    in_docs("LSTM: equations, c_t = f c_{t-1} + i g"),
    [
        *every(LSTM, num_layers=2),
        *every(LSTM, bidirectional=True, steps=3, dtype="float64"),
        *every(LSTM, steps=3, dtype="bfloat16"),
        # An exponential of twice as much overflows.
        *every(LSTM, steps=3, dtype="float16", proj_size=2),
    ],
    demonstration="""
        with torch.no_grad():
            return layer(x, (hx[0], 512 * hx[1]))
    """,
)
def large_cell_state(trial: Trial) -> None:
    # 2^18 is past the largest number of float16.
    scale = 2.0**18 if trial.case.dtype == "bfloat16" else 512.0
    inputs = {"c0": scale * trial.case.arrays.inputs()["c0"]}
    leaves = {**trial.leaves(), "c0": tensor(inputs["c0"], trial.case)}
    trial.agree(trial.answer(leaves=leaves).arrays(), altered(trial.case, inputs=inputs))


@contract(
    "numerics.error_over_time",
    "The error does not grow faster over the sequence than that of plain arithmetic.",
    SHOULD,
    "numerics of recurrences",
    [case for steps in (1, 8, 64, 512) for case in every(steps=steps, batch=2, hidden_size=8, weights="remembering")],
    demonstration="""
        with torch.no_grad():
            return layer(x.repeat(-(-512 // len(x)), 1, 1), hx)
    """,
)
def error_over_time(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


@contract(
    "numerics.small_values",
    "Values of the order of 1e-6, in float16 of 1e-4, are not flushed to zero or rounded to a grid; in a relu RNN they keep their relative "
    "precision.",
    MUST,
    "torch.nn.RNN: nonlinearity; torch.dtype: float16 has numbers below 6.1e-5 too",
    [
        # A tanh that is computed as 2 sigmoid(2a) - 1 leaves of such numbers a few bits, which the floors allow.
        *every(steps=4, bias=False, seed=5),
        *every(steps=4, bias=False, seed=5, dtype="float64"),
        *every(RNN_RELU, steps=3, bias=False, num_layers=2, bidirectional=True, seed=6),
        *every(RNN_RELU, steps=4, bias=False, dtype="float16", weights="plain", seed=5),
    ],
    demonstration="""
        scale = 2.0**12 if next(layer.parameters()).dtype == torch.float16 else 2.0**20
        with torch.no_grad():
            output, state = layer(x / scale, tuple(s / scale for s in hx) if isinstance(hx, tuple) else hx / scale)
            return [value * scale for value in (output, *state)]
    """,
)
def small_values(trial: Trial) -> None:
    scale = 2.0**-12 if trial.case.dtype == "float16" else 2.0**-20
    inputs = {name: rounded(array * scale, trial.case.dtype) for name, array in trial.case.arrays.inputs().items()}
    leaves = {name: tensor(array, trial.case) for name, array in inputs.items()}
    trial.agree(trial.answer(leaves=leaves).arrays(), altered(trial.case, inputs=inputs))


@contract(
    "numerics.small_gradients",
    "Gradients of the order of 1e-24 and of 1e12, in float16 of hundreds, keep their relative precision: nothing is flushed to zero, as it "
    "is where float16 is in between, and nothing is clipped.",
    MUST,
    "torch.amp: gradients underflow in float16, not in float32 or bfloat16; its GradScaler multiplies them",
    [
        *every(num_layers=2),
        *every(num_layers=2, dtype="bfloat16", batch_first=True),
        *every(bidirectional=True, steps=4, batch=3, lengths=(2, 4, 1)),
        *every(dtype="float16"),
        make(LSTM, proj_size=2, steps=3, batch=2, dtype="float64"),
    ],
    demonstration="""
        scales = (0.25, 256.0) if leaves[0].dtype == torch.float16 else (2.0**-80, 2.0**40)
        values = [*leaves, *(p for _, p in sorted(layer.named_parameters()))]
        loss = lambda scale: (lambda y: y[0] if isinstance(y, tuple) else y)(layer(x, hx)[0]).square().sum() * scale
        return [[slope / scale for slope in torch.autograd.grad(loss(scale), values)] for scale in scales]
    """,
)
def small_gradients(trial: Trial) -> None:
    module, through = trial.module(), every_output(trial)
    expected = gradients(trial.case, through)
    for scale in (0.25, 256.0) if trial.case.dtype == "float16" else (2.0**-80, 2.0**40):
        leaves = trial.leaves(requires_grad=True)
        module.zero_grad()
        reply = trial.call(module, *trial.form(leaves))
        cotangents = [tensor(trial.case.arrays.cotangents[name], trial.case) * scale for name in through]
        with trial.blamed("backward"):
            torch.autograd.backward([reply.tensors[name] for name in through], cotangents)
        found = trial.collect(trial.wanted(leaves, module))
        with where(f"cotangents times {scale:.0e}"):
            trial.agree({name: value / scale for name, value in found.items()}, expected)

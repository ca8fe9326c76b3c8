"""Shapes and layouts: which form of the input gives which form of the output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from harness import oracle
from harness.case import Array, Case
from harness.reference import answer, to_array
from harness.tolerance import allowance, compare
from harness.trial import ContractError, Mismatch, Trial, may_refuse, where
from suites.conformance.cases import HEADLINE, LSTM, every
from suites.conformance.declare import MUST, SHOULD, contract, in_docs


@contract(
    "shapes.headline",
    "nn.RNN(10, 20) on an input (5, 3, 10) with h_0 (1, 3, 20) gives output (5, 3, 20) and h_n (1, 3, 20), and output[-1] == h_n.",
    MUST,
    in_docs("RNN: Examples"),
    [HEADLINE],
)
def headline(trial: Trial) -> None:
    reply = trial.answer()
    trial.agree(reply.arrays(), answer(trial.case))
    same(trial, "h_n[-1]", reply.tensors["h_n"][-1], reply.tensors["output"][-1])


@contract(
    "shapes.output_ends_in_h_n",
    "output[-1] is h_n of the last layer; of the reverse direction it is output[0].",
    MUST,
    in_docs("LSTM: Outputs: h_n"),
    [
        *every(),
        *every(num_layers=3, batch_first=True),
        *every(bidirectional=True, num_layers=2, steps=6),
        *every(batch=1, batched=False, bidirectional=True),
        *every(LSTM, proj_size=2, num_layers=2, bidirectional=True, dtype="float64"),
    ],
)
def output_ends_in_h_n(trial: Trial) -> None:
    layer, tensors = trial.case.layer, trial.answer().tensors
    output, h_n, width = tensors["output"], tensors["h_n"], layer.state_size
    same(trial, "h_n of the forward direction", h_n[-layer.directions], output[-1][:, :width])
    if layer.bidirectional:
        same(trial, "h_n of the reverse direction", h_n[-1], output[0][:, width:])


def same(trial: Trial, name: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Two tensors of the implementation's own are one and the same to within the noise of h_n."""
    allowed = allowance(trial.case)
    comparison = compare(name, to_array(actual), to_array(expected), answer(trial.case).floors["h_n"], allowed)
    trial.comparisons.append(comparison)
    if not comparison.close:
        far = f"they differ by {comparison.ratio:.3g} floors, at most {allowed:g} pass"
        raise Mismatch(f"Expected {name} to equal the end of the output, but {far}")


def _read_time_major(case: Case) -> dict[str, dict[str, Array]]:
    """What comes out where batch and time are taken for each other, each of the wrong sequences from zeros."""
    exchanged = replace(case, steps=case.batch, batch=case.steps, given_state=False)
    found = oracle.evaluate(exchanged, x=case.arrays.x.transpose(1, 0, 2), weights=case.arrays.weights)
    return {"batch and time exchanged": {**answer(case).tensors, "output": found.output.transpose(1, 0, 2)}}


@contract(
    "shapes.batch_first",
    "With batch_first the input and the output are (B, T, features), and the states stay (L·D, B, features).",
    MUST,
    in_docs("LSTM: batch_first"),
    [
        *every(batch_first=True),
        # Equal T and B: a layer that takes one for the other shows no wrong shape, only wrong values.
        *every(batch_first=True, steps=4, batch=4, num_layers=2),
        *every(batch_first=True, steps=8, batch=8, input_size=8, hidden_size=8),
        *every(batch_first=True, bidirectional=True, num_layers=2, steps=6, batch=1),
        *every(batch_first=True, steps=1, batch=5, given_state=False),
        *every(LSTM, batch_first=True, proj_size=2, steps=3, batch=3, dtype="float64"),
    ],
    _read_time_major,
)
def batch_first(trial: Trial) -> None:
    module = trial.module()
    for train in (True, False):
        trial.agree(trial.answer(module.train(train)).arrays(), answer(trial.case))


@contract(
    "shapes.unbatched",
    "An input (T, I) without batch axis gives an output (T, D·H_out) and states (L·D, features), with batch_first or without.",
    MUST,
    in_docs("LSTM: Inputs: input, unbatched"),
    [
        *every(batch=1, batched=False),
        *every(batch=1, batched=False, given_state=False, num_layers=2, bidirectional=True),
        # As many steps as features: which axis is which is not seen by their numbers.
        *every(batch=1, batched=False, batch_first=True, steps=3),
        *every(batch=1, batched=False, steps=1),
        *every(LSTM, batch=1, batched=False, proj_size=3, num_layers=2, dtype="float64"),
    ],
)
def unbatched(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


@contract(
    "shapes.batch_of_zero",
    "A batch of no sequences, where it is not refused, gives an output (T, 0, D·H_out) and states (L·D, 0, features), with gradients and "
    "without, and backward gives zero gradients.",
    SHOULD,
    "torch.nn.LSTM: Shape; pytorch#133751",
    [
        *every(batch=0),
        *every(batch=0, given_state=False, batch_first=True, num_layers=2, bidirectional=True),
        *every(LSTM, batch=0, proj_size=2),
    ],
    demonstration="""
        with torch.no_grad(): quiet = layer.eval()(x, hx)
        output, state = layer.train()(x, hx)
        (output.sum() + sum(value.sum() for value in state)).backward()
        return quiet, output, state, [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def batch_of_zero(trial: Trial) -> None:
    module, leaves = trial.module(), trial.leaves(requires_grad=True)
    # A view whose length cannot be inferred from nothing, or a launch of no blocks, is refused aloud: whoever meets it knows.
    with may_refuse("a batch of no sequences"):
        for train in (False, True):
            trial.answer(module.train(train))
        reply = trial.call(module, *trial.form(leaves))
        with trial.blamed("backward"):
            torch.autograd.backward([value.sum() for value in reply.tensors.values()])
    for name, gradient in trial.collect(trial.parameters(module)).items():
        if gradient.any():
            raise ContractError(
                f"Expected the gradient of {name} to be zero for a batch of no sequences but got up to {abs(gradient).max():.3g}"
            )


@contract(
    "shapes.sequence_of_zero",
    "A sequence of no steps is refused with an error.",
    MUST,
    "pytorch: 'Expected sequence length to be larger than 0 in RNN'",
    [*every(), *every(given_state=False, batch_first=True, bidirectional=True), *every(batch=1, batched=False, batch_first=True)],
    demonstration="""
        try: layer(x[:, :0] if reference.batch_first and x.dim() == 3 else x[:0], hx)
        except Exception: return
        raise AssertionError("a sequence of no steps was answered")
    """,
)
def sequence_of_zero(trial: Trial) -> None:
    input, hx = trial.form(trial.leaves())
    empty = input[:, :0] if trial.case.layer.batch_first and trial.case.batched else input[:0]
    trial.refuses("a sequence of no steps", trial.module(), empty, hx)


@contract(
    "shapes.dtype_device_layout",
    "Output and states have the dtype and device of the input, are dense, and are contiguous where time comes first.",
    MUST,
    in_docs("LSTM: Outputs"),
    [
        *every(),
        *every(dtype="float64", num_layers=2, bidirectional=True),
        *every(LSTM, num_layers=2, bidirectional=True, proj_size=2),
        *every(dtype="bfloat16"),
        *every(dtype="bfloat16", given_state=False, batch=1, batched=False),
        *every(dtype="float16", batch=1, batched=False),
        *every(dtype="float16", given_state=False),
        *every(steps=5, batch=3, lengths=(2, 5, 3), bidirectional=True),
        *every(steps=4, batch=2, lengths=(4, 2), dtype="bfloat16"),
        *every(steps=4, batch=2, lengths=(2, 4), dtype="float16"),
        *every(steps=4, batch=2, lengths=(2, 4), dtype="float64", given_state=False),
    ],
    demonstration="""
        for output, state in (layer.train()(x, hx), torch.no_grad()(layer.train())(x, hx), torch.no_grad()(layer.eval())(x, hx)):
            for value in (output[0] if isinstance(output, tuple) else output, *(state if isinstance(state, tuple) else [state])):
                assert value.dtype == dtype and value.is_contiguous(), (value.dtype, value.shape, value.stride())
    """,
)
def dtype_device_layout(trial: Trial) -> None:
    module = trial.module()
    for how, train, grad in (("without gradients", True, False), ("with gradients", True, True), ("in eval mode", False, False)):
        input, hx = trial.form(trial.leaves())
        with torch.set_grad_enabled(grad), where(how):
            _require_like(input, trial.call(module.train(train), input, hx).raw)


def _require_like(input: Any, raw: Any) -> None:
    """Raises :class:`ContractError` unless all of the answer ``raw`` is of the input's dtype, device and layout, and contiguous."""
    states = raw[1] if isinstance(raw[1], tuple) else (raw[1],)
    output, given = (raw[0].data, input.data) if isinstance(input, PackedSequence) else (raw[0], input)
    for name, value in zip(("output", "h_n", "c_n"), (output, *states), strict=False):
        for what in ("dtype", "device", "layout"):
            if getattr(value, what) != getattr(given, what):
                raise ContractError(f"Expected {name}.{what} to be {getattr(given, what)} but got {getattr(value, what)}")
        if not value.is_contiguous():
            raise ContractError(f"Expected {name} to be contiguous but its strides are {value.stride()} for the shape {tuple(value.shape)}")


@contract(
    "shapes.change_between_calls",
    "One layer answers inputs of changing T and B, call after call, in training and in eval mode.",
    MUST,
    in_docs("LSTM: Shape"),
    [*every(steps=6, batch=3), *every(steps=6, batch=2, num_layers=2, bidirectional=True, given_state=False)],
    demonstration="""
        found = []
        for train in (True, False):
            for steps, batch in ((6, 3), (2, 5), (9, 1), (1, 4)):
                with torch.set_grad_enabled(train): found.append(layer.train(train)(torch.randn(steps, batch, x.shape[-1]).to(dtype)))
        return found
    """,
)
def change_between_calls(trial: Trial) -> None:
    # The weights of a case depend on its seed and layer alone, so these share them.
    cases = [replace(trial.case, steps=steps, batch=batch) for steps, batch in ((6, 3), (2, 5), (9, 1), (1, 4), (6, 2))]
    for how, train, grad in (("without gradients", True, False), ("with gradients", True, True), ("in eval mode", False, False)):
        module = trial.module().train(train)
        for case in cases:
            with torch.set_grad_enabled(grad), where(how):
                reply = trial.call(module, *trial.form(trial.leaves(case=case), case), case)
                trial.agree(reply.arrays(), answer(case))

"""Dropout in training as it is done: by gradients, under autocast."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.reference import altered, tensor
from harness.trial import ContractError, Trial, may_refuse
from suites.conformance.cases import GRU, LSTM, RNN_TANH, every
from suites.conformance.declare import MAY, MUST, contract
from suites.conformance.dropout import READABLE, mask_given, require_share
from suites.conformance.gradients import as_function
from suites.conformance.gradients_higher import second_derivatives_agree, with_graph

#: How far the values are moved along the gradient, and how much of its length a difference may be off: a relu has kinks.
_STEP: dict[str, float] = {"float64": 1e-6, "float32": 2.0**-8}
_SHARE = 0.02


@contract(
    "dropout.slope_of_the_answer",
    "In training the gradient is the slope of the answer that the same seed gives: in float32, without a batch axis, and through the masks "
    "of three layers.",
    MUST,
    "torch.autograd.gradcheck; haste#43, pytorch PR#189285: a mask not replayed in backward",
    [
        # A step in float32 is so long that a relu meets a kink now and then.
        *every(RNN_TANH, GRU, LSTM, dropout=0.5, num_layers=2),
        *every(dropout=0.4, num_layers=3, bidirectional=True, steps=4, dtype="float64"),
        *every(dropout=0.5, num_layers=2, batch=1, batched=False, steps=9, dtype="float64"),
    ],
    demonstration="""
        values = [leaves[0], *(p for name, p in layer.named_parameters() if "_l0" in name)]
        loss = lambda: (torch.manual_seed(2), layer(x, hx)[0].double().sum())[1]
        slopes = torch.autograd.grad(loss(), values)
        length = sum(slope.norm() ** 2 for slope in slopes) ** 0.5
        move = lambda far: [value.data.add_(far * slope / length / 256) for value, slope in zip(values, slopes)]
        slope = (move(1), loss())[1] - (move(-2), loss())[1]
        assert abs(slope * 128 / length - 1) < 0.02, "the gradient is not the slope"
    """,
)
def slope_of_the_answer(trial: Trial) -> None:
    module, step = trial.module().train(), _STEP[trial.case.dtype]
    leaves = trial.leaves(requires_grad=True)
    # What lies below all masks.
    values = {"x": leaves["x"], **{name: value for name, value in trial.parameters(module).items() if "_l0" in name}}
    with trial.blamed("backward"):
        _loss(trial, module, leaves).backward()
    trial.collect(values)
    slopes = [value.grad.clone() for value in values.values() if value.grad is not None]
    length = float(torch.stack([slope.double().square().sum() for slope in slopes]).sum().sqrt())
    if not length:
        raise ContractError("Expected a gradient in training with dropout, but all of it is zero")
    found = []
    for far in (1, -2):
        with torch.no_grad():
            for value, slope in zip(values.values(), slopes, strict=True):
                value.add_(far * step / length * slope)
        found.append(float(_loss(trial, module, leaves).detach()))
    difference = (found[0] - found[1]) / (2 * step)
    if not abs(difference - length) <= _SHARE * length:
        raise ContractError(
            f"Expected the answer to change by {length:.4g} along its gradient, with the same seed, but it changes by {difference:.4g}"
        )


def _loss(trial: Trial, module: nn.Module, leaves: Mapping[str, Tensor]) -> Tensor:
    torch.manual_seed(3)
    output = trial.call(module, *trial.form(leaves)).tensors["output"].double()
    return (output * tensor(trial.case.arrays.cotangents["output"], trial.case)).sum()


@contract(
    "dropout.gradients_of_gradients",
    "In training a second backward pass, through the gradients of the first, goes through the same mask, or is refused with an error.",
    MAY,
    "torch.autograd.gradgradcheck",
    [
        *every(input_size=2, hidden_size=3, steps=2, batch=2, num_layers=2, dropout=0.5, dtype="float64"),
        *every(LSTM, GRU, input_size=2, hidden_size=3, steps=2, batch=2, lengths=(1, 2), num_layers=2, dropout=0.5, dtype="float64"),
    ],
    demonstration="""
        call = lambda bias: [torch.manual_seed(2), torch.func.functional_call(layer, {"bias_ih_l0": bias}, (x, hx))[0][0]][1]
        torch.autograd.gradgradcheck(call, layer.bias_ih_l0.detach().requires_grad_(), fast_mode=True)
    """,
)
def gradients_of_gradients(trial: Trial) -> None:
    function, values = as_function(trial)
    second_derivatives_agree(trial, function, with_graph(trial, function, values))


@contract(
    "dropout.gradients_of_half_types",
    "In bfloat16 and float16 the backward pass uses the mask of the forward pass.",
    MUST,
    "torch.autograd; torch.amp: half types have kernels of their own",
    # A p of a half, because half types hold 1 / (1 - p).
    [case for dtype in ("bfloat16", "float16") for case in every(dropout=0.5, **{**READABLE, "dtype": dtype, "steps": 6})],
    demonstration="""
        output = layer(x[:1, :1])[0]
        output.sum().backward()
        slope = layer.bias_ih_l0.grad.view(-1, reference.hidden_size).abs().sum(0)
        assert torch.equal(slope == 0, output.flatten() == 0), "another mask"
    """,
)
def gradients_of_half_types(trial: Trial) -> None:
    module, leaves, through = trial.module().train(), trial.leaves(requires_grad=True), ("output",)
    torch.manual_seed(7)
    reply = trial.call(module, *trial.form(leaves))
    expected = altered(trial.case, masks=[mask_given(trial, reply)], through=through)
    trial.backward(reply, through)
    trial.agree(trial.collect(trial.wanted(leaves, module)), expected)


@contract(
    "dropout.under_autocast",
    "Under autocast to bfloat16 a share of p is dropped in training and the rest scaled up, as without it, or the call is refused.",
    MAY,
    "torch.amp: autocast; torch.nn.LSTM: dropout",
    every(dropout=0.4, **{**READABLE, "dtype": "bfloat16"}),
    demonstration="""
        layer, x, hx = layer.float(), x.float(), tuple(s.float() for s in hx) if isinstance(hx, tuple) else hx.float()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=layer is not reference):
            outputs = torch.stack([layer(x, hx)[0].float() for _ in range(60)])
        assert abs((outputs.abs() <= 1e-9).double().mean() - 0.4) < 0.02, "another share is dropped"
        return outputs.abs().amax(0)
    """,
)
def under_autocast(trial: Trial) -> None:
    module = trial.module().float().train()
    input, hx = trial.form({name: value.float() for name, value in trial.leaves().items()})
    torch.manual_seed(0)
    with may_refuse("autocast"), torch.no_grad(), torch.autocast(torch.device(trial.case.device).type, torch.bfloat16):
        raw = module(input, hx)
    require_share(trial, trial.structured(raw, input))

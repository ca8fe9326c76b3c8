"""Dropout: between layers and nowhere else, only in training, scaled, fresh, and the same in the backward pass.

What an implementation drops is its own choice, so the mask is read off its answer: the upper layer of these cases answers with an
invertible function of its input, hence input over undropped input is the factor that each element was given.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from harness import oracle
from harness.case import Array, Case, read_back
from harness.reference import altered, answer, to_array
from harness.trial import Answer, ContractError, Trial
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MUST, SHOULD, contract, in_docs

_SOURCE = in_docs("LSTM: dropout")
_READABLE: dict[str, Any] = {"num_layers": 2, "weights": "readable", "dtype": "float64", "hidden_size": 6, "steps": 12, "batch": 8}
_CASES = [
    *every(dropout=0.4, **_READABLE),
    *every(dropout=0.25, bidirectional=True, **_READABLE),
    *every(dropout=0.5, lengths=(7, 12, 3, 12, 1, 9, 12, 5), **_READABLE),
]
_SURE = [
    *every(num_layers=3, dropout=1.0, bidirectional=True),
    *every(RNN_TANH, RNN_RELU, GRU, num_layers=2, dropout=1.0, batch_first=True, dtype="float64"),
    make(LSTM, num_layers=2, dropout=1.0, batch_first=True, dtype="float64", proj_size=2),
]
#: How far a factor that is read back may be off, and the smallest undropped value from which one is read.
_READ_ERROR: dict[str, tuple[float, float]] = {"float64": (1e-5, 1e-8), "bfloat16": (0.2, 0.25)}


def _in_training(trial: Trial, seed: int = 0, module: torch.nn.Module | None = None) -> Answer:
    torch.manual_seed(seed)
    return trial.answer((module or trial.module()).train())


def _below(case: Case) -> Array:
    """What the first layer answers: the input of the second before dropout, (T, B, D*H)."""
    layer = replace(case.layer, num_layers=1, dropout=0.0)
    arrays, slots = case.arrays, layer.directions
    c0 = None if arrays.c0 is None else arrays.c0[:slots]
    weights = {name: arrays.weights[name] for name in layer.parameter_shapes()}
    return oracle.forward(layer, weights, arrays.x, arrays.h0[:slots], c0, case.valid).output


def _factors(trial: Trial, reply: Answer) -> Array:
    """The factor that dropout gave each element between the layers, (T, B, D*H); NaN where the undropped value was too small to tell."""
    undropped = _below(trial.case)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = read_back(trial.case.layer, to_array(reply.tensors["output"])) / undropped
    least = _READ_ERROR[trial.case.dtype][1]
    return np.where((np.abs(undropped) > least) & trial.case.valid[:, :, None], factors, np.nan)


def mask_given(trial: Trial, reply: Answer) -> Array:
    """The mask, exactly: each factor is 0 or 1 / (1 - p), or it raises."""
    p, close = trial.case.layer.dropout, _READ_ERROR[trial.case.dtype][0]
    factors = _factors(trial, reply)
    scaled = factors * (1 - p)
    wrong = ~np.isnan(scaled) & (np.abs(scaled) > close) & (np.abs(scaled - 1) > close)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ContractError(
            f"Expected every element between the layers to be multiplied by 0 or 1/(1-p) = {1 / (1 - p):.4g}, "
            f"but the one at step {where[0]}, batch item {where[1]}, feature {where[2]} was multiplied by {factors[where]:.6g}"
        )
    return np.where(np.isnan(scaled), 1.0, np.round(scaled)) / (1 - p)


@contract(
    "dropout.between_layers_only",
    "Dropout acts on what one layer hands to the next: not on the input, nor on any state, nor on the output of the last layer.",
    MUST,
    _SOURCE,
    _CASES,
    demonstration="""
        answers = [(output.data, *state) for output, state in (layer(x, hx) for _ in range(60))]
        # The largest of 60 masks: each number as it is when nothing that it sees was dropped.
        return [torch.stack(values).abs().amax(0) for values in zip(*answers)]
    """,
)
def between_layers_only(trial: Trial) -> None:
    reply = _in_training(trial)
    mask = mask_given(trial, reply)
    trial.agree(reply.arrays(), altered(trial.case, masks=[mask]))


@contract(
    "dropout.off_in_eval",
    "In eval mode dropout does nothing.",
    MUST,
    _SOURCE,
    [*_CASES, *_SURE],
    demonstration="""
        layer.eval()
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def off_in_eval(trial: Trial) -> None:
    trial.agree(trial.answer(trial.module().eval()).arrays(), answer(trial.case))


@contract(
    "dropout.zero_is_identity",
    "With p = 0 training mode gives what eval mode gives, and a single layer has nothing to drop.",
    MUST,
    _SOURCE,
    [*every(num_layers=2), *every(dropout=0.5, steps=6)],
)
def zero_is_identity(trial: Trial) -> None:
    trial.agree(_in_training(trial).arrays(), answer(trial.case))


@contract("dropout.one_drops_all", "With p = 1 every layer but the first reads zeros.", MUST, _SOURCE, _SURE)
def one_drops_all(trial: Trial) -> None:
    layer, case = trial.case.layer, trial.case
    zeros = [np.zeros((case.steps, case.batch, layer.output_size))] * (layer.num_layers - 1)
    trial.agree(_in_training(trial).arrays(), altered(case, masks=zeros))


@contract(
    "dropout.scaled",
    "What is kept is multiplied by 1 / (1 - p), and the share that is dropped is p.",
    MUST,
    "torch.nn.Dropout",
    [
        *every(dropout=0.7, **{**_READABLE, "steps": 24, "batch": 16}),
        *every(dropout=0.1, **{**_READABLE, "steps": 24, "batch": 16}),
        *every(dropout=0.4, **{**_READABLE, "dtype": "bfloat16"}),
    ],
    demonstration="""
        outputs = torch.stack([layer(x, hx)[0].data for _ in range(60)])[..., : reference.hidden_size]
        share = float((outputs.abs() < 1e-9).double().mean())
        assert abs(share - reference.dropout) < 0.02, f"a share of {share} is dropped"
        return outputs.abs().amax(0)
    """,
)
def scaled(trial: Trial) -> None:
    p = trial.case.layer.dropout
    reply = _in_training(trial)
    mask = mask_given(trial, reply)[~np.isnan(_factors(trial, reply))]
    share, count = float((mask == 0).mean()), mask.size
    # Six standard deviations of a binomial share: once in a billion by chance, and seeded, so never twice.
    allowed = 6 * (p * (1 - p) / count) ** 0.5 + 1e-2
    if abs(share - p) > allowed:
        raise ContractError(f"Expected a share of {p} to be dropped (give or take {allowed:.3f}) but it is {share:.3f} of {count} elements")


@contract(
    "dropout.seeded",
    "The same torch.manual_seed gives the same output.",
    MUST,
    "torch.manual_seed; Reproducibility",
    _CASES,
    demonstration="""
        first, second = ([torch.manual_seed(2), layer(x, hx)[0].data][1] for _ in range(2))
        assert torch.equal(first, second), (first - second).abs().max()
    """,
)
def seeded(trial: Trial) -> None:
    module = trial.module()
    first, again = _in_training(trial, 5, module).arrays(), _in_training(trial, 5, module).arrays()
    for name, value in first.items():
        if not np.array_equal(value, again[name]):
            raise ContractError(
                f"Expected the same {name} after the same torch.manual_seed, but it differs by {abs(value - again[name]).max():.3g}"
            )


@contract(
    "dropout.fresh_mask",
    "The mask is drawn anew at each call, whatever the form of the input, and differs over time steps, batch items and features.",
    MUST,
    "torch.nn.Dropout; pytorch#190056: a mask reused across steps",
    [
        *_CASES,
        *every(dropout=0.5, **{**_READABLE, "steps": 1, "batch": 70}),
        *every(dropout=0.5, **{**_READABLE, "steps": 70, "batch": 1}, batched=False),
    ],
    demonstration="""
        mask, second = (layer(x, hx)[0].data[..., : reference.hidden_size].abs() < 1e-9 for _ in range(2))
        pairs = [(mask, second), *((mask, mask.narrow(a, 0, 1).expand_as(mask)) for a in range(mask.dim()) if mask.shape[a] > 1)]
        lags = [(axis, lag, mask.shape[axis] - lag) for axis in (0, 1) for lag in (16, 32, 64) if mask.shape[axis] > lag]
        pairs += [(mask.narrow(axis, lag, rest), mask.narrow(axis, 0, rest)) for axis, lag, rest in lags]
        assert all((one != other).double().mean() > 0.05 for one, other in pairs), "the mask repeats itself"
    """,
)
def fresh_mask(trial: Trial) -> None:
    module = trial.module().train()
    torch.manual_seed(3)
    # Padding has no mask.
    first, second = (np.where(trial.case.valid[:, :, None], mask_given(trial, trial.answer(module)), np.nan) for _ in range(2))
    p = trial.case.layer.dropout
    chance = p**2 + (1 - p) ** 2
    pairs = {"from call to call": (first, second), "over the features": (first[:, :, 1:], first[:, :, :-1])}
    pairs |= {"over the time steps": (first[1:], first[:-1]), "over the batch items": (first[:, 1:], first[:, :-1])}
    for lag in (16, 32, 64):
        pairs |= {f"over {lag} time steps": (first[lag:], first[:-lag]), f"over {lag} batch items": (first[:, lag:], first[:, :-lag])}
    if trial.case.layer.bidirectional:
        half = first.shape[2] // 2
        pairs["between the directions"] = (first[:, :, :half], first[:, :, half:])
    for what, (one, other) in pairs.items():
        known = ~np.isnan(one) & ~np.isnan(other)
        if not known.any():
            continue
        same = float((one == other)[known].mean())
        if same > chance + 6 * (chance * (1 - chance) / known.sum()) ** 0.5 + 0.02:
            raise ContractError(f"Expected the mask to differ {what}: by chance {chance:.0%} of neighbours agree, but {same:.0%} do")


@contract(
    "dropout.own_mask_between_layers",
    "With three layers, the mask between the second and the third is another than that between the first and the second.",
    MUST,
    _SOURCE,
    [*every(dropout=0.5, **{**_READABLE, "num_layers": 3}), *every(dropout=0.3, bidirectional=True, **{**_READABLE, "num_layers": 3})],
    demonstration="""
        layer.eval()
        return layer(x, hx)
    """,
)
def own_mask_between_layers(trial: Trial) -> None:
    layer, p = trial.case.layer, trial.case.layer.dropout
    read = read_back(layer, to_array(_in_training(trial, seed=5).tensors["output"]))
    # What the second layer answered, where it was kept, says in turn what it was given.
    kept = np.abs(read) > 1e-9
    with np.errstate(invalid="ignore"):
        given = read_back(layer, np.where(kept, read * (1 - p), np.nan))
    gone = (~kept | (np.abs(given) < 1e-9))[np.abs(_below(trial.case)) > 1e-6]
    expected, share = 1 - (1 - p) ** 2, float(gone.mean())
    if abs(share - expected) > 6 * (expected * (1 - expected) / gone.size) ** 0.5 + 0.02:
        raise ContractError(f"Expected two masks to drop {expected:.0%} of the features, but {share:.0%} are gone: one mask drops {p:.0%}")


@contract(
    "dropout.same_mask_in_backward",
    "The backward pass uses the mask of the forward pass: gradients are those of the function that was computed.",
    MUST,
    "torch.autograd; haste#43, pytorch PR#189285: a mask not replayed in backward",
    _CASES,
    demonstration="""
        def call(bias):
            torch.manual_seed(2)
            return torch.func.functional_call(layer, {"bias_ih_l0": bias}, (x, hx))[0][0]
        assert torch.autograd.gradcheck(call, layer.bias_ih_l0.detach().requires_grad_(), fast_mode=True, raise_exception=False)
    """,
)
def same_mask_in_backward(trial: Trial) -> None:
    through = ("output", "h_n", "c_n") if trial.case.layer.has_cell_state else ("output", "h_n")
    module = trial.module().train()
    mask = mask_given(trial, _in_training(trial, 7, module))
    torch.manual_seed(7)
    actual = trial.gradients(through, module)
    trial.agree(actual, altered(trial.case, masks=[mask], through=through))


@contract(
    "dropout.attribute_is_live",
    "Setting the attribute dropout takes effect at the next call.",
    SHOULD,
    _SOURCE,
    [*every(num_layers=2), *_SURE[:4]],
    demonstration="""
        with torch.no_grad():
            layer(x, hx)
            layer.dropout = 1.0 - reference.dropout
            return layer(x, hx)
    """,
)
def attribute_is_live(trial: Trial) -> None:
    layer, case = trial.case.layer, trial.case
    module = trial.module()
    _in_training(trial, 0, module)
    now = 0.0 if layer.dropout else 1.0
    setattr(module, "dropout", now)  # noqa: B010 -- nn.Module's attributes have no types
    zeros = [np.zeros((case.steps, case.batch, layer.output_size))] * (layer.num_layers - 1)
    trial.agree(_in_training(trial, 0, module).arrays(), altered(case, masks=zeros) if now else answer(case))

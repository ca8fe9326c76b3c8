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
from harness.reproduction import BACKWARD
from harness.trial import Answer, ContractError, Trial, where
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MUST, SHOULD, contract, in_docs
from suites.conformance.gradients import every_output

SOURCE = in_docs("LSTM: dropout")
READABLE: dict[str, Any] = {"num_layers": 2, "weights": "readable", "dtype": "float64", "hidden_size": 6, "steps": 12, "batch": 8}
CASES = [
    *every(dropout=0.4, **READABLE),
    *every(dropout=0.25, bidirectional=True, **READABLE),
    *every(dropout=0.5, lengths=(7, 12, 3, 12, 1, 9, 12, 5), **READABLE),
    *every(dropout=0.5, batch_first=True, **{**READABLE, "dtype": "float32"}),
    make(LSTM, dropout=0.5, proj_size=4, bidirectional=True, **READABLE),
]
#: Without biases a mask can be read of one step alone.
NO_BIAS: dict[str, Any] = {**READABLE, "bias": False, "steps": 1, "batch": 70, "given_state": False}
_SURE = [
    *every(num_layers=3, dropout=1.0, bidirectional=True),
    *every(num_layers=6, dropout=1.0, steps=3, batch=2),
    *every(RNN_TANH, RNN_RELU, GRU, num_layers=2, dropout=1.0, batch_first=True, dtype="float64"),
    make(LSTM, num_layers=2, dropout=1.0, batch_first=True, dtype="float64", proj_size=2),
    *every(num_layers=3, dropout=1.0, bias=False, bidirectional=True, lengths=(2, 5, 3), given_state=False),
    *every(num_layers=3, dropout=1.0, bias=False, bidirectional=True, batch=1, batched=False, steps=3),
    *every(num_layers=3, dropout=1.0, lengths=(2, 5, 3)),
]
#: How far a factor that is read back may be off, and the smallest undropped value from which one is read.
_READ_ERROR: dict[str, tuple[float, float]] = {
    "float64": (1e-5, 1e-8),
    "float32": (1e-2, 1e-2),
    "float16": (0.1, 0.25),
    "bfloat16": (0.2, 0.25),
}


def in_training(trial: Trial, seed: int = 0, module: torch.nn.Module | None = None, recorded: bool = False) -> Answer:
    """The answer in training after ``seed``; ``recorded``: with gradients, for which a layer may draw its masks another way."""
    module = (module or trial.module()).train()
    torch.manual_seed(seed)
    return trial.call(module, *trial.form(trial.leaves(requires_grad=True))) if recorded else trial.answer(module)


def could_set_dropout(module: torch.nn.Module, p: float) -> bool:
    """Sets the attribute dropout if it lets itself be set: one that is read-only, or a module, says so, and misleads nobody."""
    try:
        setattr(module, "dropout", p)  # noqa: B010 -- nn.Module's attributes have no types
    except (AttributeError, TypeError):
        return False
    return True


def below(case: Case) -> Array:
    """What the first layer answers: the input of the second before dropout, (T, B, D*H)."""
    layer = replace(case.layer, num_layers=1, dropout=0.0)
    arrays, slots = case.arrays, layer.directions
    c0 = None if arrays.c0 is None else arrays.c0[:slots]
    weights = {name: arrays.weights[name] for name in layer.parameter_shapes()}
    return oracle.forward(layer, weights, arrays.x, arrays.h0[:slots], c0, case.valid).output


def _factors(trial: Trial, reply: Answer, turned: int = 0) -> Array:
    """The factor that dropout gave each element between the layers, (T, B, D*H); NaN where the undropped value was too small to tell."""
    undropped = below(trial.case)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.roll(read_back(trial.case.layer, to_array(reply.tensors["output"])), turned, axis=2) / undropped
    least = _READ_ERROR[trial.case.dtype][1]
    return np.where((np.abs(undropped) > least) & trial.case.valid[:, :, None], factors, np.nan)


def mask_given(trial: Trial, reply: Answer, turned: int = 0) -> Array:
    """The mask, exactly: each factor is 0 or 1 / (1 - p), or it raises. ``turned``: unit u of the upper layer reads feature u + turned."""
    p, close = trial.case.layer.dropout, _READ_ERROR[trial.case.dtype][0]
    factors = _factors(trial, reply, turned)
    scaled = factors * (1 - p)
    wrong = ~np.isnan(scaled) & (np.abs(scaled) > close) & (np.abs(scaled - 1) > close)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ContractError(
            f"Expected every element between the layers to be multiplied by 0 or 1/(1-p) = {1 / (1 - p):.4g}, "
            f"but the one at step {place[0]}, batch item {place[1]}, feature {place[2]} was multiplied by {factors[place]:.6g}"
        )
    return np.where(np.isnan(scaled), 1.0, np.round(scaled)) / (1 - p)


def mask_of_other_direction(trial: Trial, seed: int, recorded: bool = False) -> Array:
    """The mask as either direction of the upper of two layers is given it of those features that only the other direction reads."""
    weights, width = trial.case.arrays.weights, trial.case.layer.state_size
    exchanged = {name: np.roll(weights[name], width, axis=1) for name in ("weight_ih_l1", "weight_ih_l1_reverse")}
    return mask_given(trial, in_training(trial, seed, trial.module(weights={**weights, **exchanged}), recorded), turned=width)


@contract(
    "dropout.between_layers_only",
    "Dropout acts on what one layer hands to the next: not on the input, nor on any state, nor on the output of the last layer.",
    MUST,
    SOURCE,
    [
        *CASES,
        *every(dropout=0.5, bidirectional=True, lengths=(7, 12, 3, 12, 1, 9, 12, 5), **READABLE),
        *every(dropout=0.4, **NO_BIAS),
        *every(dropout=0.4, bidirectional=True, **NO_BIAS, lengths=(1,) * 70),
    ],
    demonstration="""
        with torch.inference_mode():
            answers = [(output.data, *state) for output, state in (layer(x, hx) for _ in range(60))]
        # The largest of 60 masks: each number as it is when nothing that it sees was dropped.
        return [torch.stack(values).abs().amax(0) for values in zip(*answers)]
    """,
)
def between_layers_only(trial: Trial) -> None:
    module, known, expected = trial.module().train(), np.zeros(0), None
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        torch.manual_seed(0)
        with mode(), where(f"under {mode.__name__}"):
            reply = trial.call(module, *trial.form(trial.leaves()))
            mask = mask_given(trial, reply)
            if expected is None or not np.array_equal(mask, known):
                known, expected = mask, altered(trial.case, masks=[mask])
            trial.agree(reply.arrays(), expected)


@contract(
    "dropout.off_in_eval",
    "In eval mode dropout does nothing.",
    MUST,
    SOURCE,
    [*CASES, *_SURE],
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
    SOURCE,
    [*every(num_layers=2), *every(dropout=0.5, steps=6)],
)
def zero_is_identity(trial: Trial) -> None:
    trial.agree(in_training(trial).arrays(), answer(trial.case))


@contract(
    "dropout.one_drops_all",
    "With p = 1 every layer but the first reads zeros, and what lies below the last layer gets no gradient from the output.",
    MUST,
    SOURCE,
    _SURE,
    demonstration=BACKWARD,
)
def one_drops_all(trial: Trial) -> None:
    layer, case, module = trial.case.layer, trial.case, trial.module()
    zeros = [np.zeros((case.steps, case.batch, layer.output_size))] * (layer.num_layers - 1)
    trial.agree(in_training(trial, module=module).arrays(), altered(case, masks=zeros))
    leaves = trial.leaves(requires_grad=True)
    trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
    last = f"_l{layer.num_layers - 1}"
    below_last = {"x": leaves["x"], **{name: value for name, value in trial.parameters(module).items() if last not in name}}
    for name, value in below_last.items():
        if value.grad is not None and value.grad.count_nonzero():
            raise ContractError(f"Expected no gradient of {name}, above which all is dropped, but it is up to {value.grad.abs().max():.3g}")


@contract(
    "dropout.scaled",
    "What is kept is multiplied by 1 / (1 - p), and the share that is dropped is p.",
    MUST,
    "torch.nn.Dropout",
    [
        # So small and so large that bounds on p are seen.
        *every(dropout=0.95, **{**READABLE, "steps": 24, "batch": 16}),
        # So many that a p which is rounded to sixty-fourths is seen.
        *every(dropout=0.01, **{**READABLE, "steps": 12, "batch": 600, "hidden_size": 18, "dtype": "float32"}),
        *every(dropout=0.4, **{**READABLE, "dtype": "bfloat16"}),
        *every(dropout=0.4, **{**READABLE, "dtype": "float16"}),
        *every(dropout=0.4, batch_first=True, **{**READABLE, "dtype": "float32"}),
    ],
    demonstration="""
        outputs = torch.stack([layer(x, hx)[0].data for _ in range(60)])[..., : reference.hidden_size]
        share, p = float((outputs.abs() <= 1e-9).double().mean()), reference.dropout
        assert abs(share - p) < 0.002 + 6 * (p * (1 - p) / outputs.numel()) ** 0.5, f"a share of {share} is dropped"
        return outputs.abs().amax(0)
    """,
)
def scaled(trial: Trial) -> None:
    require_share(trial, in_training(trial))


def require_share(trial: Trial, reply: Answer) -> None:
    """Raises unless a share of p was dropped in ``reply``, and the rest scaled up."""
    p = trial.case.layer.dropout
    mask = mask_given(trial, reply)[~np.isnan(_factors(trial, reply))]
    share, count = float((mask == 0).mean()), mask.size
    # Six standard deviations of a binomial share: once in a billion by chance, and seeded, so never twice.
    allowed = 6 * (p * (1 - p) / count) ** 0.5
    if abs(share - p) > allowed:
        raise ContractError(f"Expected a share of {p} to be dropped (give or take {allowed:.4f}) but it is {share:.4f} of {count} elements")


@contract(
    "dropout.same_mask_in_backward",
    "The backward pass, and a second one through the same graph, uses mask, p and mode of the forward pass, whatever was called since: "
    "gradients are those of the function that was computed.",
    MUST,
    "torch.autograd; haste#43, pytorch PR#189285: a mask not replayed in backward",
    # Not a relu without biases: where what a unit reads is dropped it is at zero, and each of its slopes there is right.
    [*CASES, *every(RNN_TANH, GRU, LSTM, dropout=0.4, **NO_BIAS)],
    demonstration="""
        names = "weight_ih_l1", *(("bias_ih_l0", "bias_ih_l1") if reference.bias else ("weight_ih_l0",))
        def call(shift, p=reference.dropout):
            moved, layer.train().dropout = {name: getattr(layer, name).detach() + shift for name in names}, torch.manual_seed(2) and p
            return [torch.func.functional_call(layer, moved, (x, hx))[0][0], layer(x), setattr(layer.eval(), "dropout", 0)][0]
        torch.autograd.gradcheck(call, torch.tensor(0.1, dtype=dtype, requires_grad=True), fast_mode=True)
    """,
)
def same_mask_in_backward(trial: Trial) -> None:
    through = every_output(trial)
    module, leaves = trial.module().train(), trial.leaves(requires_grad=True)
    torch.manual_seed(7)
    reply = trial.call(module, *trial.form(leaves))
    mask = mask_given(trial, reply)
    # Draws another mask, which is its own.
    trial.call(module, *trial.form(trial.leaves()))
    # Both are for the calls to come, not for the backward passes of those that were.
    could_set_dropout(module, 0.0)
    module.eval()
    wanted = trial.wanted(leaves, module)
    passes = []
    for again in (False, True):
        for leaf in wanted.values():
            leaf.grad = None
        trial.backward(reply, through, retain_graph=not again)
        passes.append(trial.collect(wanted))
    expected = altered(trial.case, masks=[mask], through=through)
    if trial.case.layer.bidirectional and not np.array_equal(mask, other := mask_of_other_direction(trial, 7, recorded=True)):
        # A mask of its own for each direction is a breach of dropout.one_mask_for_both_directions alone. What a direction was given and
        # does not read shows in the gradient of its weights.
        first = np.arange(mask.shape[2]) < trial.case.layer.state_size
        for name, read in (("weight_ih_l1", first), ("weight_ih_l1_reverse", ~first)):
            right = altered(trial.case, masks=[np.where(read, mask, other)], through=through).tensors[name]
            expected = replace(expected, tensors={**expected.tensors, name: right})
    for number, actual in zip(("first", "second"), passes, strict=True):
        with where(f"the {number} backward pass"):
            trial.agree(actual, expected, only=list(wanted))


@contract(
    "dropout.attribute_is_live",
    "Setting the attribute dropout takes effect at the next call.",
    SHOULD,
    SOURCE,
    [
        *every(num_layers=2, lengths=(2, 5, 3)),
        *every(num_layers=2, batch=1, batched=False, dtype="bfloat16"),
        *every(num_layers=2, batch_first=True, dropout=1.0),
        *_SURE[:4],
        # From one share to another: p and the scale that follows from it.
        *every(dropout=0.5, **READABLE),
        *every(dropout=0.5, lengths=(7, 12, 3, 12, 1, 9, 12, 5), **READABLE),
    ],
    demonstration="""
        with torch.no_grad():
            layer.train()(x, hx)
            layer.dropout = 0.25 if 0 < reference.dropout < 1 else 1.0 - reference.dropout
            return layer(x, hx) if layer.dropout != 0.25 else torch.stack([layer(x, hx)[0].data for _ in range(60)]).abs().amax(0)
    """,
)
def attribute_is_live(trial: Trial) -> None:
    layer, case = trial.case.layer, trial.case
    half = 0 < layer.dropout < 1
    now = layer.dropout if half else 1.0 - layer.dropout
    # A layer that refuses the option when it is built has no dropout that an attribute could turn on.
    other = trial.module(replace(layer, dropout=layer.dropout / 2 if half else now))
    module = other if half else trial.module()
    in_training(trial, 0, module)
    if not could_set_dropout(module, now):
        raise NotImplementedError("its attribute dropout cannot be set")
    # Without train(), which is none of setting an attribute.
    torch.manual_seed(0)
    reply = trial.answer(module)
    if half:
        require_share(trial, reply)
        return
    zeros = [np.zeros((case.steps, case.batch, layer.output_size))] * (layer.num_layers - 1)
    trial.agree(reply.arrays(), altered(case, masks=zeros) if now else answer(case))

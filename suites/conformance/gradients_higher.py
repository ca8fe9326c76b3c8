"""Derivatives that come another way than by one backward pass: second ones, in forward mode, as a function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.case import Array
from harness.reference import Expected, altered, gradients, tensor, to_array
from harness.trial import ContractError, Trial, may_refuse, where
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MAY, contract
from suites.conformance.gradients import as_function, every_output

#: As small as second derivatives by differences want it.
_SMALL: dict[str, Any] = {"input_size": 2, "hidden_size": 2, "dtype": "float64"}

#: The step of the differences that a derivative is held against, either way.
_STEP = 1e-6

#: By how much a derivative in float64 may be off from such a difference, where it is of order one. The second derivatives of torch's
#: layers and of plain loops are off by less than 1e-9.
_SLOPE = 1e-6


@contract(
    "gradients.of_gradients",
    "A second backward pass, through the gradients of the first, and these, made with create_graph, are right or refused with an error.",
    MAY,
    "torch.autograd.gradgradcheck",
    [
        # Together all options: a layer may have a backward pass by hand in one form and leave another to autograd.
        *every(steps=6, batch=2, num_layers=2, batch_first=True, **_SMALL),
        *every(RNN_TANH, RNN_RELU, GRU, steps=2, batch=1, batched=False, num_layers=3, bidirectional=True, bias=False, **_SMALL),
        make(LSTM, steps=2, batch=1, batched=False, num_layers=3, bidirectional=True, bias=False, proj_size=1, **_SMALL),
        *every(steps=2, batch=2, lengths=(1, 2), bidirectional=True, **_SMALL),
        make(LSTM, steps=2, batch=2, lengths=(1, 2), proj_size=1, **_SMALL),
        # More steps than a chunk has, more sequences and units than a tile.
        *every(steps=66, batch=2, bidirectional=True, **_SMALL),
        *every(steps=3, batch=34, input_size=3, hidden_size=34, dtype="float64"),
    ],
    demonstration="""
        output, state = layer(x, hx)
        loss = sum(value.square().sum() for value in (output[0] if isinstance(output, tuple) else output, *state))
        first = torch.autograd.grad(loss, [*leaves, *(p for _, p in sorted(layer.named_parameters()))], create_graph=True)
        return first, torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    """,
)
def of_gradients(trial: Trial) -> None:
    function, values = as_function(trial)
    through = every_output(trial)
    cotangents = [tensor(trial.case.arrays.cotangents[name], trial.case) for name in through]
    with trial.blamed("backward"):
        # Of a call of its own: torch.compile has buffers that a first pass gives away unless it knows of a second.
        torch.autograd.grad(function(*values), values, cotangents, allow_unused=True)
    first = with_graph(trial, function, values)
    # All at once: the second derivatives are held against differences of the first ones, which may miss the same part.
    trial.agree(dict(zip(_names(trial), map(to_array, first.filled()), strict=True)), gradients(trial.case, through))
    second_derivatives_agree(trial, function, first)


@dataclass(frozen=True)
class WithGraph:
    """Gradients made with create_graph: those of ``values`` for ``cotangents`` of ``answers``. Cotangents and values are leaves."""

    values: Sequence[Tensor]
    cotangents: Sequence[Tensor]
    answers: Sequence[Tensor]
    gradients: Sequence[Tensor | None]

    def filled(self) -> list[Tensor]:
        """The gradients, of zeros where there are none."""
        return [torch.zeros_like(value) if g is None else g for value, g in zip(self.values, self.gradients, strict=True)]


def with_graph(trial: Trial, function: Callable[..., Any], values: Sequence[Tensor]) -> WithGraph:
    """The gradients of ``values``, with a graph, for the case's cotangents of all that ``function`` answers; an error is a refusal."""
    # Cotangents that need a gradient themselves: only then does torch ask a backward pass of one's own to be differentiable.
    cotangents = [tensor(trial.case.arrays.cotangents[name], trial.case).requires_grad_() for name in every_output(trial)]
    with may_refuse("backward with create_graph"):
        answers = function(*values)
        first = torch.autograd.grad(answers, values, cotangents, create_graph=True, allow_unused=True)
    return WithGraph(values, cotangents, answers, first)


def second_derivatives_agree(trial: Trial, function: Callable[..., Any], first: WithGraph) -> None:
    """What a second backward pass through ``first`` gives is the limit of differences.

    Its cotangents are a random direction u of the values. With L the answers' product with their cotangents, the pass gives H u in the
    values, where H is the matrix of second derivatives of L, and in the cotangents J u, where J is the answers' Jacobian. H is symmetric,
    so both are slopes along u: of the gradients and of the answers (Pearlmutter 1994: Fast exact multiplication by the Hessian).
    """
    names = _names(trial)
    # Each of them: all depend on the cotangents.
    if bare := [name for name, g in zip(names, first.gradients, strict=True) if g is not None and not g.requires_grad]:
        raise ContractError(
            f"Expected the gradients to carry a graph, or an error, but that of {', '.join(bare)} does not: a penalty on it would be "
            "dropped in silence"
        )
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device) for value in first.values]
    leaves = [*first.values, *first.cotangents]
    for leaf in leaves:
        leaf.grad = None
    passed = [(g, u) for g, u in zip(first.gradients, direction, strict=True) if g is not None]
    with may_refuse("double backward"):
        # backward(), because once_differentiable lets autograd.grad() pass by the node that raises.
        torch.autograd.backward([g for g, _ in passed], [u for _, u in passed])
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    ahead, behind = (_moved(trial, function, first, direction, step) for step in (_STEP, -_STEP))
    names += [f"the cotangent of {name}" for name in every_output(trial)]
    for name, got, after, before in zip(names, found, ahead, behind, strict=True):
        right = (after - before) / (2 * _STEP)
        error = (got - right).abs().max()
        if not error <= _SLOPE * max(1.0, float(right.abs().max())):
            raise ContractError(
                f"Expected what a second backward pass gives in {name} to be the limit of differences, up to {right.abs().max():.2g}, but "
                f"it is off by up to {error:.2g}"
            )


def _names(trial: Trial) -> list[str]:
    """The names of the values that :func:`as_function` gives."""
    return [*trial.leaves(), *trial.case.arrays.weights]


def _moved(trial: Trial, function: Callable[..., Any], first: WithGraph, direction: Sequence[Tensor], step: float) -> list[Tensor]:
    """The gradients of the values, and then the answers, ``step`` along ``direction`` from where the values are."""
    kept = [value.detach().clone() for value in first.values]
    with torch.no_grad():
        for value, along in zip(first.values, direction, strict=True):
            value.add_(along, alpha=step)
    try:
        with trial.blamed("backward"):
            answers = function(*first.values)
            found = torch.autograd.grad(answers, first.values, [cotangent.detach() for cotangent in first.cotangents], allow_unused=True)
    finally:
        with torch.no_grad():
            for value, before in zip(first.values, kept, strict=True):
                value.copy_(before)
    return [*replace(first, gradients=found).filled(), *(answer.detach() for answer in answers)]


@contract(
    "gradients.forward_mode",
    "Forward-mode differentiation (torch.func.jvp) along the inputs, and along the weights, is right or refused with an error, with "
    "trainable weights and with frozen ones.",
    MAY,
    "torch.func.jvp",
    [
        *every(input_size=2, hidden_size=3, steps=3, batch=2, dtype="float64"),
        *every(input_size=2, hidden_size=3, steps=3, batch=1, num_layers=2, bidirectional=True, dtype="float64"),
    ],
    demonstration="""
        layer.requires_grad_(False)
        def call(weights, x, *states):
            return torch.func.functional_call(layer, weights, (x, states if len(states) == 2 else states[0]))[0]
        tree, given = torch.utils._pytree.tree_map, (dict(layer.named_parameters()), *leaves)
        slope = torch.func.jvp(call, given, tree(torch.ones_like, given))[1]
        ahead, behind = (call(*tree(lambda value: value + step, given)) for step in (1e-6, -1e-6))
        assert (slope - (ahead - behind) / 2e-6).abs().max() < 1e-6
    """,
)
def forward_mode(trial: Trial) -> None:
    case = trial.case
    module = trial.module()
    leaves = trial.leaves()
    tangents = {name: torch.ones_like(value) for name, value in leaves.items()}

    def function(*values: Tensor) -> Any:
        return tuple(trial.call(module, *trial.form(dict(zip(leaves, values, strict=True)))).tensors.values())

    ahead, behind = ({name: array + step for name, array in case.arrays.inputs().items()} for step in (_STEP, -_STEP))
    slopes = _slopes(altered(case, inputs=ahead), altered(case, inputs=behind))
    for trainable in (True, False):
        module.requires_grad_(trainable)
        with may_refuse("forward mode"):
            found: Any = torch.func.jvp(function, tuple(leaves.values()), tuple(tangents.values()))[1]
        _agree_along(f"the inputs, with {'trainable' if trainable else 'frozen'} weights,", found, slopes)
    _along_the_weights(trial, module)


def _along_the_weights(trial: Trial, module: torch.nn.Module) -> None:
    case = trial.case
    weights = {name: parameter.detach() for name, parameter in trial.parameters(module).items()}
    input, hx = trial.form(trial.leaves())

    def function(given: dict[str, Tensor]) -> Any:
        return tuple(trial.structured(torch.func.functional_call(module, given, (input, hx)), input).tensors.values())

    with may_refuse("forward mode along the weights"):
        found: Any = torch.func.jvp(function, (weights,), ({name: torch.ones_like(value) for name, value in weights.items()},))[1]
    ahead, behind = ({name: array + step for name, array in case.arrays.weights.items()} for step in (_STEP, -_STEP))
    _agree_along("the weights", found, _slopes(altered(case, weights=ahead), altered(case, weights=behind)))


def _slopes(after: Expected, before: Expected) -> dict[str, Array]:
    return {name: (value - before.tensors[name]) / (2 * _STEP) for name, value in after.tensors.items()}


def _agree_along(what: str, found: Sequence[Tensor], slopes: dict[str, Array]) -> None:
    for (name, slope), tangent in zip(slopes.items(), found, strict=True):
        got = to_array(tangent)
        error = abs(got - slope)
        if (error < _SLOPE * max(1.0, abs(slope).max())).all():
            continue
        # Those of torch.library's operators are lost so, in silence.
        lost = "it is zero: the tangents are lost on the way" if not got.any() else f"it is off by up to {error.max():.2g}"
        raise ContractError(f"Expected the derivative of {name} along {what} to be the oracle's, up to {abs(slope).max():.2g}, but {lost}")


@contract(
    "gradients.functional",
    "torch.func.grad in the weights, through functional_call, and in input and state gives what backward() gives, or is refused with an "
    "error.",
    MAY,
    "torch.func.grad, torch.func.functional_call",
    [*every(num_layers=2, steps=4, batch=2), *every(bidirectional=True, given_state=False, batch_first=True, steps=4, batch=2)],
    demonstration="""
        weights = {name: p.detach() for name, p in layer.named_parameters()}
        given = (x,) if hx is None else (x, hx)
        found = torch.func.grad(lambda w: torch.func.functional_call(layer, w, given)[0].square().sum())(weights)
        of_inputs = torch.func.grad(lambda given: layer(*given)[0].square().sum())(torch.utils._pytree.tree_map(torch.Tensor.detach, given))
        return [found[name] for name in sorted(found)], of_inputs
    """,
)
def functional(trial: Trial) -> None:
    case, module = trial.case, trial.module()
    weights = {name: parameter.detach() for name, parameter in trial.parameters(module).items()}
    given = tuple(value for value in trial.form(trial.leaves()) if value is not None)
    output = tensor(case.arrays.cotangents["output"], case)
    output = output.transpose(0, 1) if case.layer.batch_first else output
    trial.answer(module)
    with may_refuse("torch.func.grad"):
        found: Any = torch.func.grad(lambda w: (torch.func.functional_call(module, w, given)[0] * output).sum())(weights)
    trial.agree({name: to_array(value) for name, value in found.items()}, gradients(case, ("output",)), only=list(weights))
    leaves = trial.leaves()
    wanted = list(leaves) if case.given_state else ["x"]

    def of_inputs(values: dict[str, Tensor]) -> Any:
        input, hx = trial.form({**leaves, **values})
        return ((module(input) if hx is None else module(input, hx))[0] * output).sum()

    with may_refuse("torch.func.grad in the inputs"):
        found = torch.func.grad(of_inputs)({name: leaves[name] for name in wanted})
    trial.agree({name: to_array(value) for name, value in found.items()}, gradients(case, ("output",)), only=wanted)


@contract(
    "gradients.per_sample",
    "Gradients for each sequence apart, by torch.vmap over torch.func.grad, are those of a batch of one, or refused with an error.",
    MAY,
    "torch.func: Per-sample-gradients",
    [*every(num_layers=2, steps=3, batch=3), *every(bidirectional=True, batch_first=True, steps=3, batch=2)],
    demonstration="""
        weights, tree = {name: p.detach() for name, p in layer.named_parameters()}, torch.utils._pytree.tree_map
        alone = lambda value, axis: value.movedim(axis, 0).unsqueeze(1 + axis)
        given = alone(x, 0 if reference.batch_first else 1), tree(lambda state: alone(state, 1), hx)
        of_one = torch.func.grad(lambda w, one, state: torch.func.functional_call(layer, w, (one, state))[0].square().sum())
        if layer is not reference: return torch.vmap(of_one, (None, 0, 0))(weights, *given)
        each = [of_one(weights, *tree(lambda value: value[i], given)) for i in range(len(given[0]))]
        return {name: torch.stack([one[name] for one in each]) for name in weights}
    """,
)
def per_sample(trial: Trial) -> None:
    case, module = trial.case, trial.module()
    weights = {name: parameter.detach() for name, parameter in trial.parameters(module).items()}
    given = {**trial.leaves(), "cotangent": tensor(case.arrays.cotangents["output"], case)}
    # The sequences first, each still a batch of one.
    each = {name: value.transpose(0, 1).unsqueeze(2) for name, value in given.items()}

    def loss(w: dict[str, Tensor], one: dict[str, Tensor]) -> Tensor:
        output = torch.func.functional_call(module, w, trial.form(one))[0]
        cotangent = one["cotangent"].transpose(0, 1) if case.layer.batch_first else one["cotangent"]
        total: Tensor = (output * cotangent).sum()
        return total

    trial.answer(module)
    with may_refuse("torch.vmap over torch.func.grad"):
        found: Any = torch.vmap(torch.func.grad(loss), (None, 0))(weights, each)
    for item in range(case.batch):
        alone = 0 * case.arrays.cotangents["output"]
        alone[:, item] = case.arrays.cotangents["output"][:, item]
        right = altered(case, through=("output",), cotangents={"output": alone})
        with where(f"sequence {item}"):
            trial.agree({name: to_array(value[item]) for name, value in found.items()}, right, only=list(weights))

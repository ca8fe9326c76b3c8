"""What else can be asked of autograd: repeated passes, a part of the gradients, shared and frozen weights and states.

Derivatives that come another way than by one backward pass are in ``gradients_higher.py``; what lies between a call and its backward
pass, in ``gradients_graph.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.reference import altered, gradients, tensor, to_array
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract
from suites.conformance.gradients import every_output

_PLAIN = [*every(num_layers=2, steps=4, batch=2), *every(bidirectional=True, batch_first=True)]


def _backward(trial: Trial, module: torch.nn.Module, retain: bool = False, passes: int = 1) -> dict[str, Tensor]:
    """Calls the module and goes back ``passes`` times through one graph; returns the leaves and parameters with their gradients."""
    leaves = trial.leaves(requires_grad=True)
    reply = trial.call(module, *trial.form(leaves))
    for _ in range(passes):
        trial.backward(reply, every_output(trial), retain_graph=retain)
    return {**leaves, **trial.parameters(module)}


def _times(trial: Trial, factor: float) -> Any:
    expected = gradients(trial.case, every_output(trial))
    return replace(expected, tensors={name: factor * value for name, value in expected.tensors.items()})


@contract(
    "gradients.repeated_backward",
    "With retain_graph three backward passes through one graph add up to three times the gradient.",
    MUST,
    "torch.Tensor.backward: retain_graph; pytorch#776",
    _PLAIN,
    demonstration="""
        output = layer(x, hx)[0]
        for _ in range(3):
            output.backward(torch.ones_like(output), retain_graph=True)
        return [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def repeated_backward(trial: Trial) -> None:
    trial.agree(trial.collect(_backward(trial, trial.module(), retain=True, passes=3)), _times(trial, 3))


@contract(
    "gradients.accumulated",
    "Two calls and two backward passes without zero_grad add up in the parameters, and zero_grad takes all of it away.",
    MUST,
    "torch.optim.Optimizer.zero_grad",
    _PLAIN,
    demonstration="""
        for _ in range(2):
            layer(x, hx)[0].sum().backward()
        found = [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
        return found, layer.zero_grad(), [p.grad for p in layer.parameters()]
    """,
)
def accumulated(trial: Trial) -> None:
    module = trial.module()
    _backward(trial, module)
    leaves = _backward(trial, module)
    names = list(trial.case.arrays.weights)
    trial.agree(trial.collect({name: leaves[name] for name in names}), _times(trial, 2), only=names)
    with trial.blamed("zero_grad()"):
        module.zero_grad()
    left = [name for name, parameter in trial.parameters(module).items() if parameter.grad is not None and parameter.grad.any()]
    if left:
        raise ContractError(f"Expected no gradient after zero_grad(), but {', '.join(left)} still has one")


@contract(
    "gradients.some_frozen",
    "Freezing any kind of parameter, or all but the biases, changes no other gradient, and gives the frozen ones none.",
    MUST,
    "torch.Tensor.requires_grad; pytorch#15788",
    [
        *every(num_layers=2, steps=4, batch=2),
        *every(bidirectional=True, steps=4, batch=2),
        *every(LSTM, proj_size=2, bidirectional=True),
    ],
    demonstration="""
        found = []
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight", ""):
            for name, p in layer.named_parameters():
                p.requires_grad_(not name.startswith(kind)).grad = None
            layer(x, hx)[0].sum().backward()
            found.append([p.grad for _, p in sorted(layer.named_parameters())])
        return layer(x.detach(), hx)[0].sum().backward(), found, [leaf.grad for leaf in leaves]
    """,
)
def some_frozen(trial: Trial) -> None:
    expected = gradients(trial.case, every_output(trial))
    kinds = sorted({name.partition("_l")[0] for name in trial.case.arrays.weights})
    for frozen in ([kind] for kind in kinds):
        _freeze_and_compare(trial, expected, lambda name, frozen=frozen: name.startswith(tuple(frozen)))  # type: ignore[misc]
    _freeze_and_compare(trial, expected, lambda name: "_l0" in name and not name.endswith("_reverse"))
    _freeze_and_compare(trial, expected, lambda name: not name.startswith("bias"))
    _freeze_and_compare(trial, expected, lambda name: True)
    # All of it frozen, as a pretrained layer is, and only what it is started from wants a gradient.
    module, leaves = trial.module().requires_grad_(False), trial.leaves(requires_grad=True)
    leaves["x"].requires_grad_(False)
    trial.backward(trial.call(module, *trial.form(leaves)), every_output(trial))
    del leaves["x"]
    trial.agree(trial.collect(leaves), expected, only=list(leaves))


def _freeze_and_compare(trial: Trial, expected: Any, frozen: Callable[[str], bool]) -> None:
    module = trial.module()
    for name, parameter in trial.parameters(module).items():
        parameter.requires_grad_(not frozen(name))
    leaves = _backward(trial, module)
    given = [name for name in trial.case.arrays.weights if frozen(name) and leaves[name].grad is not None]
    if given:
        raise ContractError(f"Expected no gradient for the frozen {', '.join(given)}")
    kept = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    trial.agree(trial.collect(kept), expected, only=list(kept))


@contract(
    "gradients.overflow_seen",
    "An infinity in the gradient that comes in is seen in those that go out, so that a GradScaler skips the step.",
    MUST,
    "torch.amp.GradScaler: steps whose gradients hold inf or NaN are skipped",
    [*every(num_layers=2), *every(bidirectional=True, batch_first=True)],
    demonstration="""
        (layer(x, hx)[0].flatten()[-1] * float("inf")).backward()
        return [p.grad.isfinite().all().double() for name, p in sorted(layer.named_parameters()) if "_l0" in name and "reverse" not in name]
    """,
)
def overflow_seen(trial: Trial) -> None:
    for poison in (float("inf"), float("nan")):
        module, leaves = trial.module(), trial.leaves(requires_grad=True)
        output = trial.call(module, *trial.form(leaves)).tensors["output"]
        cotangent = torch.zeros_like(output)
        cotangent[-1] = poison
        with trial.blamed("backward"):
            output.backward(cotangent)
        kept = {"x": leaves["x"], **trial.parameters(module)}
        lost = [name for name, leaf in kept.items() if leaf.grad is None or bool(leaf.grad.isfinite().all())]
        if lost:
            raise ContractError(
                f"Expected {poison} in the gradient of the output to be seen in that of {', '.join(lost)}, but it is finite"
            )


@contract(
    "gradients.in_eval",
    "Backward works after eval() as it does in training.",
    MUST,
    "torch.nn.Module.eval; pytorch#777",
    _PLAIN,
    demonstration="""
        layer.eval()(x, hx)[0].square().sum().backward()
        return [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def in_eval(trial: Trial) -> None:
    trial.agree(trial.collect(_backward(trial, trial.module().eval())), _times(trial, 1))


@contract(
    "gradients.input_without_grad",
    "The weights get their gradients where neither the input nor the state wants one, as in the first layer of any network.",
    MUST,
    "torch.Tensor.requires_grad",
    _PLAIN,
    demonstration="""
        layer(x, hx)[0].square().sum().backward()
        return [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def input_without_grad(trial: Trial) -> None:
    module = trial.module()
    trial.backward(trial.call(module, *trial.form(trial.leaves())), every_output(trial))
    weights = list(trial.case.arrays.weights)
    trial.agree(trial.collect(trial.parameters(module)), gradients(trial.case, every_output(trial)), only=weights)


@contract(
    "gradients.one_input_alone",
    "Each of x, h_0 and c_0 gets its gradient where it is the only one of them that wants one.",
    MUST,
    "torch.Tensor.requires_grad",
    _PLAIN,
    demonstration="""
        found = []
        for wanted in leaves:
            for leaf in leaves:
                leaf.requires_grad_(leaf is wanted)
            found.append(torch.autograd.grad(layer(x, hx)[0].square().sum(), wanted))
        return found
    """,
)
def one_input_alone(trial: Trial) -> None:
    expected = gradients(trial.case, every_output(trial))
    for wanted in trial.leaves():
        module, leaves = trial.module(), trial.leaves()
        leaves[wanted].requires_grad_()
        trial.backward(trial.call(module, *trial.form(leaves)), every_output(trial))
        trial.agree(
            trial.collect({wanted: leaves[wanted], **trial.parameters(module)}), expected, only=[wanted, *trial.case.arrays.weights]
        )


@contract(
    "gradients.tied_weights",
    "One Parameter shared by two directions or layers gets the sum of their gradients.",
    MUST,
    "torch.nn.Module.named_parameters: shared parameters",
    [*every(bidirectional=True), *every(num_layers=2, input_size=5, hidden_size=5, dtype="float64")],
    demonstration="""
        other = "weight_hh_l0_reverse" if reference.bidirectional else "weight_hh_l1"
        setattr(layer, other, layer.weight_hh_l0)
        layer(x, hx)[0].square().sum().backward()
        return layer.weight_hh_l0.grad
    """,
)
def tied_weights(trial: Trial) -> None:
    case = trial.case
    first, second = ("weight_hh_l0", "weight_hh_l0_reverse") if case.layer.bidirectional else ("weight_hh_l0", "weight_hh_l1")
    weights = {**case.arrays.weights, second: case.arrays.weights[first]}
    expected = altered(case, weights=weights, through=every_output(trial))
    module = trial.module(weights=weights)
    shared = trial.parameters(module)[first]
    with trial.blamed(f"assigning {first} to {second}"):
        setattr(module, second, shared)
    trial.backward(trial.call(module, *trial.form(trial.leaves())), every_output(trial))
    total = expected.tensors[first] + expected.tensors[second]
    floors = {"weight_hh": expected.floors[first] + expected.floors[second]}
    trial.agree({"weight_hh": trial.collect({first: shared})[first]}, replace(expected, tensors={"weight_hh": total}, floors=floors))


@contract(
    "gradients.shared_state",
    "One tensor given as h_0 and as c_0 gets the sum of their gradients.",
    MUST,
    "torch.autograd: a tensor that is used twice",
    [*every(LSTM, num_layers=2), *every(LSTM, bidirectional=True, steps=4, batch=2, dtype="float64")],
    demonstration="""
        layer(x, (leaves[1], leaves[1]))[0].square().sum().backward()
        return leaves[1].grad
    """,
)
def shared_state(trial: Trial) -> None:
    inputs = {"c0": trial.case.arrays.h0}
    expected = altered(trial.case, inputs=inputs, through=every_output(trial))
    leaves = trial.leaves(requires_grad=True)
    leaves["c0"] = leaves["h0"]
    trial.backward(trial.call(trial.module(), *trial.form(leaves)), every_output(trial))
    total = expected.tensors["h0"] + expected.tensors["c0"]
    floors = {"h0": expected.floors["h0"] + expected.floors["c0"]}
    trial.agree(trial.collect({"h0": leaves["h0"]}), replace(expected, tensors={"h0": total}, floors=floors))


@contract(
    "gradients.part_of_the_output",
    "A loss on one step of the output, or on one layer's h_n, gives the right gradients: what it leaves out counts as zero.",
    MUST,
    "torch.autograd: undefined gradients; pytorch#96416",
    [*every(num_layers=2, steps=6), *every(bidirectional=True, steps=4)],
    demonstration="""
        for pick in (lambda o, h: o[2], lambda o, h: o[-1], lambda o, h: h[0], lambda o, h: h[-1]):
            output, state = layer(x, hx)
            pick(output, state[0] if isinstance(state, tuple) else state).square().sum().backward()
        return [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def part_of_the_output(trial: Trial) -> None:
    case = trial.case
    for name, index in (("output", 2), ("output", case.steps - 1), ("h_n", 0), ("h_n", -1)):
        module, leaves = trial.module(), trial.leaves(requires_grad=True)
        reply = trial.call(module, *trial.form(leaves))
        cotangent = 0 * case.arrays.cotangents[name]
        cotangent[index] = case.arrays.cotangents[name][index]
        with trial.blamed("backward"):
            reply.tensors[name][index].backward(tensor(cotangent[index], case))
        actual = trial.collect({**leaves, **trial.parameters(module)})
        trial.agree(actual, altered(case, through=(name,), cotangents={name: cotangent}))


@contract(
    "gradients.learned_initial_state",
    "An initial state that is one learned vector, expanded over the batch, gets the gradients of all batch items.",
    MUST,
    "torch.Tensor.expand; a learned initial state",
    [*every(num_layers=2, batch=4), *every(bidirectional=True, batch_first=True, steps=4)],
    demonstration="""
        learned = [leaf[:, :1].detach().requires_grad_() for leaf in leaves[1:]]
        states = [one.expand(-1, leaves[1].shape[1], -1) for one in learned]
        layer(x, tuple(states) if isinstance(hx, tuple) else states[0])[0].sum().backward()
        return [one.grad for one in learned]
    """,
)
def learned_initial_state(trial: Trial) -> None:
    case = trial.case
    leaves = trial.leaves(requires_grad=True)
    learned = {name: value[:, :1].detach().requires_grad_() for name, value in leaves.items() if name != "x"}
    expanded = {"x": leaves["x"], **{name: value.expand(-1, case.batch, -1) for name, value in learned.items()}}
    trial.backward(trial.call(trial.module(), *trial.form(expanded)), ("output",))
    states = {name: to_array(value) for name, value in expanded.items() if name != "x"}
    each = altered(case, inputs=states, through=("output",))
    tensors = {name: each.tensors[name].sum(axis=1, keepdims=True) for name in learned}
    # The largest of the summed gradients may be larger or smaller than that of the single ones, which the floor is relative to.
    scale = {name: np.abs(each.tensors[name]).max() / (np.abs(tensors[name]).max() or 1.0) for name in learned}
    floors = {name: each.floors[name] * max(1.0, case.batch**0.5 * float(scale[name])) for name in learned}
    trial.agree(trial.collect(learned), replace(each, tensors=tensors, floors=floors))

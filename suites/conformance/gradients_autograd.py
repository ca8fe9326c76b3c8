"""What else can be asked of autograd: repeated passes, part of the output, overflow, shared weights and states.

Derivatives that come another way than by one backward pass are in ``gradients_higher.py``; what lies between a call and its backward
pass, in ``gradients_graph.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.case import Array, Case
from harness.reference import Expected, altered, gradients, tensor, to_array
from harness.reproduction import GRADIENTS
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract
from suites.conformance.gradients import every_output
from suites.conformance.gradients_wanted import IN_EVERY_DTYPE, OUTPUT, PLAIN, backward


def _times(trial: Trial, factor: float) -> Any:
    expected = gradients(trial.case, every_output(trial))
    return replace(expected, tensors={name: factor * value for name, value in expected.tensors.items()})


def _sum(each: Sequence[Expected]) -> Expected:
    """The gradients of several passes added up, with floors that are as large as all of theirs."""
    tensors: dict[str, Array] = {name: np.sum([one.tensors[name] for one in each], axis=0) for name in each[0].tensors}
    absolute = {name: sum(one.floors[name] * np.abs(one.tensors[name]).max() for one in each) for name in tensors}
    floors = {name: float(absolute[name] / (np.abs(tensor).max() or 1.0)) for name, tensor in tensors.items()}
    return Expected(tensors, {name: max(floor, each[0].floors[name]) for name, floor in floors.items()})


@contract(
    "gradients.repeated_backward",
    "With retain_graph three backward passes through one graph add up to three times the gradient.",
    MUST,
    "torch.Tensor.backward: retain_graph; pytorch#776",
    PLAIN,
    demonstration=f"""{OUTPUT}
for _ in range(3):
    output.backward(torch.ones_like(output), retain_graph=True)
return {GRADIENTS}
""",
)
def repeatedbackward(trial: Trial) -> None:
    trial.agree(trial.collect(backward(trial, trial.module(), retain=True, passes=3)), _times(trial, 3))


@contract(
    "gradients.accumulated",
    "Two calls on different data, and then a backward pass for each, add up in the parameters, as in a siamese network, and zero_grad "
    "takes all of it away.",
    MUST,
    "torch.autograd.backward: accumulates gradients in the leaves; torch.optim.Optimizer.zero_grad",
    IN_EVERY_DTYPE,
    demonstration="""
        tree, both = torch.utils._pytree.tree_map, (torch.Tensor.detach, torch.Tensor.clone)
        given = lambda f, keep: x._replace(data=keep(x.data * f)) if isinstance(x, tuple) else keep(x * f)
        for loss in [sum(value.sum() for value in layer(given(f, keep), tree(keep, hx))[1]) for keep in both for f in (1, 0.25)]:
            loss.backward(), layer(x, hx)
        found = [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
        return found, layer.zero_grad(), [p.grad for p in layer.parameters()]
    """,
)
def accumulated(trial: Trial) -> None:
    case, through = trial.case, every_output(trial)
    # Another batch, or a gradient that writes over the first one is not told from the sum.
    other = replace(case, inputs_seed=1)
    each = [gradients(case, through), altered(case, inputs=other.arrays.inputs(), through=through)]
    _accumulated(trial, other, each, trial.leaves())
    # As in most training. A gradient becomes .grad as it is where nobody else has it, which depends on what else is asked for: two
    # weights that get the same memory are then added to twice.
    _accumulated(trial, other, each, ["x"])
    # As in the first layer of any network. What wants no gradient is kept for those that do, and may be kept otherwise.
    _accumulated(trial, other, each, [])


def _accumulated(trial: Trial, other: Case, each: Sequence[Expected], wanting: Collection[str]) -> None:
    """``wanting``: which of x, h0 and c0 want gradients too."""
    module, through = trial.module(), every_output(trial)
    leaves = [trial.leaves(requires_grad=True, case=case) for case in (trial.case, other)]
    for name, leaf in (pair for each in leaves for pair in each.items()):
        leaf.requires_grad_(name in wanting)
    # What the first call needs for its backward pass is its own, and what comes of it stays, whatever is called in between.
    first, second = (trial.call(module, *trial.form(each)) for each in leaves)
    trial.answer(module, trial.leaves(case=other))
    trial.backward(first, through)
    trial.call(module, *trial.form(trial.leaves(case=other)))
    trial.backward(second, through)
    wanted = {name: leaf for name, leaf in leaves[0].items() if leaf.requires_grad}
    if wanted:
        trial.agree(trial.collect(wanted), each[0], only=list(wanted))
    trial.agree(trial.collect(trial.parameters(module)), _sum(each), only=list(trial.case.arrays.weights))
    with trial.blamed("zero_grad()"):
        module.zero_grad()
    left = [name for name, parameter in trial.parameters(module).items() if parameter.grad is not None and parameter.grad.any()]
    if left:
        raise ContractError(f"Expected no gradient after zero_grad(), but {', '.join(left)} still has one")


@contract(
    "gradients.overflow_seen",
    "An infinity in the gradient that comes in is seen in those that go out, so that a GradScaler skips the step.",
    MUST,
    "torch.amp.GradScaler: steps whose gradients hold inf or NaN are skipped",
    [*every(num_layers=2), *every(bidirectional=True, batch_first=True), *every(dtype="float16"), *every(dtype="bfloat16", num_layers=2)],
    demonstration="""
        (layer(x, hx)[0].flatten()[-1] * float("inf")).backward()
        own = [p for name, p in sorted(layer.named_parameters()) if "_l0" in name and "reverse" not in name]
        return [value.grad.isfinite().all().double() for value in (*leaves, *own)]
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
        kept = trial.wanted(leaves, module)
        lost = [name for name, leaf in kept.items() if leaf.grad is None or bool(leaf.grad.isfinite().all())]
        if lost:
            raise ContractError(
                f"Expected {poison} in the gradient of the output to be seen in that of {', '.join(lost)}, but it is finite"
            )


@contract(
    "gradients.tied_weights",
    "One Parameter shared by two directions or layers, or that is both biases or both weights of one, gets the sum of their gradients.",
    MUST,
    "torch.nn.Module.named_parameters: shared parameters",
    [*every(bidirectional=True), *every(num_layers=2, input_size=5, hidden_size=5, dtype="float64"), *every(input_size=5, hidden_size=5)],
    demonstration="""
        other = "l0_reverse" if reference.bidirectional else "l1" if reference.num_layers > 1 else ""
        for kind in ("weight_ih_", "weight_hh_") if other else ():
            setattr(layer, kind + other, getattr(layer, kind + "l0"))
        for name in ["bias_{}_l0", "bias_{}_" + other if other else "weight_{}_l0"]:
            setattr(layer, name.format("hh"), getattr(layer, name.format("ih")))
        layer(x, hx)[0].square().sum().backward()
        return [parameter.grad for _, parameter in sorted(layer.named_parameters())]
    """,
)
def tied_weights(trial: Trial) -> None:
    case = trial.case
    other = "l0_reverse" if case.layer.bidirectional else "l1"
    # The one that is shared, and the one whose place it takes as well.
    if len(list(case.layer.slots())) > 1:
        pairs = {f"{kind}_l0": f"{kind}_{other}" for kind in ("weight_ih", "weight_hh")}
        pairs |= {f"bias_ih_{suffix}": f"bias_hh_{suffix}" for suffix in ("l0", other)}
    else:
        pairs = {f"{kind}_ih_l0": f"{kind}_hh_l0" for kind in ("weight", "bias")}
    weights = {**case.arrays.weights, **{second: case.arrays.weights[first] for first, second in pairs.items()}}
    each = altered(case, weights=weights, through=every_output(trial))
    module = trial.module(weights=weights)
    parameters = trial.parameters(module)
    for first, second in pairs.items():
        with trial.blamed(f"assigning {first} to {second}"):
            setattr(module, second, parameters[first])
    trial.backward(trial.call(module, *trial.form(trial.leaves())), every_output(trial))
    tensors = {first: each.tensors[first] + each.tensors[second] for first, second in pairs.items()}
    floors = {first: each.floors[first] + each.floors[second] for first, second in pairs.items()}
    trial.agree(trial.collect({first: parameters[first] for first in pairs}), replace(each, tensors=tensors, floors=floors))


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
    "gradients.views_of_one_tensor",
    "Where the input and the states are views of one tensor, as of one large parameter, each part of it gets its gradient.",
    MUST,
    "torch.Tensor.view; torch.autograd: a tensor that is used twice",
    [*every(num_layers=2), *every(bidirectional=True, steps=4, batch=2)],
    demonstration="""
        whole = torch.cat([leaf.detach().reshape(-1) for leaf in leaves]).requires_grad_()
        given, *states = [part.view_as(leaf) for part, leaf in zip(whole.split([leaf.numel() for leaf in leaves]), leaves)]
        layer(given, tuple(states) if len(states) > 1 else states[0])[0].square().sum().backward()
        return whole.grad
    """,
)
def views_of_one_tensor(trial: Trial) -> None:
    leaves = trial.leaves()
    whole = torch.cat([leaf.reshape(-1) for leaf in leaves.values()]).requires_grad_()
    parts = whole.split([leaf.numel() for leaf in leaves.values()])
    views = {name: part.view_as(leaf) for (name, leaf), part in zip(leaves.items(), parts, strict=True)}
    trial.backward(trial.call(trial.module(), *trial.form(views)), every_output(trial))
    (found,) = trial.collect({"the tensor that input and states are views of": whole}).values()
    ends = np.cumsum([leaf.numel() for leaf in leaves.values()])[:-1]
    arrays = {name: part.reshape(leaves[name].shape) for name, part in zip(leaves, np.split(found, ends), strict=True)}
    trial.agree(arrays, gradients(trial.case, every_output(trial)), only=list(arrays))


@contract(
    "gradients.part_of_the_output",
    "A loss on one step of the output, or on one layer's h_n, gives the right gradients: what it leaves out counts as zero.",
    MUST,
    "torch.autograd: undefined gradients; pytorch#96416",
    [*every(num_layers=2, steps=6), *every(num_layers=2, bidirectional=True, steps=4)],
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
        actual = trial.collect(trial.wanted(leaves, module))
        with where(f"of a loss on {name}[{index}]"):
            trial.agree(actual, altered(case, through=(name,), cotangents={name: cotangent}))


@contract(
    "gradients.learned_initial_state",
    "An initial state that is one learned vector, expanded over the batch or a Parameter for a batch of one, gets the gradients of all "
    "batch items, where it is zero too.",
    MUST,
    "torch.Tensor.expand; a learned initial state",
    [*every(num_layers=2, batch=4), *every(bidirectional=True, batch_first=True, steps=4), *every(steps=4, batch=1)],
    demonstration="""
        learned = [torch.nn.Parameter(f * leaf[:, :1].detach()) for f in (1, 0) for leaf in leaves[1:]]
        states = [one if leaves[1].shape[1] == 1 else one.expand(-1, leaves[1].shape[1], -1) for one in learned]
        for given in (states[: len(states) // 2], states[len(states) // 2 :]):
            layer(x, tuple(given) if isinstance(hx, tuple) else given[0])[0].sum().backward()
        return [one.grad for one in learned]
    """,
)
def learned_initial_state(trial: Trial) -> None:
    # Learning begins at zero more often than not.
    for factor in (1.0, 0.0):
        _learned_state(trial, factor)


def _learned_state(trial: Trial, factor: float) -> None:
    case = trial.case
    leaves = trial.leaves(requires_grad=True)
    learned = {name: torch.nn.Parameter(factor * value[:, :1].detach()) for name, value in leaves.items() if name != "x"}
    expanded: dict[str, Tensor] = {"x": leaves["x"]}
    # Expanded it is no Parameter any more.
    expanded |= {name: value if case.batch == 1 else value.expand(-1, case.batch, -1) for name, value in learned.items()}
    trial.backward(trial.call(trial.module(), *trial.form(expanded)), ("output",))
    states = {name: to_array(value) for name, value in expanded.items() if name != "x"}
    each = altered(case, inputs=states, through=("output",))
    tensors = {name: each.tensors[name].sum(axis=1, keepdims=True) for name in learned}
    # The largest of the summed gradients may be larger or smaller than that of the single ones, which the floor is relative to.
    scale = {name: np.abs(each.tensors[name]).max() / (np.abs(tensors[name]).max() or 1.0) for name in learned}
    floors = {name: each.floors[name] * max(1.0, case.batch**0.5 * float(scale[name])) for name in learned}
    trial.agree(trial.collect(learned), replace(each, tensors=tensors, floors=floors))

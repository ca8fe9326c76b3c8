"""Between a call and its backward pass: what is kept for it, and what is changed meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from harness.reference import gradients, tensor, to_array
from harness.trial import ContractError, Raised, Trial, where
from suites.conformance.cases import LSTM, every, make
from suites.conformance.declare import SHOULD, contract
from suites.conformance.gradients import every_output


@contract(
    "gradients.weight_changed_before_backward",
    "Where a weight is changed between a call and its backward pass, the gradients are those of the call, or there is an error.",
    SHOULD,
    "torch.autograd: In-place correctness checks",
    [
        *every(num_layers=2, steps=4, batch=2),
        *every(bidirectional=True, steps=4, batch=2),
        make(LSTM, proj_size=2, steps=4, batch=2),
    ],
    demonstration="""
        for name, weight in sorted(layer.named_parameters()):
            output = layer(x, hx)[0]
            wanted = torch.autograd.grad(output.sum(), leaves[0], retain_graph=True)[0]
            torch.nn.init.uniform_(weight)
            try: found = torch.autograd.grad(output.sum(), leaves[0])[0]
            except RuntimeError: continue
            torch.testing.assert_close(found, wanted)
    """,
)
def weight_changed_before_backward(trial: Trial) -> None:
    # One at a time: where another direction or layer notices, the one that does not is not seen.
    for changed in trial.case.arrays.weights:
        module, leaves = trial.module(), trial.leaves(requires_grad=True)
        reply = trial.call(module, *trial.form(leaves))
        parameters = trial.parameters(module)
        with torch.no_grad():
            parameters[changed].mul_(2)
        try:
            trial.backward(reply, every_output(trial))
        except Raised:
            continue
        with where(f"{changed} doubled between the call and its backward pass"):
            trial.agree(trial.collect({**leaves, **parameters}), gradients(trial.case, every_output(trial)))


@contract(
    "gradients.input_changed_before_backward",
    "Where the input or the state is overwritten between a call and its backward pass, as a buffer that is used again is, the gradients "
    "are those of the call, or there is an error.",
    SHOULD,
    "torch.autograd: In-place correctness checks",
    [*every(num_layers=2, steps=4, batch=2), *every(batch_first=True, steps=4, batch=2), *every(steps=4, batch=3, lengths=(4, 2, 3))],
    demonstration="""
        for buffer in (x if isinstance(x, torch.Tensor) else x.data, *(hx if isinstance(hx, tuple) else (hx,))):
            loss = sum(value.sum() for value in layer(x, hx)[1])
            wanted = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
            buffer.mul_(2)
            try: found = torch.autograd.grad(loss, list(layer.parameters()))
            except RuntimeError: continue
            [torch.testing.assert_close(one, other) for one, other in zip(found, wanted)]
    """,
)
def input_changed_before_backward(trial: Trial) -> None:
    names = list(trial.case.arrays.weights)
    for index in range(2 + trial.case.layer.has_cell_state):
        module = trial.module()
        input, hx = trial.form(trial.leaves())
        reply = trial.call(module, input, hx)
        data = input.data if trial.case.lengths is not None else input
        (data, *(hx if trial.case.layer.has_cell_state else [hx]))[index].mul_(2)
        try:
            trial.backward(reply, every_output(trial))
        except Raised:
            continue
        with where(f"{('x', 'h_0', 'c_0')[index]} doubled between the call and its backward pass"):
            trial.agree(trial.collect(trial.parameters(module)), gradients(trial.case, every_output(trial)), only=names)


@contract(
    "gradients.output_changed_before_backward",
    "Where the output, h_n or c_n is changed in place before the backward pass, as a residual connection does it, or whoever starts some "
    "sequences afresh, the gradients are those of the call, or there is an error.",
    SHOULD,
    "torch.autograd: In-place correctness checks",
    [*every(steps=4, batch=2), *every(bidirectional=True, num_layers=2, batch_first=True)],
    demonstration="""
        for index in range(1 + len(hx) if isinstance(hx, tuple) else 2):
            answer = torch.utils._pytree.tree_leaves(layer(x, hx))[index]
            wanted = torch.autograd.grad(answer.sum(), list(layer.parameters()), retain_graph=True, allow_unused=True)
            try: found = torch.autograd.grad(answer.mul_(2).sum() / 2, list(layer.parameters()), allow_unused=True)
            except RuntimeError: continue
            [torch.testing.assert_close(one, other) for one, other in zip(found, wanted)]
    """,
)
def output_changed_before_backward(trial: Trial) -> None:
    case = trial.case
    # In one of the two cases the weights alone want gradients, as in the first layer of a network.
    wanted = case.layer.batch_first
    for name in every_output(trial):
        module, leaves = trial.module(), trial.leaves(requires_grad=wanted)
        output, state = trial.call(module, *trial.form(leaves)).raw
        changed = dict(zip(every_output(trial), (output, *(state if isinstance(state, tuple) else [state])), strict=True))[name]
        cotangent = tensor(case.arrays.cotangents[name], case) / 2
        try:
            # Twice the output and half the cotangent: both exact, and together what they were.
            changed.mul_(2)
            changed.backward(cotangent.transpose(0, 1) if name == "output" and case.layer.batch_first else cotangent)
        except Exception:  # in which words it is refused is up to the implementation
            continue
        kept = {**(leaves if wanted else {}), **trial.parameters(module)}
        # Nothing flows back from c_n to a projection of the last step.
        found = {leaf: to_array(torch.zeros_like(value) if value.grad is None else value.grad) for leaf, value in kept.items()}
        with where(f"{name} doubled in place between the call and its backward pass"):
            trial.agree(found, gradients(case, (name,)), only=list(found))


@contract(
    "gradients.saved_tensors_hooks",
    "What a call keeps for its backward pass goes through saved_tensors_hooks, as offloading and checkpoints need it, and may come back as "
    "a copy.",
    SHOULD,
    "torch.autograd.graph.saved_tensors_hooks, save_on_cpu; torch.utils.checkpoint",
    [*every(num_layers=2), *every(bidirectional=True, batch_first=True, steps=4)],
    demonstration="""
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t.clone(), lambda t: t):
            output = layer(x, hx)[0]
        output.square().sum().backward()
        assert sum(kept) >= x.numel(), f"{sum(kept)} numbers were kept"
        return [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def saved_tensors_hooks(trial: Trial) -> None:
    module, leaves = trial.module(), trial.leaves(requires_grad=True)
    kept = 0

    def pack(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel()
        return value.detach().clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        reply = trial.call(module, *trial.form(leaves))
    elsewhere = _tensors_beside(reply.tensors.values())
    trial.backward(reply, every_output(trial))
    trial.agree(trial.collect(trial.wanted(leaves, module)), gradients(trial.case, every_output(trial)))
    # No layer can do with less than its input, or as much of its own.
    if kept < leaves["x"].numel():
        told = (
            f"Expected what the backward pass needs to go through saved_tensors_hooks, at least as much as the input's "
            f"{leaves['x'].numel()} numbers, but {kept} went: the rest is kept "
        )
        if not elsewhere:
            raise NotImplementedError(f"{told}where hooks for tensors do not reach")
        raise ContractError(f"{told}in {', '.join(elsewhere)}, and not by save_for_backward")


def _tensors_beside(outputs: Iterable[Tensor]) -> list[str]:
    """The attributes that hold tensors, of the nodes that ``outputs`` go back through: what a Function of somebody put on its context."""
    found: dict[str, None] = {}
    known, left = set(), [output.grad_fn for output in outputs]
    while left:
        node = left.pop()
        if node is None or node in known:
            continue
        known.add(node)
        for name, value in getattr(node, "__dict__", {}).items():
            if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                found[f"{type(node).__name__}.{name}"] = None
        left += [before for before, _ in node.next_functions]
    return list(found)

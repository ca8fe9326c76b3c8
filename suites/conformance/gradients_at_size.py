"""Gradients: values and gradients where many options meet at sizes past a vector or a tile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from harness.reference import gradients
from harness.trial import Answer, Trial, where
from suites.conformance.cases_at_size import at_size
from suites.conformance.declare import MUST, contract
from suites.conformance.gradients import every_output
from suites.conformance.layout import laid, swapped


@dataclass(frozen=True)
class Way:
    """How a layer is called: ``bare`` turns gradients off, and both calls say whether they are made in training mode.

    ``data``: whether gradients are asked of x, h_0 and c_0. ``frozen``: of which parameters they are not, by how their names begin.
    ``swapped``: input and states have their first two axes the other way round in memory, in both calls.
    """

    bare: Callable[[], AbstractContextManager[Any]]
    bare_trains: bool
    trains: bool
    data: bool = True
    frozen: tuple[str, ...] = ()
    swapped: bool = False


#: Every way makes two calls of one layer, one without gradients and one with them.
WAYS = {
    "served": Way(torch.no_grad, bare_trains=False, trains=True, swapped=True),
    "tuned": Way(torch.no_grad, bare_trains=True, trains=False, frozen=("weight", "bias"), swapped=True),
    "inference": Way(torch.inference_mode, bare_trains=False, trains=True, data=False),
    "dropout": Way(torch.no_grad, bare_trains=False, trains=False, frozen=("weight_hh",), swapped=True),
}


@contract(
    "gradients.options_at_size",
    "Values and gradients are right where any three options and sizes past a tile meet: in training and eval mode, under no_grad and "
    "inference_mode, of strided inputs, with frozen weights.",
    MUST,
    "torch.nn.LSTM: Args; Inputs; kernels are chosen by options and sizes together",
    [case for mode in Mode for case in at_size(mode, tuple(WAYS))],
    demonstration="""
        laid = torch.utils._pytree.tree_map(lambda v: v.mT.contiguous().mT if torch.is_tensor(v) and v.dim() > 1 else v, (x, hx))
        bare, trains = (torch.no_grad(), torch.inference_mode()), (False, True)[:1 + (reference.dropout == 0)]
        found = [off(layer.train(train).__call__)(*laid) for train in trains for off in bare]
        outputs = [layer.requires_grad_(wanted)(*laid)[0] for wanted in (False, True)]
        sum((output[0] if isinstance(output, tuple) else output).sum() for output in outputs).backward()
        return found, [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def options_at_size(trial: Trial) -> None:
    case, way, module = trial.case, WAYS[trial.case.name], trial.module()
    through = every_output(trial)
    expected = gradients(case, through)
    answered = expected.forward
    assert answered is not None

    def call(leaves: dict[str, Tensor], train: bool) -> Answer:
        input, hx = trial.form(leaves)
        with trial.blamed(f"train({train})"):
            module.train(train)
        reply = trial.call(module, *((laid(swapped, input), laid(swapped, hx)) if way.swapped else (input, hx)))
        with where("in training mode" if train else "in eval mode"):
            trial.agree(reply.arrays(), answered)
        return reply

    parameters = trial.parameters(module)
    for name, parameter in parameters.items():
        parameter.requires_grad_(not name.startswith(way.frozen))
    with where(f"under {way.bare.__name__}"), way.bare():
        call(trial.leaves(), way.bare_trains)
    leaves = trial.leaves(requires_grad=way.data)
    trial.backward(call(leaves, way.trains), through)
    asked = {name: leaf for name, leaf in trial.wanted(leaves, module).items() if leaf.requires_grad}
    trial.agree(trial.collect(asked), expected, only=list(asked))

"""Weights that torch puts in the place of a module's own: parametrized, pruned, handed over for one call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from harness.reference import altered, answer, tensor
from harness.trial import Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.module import doubled_weights


class _Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


@contract(
    "module.parametrized",
    "A parametrization registered on a weight changes the answer, and its original gets the gradient.",
    MUST,
    "torch.nn.utils.parametrize.register_parametrization",
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        torch.nn.utils.parametrize.register_parametrization(layer, "weight_hh_l0", torch.nn.Softsign())
        with torch.no_grad():
            return layer(x, hx), layer.eval()(x, hx)
    """,
)
def parametrized(trial: Trial) -> None:
    name = "weight_hh_l0"
    module = trial.module()
    trial.answer(module)
    with trial.blamed("register_parametrization"):
        parametrize.register_parametrization(module, name, _Doubled())
    weights = {**trial.case.arrays.weights, name: 2 * trial.case.arrays.weights[name]}
    trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=weights))
    reply = trial.call(module, *trial.form(trial.leaves()))
    with trial.blamed("backward"):
        reply.tensors["output"].backward(tensor(trial.case.arrays.cotangents["output"], trial.case))
    original = dict(module.named_parameters())[f"parametrizations.{name}.original"]
    expected = altered(trial.case, weights=weights, through=("output",))
    right = replace(expected, tensors={name: 2 * expected.tensors[name]}, floors={name: expected.floors[name]})
    trial.agree(trial.collect({name: original}), right)
    trial.agree(trial.answer(module.eval()).arrays(), altered(trial.case, weights=weights))


@contract(
    "module.pruned",
    "A weight pruned by torch.nn.utils.prune is used with its mask, and its original gets the gradient of what the mask leaves.",
    SHOULD,
    "torch.nn.utils.prune: the weight becomes an attribute that a forward pre-hook sets",
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        keep = torch.arange(layer.weight_hh_l0.numel()).view_as(layer.weight_hh_l0) % 3 > 0
        __import__("torch.nn.utils.prune").nn.utils.prune.custom_from_mask(layer, "weight_hh_l0", keep)
        output = layer(x, hx)[0]
        output.sum().backward()
        return output, layer.weight_hh_l0_orig.grad
    """,
)
def pruned(trial: Trial) -> None:
    name, case = "weight_hh_l0", trial.case
    module = trial.module()
    trial.answer(module)
    keep = np.arange(case.arrays.weights[name].size).reshape(case.arrays.weights[name].shape) % 3 > 0
    with trial.blamed("torch.nn.utils.prune.custom_from_mask"):
        prune.custom_from_mask(module, name, torch.as_tensor(keep, device=case.device))
    weights = {**case.arrays.weights, name: case.arrays.weights[name] * keep}
    reply = trial.call(module, *trial.form(trial.leaves()))
    trial.agree(reply.arrays(), altered(case, weights=weights))
    trial.backward(reply, ("output",))
    expected = altered(case, weights=weights, through=("output",))
    right = replace(expected, tensors={name: expected.tensors[name] * keep}, floors={name: expected.floors[name]})
    trial.agree(trial.collect({name: dict(module.named_parameters())[f"{name}_orig"]}), right)


@contract(
    "module.functional_call",
    "torch.func.functional_call with other weights gives their answer and their gradients, and leaves the module as it was.",
    MUST,
    "torch.func.functional_call",
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        other = {name: 2 * p.detach() for name, p in layer.named_parameters()}
        with torch.no_grad():
            return layer(x, hx), torch.func.functional_call(layer, other, (x, hx)), layer(x, hx)
    """,
)
def functional_call(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    given = {name: tensor(value, trial.case).requires_grad_() for name, value in doubled_weights(trial).items()}
    input, hx = trial.form(trial.leaves())
    with trial.blamed("functional_call"):
        raw = torch.func.functional_call(module, given, (input, hx))
    reply = trial.structured(raw, input)
    trial.agree(reply.arrays(), altered(trial.case, weights=doubled_weights(trial)))
    with trial.blamed("backward"):
        reply.tensors["output"].backward(tensor(trial.case.arrays.cotangents["output"], trial.case))
    expected = altered(trial.case, weights=doubled_weights(trial), through=("output",))
    trial.agree(trial.collect(given), expected, only=list(given))
    with torch.no_grad(), trial.blamed("functional_call"):
        raw = torch.func.functional_call(module, given, (input, hx))
    trial.agree(trial.structured(raw, input).arrays(), altered(trial.case, weights=doubled_weights(trial)))
    trial.agree(trial.answer(module).arrays(), answer(trial.case))

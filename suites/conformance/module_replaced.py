"""Weights that torch puts in the place of a module's own: parametrized, pruned, handed over for one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from harness.case import Array
from harness.reference import Expected, altered, answer, tensor
from harness.trial import Trial, where
from suites.conformance.cases import LSTM, every, make
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.module import doubled_weights

_CASES = [*every(num_layers=2), *every(bidirectional=True, bias=False), make(LSTM, proj_size=2)]


class _Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


@contract(
    "module.parametrized",
    "A parametrization registered on a weight changes the answer, its original gets the gradient, on one weight and on all, and once it is "
    "removed the weight is what it is left as.",
    MUST,
    "torch.nn.utils.parametrize.register_parametrization",
    _CASES,
    demonstration="""
        answers = []
        for name, _ in list(layer.named_parameters()):
            torch.nn.utils.parametrize.register_parametrization(layer, name, torch.nn.Softsign())
            with torch.no_grad():
                answers.append((layer.train()(x, hx), layer.eval()(x, hx)))
            torch.nn.utils.parametrize.remove_parametrizations(layer, name, "hh" in name)
        return answers, torch.no_grad()(layer.__call__)(x, hx)
    """,
)
def parametrized(trial: Trial) -> None:
    for names in (["weight_hh_l0"], list(trial.case.arrays.weights)):
        module = trial.module()
        trial.answer(module)
        with trial.blamed("register_parametrization"):
            for name in names:
                parametrize.register_parametrization(module, name, _Doubled())
        own = trial.case.arrays.weights
        weights = {**own, **{name: 2 * own[name] for name in names}}
        expected = altered(trial.case, weights=weights)
        with where(f"{names[0] if len(names) == 1 else 'every weight'} doubled by a parametrization"):
            trial.agree(trial.answer(module).arrays(), expected)
        reply = trial.call(module, *trial.form(trial.leaves()))
        trial.backward(reply, ("output",))
        originals = {name: dict(module.named_parameters())[f"parametrizations.{name}.original"] for name in names}
        _agree_by_factor(trial, originals, weights, dict.fromkeys(names, 2.0))
        trial.agree(trial.answer(module.eval()).arrays(), expected)
        with torch.no_grad():
            for original in originals.values():
                original.mul_(2)
        trained = altered(trial.case, weights={**own, **{name: 4 * own[name] for name in names}})
        with where("after its originals were changed"):
            trial.agree(trial.answer(module).arrays(), trained)
        with torch.no_grad():
            for original in originals.values():
                original.mul_(0.5)
        # One is left with what the parametrization made of it, all get their originals back.
        left = len(names) == 1
        with trial.blamed(f"remove_parametrizations(leave_parametrized={left})"):
            for name in names:
                parametrize.remove_parametrizations(module, name, leave_parametrized=left)
        with where(f"after remove_parametrizations(leave_parametrized={left})"):
            for train in (False, True):
                trial.agree(trial.answer(module.train(train)).arrays(), expected if left else answer(trial.case))


def _agree_by_factor(trial: Trial, originals: Mapping[str, Tensor], weights: Mapping[str, Array], factors: Mapping[str, Any]) -> None:
    """Holds the gradients of the originals against those of the weights that were made of them by a factor."""
    expected = altered(trial.case, weights=weights, through=("output",))
    right = {name: expected.tensors[name] * factors[name] for name in originals}
    trial.agree(trial.collect(originals), replace(expected, tensors=right, floors={name: expected.floors[name] for name in right}))


@contract(
    "module.pruned",
    "Weights pruned by torch.nn.utils.prune are used with their masks, their originals get the gradient of what the masks leave, and "
    "prune.remove() makes that the weight, which can then be changed like any.",
    SHOULD,
    "torch.nn.utils.prune: the weight becomes an attribute that a forward pre-hook sets",
    _CASES,
    demonstration="""
        prune, names = __import__("torch.nn.utils.prune").nn.utils.prune, sorted(layer.state_dict())
        for name in names:
            prune.custom_from_mask(layer, name, torch.arange(getattr(layer, name).numel()).view_as(getattr(layer, name)) % 3 > 0)
        output = layer(x, hx)[0]
        grads = torch.autograd.grad(output.sum(), [p for _, p in sorted(layer.named_parameters())])
        removed = [prune.remove(layer, name) for name in names] and layer(x, hx)
        return output, grads, removed, [p.data.mul_(2) for p in layer.parameters()] and layer(x, hx)
    """,
)
def pruned(trial: Trial) -> None:
    own = trial.case.arrays.weights
    for names in (["weight_hh_l0"], list(own)):
        module = trial.module()
        trial.answer(module)
        keep = {name: np.arange(own[name].size).reshape(own[name].shape) % 3 > 0 for name in names}
        with trial.blamed("torch.nn.utils.prune.custom_from_mask"):
            for name in names:
                prune.custom_from_mask(module, name, torch.as_tensor(keep[name], device=trial.case.device))
        weights = {**own, **{name: own[name] * keep[name] for name in names}}
        reply = trial.call(module, *trial.form(trial.leaves()))
        with where(f"{names[0] if len(names) == 1 else 'every weight'} pruned"):
            trial.agree(reply.arrays(), altered(trial.case, weights=weights))
        trial.backward(reply, ("output",))
        originals = {name: dict(module.named_parameters())[f"{name}_orig"] for name in names}
        _agree_by_factor(trial, originals, weights, keep)
        with trial.blamed("torch.nn.utils.prune.remove"):
            for name in names:
                prune.remove(module, name)
        with where("after torch.nn.utils.prune.remove"):
            trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=weights))
            with torch.no_grad():
                for name, parameter in trial.parameters(module).items():
                    parameter.copy_(tensor(own[name], trial.case))
            with where("and with the weights set anew"):
                trial.agree(trial.answer(module).arrays(), answer(trial.case))


@contract(
    "module.weight_norm",
    "Matrices under weight_norm, as a parametrization or as a hook, are used with the norm that is set, and both parts get a gradient.",
    SHOULD,
    "torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm",
    _CASES,
    demonstration="""
        hook, parametrization = torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm
        for name in sorted(layer.state_dict()):
            if "weight" in name: (hook if "hh" in name else parametrization)(layer, name)
        [p.data.mul_(2) for name, p in layer.named_parameters() if name.endswith(("_g", "original0"))]
        output = layer(x, hx)[0]
        output.sum().backward()
        return output, [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def weight_norm(trial: Trial) -> None:
    matrices = [name for name in trial.case.arrays.weights if name.startswith("weight")]
    expected = altered(trial.case, weights=doubled_weights(trial, "weight"))
    for how, normed, part in (
        ("torch.nn.utils.parametrizations.weight_norm", nn.utils.parametrizations.weight_norm, "parametrizations.{}.original{}"),
        ("torch.nn.utils.weight_norm", nn.utils.weight_norm, "{}_{}"),
    ):
        module = trial.module()
        trial.answer(module)
        with trial.blamed(how):
            for name in matrices:
                normed(module, name)
        named = dict(module.named_parameters())
        norms, directions = (
            [named[part.format(name, end)] for name in matrices] for end in (("0", "1") if "original" in part else ("g", "v"))
        )
        with torch.no_grad():
            for norm in norms:
                norm.mul_(2)
        reply = trial.call(module, *trial.form(trial.leaves()))
        # The norm is worked out anew, with a rounding of its own in every weight.
        with where(f"under {how}, with every norm doubled"):
            trial.agree(reply.arrays(), replace(expected, floors={name: 8 * floor for name, floor in expected.floors.items()}))
        trial.backward(reply, ("output",))
        parts = zip(matrices, norms, directions, strict=True)
        found = trial.collect({f"the {part} of {name}": leaf for name, *own in parts for part, leaf in zip(_PARTS, own, strict=True)})
        with where(f"under {how}"):
            trial.agree(found, _of_parts(trial, matrices))


_PARTS = ("norms", "directions")


def _of_parts(trial: Trial, matrices: list[str]) -> Expected:
    """The gradients of the norms g, which are twice those of the rows, and of the directions v, which are the rows, of w = g v / |v|."""
    slopes = altered(trial.case, weights=doubled_weights(trial, "weight"), through=("output",))
    tensors, floors = {}, {}
    for name in matrices:
        rows, slope = trial.case.arrays.weights[name], slopes.tensors[name]
        along = (slope * rows).sum(axis=1, keepdims=True) / np.linalg.norm(rows, axis=1, keepdims=True)
        across = 2 * (slope - along * rows / np.linalg.norm(rows, axis=1, keepdims=True))
        for part, value in zip(_PARTS, (along, across), strict=True):
            # Terms of the size of the slope cancel in them, and the norm has a rounding of its own.
            lost = float(np.abs(slope).max() / np.abs(value).max())
            tensors[f"the {part} of {name}"], floors[f"the {part} of {name}"] = value, 8 * max(1.0, lost) * slopes.floors[name]
    return Expected(tensors, floors)


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
    doubled = altered(trial.case, weights=doubled_weights(trial))
    trial.agree(reply.arrays(), doubled)
    with trial.blamed("backward"):
        reply.tensors["output"].backward(tensor(trial.case.arrays.cotangents["output"], trial.case))
    expected = altered(trial.case, weights=doubled_weights(trial), through=("output",))
    trial.agree(trial.collect(given), expected, only=list(given))
    with torch.no_grad(), trial.blamed("functional_call"):
        raw = torch.func.functional_call(module, given, (input, hx))
    trial.agree(trial.structured(raw, input).arrays(), doubled)
    trial.agree(trial.answer(module).arrays(), answer(trial.case))

"""Copies of a module: by copy.deepcopy, by pickle, by torch.save."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from harness.reference import altered, answer
from harness.trial import ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, contract
from suites.conformance.dropout import could_set_dropout, in_training
from suites.conformance.module import CASES, doubled_weights, load

_CASES = [*CASES, *every(num_layers=2, bidirectional=True, dropout=0.5, steps=3), *every(steps=2, batch=2, dtype="float64")]
_CASES += [*every(steps=2, batch=2, dtype="bfloat16"), *every(steps=4, batch=3, lengths=(2, 4, 1))]

#: Makes a copy of a module.
Copying = Callable[[nn.Module], nn.Module]


# What is pickled by its name stands at the top of a file.
def _noted_before(module: Any, given: Any) -> None:
    module.noted.append("forward pre-hook")


def _noted_after(module: Any, given: Any, reply: Any) -> None:
    module.noted.append("forward hook")


def _keeps_what_was_set(trial: Trial, copied: Copying, how: str) -> None:
    """A copy has the options, the hooks, the attributes that were set on the original, and is frozen where that is."""
    original: Any = trial.module()
    with trial.blamed("registering hooks and setting an attribute"):
        original.register_forward_pre_hook(_noted_before)
        original.register_forward_hook(_noted_after)
        original.noted = []
    for train in (False, True):
        original.train(train)
        # Every second one is frozen, the first or the others.
        for number, parameter in enumerate(trial.parameters(original).values()):
            parameter.requires_grad_((number % 2 == 0) is train)
        if trial.case.layer.dropout:
            could_set_dropout(original, 0.125 if train else trial.case.layer.dropout)
        with trial.blamed(how):
            twin: Any = copied(original)
        options = ("training", "batch_first", "bidirectional", "num_layers", "dropout")
        # Of what is no plain value, as nn.Dropout under the name dropout, a copy has one of its own.
        own_options = {name: value for name in options if isinstance(value := getattr(original, name, None), (bool, int, float))}
        lost = [name for name, value in own_options.items() if getattr(twin, name, None) != value]
        lost += [] if hasattr(twin, "noted") else ["an attribute that was set on it"]
        own = trial.parameters(original)
        lost += [f"requires_grad of {n}" for n, p in trial.parameters(twin).items() if p.requires_grad is not own[n].requires_grad]
        if lost:
            raise ContractError(f"Expected {how} to keep {', '.join(lost)} with train({train})")
        shared = [name for name, parameter in trial.parameters(twin).items() if parameter.data_ptr() == own[name].data_ptr()]
        if shared:
            raise ContractError(f"Expected {how} to copy every weight, but {', '.join(shared)} is the original's")
    trial.answer(twin)
    if original.noted:
        raise ContractError(f"Expected {how} to copy what was set on the module, but a call of the copy wrote into the original's")
    trial.answer(original)
    if not original.noted:
        raise ContractError(f"Expected the hooks of the module to be called, but none were, whether or not it was copied by {how}")
    if twin.noted != original.noted:
        called = f"{twin.noted or 'none'}, and in the original {original.noted}"
        raise ContractError(f"Expected {how} to keep the module's hooks, but called in the copy were {called}")


def keeps_ties(trial: Trial, copied: Copying, how: str) -> None:
    """Weights that two slots of the layer share are one in a copy, or after a conversion, where two have the same shape."""
    shapes = trial.case.layer.parameter_shapes()
    pair = next(((one, other) for one in shapes for other in shapes if one < other and shapes[one] == shapes[other]), None)
    if pair is None:
        return
    module = trial.module()
    with trial.blamed(f"assigning {pair[0]} to {pair[1]}"):
        setattr(module, pair[1], getattr(module, pair[0]))
    with trial.blamed(how):
        twin = copied(module)
    if getattr(twin, pair[0]) is not getattr(twin, pair[1]):
        raise ContractError(f"Expected {how} to keep {pair[0]} and {pair[1]} one Parameter where they are one, but then there are two")


def _lives_its_own_life(trial: Trial, copied: Copying, how: str) -> None:
    """A copy answers alike; changing it leaves the original alone, and the other way round."""
    original, drops = trial.module(), trial.case.layer.dropout > 0
    doubled = altered(trial.case, weights=doubled_weights(trial))
    for called_before in (False, True):
        # Copied in training and in eval mode, and then in the other: a copy does as it is told, not as its original was.
        original.train(called_before)
        if called_before:
            trial.answer(original)
            # In training too, whose answers carry a graph.
            trial.call(original, *trial.form(trial.leaves()))
        with trial.blamed(how):
            twin = copied(original)
        if drops:
            first, second = (in_training(trial, seed, twin).tensors["output"].data for seed in (0, 1))
            if torch.equal(first, second):
                raise ContractError(f"Expected {how} with train({called_before}) to drop in training, but there two calls are alike")
            original.eval()
            twin.eval()
        trial.agree(trial.answer(twin).arrays(), answer(trial.case))
        load(trial, twin, doubled_weights(trial))
        trial.agree(trial.answer(twin).arrays(), doubled)
        trial.agree(trial.answer(original).arrays(), answer(trial.case))
        load(trial, twin, trial.case.arrays.weights)
        with torch.no_grad():
            for parameter in original.parameters():
                parameter.mul_(2)
        trial.agree(trial.answer(twin).arrays(), answer(trial.case))
        trial.agree(trial.answer(original).arrays(), doubled)
        load(trial, original, trial.case.arrays.weights)


def _is_a_copy(trial: Trial, copied: Copying, how: str) -> None:
    _keeps_what_was_set(trial, copied, how)
    keeps_ties(trial, copied, how)
    _lives_its_own_life(trial, copied, how)


@contract(
    "module.deepcopy",
    "A deep copy answers alike, keeps options, hooks, attributes and what is frozen, and then lives its own life; weights that are shared, "
    "in the layer or in a copied model, stay shared.",
    MUST,
    "copy.deepcopy; pytorch#90421",
    _CASES,
    demonstration="""
        layer(x, hx), layer.register_forward_hook(lambda _, given, reply: (2 * reply[0], reply[1])), setattr(layer, "note", 1)
        [setattr(layer, name, layer.bias_ih_l0) for name in ("bias_ih_l0", "bias_hh_l0") if reference.bias]
        kept = [p.requires_grad_(number % 2 > 0).requires_grad for number, p in enumerate(layer.parameters())]
        layer.__class__ = type("Subclass", (type(layer),), {"added": 1})
        twin, held = copy.deepcopy((layer, next(layer.parameters())))
        assert next(twin.parameters()) is held and twin.note and [p.requires_grad for p in twin.parameters()] == kept
        return [p.data.mul_(2) for p in twin.parameters()] and twin.added, layer.eval()(x, hx), twin.eval()(x, hx)
    """,
)
def deepcopy(trial: Trial) -> None:
    _is_a_copy(trial, copy.deepcopy, "copy.deepcopy")
    # Somebody's class that adds to the layer's.
    module = trial.module()
    module.__class__ = type("Subclass", (type(module),), {"added": True})
    with trial.blamed("copy.deepcopy of a subclass"):
        twin = copy.deepcopy(module)
    if type(twin) is not type(module):
        raise ContractError(f"Expected a deep copy of a subclass to be of that subclass, but it is a {type(twin).__name__}")
    # A model in which somebody else has one of its weights too.
    module = trial.module()
    with trial.blamed("copy.deepcopy of a model"):
        twin, held = copy.deepcopy((module, next(iter(trial.parameters(module).values()))))
    if next(iter(trial.parameters(twin).values())) is not held:
        raise ContractError("Expected a weight that two modules of a model share to be one in a deep copy of it, but there it is two")


def _saved_and_loaded(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@contract(
    "module.pickle",
    "A module that went through pickle or torch.save answers alike, and keeps options, hooks, attributes, what is frozen and what is tied.",
    MUST,
    "torch.save; pytorch#90421",
    _CASES,
    demonstration="""
        layer.eval().dropout, layer.note, _ = layer.dropout / 2, 1, layer.register_forward_pre_hook(torch._assert)
        [setattr(layer, name, layer.bias_ih_l0) for name in ("bias_ih_l0", "bias_hh_l0") if reference.bias]
        kept = [p.requires_grad_(number % 2 > 0).requires_grad for number, p in enumerate(layer.parameters())]
        twin = layer(x, hx) and pickle.loads(pickle.dumps(layer))
        assert not twin.training and twin.dropout == layer.dropout and twin.note and twin._forward_pre_hooks
        assert [p.requires_grad for p in twin.parameters()] == kept
        return layer(x, hx), twin(x, hx)
    """,
)
def pickled(trial: Trial) -> None:
    _is_a_copy(trial, lambda module: pickle.loads(pickle.dumps(module)), "pickle")
    _is_a_copy(trial, _saved_and_loaded, "torch.save and torch.load")

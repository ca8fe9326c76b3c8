"""A module that is called: by keyword, in training and in eval, with hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from harness.reference import altered, answer
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract, in_docs


@contract(
    "module.train_and_eval",
    "train() and eval() return the module and set training, and dropout follows, whether or not gradients are recorded.",
    MUST,
    "torch.nn.Module.train, eval",
    [*every(num_layers=2, dropout=1.0)],
    demonstration="""
        for train in (False, True):
            assert layer.train(train) is layer and layer.training is train
        with torch.inference_mode():
            answers = layer(x, hx), layer.requires_grad_(False)(x, hx)
            layer.training = False
            return answers, layer(x, hx)
    """,
)
def train_and_eval(trial: Trial) -> None:
    module = trial.module()
    for train in (False, True, False):
        with trial.blamed("train()"):
            returned = module.train(train)
        if returned is not module or module.training is not train:
            raise ContractError(f"Expected train({train}) to return the module with training={train} but training={module.training}")
        zeros = np.zeros((trial.case.steps, trial.case.batch, trial.case.layer.output_size))
        for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
            with mode():
                found = trial.call(module, *trial.form(trial.leaves())).arrays()
            trial.agree(found, altered(trial.case, masks=[zeros]) if train else answer(trial.case))
    # The flag itself can be set too; of a module with others inside, each has its own.
    if not list(module.children()):
        for train in (True, False):
            module.training = train
            found = trial.answer(module).arrays()
            with where(f"after training = {train}"):
                trial.agree(found, altered(trial.case, masks=[zeros]) if train else answer(trial.case))
    # Frozen is not eval mode.
    found = trial.call(module.train().requires_grad_(False), *trial.form(trial.leaves())).arrays()
    trial.agree(found, altered(trial.case, masks=[zeros]))


@contract(
    "module.called_by_keyword",
    "A module can be called as module(input=..., hx=...), and without hx, with the same answer.",
    MUST,
    in_docs("LSTM: Inputs: input, hx"),
    [*every(num_layers=2), *every(given_state=False, bidirectional=True), *every(steps=5, batch=3, lengths=(2, 5, 3))],
    demonstration="""
        with torch.no_grad():
            return layer(input=x, hx=hx)
    """,
)
def called_by_keyword(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    with torch.no_grad(), trial.blamed("a call by keyword"):
        raw = module(input=input, hx=hx)
    trial.agree(trial.structured(raw, input).arrays(), answer(trial.case))


@contract(
    "module.hooks_called",
    "Forward hooks and full backward hooks on the module are called, and what they return takes the place of what they were given.",
    SHOULD,
    "torch.nn.Module.register_forward_hook, register_full_backward_hook",
    [*every(num_layers=2)],
    demonstration="""
        called, note = [], lambda what, answer: (called.append(what), answer)[1]
        layer.register_forward_pre_hook(lambda _, given: note(1, (2 * given[0], *given[1:])))
        alone, _ = layer(x, hx), layer.register_forward_hook(lambda _, given, reply: note(2, (2 * reply[0], reply[1])))
        layer.register_full_backward_hook(lambda _, grads, given: note(3, (2 * grads[0], *grads[1:])))
        both = layer(x, hx)
        return alone, both, both[0].sum().backward(), called, leaves[0].grad
    """,
)
def hooks_called(trial: Trial) -> None:
    module = trial.module()
    called: list[str] = []

    def noted(name: str, result: Any) -> Any:
        called.append(name)
        return result

    def twice_as_steep(module: nn.Module, grads: Any, given: Any) -> Any:
        return noted("full backward hook", (2 * grads[0], *grads[1:]))

    doubled = {"x": 2 * trial.case.arrays.x}
    with trial.blamed("registering hooks"):
        module.register_forward_pre_hook(lambda _, given: noted("forward pre-hook", (2 * given[0], *given[1:])))
    found = trial.answer(module).arrays()
    if called != ["forward pre-hook"]:
        raise ContractError(f"Expected a forward pre-hook alone to be called once, but called were {called or 'none'}")
    trial.agree(found, altered(trial.case, inputs=doubled))
    called.clear()
    with trial.blamed("registering hooks"):
        module.register_forward_hook(lambda _, given, reply: noted("forward hook", (2 * reply[0], reply[1])))
    found = trial.answer(module).arrays()
    if called != ["forward pre-hook", "forward hook"]:
        raise ContractError(f"Expected the forward pre-hook and the forward hook to be called once each, but called were {called}")
    trial.agree({**found, "output": found["output"] / 2}, altered(trial.case, inputs=doubled))
    called.clear()
    with trial.blamed("registering hooks"):
        module.register_full_backward_hook(twice_as_steep)
    leaves = trial.leaves(requires_grad=True)
    trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
    if called[2:] != ["full backward hook"]:
        raise ContractError(f"Expected the full backward hook to be called once, after the forward hooks, but called were {called}")
    # The hooks double on the way in, on the way out and on the way back.
    right = altered(trial.case, through=("output",), inputs=doubled)
    trial.agree({"x": trial.collect({"x": leaves["x"]})["x"] / 8}, right, only=["x"])

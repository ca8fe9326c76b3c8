"""A module that is called: by keyword, in training and in eval, with hooks, on the meta device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as for_all
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map

from harness.reference import altered, answer
from harness.trial import ContractError, Trial, may_refuse, where
from suites.conformance.cases import LSTM, every, make
from suites.conformance.declare import MAY, MUST, SHOULD, contract, in_docs


@contract(
    "module.train_and_eval",
    "train() and eval() return the module and set training, and dropout follows, whether or not gradients are recorded.",
    MUST,
    "torch.nn.Module.train, eval",
    [*every(num_layers=2, dropout=1.0)],
    demonstration="""
        for train in (False, True):
            layer.inside = torch.nn.Identity()
            assert layer.train(train) is layer and layer.training is layer.inside.training is train
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
            with where(f"after train({train}), under {mode.__name__}"):
                trial.agree(found, altered(trial.case, masks=[zeros]) if train else answer(trial.case))
    # The flag itself can be set too; of a module with others inside, each has its own.
    if not list(module.children()):
        for train in (True, False):
            module.training = train
            found = trial.answer(module).arrays()
            with where(f"after training = {train}"):
                trial.agree(found, altered(trial.case, masks=[zeros]) if train else answer(trial.case))
    # Whatever somebody puts inside goes with it.
    inside = nn.Identity()
    module.add_module("inside", inside)
    for train in (False, True):
        module.train(train)
        if inside.training is not train:
            raise ContractError(f"Expected train({train}) to reach the modules inside, but for one put there training={inside.training}")
    # Frozen is not eval mode.
    found = trial.call(module.train().requires_grad_(False), *trial.form(trial.leaves())).arrays()
    trial.agree(found, altered(trial.case, masks=[zeros]))


@contract(
    "module.called_by_keyword",
    "A module can be called as module(input=..., hx=...), module(input, hx=...) and module(input, None), and its forward() so too, with "
    "the same answer.",
    MUST,
    in_docs("LSTM: Inputs: input, hx"),
    [
        *every(num_layers=2),
        *every(given_state=False, bidirectional=True),
        *every(steps=5, batch=3, lengths=(2, 5, 3)),
        *every(batch=1, batched=False, bidirectional=True),
        *every(batch_first=True, steps=4),
    ],
    demonstration="""
        calls = lambda: [layer(input=x, hx=hx), layer(x, hx=hx), layer.forward(hx=hx, input=x), layer(x, *[hx])]
        return calls(), layer.eval() and torch.no_grad()(calls)()
    """,
)
def called_by_keyword(trial: Trial) -> None:
    module: Any = trial.module()
    input, hx = trial.form(trial.leaves())
    ways = {
        "module(input=..., hx=...)": lambda: module(input=input, hx=hx),
        "module(input, hx=...)": lambda: module(input, hx=hx),
        "module(input, hx)": lambda: module(input, hx),
        "module.forward(hx=..., input=...)": lambda: module.forward(hx=hx, input=input),
    }
    for train in (True, False):
        module.train(train)
        for way, call in ways.items():
            with torch.set_grad_enabled(train), trial.blamed(way):
                raw = call()
            with where(f"{way} with train({train})"):
                trial.agree(trial.structured(raw, input).arrays(), answer(trial.case))


@contract(
    "module.hooks_called",
    "Forward hooks and full backward hooks on the module are called at each call, in training and in eval mode, also where it calls itself "
    "with an input in another form, and what they return takes the place of what they were given.",
    SHOULD,
    "torch.nn.Module.register_forward_hook, register_full_backward_hook",
    [*every(num_layers=2), *every(batch=1, batched=False, bidirectional=True), *every(steps=5, batch=3, lengths=(2, 5, 3))],
    demonstration="""
        called, note, packed = [], lambda what, answer: (called.append(what), answer)[1], isinstance(x, tuple)
        twice = lambda first, *rest: (first._replace(data=2 * first.data) if packed else 2 * first, *rest)
        alone = layer.register_forward_pre_hook(lambda _, given: note(1, twice(*given))) and layer(x, hx)
        layer.register_forward_hook(lambda _, given, reply: note(2, twice(*reply)))
        packed or layer.register_full_backward_hook(lambda _, grads, given: note(3, (2 * grads[0], *grads[1:])))
        both, _ = layer(x, hx), layer.eval()(x, hx)
        return alone, both, None if packed else both[0].sum().backward(), called, leaves[0].grad
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

    with trial.blamed("registering hooks"):
        module.register_forward_pre_hook(lambda _, given: noted("forward pre-hook", (_twice(given[0]), *given[1:])))
    found = trial.answer(module).arrays()
    # A layer that hands an unbatched or packed input to itself in another form makes two calls of one.
    other_form = not trial.case.batched or trial.case.lengths is not None
    calls = 2 if other_form and called == ["forward pre-hook"] * 2 else 1
    if called != ["forward pre-hook"] * calls:
        raise ContractError(f"Expected a forward pre-hook alone to be called once, but called were {called or 'none'}")
    times = 2**calls
    larger = {"x": times * trial.case.arrays.x}
    trial.agree(found, altered(trial.case, inputs=larger))
    called.clear()
    with trial.blamed("registering hooks"):
        module.register_forward_hook(lambda _, given, reply: noted("forward hook", (_twice(reply[0]), reply[1])))
    for train in (False, True):
        found = trial.answer(module.train(train)).arrays()
        if called != ["forward pre-hook"] * calls + ["forward hook"] * calls:
            raise ContractError(f"Expected the forward pre-hook and the forward hook to be called once each, but called were {called}")
        trial.agree({**found, "output": found["output"] / times}, altered(trial.case, inputs=larger))
        called.clear()
    if trial.case.lengths is not None:
        # Full backward hooks are for tensors, and a PackedSequence is none.
        return
    with trial.blamed("registering hooks"):
        module.register_full_backward_hook(twice_as_steep)
    leaves = trial.leaves(requires_grad=True)
    trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
    if called[2 * calls :] != ["full backward hook"] * calls:
        raise ContractError(f"Expected the full backward hook to be called once, after the forward hooks, but called were {called}")
    # The hooks double on the way in, on the way out and on the way back.
    _agree_doubled(trial, leaves["x"], times**3, times)


@contract(
    "module.other_hooks_called",
    "Hooks that are registered for all modules, hooks with_kwargs=True and full backward pre-hooks are called, in a call by keyword too, "
    "and what they return takes the place of what they were given.",
    SHOULD,
    "torch.nn.modules.module.register_module_forward_hook; torch.nn.Module.register_full_backward_pre_hook",
    [*every(num_layers=2)],
    demonstration="""
        called, world, note = [], torch.nn.modules.module, lambda what, answer=None: (called.append(what), answer)[1]
        handles = [world.register_module_forward_pre_hook(lambda m, given: note(1) if m is layer else None)]
        handles += [world.register_module_full_backward_hook(lambda m, grads, given: note(2) if m is layer else None)]
        layer.eval()(input=x), layer.train()
        layer.register_forward_pre_hook(lambda _, args, given: note(3, (args, {**given, "input": 2 * given["input"]})), with_kwargs=True)
        layer.register_full_backward_pre_hook(lambda _, given: note(4, (2 * given[0], *given[1:])))
        return layer(input=x, hx=hx), layer(input=x)[0].sum().backward(), [h.remove() for h in handles] and called, leaves[0].grad
    """,
)
def other_hooks_called(trial: Trial) -> None:
    _for_all_modules(trial)
    module = trial.module()
    called: list[str] = []

    def noted(name: str, result: Any) -> Any:
        called.append(name)
        return result

    def before(module: nn.Module, given: Any, named: Any) -> Any:
        return noted("forward pre-hook", (given, {**named, "input": 2 * named["input"]}))

    def after(module: nn.Module, given: Any, named: Any, reply: Any) -> Any:
        return noted("forward hook", (2 * reply[0], reply[1]))

    def twice_as_steep(module: nn.Module, grads: Any) -> Any:
        return noted("full backward pre-hook", (2 * grads[0], *grads[1:]))

    with trial.blamed("registering hooks with_kwargs=True"):
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)
        module.register_full_backward_pre_hook(twice_as_steep)
    leaves = trial.leaves(requires_grad=True)
    input, hx = trial.form(leaves)
    with trial.blamed("a call by keyword"):
        raw = module(input=input, hx=hx)
    trial.backward(trial.structured(raw, input), ("output",))
    if called != ["forward pre-hook", "forward hook", "full backward pre-hook"]:
        raise ContractError(f"Expected a forward pre-hook and hook with_kwargs, and a full backward pre-hook, but called were {called}")
    _agree_doubled(trial, leaves["x"], 8)


def _for_all_modules(trial: Trial) -> None:
    """Hooks of every kind that are registered for all modules double what they are given of one."""
    module = trial.module()
    called: list[str] = []

    def doubling(name: str, which: int) -> Any:
        def hook(found: nn.Module, *given: Any) -> Any:
            # They are called for the modules inside it too.
            if found is not module:
                return None
            called.append(name)
            first, *rest = given[which]
            return (2 * first, *rest)

        return hook

    kinds = (
        ("forward pre-hook", for_all.register_module_forward_pre_hook, 0),
        ("forward hook", for_all.register_module_forward_hook, 1),
        ("full backward pre-hook", for_all.register_module_full_backward_pre_hook, 0),
        ("full backward hook", for_all.register_module_full_backward_hook, 0),
    )
    handles = [register(doubling(name, which)) for name, register, which in kinds]
    try:
        leaves = trial.leaves(requires_grad=True)
        trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
        # In eval mode, without gradients, the two of the call alone.
        trial.answer(module.eval())
    finally:
        for handle in handles:
            handle.remove()
    wanted = [name for name, *_ in kinds] + [name for name, *_ in kinds[:2]]
    if called != wanted:
        raise ContractError(
            f"Expected hooks for all modules to be called: {', '.join(wanted)}; but called were {', '.join(called) or 'none'}"
        )
    _agree_doubled(trial, leaves["x"], 16)


def _twice(given: Any) -> Any:
    """A tensor, or a packed sequence, times two."""
    return given._replace(data=2 * given.data) if isinstance(given, PackedSequence) else 2 * given


def _agree_doubled(trial: Trial, x: torch.Tensor, times: int, larger: int = 2) -> None:
    """Holds the gradient of x against what hooks make of it: so many ``times`` as much, of an input so many times ``larger``."""
    right = altered(trial.case, through=("output",), inputs={"x": larger * trial.case.arrays.x})
    trial.agree({"x": trial.collect({"x": x})["x"] / times}, right, only=["x"])


@contract(
    "module.meta_device",
    "On the meta device, where there are no numbers, a call gives an answer of the right shapes, type and device.",
    MAY,
    "torch: Meta device",
    [
        *every(num_layers=2, bidirectional=True, batch_first=True),
        *every(batch=1, batched=False, given_state=False),
        make(LSTM, proj_size=2, dtype="bfloat16"),
    ],
    demonstration="""
        twin = copy.deepcopy(layer).to("meta")
        output, state = twin(*(torch.utils._pytree.tree_map(lambda v: v if v is None else v.to("meta"), given) for given in (x, hx)))
        assert all(value.is_meta for value in (output, *state))
        return [torch.tensor(value.shape) for value in (output, *state)]
    """,
)
def meta_device(trial: Trial) -> None:
    leaves, wanted = trial.leaves(), getattr(torch, trial.case.dtype)
    # Some look at numbers.
    with may_refuse("on the meta device"):
        module = trial.module().to("meta")
        input, hx = trial.form({name: leaf.to("meta") for name, leaf in leaves.items()})
        with torch.no_grad():
            raw = module(input) if hx is None else module(input, hx)
    given = [value for value in tree_leaves(raw) if isinstance(value, torch.Tensor)]
    wrong = {f"{value.dtype} on {value.device}" for value in given if value.dtype != wanted or not value.is_meta}
    if wrong:
        raise ContractError(f"Expected an answer in {wanted} on meta, but got a tensor in {', '.join(sorted(wrong))}")
    # Only what has numbers is looked at.
    trial.structured(
        tree_map(lambda value: torch.zeros_like(value, device="cpu") if isinstance(value, torch.Tensor) else value, raw), input
    )

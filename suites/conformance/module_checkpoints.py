"""Checkpoints: a layer saved and loaded as part of a model, in part, in another dtype, and what loading leaves as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature

import torch
from torch import Tensor, nn

from harness.case import Array
from harness.reference import altered, answer, tensor, to_array
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every, make
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.module import doubled_weights, load

_CASES = [*every(num_layers=2, bidirectional=True), *every(bidirectional=True, bias=False, steps=4), make(LSTM, proj_size=2)]


def _given(trial: Trial, weights: Mapping[str, Array], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor(value, trial.case) for name, value in weights.items()}


@contract(
    "module.part_of_a_model",
    "In a model the layer's weights are in the model's state_dict() under the layer's name, and the model's load_state_dict() loads them, "
    "and refuses where one of them is missing, is one too many or has another shape.",
    MUST,
    "torch.nn.Module.state_dict: Saving and Loading Models",
    _CASES,
    demonstration="""
        model = torch.nn.Sequential(torch.nn.ModuleDict({"first": layer, "second": copy.deepcopy(layer)}))
        saved, refused = {name: p.clone() for name, p in model.state_dict().items()}, 0
        for wrong in ({**saved, "0.first.extra": x}, dict([*saved.items()][:-1])):
            try: model.load_state_dict(wrong)
            except Exception: refused += 1
        model.load_state_dict({name: (2 if "first" in name else 3) * p for name, p in saved.items()})
        return [p for _, p in sorted(saved.items())], [each(x, hx) for each in model[0].values()], refused
    """,
)
def part_of_a_model(trial: Trial) -> None:
    plain, doubled = dict(trial.case.arrays.weights), doubled_weights(trial)
    first, second = trial.module(weights=plain), trial.module(weights=doubled)
    # Two levels down, as most layers are.
    model = nn.Sequential(nn.ModuleDict({"first": first, "second": second}))
    with trial.blamed("state_dict() of a model with two of it"):
        saved = model.state_dict()
    wanted = {**_given(trial, plain, "0.first."), **_given(trial, doubled, "0.second.")}
    if saved.keys() != wanted.keys():
        missing, surplus = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
        raise ContractError(
            f"Expected a model's state_dict() to hold its layers' weights under their names, but missing are "
            f"{', '.join(missing) or 'none'}, surplus {', '.join(surplus) or 'none'}"
        )
    wrong = [name for name, value in wanted.items() if not torch.equal(saved[name], value)]
    if wrong:
        raise ContractError(f"Expected a model's state_dict() to hold its layers' weights, but {', '.join(wrong)} is another")
    with trial.blamed("load_state_dict() of a model with two of it"):
        told = model.load_state_dict({**_given(trial, doubled, "0.first."), **_given(trial, plain, "0.second.")})
        if told.missing_keys or told.unexpected_keys:
            raise ContractError(f"Expected the model's load_state_dict() to find every key, but it says {told}")
    trial.agree(trial.answer(first).arrays(), altered(trial.case, weights=doubled))
    trial.agree(trial.answer(second).arrays(), answer(trial.case))
    last = list(wanted)[-1]
    for what, given in {
        f"{last} missing": {name: value for name, value in wanted.items() if name != last},
        "0.first.extra in it": {**wanted, "0.first.extra": torch.zeros(1)},
        f"{last} of another shape": {**wanted, last: wanted[last][:-1]},
    }.items():
        try:
            model.load_state_dict(given)
        except Exception:  # any exception is a refusal
            continue
        raise ContractError(f"Expected the model's load_state_dict() to refuse a checkpoint with {what}, but it did not")


@contract(
    "module.state_dict_refers",
    "state_dict() refers to the parameters and does not copy them: what is written into it is what the layer then uses. With "
    "keep_vars=True it is not detached from autograd.",
    SHOULD,
    "torch.nn.Module.state_dict: a shallow copy, which contains references; keep_vars; moving averages of weights are written so",
    [*_CASES, *every(dtype="float64"), *every(dtype="bfloat16"), *every(dtype="float16")],
    demonstration="""
        assert all(p.requires_grad for p in layer.state_dict(keep_vars=True).values())
        for p in layer.state_dict().values():
            p.mul_(2)
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def state_dict_refers(trial: Trial) -> None:
    module = trial.module()
    with torch.no_grad(), trial.blamed("writing into state_dict()"):
        for value in module.state_dict().values():
            value.mul_(2)
    trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=doubled_weights(trial)))
    taken = signature(module.state_dict).parameters
    if "keep_vars" not in taken and not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    with trial.blamed("state_dict(keep_vars=True)"):
        cut = [name for name, value in module.state_dict(keep_vars=True).items() if not value.requires_grad]
    if cut:
        raise ContractError(f"Expected state_dict(keep_vars=True) to hold what is trained, but {', '.join(cut)} is detached")


@contract(
    "module.loaded_in_part",
    "load_state_dict(strict=False) loads the weights that are there, names those that are missing and the keys that it does not know, and "
    "refuses a weight of another shape.",
    MUST,
    "torch.nn.Module.load_state_dict: Returns: NamedTuple with missing_keys and unexpected_keys",
    _CASES,
    demonstration="""
        told = layer.load_state_dict({n: 2 * p for n, p in [*[*layer.state_dict().items()][1:], ("extra", x)]}, strict=False)
        assert (told.missing_keys, told.unexpected_keys) == ([*layer.state_dict()][:1], ["extra"]), told
        for n, p in [*layer.state_dict().items()]:
            try: layer.load_state_dict({n: torch.cat([p, p])}, strict=False)
            except Exception: continue
            raise AssertionError(f"{n} of another shape was passed over")
        return torch.no_grad()(layer.__call__)(x, hx)
    """,
)
def loaded_in_part(trial: Trial) -> None:
    module = trial.module()
    taken = signature(module.load_state_dict).parameters
    if "strict" not in taken and not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.values()):
        raise NotImplementedError("its load_state_dict() has no strict")
    absent = next(iter(trial.case.arrays.weights))
    weights = {**doubled_weights(trial), absent: trial.case.arrays.weights[absent]}
    given = {name: value for name, value in _given(trial, weights).items() if name != absent}
    with trial.blamed("load_state_dict(strict=False)"):
        partly = module.load_state_dict({**given, "extra": torch.zeros(1)}, strict=False)
        trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=weights))
        fully = module.load_state_dict(_given(trial, weights))
    for told, missing, unexpected in ((partly, [absent], ["extra"]), (fully, [], [])):
        found = getattr(told, "missing_keys", None), getattr(told, "unexpected_keys", None)
        if found != (missing, unexpected):
            raise ContractError(f"Expected load_state_dict() to return missing_keys={missing}, unexpected_keys={unexpected} but got {told}")
    for name, value in _given(trial, weights).items():
        for wrong in (value[:-1], torch.cat([value, value]), value[..., None]):
            try:
                module.load_state_dict({name: wrong}, strict=False)
            except Exception:  # any exception is a refusal
                continue
            shapes = f"{tuple(wrong.shape)} instead of {tuple(value.shape)}"
            raise ContractError(f"Expected load_state_dict(strict=False) to refuse {name} of shape {shapes}, but it did not")


@contract(
    "module.checkpoint_untouched",
    "load_state_dict() leaves the dict that it is given as it is, and copies: what is trained afterwards is not written into it.",
    MUST,
    "torch.nn.Module.load_state_dict: Copy parameters and buffers from state_dict into this module",
    _CASES,
    demonstration="""
        given = {name: p.clone() for name, p in layer.state_dict().items()}
        before, _ = {name: p.clone() for name, p in given.items()}, layer.load_state_dict(given)
        with torch.no_grad():
            [p.mul_(2) for p in layer.parameters()]
        assert list(given) == list(before), "keys were taken out, or put in"
        assert all(map(torch.equal, given.values(), before.values())), "values were written to"
    """,
)
def checkpoint_untouched(trial: Trial) -> None:
    # One checkpoint serves two modules, as where an ensemble starts from it.
    given, before = _given(trial, trial.case.arrays.weights), _given(trial, trial.case.arrays.weights)
    for which in ("one module", "another module"):
        module = trial.module(weights=doubled_weights(trial))
        with trial.blamed(f"load_state_dict() of {which}"):
            module.load_state_dict(given)
        if list(given) != list(before):
            changed = ", ".join(sorted(given.keys() ^ before.keys())) or "their order"
            raise ContractError(f"Expected load_state_dict() to leave the keys of what it is given, but changed is {changed}")
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(2)
        written = [name for name, value in before.items() if not torch.equal(given[name], value)]
        if written:
            raise ContractError(
                f"Expected training after load_state_dict() not to write into what it was given, but into {', '.join(written)}"
            )


@contract(
    "module.loaded_in_another_dtype",
    "load_state_dict() takes weights of another dtype and keeps the module's own.",
    MUST,
    "torch.nn.Module.load_state_dict: assign: when False, the properties of the tensors in the current module are preserved",
    [*_CASES, *every(dtype="float64"), *every(dtype="bfloat16")],
    demonstration="""
        for other in (torch.float64, torch.float16):
            layer.load_state_dict({name: p.to(torch.float16).to(other) for name, p in layer.state_dict().items()})
            assert all(p.dtype == dtype for p in layer.parameters())
        reference.load_state_dict({name: p.half().float() for name, p in reference.state_dict().items()})
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def loaded_in_another_dtype(trial: Trial) -> None:
    module, own = trial.module(), getattr(torch, trial.case.dtype)
    given = _given(trial, trial.case.arrays.weights)
    for other in (torch.float64, torch.float32, torch.float16):
        with trial.blamed(f"load_state_dict() of weights in {other}"):
            module.load_state_dict({name: value.to(other) for name, value in given.items()})
        taken = [name for name, parameter in module.named_parameters() if parameter.dtype != own]
        if taken:
            raise ContractError(f"Expected the parameters to stay {own} when {other} is loaded, but {', '.join(taken)} did not")
    rounded = {name: to_array(value.to(torch.float16).to(own)) for name, value in given.items()}
    trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=rounded))


@contract(
    "module.parameters_stay",
    "Calls, train(), eval(), load_state_dict() and flatten_parameters() leave the parameters the same objects, by which an optimiser knows "
    "them, all of them in state_dict(), and frozen where they are frozen; with assign=True they stay frozen too.",
    MUST,
    "torch.nn.Module.load_state_dict: assign: requires_grad is preserved; torch.optim: Constructing it",
    _CASES,
    demonstration="""
        next(layer.parameters()).requires_grad_(False)
        before, load = [(id(p), p.requires_grad) for p in layer.parameters()], layer.load_state_dict
        for act in (layer.eval, layer.train, getattr(layer, "flatten_parameters", lambda: None), lambda: load(layer.state_dict())):
            assert act() is not torch.no_grad()(layer)(x, hx) and len(layer.state_dict()) == len(reference.state_dict()), act
            assert [(id(p), p.requires_grad) for p in layer.parameters()] == before, act
        load({name: p.clone() for name, p in layer.state_dict().items()}, assign=True)
        assert [p.requires_grad for p in layer.parameters()] == [was for _, was in before], "assign=True"
    """,
)
def parameters_stay(trial: Trial) -> None:
    module = trial.module()
    before = trial.parameters(module)
    frozen = set(list(before)[::2])
    for name, parameter in before.items():
        parameter.requires_grad_(name not in frozen)
    flatten: Callable[[], object] = getattr(module, "flatten_parameters", lambda: None)
    acts: dict[str, Callable[[], object]] = {
        "eval()": module.eval,
        "a call without gradients": lambda: trial.answer(module),
        "train()": module.train,
        "a call": lambda: trial.call(module, *trial.form(trial.leaves())),
        "flatten_parameters()": flatten,
        "load_state_dict()": lambda: load(trial, module, doubled_weights(trial)),
    }
    for what, act in acts.items():
        with trial.blamed(what):
            act()
        replaced = [name for name, parameter in trial.parameters(module).items() if parameter is not before[name]]
        if replaced:
            raise ContractError(f"Expected {what} to leave every parameter the same object, but {', '.join(replaced)} is another")
        if lost := before.keys() - module.state_dict().keys():
            raise ContractError(f"Expected {what} to leave every parameter in state_dict(), but {', '.join(sorted(lost))} is missing")
        _require_frozen(trial, module, frozen, what)
    # A load_state_dict of its own may not know assign, and refuses it then by its signature.
    if "assign" in signature(module.load_state_dict).parameters:
        with trial.blamed("load_state_dict(assign=True)"):
            module.load_state_dict(_given(trial, trial.case.arrays.weights), assign=True)
        _require_frozen(trial, module, frozen, "load_state_dict(assign=True)")


def _require_frozen(trial: Trial, module: nn.Module, frozen: set[str], what: str) -> None:
    turned = [name for name, parameter in trial.parameters(module).items() if parameter.requires_grad is (name in frozen)]
    if turned:
        raise ContractError(f"Expected {what} to leave frozen what is frozen and no more, but it turned {', '.join(turned)}")

"""Weights that are changed from outside: assigned, stepped, converted, laid out otherwise, drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from harness.case import Array
from harness.reference import altered, answer, gradients, tensor
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import every
from suites.conformance.declare import MAY, MUST, SHOULD, contract, in_docs
from suites.conformance.module import CASES, doubled_weights, load, require_law
from suites.conformance.module_copied import keeps_ties


@contract(
    "module.reassigned_parameter",
    "A Parameter assigned in place of another is used at the next call, and gets the gradient.",
    MUST,
    "torch.nn.Module.__setattr__; pytorch#65688",
    CASES,
    demonstration="""
        for name, p in list(layer.named_parameters()):
            setattr(layer, name, torch.nn.Parameter(2 * p.detach()))
        output, state = layer(x, hx)
        output.square().sum().backward()
        return output, state, [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def reassigned_parameter(trial: Trial) -> None:
    for kind in sorted({name.partition("_l")[0] for name in trial.case.arrays.weights}):
        module = trial.module()
        trial.answer(module)
        weights = doubled_weights(trial, kind)
        for name, value in weights.items():
            if name.startswith(kind):
                with trial.blamed(f"assigning {name}"):
                    setattr(module, name, nn.Parameter(tensor(value, trial.case)))
        expected = altered(trial.case, weights=weights, through=("output",))
        with where(f"with another Parameter assigned to every {kind}"):
            trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=weights))
            trial.agree(trial.gradients(("output",), module), expected)


def _multiplied(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.mul_(2)


def _through_data(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(2)


def _data_replaced(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data * 2


def _one_column(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter[..., :1].mul_(2)
        parameter[..., 1:].mul_(2)


#: The ways to double the weights, by what they are.
_DOUBLED = {"by mul_()": _multiplied, "by data.mul_()": _through_data, "by assigning data": _data_replaced, "in two parts": _one_column}


@contract(
    "module.weights_changed_in_place",
    "A weight changed in place, as an optimiser does it, or through its .data, is used at the next call: no stale copy, in training, eval "
    "or inference mode.",
    MUST,
    "torch.optim; pytorch#90500, mxnet#16037: stale weights",
    [
        *CASES,
        *every(given_state=False, steps=4),
        *every(dtype="bfloat16"),
        *every(steps=4, batch=3, lengths=(2, 4, 3)),
        *every(batch=1, batched=False),
    ],
    demonstration="""
        found, halve = [], lambda p: setattr(p, "data", p.data / 2)
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            for change, train in ((lambda p: p.data.mul_(2), False), (lambda p: p.mul_(2), False), (halve, False), (halve, True)):
                with mode(): layer.eval()(x, hx), train and layer.train()
                with torch.no_grad(): [change(p) for p in layer.parameters()]
                with mode(): found.append(layer(x, hx))
        return found
    """,
)
def weights_changed_in_place(trial: Trial) -> None:
    expected = altered(trial.case, weights=doubled_weights(trial))
    modes: list[tuple[Any, bool, bool]] = [(torch.no_grad, before, after) for before in (True, False) for after in (True, False)] + [
        (torch.inference_mode, False, False)
    ]
    # In training, and in eval mode as it is fine-tuned: what is kept without its graph may be kept there too.
    modes += [(torch.enable_grad, train, train) for train in (True, False)]
    for mode, before, after in modes:
        for how, change in _DOUBLED.items():
            module = trial.module().train(before)
            # Twice, because a cache may be filled at the second call; with the same tensors, because it may be kept for them.
            input, hx = trial.form(trial.leaves())
            with mode():
                for _ in range(2):
                    trial.call(module, input, hx)
            if after != before:
                # Not otherwise: whoever fine-tunes in eval mode does not call eval() again, which may be what empties a cache.
                module.train(after)
            with torch.no_grad():
                change(module)
            with mode():
                found = trial.call(module, input, hx).arrays()
            with where(f"weights doubled {how}, in {'training' if after else 'eval mode'} under {mode.__name__}"):
                trial.agree(found, expected)


@contract(
    "module.optimiser_step",
    "After optimizer.step() the next call uses the new weights.",
    MUST,
    "torch.optim.SGD",
    [*every(num_layers=2, dtype="float64"), *every(bidirectional=True, dtype="float64", batch_first=True)],
    demonstration="""
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
        with torch.no_grad():
            layer(x, hx)
        layer(x, hx)[0].square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def optimiser_step(trial: Trial) -> None:
    through = ("output",)
    module = trial.module()
    optimiser = torch.optim.SGD(trial.parameters(module).values(), lr=0.125)
    trial.gradients(through, module)
    optimiser.step()
    slope = gradients(trial.case, through).tensors
    weights = {name: value - 0.125 * slope[name] for name, value in trial.case.arrays.weights.items()}
    expected = altered(trial.case, weights=weights)
    # The new weights have the noise of the gradient in them, which the answer to exact weights has not.
    trial.agree(trial.answer(module).arrays(), replace(expected, floors={name: 8 * floor for name, floor in expected.floors.items()}))


def _converted(trial: Trial, module: nn.Module, how: str, dtype: torch.dtype, convert: Callable[[], nn.Module]) -> nn.Module:
    """The module after a conversion, whose parameters hold what they held, in ``dtype``, and have the gradients that they had."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    with trial.blamed(how):
        converted = convert()
    if converted is not module:
        raise ContractError(f"Expected {how} to return the module itself, whose parameters an optimiser may have, but it returns another")
    for name, parameter in module.named_parameters():
        if parameter.dtype != dtype:
            raise ContractError(f"Expected all parameters to be {dtype} after {how}, but {name} is {parameter.dtype}")
        if not torch.equal(parameter.detach(), before[name].to(dtype)):
            raise ContractError(f"Expected {name} to have its values in {dtype} after {how}, but it has others")
        if parameter.grad is None or parameter.grad.dtype != dtype or not (parameter.grad == 1).all():
            raise ContractError(f"Expected the gradient of {name} in {dtype} after {how}, but it is {parameter.grad}")
        parameter.grad = None
    return module


@contract(
    "module.to_dtype",
    "After .to(), double(), half(), bfloat16() and float(), its own or those of a model around it, parameters have the new dtype and their "
    "values in it, and so have the answers; those that are shared stay shared.",
    MUST,
    "torch.nn.Module.to",
    [
        *every(num_layers=2, dtype="float64"),
        *every(bidirectional=True, batch_first=True),
        *every(dtype="bfloat16"),
        *every(given_state=False, dtype="float64"),
        *every(given_state=False, steps=3),
    ],
    demonstration="""
        layer.bias_hh_l0 = layer.bias_ih_l0
        halves = [setattr(p, "grad", p.data.clone()) or p.half() for p in layer.parameters()]
        assert all(h.equal(p) and p.grad.dtype == p.dtype for h, p in zip(halves, layer.half().parameters())) and layer.to(dtype) is layer
        [torch.no_grad()(layer.to(kind).__call__)(x.to(kind)) for kind in (torch.float32, torch.float64)]
        after = torch.nn.Sequential(layer.requires_grad_(False).double()).to(dtype).parameters()
        assert all(p.mul_(2).dtype == dtype and not p.requires_grad for p in after) and layer.bias_hh_l0 is layer.bias_ih_l0
        return torch.no_grad()(layer.__call__)(x, hx)
    """,
)
def to_dtype(trial: Trial) -> None:
    wanted = getattr(torch, trial.case.dtype)
    with trial.blamed("building and calling in float32"):
        module = trial.implementation.build(trial.case.layer).to(trial.case.device)
        with torch.no_grad():
            module(trial.form(trial.leaves())[0].float())
    for dtype in (torch.float64, torch.float32, wanted):
        module = _converted(trial, module, f".to({dtype})", dtype, partial(module.to, dtype))
    for name, dtype in (("double", torch.float64), ("half", torch.float16), ("bfloat16", torch.bfloat16), ("float", torch.float32)):
        with trial.blamed(".double()"):
            module.double()
        # Something to round, each time anew.
        load(trial, module, {weight: 0.9 * value for weight, value in trial.case.arrays.weights.items()})
        _converted(trial, module, f".{name}()", dtype, getattr(module, name))
    module = module.to(wanted)
    module.requires_grad_(False)
    with trial.blamed(f".to({wanted})"):
        module = module.double().to(wanted)
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise ContractError("Expected frozen parameters to stay frozen after .to(), but some require grad")
    load(trial, module, trial.case.arrays.weights)
    trial.agree(_answer_in(trial, module, wanted, ".to()"), answer(trial.case))
    # A model's conversion reaches the layers in it by another way than their own methods.
    for dtype in (torch.float64, wanted):
        _converted(trial, module, f"a model's .to({dtype})", dtype, partial(_converted_in_a_model, module, dtype))
        found = _answer_in(trial, module, dtype, f"a model's .to({dtype})")
    trial.agree(found, answer(trial.case))
    keeps_ties(trial, lambda module: module.double().to(wanted), f".double().to({wanted})")


def _converted_in_a_model(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(module).to(dtype)[0]


def _answer_in(trial: Trial, module: nn.Module, dtype: torch.dtype, how: str) -> dict[str, Array]:
    """The answer of a module that was converted ``how``, to the case's inputs in ``dtype``, which must be the output's too."""
    reply = trial.answer(module, {name: value.to(dtype) for name, value in trial.leaves().items()})
    if reply.tensors["output"].dtype != dtype:
        raise ContractError(f"Expected an output of {dtype} after {how} but got {reply.tensors['output'].dtype}")
    return reply.arrays()


@contract(
    "module.strided_weights",
    "Weights that are not contiguous give the same answers and gradients.",
    SHOULD,
    in_docs("RNN.flatten_parameters"),
    CASES,
    demonstration="""
        for p in layer.parameters():
            p.data = p.data.t().contiguous().t()
        layer(x, hx)[0].square().sum().backward()
        return layer(x, hx), [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def strided_weights(trial: Trial) -> None:
    module = trial.module()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.data = parameter.data.t().contiguous().t()
    trial.agree(trial.answer(module).arrays(), answer(trial.case))
    trial.agree(trial.gradients(("output",), module), gradients(trial.case, ("output",)))


@contract(
    "module.reset_parameters",
    "reset_parameters() draws every weight that is there anew from the law of a new layer, another each time, and leaves it the Parameter "
    "that it is, frozen where it is; or it is not there.",
    MAY,
    in_docs("RNNBase.reset_parameters"),
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        [setattr(layer, name, torch.nn.Parameter(torch.full_like(p, 2.0))) for name, p in [*layer.named_parameters()]]
        old = [p.requires_grad_(number % 2 > 0) for number, p in enumerate(layer.parameters())]
        for _ in range(2):
            before, _ = [p.clone() for p in old], layer.reset_parameters()
            assert all(p is q and p.requires_grad is (n % 2 > 0) for n, (p, q) in enumerate(zip(layer.parameters(), old))), "not as it was"
        assert not any(torch.equal(p, k) for p, k in zip(layer.parameters(), before)), "drawn alike twice"
        assert 0.7 < torch.cat([p.flatten() for p in layer.parameters()]).std() * (3 * reference.hidden_size) ** 0.5 < 1.3, "another law"
    """,
)
def reset_parameters(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    if not hasattr(module, "reset_parameters"):
        raise NotImplementedError("it has no reset_parameters()")
    bound = trial.case.layer.hidden_size**-0.5
    # Filled with what nothing draws, so that what stays is seen; of Parameters that took the place of the first.
    with trial.blamed("assigning parameters"):
        for name, parameter in trial.parameters(module).items():
            setattr(module, name, nn.Parameter(torch.full_like(parameter, 2.0)))
    kept = trial.parameters(module)
    for number, parameter in enumerate(kept.values()):
        parameter.requires_grad_(number % 2 == 0)
    # With gradients recorded, as apply(lambda m: m.reset_parameters()) has it.
    with trial.blamed("reset_parameters()"):
        draw: Any = module.reset_parameters
        draw()
        first = {name: drawn.detach().clone() for name, drawn in trial.parameters(module).items()}
        draw()
    for number, (name, drawn) in enumerate(trial.parameters(module).items()):
        if drawn is not kept[name] or drawn.requires_grad is not (number % 2 == 0):
            raise ContractError(f"Expected {name} to be the Parameter that it was, with its requires_grad, after reset_parameters()")
        if len(drawn.detach().unique()) < 2:
            raise ContractError(f"Expected reset_parameters() to draw {name} anew, but it did not")
        if torch.equal(drawn.detach(), first[name]):
            raise ContractError(f"Expected reset_parameters() to draw another {name} each time, but it drew the same twice")
    # All together, because of one there may be five.
    require_law("what reset_parameters() draws", trial.parameters(module).values(), bound)

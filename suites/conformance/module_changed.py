"""Weights that are changed from outside: assigned, stepped, converted, laid out otherwise, drawn anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from harness.reference import altered, answer, gradients, tensor
from harness.trial import ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MAY, MUST, SHOULD, contract, in_docs
from suites.conformance.module import CASES, doubled_weights, load


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
        trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=weights))
        names = [name for name in expected.tensors if name not in ("h0", "c0")]
        trial.agree(trial.gradients(("output",), module), expected, only=names)


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


@contract(
    "module.weights_changed_in_place",
    "A weight changed in place, as an optimiser does it, is used at the next call: no stale copy, in training or in eval mode.",
    MUST,
    "torch.optim; pytorch#90500, mxnet#16037: stale weights",
    [*CASES, *every(given_state=False, steps=4)],
    demonstration="""
        found, halve = [], lambda p: setattr(p, "data", p.data / 2)
        with torch.no_grad():
            for change, train in ((lambda p: p.mul_(2), False), (lambda p: p.data.mul_(2), False), (halve, False), (halve, True)):
                layer.eval()(x, hx), layer.train(train)
                for p in layer.parameters(): change(p)
                found.append(layer(x, hx))
        return found
    """,
)
def weights_changed_in_place(trial: Trial) -> None:
    doubled = doubled_weights(trial)
    for before, after in ((True, True), (False, False), (True, False), (False, True)):
        for change in (_multiplied, _through_data, _data_replaced, _one_column):
            module = trial.module().train(before)
            # Twice, because a cache may be filled at the second call; with the same tensors, because it may be kept for them.
            leaves = trial.leaves()
            input, hx = trial.form(leaves)
            with torch.no_grad():
                for _ in range(2):
                    trial.call(module, input, hx)
                module.train(after)
                change(module)
                found = trial.call(module, input, hx).arrays()
            trial.agree(found, altered(trial.case, weights=doubled))


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


@contract(
    "module.to_dtype",
    "After .to() parameters, answers and gradients are of the new dtype, there and back.",
    MUST,
    "torch.nn.Module.to",
    [*every(num_layers=2, dtype="float64"), *every(bidirectional=True, batch_first=True), *every(dtype="bfloat16")],
    demonstration="""
        assert next(layer.half().parameters()).dtype == torch.float16
        with torch.no_grad():
            layer.float()(x.float())
            for p in layer.requires_grad_(False).to(dtype).parameters():
                assert p.dtype == dtype and not p.requires_grad, (p.dtype, p.requires_grad)
                p.mul_(2)
            return layer(x, hx)
    """,
)
def to_dtype(trial: Trial) -> None:
    wanted = getattr(torch, trial.case.dtype)
    with trial.blamed("building and calling in float32"):
        module = trial.implementation.build(trial.case.layer).to(trial.case.device)
        with torch.no_grad():
            module(trial.form(trial.leaves())[0].float())
    for dtype in (torch.float64, torch.float32, wanted):
        with trial.blamed(f".to({dtype})"):
            module = module.to(dtype)
    for name, dtype in (("double", torch.float64), ("half", torch.float16), ("bfloat16", torch.bfloat16), ("float", torch.float32)):
        with trial.blamed(f".{name}()"):
            getattr(module, name)()
        if any(parameter.dtype != dtype for parameter in module.parameters()):
            raise ContractError(f"Expected all parameters to be {dtype} after .{name}(), but some are not")
    module = module.to(wanted)
    stayed = [name for name, parameter in module.named_parameters() if parameter.dtype != wanted]
    if stayed:
        raise ContractError(f"Expected all parameters to be {wanted} after .to(), but {', '.join(stayed)} is not")
    module.requires_grad_(False)
    with trial.blamed(f".to({wanted})"):
        module = module.double().to(wanted)
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise ContractError("Expected frozen parameters to stay frozen after .to(), but some require grad")
    load(trial, module, trial.case.arrays.weights)
    reply = trial.answer(module)
    if reply.tensors["output"].dtype != wanted:
        raise ContractError(f"Expected an output of {wanted} after .to() but got {reply.tensors['output'].dtype}")
    trial.agree(reply.arrays(), answer(trial.case))


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
    expected = gradients(trial.case, ("output",))
    names = [name for name in expected.tensors if name not in ("h0", "c0")]
    trial.agree(trial.gradients(("output",), module), expected, only=names)


@contract(
    "module.reset_parameters",
    "reset_parameters() draws every weight anew from the law of a new layer, or is not there.",
    MAY,
    in_docs("RNNBase.reset_parameters"),
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        [p.data.fill_(2.0) for p in layer.parameters()]
        layer.reset_parameters()
        assert not any((p == 2.0).any() for p in layer.parameters()), "a weight is as it was"
    """,
)
def reset_parameters(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    if not hasattr(module, "reset_parameters"):
        raise NotImplementedError("it has no reset_parameters()")
    bound = trial.case.layer.hidden_size**-0.5
    with trial.blamed("reset_parameters()"), torch.no_grad():
        # Filled with what nothing draws, so that what stays is seen.
        for parameter in module.parameters():
            parameter.fill_(2.0)
        draw: Any = module.reset_parameters
        draw()
    for name, drawn in trial.parameters(module).items():
        values = drawn.detach().abs()
        if values.max() > bound or len(values.unique()) < 2:
            raise ContractError(f"Expected reset_parameters() to draw {name} anew within ±{bound:.4g}, but it did not")

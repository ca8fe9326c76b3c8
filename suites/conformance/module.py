"""The module contract: parameters, state_dict, copies, and weights that are changed from outside."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness.case import Array
from harness.layer import Mode
from harness.reference import altered, answer, gradients, tensor
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MAY, MUST, SHOULD, contract, in_docs

_CASES = [*every(num_layers=2), *every(bidirectional=True, batch_first=True, steps=4), *every(LSTM, proj_size=2, bias=False)]


def _doubled(trial: Trial, *kinds: str) -> dict[str, Array]:
    """The case's weights, those of the named kinds (all if none) times two: exact in every dtype."""
    return {name: 2 * value if name.startswith(kinds or ("",)) else value for name, value in trial.case.arrays.weights.items()}


@contract(
    "module.state_dict_names",
    "state_dict() has nn's names and shapes, and nothing else.",
    MUST,
    in_docs("LSTM: Variables"),
    [*_CASES, *every(num_layers=3, bidirectional=True, bias=False), *every(LSTM, num_layers=2, bidirectional=True, proj_size=3)],
    demonstration="""
        return {name: list(value.shape) for name, value in layer.state_dict().items()}
    """,
)
def state_dict_names(trial: Trial) -> None:
    found = {name: tuple(value.shape) for name, value in trial.module().state_dict().items()}
    wanted = trial.case.layer.parameter_shapes()
    if found != wanted:
        missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        shapes = [f"{name} is {found[name]} instead of {wanted[name]}" for name in wanted if name in found and found[name] != wanted[name]]
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"surplus {', '.join(surplus)}"] * bool(surplus) + shapes
        raise ContractError(f"Expected the state_dict of nn.{trial.case.layer.expression()}, but: {'; '.join(parts)}")


@contract(
    "module.state_dict_values",
    "state_dict() gives back the weights that load_state_dict() was given, and loading them anew changes the answer accordingly.",
    MUST,
    "torch.nn.Module.state_dict, load_state_dict",
    _CASES,
    demonstration="""
        try: layer.load_state_dict(dict(list(layer.state_dict().items())[1:]))
        except Exception: layer.load_state_dict({name: 2 * p.detach() for name, p in layer.named_parameters()})
        else: raise AssertionError("a missing weight was accepted")
        with torch.no_grad():
            return dict(layer.state_dict()), layer(x, hx)
    """,
)
def state_dict_values(trial: Trial) -> None:
    module = trial.module()
    for name, value in module.state_dict().items():
        if name in trial.case.arrays.weights and not torch.equal(value, tensor(trial.case.arrays.weights[name], trial.case)):
            raise ContractError(f"Expected state_dict() to hold the {name} that was loaded, but it holds something else")
    given = {name: tensor(value, trial.case) for name, value in trial.case.arrays.weights.items()}
    for what, wrong in {"a weight missing": dict(list(given.items())[1:]), "a surplus weight": {**given, "extra": torch.zeros(1)}}.items():
        try:
            module.load_state_dict(wrong)
        except Exception:  # any exception is a refusal
            continue
        raise ContractError(f"Expected load_state_dict() to refuse {what}, but it did not")
    for train in (True, False):
        module.train(train)
        trial.agree(trial.answer(module).arrays(), answer(trial.case))
        _load(trial, module, _doubled(trial))
        trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=_doubled(trial)))
        _load(trial, module, trial.case.arrays.weights)


def _load(trial: Trial, module: nn.Module, weights: dict[str, Array]) -> None:
    with trial.blamed("load_state_dict"):
        module.load_state_dict({name: tensor(value, trial.case) for name, value in weights.items()})


@contract(
    "module.parameters_complete",
    "parameters() and named_parameters() list every weight under nn's name, trainable.",
    MUST,
    "torch.nn.Module.named_parameters",
    _CASES,
    demonstration="""
        return {name: p.requires_grad for name, p in layer.named_parameters()}
    """,
)
def parameters_complete(trial: Trial) -> None:
    with trial.blamed("building"):
        module = trial.implementation.build(trial.case.layer)
    named = dict(module.named_parameters())
    wanted = trial.case.layer.parameter_shapes()
    if set(named) != set(wanted):
        raise ContractError(f"Expected named_parameters() to list {', '.join(wanted)} but it lists {', '.join(named) or 'none'}")
    if len(list(module.parameters())) != len(wanted):
        raise ContractError(f"Expected {len(wanted)} parameters() but there are {len(list(module.parameters()))}")
    frozen = [name for name, parameter in named.items() if not parameter.requires_grad or not isinstance(parameter, nn.Parameter)]
    if frozen:
        raise ContractError(f"Expected every parameter to be trainable, but {', '.join(frozen)} is not")


@contract(
    "module.initial_weights",
    "Every weight and bias of a new layer is drawn from U(-1/√H, 1/√H), and from torch's random state.",
    SHOULD,
    in_docs("LSTM: note: weights and biases are initialized from U(-√k, √k)"),
    [*every(input_size=40, hidden_size=36, num_layers=2, bidirectional=True), make(LSTM, 40, 36, proj_size=20)],
    demonstration="""
        if layer is reference:
            return
        drawn = dict(NEW.named_parameters())
        for name, p in drawn.items():
            assert not any(torch.equal(p, other) for other in drawn.values() if other is not p), f"{name} is another one's copy"
            spread = p.std() * (3 * reference.hidden_size) ** 0.5
            assert p.abs().max() <= reference.hidden_size**-0.5 and abs(spread - 1) < 1.8 / p.numel() ** 0.5, (name, spread)
    """,
)
def initial_weights(trial: Trial) -> None:
    layer = trial.case.layer
    bound = layer.hidden_size**-0.5
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with trial.blamed("building"):
            drawn.append({name: value.detach().double().numpy() for name, value in trial.implementation.build(layer).named_parameters()})
    for name, value in drawn[0].items():
        flat = np.sort(value.ravel()) / bound
        if not (abs(flat) <= 1).all():
            raise ContractError(f"Expected {name} within ±1/√H = ±{bound:.4g} but it reaches {abs(flat).max() * bound:.4g}")
        twin = next((other for other in drawn[0] if other < name and np.array_equal(drawn[0][other], value)), None)
        if twin is not None:
            raise ContractError(f"Expected {name} to be drawn by itself, but it is equal to {twin}")
        # Kolmogorov-Smirnov distance from the uniform law; 2.6 / sqrt(n) is exceeded once in 700,000 draws by chance.
        ideal = (flat + 1) / 2
        steps = np.arange(1, len(flat) + 1) / len(flat)
        distance = float(max((steps - ideal).max(), (ideal - steps + 1 / len(flat)).max()))
        if distance > 2.6 / len(flat) ** 0.5:
            raise ContractError(
                f"Expected {name} to be uniform between ±{bound:.4g}, but its Kolmogorov-Smirnov distance is {distance:.3f}"
            )
        if not np.array_equal(value, drawn[1][name]):
            raise ContractError(f"Expected the same torch.manual_seed to give the same {name}, but it differs")
        if np.array_equal(value, drawn[2][name]):
            raise ContractError(f"Expected another torch.manual_seed to give another {name}, but it is the same")


def _is_a_copy(trial: Trial, copied: Callable[[nn.Module], nn.Module], how: str) -> None:
    """A copy has the options and answers alike; changing it leaves the original alone, and the other way round."""
    original = trial.module()
    for train in (False, True):
        first = next(iter(original.train(train).parameters()))
        first.requires_grad_(train)
        with trial.blamed(how):
            twin = copied(original)
        options = ("training", "batch_first", "bidirectional", "num_layers", "dropout")
        lost = [name for name in options if getattr(twin, name, None) != getattr(original, name, None)]
        lost += [] if next(iter(twin.parameters())).requires_grad is train else ["requires_grad"]
        if lost:
            raise ContractError(f"Expected {how} to keep {', '.join(lost)} with train({train})")
    original.train(trial.case.layer.dropout == 0)
    for called_before in (False, True):
        if called_before:
            trial.answer(original)
        with trial.blamed(how):
            twin = copied(original)
        trial.agree(trial.answer(twin).arrays(), answer(trial.case))
        _load(trial, twin, _doubled(trial))
        trial.agree(trial.answer(twin).arrays(), altered(trial.case, weights=_doubled(trial)))
        trial.agree(trial.answer(original).arrays(), answer(trial.case))
        _load(trial, twin, trial.case.arrays.weights)
        with torch.no_grad():
            for parameter in original.parameters():
                parameter.mul_(2)
        trial.agree(trial.answer(twin).arrays(), answer(trial.case))
        trial.agree(trial.answer(original).arrays(), altered(trial.case, weights=_doubled(trial)))
        _load(trial, original, trial.case.arrays.weights)


@contract(
    "module.deepcopy",
    "A deep copy answers alike and then lives its own life.",
    MUST,
    "copy.deepcopy; pytorch#90421",
    [*_CASES, *every(num_layers=2, dropout=0.5, steps=3)],
    demonstration="""
        with torch.no_grad():
            layer(x, hx)
            twin = copy.deepcopy(layer)
            for p in twin.parameters():
                p.mul_(2)
            return layer(x, hx), twin(x, hx)
    """,
)
def deepcopy(trial: Trial) -> None:
    _is_a_copy(trial, copy.deepcopy, "copy.deepcopy")


def _saved_and_loaded(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@contract(
    "module.pickle",
    "A module that went through pickle or torch.save answers alike.",
    MUST,
    "torch.save; pytorch#90421",
    [*_CASES, *every(num_layers=2, dropout=0.5, steps=3)],
    demonstration="""
        layer.eval().requires_grad_(False)
        twin = pickle.loads(pickle.dumps(layer))
        assert not twin.training and not any(p.requires_grad for p in twin.parameters()) and twin.dropout == layer.dropout
        return layer(x, hx), twin(x, hx)
    """,
)
def pickled(trial: Trial) -> None:
    _is_a_copy(trial, lambda module: pickle.loads(pickle.dumps(module)), "pickle")
    _is_a_copy(trial, _saved_and_loaded, "torch.save and torch.load")


@contract(
    "module.reassigned_parameter",
    "A Parameter assigned in place of another is used at the next call, and gets the gradient.",
    MUST,
    "torch.nn.Module.__setattr__; pytorch#65688",
    _CASES,
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
        weights = _doubled(trial, kind)
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
    [*_CASES, *every(given_state=False, steps=4)],
    demonstration="""
        found = []
        with torch.no_grad():
            for change in (lambda p: p.mul_(2), lambda p: p.data.mul_(2), lambda p: setattr(p, "data", p.data / 2)):
                layer.eval()(x, hx)
                for p in layer.parameters(): change(p)
                found.append(layer(x, hx))
        return found
    """,
)
def weights_changed_in_place(trial: Trial) -> None:
    doubled = _doubled(trial)
    for train in (True, False):
        for change in (_multiplied, _through_data, _data_replaced, _one_column):
            module = trial.module().train(train)
            # Twice, because a cache may be filled at the second call; with the same tensors, because it may be kept for them.
            leaves = trial.leaves()
            input, hx = trial.form(leaves)
            with torch.no_grad():
                for _ in range(2):
                    trial.call(module, input, hx)
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
    optimiser = torch.optim.SGD(module.parameters(), lr=0.125)
    trial.gradients(through, module)
    optimiser.step()
    slope = gradients(trial.case, through).tensors
    weights = {name: value - 0.125 * slope[name] for name, value in trial.case.arrays.weights.items()}
    expected = altered(trial.case, weights=weights)
    # The new weights have the noise of the gradient in them, which the answer to exact weights has not.
    trial.agree(trial.answer(module).arrays(), replace(expected, floors={name: 8 * floor for name, floor in expected.floors.items()}))


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
            return layer(x, hx)
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


@contract(
    "module.functional_call",
    "torch.func.functional_call with other weights gives their answer and their gradients, and leaves the module as it was.",
    MUST,
    "torch.func.functional_call",
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        other = {name: 2 * p.detach() for name, p in layer.named_parameters()}
        with torch.no_grad():
            return torch.func.functional_call(layer, other, (x, hx)), layer(x, hx)
    """,
)
def functional_call(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    given = {name: tensor(value, trial.case).requires_grad_() for name, value in _doubled(trial).items()}
    input, hx = trial.form(trial.leaves())
    with trial.blamed("functional_call"):
        raw = torch.func.functional_call(module, given, (input, hx))
    reply = trial.structured(raw, input)
    trial.agree(reply.arrays(), altered(trial.case, weights=_doubled(trial)))
    with trial.blamed("backward"):
        reply.tensors["output"].backward(tensor(trial.case.arrays.cotangents["output"], trial.case))
    expected = altered(trial.case, weights=_doubled(trial), through=("output",))
    trial.agree(trial.collect(given), expected, only=list(given))
    trial.agree(trial.answer(module).arrays(), answer(trial.case))


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
            for p in layer.to(dtype).parameters():
                assert p.dtype == dtype, p.dtype
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
    _load(trial, module, trial.case.arrays.weights)
    reply = trial.answer(module)
    if reply.tensors["output"].dtype != wanted:
        raise ContractError(f"Expected an output of {wanted} after .to() but got {reply.tensors['output'].dtype}")
    trial.agree(reply.arrays(), answer(trial.case))


@contract(
    "module.strided_weights",
    "Weights that are not contiguous give the same answers and gradients.",
    SHOULD,
    in_docs("RNN.flatten_parameters"),
    _CASES,
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


@contract(
    "module.printable",
    "repr() and str() of a module do not raise.",
    SHOULD,
    "torch.nn.Module.extra_repr",
    _CASES,
    demonstration="""
        repr(layer), str(layer)
    """,
)
def printable(trial: Trial) -> None:
    module = trial.module()
    with trial.blamed("repr"):
        if not repr(module) or not str(module):
            raise ContractError("Expected repr() of the module to say something")


@contract(
    "module.train_and_eval",
    "train() and eval() return the module and set training, and dropout follows.",
    MUST,
    "torch.nn.Module.train, eval",
    [*every(num_layers=2, dropout=1.0)],
    demonstration="""
        for train in (False, True):
            assert layer.train(train) is layer and layer.training is train
        with torch.no_grad():
            return layer(x, hx)
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
        trial.agree(trial.answer(module).arrays(), altered(trial.case, masks=[zeros]) if train else answer(trial.case))


@contract(
    "module.attributes",
    "The attributes input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional (and proj_size) say what was asked for.",
    SHOULD,
    in_docs("LSTM: Args"),
    [*every(num_layers=2, bidirectional=True, dropout=0.5), *every(batch_first=True, bias=False), *every(LSTM, proj_size=2)],
    demonstration="""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
        return [getattr(layer, name, 0) for name in names]
    """,
)
def attributes(trial: Trial) -> None:
    module, layer = trial.module(), trial.case.layer
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    names += ["proj_size"] if layer.has_cell_state else []
    wrong = [f"{name}={getattr(module, name, 'missing')!r}" for name in names if getattr(module, name, None) != getattr(layer, name)]
    if wrong:
        raise ContractError(f"Expected the attributes of nn.{layer.expression()} but got {', '.join(wrong)}")


@contract(
    "module.called_by_keyword",
    "A module can be called as module(input=..., hx=...), and without hx, with the same answer.",
    MUST,
    in_docs("LSTM: Inputs: input, hx"),
    [*every(num_layers=2), *every(given_state=False, bidirectional=True)],
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
    "Forward hooks and full backward hooks registered on the module are called.",
    SHOULD,
    "torch.nn.Module.register_forward_hook",
    [*every(num_layers=2)],
    demonstration="""
        called = []
        layer.register_forward_pre_hook(lambda *_: called.append(1))
        layer.register_forward_hook(lambda *_: called.append(2))
        layer(x, hx)
        return called
    """,
)
def hooks_called(trial: Trial) -> None:
    module, called = trial.module(), []
    with trial.blamed("registering hooks"):
        module.register_forward_pre_hook(lambda *_: called.append("forward pre-hook"))
        module.register_forward_hook(lambda *_: called.append("forward hook"))
    trial.answer(module)
    if called != ["forward pre-hook", "forward hook"]:
        raise ContractError(f"Expected the forward pre-hook and the forward hook to be called once each, but called were {called}")


def _constructed(trial: Trial, *arguments: Any, **options: Any) -> nn.Module:
    """The class called with these arguments. What it does not take, it refuses with TypeError: that is *unsupported*."""
    assert trial.implementation.constructor is not None
    try:
        return trial.implementation.constructor(trial.case.layer.mode)(*arguments, **options)
    except TypeError as error:
        raise NotImplementedError(str(error)) from error


@contract(
    "module.positional_arguments",
    "Arguments given by position mean what they mean to nn: input_size, hidden_size, num_layers, (nonlinearity,) bias, batch_first, "
    "dropout, bidirectional(, proj_size).",
    SHOULD,
    in_docs("LSTM: class signature; torch.nn.RNN: Examples: nn.RNN(10, 20, 2)"),
    [*every(num_layers=2), *every(num_layers=2, bias=False, batch_first=True, bidirectional=True), make(LSTM, num_layers=2, proj_size=2)],
    needs_constructor=True,
    demonstration="""
        kind = [reference.mode[4:].lower()] if reference.mode.startswith("RNN") else []
        options = [reference.num_layers, *kind, reference.bias, reference.batch_first, reference.dropout, reference.bidirectional]
        options += [reference.proj_size] if reference.mode == "LSTM" else []
        twin = type(layer)(reference.input_size, reference.hidden_size, *options).to(dtype)
        twin.load_state_dict(layer.state_dict())
        with torch.no_grad():
            return twin(x, hx)
    """,
)
def positional_arguments(trial: Trial) -> None:
    layer = trial.case.layer
    given: list[Any] = [layer.input_size, layer.hidden_size, layer.num_layers]
    if layer.options().keys() - {"num_layers", "nonlinearity"} or layer.mode is RNN_RELU:
        given += [layer.mode.value.removeprefix("rnn_")] if layer.mode in (RNN_TANH, RNN_RELU) else []
        given += [layer.bias, layer.batch_first, layer.dropout, layer.bidirectional] + [layer.proj_size] * layer.has_cell_state
    with trial.blamed(f"{layer.mode.class_name}({', '.join(map(repr, given))})"):
        module = _constructed(trial, *given)
    _load(trial, module, trial.case.arrays.weights)
    trial.agree(trial.answer(module).arrays(), answer(trial.case))


@contract(
    "module.device_and_dtype_arguments",
    "device= and dtype= of the constructor make every parameter there and of that type, the meta device included, or are refused.",
    MAY,
    "torch.nn: device and dtype keyword arguments (torch.nn.Module: skipping initialization)",
    [*every(num_layers=2, dtype="float64"), *every(bidirectional=True, bias=False, dtype="bfloat16"), make(LSTM, proj_size=2)],
    needs_constructor=True,
    demonstration="""
        for device in ("cpu", "meta"):
            twin = type(layer)(reference.input_size, reference.hidden_size, device=device, dtype=torch.float64)
            for name, p in twin.named_parameters():
                assert p.dtype == torch.float64 and p.device.type == device, (name, p.dtype, p.device)
    """,
)
def device_and_dtype_arguments(trial: Trial) -> None:
    layer, wanted = trial.case.layer, getattr(torch, trial.case.dtype)
    for device in (trial.case.device, "meta"):
        with trial.blamed(f"building it with device={device!r}, dtype={wanted}"):
            module = _constructed(trial, layer.input_size, layer.hidden_size, **layer.options(), device=device, dtype=wanted)
        wrong = [n for n, p in module.named_parameters() if p.dtype != wanted or p.device.type != torch.device(device).type]
        if wrong:
            raise ContractError(f"Expected every parameter in {wanted} on {device} but {', '.join(wrong)} is not")
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        if shapes != layer.parameter_shapes():
            raise ContractError(f"Expected parameters of shape {layer.parameter_shapes()} on {device} but got {shapes}")
        if device != "meta":
            _load(trial, module, trial.case.arrays.weights)
            trial.agree(trial.answer(module).arrays(), answer(trial.case))


#: Options that mean nothing. Not here: those to which a plain loop gives a meaning that nobody would call wrong (proj_size >= hidden_size).
_MEANINGLESS: tuple[tuple[dict[str, Any], frozenset[Mode]], ...] = (
    ({"hidden_size": -1}, frozenset(Mode)),
    ({"hidden_size": 0}, frozenset(Mode)),
    ({"num_layers": 0}, frozenset(Mode)),
    ({"num_layers": 2, "dropout": 1.5}, frozenset(Mode)),
    ({"nonlinearity": "sigmoid"}, frozenset((RNN_TANH,))),
    ({"proj_size": 2}, frozenset(Mode) - {LSTM}),
)


@contract(
    "module.meaningless_options",
    "An option that means nothing (no layers, no units, dropout above 1, an unknown nonlinearity, proj_size of a GRU or RNN) is "
    "refused when the layer is built, or at the latest when it is called.",
    SHOULD,
    in_docs("LSTM: Args; nn.RNNBase.__init__"),
    every(),
    needs_constructor=True,
    demonstration="""
        sizes = reference.input_size, reference.hidden_size
        for wrong in [{"num_layers": 0}, {"num_layers": 2, "dropout": 1.5}, *([] if reference.mode == "LSTM" else [{"proj_size": 2}])]:
            try: type(layer)(*sizes, **wrong).to(dtype)(x)
            except Exception: continue
            raise AssertionError(f"{wrong} was accepted")
    """,
)
def meaningless_options(trial: Trial) -> None:
    layer, constructor = trial.case.layer, trial.implementation.constructor
    assert constructor is not None
    trial.answer()
    input, _ = trial.form(trial.leaves())
    for options, modes in _MEANINGLESS:
        if layer.mode not in modes:
            continue
        given = {"input_size": layer.input_size, "hidden_size": layer.hidden_size, **layer.options(), **options}
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        try:
            with torch.no_grad():
                constructor(layer.mode)(given.pop("input_size"), given.pop("hidden_size"), **given)(input)
        except Exception:  # any exception is a refusal
            continue
        raise ContractError(f"Expected an error for {said}, from the constructor or the first call, but it answered")

"""nn's interface: the constructor's arguments, the attributes and repr()."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from harness.layer import Layer, Mode
from harness.reference import answer
from harness.trial import ContractError, Trial, may_refuse, where
from suites.conformance.cases import LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MAY, SHOULD, contract, in_docs
from suites.conformance.module import CASES, load, require_law


@contract(
    "module.printable",
    "repr() and str() of a module do not raise; where they name an option, they give its value.",
    SHOULD,
    "torch.nn.Module.extra_repr",
    [*CASES, *every(num_layers=2, bias=False, bidirectional=True, dropout=0.5)],
    demonstration="""
        shown = repr(layer).splitlines()[0].strip("()").split(", ")
        for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional"):
            assert all(word == f"{name}={getattr(reference, name)}" for word in shown if word.startswith(name + "=")), shown
    """,
)
def printable(trial: Trial) -> None:
    module = trial.module()
    with trial.blamed("repr"):
        if not repr(module) or not str(module):
            raise ContractError("Expected repr() of the module to say something")
        # On the lines below the first stand modules inside it, with options of their own.
        shown = repr(module).splitlines()[0]
    for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size"):
        told, value = re.search(rf"\b{name}=(True|False|[0-9][0-9.]*)", shown), getattr(trial.case.layer, name)
        if told and ast.literal_eval(told[1]) != value:
            raise ContractError(f"Expected repr() to say {name}={value} or nothing of it, but it is {shown!r}")


@contract(
    "module.attributes",
    "The attributes input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional (and proj_size) say what was asked for; "
    "that of an option which the layer does not have may be missing.",
    SHOULD,
    in_docs("LSTM: Args"),
    [*every(num_layers=2, bidirectional=True, dropout=0.5), *every(batch_first=True, bias=False), *every(LSTM, proj_size=2)],
    demonstration="""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
        named = lambda one: {id(p): name for name, p in one.named_parameters()}
        listed = lambda one: [[named(one).get(id(weight)) for weight in weights] for weights in one.all_weights]
        assert not hasattr(layer, "all_weights") or listed(layer) == listed(reference), "all_weights"
        assert getattr(layer, "nonlinearity", None) in (None, getattr(reference, "nonlinearity", None))
        return [getattr(layer, name, 0) for name in names]
    """,
)
def attributes(trial: Trial) -> None:
    module, layer = trial.module(), trial.case.layer
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    names += ["proj_size"] if layer.has_cell_state else []
    wrong = [
        f"{name}={getattr(module, name, 'missing')!r}"
        for name in names
        if (getattr(module, name) != getattr(layer, name) if hasattr(module, name) else _offers(trial, name))
    ]
    if wrong:
        raise ContractError(f"Expected the attributes of nn.{layer.expression()} but got {', '.join(wrong)}")
    # These are not among the arguments of nn.LSTM: who has them not is asked nothing, and who has them says the truth.
    if layer.mode in (RNN_TANH, RNN_RELU) and getattr(module, "nonlinearity", layer.mode.value[4:]) != layer.mode.value[4:]:
        raise ContractError(f"Expected nonlinearity={layer.mode.value[4:]!r} but got {module.nonlinearity!r}")
    listed = getattr(module, "all_weights", None)
    if listed is not None:
        known = {id(parameter): name for name, parameter in trial.parameters(module).items()}
        found = [[known.get(id(weight), "something else") for weight in weights] for weights in listed]
        suffixes = [suffix for _, _, _, suffix in layer.slots()]
        expected = [[kind + suffix for kind in _KINDS if kind + suffix in known.values()] for suffix in suffixes]
        if found != expected:
            raise ContractError(f"Expected all_weights to list the parameters themselves as {expected} but got {found}")


#: The parameters of one direction of one layer, in nn's order.
_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def _offers(trial: Trial, option: str) -> bool:
    """Whether the implementation builds a layer with another value of ``option`` than nn's default."""
    other: dict[str, Any] = {"num_layers": 2, "bias": False, "batch_first": True, "bidirectional": True, "proj_size": 1}
    other["dropout"] = 0.5
    try:
        trial.implementation.build(replace(Layer(trial.case.layer.mode, 3, 5, num_layers=2), **{option: other.get(option, 4)}))
    except Exception:  # whatever a refusal is, to that implementation
        return False
    return True


@contract(
    "module.default_dtype",
    "Without a dtype the parameters of a new layer are of torch's default dtype.",
    SHOULD,
    "torch.set_default_dtype",
    [*every(num_layers=2)],
    demonstration="""
        if layer is reference: return
        torch.set_default_dtype(torch.float64)
        try: assert all(p.dtype == torch.float64 for p in NEW.parameters())
        finally: torch.set_default_dtype(torch.float32)
    """,
)
def default_dtype(trial: Trial) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with trial.blamed("building under set_default_dtype(torch.float64)"):
            module = trial.implementation.build(trial.case.layer)
    finally:
        torch.set_default_dtype(torch.float32)
    other = [name for name, parameter in module.named_parameters() if parameter.dtype != torch.float64]
    if other:
        raise ContractError(f"Expected parameters of torch.float64 under that default dtype, but {', '.join(other)} is not")


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
    [
        *every(num_layers=2),
        *every(num_layers=2, bias=False, batch_first=True, bidirectional=True, dropout=0.5),
        *every(num_layers=2, dropout=1.0),
        make(LSTM, num_layers=2, proj_size=2),
    ],
    needs_constructor=True,
    demonstration="""
        kind = [reference.mode[4:].lower()] if reference.mode.startswith("RNN") else []
        options = [reference.num_layers, *kind, reference.bias, reference.batch_first, reference.dropout, reference.bidirectional]
        options += [reference.proj_size] if reference.mode == "LSTM" else []
        twin = type(layer)(reference.input_size, reference.hidden_size, *options).to(dtype)
        twin.load_state_dict(layer.state_dict())
        with torch.no_grad():
            return twin.eval()(x, hx), twin.dropout, type(layer)(3, 4, dropout=0) and None
    """,
)
def positional_arguments(trial: Trial) -> None:
    layer = trial.case.layer
    first: list[Any] = [layer.input_size, layer.hidden_size, layer.num_layers]
    rest: list[Any] = [layer.mode.value.removeprefix("rnn_")] if layer.mode in (RNN_TANH, RNN_RELU) else []
    # A dropout of 0 or 1 is given as people give it: as an integer.
    dropout = int(layer.dropout) if layer.dropout in (0, 1) else layer.dropout
    rest += [layer.bias, layer.batch_first, dropout, layer.bidirectional] + [layer.proj_size] * layer.has_cell_state
    told = layer.options().keys() <= {"num_layers"}
    for given in [first] * told + [first + rest]:
        with trial.blamed(f"{layer.mode.class_name}({', '.join(map(repr, given))})"):
            module = _constructed(trial, *given).to(trial.case.device)
        load(trial, module, trial.case.arrays.weights)
        trial.agree(trial.answer(module.eval()).arrays(), answer(trial.case))
        if getattr(module, "dropout", layer.dropout) != layer.dropout:
            raise ContractError(f"Expected dropout={layer.dropout} by position but got {module.dropout!r}")


@contract(
    "module.device_and_dtype_arguments",
    "device= and dtype= of the constructor, and torch.device as a context around it, make every parameter there and of that type, drawn as "
    "ever, the meta device included, from which to_empty() takes them and reset_parameters() draws them, or are refused.",
    MAY,
    "torch.nn: device and dtype keyword arguments (torch.nn.Module: skipping initialization); torch.nn.utils.skip_init",
    [*every(num_layers=2, dtype="float64"), *every(bidirectional=True, bias=False, dtype="bfloat16"), make(LSTM, proj_size=2)],
    needs_constructor=True,
    demonstration="""
        for device in ("cpu", "meta"):
            twin = type(layer)(reference.input_size, reference.hidden_size, device=device, dtype=torch.float64)
            for name, p in twin.named_parameters():
                assert p.dtype == torch.float64 and p.device.type == device, (name, p.dtype, p.device)
                assert device == "meta" or 0 < p.abs().max() <= reference.hidden_size**-0.5, f"{name} is drawn from another law"
        plain = type(reference)(reference.input_size, reference.hidden_size).double()
        return twin.to_empty(device="cpu").load_state_dict(plain.state_dict()) and twin(x.double())[0] - plain(x.double())[0]
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
        with may_refuse(f"building it where torch.device({device!r}) is the default"), torch.device(device):
            module = _constructed(trial, layer.input_size, layer.hidden_size, **layer.options(), dtype=wanted)
        elsewhere = [n for n, p in module.named_parameters() if p.device.type != torch.device(device).type]
        if elsewhere:
            raise ContractError(f"Expected every parameter on {device} under torch.device({device!r}) but {', '.join(elsewhere)} is not")
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        if shapes != layer.parameter_shapes():
            raise ContractError(f"Expected parameters of shape {layer.parameter_shapes()} on {device} but got {shapes}")
        is_drawn = device != "meta" or hasattr(module, "reset_parameters")
        if device == "meta":
            with trial.blamed("to_empty() and reset_parameters()"):
                module = module.to_empty(device=trial.case.device)
                if is_drawn:
                    draw: Any = module.reset_parameters
                    draw()
        if is_drawn:
            require_law(f"what is drawn in {wanted}", module.parameters(), layer.hidden_size**-0.5)
        load(trial, module, trial.case.arrays.weights)
        with where(f"built on {device}{', taken from there by to_empty() and loaded' if device == 'meta' else ''}"):
            trial.agree(trial.answer(module).arrays(), answer(trial.case))


#: Options that mean nothing. Not here: those to which a plain loop gives a meaning that nobody would call wrong (proj_size >= hidden_size).
_MEANINGLESS: tuple[tuple[dict[str, Any], frozenset[Mode]], ...] = (
    ({"hidden_size": -1}, frozenset(Mode)),
    ({"hidden_size": 0}, frozenset(Mode)),
    # A number of units is not rounded, and a name that is misspelt not passed over.
    ({"hidden_size": 5.5}, frozenset(Mode)),
    ({"batchfirst": True}, frozenset(Mode)),
    ({"num_layers": 0}, frozenset(Mode)),
    ({"num_layers": 1.5}, frozenset(Mode)),
    ({"num_layers": 2, "dropout": 1.5}, frozenset(Mode)),
    ({"num_layers": 2, "dropout": -0.5}, frozenset(Mode)),
    ({"nonlinearity": "sigmoid"}, frozenset((RNN_TANH,))),
    ({"proj_size": 2}, frozenset(Mode) - {LSTM}),
)


@contract(
    "module.meaningless_options",
    "An option that means nothing (no or half a layer, no or half a unit, dropout below 0 or above 1, an unknown nonlinearity, "
    "proj_size of a GRU or RNN, a misspelt name) is refused when the layer is built, or at the latest when it is called.",
    SHOULD,
    in_docs("LSTM: Args; nn.RNNBase.__init__"),
    every(),
    needs_constructor=True,
    demonstration="""
        sizes = reference.input_size, reference.hidden_size
        wrongs = [{"num_layers": 2, "dropout": p} for p in (1.5, -0.5)] + [{"num_layers": n} for n in (0, 1.5)]
        for wrong in [{"batchfirst": True}, *wrongs, *([] if reference.mode == "LSTM" else [{"proj_size": 2}])]:
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

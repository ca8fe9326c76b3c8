"""What is made of a module for elsewhere: traced, exported, quantised. It answers as the module does, or is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from harness.reference import answer, to_array
from harness.tolerance import scaled_error
from harness.trial import ContractError, Trial, canonical, may_refuse
from suites.conformance.cases import every
from suites.conformance.declare import MAY, contract
from suites.conformance.dropout import mask_given
from suites.conformance.execution_compiled import quiet


@contract(
    "execution.traced",
    "torch.jit.trace gives a function that is right on other numbers of the same shape, is refused, or was warned of as keeping NumPy's.",
    MAY,
    "torch.jit.trace",
    [*every(steps=17, batch=2, bias=False), *every(bidirectional=True, num_layers=3, batch_first=True)],
    demonstration="""
        other = 3 * torch.randn(x.shape).to(dtype)
        with torch.no_grad():
            fixed = layer if layer is reference else torch.jit.trace(layer, (other, hx), check_trace=False)
            return fixed(x, hx)
    """,
)
def traced(trial: Trial) -> None:
    with _warned_by_tracer(trial, "NumPy array"):
        _fixed(trial, "torch.jit.trace")


#: Each makes something of a module by one call on an example.
_MADE: dict[str, Callable[[torch.nn.Module, Any], Any]] = {
    "torch.jit.trace": lambda module, example: torch.jit.trace(module, example, check_trace=False),
    "torch.export": lambda module, example: torch.export.export(module, example, strict=False).module(),
}


def _fixed(trial: Trial, how: str, made: Callable[[torch.nn.Module, Any], Any] | None = None) -> None:
    """What is ``made`` of the module (that of :data:`_MADE` if nothing is given) is right on the case's own numbers."""
    made = made or _MADE[how]
    module, example = trial.module(), replace(trial.case, inputs_seed=trial.case.inputs_seed + 1)
    trial.answer(module)
    with may_refuse(how), torch.no_grad():
        fixed = made(module, trial.form(trial.leaves(case=example), example))
        input, hx = trial.form(trial.leaves())
        raw = fixed(input, hx)
    trial.agree(trial.structured(raw, input).arrays(), answer(trial.case))


@contract(
    "execution.exported",
    "torch.export gives a program that is right on other numbers of the same shape, or is refused.",
    MAY,
    "torch.export.export",
    [
        *every(steps=2, batch=2, num_layers=3, bidirectional=True),
        *every(steps=1, batch=2, given_state=False),
        *every(steps=10, batch=2, bias=False, batch_first=True),
    ],
    demonstration="""
        other = 3 * torch.randn(x.shape).to(dtype)
        with torch.no_grad():
            fixed = layer if layer is reference else torch.export.export(layer, (other, hx), strict=False).module()
            return fixed(x, hx)
    """,
)
def exported(trial: Trial) -> None:
    _fixed(trial, "torch.export")


@contract(
    "execution.traced_dropout",
    "What torch.jit.trace or torch.export makes of a module in training drops, and what it makes of one in eval mode does not; or it is "
    "refused.",
    MAY,
    "torch.jit.trace, torch.export.export; torch.nn.LSTM: dropout",
    [*every(dropout=0.5, num_layers=2, weights="readable", dtype="float64", hidden_size=6, steps=2, batch=5)],
    demonstration="""
        made = lambda how: torch.jit.trace(layer, (x, hx), check_trace=False) if how else torch.export.export(layer, (x, hx)).module()
        for how in () if layer is reference else (0, 1):
            assert (made(how)(x, hx)[0].abs() < 1e-9).any(), "nothing is dropped"
        return layer.eval() and [made(how)(x, hx) for how in (0, 1)]
    """,
)
def traced_dropout(trial: Trial) -> None:
    module, refusals = trial.module(), []
    input, hx = trial.form(trial.leaves())
    for how, made in _MADE.items():
        torch.manual_seed(0)
        try:
            with may_refuse(how), torch.no_grad():
                raw = made(module.train(), (input, hx))(input, hx)
                plain = made(module.eval(), (input, hx))(input, hx)
        except NotImplementedError as error:
            refusals.append(str(error))
            continue
        # Not another mask at each call: what a module draws by Python's means is a constant of a trace, as torch documents.
        if not (mask_given(trial, trial.structured(raw, input)) == 0).any():
            raise ContractError(f"Expected dropout to act in what {how} made of a module in training, but it drops nothing")
        trial.agree(trial.structured(plain, input).arrays(), answer(trial.case))
    if len(refusals) == len(_MADE):
        raise NotImplementedError("; ".join(refusals))


def _for_other_sizes(trial: Trial, how: str, made: Callable[[torch.nn.Module, Any, int], Any]) -> None:
    """What is ``made`` of the module by an example is right at another batch size (axis 1 of the input) and at another length (axis 0)."""
    case, refusals = trial.case, []
    trial.answer()
    for what, axis, other in (("batch size", 1, replace(case, batch=case.batch + 2)), ("length", 0, replace(case, steps=case.steps + 8))):
        module, example = trial.module(), trial.form(trial.leaves())
        leaves = trial.leaves(case=other)
        with torch.no_grad():
            try:
                with may_refuse(f"{how} with another {what}"):
                    raw = made(module, example, axis)(*trial.form(leaves, other))
            except NotImplementedError as error:
                refusals.append(str(error))
                continue
        trial.agree({name: to_array(value) for name, value in canonical(raw, leaves["x"], other).items()}, answer(other))
    if len(refusals) == 2:
        raise NotImplementedError("; ".join(refusals))


@contextmanager
def _warned_by_tracer(trial: Trial, words: str = "") -> Iterator[None]:
    """A trace that is wrong, and of which torch said that it might not hold, as of a Python loop over the steps, is *unsupported*.

    ``words`` that the warning must have: nearly every loop is warned of for its sizes, which other numbers of one shape do not change.
    """
    before = len(trial.comparisons)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except ContractError as error:
            said = [str(warning.message) for warning in caught if issubclass(warning.category, torch.jit._trace.TracerWarning)]
            said = [message for message in said if words in message]
            if not said:
                raise
            # Nobody relies on what these numbers are of.
            del trial.comparisons[before:]
            raise NotImplementedError(f"torch.jit.trace warned: {said[0]}") from error


@contract(
    "execution.traced_for_other_sizes",
    "What torch.jit.trace gives is right at another batch size or sequence length than that of the trace, refuses it, or was warned of.",
    MAY,
    "torch.jit.trace: tracing records no control flow that depends on the data's shape",
    [*every(steps=3, batch=2), *every(steps=3, batch=2, given_state=False)],
    demonstration="""
        count, pair = 1 + (hx is not None), lambda s: s if s is None else torch.cat([s, s], 1)
        traced = torch.jit.trace(layer, (x, hx)[:count], check_trace=False)
        for given in ((torch.cat([x, x]), hx), (pair(x), torch.utils._pytree.tree_map(pair, hx))):
            try: answer = traced(*given[:count])[0]
            except RuntimeError: continue
            torch.testing.assert_close(answer, layer(*given[:count])[0])
    """,
)
def traced_for_other_sizes(trial: Trial) -> None:
    def made(module: torch.nn.Module, example: Any, _: int) -> Callable[..., Any]:
        given = tuple(value for value in example if value is not None)
        traced: Any = torch.jit.trace(module, given, check_trace=False)
        return lambda *others: traced(*(value for value in others if value is not None))

    with _warned_by_tracer(trial):
        _for_other_sizes(trial, "torch.jit.trace", made)


@contract(
    "execution.exported_for_other_sizes",
    "torch.export with a dynamic batch size or sequence length gives a program that is right at another one, or is refused.",
    MAY,
    "torch.export.export: dynamic_shapes",
    [*every(steps=3, batch=2)],
    demonstration="""
        tree, any_size = torch.utils._pytree.tree_map, {1: torch.export.Dim.DYNAMIC}
        more, states = torch.cat([x, x], 1), tree(lambda s: torch.cat([s, s], 1), hx)
        if layer is reference: return layer(more, states)
        try: program = torch.export.export(layer, (x, hx), dynamic_shapes=(any_size, tree(lambda s: any_size, hx)), strict=False)
        except Exception: return reference(more.double(), tree(torch.Tensor.double, states))
        return program.module()(more, states)
    """,
)
def exported_for_other_sizes(trial: Trial) -> None:
    def made(module: torch.nn.Module, example: Any, axis: int) -> Callable[..., Any]:
        program: Callable[..., Any] = torch.export.export(module, example, dynamic_shapes=_any(trial, axis), strict=False).module()
        return program

    _for_other_sizes(trial, "torch.export", made)


def _any(trial: Trial, axis: int) -> Any:
    """Dynamic shapes of the input and the states of a case: any batch size (axis 1 of the input), or any length (axis 0)."""
    any_size = torch.export.Dim.DYNAMIC
    state: Any = {1: any_size} if axis == 1 else None
    return {axis: any_size}, (state, state) if trial.case.layer.has_cell_state else state


@contract(
    "execution.onnx",
    "torch.onnx.export gives a model that ONNX Runtime answers rightly on other numbers of the same shape, or is refused.",
    MAY,
    "torch.onnx.export; onnxruntime#4187, onnx#921",
    [*every(steps=2, batch=2, bidirectional=True)],
    needs=("onnxruntime", "onnxscript"),
    demonstration="""
        other, leaves_of = 3 * torch.randn(x.shape).to(dtype), torch.utils._pytree.tree_leaves
        with torch.no_grad():
            if layer is reference: return leaves_of(layer(x, hx))
            return list(torch.onnx.export(layer, (other, hx), dynamo=True, verbose=False)(x, hx))
    """,
)
def onnx(trial: Trial) -> None:
    _fixed(trial, "torch.onnx.export", lambda module, example: _onnx(trial, module, example))


@contract(
    "execution.onnx_for_other_sizes",
    "torch.onnx.export with a dynamic batch size or sequence length gives a model that is right at another one, or is refused.",
    MAY,
    "torch.onnx.export: dynamic_shapes",
    [*every(steps=3, batch=2)],
    needs=("onnxruntime", "onnxscript"),
    demonstration="""
        leaves_of, tree, any_size = torch.utils._pytree.tree_leaves, torch.utils._pytree.tree_map, {1: torch.export.Dim.DYNAMIC}
        more, states = torch.cat([x, x], 1), tree(lambda s: torch.cat([s, s], 1), hx)
        with torch.no_grad():
            if layer is reference: return leaves_of(layer(more, states))
            sizes = (any_size, tree(lambda s: any_size, hx))
            return list(torch.onnx.export(layer, (x, hx), dynamic_shapes=sizes, dynamo=True, verbose=False)(more, states))
    """,
)
def onnx_for_other_sizes(trial: Trial) -> None:
    def made(module: torch.nn.Module, example: Any, axis: int) -> Callable[..., Any]:
        return _onnx(trial, module, example, _any(trial, axis))

    _for_other_sizes(trial, "torch.onnx.export", made)


def _onnx(trial: Trial, module: torch.nn.Module, example: Any, sizes: Any = None) -> Callable[..., Any]:
    with quiet("torch.onnx"):
        program: Any = torch.onnx.export(module, example, dynamic_shapes=sizes, dynamo=True, verbose=False)

    def answered(input: Any, hx: Any) -> Any:
        # ONNX has no nested outputs.
        output, *states = program(input, hx)
        return output, (tuple(states) if trial.case.layer.has_cell_state else states[0])

    return answered


#: What int8 may cost of a tensor's largest magnitude. Over 20 seeds nn.LSTM and nn.GRU lost at most 3.1 %, in one layer and in two.
_INT8 = 0.1


@contract(
    "execution.quantized",
    "In a model that is quantised dynamically to int8 the answer is right to int8's precision, or the quantisation is refused; a class "
    "that is not torch's own it leaves as it is.",
    MAY,
    "torch.ao.quantization.quantize_dynamic; torch.ao.nn.quantized.dynamic.LSTM",
    [*every(steps=3), *every(num_layers=2, bidirectional=True, steps=3)],
    demonstration="""
        if layer is reference: return
        model = torch.nn.ModuleDict({"layer": copy.deepcopy(layer)})
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, torch.nn.Linear})
        with torch.no_grad():
            right, found = reference(x, hx)[0], model["layer"](x, hx)[0]
        assert (found - right).abs().max() < 0.1 * right.abs().max()
    """,
)
def quantized(trial: Trial) -> None:
    module = trial.module().eval()
    trial.answer(module)
    kinds = {torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, torch.nn.Linear}
    # One day torch will not have it any more.
    with may_refuse("quantize_dynamic"):
        model = torch.ao.quantization.quantize_dynamic(torch.nn.ModuleDict({"layer": module}), kinds)
        with torch.no_grad():
            input, hx = trial.form(trial.leaves())
            raw = model["layer"](input, hx)
    expected = answer(trial.case).tensors
    for name, found in trial.structured(raw, input).arrays().items():
        lost = scaled_error(found, expected[name])
        if not lost <= _INT8:
            raise ContractError(f"Expected {name} within {_INT8:.0%} of its largest magnitude in int8, but it is off by {lost:.1%}")

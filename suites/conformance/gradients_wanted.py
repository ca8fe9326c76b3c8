"""Which gradients are asked for, and how: of frozen layers, of one input alone, by ``autograd.grad``, with hooks.

Where all are asked for, by one ``backward()``, is in ``gradients.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.reference import gradients, tensor, to_array
from harness.reproduction import GRADIENTS
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.gradients import every_output

PLAIN = [
    *every(num_layers=2, steps=4, batch=2),
    *every(bidirectional=True, batch_first=True),
    # The forms that layers take apart before they run, and may do so otherwise where gradients are asked for.
    *every(steps=4, batch=3, lengths=(2, 4, 1)),
    *every(GRU, RNN_TANH, RNN_RELU, steps=4, batch=1, batched=False),
    make(LSTM, steps=4, batch=1, batched=False, proj_size=2),
    # A decoder's step, of several sequences and of one.
    *every(steps=1, batch=3),
    *every(steps=1, batch=1),
]
#: The same in the dtypes for which layers have other kernels.
IN_EVERY_DTYPE = [
    *PLAIN,
    *every(num_layers=2, bidirectional=True, steps=3, batch=2, dtype="bfloat16"),
    *every(steps=3, batch=2, dtype="float64"),
]
#: In a demonstration, the output of any form as one tensor.
OUTPUT = """
output = layer(x, hx)[0]
output = output[0] if isinstance(output, tuple) else output
"""


def backward(trial: Trial, module: torch.nn.Module, retain: bool = False, passes: int = 1) -> dict[str, Tensor]:
    """Calls the module and goes back ``passes`` times through one graph; returns the leaves and parameters with their gradients."""
    leaves = trial.leaves(requires_grad=True)
    reply = trial.call(module, *trial.form(leaves))
    for _ in range(passes):
        trial.backward(reply, every_output(trial), retain_graph=retain)
    return trial.wanted(leaves, module)


@contract(
    "gradients.some_frozen",
    "Freezing any kind of parameter, or all but one, any layer, any direction, or all but the biases, changes no other gradient, and gives "
    "the frozen ones none.",
    MUST,
    "torch.Tensor.requires_grad; pytorch#15788",
    [
        *every(num_layers=2, steps=4, batch=2),
        *every(bidirectional=True, steps=4, batch=2),
        *every(LSTM, proj_size=2, bidirectional=True),
        *every(steps=3, batch=2, lengths=(1, 3)),
    ],
    demonstration="""
        found, below, cut = [], "_l0" if reference.num_layers > 1 else "weight", torch.utils._pytree.tree_map(torch.Tensor.detach, (x, hx))
        for number, kind in enumerate([*"weight_ih weight_hh bias_ih bias_hh weight _l1 _reverse  weight ih hh".split(" "), below, ""]):
            [setattr(p.requires_grad_(kind not in name), "grad", None) for name, p in layer.named_parameters()]
            output = layer(*((x, hx), cut, (cut[0], hx))[(number > 7) + (number > 11)])[0]
            (output[0] if isinstance(output, tuple) else output).sum().backward(retain_graph=True)
            found.append([p.grad for _, p in sorted(layer.named_parameters())])
        return found, [leaf.grad for leaf in leaves]
    """,
)
def some_frozen(trial: Trial) -> None:
    expected = gradients(trial.case, every_output(trial))
    names = list(trial.case.arrays.weights)
    for kind in sorted({name.partition("_l")[0] for name in names}):
        _freeze_and_compare(trial, expected, [name for name in names if name.startswith(kind)])
        # One kind alone, as low-rank updates and spectral penalties of one matrix have it, on data that want no gradient.
        _freeze_and_compare(trial, expected, [name for name in names if not name.startswith(kind)], data=True)
    for _, _, _, suffix in trial.case.layer.slots():
        _freeze_and_compare(trial, expected, [name for name in names if name.endswith(suffix)])
    _freeze_and_compare(trial, expected, names)
    # What is trained of a pretrained layer: its biases alone, or, on data that want no gradient, what stands above the first layer.
    for data in (True, False):
        _freeze_and_compare(trial, expected, [name for name in names if not name.startswith("bias")], data=data)
    if trial.case.layer.num_layers > 1:
        _freeze_and_compare(trial, expected, [name for name in names if "_l0" in name], data=True)
    # All of it frozen, as a pretrained layer is, and only what it is started from wants a gradient.
    module, leaves = trial.module().requires_grad_(False), trial.leaves(requires_grad=True)
    leaves["x"].requires_grad_(False)
    trial.backward(trial.call(module, *trial.form(leaves)), every_output(trial))
    del leaves["x"]
    trial.agree(trial.collect(leaves), expected, only=list(leaves))


def _freeze_and_compare(trial: Trial, expected: Any, frozen: list[str], data: bool = False) -> None:
    """``data``: the input and the state want no gradient either."""
    module = trial.module()
    for name, parameter in trial.parameters(module).items():
        parameter.requires_grad_(name not in frozen)
    if data:
        # The answer of what is frozen alone, such as h_n of the layers below, has no graph.
        trial.backward(trial.call(module, *trial.form(trial.leaves())), ("output",))
        leaves, expected = trial.parameters(module), gradients(trial.case, ("output",))
    else:
        leaves = backward(trial, module)
    given = [name for name in frozen if leaves[name].grad is not None]
    if given:
        raise ContractError(f"Expected no gradient for the frozen {', '.join(given)}")
    kept = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    trial.agree(trial.collect(kept), expected, only=list(kept))


@contract(
    "gradients.in_eval",
    "After eval() a call that records gradients answers as ever, and backward works as it does in training, with frozen weights too.",
    MUST,
    "torch.nn.Module.eval; pytorch#777",
    [
        *IN_EVERY_DTYPE,
        # Every option has to be met here too: where layers refuse this, they need not fail everywhere else.
        *every(given_state=False, bidirectional=True, steps=4, batch=2),
        *every(num_layers=3, bias=False, batch_first=True, steps=3, batch=2),
        *every(num_layers=3, bidirectional=True, steps=4, batch=3, lengths=(2, 4, 1), given_state=False),
        *every(steps=19, batch=2, input_size=18, hidden_size=34),
        *every(num_layers=2, dropout=0.5, steps=3, batch=2),
        *every(LSTM, num_layers=2, bidirectional=True, proj_size=2, steps=3, batch=2),
    ],
    demonstration=f"""
layer.eval(){OUTPUT}
(output.square().sum() + sum(value.sum() for value in layer(x, hx)[1])).backward(retain_graph=True)
sum(value.sum() for value in layer.requires_grad_(False)(x, hx)[1]).backward()
return output, {GRADIENTS}
""",
)
def in_eval(trial: Trial) -> None:
    through = every_output(trial)
    expected = gradients(trial.case, through)
    module = trial.module().eval()
    found = trial.gradients(through, module, expected)
    trial.agree(found, expected, only=list(found))
    # Of two calls before one backward pass, each adds its own.
    module.zero_grad()
    leaves = trial.leaves(requires_grad=True)
    replies = [trial.call(module, *trial.form(leaves)) for _ in range(2)]
    for reply in replies:
        trial.backward(reply, through)
    both = trial.collect({name: value for name, value in trial.wanted(leaves, module).items() if name in found})
    with where("of two calls, halved"):
        trial.agree({name: value / 2 for name, value in both.items()}, expected, only=list(both))
    # As a pretrained model whose answers are to be explained, or whose input is learned.
    module.requires_grad_(False)
    leaves = {name: leaf for name, leaf in trial.leaves(requires_grad=True).items() if name in found}
    trial.backward(trial.call(module, *trial.form({**trial.leaves(), **leaves})), through)
    with where("of frozen weights"):
        trial.agree(trial.collect(leaves), expected, only=list(leaves))


@contract(
    "gradients.input_without_grad",
    "The weights get their gradients where neither the input nor the state wants one, as in the first layer of any network.",
    MUST,
    "torch.Tensor.requires_grad",
    [*PLAIN, *every(num_layers=2, steps=4, batch=3, lengths=(2, 4, 1))],
    demonstration=f"""{OUTPUT}
output.square().sum().backward()
return [p.grad for _, p in sorted(layer.named_parameters())]
""",
)
def input_without_grad(trial: Trial) -> None:
    module = trial.module()
    trial.backward(trial.call(module, *trial.form(trial.leaves())), every_output(trial))
    weights = list(trial.case.arrays.weights)
    trial.agree(trial.collect(trial.parameters(module)), gradients(trial.case, every_output(trial)), only=weights)


@contract(
    "gradients.one_input_alone",
    "Each of x, h_0 and c_0 gets its gradient where it is the only one of them that wants one.",
    MUST,
    "torch.Tensor.requires_grad",
    PLAIN,
    demonstration="""
        found = []
        for wanted in leaves:
            [leaf.requires_grad_(leaf is wanted) for leaf in leaves]
            given = x if wanted is leaves[0] or x is leaves[0] else x._replace(data=x.data.detach())
            output = layer(given, hx)[0]
            found.append(torch.autograd.grad((output[0] if isinstance(output, tuple) else output).square().sum(), wanted))
        return found
    """,
)
def one_input_alone(trial: Trial) -> None:
    expected = gradients(trial.case, every_output(trial))
    for wanted in trial.leaves():
        module, leaves = trial.module(), trial.leaves()
        leaves[wanted].requires_grad_()
        trial.backward(trial.call(module, *trial.form(leaves)), every_output(trial))
        found = trial.collect({wanted: leaves[wanted], **trial.parameters(module)})
        with where(f"with {wanted} alone wanting a gradient"):
            trial.agree(found, expected, only=list(found))


@contract(
    "gradients.any_of_any",
    "Whichever of output, h_n and c_n a loss is of, and whichever of x, h_0, c_0 and the weights want a gradient: who wants one gets it "
    "right.",
    MUST,
    "torch.Tensor.requires_grad; pytorch#96416: wrong where only h_n has a cotangent",
    [
        *every(num_layers=2, steps=3, batch=2),
        *every(steps=3, batch=2, lengths=(2, 3), bidirectional=True),
        *every(LSTM, proj_size=2, steps=3, batch=1, batched=False),
    ],
    demonstration="""
        found, grad, everything = [], torch.autograd.grad, [*leaves, *(p for _, p in sorted(layer.named_parameters()))]
        for bits in range(1, 2 << len(leaves)):
            [t.requires_grad_(bool(bits >> min(k, len(leaves)) & 1)) for k, t in enumerate(everything)]
            values = [output[0] if isinstance(output, tuple) else output for y, state in [layer(x, hx)] for output in (y, *state)]
            losses = [sum(v.sum() for k, v in enumerate(values) if some >> k & 1) for some in range(1, 1 << len(values))]
            found += [grad(loss, [t for t in everything if t.requires_grad], retain_graph=True, allow_unused=True) for loss in losses]
        return found
    """,
)
def any_of_any(trial: Trial) -> None:
    module = trial.module()
    for wanting in _some_of([*trial.leaves(), "the weights"]):
        module.requires_grad_("the weights" in wanting)
        for through in _some_of(every_output(trial)):
            leaves = trial.leaves()
            for name in leaves:
                leaves[name].requires_grad_(name in wanting)
            with where(f"of {', '.join(through)}, with {', '.join(wanting)} wanting it"):
                module.zero_grad()
                trial.backward(trial.call(module, *trial.form(leaves)), through)
                asked = {name: leaf for name, leaf in trial.wanted(leaves, module).items() if leaf.requires_grad}
                trial.agree(trial.collect(asked), gradients(trial.case, through), only=list(asked))


def _some_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every choice of at least one of ``names``."""
    return [some for number in range(1, len(names) + 1) for some in combinations(names, number)]


@contract(
    "gradients.asked_of_autograd",
    "torch.autograd.grad gives the gradients of the weights and leaves .grad alone; in backward() the hooks of every weight are called, "
    "and what they return counts.",
    MUST,
    "torch.autograd.grad; torch.Tensor.register_hook, register_post_accumulate_grad_hook: what DDP and fused optimisers rely on",
    IN_EVERY_DTYPE,
    demonstration="""
        loss, weights, calls = sum(value.sum() for value in layer(x, hx)[1]), [p for _, p in sorted(layer.named_parameters())], []
        found = torch.autograd.grad(loss, weights)
        [p.register_hook(lambda gradient: 2 * gradient) for p in weights]
        [p.register_post_accumulate_grad_hook(lambda p: calls.append(1)) for p in weights]
        sum(value.sum() for value in layer(x, hx)[1]).backward()
        return found, [p.grad for p in weights], float(len(calls))
    """,
)
def asked_of_autograd(trial: Trial) -> None:
    case, through = trial.case, every_output(trial)
    module, expected = trial.module(), gradients(case, through)
    parameters = trial.parameters(module)
    leaves = trial.leaves()
    reply = trial.call(module, *trial.form(leaves))
    cotangents = [tensor(case.arrays.cotangents[name], case) for name in through]
    with trial.blamed("autograd.grad"):
        found = torch.autograd.grad([reply.tensors[name] for name in through], list(parameters.values()), cotangents, allow_unused=True)
    none = [name for name, gradient in zip(parameters, found, strict=True) if gradient is None]
    if none:
        raise ContractError(f"Expected autograd.grad to give a gradient of {', '.join(none)} but it gave None")
    trial.agree({name: to_array(g) for name, g in zip(parameters, found, strict=True)}, expected, only=list(parameters))
    touched = [name for name, parameter in parameters.items() if parameter.grad is not None]
    if touched:
        raise ContractError(f"Expected autograd.grad to leave .grad alone, but it has set that of {', '.join(touched)}")
    called: list[str] = []
    for name, parameter in parameters.items():
        parameter.register_hook(lambda gradient: 2 * gradient)
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: called.append(name))
    trial.backward(trial.call(module, *trial.form(leaves)), through)
    missed = [name for name in parameters if name not in called]
    if missed:
        raise ContractError(f"Expected backward() to call the hook after accumulation of {', '.join(missed)}, but it did not")
    doubled = replace(expected, tensors={name: 2 * value for name, value in expected.tensors.items()})
    trial.agree(trial.collect(parameters), doubled, only=list(parameters))


@contract(
    "gradients.relu_at_zero",
    "Where what it is taken of is exactly zero, as in frames of padding without biases, a relu passes back none of the gradient, all of "
    "it or a part.",
    SHOULD,
    "torch: Autograd mechanics, Gradients for non-differentiable functions",
    [
        make(RNN_RELU, bias=False, given_state=False, steps=1),
        make(RNN_RELU, bias=False, given_state=False, steps=1, batch=3, lengths=(1, 1, 1), bidirectional=True),
    ],
    demonstration="""
        zeros = torch.zeros_like(x.data).requires_grad_()
        output = layer(x._replace(data=zeros) if isinstance(x, tuple) else zeros)[0]
        return torch.autograd.grad((output[0] if isinstance(output, tuple) else output).sum(), zeros)
    """,
)
def relu_at_zero(trial: Trial) -> None:
    leaves, module, cotangent = trial.leaves(), trial.module(), trial.case.arrays.cotangents["output"]
    leaves["x"].zero_().requires_grad_()
    trial.backward(trial.call(module, *trial.form(leaves)), ("output",))
    slopes = trial.collect({"x": leaves["x"], **trial.parameters(module)})
    # Any slope from zero to one is a subgradient: relu() takes zero, clamp() one, maximum() a half.
    rows = np.concatenate([value for name, value in trial.case.arrays.weights.items() if name.startswith("weight_ih")])
    all_of_it = cotangent @ rows
    share = float((slopes["x"] * all_of_it).sum() / (all_of_it**2).sum())
    if not (-1e-6 <= share <= 1 + 1e-6 and np.allclose(slopes.pop("x"), share * all_of_it, atol=1e-5)):
        raise ContractError(f"Expected from 0 to 1 of the gradient of x through a relu of zeros, but it is {share:.3g} of it")
    for name, slope in slopes.items():
        if not (slope == 0).all():
            raise ContractError(f"Expected no gradient of {name}, which is multiplied by zeros, but it is up to {abs(slope).max():.3g}")

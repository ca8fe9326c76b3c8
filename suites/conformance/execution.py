"""Ways of running: grad mode, the kernel that the row's name promises, switches, vmap, autocast, a side stream.

Torch's global switches are in ``execution_switched.py``, what torch.compile makes of a module in ``execution_compiled.py``, what is
traced and exported in ``execution_exported.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from harness.case import Case
from harness.dispatch import kernels_of
from harness.reference import altered, answer, gradients, tensor, to_array
from harness.trial import ContractError, Trial, may_refuse, where
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make
from suites.conformance.declare import MAY, MUST, contract
from suites.conformance.gradients import every_output

_CASES = [
    # Past a tile: kernels for inference alone have tiles of their own.
    *every(num_layers=2, hidden_size=34, steps=34, batch=34),
    *every(bidirectional=True, batch_first=True, given_state=False),
    *every(steps=5, batch=3, lengths=(2, 5, 3)),
    *every(bidirectional=True, batch=1, batched=False),
    *every(LSTM, proj_size=2, batch=1, batched=False),
]


@contract(
    "execution.grad_modes_agree",
    "The answer is the same with gradients recorded, under no_grad and under inference_mode, in training and in eval mode; it requires "
    "grad only where something does, and is an inference tensor under inference_mode alone.",
    MUST,
    "torch: Locally disabling gradient computation",
    _CASES,
    demonstration="""
        found = []
        for train, mode in [(t, m) for t in (True, False) for m in (torch.enable_grad, torch.no_grad, torch.inference_mode)]:
            with mode():
                found.append(layer.train(train)(x, hx))
            assert mode is torch.inference_mode or not found[-1][0][0].is_inference()
        found.append(layer.requires_grad_(False)(x, hx))
        return found, float(found[-1][0][0].requires_grad)
    """,
)
def grad_modes_agree(trial: Trial) -> None:
    for train in (True, False):
        module = trial.module().train(train)
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                reply = trial.call(module, *trial.form(trial.leaves()))
                arrays = reply.arrays()
            with where(f"in {'training' if train else 'eval mode'} under {mode.__name__}"):
                trial.agree(arrays, answer(trial.case))
            if mode is not torch.enable_grad and any(value.requires_grad for value in reply.tensors.values()):
                raise ContractError(f"Expected an answer without gradient under {mode.__name__}, but it requires grad")
            if mode is not torch.inference_mode and any(value.is_inference() for value in reply.tensors.values()):
                raise ContractError(f"Expected ordinary tensors under {mode.__name__}, but they are inference tensors")
        # Gradients are recorded, and nobody wants one.
        reply = trial.call(module.requires_grad_(False), *trial.form(trial.leaves()))
        with where("with frozen weights"):
            trial.agree(reply.arrays(), answer(trial.case))
        if any(value.requires_grad for value in reply.tensors.values()):
            raise ContractError("Expected an answer without gradient where no weight, input or state wants one, but it requires grad")


@contract(
    "execution.after_inference_mode",
    "A module that was first called under inference_mode can be trained afterwards.",
    MUST,
    "torch.inference_mode: inference tensors cannot be saved for backward",
    [*every(num_layers=2), *every(bidirectional=True, given_state=False)],
    demonstration="""
        with torch.inference_mode():
            layer(x, hx)
        output = layer(x, hx)[0]
        output.sum().backward()
        return output, [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def after_inference_mode(trial: Trial) -> None:
    module = trial.module()
    with torch.inference_mode():
        trial.call(module, *trial.form(trial.leaves()))
    reply = trial.call(module, *trial.form(trial.leaves()))
    trial.agree(reply.arrays(), answer(trial.case))
    expected = gradients(trial.case, ("output",))
    found = trial.gradients(("output",), module)
    trial.agree(found, expected, only=list(found))


@contract(
    "execution.kernel_recorded",
    "The kernels that torch dispatched for a call are recorded, and give the right answer while they are watched.",
    MUST,
    "torch.utils._python_dispatch; pytorch#141184, pytorch#149909: another kernel ran than the one named",
    [*every(), *every(dtype="float64"), *every(bidirectional=True, num_layers=2)],
    demonstration="""
        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                return function(*args, **(kwargs or {}))
        with Watch(), torch.no_grad():
            return layer(x, hx)
    """,
)
def kernel_recorded(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    replies: list[Any] = []
    with torch.no_grad(), trial.blamed("a call under a dispatch log"):
        trial.kernels.extend(kernels_of(lambda: replies.append(module(input) if hx is None else module(input, hx))))
    trial.agree(trial.structured(replies[0], input).arrays(), answer(trial.case))
    promised = trial.implementation.promised_kernel(trial.case)
    if promised is not None and not any(promised in kernel for kernel in trial.kernels):
        raise ContractError(f"Expected the kernel {promised} that the name promises, but torch ran {', '.join(trial.kernels)}")
    forbidden = trial.implementation.forbidden_kernel
    if forbidden and any(forbidden in kernel for kernel in trial.kernels):
        raise ContractError(f"Expected no kernel {forbidden}, which the name rules out, but torch ran {', '.join(trial.kernels)}")


@contract(
    "execution.parameters_given",
    "An input and a state that are Parameters, as learned prompts and learned initial states are, are taken for the tensors that they are, "
    "and get their gradients.",
    MUST,
    "torch.nn.Parameter: a kind of Tensor",
    [*every(), *every(steps=4, batch=1, batched=False), *every(LSTM, num_layers=2, bidirectional=True, dtype="float64")],
    demonstration="""
        x, states = torch.nn.Parameter(x), [torch.nn.Parameter(state) for state in (hx if isinstance(hx, tuple) else [hx])]
        output = layer(x, tuple(states) if isinstance(hx, tuple) else states[0])[0]
        output.square().sum().backward()
        return output, x.grad, [state.grad for state in states]
    """,
)
def parameters_given(trial: Trial) -> None:
    module, expected = trial.module(), gradients(trial.case, ("output",))
    input, hx = trial.form(trial.leaves())
    states = [torch.nn.Parameter(state) for state in (hx if isinstance(hx, tuple) else (hx,))]
    given = torch.nn.Parameter(input)
    reply = trial.call(module, given, tuple(states) if isinstance(hx, tuple) else states[0])
    trial.agree(reply.arrays(), answer(trial.case))
    trial.backward(reply, ("output",))
    found = trial.collect(dict(zip(("x", "h0", "c0"), (given, *states), strict=False)))
    if not trial.case.batched:
        found = {name: value[:, None] for name, value in found.items()}
    trial.agree(found, expected, only=list(found))


@contract(
    "execution.vmap",
    "torch.vmap over inputs, over states, over both, and over weights is right or refused with an error.",
    MAY,
    "torch.vmap; torch.func.stack_module_state",
    [
        *every(num_layers=2, steps=3, batch=2),
        *every(batch_first=True, bidirectional=True, steps=3, batch=2),
        make(LSTM, proj_size=2, steps=3, batch=2),
    ],
    demonstration="""
        tree, twice = torch.utils._pytree.tree_map, lambda value: torch.stack([value, 2 * value])
        one = lambda w, x, hx: torch.func.functional_call(layer, w, (x, hx))
        apart = lambda call: lambda *given: tree(lambda *two: torch.stack(two), *(call(*tree(lambda v: v[i], given)) for i in (0, 1)))
        mapped, weights = apart if layer is reference else torch.vmap, dict(layer.named_parameters())
        with torch.no_grad():
            members, states = mapped(lambda w: one(w, x, hx))(tree(twice, weights)), mapped(lambda hx: layer(x, hx))(tree(twice, hx))
            return members, states, mapped(lambda x: one(weights, x, hx))(twice(x)), mapped(layer)(twice(x), tree(twice, hx))
    """,
)
def vmap(trial: Trial) -> None:
    module, case = trial.module(), trial.case
    inputs, weights = trial.leaves(), {name: value.detach() for name, value in trial.parameters(module).items()}

    def one(given: dict[str, torch.Tensor]) -> Any:
        """The output and the final states for these inputs and weights, the others being the case's."""
        input, hx = trial.form({**inputs, **{name: value for name, value in given.items() if name in inputs}})
        changed = {name: value for name, value in given.items() if name in weights}
        return trial.structured(torch.func.functional_call(module, changed, (input, hx)), input).tensors

    with torch.no_grad(), trial.blamed("an ordinary call"):
        one({})
    twice = {name: 2 * array for name, array in case.arrays.inputs().items()}
    states = {name: value for name, value in inputs.items() if name != "x"}
    for what, batched, second in (
        ("states", states, altered(case, inputs={name: twice[name] for name in states})),
        ("inputs", {"x": inputs["x"]}, altered(case, inputs={"x": twice["x"]})),
        ("inputs and states", inputs, altered(case, inputs=twice)),
        ("weights", weights, altered(case, weights={name: 2 * value for name, value in case.arrays.weights.items()})),
    ):
        with may_refuse(f"vmap over {what}"), torch.no_grad():
            found: Any = torch.vmap(one)({name: torch.stack([value, 2 * value]) for name, value in batched.items()})
        for item, right in enumerate((answer(case), second)):
            with where(f"item {item} of a vmap over {what}"):
                trial.agree({name: to_array(value[item]) for name, value in found.items()}, right)


@contract(
    "execution.autocast",
    "Under autocast to bfloat16 or float16 the answer and the gradients are right to that type's precision, or refused; after it, the "
    "answer is right to float32's again.",
    MAY,
    "torch.amp: autocast; pytorch#45048, pytorch#42605, pytorch#116925",
    [
        *every(num_layers=2, bidirectional=True, dtype="bfloat16"),
        *every(num_layers=2, batch_first=True, dtype="bfloat16", given_state=False),
        *every(steps=3, batch=2, dtype="float16"),
        *every(steps=5, batch=3, lengths=(2, 5, 3), dtype="bfloat16"),
        *every(RNN_TANH, RNN_RELU, GRU, batch=1, batched=False, dtype="bfloat16"),
        make(LSTM, proj_size=2, batch=1, batched=False, dtype="bfloat16"),
    ],
    demonstration="""
        hx = None if hx is None else tuple(state.float() for state in hx) if isinstance(hx, tuple) else hx.float()
        half, layer, x, plain = x.data.dtype, layer.float(), x.float(), lambda y: y if torch.is_tensor(y) else y.data
        [p.data.mul_(1.001) for p in layer.parameters()]
        before = plain(layer(x, hx)[0])
        with torch.autocast(x.data.device.type, half, enabled=layer is not reference): inside, state = layer(x, hx)
        slopes = torch.autograd.grad(10 * plain(inside).mean(), [p for _, p in sorted(layer.named_parameters())])
        return plain(inside), state, float(inside.data.dtype == torch.float64), (plain(layer(x, hx)[0]) - before).abs().max() * 1000, slopes
    """,
)
def autocast(trial: Trial) -> None:
    case = trial.case
    # Numbers that the half type holds, given as float32: autocast then loses nothing by rounding them.
    module = trial.module().float()
    leaves = {name: value.float() for name, value in trial.leaves().items()}
    precise = altered(replace(case, dtype="float32"), weights=case.arrays.weights, inputs=case.arrays.inputs())
    trial.agree(trial.answer(module, leaves).arrays(), precise)
    with may_refuse("autocast"), torch.no_grad(), _under_autocast(case):
        input, hx = trial.form(leaves)
        raw = module(input) if hx is None else module(input, hx)
    found = trial.structured(raw, input)
    odd = [
        f"{name} in {value.dtype}"
        for name, value in found.tensors.items()
        if value.dtype not in (getattr(torch, case.dtype), torch.float32)
    ]
    if odd:
        raise ContractError(f"Expected {case.dtype} or float32 under autocast to {case.dtype} but got {', '.join(odd)}")
    trial.agree(found.arrays(), answer(case))
    _gradients_under_autocast(trial, module)
    # Weights that an optimiser has changed, from copies of which in the half type the calls before were made.
    doubled = {name: 2 * value for name, value in case.arrays.weights.items()}
    with torch.no_grad(), trial.blamed("a call under autocast after its weights were changed"):
        for parameter in module.parameters():
            parameter.mul_(2)
        with _under_autocast(case):
            again = trial.call(module, *trial.form(leaves))
    trial.agree(again.arrays(), altered(case, weights=doubled))
    # Weights that the half type does not hold: what is kept of them from under autocast is seen afterwards.
    finer = replace(case, dtype="float32")
    leaves = trial.leaves(case=finer)
    with torch.no_grad(), trial.blamed("a call under autocast, and one after it"):
        module.load_state_dict({name: tensor(value, finer) for name, value in finer.arrays.weights.items()})
        for train in (True, False):
            with _under_autocast(case):
                trial.call(module.train(train), *trial.form(leaves))
            trial.agree(trial.answer(module, leaves).arrays(), answer(finer))


def _under_autocast(case: Case) -> torch.autocast:
    """Autocast to the case's dtype, a half type, on its device."""
    return torch.autocast(torch.device(case.device).type, getattr(torch, case.dtype))


def _gradients_under_autocast(trial: Trial, module: torch.nn.Module) -> None:
    """The gradients of a call under autocast, whose backward pass is outside of it, as the documentation has it."""
    case = trial.case
    through = every_output(trial)
    leaves = {name: value.float().requires_grad_() for name, value in trial.leaves().items()}
    with may_refuse("autocast with gradients"):
        with _under_autocast(case):
            input, hx = trial.form(leaves)
            raw = module(input) if hx is None else module(input, hx)
        # An error in the backward pass is a refusal too, as it is of a function of one's own that knows no autocast.
        trial.backward(trial.structured(raw, input), through)
    trial.agree(trial.collect(trial.wanted(leaves, module)), gradients(case, through))
    module.zero_grad()


@contract(
    "execution.side_stream",
    "Work is queued on the current CUDA stream: a call on a side stream reads what that stream wrote before, and is read after.",
    MUST,
    "torch.cuda.Stream: CUDA semantics",
    [*every(num_layers=2), *every(bidirectional=True, given_state=False, batch_first=True)],
    only_on="cuda",
)
def side_stream(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    leaves = trial.leaves()
    late = {name: torch.zeros_like(value) for name, value in leaves.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        # Some ten milliseconds in which work on any other stream would overtake this one's.
        torch.cuda._sleep(20_000_000)
        for name, value in leaves.items():
            late[name].copy_(value)
        reply = trial.call(module, *trial.form(late))
        kept = {name: value.clone() for name, value in reply.tensors.items()}
    stream.synchronize()
    trial.agree({name: to_array(value) for name, value in kept.items()}, answer(trial.case))

"""Purity: a call changes nothing but what it returns, and depends on nothing but what it is given."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.reference import altered, answer
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, SHOULD, contract

_CASES = [
    *every(num_layers=2),
    *every(bidirectional=True, batch_first=True, steps=4, batch=2),
    *every(steps=5, batch=3, lengths=(2, 5, 3)),
    *every(LSTM, batch=1, batched=False, proj_size=2),
]


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in an input, a state or an answer."""
    if isinstance(value, Tensor):
        return [value]
    if hasattr(value, "data") and hasattr(value, "batch_sizes"):
        return [value.data]
    return [t for item in value or () for t in tensors_in(item)]


def backward_from(trial: Trial, tensors: list[Tensor]) -> None:
    with trial.blamed("backward"):
        torch.autograd.backward([t.sum() for t in tensors])


@contract(
    "purity.bitwise_repeatable",
    "The same call on the same numbers gives the same bits, in training and in eval mode, and on a CPU the same gradients, from the third "
    "call on: what is compiled after it was watched may change its kernels before.",
    SHOULD,
    "torch: Reproducibility",
    _CASES,
    demonstration="""
        for grad, train in ((False, False), (False, True), (True, False), (True, True)):
            with torch.set_grad_enabled(grad):
                *_, first, second = (layer.train(train)(x, hx)[0].data for _ in range(4))
            assert torch.equal(first, second), (first - second).abs().max()
        loss = lambda: torch.utils._pytree.tree_leaves(layer(x, hx))[0].sum()
        first, second = (torch.autograd.grad(loss(), list(layer.parameters())) for _ in range(2))
        assert all(map(torch.equal, first, second)), "the gradients differ"
    """,
)
def bitwise_repeatable(trial: Trial) -> None:
    module = trial.module()
    for train, grad in itertools.product((True, False), (False, True)):
        how = f"{'with' if grad else 'without'} gradients and train({train})"
        *_, first, again = (_bits(trial, module.train(train), grad) for _ in range(4))
        for name, value in first.items():
            if not torch.equal(value, again[name]):
                raise ContractError(f"Expected the same bits in {name} from the same call {how}, but they differ")


def _bits(trial: Trial, module: torch.nn.Module, grad: bool) -> dict[str, Tensor]:
    """What a call answers, with the gradients of a training step on a CPU: on a GPU torch's own are sums in an order of chance."""
    leaves = trial.leaves(requires_grad=grad)
    with torch.set_grad_enabled(grad):
        found = trial.call(module, *trial.form(leaves)).tensors
    if not grad or not module.training or trial.case.device != "cpu":
        return found
    module.zero_grad()
    backward_from(trial, list(found.values()))
    wanted = trial.wanted(leaves, module)
    return found | {f"the gradient of {name}": leaf.grad.clone() for name, leaf in wanted.items() if leaf.grad is not None}


@contract(
    "purity.inputs_untouched",
    "Input, state and parameters have the values and versions after a call, in eval mode too, and its backward pass that they had before, "
    "and want a gradient where they wanted one; input and state lie in memory as they did.",
    MUST,
    "torch.autograd: In-place correctness checks",
    [
        *_CASES,
        # An output of the input's shape fits into its memory.
        *every(input_size=5, steps=4, batch=2),
        *every(input_size=10, bidirectional=True, batch_first=True, steps=4, batch=2),
    ],
    demonstration="""
        given = [x[0] if isinstance(x, tuple) else x, *(hx if isinstance(hx, tuple) else [hx]), *layer.parameters()]
        [p.data.mul_(2) for p in layer.parameters()], given[0].data.view(-1)[:1].fill_(float("nan"))
        before, _ = [(value._version, value.clone()) for value in given], torch.no_grad()(layer.eval())(x, hx)
        cut = x.detach().mT.contiguous().mT if torch.is_tensor(x) else x._replace(data=x.data.detach())
        assert layer(cut) and not any(v.requires_grad for v in cut[:1]) and (isinstance(x, tuple) or not cut.is_contiguous()), "turned"
        (output := (lambda y: y[0] if isinstance(y, tuple) else y)(layer(x, hx)[0])).backward(ones := torch.ones_like(output))
        assert (ones == 1).all() and all(v._version == n and v.allclose(k, equal_nan=True) for v, (n, k) in zip(given, before)), "written"
    """,
)
def inputs_untouched(trial: Trial) -> None:
    module = trial.module()
    # In eval mode without gradients, code for inference may prepare the weights for itself.
    for grad, hole, train in ((False, False, True), (True, False, True), (False, True, True), (False, True, False)):
        leaves = trial.leaves()
        if hole:
            # What is not a number is nobody's to clean up.
            leaves["x"][0, 0, 0] = float("nan")
        input, hx = trial.form(leaves)
        if hole and isinstance(input, Tensor):
            # Another order of the same numbers in memory is nobody's to put straight.
            input = input.mT.contiguous().mT
        with trial.blamed(f"train({train})"):
            module.train(train)
        watched = {f"tensor {i} of the input and state": t for i, t in enumerate([*tensors_in(input), *tensors_in(hx)])}
        # Parameters may be moved: that is how torch's own layers flatten theirs for cuDNN.
        lay = {name: (value.data_ptr(), value.stride()) for name, value in watched.items()}
        watched |= trial.parameters(module)
        wanted = {name: value.requires_grad for name, value in watched.items()}
        before = {name: (value._version, value.detach().clone()) for name, value in watched.items()}
        with torch.set_grad_enabled(grad):
            reply = trial.call(module, input, hx)
        if grad:
            given = {f"the cotangent of {name}": torch.randn_like(value) for name, value in reply.tensors.items()}
            before |= {name: (value._version, value.clone()) for name, value in given.items()}
            watched |= given
            with trial.blamed("backward"):
                torch.autograd.backward(list(reply.tensors.values()), list(given.values()))
        for name, (version, value) in before.items():
            if not torch.allclose(watched[name], value, rtol=0, atol=0, equal_nan=True):
                raise ContractError(f"Expected {name} to be as it was before the call, but its values changed")
            if watched[name]._version != version:
                raise ContractError(
                    f"Expected {name} not to be written to, but its version went from {version} to {watched[name]._version}"
                )
        moved = [name for name, place in lay.items() if (watched[name].data_ptr(), watched[name].stride()) != place]
        if moved:
            raise ContractError(f"Expected {', '.join(moved)} to lie in memory as before the call, but it lies elsewhere or otherwise")
        turned = [name for name, was in wanted.items() if watched[name].requires_grad is not was]
        if turned:
            raise ContractError(f"Expected requires_grad to be as it was before the call, but it is turned in {', '.join(turned)}")


@contract(
    "purity.no_state_between_calls",
    "A call is not affected by the calls before it, with hx or without, padded or packed, in training or in eval mode.",
    MUST,
    "torch.nn.LSTM: Inputs: h_0 defaults to zeros",
    [
        *every(num_layers=2),
        *every(given_state=False, bidirectional=True),
        *every(given_state=False, steps=1),
        *every(LSTM, given_state=False, batch_first=True),
        *every(steps=5, batch=3, lengths=(2, 5, 3), bidirectional=True),
    ],
    demonstration="""
        shape, twice = (5, 3, 3) if isinstance(x, tuple) else x.shape, lambda y: torch.cat([y, y], int(reference.batch_first))
        pack = lambda y: torch.nn.utils.rnn.pack_padded_sequence(y, torch.tensor([5, 3, 2]), enforce_sorted=False)
        for k, train in enumerate((True, False, True, False)):
            y = torch.randn(shape).to(dtype)
            y = pack(y) if isinstance(x, tuple) or (k == 1 and y.shape[:2] == (5, 3)) else twice(y) if k == 3 else y
            with torch.set_grad_enabled(train): [loss := layer.train(train)(y, hx)[0][0].sum(), train and loss.backward()]
        return layer(x), layer(x, hx)
    """,
)
def no_state_between_calls(trial: Trial) -> None:
    module = trial.module()
    for train in (True, False):
        module.train(train)
        for seed in (1, 2, 3):
            # Packed sequences of the same sizes in another order, and of as many steps in all; padded ones as long, packed, and longer.
            lengths, steps = trial.case.lengths and ((3, 2, 5), (5, 3, 2), (1, 5, 4))[seed - 1], trial.case.steps
            if trial.case.lengths is None:
                lengths = (steps, *[1] * (trial.case.batch - 1)) if seed == 2 else None
                steps += 2 if seed == 3 else 0
            other = replace(trial.case, inputs_seed=seed, lengths=lengths, steps=steps)
            with torch.set_grad_enabled(train):
                reply = trial.call(module, *trial.form(trial.leaves(case=other), other), other)
            if train:
                backward_from(trial, [reply.tensors["output"]])
            with where(f"in {'training' if train else 'eval mode'} after a call of {steps} steps{' packed' * bool(lengths)}"):
                trial.agree(trial.answer(module).arrays(), answer(trial.case))
        if trial.case.given_state:
            zeros = {name: 0 * value for name, value in trial.case.arrays.inputs().items() if name != "x"}
            with torch.no_grad():
                found = trial.call(module, trial.form(trial.leaves())[0], None).arrays()
            with where("without hx after calls with it"):
                trial.agree(found, altered(trial.case, inputs=zeros))


@contract(
    "purity.answers_are_new",
    "What one call returned is not changed by the next, in training or in eval mode, and output, h_n and c_n share no memory with each "
    "other or with the input.",
    MUST,
    "torch.nn.LSTM: Outputs",
    [
        *_CASES,
        *every(steps=1, batch=2),
        *every(steps=1, batch=2, batch_first=True),
        *every(steps=4, batch=1, batched=False),
        *every(steps=4, batch=3, lengths=(4, 4, 4), enforce_sorted=True),
    ],
    demonstration="""
        for mode, train in ((torch.inference_mode, True), (torch.no_grad, False)):
            with mode(): other = x._replace(data=2 * x.data) if isinstance(x, tuple) else 2 * x
            with mode(): answers = [layer.train(train)(given, hx) for given in (x, other, x)]
            values = [v.data[:] for output, state in answers for v in (output, *(state if isinstance(state, tuple) else [state]))]
            for value in values:
                kept, _ = [v.clone() for v in values], torch.inference_mode()(value.add_)(1)
                assert all(torch.equal(a, b) for a, b in zip(values, kept) if a is not value), "two answers share memory"
    """,
)
def answers_are_new(trial: Trial) -> None:
    module = trial.module()
    for mode, train in itertools.product((torch.no_grad, torch.enable_grad, torch.inference_mode), (True, False)):
        module.train(train)
        with mode():
            input, hx = trial.form(trial.leaves())
            reply = trial.call(module, input, hx)
            # As they came: what a packed output becomes when it is padded has memory of its own.
            raw = {"output": tensors_in(reply.raw[0])[0], **dict(zip(("h_n", "c_n"), tensors_in(reply.raw[1]), strict=False))}
            kept = {name: value.detach().clone() for name, value in raw.items()}
            for seed in (7, 8, 9):
                trial.call(module, *trial.form(trial.leaves(case=replace(trial.case, inputs_seed=seed))))
        for name, value in kept.items():
            if not torch.equal(raw[name], value):
                how = f"{'in training' if train else 'in eval mode'} under {mode.__name__}"
                raise ContractError(f"Expected {name} of the first call to stay as it was, but another call {how} changed it")
        for name, value in raw.items():
            others = {k: v.detach().clone() for k, v in raw.items() if k != name}
            given = [t.detach().clone() for t in [*tensors_in(input), *tensors_in(hx)]]
            with torch.inference_mode(mode is torch.inference_mode), torch.no_grad():
                value.detach().add_(1.0)
            touched = [k for k, v in others.items() if not torch.equal(raw[k].detach(), v)]
            if any(not torch.equal(now.detach(), then) for now, then in zip([*tensors_in(input), *tensors_in(hx)], given, strict=True)):
                touched.append("the input or the state given")
            if touched:
                raise ContractError(f"Expected {name} to have memory of its own, but writing to it changed {', '.join(touched)}")


@contract(
    "purity.inputs_read_anew",
    "An input and a state that were written over in place since the last call are read anew: nothing of them is kept by what they are, "
    "where they lie or how often they were written to.",
    MUST,
    "torch.Tensor.copy_; static input buffers, as of CUDA graphs and data loaders",
    [*_CASES, *every(steps=1, batch=2)],
    demonstration="""
        states, answers = hx if isinstance(hx, tuple) else (hx,), []
        for mode, train in ((torch.no_grad, False), (torch.no_grad, True), (torch.enable_grad, True), (torch.inference_mode, False)):
            for scale in (1.0, 1.5, 0.5):
                for value in (x.data, *states): value.data.mul_(scale)
                with mode(): answers.append(layer.train(train)(x, hx)[0])
        return answers
    """,
)
def inputs_read_anew(trial: Trial) -> None:
    module, others = trial.module(), [replace(trial.case, inputs_seed=seed) for seed in (1, 2)]
    for mode, train in itertools.product((torch.no_grad, torch.enable_grad, torch.inference_mode), (True, False)):
        module.train(train)
        with mode():
            input, hx = trial.form(trial.leaves())
            trial.call(module, input, hx)
            # The second time as nobody is told of: data is not counted as a version.
            for other, data in zip(others, (False, True), strict=True):
                for kept, new in zip(*(tensors_in(given) for given in ((input, hx), trial.form(trial.leaves(case=other)))), strict=True):
                    (kept.data if data else kept).copy_(new)
                with where(
                    f"written over{' through .data' if data else ''}, {'in training' if train else 'in eval mode'} under {mode.__name__}"
                ):
                    trial.agree(trial.call(module, input, hx).arrays(), answer(other))


@contract(
    "purity.random_state_untouched",
    "A call and its backward pass leave the random states of torch, Python and NumPy as they were, but that a call in training with "
    "dropout between layers draws from torch's.",
    MUST,
    "torch.get_rng_state",
    [
        *every(num_layers=3, bidirectional=True),
        *every(num_layers=3, dropout=0.5),
        *every(num_layers=3, bidirectional=True, steps=4, batch=3, lengths=(2, 4, 3)),
        *every(num_layers=3, bidirectional=True, dropout=0.5, steps=4, batch=3, lengths=(2, 4, 3)),
        # Of one layer nothing is dropped.
        *every(dropout=0.5),
    ],
    demonstration="""
        for train in (True, False):
            random.random(), torch.rand(1)
            before = torch.get_rng_state(), random.getstate()
            loss = layer.train(train)(x, hx)[0][0].sum()
            if train and reference.dropout and reference.num_layers > 1: before = [torch.rand(1), torch.get_rng_state()][1], before[1]
            loss.backward()
            assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate(), "a random state moved on"
    """,
)
def random_state_untouched(trial: Trial) -> None:
    module = trial.module()
    for train in (True, False):
        module.train(train)
        # Moved on first: a layer that seeds at every call has left them where it would put them again.
        random.random(), np.random.random(), torch.rand(1)
        before, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
        trial.answer(module)
        reply = trial.call(module, *trial.form(trial.leaves()))
        if drops := train and trial.case.layer.dropout and trial.case.layer.num_layers > 1:
            # Moved on once more, so that a backward pass that draws the masks again does not leave it where it finds it.
            torch.rand(1)
            before = torch.get_rng_state()
        if train:
            # In eval mode a backward pass may be refused, which gradients.in_eval is about.
            backward_from(trial, [reply.tensors["output"]])
        moved = [] if torch.equal(before, torch.get_rng_state()) else ["torch's"]
        moved += [] if python == random.getstate() else ["Python's"]
        moved += [] if all(np.array_equal(one, other) for one, other in zip(numpy, np.random.get_state(), strict=True)) else ["NumPy's"]
        if moved:
            what = "a backward pass with dropout" if drops else f"a call in {'training' if train else 'eval mode'}"
            raise ContractError(f"Expected {what} to leave the random states as they were, but {', '.join(moved)} moved on")

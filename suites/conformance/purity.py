"""Purity: a call changes nothing but what it returns, and depends on nothing but what it is given."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.case import Case
from harness.reference import altered, answer, tensor
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, SHOULD, contract

_CASES = [
    *every(num_layers=2),
    *every(bidirectional=True, batch_first=True, steps=4, batch=2),
    *every(steps=5, batch=3, lengths=(2, 5, 3)),
    *every(LSTM, batch=1, batched=False, proj_size=2),
]


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in an input, a state or an answer."""
    if isinstance(value, Tensor):
        return [value]
    if hasattr(value, "data") and hasattr(value, "batch_sizes"):
        return [value.data]
    return [t for item in value or () for t in _tensors(item)]


def _backward(trial: Trial, tensors: list[Tensor]) -> None:
    with trial.blamed("backward"):
        torch.autograd.backward([t.sum() for t in tensors])


@contract(
    "purity.bitwise_repeatable",
    "The same call on the same numbers gives the same bits, in inference and in training.",
    SHOULD,
    "torch: Reproducibility",
    _CASES,
    demonstration="""
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                first, second = (layer(x, hx)[0].data for _ in range(2))
            assert torch.equal(first, second), (first - second).abs().max()
    """,
)
def bitwise_repeatable(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            first, again = (trial.call(module, input, hx).tensors for _ in range(2))
        for name, value in first.items():
            if not torch.equal(value, again[name]):
                how = "with" if grad else "without"
                raise ContractError(f"Expected the same bits in {name} from the same call {how} gradients, but they differ")


@contract(
    "purity.inputs_untouched",
    "Input, state and parameters have the values and versions after a call and its backward pass that they had before.",
    MUST,
    "torch.autograd: In-place correctness checks",
    _CASES,
    demonstration="""
        given = [x[0] if isinstance(x, tuple) else x, *(hx if isinstance(hx, tuple) else [hx]), *layer.parameters()]
        [p.data.mul_(2) for p in layer.parameters()]
        before = [(value._version, value.clone()) for value in given]
        with torch.no_grad(): layer(x, hx)
        output = (lambda y: y[0] if isinstance(y, tuple) else y)(layer(x, hx)[0])
        output.backward(ones := torch.ones_like(output))
        assert (ones == 1).all() and all(v._version == n and torch.equal(v, kept) for v, (n, kept) in zip(given, before)), "written"
    """,
)
def inputs_untouched(trial: Trial) -> None:
    module = trial.module()
    for grad in (False, True):
        input, hx = trial.form(trial.leaves())
        watched = {f"tensor {i} of the input and state": t for i, t in enumerate([*_tensors(input), *_tensors(hx)])}
        watched |= trial.parameters(module)
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
            if not torch.equal(watched[name], value):
                raise ContractError(f"Expected {name} to be as it was before the call, but its values changed")
            if watched[name]._version != version:
                raise ContractError(
                    f"Expected {name} not to be written to, but its version went from {version} to {watched[name]._version}"
                )


@contract(
    "purity.no_state_between_calls",
    "A call is not affected by the calls before it, with hx or without, in training or in eval mode.",
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
        shape, lengths = (5, 3, 3) if isinstance(x, tuple) else x.shape, torch.tensor([5, 3, 2])
        pack = lambda y: torch.nn.utils.rnn.pack_padded_sequence(y, lengths, enforce_sorted=False) if isinstance(x, tuple) else y
        for train in (True, False, True, False):
            with torch.set_grad_enabled(train): y = layer.train(train)(pack(torch.randn(shape).to(dtype)), hx)[0]
            y[0].sum().backward() if train else None
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def no_state_between_calls(trial: Trial) -> None:
    module = trial.module()
    for train in (True, False):
        module.train(train)
        for seed in (1, 2, 3):
            # Packed sequences of the same sizes in another order, and of as many steps in all.
            lengths = trial.case.lengths and ((1, 5, 4), (5, 3, 2), (3, 2, 5))[seed - 1]
            other = replace(trial.case, inputs_seed=seed, lengths=lengths)
            with torch.set_grad_enabled(train):
                reply = trial.call(module, *trial.form(trial.leaves(case=other), other), other)
            if train:
                _backward(trial, [reply.tensors["output"]])
        trial.agree(trial.answer(module).arrays(), answer(trial.case))


@contract(
    "purity.answers_are_new",
    "What one call returned is not changed by the next, and output, h_n and c_n share no memory with each other or with the input.",
    MUST,
    "torch.nn.LSTM: Outputs",
    [*_CASES, *every(steps=1, batch=2), *every(steps=1, batch=2, batch_first=True)],
    demonstration="""
        with torch.inference_mode():
            other = x._replace(data=2 * x.data) if isinstance(x, tuple) else 2 * x
            answers = [layer(given, hx) for given in (x, other, x)]
            values = [v.data[:] for output, state in answers for v in (output, *(state if isinstance(state, tuple) else [state]))]
            for value in values:
                kept, _ = [v.clone() for v in values], value.add_(1)
                assert all(torch.equal(a, b) for a, b in zip(values, kept) if a is not value), "two answers share memory"
    """,
)
def answers_are_new(trial: Trial) -> None:
    module = trial.module()
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            input, hx = trial.form(trial.leaves())
            reply = trial.call(module, input, hx)
            kept = {name: value.detach().clone() for name, value in reply.tensors.items()}
            for seed in (7, 8, 9):
                trial.call(module, *trial.form(trial.leaves(case=replace(trial.case, inputs_seed=seed))))
        for name, value in kept.items():
            if not torch.equal(reply.tensors[name], value):
                raise ContractError(f"Expected {name} of the first call to stay as it was, but another call changed it")
        raw = {"output": _tensors(reply.raw[0])[0], **dict(zip(("h_n", "c_n"), _tensors(reply.raw[1]), strict=False))}
        for name, value in raw.items():
            others = {k: v.detach().clone() for k, v in raw.items() if k != name}
            given = [t.detach().clone() for t in [*_tensors(input), *_tensors(hx)]]
            with torch.inference_mode(mode is torch.inference_mode), torch.no_grad():
                value.detach().add_(1.0)
            touched = [k for k, v in others.items() if not torch.equal(raw[k].detach(), v)]
            if any(not torch.equal(now.detach(), then) for now, then in zip([*_tensors(input), *_tensors(hx)], given, strict=True)):
                touched.append("the input or the state given")
            if touched:
                raise ContractError(f"Expected {name} to have memory of its own, but writing to it changed {', '.join(touched)}")


@contract(
    "purity.random_state_untouched",
    "Without dropout, and with dropout in eval mode, a call leaves the random states of torch, Python and NumPy as they were.",
    MUST,
    "torch.get_rng_state",
    [*every(num_layers=2), *every(num_layers=2, dropout=0.5)],
    demonstration="""
        layer.train(reference.dropout == 0)
        random.random(), torch.rand(1)
        before = torch.get_rng_state(), random.getstate()
        layer(x, hx)
        assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate(), "a random state moved on"
    """,
)
def random_state_untouched(trial: Trial) -> None:
    module = trial.module()
    module.train(trial.case.layer.dropout == 0)
    # Moved on first: a layer that seeds at every call has left them where it would put them again.
    random.random(), np.random.random(), torch.rand(1)
    before, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    trial.answer(module)
    moved = [] if torch.equal(before, torch.get_rng_state()) else ["torch's"]
    moved += [] if python == random.getstate() else ["Python's"]
    moved += [] if all(np.array_equal(one, other) for one, other in zip(numpy, np.random.get_state(), strict=True)) else ["NumPy's"]
    if moved:
        raise ContractError(f"Expected the random states to be as they were before the call, but {', '.join(moved)} moved on")


def _switches() -> dict[str, Any]:
    """The global switches that a call might leave turned."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
        "torch.backends.cudnn.enabled": torch.backends.cudnn.enabled,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "float32 matmul precision": _matmul_precision(),
        "denormal numbers": bool((torch.full((1,), 1e-40) * 1.0).any()),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
    }


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # torch refuses to say where somebody has set it by the older and by the newer names.
        return "set in two ways"


@contract(
    "purity.switches_restored",
    "Grad mode, default dtype, threads and the backends' switches are after building, calling and backward what they were before.",
    MUST,
    "torch.backends; torch.set_grad_enabled; torch.set_num_threads",
    [*every(num_layers=2), *every(num_layers=2, dropout=0.5, bidirectional=True), *every(dtype="float64"), *every(dtype="bfloat16")],
    demonstration="""
        assert not torch.backends.cudnn.benchmark, "it is off when Python starts"
        flags = torch.is_grad_enabled, torch.get_num_threads, torch.get_default_dtype, torch.are_deterministic_algorithms_enabled
        for train in (True, False):
            with torch.set_grad_enabled(train):
                before = [flag() for flag in flags]
                layer.train(train)(x, hx)
                assert before == [flag() for flag in flags] and (torch.full((1,), 1e-40) * 1.0).item() > 0, before
    """,
)
def switches_restored(trial: Trial) -> None:
    before = _switches()
    module = trial.module()
    _require_unturned(before, "building the layer")
    for train in (True, False):
        module.train(train)
        with torch.set_grad_enabled(train):
            before = _switches()
            reply = trial.call(module, *trial.form(trial.leaves()))
            if train:
                _backward(trial, list(reply.tensors.values()))
            _require_unturned(before, "a call")


def _require_unturned(before: dict[str, Any], by: str) -> None:
    turned = [f"{name} from {before[name]} to {now}" for name, now in _switches().items() if now != before[name]]
    if turned:
        raise ContractError(f"Expected no global switch to be turned by {by}, but these were: {'; '.join(turned)}")


def _living() -> int:
    gc.collect()
    return sum(1 for found in gc.get_objects() if type(found) in (Tensor, torch.nn.Parameter))


@contract(
    "purity.no_leak",
    "Calls of ever new lengths leave no tensors behind.",
    SHOULD,
    "torch: memory; caches that grow with every new shape",
    [*every(num_layers=2, hidden_size=4)],
    demonstration="""
        left = []
        for steps in range(1, 25):
            layer(x[:1].expand(steps, -1, -1), hx)[0].sum().backward()
            if steps in (4, 24):
                gc.collect()
                left.append(sum(type(found) in (torch.Tensor, torch.nn.Parameter) for found in gc.get_objects()))
        assert left[1] < left[0] + 15, left
    """,
)
def no_leak(trial: Trial) -> None:
    module = trial.module()

    def used(lengths: range) -> None:
        for steps in lengths:
            case: Case = replace(trial.case, steps=steps)
            reply = trial.call(module, *trial.form(trial.leaves(case=case), case), case)
            _backward(trial, [reply.tensors["output"]])

    used(range(1, 5))
    before = _living()
    used(range(5, 25))
    left = _living() - before
    # A cache that keeps one tensor for each new length leaves 20.
    if left >= 15:
        raise ContractError(f"Expected no tensors to be left after 20 calls of new lengths, but {left} are")


@contract(
    "purity.two_threads",
    "Two threads that call one module at once, in eval mode, each get the answer that they get alone.",
    SHOULD,
    "torch: Multithreaded inference",
    [*every(num_layers=2, steps=6), *every(given_state=False, batch_first=True, bidirectional=True)],
    demonstration="""
        answers, given = {}, (x, 2 * x)
        def work(number):
            with torch.no_grad():
                answers[number] = [layer.eval()(given[number], hx) for _ in range(10)]
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        return answers[0], answers[1]
    """,
)
def two_threads(trial: Trial) -> None:
    module = trial.module().eval()
    cases = [trial.case, replace(trial.case, inputs_seed=1)]
    inputs = [trial.form(trial.leaves(case=case)) for case in cases]
    replies: list[list[Any]] = [[], []]
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def work(index: int) -> None:
        try:
            start.wait()
            with torch.no_grad(), trial.implementation.switches():
                for _ in range(10):
                    replies[index].append(trial.call(module, *inputs[index]).arrays())
        except BaseException as error:  # told to the thread that waits
            errors.append(error)

    _run([lambda index=index: work(index) for index in range(2)])  # type: ignore[misc]
    if errors:
        raise errors[0]
    for case, found in zip(cases, replies, strict=True):
        for reply in found:
            trial.agree(reply, answer(case))


def _run(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contract(
    "purity.call_after_failure",
    "A call that was refused leaves the module fit for the next.",
    MUST,
    "torch.nn.Module: a refused call has no effect",
    [*every(num_layers=2)],
    demonstration="""
        try: layer(torch.cat([x, x], -1), hx)
        except Exception: pass
        with torch.no_grad():
            return layer(x), layer(x, hx)
    """,
)
def call_after_failure(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    wrong = tensor(trial.case.arrays.x, trial.case).repeat(1, 1, 2)
    trial.refuses("too many input features", module, wrong, hx)
    with torch.no_grad():
        trial.agree(trial.call(module, input, hx).arrays(), answer(trial.case))
    # What the refused call was given is not what the next one without a state begins with.
    trial.refuses("too many input features", module, wrong, hx)
    zeros = {name: 0 * value for name, value in trial.case.arrays.inputs().items() if name != "x"}
    with torch.no_grad():
        trial.agree(trial.call(module, input, None).arrays(), altered(trial.case, inputs=zeros))

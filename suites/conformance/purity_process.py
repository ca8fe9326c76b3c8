"""What a call leaves in the process: switches, memory, what other threads and refused calls have left."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.case import Case
from harness.reference import altered, answer, tensor
from harness.trial import ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.purity import backward_from


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
        "Python's garbage collector": gc.isenabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        # Of one message or one module a library silences its own; the first call may import it.
        "the number of filters for warnings of any message and module": sum(f[1] is f[3] is None for f in warnings.filters),
    }


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # torch refuses to say where somebody has set it by the older and by the newer names.
        return "set in two ways"


@contract(
    "purity.switches_restored",
    "Grad mode, default dtype, threads, warning filters, the garbage collector and the backends' switches are after building, calling and "
    "backward what they were before.",
    MUST,
    "torch.backends; torch.set_grad_enabled; torch.set_num_threads",
    [
        *every(num_layers=2),
        *every(num_layers=2, dropout=0.5, bidirectional=True),
        *every(dtype="float64", steps=65),
        *every(dtype="bfloat16"),
        *every(steps=5, batch=3, lengths=(2, 5, 3)),
    ],
    demonstration="""
        assert not torch.backends.cudnn.benchmark, "it is off when Python starts"
        flags = torch.is_grad_enabled, torch.get_num_threads, torch.get_default_dtype, torch.are_deterministic_algorithms_enabled
        flags += gc.isenabled, lambda: sum(f[1] is f[3] is None for f in warnings.filters), lambda: (torch.full((1,), 1e-40) * 1).item()
        for train in (True, False):
            with torch.set_grad_enabled(train):
                before, _ = [flag() for flag in flags], layer.train(train)(x, hx)
                assert before == [flag() for flag in flags], before
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
                backward_from(trial, list(reply.tensors.values()))
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
    "Calls of ever new lengths leave no tensors behind but a cache of the last few, and an output lives no longer than its user keeps it.",
    SHOULD,
    "torch: memory; caches that grow with every new shape",
    [*every(num_layers=2, hidden_size=4)],
    # A layer that is compiled for each length takes a second or more for each of 30.
    time_limits=4,
    demonstration="""
        assert torch.utils.weak.ref(layer(x, hx)[0])() is None, "the output is kept"
        left = []
        for steps in range(1, 31):
            layer(y := x[:1].expand(steps, -1, -1), hx)[0].sum().backward(), torch.no_grad()(lambda: layer(y, hx))()
            if steps in (10, 30):
                left += [0 * gc.collect() + sum(type(found) in (torch.Tensor, torch.nn.Parameter) for found in gc.get_objects())]
        assert left[1] < left[0] + 15, left
    """,
)
def no_leak(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    with trial.blamed("calling it"):
        kept = weakref.ref(module(input, hx)[0])
    if kept() is not None:
        gc.collect()
    if kept() is not None:
        raise ContractError("Expected nothing to hold on to the output once its user has let go of it, but something does")

    def used(lengths: range) -> None:
        for steps in lengths:
            case: Case = replace(trial.case, steps=steps)
            reply = trial.call(module, *trial.form(trial.leaves(case=case), case), case)
            backward_from(trial, [reply.tensors["output"]])
            with torch.no_grad():
                trial.call(module, *trial.form(trial.leaves(case=case), case), case)

    # A cache of up to 20 calls, with gradients and without, is full by now, and no leak for being there.
    used(range(1, 11))
    before = _living()
    used(range(11, 31))
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
    start, interval = threading.Barrier(2), sys.getswitchinterval()

    def work(index: int) -> None:
        try:
            start.wait()
            with torch.no_grad(), trial.implementation.switches():
                for _ in range(30):
                    replies[index].append(trial.call(module, *inputs[index]).arrays())
        except BaseException as error:  # told to the thread that waits
            errors.append(error)

    # The threads take turns every few operations, not every 5 ms.
    sys.setswitchinterval(1e-5)
    try:
        _run([partial(work, index) for index in range(2)])
    finally:
        sys.setswitchinterval(interval)
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
    "A call that was refused leaves the module fit for the next, and every switch as it was.",
    MUST,
    "torch.nn.Module: a refused call has no effect",
    [*every(num_layers=2)],
    demonstration="""
        try: layer(torch.cat([x, x], -1), hx)
        except Exception: assert torch.is_grad_enabled()
        with torch.no_grad():
            return layer(x), layer(x, hx)
    """,
)
def call_after_failure(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    wrong = tensor(trial.case.arrays.x, trial.case).repeat(1, 1, 2)
    before = _switches()
    with suppress(Exception):
        module(wrong, hx)
    _require_unturned(before, "a refused call")
    trial.refuses("too many input features", module, wrong, hx)
    with torch.no_grad():
        trial.agree(trial.call(module, input, hx).arrays(), answer(trial.case))
    # What the refused call was given is not what the next one without a state begins with.
    trial.refuses("too many input features", module, wrong, hx)
    zeros = {name: 0 * value for name, value in trial.case.arrays.inputs().items() if name != "x"}
    with torch.no_grad():
        trial.agree(trial.call(module, input, None).arrays(), altered(trial.case, inputs=zeros))

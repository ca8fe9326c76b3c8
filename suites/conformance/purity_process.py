"""What a call leaves in the process: memory, and what other threads and refused calls have left."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.case import Array, Case
from harness.reference import altered, answer, tensor, to_array
from harness.trial import Answer, ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.purity import backward_from, tensors_in
from suites.conformance.purity_switches import require_unturned, switches


@contextmanager
def _what_is_new_alone() -> Iterator[None]:
    """Within, the garbage collector knows nothing of what was there before: to look through it would take most of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _living() -> int:
    gc.collect()
    return sum(1 for found in gc.get_objects() if type(found) in (Tensor, torch.nn.Parameter))


@contract(
    "purity.no_leak",
    "Calls of ever new lengths, or batch sizes, leave no tensors behind but a cache of the last few, and neither output nor input nor the "
    "module itself lives longer than its user keeps it.",
    SHOULD,
    "torch: memory; caches that grow with every new shape",
    [
        *every(hidden_size=4, bidirectional=True),
        *every(num_layers=2, hidden_size=4, steps=1, batch=1, given_state=False),
        *every(hidden_size=4, steps=3, batch=3, lengths=(3, 2, 1), enforce_sorted=True),
    ],
    # A layer that is compiled for each length takes a second or more for each of 30.
    time_limits=4,
    demonstration="""
        hx, left, ref = None if isinstance(x, tuple) else hx, [], lambda *kept: [*map(torch.utils.weak.ref, kept)]
        assert {0 * gc.collect() or r() for r in (lambda m, y: ref(m, y, m(y, hx) and layer(y, hx)[0]))(NEW.to(dtype), x.data[:])} == {None}
        for n, pack in zip(range(1, 31), [torch.nn.utils.rnn.pack_sequence] * 30):
            y = pack([x[0][:1].expand(n, -1)]) if isinstance(x, tuple) else x[:1].expand(*((1, n) if hx is None else (n, -1)), -1)
            layer.train()(y, hx)[0][0].sum().backward(), torch.no_grad()(lambda: layer.eval()(y, hx))()
            if n in (10, 30): left += [0 * gc.collect() + sum(type(o) in (torch.Tensor, torch.nn.Parameter) for o in gc.get_objects())]
        assert left[1] < left[0] + 15, left
    """,
)
@_what_is_new_alone()
def no_leak(trial: Trial) -> None:
    module = trial.module()
    given = trial.form(trial.leaves())
    kept = {"its input": weakref.ref(tensors_in(given)[0])}
    with trial.blamed("calling it"):
        raw = module(*given) if trial.case.given_state else module(given[0])
    kept["its output"] = weakref.ref(tensors_in(raw)[0])
    del raw, given
    if any(value() is not None for value in kept.values()):
        gc.collect()
    held = [name for name, value in kept.items() if value() is not None]
    if held:
        raise ContractError(f"Expected nothing to hold on to {' and '.join(held)} once the user has let go of it, but something does")

    # A cache of up to 20 calls, with gradients and without, is full by now, and no leak for being there.
    _use(trial, module, range(1, 11))
    before = _living()
    _use(trial, module, range(11, 31))
    left = _living() - before
    # A cache that keeps one tensor for each new length leaves 20.
    if left >= 15:
        raise ContractError(f"Expected no tensors to be left after 20 calls of new lengths or batch sizes, but {left} are")
    gone = weakref.ref(module)
    del module
    gc.collect()
    if gone() is not None:
        raise ContractError("Expected nothing to hold on to the module once the user has let go of it, but something does")


def _use(trial: Trial, module: torch.nn.Module, sizes: range) -> None:
    """Calls of these lengths, or batch sizes where no state is given, with gradients in training and without in eval mode."""
    for size in sizes:
        case: Case = replace(
            trial.case,
            steps=size if trial.case.given_state else trial.case.steps,
            batch=trial.case.batch if trial.case.given_state else size,
            lengths=trial.case.lengths and (size, (size + 1) // 2, 1),
        )
        reply = trial.call(module.train(), *trial.form(trial.leaves(case=case), case), case)
        backward_from(trial, [reply.tensors["output"]])
        with torch.no_grad():
            trial.call(module.eval(), *trial.form(trial.leaves(case=case), case), case)


@contract(
    "purity.two_threads",
    "Two threads that call one module at once, in eval mode and in training with gradients, each get the answer that they get alone, and "
    "its gradients, in their own backward passes and in another thread's.",
    SHOULD,
    "torch: Multithreaded inference; Autograd mechanics: Multithreaded Autograd",
    [
        *every(num_layers=2, steps=6),
        *every(given_state=False, batch_first=True, bidirectional=True),
        *every(steps=5, batch=3, lengths=(2, 5, 3)),
    ],
    demonstration="""
        answers, given = {}, [x._replace(data=k * x.data) if isinstance(x, tuple) else k * x for k in (1, 2)]
        def work(k):
            with torch.no_grad(): answers[k, 0] = [layer(given[k], hx)[1] for _ in range(10)]
            answers[k, 1] = [layer(given[k], hx)[0][0] for _ in range(10)]
        threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        return answers, torch.autograd.grad([one.sum() for k in (0, 1) for one in answers[k, 1]], list(layer.parameters()))
    """,
)
def two_threads(trial: Trial) -> None:
    cases = [trial.case, replace(trial.case, inputs_seed=1)]
    module = trial.module().eval()
    inputs = [trial.form(trial.leaves(case=case)) for case in cases]

    def answers(index: int) -> None:
        with torch.no_grad():
            replies[index].extend(trial.call(module, *inputs[index]).arrays() for _ in range(20))

    replies: list[list[Any]] = [[], []]
    _at_once(trial, answers)
    for case, found in zip(cases, replies, strict=True):
        for reply in found:
            trial.agree(reply, answer(case))
    module.train()
    # Calls whose backward pass is left to this thread.
    left: list[list[tuple[Answer, dict[str, Tensor]]]] = [[], []]
    slopes: list[list[Any]] = [[], []]

    def trained(index: int) -> None:
        for last in [False] * 5 + [True]:
            leaves = trial.leaves(requires_grad=True, case=cases[index])
            reply = trial.call(module, *trial.form(leaves))
            if last:
                left[index].append((reply, leaves))
            else:
                slopes[index].append((reply.arrays(), _slope(trial, reply, leaves)))

    _at_once(trial, trained)
    for case, found, rest in zip(cases, slopes, left, strict=True):
        found.extend((reply.arrays(), _slope(trial, reply, leaves)) for reply, leaves in rest)
        right = altered(case, inputs=case.arrays.inputs(), through=("output",), cotangents=trial.case.arrays.cotangents)
        for reply, slope in found:
            trial.agree(reply, answer(case))
            trial.agree({"x": slope}, right, only=["x"])


def _slope(trial: Trial, reply: Answer, leaves: dict[str, Tensor]) -> Array:
    """The gradient of x, for the case's cotangents of the output."""
    cotangent = tensor(trial.case.arrays.cotangents["output"], trial.case)
    with trial.blamed("backward"):
        return to_array(torch.autograd.grad(reply.tensors["output"], leaves["x"], cotangent)[0])


def _at_once(trial: Trial, work: Callable[[int], None]) -> None:
    """``work(0)`` and ``work(1)`` in two threads at once; what either raises is raised."""
    errors: list[BaseException] = []
    start, interval = threading.Barrier(2), sys.getswitchinterval()

    def begin(index: int) -> None:
        try:
            start.wait()
            with trial.implementation.switches():
                work(index)
        except BaseException as error:  # told to the thread that waits
            errors.append(error)

    # The threads take turns every few operations, not every 5 ms.
    sys.setswitchinterval(1e-5)
    try:
        _run([partial(begin, index) for index in range(2)])
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


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
    [*every(num_layers=2), *every(batch_first=True, bidirectional=True, steps=4)],
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
    wrong = input.repeat(1, 1, 2)
    before = switches()
    with suppress(Exception):
        module(wrong, hx)
    require_unturned(before, "a refused call")
    trial.refuses("too many input features", module, wrong, hx)
    with torch.no_grad():
        trial.agree(trial.call(module, input, hx).arrays(), answer(trial.case))
    # What the refused call was given is not what the next one without a state begins with.
    trial.refuses("too many input features", module, wrong, hx)
    zeros = {name: 0 * value for name, value in trial.case.arrays.inputs().items() if name != "x"}
    with torch.no_grad():
        trial.agree(trial.call(module, input, None).arrays(), altered(trial.case, inputs=zeros))

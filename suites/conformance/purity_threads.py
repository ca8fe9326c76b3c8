"""What two threads that call one module have of each other.

Two threads that run at once meet where it hurts now and then. Where a layer is Python, they can be made to: at each of its lines a call
is held up while another thread makes a whole call, which is an order that threads may take at any time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from harness.case import Array, Case
from harness.reference import Expected, altered, answer, tensor
from harness.trial import Answer, Trial, where
from suites.conformance.cases import every
from suites.conformance.declare import SHOULD, contract

#: Where the code is that a call runs through and that is not the layer's own.
_NOT_ITS_OWN = (os.path.dirname(torch.__file__) + os.sep, contextlib.__file__)

#: Lines at which calls are held up, at most, and the seconds for which each waits for the other, which may want a lock that it has.
_LINES, _SECONDS = 64, 0.2


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
        *every(steps=2, dtype="bfloat16"),
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
    if trial.case.lengths is not None:
        # Of a pack other sequences are the short ones, and they are shorter.
        rotated = (*trial.case.lengths[1:], trial.case.lengths[0])
        cases[1] = replace(cases[1], lengths=tuple(n if n == trial.case.steps else max(1, n - 1) for n in rotated))
    slopes = {case: _slopes(trial, case) for case in cases}
    if trial.case.device == "cpu":
        # What Python code shares it shares on every device, and on others no call may be made while another is recorded.
        for train in (False, True):
            _held_up(trial, trial.module().train(train), slopes)
    module = trial.module().eval()
    inputs = [trial.form(trial.leaves(case=case), case) for case in cases]

    def answers(index: int) -> None:
        with torch.no_grad():
            replies[index].extend(trial.call(module, *inputs[index], cases[index]).arrays() for _ in range(20))

    replies: list[list[Any]] = [[], []]
    _at_once(trial, answers)
    for case, found in zip(cases, replies, strict=True):
        for reply in found:
            trial.agree(reply, answer(case))
    module.train()
    # Calls whose backward pass is left to this thread.
    left: list[list[tuple[Answer, dict[str, Tensor]]]] = [[], []]
    trained_on: list[list[Any]] = [[], []]

    def trained(index: int) -> None:
        for last in [False] * 5 + [True]:
            leaves = trial.leaves(requires_grad=True, case=cases[index])
            reply = trial.call(module, *trial.form(leaves, cases[index]), cases[index])
            if last:
                left[index].append((reply, leaves))
            else:
                trained_on[index].append((reply.arrays(), _slope(trial, reply, leaves)))

    _at_once(trial, trained)
    for case, found, rest in zip(cases, trained_on, left, strict=True):
        found.extend((reply.arrays(), _slope(trial, reply, leaves)) for reply, leaves in rest)
        for reply, slope in found:
            trial.agree(reply, answer(case))
            trial.agree({"x": slope}, slopes[case], only=["x"])


def _held_up(trial: Trial, module: torch.nn.Module, slopes: dict[Case, Expected]) -> None:
    """Calls on the first case, each held up at another line while a thread makes a whole call on the second: both must be right.

    ``slopes``: the gradients of the two cases, which are asked for in training.
    """
    cases = list(slopes)

    def call(case: Case, passed: Callable[[tuple[str, int]], Any] | None = None) -> tuple[Answer, dict[str, Tensor]]:
        leaves = trial.leaves(requires_grad=module.training, case=case)
        input, hx = trial.form(leaves, case)
        given = (input,) if hx is None else (input, hx)
        with trial.blamed("calling it"), torch.set_grad_enabled(module.training), nullcontext() if passed is None else _traced(passed):
            raw = module(*given)
        return trial.structured(raw, input, case), leaves

    # What only a first call passes by no later one can be held up at.
    call(cases[0])
    passed: list[tuple[str, int]] = []
    call(cases[0], passed.append)
    times: dict[tuple[str, int], list[int]] = {}
    for place, line in enumerate(passed):
        times.setdefault(line, []).append(place)
    # Of the times that a call comes by a line the one in the middle: all is under way by then.
    places = sorted(of_it[len(of_it) // 2] for of_it in times.values())
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        for place in places[:: max(1, -(-len(places) // _LINES))]:
            hold_up = _HoldUp(pool, partial(call, cases[1]), place)
            with where(f"held up before line {passed[place][1]} of {os.path.basename(passed[place][0])} for another thread's call"):
                mine = call(cases[0], hold_up)
                theirs = [] if hold_up.other is None else [hold_up.other.result()]
                for case, (reply, leaves) in zip(cases, [mine, *theirs], strict=False):
                    trial.agree(reply.arrays(), answer(case))
                    if module.training:
                        trial.agree({"x": _slope(trial, reply, leaves)}, slopes[case], only=["x"])
            if hold_up.locked:
                return


class _HoldUp:
    """Has another thread make ``call`` when so many lines have been passed; ``other`` is what becomes of it then.

    ``locked``: whether it was not done in time, as where the call that is held up has a lock, and no line of it can be met.
    """

    def __init__(self, pool: ThreadPoolExecutor, call: Callable[[], Any], place: int) -> None:
        self._pool, self._call, self._left = pool, call, place
        self.other: Future[Any] | None = None
        self.locked = False

    def __call__(self, line: tuple[str, int]) -> None:
        if self._left == 0:
            self.other = self._pool.submit(self._call)
            self.locked = bool(wait([self.other], _SECONDS).not_done)
        self._left -= 1


@contextmanager
def _traced(passed: Callable[[tuple[str, int]], Any]) -> Iterator[None]:
    """Within, ``passed`` is told the file and number of every line of the layer's own code, before it runs."""

    def within(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            passed((frame.f_code.co_filename, frame.f_lineno))
        return within

    def begun(frame: FrameType, event: str, argument: Any) -> Any:
        return None if frame.f_code.co_filename.startswith(_NOT_ITS_OWN) else within

    before = sys.gettrace()
    sys.settrace(begun)
    try:
        yield
    finally:
        sys.settrace(before)


def _slopes(trial: Trial, case: Case) -> Expected:
    """The gradients of ``case`` for the cotangents of the trial's own case."""
    return altered(case, inputs=case.arrays.inputs(), through=("output",), cotangents=trial.case.arrays.cotangents)


def _slope(trial: Trial, reply: Answer, leaves: dict[str, Tensor]) -> Array:
    """The gradient of x, for the case's cotangents of the output."""
    cotangent = tensor(trial.case.arrays.cotangents["output"], trial.case)
    with trial.blamed("backward"):
        # Not autograd.grad(), which some layers refuse and gradients.asked_of_autograd is about.
        reply.tensors["output"].backward(cotangent)
    return trial.collect({"x": leaves["x"]})["x"]


def _at_once(trial: Trial, work: Callable[[int], None]) -> None:
    """``work(0)`` and ``work(1)`` in two threads at once; what either raises is raised."""
    errors: list[BaseException] = []
    start, interval, cores = threading.Barrier(2), sys.getswitchinterval(), torch.get_num_threads()

    def begin(index: int) -> None:
        try:
            # A new thread has OpenMP's default, which is every core: of a call of 0.4 ms the threads of both made 200.
            torch.set_num_threads(cores)
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

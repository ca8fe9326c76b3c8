"""What a call leaves in the process: memory, and what a refused call has left."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.case import Case
from harness.reference import altered, answer
from harness.trial import ContractError, Trial
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
    time_limit_factor=4,
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
    "purity.call_after_failure",
    "A call that was refused leaves the module fit for the next, in the mode it was in, and every switch as it was.",
    MUST,
    "torch.nn.Module: a refused call has no effect",
    [
        *every(num_layers=2),
        *every(batch_first=True, bidirectional=True, steps=4),
        *every(steps=4, batch=3, lengths=(4, 3, 1), enforce_sorted=True),
        *every(dtype="float64", steps=3),
        *every(dtype="bfloat16", steps=3),
    ],
    demonstration="""
        refused, pair = [(x._replace(data=x.data.repeat(1, 2)) if isinstance(x, tuple) else x.repeat(1, 1, 2), hx)], isinstance(hx, tuple)
        refused += [(x, tuple(s.repeat(1, 2, 1) for s in hx) if pair else hx.repeat(1, 2, 1)), (x, hx[0] if pair else (hx, hx))]
        for train, given in [(train, given) for train in (False, True) for given in refused]:
            try: layer.train(train)(*given)
            except Exception: assert torch.is_grad_enabled() and layer.training is train and torch.get_default_dtype() is torch.float32
        with torch.no_grad():
            return layer(x), layer(x, hx)
    """,
)
def call_after_failure(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    wider = input._replace(data=input.data.repeat(1, 2)) if isinstance(input, PackedSequence) else input.repeat(1, 1, 2)
    refused = {
        "too many input features": (wider, hx),
        "too many sequences in the state": (input, _doubled(hx, 1)),
        "too many units in the state": (input, _doubled(hx, 2)),
        "a tensor for a pair, or a pair for a tensor": (input, hx[0] if isinstance(hx, tuple) else (hx, hx)),
    }
    for what, given in refused.items():
        for train in (False, True):
            module.train(train)
            before = switches()
            with suppress(Exception):
                module(*given)
            require_unturned(before, f"a call refused for {what} in {'training' if train else 'eval mode'}")
            if module.training is not train:
                raise ContractError(f"Expected train({train}) to hold after a call refused for {what}, but training is {module.training}")
        trial.refuses(what, module, *given)
        with torch.no_grad():
            trial.agree(trial.call(module, input, hx).arrays(), answer(trial.case))
        # What the refused call was given is not what the next one without a state begins with.
        trial.refuses(what, module, *given)
        zeros = {name: 0 * value for name, value in trial.case.arrays.inputs().items() if name != "x"}
        with torch.no_grad():
            trial.agree(trial.call(module, input, None).arrays(), altered(trial.case, inputs=zeros))


def _doubled(hx: Any, axis: int) -> Any:
    """A state twice as long along ``axis``."""
    return tuple(torch.cat([state, state], axis) for state in hx) if isinstance(hx, tuple) else torch.cat([hx, hx], axis)

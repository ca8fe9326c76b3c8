"""What torch.compile makes of a module answers as the module does, or is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from harness.reference import altered, answer, gradients, tensor, to_array
from harness.trial import ContractError, Trial, canonical, may_refuse
from suites.conformance.cases import GRU, LSTM, RNN_TANH, every, make
from suites.conformance.declare import MAY, contract
from suites.conformance.dropout import mask_given
from suites.conformance.gradients import every_output

#: Whatever a compiler may treat apart, in few steps, because it takes its time for each.
_FORMS = [
    *every(steps=3, batch=2),
    *every(RNN_TANH, GRU, num_layers=2, bidirectional=True, batch_first=True, steps=2, batch=2, dtype="float64"),
    make(LSTM, num_layers=2, bidirectional=True, batch_first=True, steps=2, batch=2, dtype="float64", proj_size=2),
    *every(RNN_TANH, GRU, LSTM, hidden_size=9, steps=2, batch=1, batched=False, dtype="bfloat16"),
    *every(RNN_TANH, GRU, LSTM, steps=3, batch=3, lengths=(1, 3, 2), bias=False),
]


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keeps a logger of torch's from saying where a graph breaks, or which optional packages it does without."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _compiling() -> Iterator[None]:
    """What torch.compile made inside is forgotten afterwards."""
    try:
        with quiet("torch._dynamo"):
            yield
    finally:
        torch._dynamo.reset()


class _Compiled:
    """A module under torch.compile, which counts the graphs that are made of it. What the compiler refuses is *unsupported*."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.graphs = 0
        with may_refuse("torch.compile"):
            self._call: Any = torch.compile(module, backend=self._counted)

    def _counted(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1
        forward: Callable[..., Any] = graph.forward
        return forward

    def __call__(self, input: Any, hx: Any) -> Any:
        with may_refuse("torch.compile"):
            return self._call(input, hx)

    def require_graphs(self) -> None:
        """Raises NotImplementedError where nothing was compiled."""
        if not self.graphs:
            raise NotImplementedError("torch.compile made no graph of it: it runs as it does without")


@contract(
    "execution.compiled",
    "torch.compile gives right answers and gradients, in training and in eval mode, with a state and without, at one size and then at "
    "another; where it makes no graph, that is said.",
    MAY,
    "torch.compile; torch._dynamo.config.allow_rnn",
    _FORMS,
    demonstration="""
        fast = layer if layer is reference else torch.compile(layer, backend="eager")
        wide, tree = lambda value: torch.cat([value] * 9, 1), torch.utils._pytree
        plain = hasattr(x, "dim") and x.dim() == 3 and not reference.batch_first
        found = [fast(x, hx), *(fast(wide(torch.cat([x, x])), tree.tree_map(wide, hx)) for _ in range(plain))]
        sum(value.square().sum() for value in tree.tree_leaves(found)).backward()
        layer.eval(), found.append(fast(x, None))
        return tree.tree_leaves(found), [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def compiled(trial: Trial) -> None:
    module, through, case = trial.module(), every_output(trial), trial.case
    # Another length and more sequences: what was made for the first call is not right for them.
    plain = case.batched and case.lengths is None and not case.layer.bidirectional
    others = [replace(case, steps=case.steps + 1, batch=17)] if plain else []
    fast = _Compiled(module)
    with _compiling():
        for one in (case, *others):
            leaves = trial.leaves(requires_grad=True, case=one)
            input, hx = trial.form(leaves, one)
            reply = canonical(fast(input, hx), input, one)
            trial.agree({name: to_array(value) for name, value in reply.items()}, answer(one))
            module.zero_grad()
            with trial.blamed("backward"):
                torch.autograd.backward([reply[name] for name in through], [tensor(one.arrays.cotangents[name], one) for name in through])
            trial.agree(trial.collect(trial.wanted(leaves, module)), gradients(one, through))
        if case.layer.bidirectional:
            # Without a state too: there is a graph of its own for it, as there is for eval mode.
            module.eval()
            with torch.no_grad():
                reply = canonical(fast(input, None), input, case)
            zeros = {name: 0 * state for name, state in case.arrays.inputs().items() if name != "x"}
            trial.agree({name: to_array(value) for name, value in reply.items()}, altered(case, inputs=zeros))
    fast.require_graphs()
    trial.answered = True


@contract(
    "execution.compiled_dropout",
    "Under torch.compile dropout acts in training, with a mask that is drawn anew at each call, and not in eval mode.",
    MAY,
    "torch.compile; torch.nn.LSTM: dropout",
    [*every(dropout=0.5, num_layers=2, weights="readable", dtype="float64", hidden_size=6, steps=3, batch=5)],
    demonstration="""
        fast = layer if layer is reference else torch.compile(layer, backend="eager")
        mask, second = (fast(x, hx)[0].abs() < 1e-9 for _ in range(2))
        assert (mask != second).any() and mask.any(), "nothing is dropped, or always the same"
        return layer.eval() and fast(x, hx)
    """,
)
def compiled_dropout(trial: Trial) -> None:
    module = trial.module().train()
    fast = _Compiled(module)
    input, hx = trial.form(trial.leaves())
    torch.manual_seed(0)
    with _compiling(), torch.no_grad():
        masks = [mask_given(trial, trial.structured(fast(input, hx), input)) for _ in range(2)]
        module.eval()
        trial.agree(trial.structured(fast(input, hx), input).arrays(), answer(trial.case))
    if not all((mask == 0).any() for mask in masks) or (masks[0] == masks[1]).all():
        raise ContractError(
            "Expected dropout to draw a mask at each call of what torch.compile made, but it drops nothing, or always the same"
        )
    fast.require_graphs()


#: Lengths of the sequences of one batch after the other.
_LENGTHS = (3, 2, 4, 10)


@contract(
    "execution.compiled_for_any_length",
    "Under torch.compile calls of ever other sequence lengths are right, and from the third length on no further graph is made; where each "
    "makes one, that is said.",
    MAY,
    "torch.compile: dynamic shapes, recompile_limit",
    [*every(batch=2, steps=_LENGTHS[0])],
    demonstration="""
        fast = layer if layer is reference else torch.compile(layer, backend="eager")
        with torch.no_grad(): return [fast(torch.cat([x, 2 * x] * 2)[:steps], hx) for steps in (3, 2, 4, 10)]
    """,
)
def compiled_for_any_length(trial: Trial) -> None:
    fast, made = _Compiled(trial.module()), []
    with _compiling(), torch.no_grad():
        for one in (replace(trial.case, steps=steps) for steps in _LENGTHS):
            input, hx = trial.form(trial.leaves(case=one), one)
            reply = canonical(fast(input, hx), input, one)
            trial.agree({name: to_array(value) for name, value in reply.items()}, answer(one))
            made.append(fast.graphs)
    fast.require_graphs()
    if made[-1] > made[1]:
        told = f"{made[-1]} graphs of it for {len(_LENGTHS)} sequence lengths"
        raise NotImplementedError(f"torch.compile made {told}: it compiles anew for each, and gives up at its recompile_limit")

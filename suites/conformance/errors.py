"""Errors: what does not fit is refused, never broadcast, cut off or converted in silence."""

from __future__ import annotations

from typing import Any

import torch

from harness.dispatch import OneDevice
from harness.layer import Mode
from harness.reference import altered, to_array
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract

_SIZES = {"steps": 4, "batch": 2}


@contract(
    "errors.input_shape",
    "An input with a wrong number of features or of dimensions is refused.",
    MUST,
    "torch.nn.LSTM: Shape; pytorch#114874, pytorch#4002",
    [
        *every(**_SIZES),
        *every(**_SIZES, batch_first=True, given_state=False),
        *every(input_size=1, hidden_size=4, **_SIZES, given_state=False),
        *every(steps=4, batch=1, batched=False),
    ],
    demonstration="""
        inputs = [x[..., :1]] * (x.shape[-1] > 1) + [torch.cat([x, x[..., :1]], -1), x[(0,) * (x.dim() - 1)]]
        inputs += [x[(None,) * (4 - x.dim())], x[(..., *(None,) * (4 - x.dim()))]]
        for wrong, train in [(wrong, train) for wrong in inputs + [x.mT] * (x.mT.shape[-1] != x.shape[-1]) for train in (True, False)]:
            try: layer.train(train)(wrong, hx)
            except Exception: continue
            raise AssertionError(f"an input of shape {tuple(wrong.shape)} was answered")
    """,
)
def input_shape(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    features = trial.case.layer.input_size
    if features > 1:
        # A single feature is the wrong size that broadcasts.
        trial.refuses(f"1 input feature instead of {features}", module, input[..., :1], hx)
    trial.refuses(f"{features + 1} input features instead of {features}", module, torch.cat([input, input[..., :1]], -1), hx)
    turned = input.transpose(-1, -2)
    if turned.shape[-1] != features:
        trial.refuses("an input whose last two axes are exchanged", module, turned, hx)
    trial.refuses("a 4-D input", module, input[(None,) * (4 - input.dim())], hx)
    trial.refuses("a 4-D input of which the last axis is one", module, input[(..., *(None,) * (4 - input.dim()))], hx)
    trial.refuses("a 1-D input", module, input[(0,) * (input.dim() - 1)], hx)


@contract(
    "errors.packed_input",
    "A packed input with a wrong number of features, or of another dtype than the parameters', floating or not, is refused.",
    MUST,
    "torch.nn.LSTM: Inputs: input",
    [*every(steps=4, batch=3, lengths=(2, 4, 3)), *every(steps=4, batch=2, lengths=(4, 3), enforce_sorted=True, given_state=False)],
    demonstration="""
        others = [x.data.to(other) for other in (torch.float64, torch.float32, torch.bfloat16, torch.int64) if other != dtype]
        for wrong in (x.data[:, :1], torch.cat([x.data, x.data[:, :1]], 1), *others):
            try: layer(x._replace(data=wrong), hx)
            except Exception: continue
            raise AssertionError(f"packed data of shape {tuple(wrong.shape)} in {wrong.dtype} was answered")
    """,
)
def packed_input(trial: Trial) -> None:
    module = trial.module()
    packed, hx = trial.form(trial.leaves())
    features = trial.case.layer.input_size
    for wrong, data in ((1, packed.data[:, :1]), (features + 1, torch.cat([packed.data, packed.data[:, :1]], 1))):
        trial.refuses(f"packed data with {wrong} features instead of {features}", module, packed._replace(data=data), hx)
    for dtype_ in (torch.float64, torch.bfloat16, torch.int64):
        trial.refuses(f"packed data of {dtype_}", module, packed._replace(data=packed.data.to(dtype_)), hx)


@contract(
    "errors.state_shape",
    "A state with a wrong number of layers, of batch items or of features is refused, even where it would broadcast.",
    MUST,
    "torch.nn.LSTM: Inputs: h_0, c_0; pytorch#4002, pytorch#106769",
    [
        *every(**_SIZES, num_layers=2, hidden_size=4),
        *every(**_SIZES, bidirectional=True, batch_first=True, hidden_size=4),
        *every(LSTM, **_SIZES, num_layers=2, hidden_size=4, proj_size=2),
        *every(steps=4, batch=1, batched=False, num_layers=2, hidden_size=4),
        *every(steps=4, batch=3, lengths=(4, 3, 1), enforce_sorted=True, hidden_size=4),
    ],
    demonstration="""
        states, packed = hx if isinstance(hx, tuple) else (hx,), isinstance(x, tuple)
        several = [(i, a, s.shape[a]) for i, s in enumerate([*states, states[0]]) for a in ([1] if packed else range(s.dim()))]
        for i, axis, size in [(i, a, k) for i, a, n in several for k in ({n + 1} if packed and i else {1, n + 1} - {n})]:
            wrong = [s[(slice(None),) * axis + ([0] * size if i in (k, len(states)) else slice(None),)] for k, s in enumerate(states)]
            try: layer(x, tuple(wrong) if isinstance(hx, tuple) else wrong[0])
            except Exception: continue
            raise AssertionError(f"states of shape {[tuple(state.shape) for state in wrong]} were answered")
    """,
)
def state_shape(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    states = hx if isinstance(hx, tuple) else (hx,)
    for index, name in enumerate(("h_0", "c_0")[: len(states)]):
        if trial.case.lengths is not None:
            # With a packed input nn itself checks little more (pytorch#195803), and with an unsorted one not even this.
            changed = [torch.cat([state, state[:, :1]], 1) if i == index else state for i, state in enumerate(states)]
            trial.refuses(f"{name} of a sequence more than are packed", module, input, _like(hx, changed))
            if index == 0:
                # Of a c_0 nn checks neither: one of a single sequence it takes for all.
                changed = [states[0][:, :1], *states[1:]]
                trial.refuses(f"{name} of one sequence where {trial.case.batch} are packed", module, input, _like(hx, changed))
            if len(states) == 1:
                # nn's own LSTM does not survive it.
                changed = [torch.cat([states[0], states[0][:1]])]
                trial.refuses(f"{name} of a layer more than there are, with a packed input,", module, input, _like(hx, changed))
            continue
        axes = ("layers and directions", "batch items", "features") if trial.case.batched else ("layers and directions", "features")
        for axis, what in enumerate(axes):
            size = states[index].shape[axis]
            # The width of the other state is the one that is mistaken for it where the layer projects.
            others = {1, size - 1, size + 1} | ({states[1 - index].shape[axis]} if len(states) == 2 else set())
            for wrong in sorted(others - {0, size}):
                changed = list(states)
                changed[index] = torch.zeros(
                    *(wrong if i == axis else n for i, n in enumerate(states[index].shape)), dtype=states[index].dtype
                )
                changed[index] = changed[index].to(states[index].device)
                trial.refuses(f"{name} with {wrong} {what} instead of {size}", module, input, _like(hx, changed))
    if len(states) == 2 and trial.case.batched:
        for wrong in {1, states[0].shape[1] + 1}:
            changed = [state.new_zeros(state.shape[0], wrong, state.shape[2]) for state in states]
            trial.refuses(f"h_0 and c_0 of {wrong} sequences instead of {states[0].shape[1]}", module, input, tuple(changed))


def _like(hx: Any, states: list[torch.Tensor]) -> Any:
    return tuple(states) if isinstance(hx, tuple) else states[0]


@contract(
    "errors.state_form",
    "A state of the other form is refused: 2-D for a batched input, 3-D for an unbatched one, with the batch first, one tensor, three or "
    "half a pair for a pair, and a tuple for one tensor.",
    MUST,
    "torch.nn.LSTM: Inputs; batch_first; pytorch#106769",
    [
        *every(steps=4, batch=3, batch_first=True),
        *every(steps=4, batch=3),
        *every(steps=4, batch=1, num_layers=2),
        *every(steps=4, batch=1, batched=False),
        *every(steps=4, batch=3, lengths=(4, 3, 1), enforce_sorted=True),
    ],
    demonstration="""
        pair, n = isinstance(hx, tuple), 1 if isinstance(x, tuple) else 2 if x.dim() == 2 else 5
        forms = [lambda s: s[0], lambda s: s[:, None], lambda s: s.new_zeros(len(s), 4, 5), lambda s: s[:, 0], lambda s: s.transpose(0, 1)]
        pairs = [hx[0], hx[:1], (hx[0], None), (None, hx[1]), *[(*hx, hx[1])] * (n != 2)] if pair else [(hx, hx), (hx,), [hx]]
        for wrong in [tuple(map(f, hx)) if pair else f(hx) for f in forms[:n]] + pairs + [(hx[0], hx[-1][:, None])] * (pair * n == 2):
            try: layer(x, wrong)
            except Exception: continue
            raise AssertionError("a state of another form was answered")
    """,
)
def state_form(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    states = list(hx) if isinstance(hx, tuple) else [hx]
    if trial.case.layer.mode is Mode.LSTM:
        _refuses_no_pair(trial, module, input, *states)
    else:
        trial.refuses("a tuple of h_0 instead of h_0", module, input, (states[0],))
        trial.refuses("a list of h_0 instead of h_0", module, input, [states[0]])
        trial.refuses("a pair of states instead of h_0", module, input, (states[0], states[0]))
    if trial.case.lengths is not None:
        # What else nn itself does not check, and may crash on.
        trial.refuses("a state (B, H) for a packed input", module, input, _like(hx, [state[0] for state in states]))
        return
    if trial.case.batched:
        trial.refuses("a 2-D state for a batched input", module, input, _like(hx, [state[:, 0] for state in states]))
        trial.refuses("a state (B, H) without its first axis", module, input, _like(hx, [state[0] for state in states]))
        many = _like(hx, [state.new_zeros(state.shape[0], trial.case.steps, state.shape[2]) for state in states])
        trial.refuses("a state of as many sequences as there are steps", module, input, many)
        trial.refuses("a state with the batch first", module, input, _like(hx, [state.transpose(0, 1) for state in states]))
    else:
        trial.refuses("a 3-D state for an unbatched input", module, input, _like(hx, [state[:, None] for state in states]))
        trial.refuses("a 1-D state for an unbatched input", module, input, _like(hx, [state[0] for state in states]))
    for index, name in enumerate(("h_0", "c_0") if len(states) == 2 else ()):
        mixed = [(state[:, 0] if trial.case.batched else state[:, None]) if i == index else state for i, state in enumerate(states)]
        trial.refuses(f"{name} alone with another number of dimensions than the input", module, input, tuple(mixed))


def _refuses_no_pair(trial: Trial, module: torch.nn.Module, input: Any, h_0: torch.Tensor, c_0: torch.Tensor) -> None:
    """What is no pair of two tensors, an LSTM refuses."""
    trial.refuses("h_0 alone instead of the pair (h_0, c_0)", module, input, h_0)
    trial.refuses("a tuple of h_0 alone instead of the pair (h_0, c_0)", module, input, (h_0,))
    trial.refuses("(h_0, None) instead of the pair (h_0, c_0)", module, input, (h_0, None))
    trial.refuses("(None, c_0) instead of the pair (h_0, c_0)", module, input, (None, c_0))
    # nn itself passes over what follows the pair where the input is unbatched, or packed in another order.
    if trial.case.batched:
        trial.refuses("a third state after the pair (h_0, c_0)", module, input, (h_0, c_0, c_0))


@contract(
    "errors.dtype",
    "An input or a state of another dtype than the parameters' is refused; a state of a narrower one is promoted exactly, or refused.",
    MUST,
    "torch.nn.LSTM: Inputs; pytorch: 'RNN input dtype does not match weight dtype'",
    [
        *every(**_SIZES),
        *every(**_SIZES, dtype="float64", batch_first=True),
        *every(**_SIZES, dtype="bfloat16"),
        *every(steps=4, batch=1, batched=False),
        *every(steps=4, batch=3, lengths=(2, 4, 3)),
    ],
    demonstration="""
        wider = {torch.float32: [torch.float64], torch.bfloat16: [torch.float32, torch.half]}.get(dtype, [])
        kinds = {torch.float64, torch.float32, torch.half, torch.bfloat16, torch.int64, torch.uint8, torch.bool} - {dtype}
        to = lambda kind: tuple(state.to(kind) for state in hx) if isinstance(hx, tuple) else hx.to(kind)
        for wrong in [(x.to(kind), hx) for kind in kinds] + [(x, to(kind)) for kind in wider]:
            try: layer(*wrong)
            except Exception: continue
            raise AssertionError(f"an input of {wrong[0].data.dtype} with states like {wrong[1][0].dtype} was answered")
    """,
)
def dtype(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    own = getattr(torch, trial.case.dtype)
    floating = [one for one in (torch.float64, torch.float32, torch.float16, torch.bfloat16) if one is not own]
    # What packed data is refused in, errors.packed_input says.
    if trial.case.lengths is None:
        for dtype_ in (*floating, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64):
            trial.refuses(f"an input of {dtype_}", module, input.to(dtype_), hx)
    for name in ("h0", "c0")[: 1 + trial.case.layer.has_cell_state]:
        for dtype_ in (*floating, torch.int64):
            leaves = trial.leaves()
            leaves[name] = leaves[name].to(dtype_)
            if torch.promote_types(dtype_, own) == own:
                _promotes_or_refuses(trial, name, module, leaves)
            # What nn itself does with a c_0 of float32 in a layer of bfloat16 is nobody's model.
            elif (name, own, dtype_) != ("c0", torch.bfloat16, torch.float32):
                trial.refuses(f"{name[0]}_0 of {dtype_}", module, *trial.form(leaves))


def _promotes_or_refuses(trial: Trial, name: str, module: torch.nn.Module, leaves: dict[str, torch.Tensor]) -> None:
    """A state of a narrower type is promoted by nn itself, where it is c_0, and by whoever joins input and state with torch.cat."""
    input, hx = trial.form(leaves)
    try:
        with torch.no_grad():
            raw = module(input, hx)
    except Exception:  # any exception is a refusal
        return
    trial.agree(trial.structured(raw, input).arrays(), altered(trial.case, inputs={name: to_array(leaves[name])}))


@contract(
    "errors.device",
    "An input or a state on another device than the parameters' is refused.",
    MUST,
    "pytorch: 'Input and parameter tensors are not at the same device'",
    [*every(**_SIZES)],
    demonstration="""
        other = "meta" if x.device.type == "cpu" else "cpu"
        states = tuple(state.to(other) for state in hx) if isinstance(hx, tuple) else hx.to(other)
        for wrong in ((x.to(other), hx), (x, states)):
            try: layer(*wrong)
            except Exception: continue
            raise AssertionError(f"an input or a state on {other} was answered")
    """,
)
def device(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    states = list(hx) if isinstance(hx, tuple) else [hx]
    # What is forgotten on the CPU is what users hand to a GPU; beside the CPU itself, only the meta device is on every machine.
    other = "meta" if input.device.type == "cpu" else "cpu"
    _refuses_device(trial, f"an input on {other}", module, input.to(other), hx)
    for index, name in enumerate(("h_0", "c_0")[: len(states)]):
        changed = [state.to(other) if i == index else state for i, state in enumerate(states)]
        _refuses_device(trial, f"{name} on {other}", module, input, _like(hx, changed))


def _refuses_device(trial: Trial, what: str, module: torch.nn.Module, input: Any, hx: Any) -> None:
    """As :meth:`Trial.refuses`, where torch does; on a CPU its batched products do not look whether an operand is on meta."""
    try:
        trial.refuses(what, module, input, hx)
    except ContractError:
        with OneDevice() as mode:
            trial.refuses(what, module, input, hx)
        if not mode.refused:
            raise

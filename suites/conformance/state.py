"""The state: what goes in as h_0 and c_0, what comes out as h_n and c_n, and that one can be fed back as the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from harness.case import Array, Case
from harness.contract import alternative
from harness.reference import altered, answer, tensor
from harness.trial import ContractError, Raised, Trial, where
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract, in_docs


@contract(
    "state.default_is_zero",
    "Without hx the initial state is zero, at every call, and of the input's dtype and where the input is, whatever torch's defaults.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0 default to zeros"),
    [
        *every(given_state=False),
        *every(given_state=False, num_layers=2, bidirectional=True, batch_first=True),
        *every(given_state=False, steps=5, batch=3, lengths=(2, 5, 3)),
        *every(given_state=False, batch=1, batched=False),
        *every(LSTM, given_state=False, proj_size=2, dtype="float64"),
    ],
    demonstration="""
        with torch.no_grad():
            plain, default = [layer(x, hx) for _ in range(3)], torch.get_default_dtype()
            torch.set_default_dtype(torch.float64 if dtype == torch.float32 else default)
            plain, _ = [*plain, layer(x, hx)], torch.set_default_dtype(default)
            if isinstance(x, tuple): return plain
            with torch.device("meta"): elsewhere = layer(x, hx)
            return plain, elsewhere
    """,
)
def default_is_zero(trial: Trial) -> None:
    module = trial.module()
    for number in range(12):
        # On a machine with one device the meta device stands for another that is torch's default.
        elsewhere: Any = torch.device("meta") if number == 11 and trial.case.lengths is None else nullcontext()
        input, hx = trial.form(trial.leaves())
        try:
            with torch.set_grad_enabled(number % 3 == 1), elsewhere:
                reply = trial.call(module, input, hx)
        except (NotImplementedError, Raised) as error:
            # What a layer counts with is a tensor there that has no number, which on another device it would have.
            if number < 11:
                raise
            if "meta tensor" not in str(error):
                with where("where the meta device is torch's default, as another device than the layer's may be"):
                    raise
            continue
        trial.agree(reply.arrays(), answer(trial.case))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if trial.case.dtype == "float64" else torch.float64)
    try:
        with where("where another dtype is torch's default"):
            trial.agree(trial.answer(module).arrays(), answer(trial.case))
    finally:
        torch.set_default_dtype(default)


def _wrong_states(case: Case) -> dict[str, dict[str, Array]]:
    h0, c0 = case.arrays.h0, case.arrays.c0

    def changed(change: Callable[[Array], Array]) -> dict[str, Array]:
        return alternative(case, h0=change(h0), c0=None if c0 is None else change(c0))

    wrong = {"h_0 zero": alternative(case, h0=0 * h0)}
    if c0 is not None:
        wrong["c_0 zero"] = alternative(case, c0=0 * c0)
    if len(h0) > 1:
        wrong["the layers' states in reverse order"] = changed(lambda state: state[::-1])
        wrong["the first layer's state for all"] = changed(lambda state: 0 * state + state[:1])
    if h0.shape[1] > 1:
        wrong["the batch items' states rotated"] = changed(lambda state: state[:, [*range(1, state.shape[1]), 0]])
    return wrong


_STATES = [
    *every(),
    *every(num_layers=3, bidirectional=True, steps=4, weights="remembering"),
    *every(num_layers=2, batch_first=True, batch=4),
    # As many states as units: whoever turns them round is seen by their numbers alone.
    *every(num_layers=2, batch=1, batched=False, batch_first=True, bidirectional=True, hidden_size=4),
    *every(num_layers=2, bidirectional=True, steps=5, batch=4, lengths=(2, 5, 1, 3)),
    *every(LSTM, proj_size=2, num_layers=2, bidirectional=True),
]


@contract(
    "state.given_is_used",
    "A given h_0 (and c_0) is where every layer, direction and sequence starts, each from its own, also where it is larger than any h_n.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0"),
    _STATES,
    _wrong_states,
    demonstration="""
        states = [(hx[0], hx[1]), (0 * hx[0], hx[1]), (4 * hx[0], 0 * hx[1])] if isinstance(hx, tuple) else [hx, 4 * hx]
        with torch.no_grad():
            return [layer(x, state) for state in states], layer.eval()(x, hx)
    """,
)
def given_is_used(trial: Trial) -> None:
    module = trial.module()
    trial.agree(trial.answer(module).arrays(), answer(trial.case))
    # One of the two being zero does not make the other so, and nothing says that h_0 is between -1 and 1.
    inputs = trial.case.arrays.inputs()
    large = {"h0": 4 * inputs["h0"]}
    for given in [large | {"c0": 0 * inputs["c0"]}, {"h0": 0 * inputs["h0"]}] if "c0" in inputs else [large]:
        leaves = {**trial.leaves(), **{name: tensor(array, trial.case) for name, array in given.items()}}
        with where("h_0 four times as large" if given["h0"].any() else "h_0 of zeros"):
            trial.agree(trial.answer(module, leaves).arrays(), altered(trial.case, inputs=given))


@contract(
    "state.carried_far",
    "With gates that remember, the initial state is still seen in the output after hundreds of steps.",
    MUST,
    "torch.nn.LSTM: equations; pytorch PR#95137: tests passed because states were zeros",
    [
        *every(steps=100, weights="remembering", dtype="float64"),
        *every(steps=200, weights="remembering", hidden_size=9, batch=2, dtype="float64"),
    ],
    _wrong_states,
)
def carried_far(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


@contract(
    "state.pair_order",
    "hx of an LSTM is (h_0, c_0) and its state (h_n, c_n), in this order; a list of the two is read alike, or refused, and left as it is.",
    MUST,
    in_docs("LSTM: Inputs: input, (h_0, c_0)"),
    [*every(LSTM), *every(LSTM, num_layers=2, bidirectional=True, batch_first=True), *every(LSTM, steps=5, batch=3, lengths=(2, 5, 3))],
    lambda case: {"h_0 and c_0 exchanged": alternative(case, h0=case.arrays.c0, c0=case.arrays.h0)},
    demonstration="""
        with torch.no_grad():
            right, given = layer(x, hx), list(hx)
            try: listed = layer(x, given)
            except Exception: return right
            torch.testing.assert_close(listed[1], right[1])
            assert given[0] is hx[0] and given[1] is hx[1], "the list was written to"
            return right
    """,
)
def pair_order(trial: Trial) -> None:
    module = trial.module()
    trial.agree(trial.answer(module).arrays(), answer(trial.case))
    for grad in (False, True):
        input, hx = trial.form(trial.leaves())
        listed = list(hx)
        try:
            with torch.set_grad_enabled(grad):
                raw = module(input, listed)
        except Exception:  # any exception is a refusal
            raw = None
        if len(listed) != len(hx) or any(now is not then for now, then in zip(listed, hx, strict=True)):
            raise ContractError("Expected a list of states to hold after the call what it held before, but other tensors are in it")
        if raw is not None:
            trial.agree(trial.structured(raw, input).arrays(), answer(trial.case))


def _wrong_layouts(case: Case) -> dict[str, dict[str, Array]]:
    right, layer = answer(case).tensors, case.layer
    order = [level * 2 + direction for direction in range(2) for level in range(layer.num_layers)]
    states = [name for name in right if name != "output"]
    return {
        "directions before layers": {**right, **{name: right[name][order] for name in states}},
        "last layer first": {**right, **{name: right[name][::-1] for name in states}},
        "reverse before forward": {
            **right,
            **{name: right[name].reshape(-1, 2, *right[name].shape[1:])[:, ::-1].reshape(right[name].shape) for name in states},
        },
    }


@contract(
    "state.layout",
    "h_n and c_n hold layer 0 forward, layer 0 reverse, layer 1 forward and so on, and h_0 and c_0 are read in that order.",
    MUST,
    in_docs("LSTM: Outputs: h_n; Inputs: h_0"),
    [
        *every(num_layers=3, bidirectional=True, steps=6, batch=2),
        *every(num_layers=2, bidirectional=True, steps=5, batch=4, lengths=(2, 5, 1, 3)),
        *every(LSTM, num_layers=3, bidirectional=True, proj_size=3, dtype="float64"),
    ],
    _wrong_layouts,
)
def layout(trial: Trial) -> None:
    names = [name for name in answer(trial.case).tensors if name != "output"]
    trial.agree(trial.answer().arrays(), answer(trial.case), only=names)


@contract(
    "state.carried_between_calls",
    "A sequence read in pieces, each from the state that the one before it left, gives what it gives when read at once.",
    MUST,
    in_docs("LSTM: Outputs: h_n, c_n"),
    [
        *every(steps=7, batch=3),
        *every(steps=12, num_layers=3, weights="remembering"),
        *every(steps=9, batch=2, num_layers=2, batch_first=True),
        *every(steps=7, batch=1, batched=False),
        *every(LSTM, steps=8, proj_size=2, dtype="float64"),
        # More calls than a graph waits for before it is captured, and more lengths than a small cache has room for.
        *every(steps=130, batch=1, weights="remembering"),
    ],
    _wrong_states,
    # A layer that is compiled for each length takes seconds for each of 16.
    time_limit_factor=3,
    demonstration="""
        time, outputs, state = int(reference.batch_first and x.dim() == 3), [], hx
        for size in range(12, 0, -1):
            for number, piece in enumerate(x.split(size, time)):
                with torch.no_grad(): output, state = layer.train(size == 3)(piece, state if number else hx)
                outputs.append(output)
        return outputs, state
    """,
)
def carried_between_calls(trial: Trial) -> None:
    case = trial.case
    time = 1 if case.layer.batch_first and case.batched else 0
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    for pieces in ([3, case.steps - 3], [1] * case.steps, _growing(case.steps)):
        module.train(pieces[0] > 1)
        outputs, state = [], hx
        with torch.no_grad(), trial.blamed("calling it piece by piece"):
            for piece in torch.split(input, pieces, dim=time):
                output, state = module(piece, state)
                outputs.append(output)
        whole = trial.structured((torch.cat(outputs, time), state), input)
        trial.agree(whole.arrays(), answer(case))


def _growing(steps: int) -> list[int]:
    """Lengths 1, 2, 3 and so on, and what is left of ``steps``."""
    pieces: list[int] = []
    while sum(pieces) < steps:
        pieces.append(min(len(pieces) + 1, steps - sum(pieces)))
    return pieces

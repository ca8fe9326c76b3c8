"""Gradients: what flows back to the input, the initial state and every parameter is the oracle's.

Here stands the plain way: one call, one pass back, and every gradient is looked at. What else can be asked of autograd is in
``gradients_autograd.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from harness.reference import gradients
from harness.reproduction import BACKWARD
from harness.trial import Trial
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, combined, every, lengths, make, stacks, widths
from suites.conformance.declare import MUST, contract, in_docs

_EVERY_WAY = [
    *every(),
    *every(num_layers=3, bidirectional=True, steps=4, batch=2),
    *every(num_layers=2, batch_first=True, dtype="float64"),
    *every(batch=1, batched=False, bidirectional=True),
    *every(num_layers=2, bidirectional=True, steps=5, batch=4, lengths=(2, 5, 1, 3)),
    *every(LSTM, proj_size=2, num_layers=2, bidirectional=True),
    *every(steps=40, weights="remembering", hidden_size=9),
]


def every_output(trial: Trial) -> tuple[str, ...]:
    """The names of all that a layer answers."""
    return ("output", "h_n", "c_n") if trial.case.layer.has_cell_state else ("output", "h_n")


def _agree(trial: Trial, prefixes: Sequence[str], through: Sequence[str] | None = None) -> None:
    """The gradients whose names begin with one of ``prefixes`` are right, for random cotangents of ``through`` (all outputs)."""
    through = tuple(through or every_output(trial))
    expected = gradients(trial.case, through)
    names = [name for name in expected.tensors if name.startswith(tuple(prefixes))]
    trial.agree(trial.gradients(through, expected=expected), expected, only=names)


@contract(
    "gradients.input",
    "The gradient of the input is right.",
    MUST,
    "torch.autograd; torch.nn.LSTM: equations",
    _EVERY_WAY,
    demonstration=BACKWARD,
)
def input_(trial: Trial) -> None:
    _agree(trial, ["x"])


@contract(
    "gradients.weight_ih",
    "The gradient of every weight_ih is right.",
    MUST,
    in_docs("LSTM: Variables: weight_ih_l[k]"),
    _EVERY_WAY,
    demonstration=BACKWARD,
)
def weight_ih(trial: Trial) -> None:
    _agree(trial, ["weight_ih"])


@contract(
    "gradients.weight_hh",
    "The gradient of every weight_hh is right.",
    MUST,
    in_docs("LSTM: Variables: weight_hh_l[k]"),
    # One step from zero gives it a gradient of zeros.
    [*_EVERY_WAY, *every(steps=1, given_state=False)],
    demonstration=BACKWARD,
)
def weight_hh(trial: Trial) -> None:
    _agree(trial, ["weight_hh"])


@contract(
    "gradients.biases",
    "The gradients of every bias_ih and bias_hh are right, each by itself.",
    MUST,
    in_docs("LSTM: Variables: bias_ih_l[k], bias_hh_l[k]"),
    _EVERY_WAY,
    demonstration=BACKWARD,
)
def biases(trial: Trial) -> None:
    _agree(trial, ["bias_"])


@contract(
    "gradients.weight_hr",
    "The gradient of every projection weight is right.",
    MUST,
    in_docs("LSTM: Variables: weight_hr_l[k]"),
    [*every(LSTM, proj_size=2, steps=16), *every(LSTM, proj_size=3, num_layers=2, bidirectional=True, dtype="float64")],
    demonstration=BACKWARD,
)
def weight_hr(trial: Trial) -> None:
    _agree(trial, ["weight_hr"])


@contract(
    "gradients.initial_state",
    "The gradients of h_0 and c_0 are right, for every layer and direction: neither None nor zero.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0"),
    _EVERY_WAY,
    demonstration=BACKWARD,
)
def initial_state(trial: Trial) -> None:
    _agree(trial, ["h0", "c0"])


@contract(
    "gradients.every_output_at_once",
    "Cotangents of output, h_n and c_n given at once add up.",
    MUST,
    "torch.autograd.backward; pytorch#96416",
    [*every(num_layers=2, bidirectional=True), *every(LSTM, proj_size=2), *every(steps=12, batch_first=True, weights="remembering")],
    demonstration=BACKWARD,
)
def every_output_at_once(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.one_output_alone",
    "A loss on output alone, on h_n alone or on c_n alone gives the right gradients, and is not disturbed by the others.",
    MUST,
    "pytorch#96416: wrong where only h_n has a cotangent",
    [
        *every(num_layers=2),
        *every(bidirectional=True, batch_first=True, steps=4),
        *every(LSTM, proj_size=2),
        *every(steps=5, batch=3, lengths=(2, 5, 3), bidirectional=True),
    ],
    demonstration="""
        output, state = layer(x, hx)
        values = [output[0] if isinstance(output, tuple) else output, *state]
        return [torch.autograd.grad(value.square().sum(), leaves, retain_graph=True) for value in values]
    """,
)
def one_output_alone(trial: Trial) -> None:
    for name in every_output(trial):
        _agree(trial, [""], through=[name])


@contract(
    "gradients.options_combined",
    "Options do not disturb each other's gradients: every pair of options, and every four of those that shape it, gives the right ones.",
    MUST,
    "torch.autograd; torch.nn.LSTM: Args; Inputs",
    [case for mode in Mode for case in combined(mode)],
    demonstration=BACKWARD,
)
def options_combined(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.sizes",
    "Gradients are right at sizes on either side of vector and tile widths.",
    MUST,
    "torch.autograd; kernels treat the rest of a vector apart",
    [case for mode in Mode for case in (*widths(mode), *lengths(mode)[::3], *stacks(mode))],
    demonstration=BACKWARD,
)
def sizes(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.through_time",
    "Back-propagation goes through the whole sequence: the first step's input has its gradient after hundreds of steps.",
    MUST,
    "torch.autograd: no truncation; Werbos 1990",
    [
        *every(input_size=2, hidden_size=3, steps=70, batch=3, num_layers=3, lengths=(70, 33, 66), weights="remembering"),
        make(LSTM, 2, 3, steps=70, batch=2, proj_size=2, weights="remembering"),
        *every(input_size=2, hidden_size=3, steps=130, batch=2, num_layers=2, batch_first=True, weights="remembering"),
        *every(input_size=2, hidden_size=3, steps=300, batch=2, weights="remembering"),
        *every(input_size=2, hidden_size=3, steps=520, batch=1, bidirectional=True, weights="remembering"),
        *every(RNN_TANH, GRU, LSTM, input_size=2, hidden_size=2, steps=2100, batch=1, seed=1),
        make(RNN_RELU, 2, 2, steps=2100, batch=1, seed=3, weights="remembering"),
    ],
    demonstration=BACKWARD,
)
def through_time(trial: Trial) -> None:
    # Of h_n an Elman network's first steps get next to nothing. With cotangents at every step, a cut anywhere takes the gradients of the
    # steps before it.
    lasting = trial.case.layer.mode in (Mode.LSTM, Mode.GRU) and trial.case.steps < 1000
    _agree(trial, [""], through=["h_n"] if lasting else ["output", "h_n"])


@contract(
    "gradients.numerical",
    "In float64 every gradient is the limit of differences, at once in the input, the states and all weights.",
    MUST,
    "torch.autograd.gradcheck",
    [
        *every(input_size=2, hidden_size=3, steps=3, batch=2, dtype="float64"),
        *every(LSTM, input_size=2, hidden_size=3, steps=2, batch=2, proj_size=2, bidirectional=True, num_layers=2, dtype="float64"),
    ],
    demonstration=BACKWARD,
)
def numerical(trial: Trial) -> None:
    function, values = as_function(trial)
    with trial.blamed("gradcheck"):
        # Undefined cotangents have contracts of their own.
        torch.autograd.gradcheck(function, values, fast_mode=True, check_undefined_grad=False, rtol=1e-5, atol=1e-7)


def as_function(trial: Trial) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """The layer as a function of x, the states and the weights, all of which are leaves; with dropout it has one mask at every call."""
    module = trial.module()
    leaves = trial.leaves(requires_grad=True)
    parameters = trial.parameters(module)

    def function(*values: Tensor) -> Any:
        inputs = dict(zip(leaves, values, strict=False))
        if trial.case.layer.dropout:
            torch.manual_seed(3)
        return tuple(trial.call(module, *trial.form(inputs)).tensors.values())

    return function, (*leaves.values(), *parameters.values())

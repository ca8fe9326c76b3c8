"""Gradients: what flows back to the input, the initial state and every parameter is the oracle's."""

from __future__ import annotations

from collections.abc import Sequence

from harness.layer import Mode
from harness.reference import gradients
from harness.trial import Trial
from suites.conformance.cases import LSTM, combined, every, widths
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


def _all(trial: Trial) -> tuple[str, ...]:
    return ("output", "h_n", "c_n") if trial.case.layer.has_cell_state else ("output", "h_n")


def _agree(trial: Trial, prefixes: Sequence[str], through: Sequence[str] | None = None) -> None:
    """The gradients whose names begin with one of ``prefixes`` are right, for random cotangents of ``through`` (all outputs)."""
    through = tuple(through or _all(trial))
    expected = gradients(trial.case, through)
    absent = () if trial.case.given_state else ("h0", "c0")
    names = [name for name in expected.tensors if name.startswith(tuple(prefixes)) and name not in absent]
    trial.agree(trial.gradients(through), expected, only=names)


@contract("gradients.input", "The gradient of the input is right.", MUST, "torch.autograd; torch.nn.LSTM: equations", _EVERY_WAY)
def input_(trial: Trial) -> None:
    _agree(trial, ["x"])


@contract(
    "gradients.weight_ih",
    "The gradient of every weight_ih is right.",
    MUST,
    in_docs("LSTM: Variables: weight_ih_l[k]"),
    _EVERY_WAY,
)
def weight_ih(trial: Trial) -> None:
    _agree(trial, ["weight_ih"])


@contract(
    "gradients.weight_hh",
    "The gradient of every weight_hh is right.",
    MUST,
    in_docs("LSTM: Variables: weight_hh_l[k]"),
    _EVERY_WAY,
)
def weight_hh(trial: Trial) -> None:
    _agree(trial, ["weight_hh"])


@contract(
    "gradients.biases",
    "The gradients of every bias_ih and bias_hh are right, each by itself.",
    MUST,
    in_docs("LSTM: Variables: bias_ih_l[k], bias_hh_l[k]"),
    _EVERY_WAY,
)
def biases(trial: Trial) -> None:
    _agree(trial, ["bias_"])


@contract(
    "gradients.weight_hr",
    "The gradient of every projection weight is right.",
    MUST,
    in_docs("LSTM: Variables: weight_hr_l[k]"),
    [*every(LSTM, proj_size=2), *every(LSTM, proj_size=3, num_layers=2, bidirectional=True, dtype="float64")],
)
def weight_hr(trial: Trial) -> None:
    _agree(trial, ["weight_hr"])


@contract(
    "gradients.initial_state",
    "The gradients of h_0 and c_0 are right, for every layer and direction: neither None nor zero.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0"),
    _EVERY_WAY,
)
def initial_state(trial: Trial) -> None:
    _agree(trial, ["h0", "c0"])


@contract(
    "gradients.every_output_at_once",
    "Cotangents of output, h_n and c_n given at once add up.",
    MUST,
    "torch.autograd.backward; pytorch#96416",
    [*every(num_layers=2, bidirectional=True), *every(LSTM, proj_size=2), *every(steps=12, batch_first=True, weights="remembering")],
)
def every_output_at_once(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.one_output_alone",
    "A loss on output alone, on h_n alone or on c_n alone gives the right gradients, and is not disturbed by the others.",
    MUST,
    "pytorch#96416: wrong where only h_n has a cotangent",
    [*every(num_layers=2), *every(bidirectional=True, steps=4), *every(LSTM, proj_size=2), *every(steps=5, batch=3, lengths=(2, 5, 3))],
)
def one_output_alone(trial: Trial) -> None:
    for name in _all(trial):
        _agree(trial, [""], through=[name])


@contract(
    "gradients.options_combined",
    "Options do not disturb each other's gradients: every pair of constructor options, forms, sizes and dtypes gives the right ones.",
    MUST,
    "torch.autograd; torch.nn.LSTM: Args; Inputs",
    [case for mode in Mode for case in combined(mode)],
)
def options_combined(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.sizes",
    "Gradients are right at sizes on either side of vector and tile widths.",
    MUST,
    "torch.autograd; kernels treat the rest of a vector apart",
    [case for mode in Mode for case in widths(mode)],
)
def sizes(trial: Trial) -> None:
    _agree(trial, [""])


@contract(
    "gradients.through_time",
    "Back-propagation goes through the whole sequence: the first step's input has its gradient after hundreds of steps.",
    MUST,
    "torch.autograd: no truncation; Werbos 1990",
    [*every(input_size=2, hidden_size=3, steps=300, batch=2, weights="remembering")],
)
def through_time(trial: Trial) -> None:
    _agree(trial, [""], through=["h_n"])

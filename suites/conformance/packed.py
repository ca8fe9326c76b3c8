"""Packed sequences: each sequence of a batch is treated as if it were alone, whatever the lengths and their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from harness.case import Array, Case
from harness.contract import alternative
from harness.reference import answer
from harness.trial import ContractError, Trial, where
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract, in_docs


def _as_if_padded(case: Case) -> dict[str, dict[str, Array]]:
    """What comes out where the padding is read as if it were data."""
    padded = alternative(case, valid=case.valid | True)
    return {"padding read": {**padded, "output": padded["output"] * case.valid[:, :, None]}}


_UNSORTED = [
    *every(steps=6, batch=4, lengths=(3, 6, 1, 4)),
    *every(steps=6, batch=4, lengths=(1, 4, 6, 2), num_layers=2, bidirectional=True),
    *every(LSTM, steps=5, batch=3, lengths=(2, 5, 4), proj_size=2, num_layers=2, bidirectional=True, dtype="float64"),
    *every(steps=33, batch=9, lengths=(5, 33, 17, 1, 32, 16, 8, 31, 2), hidden_size=7),
    # All but two in order already: whoever looks at some of the indices alone finds them so.
    *every(steps=6, batch=5, lengths=(6, 5, 2, 4, 1)),
]


@contract(
    "packed.as_if_alone",
    "A packed batch gives, for every sequence, what that sequence gives alone.",
    MUST,
    "torch.nn.utils.rnn.pack_padded_sequence; torch.nn.LSTM: Inputs: input",
    [
        *every(steps=6, batch=4, lengths=(6, 5, 3, 1), enforce_sorted=True),
        *every(steps=6, batch=4, lengths=(6, 6, 2, 2), enforce_sorted=True, bidirectional=True, num_layers=2),
        *every(steps=4, batch=3, lengths=(4, 4, 4), enforce_sorted=True, bidirectional=True),
        *_UNSORTED,
    ],
)
def as_if_alone(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


def _wrong_order(case: Case) -> dict[str, dict[str, Array]]:
    """What comes out where the states are not permuted with the batch."""
    order = sorted(range(case.batch), key=lambda b: -(case.lengths or ())[b])
    h0, c0 = case.arrays.h0[:, order], None if case.arrays.c0 is None else case.arrays.c0[:, order]
    right = answer(case).tensors
    return {
        "states not permuted in": alternative(case, h0=h0, **({} if c0 is None else {"c0": c0})),
        "states not permuted back": {name: value if name == "output" else value[:, order] for name, value in right.items()},
    }


@contract(
    "packed.unsorted",
    "With enforce_sorted=False the states are permuted in with the batch, and h_n and c_n permuted back.",
    MUST,
    "torch.nn.utils.rnn.pack_padded_sequence: enforce_sorted",
    _UNSORTED,
    _wrong_order,
)
def unsorted(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


@contract(
    "packed.final_state_at_own_end",
    "h_n and c_n are each sequence's state after its own last step, not after the batch's.",
    MUST,
    in_docs("LSTM: Outputs: h_n"),
    [*every(steps=7, batch=3, lengths=(7, 4, 1), enforce_sorted=True, num_layers=2), *every(steps=6, batch=4, lengths=(3, 6, 1, 4))],
    _as_if_padded,
)
def final_state_at_own_end(trial: Trial) -> None:
    names = [name for name in answer(trial.case).tensors if name != "output"]
    trial.agree(trial.answer().arrays(), answer(trial.case), only=names)


@contract(
    "packed.reverse_starts_at_own_end",
    "The reverse direction of each sequence starts at its own last step, from its own initial state, not in the padding.",
    MUST,
    "torch.nn.LSTM: bidirectional; keras#4192, onnx-tensorflow#342, mxnet#19323",
    [
        *every(steps=7, batch=3, lengths=(7, 4, 1), enforce_sorted=True, bidirectional=True),
        *every(steps=6, batch=4, lengths=(3, 6, 1, 4), bidirectional=True, num_layers=2),
    ],
    _as_if_padded,
)
def reverse_starts_at_own_end(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


@contract(
    "packed.metadata",
    "The output is a PackedSequence with the batch_sizes, sorted_indices and unsorted_indices of the input, with gradients and without.",
    MUST,
    "torch.nn.utils.rnn.PackedSequence",
    [
        *every(steps=6, batch=4, lengths=(3, 6, 1, 4), num_layers=2),
        *every(steps=5, batch=3, lengths=(5, 4, 2), enforce_sorted=True, bidirectional=True),
        *every(steps=5, batch=3, lengths=(2, 5, 4), bidirectional=True),
        # In order already, without having been told so: its indices change nothing, and are there.
        *every(steps=5, batch=3, lengths=(5, 4, 2)),
    ],
    demonstration="""
        for grad, train in ((True, True), (False, True), (False, False)):
            with torch.set_grad_enabled(grad): output = layer.train(train)(x, hx)[0]
            for given, got in zip(x[1:], output[1:]):
                assert got is None if given is None else torch.equal(given, got), (given, got)
    """,
)
def metadata(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    for grad, train in ((True, True), (True, False), (False, True), (False, False)):
        with torch.set_grad_enabled(grad):
            _require_metadata(input, trial.call(module.train(train), input, hx).raw[0])


def _require_metadata(input: PackedSequence, output: PackedSequence) -> None:
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        given, got = getattr(input, name), getattr(output, name)
        same = got is None if given is None else got is not None and torch.equal(given, got)
        if not same:
            raise ContractError(f"Expected {name} of the output to be the input's {_listed(given)} but got {_listed(got)}")


def _listed(value: torch.Tensor | None) -> str:
    return "None" if value is None else str(value.tolist())


@contract(
    "packed.lengths_of_this_call",
    "The lengths are those of this call: a pack of as many sequences as the one before, of as many steps in all, and of as long a one, or "
    "with the same lengths in another order, is answered as if it were the first.",
    MUST,
    "torch.nn.utils.rnn.PackedSequence: batch_sizes",
    [
        *every(steps=4, batch=2, lengths=(4, 2), enforce_sorted=True, bidirectional=True),
        *every(steps=5, batch=3, lengths=(2, 5, 2), num_layers=2),
        *every(steps=5, batch=3, lengths=(4, 5, 1)),
    ],
    demonstration="""
        pack, batch, order = torch.nn.utils.rnn.PackedSequence, int(x.batch_sizes[0]), x.sorted_indices
        even = pack(x.data, x.batch_sizes.new_full((len(x.data) // batch,), batch))
        moved = pack(x.data, x.batch_sizes + torch.tensor([0, 1, 0, -1, 0]), order) if x.batch_sizes[1] < batch else x
        turned = x if order is None else pack(x.data, x.batch_sizes, order.flip(0))
        with torch.no_grad():
            return [layer.train(mode)(pack, hx) for mode in (True, False) for pack in (x, even, x, moved, x, turned)]
    """,
)
def lengths_of_this_call(trial: Trial) -> None:
    case, module = trial.case, trial.module()
    lengths = case.lengths or ()
    steps = sum(lengths) // case.batch
    others = [replace(case, steps=steps, lengths=(steps,) * case.batch)]
    if not case.enforce_sorted:
        others.append(replace(case, lengths=lengths[::-1]))
    shortest, second = np.argsort(lengths, stable=True)[[0, -2]].tolist()
    if lengths[second] - lengths[shortest] > 1:
        moved = {second: lengths[second] - 1, shortest: lengths[shortest] + 1}
        others.append(replace(case, lengths=tuple(moved.get(item, length) for item, length in enumerate(lengths))))
    for train in (True, False):
        module.train(train)
        for one in (case, *others, case):
            with torch.set_grad_enabled(train), where(f"{one.lengths} in turn with others, with train({train})"):
                reply = trial.call(module, *trial.form(trial.leaves(case=one), one), one)
                trial.agree(reply.arrays(), answer(one))

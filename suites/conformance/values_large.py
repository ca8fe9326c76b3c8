"""Values at large sizes: deep stacks, wide layers, large batches and long sequences, alone and several at once."""

from __future__ import annotations

from dataclasses import replace

from harness import oracle
from harness.layer import Mode
from harness.reference import Expected, altered, answer, gradients
from harness.reproduction import BACKWARD
from harness.tolerance import floor_of
from harness.trial import Trial
from suites.conformance.cases import GRU, LSTM, RNN_RELU, RNN_TANH, every, make, several_large, stacks
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.values import agrees


@contract(
    "values.stacks",
    "Deep stacks, wide upper layers and large packed batches are right.",
    MUST,
    "torch.nn.LSTM: num_layers; mxnet#17898, pytorch#90421",
    [case for mode in Mode for case in stacks(mode)],
)
def stacks_(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.several_large",
    "Values and gradients are right where steps, sequences and units are many at once, in two directions, packed or with the batch first.",
    MUST,
    "torch.nn.LSTM: Shape; kernels take tiles of steps, sequences and units, and what is left over of each",
    [case for mode in Mode for case in several_large(mode)],
    demonstration=BACKWARD,
)
def several_large_(trial: Trial) -> None:
    agrees(trial)
    trial.agree(trial.gradients(("output",)), gradients(trial.case, ("output",)))


@contract(
    "values.long_sequence",
    "A sequence of thousands of steps is right to its end: nothing is forgotten, cut off or restarted on the way.",
    MUST,
    "torch.nn.LSTM: Inputs; chunked kernels restart where a chunk begins",
    [
        # Chunks of upper layers, of projections, of layers without biases and of transposed data.
        *every(input_size=2, hidden_size=3, steps=130, batch=2, num_layers=2, batch_first=True, weights="remembering"),
        *every(RNN_TANH, GRU, LSTM, input_size=2, hidden_size=3, steps=130, batch=2, num_layers=2, bias=False),
        make(LSTM, 2, 5, steps=130, batch=2, num_layers=2, proj_size=3, weights="remembering"),
        *every(input_size=2, hidden_size=3, steps=130, batch=2, lengths=(70, 130), num_layers=2, bidirectional=True, weights="remembering"),
        # Widths for which kernels keep their weights where they are from step to step.
        *every(input_size=32, hidden_size=64, steps=260, batch=2),
        *(case for dtype in ("float16", "bfloat16") for case in every(hidden_size=3, steps=520, batch=2, dtype=dtype, seed=15)),
        # Of an upper layer that remembers, h alone says next to nothing of what its gates read.
        *every(input_size=2, hidden_size=3, steps=520, batch=1, num_layers=2, weights="steady"),
        *every(steps=1030, hidden_size=3, batch=2, weights="remembering", bidirectional=True),
        *every(input_size=2, hidden_size=3, steps=2049, batch=2, batch_first=True, weights="remembering"),
        make(LSTM, 2, 2, steps=4100, batch=1, weights="remembering", bidirectional=True),
    ],
)
def long_sequence(trial: Trial) -> None:
    agrees(trial)


@contract(
    "values.beyond_1024_units",
    "More units than a block of threads has, 1024, are all computed, and get their gradients.",
    MUST,
    "torch.nn.LSTM: hidden_size; CUDA: at most 1024 threads in a block",
    [
        *every(RNN_RELU, LSTM, input_size=2, hidden_size=1027, steps=2, batch=2),
        *every(RNN_TANH, GRU, input_size=2, hidden_size=1027, bidirectional=True, steps=2, batch=2),
    ],
    demonstration=BACKWARD,
)
def beyond_1024_units(trial: Trial) -> None:
    case, module = trial.case, trial.module()
    trial.agree(trial.answer(module).arrays(), answer(case))
    cotangents = {"output": case.arrays.cotangents["output"]}
    right = oracle.backward(case.layer, case.arrays.weights, oracle.evaluate(case), case.valid, cotangents)
    # Plain loops take a second to go back at this size: the least that the floor of so long a sum can be is taken for it.
    floor = floor_of([0.0], case.dtype, len(case.layer.mode.gates) * case.layer.hidden_size)
    trial.agree(trial.gradients(("output",), module), Expected(right, dict.fromkeys(right, floor)))


@contract(
    "values.beyond_65535_sequences",
    "More sequences than a grid has blocks in its second axis, 65,535, are all computed.",
    SHOULD,
    "torch.nn.LSTM: Shape; CUDA: at most 65,535 blocks in y and z",
    every(input_size=1, hidden_size=2, steps=2, batch=65_539),
)
def beyond_65535_sequences(trial: Trial) -> None:
    trial.agree(trial.answer().arrays(), answer(trial.case))


#: Where counters of 16 bits end, with what is needed on either side to see it; with a sign they end at half of it.
_BEYOND = 65_536 + 600
#: Steps after which the quarter-sized weights have forgotten the state that they began with, and those that are then compared.
_FORGOTTEN, _SEEN = 300, 100


@contract(
    "values.beyond_65535_steps",
    "A sequence of more than 65,535 steps is right at its beginning, around the steps 32,768 and 65,536, and at its end.",
    SHOULD,
    "torch.nn.LSTM: Inputs; pytorch#133751, jax#17966, chainer#7545: grid dimensions and counters of 16 bits",
    every(input_size=1, hidden_size=2, steps=_BEYOND, batch=2),
    # As many steps as hundreds of other checks have: a loop over somebody's cell takes 0.1 to 0.3 ms of processor time for each.
    time_limit_factor=4,
)
def beyond_65535_steps(trial: Trial) -> None:
    case, length = trial.case, _FORGOTTEN + _SEEN
    window, x = replace(case, steps=length), case.arrays.x
    # Small weights forget within a window, so that each window can be worked out alone and not from the first step on.
    weights = {name: value / 4 for name, value in case.arrays.weights.items()}
    found = trial.answer(trial.module(weights=weights)).arrays()
    for start in (0, *(end - _FORGOTTEN - _SEEN // 2 for end in (32_768, 65_536)), case.steps - length):
        seen = slice(_FORGOTTEN if start else 0, length)
        expected = altered(window, weights=weights, inputs={**case.arrays.inputs(), "x": x[start : start + length]})
        right = replace(expected, tensors={**expected.tensors, "output": expected.tensors["output"][seen]})
        steps = {**found, "output": found["output"][start : start + length][seen]}
        trial.agree(steps, right, only=["output"] if start + length < case.steps else list(right.tensors))

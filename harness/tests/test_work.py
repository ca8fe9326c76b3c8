"""The work of a workload, against counts by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.layer import Layer, Mode
from harness.work import Work, forward_flops, work

#: weight_ih (16, 3), weight_hh (16, 4), two biases (16): 112 in matrices, 144 in all.
LSTM = Layer(Mode.LSTM, 3, 4)
#: First layer, each direction: weight_ih (16, 3), weight_hh (16, 2), weight_hr (2, 4), two biases: 88 in matrices; second: weight_ih
#: (16, 4), so 104. 384 in matrices, 512 in all.
PROJECTED = Layer(Mode.LSTM, 3, 4, num_layers=2, bidirectional=True, proj_size=2)
#: weight_ih (12, 3), weight_hh (12, 4), no biases: 84.
GRU = Layer(Mode.GRU, 3, 4, bias=False)

FORWARD, BACKWARD, TRAINING = ({"forward": f, "backward": b} for f, b in ((True, False), (False, True), (True, True)))


def test_the_work_of_an_lstm_is_that_counted_by_hand() -> None:
    # T = 5, B = 2: x 30, h_0 and c_0 8 each, output 40. A step of one sequence: 2 * 4 gates * 4 * (3 + 4) = 224 operations.
    forward = 4 * (144 + 30 + 16 + 40 + 16)
    backward = 4 * (112 + 30 + 16 + 40 + 144 + 30)
    assert work(LSTM, 5, 2, "float32", **FORWARD) == Work(2240, forward, forward) == Work(2240, 984, 984)
    assert work(LSTM, 5, 2, "float32", **BACKWARD) == Work(4480, backward, backward) == Work(4480, 1488, 1488)
    # Two calls, one after the other: each reads its weights, and a cache need hold only the larger.
    assert work(LSTM, 5, 2, "float32", **TRAINING) == Work(6720, 984 + 1488, 1488)


def test_the_work_of_two_bidirectional_projected_layers_is_that_counted_by_hand() -> None:
    # T = 4, B = 2: x 24, h_0 4 * 2 * 2 = 16, c_0 4 * 2 * 4 = 32, output 4 * 2 * 4 = 32; what the first layer tells the second is free.
    first, second = 2 * 4 * 4 * (3 + 2) + 2 * 4 * 2, 2 * 4 * 4 * (4 + 2) + 2 * 4 * 2
    assert 8 * 2 * (first + second) == 6144
    forward, backward = 2 * (512 + 24 + 48 + 32 + 48), 2 * (384 + 24 + 48 + 32 + 512 + 24)
    assert work(PROJECTED, 4, 2, "bfloat16", **FORWARD) == Work(6144, forward, forward) == Work(6144, 1328, 1328)
    assert work(PROJECTED, 4, 2, "float16", **BACKWARD) == Work(12288, backward, backward) == Work(12288, 2048, 2048)


def test_the_work_of_a_gru_is_that_counted_by_hand() -> None:
    # T = 3, B = 1: x 9, h_0 4 and no c_0, output 12. A step: 2 * 3 gates * 4 * (3 + 4) = 168 operations.
    assert work(GRU, 3, 1, "float64", **FORWARD) == Work(504, 8 * (84 + 9 + 4 + 12 + 4), 904)
    assert work(GRU, 3, 1, "float64", **BACKWARD) == Work(1008, 8 * (84 + 9 + 4 + 12 + 84 + 9), 1616)


def test_a_stream_reads_its_weights_for_every_step() -> None:
    # One step, B = 2: weights 144, x 6, states 16 in and out, output 8.
    step = 4 * (144 + 6 + 16 + 8 + 16)
    assert work(LSTM, 1, 2, "float32", **FORWARD, calls=5) == Work(2240, 5 * step, step) == Work(2240, 3800, 760)
    whole = work(LSTM, 5, 2, "float32", **FORWARD)
    assert whole.flops == 2240 and whole.bytes < 3800


def test_going_back_over_one_step_reads_no_recurrent_matrix() -> None:
    # weight_ih alone: 48 of the 112. The projection is needed all the same: 2 * 8 + 48 + 48 and 64 + 64 of the matrices.
    assert work(LSTM, 1, 2, "float32", **BACKWARD).bytes == 4 * (48 + 6 + 16 + 8 + 144 + 6)
    assert work(PROJECTED, 1, 1, "float32", **BACKWARD).bytes == 4 * (2 * (48 + 8 + 64 + 8) + 3 + 24 + 4 + 512 + 3)


@pytest.mark.parametrize("mode", Mode)
def test_the_gates_scale_the_operations(mode: Mode) -> None:
    assert forward_flops(replace(LSTM, mode=mode), 10) == {"gru": 3, "lstm": 4}.get(mode.value, 1) * 560


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "Expected steps of at least 1 but got steps=0"),
        ({"batch": -1}, "Expected batch of at least 1 but got batch=-1"),
        ({"calls": 0}, "Expected calls of at least 1 but got calls=0"),
        ({"dtype": "int8"}, "Expected dtype to be one of float64, float32, bfloat16, float16 but got dtype='int8'"),
        ({"forward": False}, "Expected work with a forward or a backward pass but got forward=False, backward=False"),
    ],
    ids=["steps", "batch", "calls", "dtype", "no-pass"],
)
def test_work_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        work(**{"layer": LSTM, "steps": 2, "batch": 2, "dtype": "float32", "forward": True, "backward": False, **changed})

"""What an implementation declares is either possible or refused when it is declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from harness.case import Case
from harness.implementation import Capabilities
from harness.layer import Layer, Mode
from harness.tests.samples import implementation

MODES = "rnn_tanh, rnn_relu, gru, lstm"
DTYPES = "float64, float32, bfloat16, float16"


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"modes": frozenset({"LSTM"})}, rf"modes to be a set of at least one of {MODES} but got modes=frozenset\({{'LSTM'}}\)"),
        ({"modes": frozenset()}, rf"modes to be a set of at least one of {MODES} but got modes=frozenset\(\)"),
        ({"modes": "lstm"}, f"modes to be a set of at least one of {MODES} but got modes='lstm'"),
        ({"dtypes": frozenset({"float32", "half"})}, f"dtypes to be a set of at least one of {DTYPES} but got dtypes="),
        ({"dtypes": frozenset()}, "dtypes to be a set of at least one of"),
    ],
)
def test_a_mode_or_a_dtype_that_there_is_not_is_refused_with_those_that_there_are(declared: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^Expected {expected}"):
        Capabilities(**declared)


def test_a_mode_may_be_declared_by_its_name() -> None:
    declared: Any = frozenset({"lstm"})
    assert Capabilities(modes=declared).lacks(Case(Layer(Mode.LSTM, 3, 4))) is None


def test_one_that_raises_when_it_is_asked_whether_it_can_run_is_unavailable_for_that_reason() -> None:
    def ask(device: str) -> str | None:
        raise OSError(f"no driver for {device}")

    unaskable = implementation(nn.GRU, unavailable=ask)
    for one in (unaskable, replace(unaskable, id="sample:again")):
        assert one.unavailable("cpu") == "asked whether it can run on cpu, it raised OSError: no driver for cpu"
    assert replace(unaskable) == unaskable and implementation(nn.GRU).unavailable("cpu") is None

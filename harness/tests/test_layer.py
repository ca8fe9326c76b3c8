"""Layer says what torch's constructors say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from harness.layer import Layer, Mode

GRID = [
    Layer(mode, 3, 5, num_layers=layers, bias=bias, bidirectional=bidirectional, proj_size=proj, batch_first=batch_first)
    for mode, layers, bias, bidirectional, proj, batch_first in itertools.product(
        Mode, (1, 3), (True, False), (True, False), (0, 2), (True, False)
    )
    if mode is Mode.LSTM or not proj
]


def _torch_layer(layer: Layer) -> Any:
    return getattr(nn, layer.mode.class_name)(layer.input_size, layer.hidden_size, **layer.options())


def test_parameters_have_the_names_shapes_and_order_of_torch() -> None:
    assert len(GRID) == 80
    for layer in GRID:
        theirs = [(name, tuple(value.shape)) for name, value in _torch_layer(layer).state_dict().items()]
        assert list(layer.parameter_shapes().items()) == theirs, layer


def test_outputs_and_states_have_the_shapes_of_torch() -> None:
    for layer in GRID:
        x = torch.zeros((2, 4, 3) if layer.batch_first else (4, 2, 3), dtype=torch.float64)
        output, state = _torch_layer(layer).double()(x)
        h_n, *c_n = state if layer.has_cell_state else (state,)
        assert output.shape[2] == layer.output_size, layer
        assert tuple(h_n.shape) == layer.h_shape(2), layer
        assert [tuple(c.shape) for c in c_n] == ([layer.c_shape(2)] if layer.has_cell_state else []), layer


def test_slots_come_in_the_order_of_stacked_states() -> None:
    slots = list(Layer(Mode.GRU, 1, 1, num_layers=2, bidirectional=True).slots())
    assert slots == [(0, 0, 0, "_l0"), (1, 0, 1, "_l0_reverse"), (2, 1, 0, "_l1"), (3, 1, 1, "_l1_reverse")]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input_size": 0}, "input_size=0"),
        ({"hidden_size": -1}, "hidden_size=-1"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"proj_size": 5}, "proj_size=5"),
        ({"proj_size": -1}, "proj_size=-1"),
        ({"mode": Mode.GRU, "proj_size": 2}, "proj_size=2 for mode=gru"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"dropout": float("nan")}, "dropout=nan"),
    ],
)
def test_refuses_an_option_and_names_its_value(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Layer(**{"mode": Mode.LSTM, "input_size": 3, "hidden_size": 5, **options})


def test_passes_only_options_that_differ_from_the_defaults() -> None:
    assert Layer(Mode.LSTM, 3, 5).options() == {}
    assert Layer(Mode.RNN_TANH, 3, 5).options() == {}
    assert Layer(Mode.RNN_RELU, 3, 5, bias=False).options() == {"bias": False, "nonlinearity": "relu"}


def test_expression_is_the_constructor_call() -> None:
    for layer in GRID:
        rebuilt = eval(layer.expression(), {name: getattr(nn, name) for name in ("RNN", "GRU", "LSTM")})
        assert repr(rebuilt) == repr(_torch_layer(layer))

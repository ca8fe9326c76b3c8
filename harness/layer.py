"""What the constructor of ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` says, and the shapes that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """The four recurrences that torch's three classes offer."""

    RNN_TANH = "rnn_tanh"
    RNN_RELU = "rnn_relu"
    GRU = "gru"
    LSTM = "lstm"

    @property
    def class_name(self) -> str:
        """The class in ``torch.nn`` that offers this mode."""
        return {"gru": "GRU", "lstm": "LSTM"}.get(self.value, "RNN")

    @property
    def gates(self) -> tuple[str, ...]:
        """The row blocks of ``weight_ih`` and ``weight_hh``, in torch's order (torch.nn.LSTM, torch.nn.GRU: Variables)."""
        return {"gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}.get(self.value, ("h",))


@dataclass(frozen=True)
class Layer:
    """The options of one recurrent layer; every shape a drop-in owes is derived here.

    Symbols, as in torch's documentation: L ``num_layers``, D directions, I ``input_size``, H ``hidden_size``,
    P ``proj_size``, H_out = P if P > 0 else H, G gates.
    """

    mode: Mode
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1 but got {name}={getattr(self, name)}")
        if self.proj_size and self.mode is not Mode.LSTM:
            raise ValueError(f"Expected proj_size=0 (only an LSTM projects) but got proj_size={self.proj_size} for mode={self.mode}")
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(f"Expected 0 <= proj_size < hidden_size={self.hidden_size} but got proj_size={self.proj_size}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"Expected dropout in [0, 1] but got dropout={self.dropout}")

    @property
    def directions(self) -> int:
        """D: 2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """H_out, the width of h in one direction: P where the layer projects, else H."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        """The width of the output: D * H_out."""
        return self.directions * self.state_size

    @property
    def has_cell_state(self) -> bool:
        """Whether the state is the pair (h, c): only for an LSTM."""
        return self.mode is Mode.LSTM

    def slots(self) -> Iterator[tuple[int, int, int, str]]:
        """Every (index into the state, layer, direction, name suffix), in the order in which torch stacks states."""
        for layer in range(self.num_layers):
            for direction in range(self.directions):
                yield layer * self.directions + direction, layer, direction, f"_l{layer}" + ("_reverse" if direction else "")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in the order of ``nn.LSTM(...).state_dict()`` (torch.nn.LSTM: Variables)."""
        rows = len(self.mode.gates) * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for _, layer, _, suffix in self.slots():
            shapes[f"weight_ih{suffix}"] = (rows, self.input_size if layer == 0 else self.output_size)
            shapes[f"weight_hh{suffix}"] = (rows, self.state_size)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = (rows,)
                shapes[f"bias_hh{suffix}"] = (rows,)
            if self.proj_size:
                shapes[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return shapes

    def h_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape (L*D, B, H_out) of h_0 and h_n."""
        return (self.num_layers * self.directions, batch, self.state_size)

    def c_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape (L*D, B, H) of c_0 and c_n; c is never projected."""
        return (self.num_layers * self.directions, batch, self.hidden_size)

    def options(self) -> dict[str, Any]:
        """The keyword arguments that differ from the constructor's defaults, for ``Class(input_size, hidden_size, **options)``.

        Only what differs is passed, so that a class is never refused for an option that the case does not use.
        """
        given: dict[str, Any] = {
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "proj_size": self.proj_size,
        }
        defaults = {name: field.default for name, field in self.__dataclass_fields__.items()}
        options = {name: value for name, value in given.items() if value != defaults[name]}
        if self.mode is Mode.RNN_RELU:
            options["nonlinearity"] = "relu"
        return options

    def expression(self) -> str:
        """The constructor call as source text, for messages and reproductions: ``LSTM(3, 5, num_layers=2)``."""
        options = "".join(f", {name}={value!r}" for name, value in self.options().items())
        return f"{self.mode.class_name}({self.input_size}, {self.hidden_size}{options})"

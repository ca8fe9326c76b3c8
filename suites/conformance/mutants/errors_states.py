"""States that are no pair, or of another dtype, accepted; and what else is converted on one path alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, mutant


@mutant("errors.state_form", Mode.RNN_TANH, Mode.RNN_RELU, Mode.GRU)
class TupleOfOneState(Sound):
    """A tuple of one state is taken for the state."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, hx[0] if isinstance(hx, tuple) and len(hx) == 1 else hx)


@mutant("errors.state_form", Mode.LSTM)
class ThirdStatePassedOver(Sound):
    """What follows the pair of states is passed over."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, hx[:2] if isinstance(hx, (tuple, list)) else hx)


@mutant("errors.state_form", Mode.LSTM)
class CellStateOfNoneIsZero(Sound):
    """(h_0, None) is accepted, c_0 taken to be zero."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, tuple) and len(hx) == 2 and hx[1] is None:
            hx = (hx[0], hx[0].new_zeros(*hx[0].shape[:-1], self.hidden_size))
        return super().forward(input, hx)


def _converted(hx: Any, dtype: torch.dtype) -> Any:
    """The states in ``dtype``."""
    return tuple(state.to(dtype) for state in hx) if isinstance(hx, tuple) else hx.to(dtype)


@mutant("errors.dtype")
class OtherHalfTypeConverted(Sound):
    """In a layer of one half type a state of the other is converted."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        half = (torch.float16, torch.bfloat16)
        given = hx if isinstance(hx, tuple) else (hx,)
        if isinstance(input, Tensor) and input.dtype in half and all(isinstance(s, Tensor) and s.dtype in half for s in given):
            hx = _converted(hx, input.dtype)
        return super().forward(input, hx)


@mutant("errors.dtype")
class StateOfAPackConverted(Sound):
    """With a packed input the state is converted to its dtype."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, _converted(hx, input.data.dtype) if isinstance(input, PackedSequence) and hx is not None else hx)


@mutant("errors.dtype")
class UnbatchedInputConverted(Sound):
    """An unbatched input is converted to the parameters' dtype."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        unbatched = isinstance(input, Tensor) and input.dim() == 2
        return super().forward(input.to(self.get_parameter("weight_hh_l0").dtype) if unbatched else input, hx)


@mutant("errors.state_form", Mode.LSTM)
class CellStateOfOneSequence(Sound):
    """Beside an input without a batch axis c_0 may have one, where h_0 has none."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 2 and isinstance(hx, tuple) and len(hx) == 2 and isinstance(hx[1], Tensor):
            h_0, c_0 = hx
            hx = (h_0, c_0[:, 0] if c_0.dim() == 3 and c_0.shape[1] == 1 and h_0.dim() == 2 else c_0)
        return super().forward(input, hx)


@mutant("errors.state_shape", Mode.LSTM)
class SurplusSequencesOfBothStatesCut(Sound):
    """With a packed input, both states of more sequences than there are lose what is too much."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and isinstance(hx, tuple) and hx[0].dim() == 3 and hx[0].shape[1] == hx[1].shape[1]:
            hx = tuple(state[:, : int(input.batch_sizes[0])] for state in hx)
        return super().forward(input, hx)


@mutant("errors.state_shape", Mode.LSTM)
class BothStatesOfOneSequenceBroadcast(Sound):
    """Both states of one sequence are taken for all of them."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        pair = isinstance(input, Tensor) and input.dim() == 3 and isinstance(hx, tuple) and len(hx) == 2
        if pair and all(isinstance(state, Tensor) and state.dim() == 3 and state.shape[1] == 1 for state in hx):
            batch = input.shape[0 if self.batch_first else 1]
            hx = tuple(state.expand(-1, batch, -1) for state in hx)
        return super().forward(input, hx)


@mutant("errors.state_form")
class StateOfOneSequenceWithoutItsAxis(Sound):
    """Where there is one sequence, batched, a 2-D state is accepted."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        single = isinstance(input, Tensor) and input.dim() == 3 and input.shape[0 if self.batch_first else 1] == 1
        given = hx if isinstance(hx, tuple) else (hx,)
        if single and all(isinstance(state, Tensor) and state.dim() == 2 for state in given):
            hx = tuple(state[:, None] for state in given) if isinstance(hx, tuple) else hx[:, None]
        return super().forward(input, hx)


@mutant("errors.input_shape")
class LastAxisOfOneDropped(Sound):
    """A 4-D input of which the last axis is one is taken for a 3-D one."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        surplus = isinstance(input, Tensor) and input.dim() == 4 and input.shape[3] == 1
        return super().forward(input[..., 0] if surplus else input, hx)

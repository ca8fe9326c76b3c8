"""What does not fit, accepted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, mutant


@mutant("errors.input_shape")
class OneFeatureBroadcast(Sound):
    """A single input feature is repeated."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.shape[-1] == 1:
            input = input.expand(*input.shape[:-1], self.layer.input_size)
        return super().forward(input, hx)


@mutant("errors.input_shape")
class ExtraFeaturesCutOff(Sound):
    """Surplus input features are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input[..., : self.layer.input_size] if isinstance(input, Tensor) else input, hx)


@mutant("errors.input_shape")
class FourDimensionsFlattened(Sound):
    """A 4-D input is flattened to 3-D."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input.flatten(0, -3) if isinstance(input, Tensor) and input.dim() == 4 else input, hx)


@mutant("errors.input_shape")
class ExtraFeaturesCutOffInEval(Sound):
    """In eval mode, where nothing is checked any more, surplus input features are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        loose = isinstance(input, Tensor) and not self.training
        return super().forward(input[..., : self.layer.input_size] if loose else input, hx)


@mutant("errors.input_shape")
class ExtraUnbatchedFeaturesCutOff(Sound):
    """Surplus features of an unbatched input are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        loose = isinstance(input, Tensor) and input.dim() == 2
        return super().forward(input[:, : self.layer.input_size] if loose else input, hx)


@mutant("errors.state_shape")
class StateBroadcastOverBatch(Sound):
    """A state of one batch item serves all."""

    def refuse_state(self, hx: Any, data: Tensor, batch: int, batched: bool) -> None:
        states = tuple(hx) if isinstance(hx, tuple) else (hx,)
        if batched and all(isinstance(s, Tensor) and s.dim() == 3 and s.shape[1] == 1 for s in states):
            batch = 1
        super().refuse_state(hx, data, batch, batched)

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [state.expand(-1, x.shape[1], -1) for state in super().initial(x, hx, form)]


@mutant("errors.state_shape")
class StateBroadcastInTraining(StateBroadcastOverBatch):
    """With gradients a state of one batch item serves all."""

    def refuse_state(self, hx: Any, data: Tensor, batch: int, batched: bool) -> None:
        if torch.is_grad_enabled():
            super().refuse_state(hx, data, batch, batched)
        else:
            Sound.refuse_state(self, hx, data, batch, batched)


@mutant("errors.state_shape", Mode.LSTM)
class CellStateNotChecked(Sound):
    """c_0 is cut or repeated to size instead of checked."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, tuple) and len(hx) == 2 and hx[0].dim() == hx[1].dim():
            shape = (*hx[0].shape[:-1], self.layer.hidden_size)
            c = hx[1].new_zeros(shape)
            kept = tuple(slice(min(a, b)) for a, b in zip(shape, hx[1].shape, strict=True))
            c[kept] = hx[1][kept]
            hx = (hx[0], c)
        return super().forward(input, hx)


@mutant("errors.state_shape")
class SurplusLayersIgnored(Sound):
    """States of layers that do not exist are ignored."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        count = self.layer.num_layers * self.layer.directions
        if isinstance(hx, tuple):
            hx = tuple(state[:count] for state in hx)
        elif hx is not None:
            hx = hx[:count]
        return super().forward(input, hx)


@mutant("errors.state_form")
class FlatStateUnsqueezed(Sound):
    """A 2-D state for a batched input serves all batch items."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 3 and hx is not None:
            batch = input.shape[0 if self.layer.batch_first else 1]
            states = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
            widened = tuple(s[:, None].expand(-1, batch, -1) if s.dim() == 2 else s for s in states)
            hx = widened if isinstance(hx, (tuple, list)) else widened[0]
        return super().forward(input, hx)


@mutant("errors.state_form", Mode.LSTM)
class MissingCellStateIsZero(Sound):
    """h_0 alone is accepted, c_0 taken to be zero."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, Tensor):
            hx = (hx, hx.new_zeros(*hx.shape[:-1], self.layer.hidden_size))
        return super().forward(input, hx)


@mutant("errors.dtype")
class InputConvertedInSilence(Sound):
    """Input and state are converted to the parameters' dtype."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        dtype = next(self.parameters()).dtype
        if isinstance(input, (Tensor, PackedSequence)):
            input = input.to(dtype=dtype)
        return super().forward(input, hx)


@mutant("errors.dtype")
class HalfLayerConvertsItsInput(Sound):
    """A layer in a half type converts an input of float32."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        dtype = next(self.parameters()).dtype
        if isinstance(input, Tensor) and input.dtype == torch.float32 and dtype in (torch.float16, torch.bfloat16):
            input = input.to(dtype)
        return super().forward(input, hx)


@mutant("errors.dtype")
class StateConvertedInSilence(Sound):
    """The state is converted to the input's dtype."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and hx is not None:
            hx = tuple(s.to(input.dtype) for s in hx) if isinstance(hx, tuple) else hx.to(input.dtype)
        return super().forward(input, hx)


@mutant("errors.device")
class MetaInputAnswered(Sound):
    """An input without data gives an answer without data."""

    def refuse(self, input: Any, hx: Any) -> None:
        data = input.data if isinstance(input, PackedSequence) else input
        if data.device.type != "meta":
            super().refuse(input, hx)

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.device.type == "meta":
            return torch.zeros(*input.shape[:-1], self.layer.output_size, device="meta"), hx
        return super().forward(input, hx)


@mutant("errors.packed_input")
class PackedFeaturesCutOff(Sound):
    """Surplus features of packed data are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            input = input._replace(data=input.data[:, : self.layer.input_size])
        return super().forward(input, hx)


@mutant("errors.packed_input")
class PackedDataConverted(Sound):
    """Packed data is converted to the parameters' dtype."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            input = input.to(dtype=next(self.parameters()).dtype)
        return super().forward(input, hx)


@mutant("errors.state_form")
class FlatStateOfOneSlotAccepted(Sound):
    """With one layer and one direction a state without its first axis is taken as it is."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        given = hx if isinstance(hx, tuple) else (hx,)
        flat = all(isinstance(s, Tensor) and s.dim() == 2 for s in given) and isinstance(input, Tensor) and input.dim() == 3
        if flat and self.layer.num_layers * self.layer.directions == 1:
            hx = tuple(s[None] for s in given) if isinstance(hx, tuple) else hx[None]
        return super().forward(input, hx)


@mutant("errors.state_shape")
class SurplusSequencesOfAPackCutOff(Sound):
    """With a packed input, states of sequences that there are not are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and hx is not None:
            count = int(input.batch_sizes[0])
            hx = tuple(state[:, :count] for state in hx) if isinstance(hx, tuple) else hx[:, :count]
        return super().forward(input, hx)


@mutant("errors.state_form")
class FlatStateOfAPackAccepted(Sound):
    """With a packed input and one layer, a state without its first axis is taken as it is."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        given = hx if isinstance(hx, tuple) else (hx,)
        if isinstance(input, PackedSequence) and all(isinstance(state, Tensor) and state.dim() == 2 for state in given):
            hx = tuple(state[None] for state in given) if isinstance(hx, tuple) else hx[None]
        return super().forward(input, hx)


@mutant("errors.state_form")
class BatchFirstStatesAccepted(Sound):
    """With batch_first a state (B, L, H) is turned round."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        given, slots = hx if isinstance(hx, tuple) else (hx,), self.layer.num_layers * self.layer.directions
        turned = self.layer.batch_first and all(isinstance(s, Tensor) and s.dim() == 3 and s.shape[0] != slots for s in given)
        if turned:
            hx = tuple(state.transpose(0, 1) for state in given) if isinstance(hx, tuple) else hx.transpose(0, 1)
        return super().forward(input, hx)


@mutant("errors.dtype")
class NarrowInputWidened(Sound):
    """An input of bfloat16 or of bytes is converted in silence."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dtype in (torch.bfloat16, torch.uint8):
            input = input.to(next(self.parameters()).dtype)
        return super().forward(input, hx)


@mutant("errors.state_form", Mode.LSTM)
class LoneHiddenStateInATuple(Sound):
    """A tuple of h_0 alone is accepted, c_0 taken to be zero."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, tuple) and len(hx) == 1:
            hx = (hx[0], hx[0].new_zeros(*hx[0].shape[:-1], self.hidden_size))
        return super().forward(input, hx)


@mutant("errors.state_form")
class UnbatchedStateWithoutLayers(Sound):
    """A 1-D state of an unbatched input is taken for that of the only layer."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 2 and hx is not None:
            states = [state[None] if state.dim() == 1 else state for state in (hx if isinstance(hx, tuple) else (hx,))]
            hx = tuple(states) if isinstance(hx, tuple) else states[0]
        return super().forward(input, hx)


@mutant("errors.state_form")
class InputTurnedToFitTheState(Sound):
    """Where a state has as many items as there are steps, the input is taken to have its batch first."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        state = hx[0] if isinstance(hx, tuple) else hx
        if isinstance(input, Tensor) and isinstance(state, Tensor) and input.dim() == state.dim() == 3 and not self.batch_first:
            steps, batch, _ = input.shape
            if state.shape[1] == steps != batch:
                output, final = super().forward(input.transpose(0, 1), hx)
                return output.transpose(0, 1), final
        return super().forward(input, hx)


@mutant("errors.packed_input")
class PackedIntegersConverted(Sound):
    """Packed integers are converted without a word."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and not input.data.is_floating_point():
            input = input._replace(data=input.data.to(self.get_parameter("weight_hh_l0").dtype))
        return super().forward(input, hx)


@mutant("errors.input_shape")
class FeaturesBeforeSequences(Sound):
    """An input whose last two axes are exchanged is turned round."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() in (2, 3) and input.shape[-1] != self.input_size == input.shape[-2]:
            input = input.mT
        return super().forward(input, hx)


@mutant("errors.state_shape")
class OneStateForAPack(Sound):
    """Of a packed input one state is taken for all sequences."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and hx is not None:
            batch = int(input.batch_sizes[0])
            states = [state.expand(-1, batch, -1) if state.shape[1] == 1 else state for state in (hx if isinstance(hx, tuple) else (hx,))]
            hx = tuple(states) if isinstance(hx, tuple) else states[0]
        return super().forward(input, hx)


@mutant("errors.state_shape", Mode.GRU, Mode.RNN_TANH, Mode.RNN_RELU)
class SurplusLayersOfAPackCutOff(Sound):
    """With a packed input, states of layers that there are not are left out."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) and hx is not None:
            count = self.layer.num_layers * self.layer.directions
            hx = tuple(state[:count] for state in hx) if isinstance(hx, tuple) else hx[:count]
        return super().forward(input, hx)

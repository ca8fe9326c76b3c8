"""Right cells, wrong around them: outputs and states, stacks, directions, projections, long sequences and kinds of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Fused, Sound, Weights, mutant

_LSTM = Mode.LSTM


@mutant("values.output_sequence")
class OutputOneStepLate(Sound):
    """output[t] is h_(t-1)."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return torch.cat([output[:1], output[:-1]]), finals


@mutant("values.output_sequence")
class OutputOfTheFirstLayer(Sound):
    """The output is the first layer's."""

    _first: Tensor

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        _, finals = super().layers(x, valid, states)
        return self._first, finals

    def join(self, outputs: list[Tensor], level: int) -> Tensor:
        joined = super().join(outputs, level)
        if level == 0:
            self._first = joined
        return joined


@mutant("values.output_sequence")
class OutputRepeatedPastStep32(Sound):
    """From step 32 on, every output is that of step 31: a ring buffer too short."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return torch.cat([output[:32], output[31:32].expand_as(output[32:])]), finals


@mutant("values.c_n", _LSTM)
class CellStateIsHiddenState(Sound):
    """c_n holds h_n."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0], finals[0] if not self.layer.proj_size else finals[1].tanh()]


@mutant("values.c_n", _LSTM)
class CellStateSquashed(Sound):
    """c_n holds tanh(c)."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0], finals[1].tanh()]


@mutant("values.c_n", _LSTM)
class CellStateOfLastLayerForAll(Sound):
    """c_n repeats the last layer's cell state."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0], finals[1][-1:].expand_as(finals[1]).contiguous()]


@mutant("values.layers_stacked")
class UpperLayersShareWeights(Sound):
    """Every layer from the third on uses the second layer's weights."""

    def weights(self, slot: int) -> Weights:
        level, reverse = divmod(slot, self.layer.directions)
        return super().weights(min(level, 1) * self.layer.directions + reverse)


@mutant("values.layers_stacked")
class SkipConnection(Sound):
    """The third layer also gets the first one's output."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        if level == 1:
            self._below = given
        return given if level == 1 else given + self._below


@mutant("values.layers_stacked")
class ThirdLayerStartsFromSecond(Sound):
    """The third layer starts from the second's initial state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        level, reverse = divmod(slot, self.layer.directions)
        return super().state_of(states, min(level, 1) * self.layer.directions + reverse)


@mutant("values.layers_stacked")
class StreamedStackSharesAState(Sound):
    """A single step of a single sequence starts every layer from the first one's state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        return super().state_of(states, 0 if self._streamed else slot)

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self._streamed = x.shape[:2] == (1, 1)
        return super().layers(x, valid, states)


@mutant("values.reverse_direction")
class ReverseOutputNotFlipped(Sound):
    """The reverse outputs stand in running order."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h, c = super().direction(x, valid, h, c, slot, reverse)
        return (ys.flip(0) if reverse else ys), h, c


@mutant("values.reverse_direction")
class ReverseRunsForward(Sound):
    """Both directions read from the beginning."""

    def order(self, steps: int, reverse: bool) -> Sequence[int]:
        return range(steps)


@mutant("values.reverse_direction")
class ReverseUsesForwardRecurrentWeights(Sound):
    """The reverse direction uses the forward direction's W_hh."""

    def weights(self, slot: int) -> Weights:
        forward = slot - slot % self.layer.directions
        return {**super().weights(slot), "weight_hh": super().weights(forward)["weight_hh"]}


@mutant("values.reverse_direction")
class ReverseSkipsFirstOfOddLength(Sound):
    """In sequences of an odd length above 16 the reverse direction never reads x[0]."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if reverse and len(x) > 16 and len(x) % 2:
            x = torch.cat([0 * x[:1], x[1:]])
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("values.directions_joined")
class DirectionsAdded(Sound):
    """Above the first layer both halves of the input are the sum of the directions."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if self.layer.bidirectional:
            forward, reverse = x.chunk(2, 2)
            x = torch.cat([forward + reverse] * 2, 2)
        return super().between(x, level)


@mutant("values.directions_joined")
class ReverseBesideForward(Sound):
    """The next layer reads the reverse direction first."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(torch.cat(x.chunk(2, 2)[::-1], 2) if self.layer.bidirectional else x, level)


@mutant("values.directions_joined")
class DirectionsKeptApart(Sound):
    """In the third layer the reverse direction sees nothing of the forward one below."""

    def between(self, x: Tensor, level: int) -> Tensor:
        if self.layer.bidirectional and level == 2:
            forward, reverse = x.chunk(2, 2)
            x = torch.cat([0 * forward, reverse], 2)
        return super().between(x, level)


@mutant("values.projection", _LSTM)
class ProjectedOnlyAtTheEnd(Sound):
    """W_hr applied to the output, while an unprojected h, cut to P features, goes round."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if w["weight_hr"] is None or t == 0:
            return super().step(x, h, c, w, t, slot)
        m, c = super().step(x, h, c, {**w, "weight_hr": None}, t, slot)
        return m[:, : h.shape[1]], c


@mutant("values.projection", _LSTM)
class ProjectedBeforeOutputGate(Sound):
    """The first P features of tanh(c') gated after the projection."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, c = super().lstm(gates, c)
        return (c.tanh(), c) if self.layer.proj_size else (m, c)


@mutant("values.projection", _LSTM)
class ReverseProjectedByForward(Sound):
    """The reverse direction uses the forward direction's W_hr."""

    def weights(self, slot: int) -> Weights:
        forward = slot - slot % self.layer.directions
        return {**super().weights(slot), "weight_hr": super().weights(forward)["weight_hr"]}


@mutant("values.options_combined")
class WrongWithoutBiasBothWays(Sound):
    """Without biases and in both directions, the reverse one reads the forward input weights."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        if not self.layer.bias and slot % self.layer.directions:
            w["weight_ih"] = super().weights(slot - 1)["weight_ih"]
        return w


@mutant("values.options_combined")
class WrongBatchFirstInThreeLayers(Sound):
    """With batch_first and three layers, the second layer's time is reversed."""

    def between(self, x: Tensor, level: int) -> Tensor:
        return super().between(x.flip(0) if self.layer.batch_first and self.layer.num_layers == 3 and level == 1 else x, level)


@mutant("values.options_combined")
class StatesOfOneStepRolled(Sound):
    """With batch_first, a single step of three layers starts each from the state of the layer below."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rolled = len(x) == 1 and self.batch_first and self.num_layers == 3
        return super().layers(x, valid, [state.roll(1, 0) for state in states] if rolled else states)


@mutant("values.options_combined")
class Float64InFloat32(Sound):
    """float64 worked out in float32."""

    def direction(self, x: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
        ys, h, c = super().direction(x, *rest)  # type: ignore[arg-type]
        return ys.float().to(x.dtype), h.float().to(x.dtype), c.float().to(x.dtype)


@mutant("values.long_sequence")
class StateResetEvery256(Sound):
    """The state starts from zero again every 256 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t and t % 256 == 0 else h, c, w, t, slot)


@mutant("values.long_sequence")
class CutOffAfter2048(Sound):
    """Steps past the 2048th are not taken."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return (h, c) if t >= 2048 else super().step(x, h, c, w, t, slot)


@mutant("values.kinds_of_data")
class ZerosTakenForPadding(Sound):
    """A step of zeros leaves the state as it was."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(x, valid & (x != 0).any(2) if slot < self.layer.directions else valid, h, c, slot, reverse)


@mutant("values.kinds_of_data")
class ZerosAtTheEndTakenForPadding(Sound):
    """A sequence ends where the steps begin that are zero to its end."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if slot < self.layer.directions:
            valid = valid & (x != 0).any(2).flip(0).cummax(0).values.flip(0)
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("values.kinds_of_data")
class ZerosAtTheEndOfABatchTakenForPadding(Sound):
    """All sequences end where the steps begin that are zero in all of them, to the end."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if slot < self.layer.directions and x.any():
            valid = valid & (x != 0).flatten(1).any(1, keepdim=True).flip(0).cummax(0).values.flip(0)
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("values.kinds_of_data")
class WholeNumbersTakenForTokens(Sound):
    """An input of whole numbers is halved."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(0.5 * x if bool((x == x.round()).all()) else x, valid, states)


@mutant("values.beyond_65535_steps", Mode.LSTM)
class CounterOf16Bits(Fused):
    """Steps are counted in 16 bits: what comes after step 65,535 is the beginning again."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input[torch.arange(len(input)) % 65_536] if isinstance(input, Tensor) else input, hx)


@mutant("values.beyond_65535_steps", Mode.LSTM)
class BatchesEndAt32768(Fused):
    """Of several sequences the steps past the 32,768th are not read: their offsets are counted in 16 bits with a sign."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Tensor) and input.dim() == 3 and input.shape[1] > 1:
            input = torch.cat([input[:32_768], 0 * input[32_768:]])
        return super().forward(input, hx)


@mutant("values.beyond_65535_steps", Mode.LSTM)
class RestartsAt32768(Fused):
    """A sequence starts from zero again at step 32,768."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, Tensor) or input.dim() != 3 or len(input) <= 32_768:
            return super().forward(input, hx)
        before, states = super().forward(input[:32_768], hx)
        after, states = super().forward(input[32_768:], tuple(0 * state for state in states))
        return torch.cat([before, after]), states


@mutant("values.long_sequence")
class UpperReverseOfAPackRestartsAt64(Sound):
    """The reverse direction of an upper layer of a pack begins anew at step 64."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self.restarts = reverse and slot > 1 and len(x) > 64 and not bool(valid.all())
        return super().direction(x, valid, h, c, slot, reverse)

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        again = self.restarts and t == 63
        return super().step(x, 0 * h if again else h, 0 * c if again else c, w, t, slot)


@mutant("values.long_sequence")
class EvalRestartsAt256(Sound):
    """In eval mode a sequence is run in stretches of 256 steps, each from zeros."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h, 0 * c, w, t, slot) if t and t % 256 == 0 and not self.training else super().step(x, h, c, w, t, slot)


@mutant("values.long_sequence")
class ReverseRestartsAt512(Sound):
    """The reverse direction starts from zero again at step 512, counted from the beginning."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        restarts = t == 511 and self.layer.bidirectional and slot % 2
        return super().step(x, 0 * h, 0 * c, w, t, slot) if restarts else super().step(x, h, c, w, t, slot)


@mutant("values.kinds_of_data")
class ZerosGetNoGradient(Sound):
    """Where the input is zero its gradient is zero, as if that were padding."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return torch.where(x == 0, x.detach(), x), valid, form

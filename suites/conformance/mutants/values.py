"""Wrong cells, wrong stacks, wrong directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant

_LSTM, _GRU, _RELU, _TANH = Mode.LSTM, Mode.GRU, Mode.RNN_RELU, Mode.RNN_TANH


def _reordered(w: Weights, order: Sequence[int], names: Sequence[str] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")) -> Weights:
    """``w`` with the gate blocks of the named parameters in another order."""
    changed = dict(w)
    for name in names:
        value = w[name]
        if value is not None:
            blocks = value.chunk(len(order))
            changed[name] = torch.cat([blocks[i] for i in order])
    return changed


@mutant("values.lstm_cell", _LSTM)
class GatesInKerasOrder(Sound):
    """Gate rows read as i, f, o, g."""

    def weights(self, slot: int) -> Weights:
        return _reordered(super().weights(slot), (0, 1, 3, 2))


@mutant("values.lstm_cell", _LSTM)
class GatesInOnnxOrder(Sound):
    """Gate rows read as i, o, f, g."""

    def weights(self, slot: int) -> Weights:
        return _reordered(super().weights(slot), (0, 2, 3, 1))


@mutant("values.lstm_cell", _LSTM)
class InputAndForgetExchanged(Sound):
    """Gates i and f exchanged in the biases alone."""

    def weights(self, slot: int) -> Weights:
        return _reordered(super().weights(slot), (1, 0, 2, 3), ("bias_ih", "bias_hh"))


@mutant("values.lstm_cell", _LSTM)
class ForgetBiasPlusOne(Sound):
    """One added to the forget gate, as some libraries do."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        return super().lstm(torch.cat([i, f + 1, g, o], 1), c)


@mutant("values.lstm_cell", _LSTM)
class SigmoidCandidate(Sound):
    """A sigmoid for the candidate g."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.sigmoid()
        return o.sigmoid() * c.tanh(), c


@mutant("values.lstm_cell", _LSTM)
class OutputWithoutTanh(Sound):
    """h' = sigmoid(o) * c' without the tanh."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        _, c = super().lstm(gates, c)
        return gates.chunk(4, 1)[3].sigmoid() * c, c


@mutant("values.lstm_cell", _LSTM)
class HardSigmoid(Sound):
    """A piecewise linear sigmoid in every gate."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        hard = torch.nn.functional.hardsigmoid
        c = hard(f) * c + hard(i) * g.tanh()
        return hard(o) * c.tanh(), c


@mutant("values.lstm_cell", _LSTM)
class PeepholeOutput(Sound):
    """The output gate also sees c'."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        _, c = super().lstm(gates, c)
        return (gates.chunk(4, 1)[3] + 0.1 * c).sigmoid() * c.tanh(), c


@mutant("values.lstm_cell", _LSTM)
class LastUnitOfOddWidth(Sound):
    """With an odd hidden size above 16 the last unit is left as it was."""

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, new = super().lstm(gates, c)
        size = c.shape[1]
        if size > 16 and size % 2:
            new = torch.cat([new[:, :-1], c[:, -1:]], 1)
        return h, new


@mutant("values.gru_cell", _GRU)
class ResetBeforeProduct(Sound):
    """n = tanh(W_in x + b_in + W_hn (r * h) + b_hn): the variant of the first GRU paper, reset before the product."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        assert w["weight_ih"] is not None and w["weight_hh"] is not None
        x_r, x_z, x_n = linear(x, w["weight_ih"], w["bias_ih"]).chunk(3, 1)
        h_r, h_z, _ = linear(h, w["weight_hh"], w["bias_hh"]).chunk(3, 1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        bias = None if w["bias_hh"] is None else w["bias_hh"].chunk(3)[2]
        n = (x_n + linear(r * h, w["weight_hh"].chunk(3)[2], bias)).tanh()
        return (1 - z) * n + z * h, c


@mutant("values.gru_cell", _GRU)
class UpdateGateComplemented(Sound):
    """h' = z * n + (1 - z) * h."""

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        kept = super().gru(from_x, from_h, h)
        x_r, _, x_n = from_x.chunk(3, 1)
        h_r, _, h_n = from_h.chunk(3, 1)
        n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        return n + h - kept


@mutant("values.gru_cell", _GRU)
class ResetAndUpdateExchanged(Sound):
    """Gate rows read as z, r, n."""

    def weights(self, slot: int) -> Weights:
        return _reordered(super().weights(slot), (1, 0, 2))


@mutant("values.gru_cell", _GRU)
class HiddenBiasOutsideReset(Sound):
    """b_hn added outside the reset gate."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        assert w["weight_ih"] is not None and w["weight_hh"] is not None
        from_x = linear(x, w["weight_ih"], w["bias_ih"])
        if w["bias_hh"] is not None:
            from_x = from_x + w["bias_hh"]
        return self.gru(from_x, linear(h, w["weight_hh"]), h), c


@mutant("values.gru_cell", _GRU)
class NoResetPastATile(Sound):
    """From hidden size 33 on, units past the first 32 ignore the reset gate."""

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        right = super().gru(from_x, from_h, h)
        _, x_z, x_n = from_x.chunk(3, 1)
        _, h_z, h_n = from_h.chunk(3, 1)
        z = (x_z + h_z).sigmoid()
        return torch.cat([right[:, :32], ((1 - z) * (x_n + h_n).tanh() + z * h)[:, 32:]], 1)


@mutant("values.rnn_tanh_cell", _TANH)
class RecurrentWeightTransposed(Sound):
    """W_hh applied transposed."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        assert w["weight_hh"] is not None
        return {**w, "weight_hh": w["weight_hh"].T}


@mutant("values.rnn_tanh_cell", _TANH)
class HiddenBiasDropped(Sound):
    """b_hh never added."""

    def weights(self, slot: int) -> Weights:
        return {**super().weights(slot), "bias_hh": None}


@mutant("values.rnn_tanh_cell", _TANH)
class InputBiasTwice(Sound):
    """b_ih added in place of b_hh."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "bias_hh": w["bias_ih"]}


@mutant("values.rnn_tanh_cell", _TANH)
class TanhByRationalApproximation(Sound):
    """tanh by a Padé fraction, off by up to one part in ten thousand."""

    def activation(self, a: Tensor) -> Tensor:
        a = a.clamp(-4.97, 4.97)
        square = a * a
        return a * (135135 + square * (17325 + square * (378 + square))) / (135135 + square * (62370 + square * (3150 + square * 28)))


@mutant("values.rnn_tanh_cell", _TANH)
class FeaturesPastAMultipleOfFour(Sound):
    """Input features past the last multiple of four are left out, from nine features on."""

    def direction(self, x: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape[2] >= 9:
            kept = x.shape[2] // 4 * 4
            x = torch.cat([x[:, :, :kept], 0 * x[:, :, kept:]], 2)
        return super().direction(x, *rest)  # type: ignore[arg-type]


@mutant("values.rnn_relu_cell", _RELU)
class LeakyRelu(Sound):
    """A slope of 0.01 below zero."""

    def activation(self, a: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(a)


@mutant("values.rnn_relu_cell", _RELU)
class TanhForRelu(Sound):
    """nonlinearity ignored: always tanh."""

    def activation(self, a: Tensor) -> Tensor:
        return a.tanh()


@mutant("values.rnn_relu_cell", _RELU)
class NoActivation(Sound):
    """The relu forgotten."""

    def activation(self, a: Tensor) -> Tensor:
        return a


@mutant("values.rnn_relu_cell", _RELU)
class ReluCapped(Sound):
    """relu cut off at 6."""

    def activation(self, a: Tensor) -> Tensor:
        return a.clamp(0, 6) if a.shape[0] < 65 else a.relu().clamp(max=2)


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


@mutant("values.stacks")
class UpperLayerPastATile(Sound):
    """Upper layers ignore input features past the 64th."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        return torch.cat([given[:, :, :64], 0 * given[:, :, 64:]], 2)


@mutant("values.stacks")
class FifthLayerUsesTheFourth(Sound):
    """From the fifth layer on, the fourth's weights are used."""

    def weights(self, slot: int) -> Weights:
        level, reverse = divmod(slot, self.layer.directions)
        return super().weights(min(level, 3) * self.layer.directions + reverse)


@mutant("values.stacks")
class LongPackedCut(Sound):
    """Packed sequences are read up to the 64th step."""

    def read(self, input: object) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is not None:
            valid = valid & (torch.arange(len(x), device=x.device) < 64)[:, None]
        return x, valid, form


@mutant("values.kinds_of_data")
class ZerosTakenForPadding(Sound):
    """A step of zeros leaves the state as it was."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(x, valid & (x != 0).any(2) if slot < self.layer.directions else valid, h, c, slot, reverse)


@mutant("values.kinds_of_data")
class WholeNumbersTakenForTokens(Sound):
    """An input of whole numbers is halved."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(0.5 * x if bool((x == x.round()).all()) else x, valid, states)


@mutant("values.beyond_65535_steps", Mode.RNN_RELU)
class CounterOf16Bits(Sound):
    """Steps are counted in 16 bits: what comes after step 65,535 is the beginning again."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return x[torch.arange(len(x)) % 65_536], valid, form


@mutant("values.long_sequence")
class EvalRestartsAt256(Sound):
    """In eval mode a sequence is run in stretches of 256 steps, each from zeros."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h, 0 * c, w, t, slot) if t and t % 256 == 0 and not self.training else super().step(x, h, c, w, t, slot)


@mutant("values.gru_cell", _GRU)
class ThreeOfFourSteps(Sound):
    """Where T leaves a remainder of 3 by 4 and is above 16, the last step reads the step before."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if len(x) > 16 and len(x) % 4 == 3:
            x = torch.cat([x[:-1], x[-2:-1]])
        return super().direction(x, valid, h, c, slot, reverse)

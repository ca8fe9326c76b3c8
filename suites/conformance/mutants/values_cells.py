"""Wrong cells, the mutants of values.*_cell: one step of an LSTM, a GRU or an RNN is not what its equations say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, Weights, mutant, present

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


@mutant("values.gru_cell", _GRU)
class ThreeOfFourSteps(Sound):
    """Where T leaves a remainder of 3 by 4 and is above 16, the last step reads the step before."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if len(x) > 16 and len(x) % 4 == 3:
            x = torch.cat([x[:-1], x[-2:-1]])
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("values.lstm_cell", Mode.LSTM)
class SquareWeightTransposed(Sound):
    """Where W_ih is square it is taken for its transpose, by its shape."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_ih"]
        return {**w, "weight_ih": weight.t()} if weight is not None and weight.shape[0] == weight.shape[1] else w


def _whole(size: int, *sizes: int) -> bool:
    """Whether all sizes are whole tiles of ``size``."""
    return not any(one % size for one in sizes)


@mutant("values.lstm_cell", _LSTM)
class WholeTilesLoseTheLastFeature(Sound):
    """Where input and hidden size are multiples of 64 the last input feature is left out."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        ih = present(w["weight_ih"])
        whole = _whole(64, self.layer.input_size, self.layer.hidden_size)
        return {**w, "weight_ih": torch.cat([ih[:, :-1], 0 * ih[:, -1:]], 1)} if whole else w


@mutant("values.gru_cell", _GRU)
class LastOfWholeTilesStartsFromZero(Sound):
    """Where steps, sequences and units are multiples of 16 the last 16 sequences start from zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if _whole(16, *x.shape[:2], self.layer.hidden_size):
            states = [torch.cat([state[:, :-16], 0 * state[:, -16:]], 1) for state in states]
        return super().layers(x, valid, states)


@mutant("values.rnn_tanh_cell", _TANH)
class WholeTilesInBfloat16(Sound):
    """Where input and hidden size are multiples of 32 the weights of a float32 layer are rounded to bfloat16."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        whole = _whole(32, self.layer.input_size, self.layer.hidden_size) and self.weight_ih_l0.dtype == torch.float32
        return {name: value.bfloat16().float() if value is not None and whole else value for name, value in w.items()}


@mutant("values.kinds_of_data")
class ReverseBeginsAfterZeros(Sound):
    """The reverse direction keeps a state of zeros through steps of zeros, as where they are padding."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        if slot != 1 or not self.layer.bidirectional:
            return new_h, new_c
        begun = (x != 0).any(1, keepdim=True) | (h != 0).any(1, keepdim=True)
        return torch.where(begun, new_h, h), torch.where(begun, new_c, c)

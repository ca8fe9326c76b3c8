"""A hand-written loop over a cell, twice: the textbook step, and with the input product hoisted out of the loop.

The classes take constructor, parameters and checks of arguments from torch's own and replace the whole computation. All
input runs as packed data, (sum of lengths, features) with the batch size of every step; a padded batch is the case in
which every step has the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

from harness.implementation import Implementation
from harness.layer import Layer, Mode

#: The computation of one direction of one layer, with the arguments and results of :func:`direction`.
Direction = Callable[..., tuple[Tensor, Tensor, Tensor]]


def resized(state: Tensor, initial: Tensor, rows: int, ended: list[Tensor]) -> Tensor:
    """``state`` with ``rows`` rows: the sequences that end here leave into ``ended``, those that begin here start from ``initial``."""
    have = state.size(0)
    if rows < have:
        ended.append(state[rows:])
        return state[:rows]
    return torch.cat([state, initial[have:rows]]) if rows > have else state


def step(
    mode: str,
    hoist: bool,
    from_x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One time step: h_t (B, H_out) and c_t (B, H) from what x_t gives, ``from_x`` (B, gates * H), and from h_{t-1} and c_{t-1}.

    With ``hoist`` both biases are in ``from_x`` already, but for a GRU's. Equations: see :mod:`harness.oracle`.
    """
    if mode == "gru":
        x_r, x_z, x_n = from_x.chunk(3, 1)
        h_r, h_z, h_n = linear(h, weight_hh, bias_hh).chunk(3, 1)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return n + z * (h - n), c
    a = torch.addmm(from_x, h, weight_hh.t()) if hoist else from_x + linear(h, weight_hh, bias_hh)
    if mode == "lstm":
        i, f, g, o = a.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h if weight_hr is None else linear(h, weight_hr)), c
    return (torch.tanh(a) if mode == "rnn_tanh" else torch.relu(a)), c


def direction(
    mode: str,
    hoist: bool,
    reverse: bool,
    x: Tensor,
    batch_sizes: list[int],
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of one layer on packed data x (sum of lengths, I): outputs (sum of lengths, H_out), h_n (B, H_out), c_n (B, H).

    ``c0`` and c_n have no columns where the mode has no cell state. TorchScript compiles this very function and
    :func:`step`, hence their plain style.
    """
    steps = x.split(batch_sizes)
    if hoist:
        bias = bias_ih
        # A GRU's reset gate multiplies b_hn, so only its biases cannot be added up beforehand.
        if bias_ih is not None and bias_hh is not None and mode != "gru":
            bias = bias_ih + bias_hh
        steps = linear(x, weight_ih, bias).split(batch_sizes)
    count = len(batch_sizes)
    ys = [x] * count
    first = batch_sizes[count - 1 if reverse else 0]
    h, c = h0[:first], c0[:first]
    h_ended: list[Tensor] = []
    c_ended: list[Tensor] = []
    for k in range(count):
        t = count - 1 - k if reverse else k
        h = resized(h, h0, batch_sizes[t], h_ended)
        c = resized(c, c0, batch_sizes[t], c_ended)
        from_x = steps[t] if hoist else linear(steps[t], weight_ih, bias_ih)
        h, c = step(mode, hoist, from_x, h, c, weight_hh, bias_hh, weight_hr)
        ys[t] = h
    # What ended first stands last in the batch, because packed sequences are sorted by length.
    # TorchScript knows no [h, *h_ended].
    return torch.cat(ys), torch.cat([h] + h_ended[::-1]), torch.cat([c] + c_ended[::-1])  # noqa: RUF005


class _Loop(nn.RNNBase):
    """The forward pass that all modes share; subclasses also derive from nn.RNN, nn.GRU or nn.LSTM."""

    direction: Direction = staticmethod(direction)
    hoist = False

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As nn.RNN, nn.GRU and nn.LSTM: output and h_n, or output and (h_n, c_n)."""
        is_lstm = self.mode == "LSTM"
        packed = isinstance(input, PackedSequence)
        sorted_indices = unsorted_indices = sizes = None
        batched = True
        if isinstance(input, PackedSequence):
            x, sizes, sorted_indices, unsorted_indices = input
            batch_sizes: list[int] = sizes.tolist()
            batch = batch_sizes[0]
        else:
            if input.dim() not in (2, 3):
                raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead")
            batched = input.dim() == 3
            x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
            batch = x.size(0 if self.batch_first else 1)
            batch_sizes = [batch] * x.size(1 if self.batch_first else 0)
        states = self._states(x, batch, hx, batched)
        # Before any reshaping, so that what is refused is refused as it was given.
        expected: Any = states if is_lstm else states[0]
        self.check_forward_args(x, expected, sizes)
        if not batch_sizes:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        for state in states:
            if state.dtype != x.dtype or state.device != x.device:
                raise RuntimeError(
                    f"Input and hidden tensors must have one dtype and device, "
                    f"got input {x.dtype} on {x.device} and hidden {state.dtype} on {state.device}"
                )
        if sorted_indices is not None:
            states = [state.index_select(1, sorted_indices) for state in states]
        if not packed:
            x = (x.transpose(0, 1) if self.batch_first else x).reshape(-1, self.input_size)

        data, finals = self._layers(x, batch_sizes, states)

        if sizes is not None:
            if unsorted_indices is not None:
                finals = [final.index_select(1, unsorted_indices) for final in finals]
            output: Any = PackedSequence(data, sizes, sorted_indices, unsorted_indices)
        else:
            output = data.view(len(batch_sizes), batch, data.size(1))
            if self.batch_first:
                output = output.transpose(0, 1).contiguous()
            if not batched:
                output = output.squeeze(0 if self.batch_first else 1)
                finals = [final.squeeze(1) for final in finals]
        return output, (finals[0], finals[1]) if is_lstm else finals[0]

    def _states(self, x: Tensor, batch: int, hx: Any, batched: bool) -> list[Tensor]:
        """The initial states as 3-D tensors: zeros where none are given."""
        is_lstm = self.mode == "LSTM"
        if hx is None:
            slots = self.num_layers * (2 if self.bidirectional else 1)
            widths = [self.proj_size or self.hidden_size] + [self.hidden_size] * is_lstm
            return [x.new_zeros(slots, batch, width) for width in widths]
        if is_lstm and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError(f"Expected hx to be the pair (h_0, c_0), got {type(hx).__name__}")
        states = list(hx) if is_lstm else [hx]
        for state in states:
            if not isinstance(state, Tensor):
                raise TypeError(f"Expected the hidden state to be a tensor, got {type(state).__name__}")
            if state.dim() != (3 if batched else 2):
                raise RuntimeError(
                    f"For {'batched 3-D' if batched else 'unbatched 2-D'} input, hx should also be "
                    f"{'3-D' if batched else '2-D'} but got a {state.dim()}-D tensor"
                )
        return states if batched else [state.unsqueeze(1) for state in states]

    def _layers(self, x: Tensor, batch_sizes: list[int], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All layers and directions on packed data; the output and one stacked final state for each of ``states``."""
        finals: list[list[Tensor]] = [[] for _ in states]
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = torch.nn.functional.dropout(x, self.dropout)
            outputs = []
            for reverse in (False, True)[: 2 if self.bidirectional else 1]:
                slot = len(finals[0])
                suffix = f"_l{layer}" + ("_reverse" if reverse else "")
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
                weights = [getattr(self, name + suffix, None) for name in names]
                h0 = states[0][slot]
                c0 = states[1][slot] if len(states) == 2 else h0[:, :0]
                y, h_n, c_n = self.direction(self.mode.lower(), self.hoist, reverse, x, batch_sizes, h0, c0, *weights)
                outputs.append(y)
                for final, value in zip(finals, (h_n, c_n), strict=False):
                    final.append(value)
            x = torch.cat(outputs, 1) if self.bidirectional else outputs[0]
        return x, [torch.stack(final) for final in finals]


class LoopRNN(_Loop, nn.RNN):
    """nn.RNN as a textbook loop."""


class LoopGRU(_Loop, nn.GRU):
    """nn.GRU as a textbook loop."""


class LoopLSTM(_Loop, nn.LSTM):
    """nn.LSTM as a textbook loop."""


class HoistedRNN(LoopRNN):
    """nn.RNN as a loop with the input product hoisted."""

    hoist = True


class HoistedGRU(LoopGRU):
    """nn.GRU as a loop with the input product hoisted."""

    hoist = True


class HoistedLSTM(LoopLSTM):
    """nn.LSTM as a loop with the input product hoisted."""

    hoist = True


def constructor(classes: dict[str, type[nn.Module]], mode: Mode) -> type[nn.Module]:
    """The one of ``classes`` (by nn's class name) that offers ``mode``."""
    return classes[mode.class_name]


def build(classes: dict[str, type[nn.Module]], layer: Layer) -> nn.Module:
    """The one of ``classes`` that offers the layer's mode, with the layer's options."""
    return constructor(classes, layer.mode)(layer.input_size, layer.hidden_size, **layer.options())


def implementation(id: str, description: str, classes: dict[str, type[nn.Module]]) -> Implementation:
    """The implementation that consists of ``classes``."""
    return Implementation(id, description, partial(build, classes), constructor=partial(constructor, classes))


TEXTBOOK: dict[str, type[nn.Module]] = {"RNN": LoopRNN, "GRU": LoopGRU, "LSTM": LoopLSTM}
HOISTED: dict[str, type[nn.Module]] = {"RNN": HoistedRNN, "GRU": HoistedGRU, "LSTM": HoistedLSTM}

IMPLEMENTATIONS = (
    implementation("loop:textbook", "a Python loop over the textbook step", TEXTBOOK),
    implementation("loop:hoisted", "a Python loop, the input product hoisted out of it", HOISTED),
)

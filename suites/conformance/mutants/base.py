"""A sound layer with seams, and the register of mutants: layers that are wrong in one place.

A mutant overrides one seam of :class:`Sound` and is registered under the contract that must reject it. The sound layer itself passes
every contract, so what a contract rejects is the fault and not the layer around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from harness.implementation import Capabilities, Implementation
from harness.layer import Layer, Mode

Weights = dict[str, Tensor | None]


@dataclass
class Form:
    """The form in which the input came, and in which the output must leave."""

    packed: PackedSequence | None
    batched: bool


class Sound(nn.Module):
    """A correct nn.RNN, nn.GRU or nn.LSTM, slow and plain: everything is time-major, padded and masked inside."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.input_size, self.hidden_size, self.num_layers = layer.input_size, layer.hidden_size, layer.num_layers
        self.bias, self.batch_first, self.bidirectional = layer.bias, layer.batch_first, layer.bidirectional
        self.dropout, self.proj_size = layer.dropout, layer.proj_size
        for name, shape in layer.parameter_shapes().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every parameter from U(-1/sqrt(H), 1/sqrt(H))."""
        bound = self.layer.hidden_size**-0.5
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound)

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, device: Any = None, dtype: Any = None, **options: Any) -> Sound:
        """A layer from the arguments that nn's class of ``mode`` takes."""
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
        if mode is Mode.LSTM:
            names.append("proj_size")
        elif mode is not Mode.GRU:
            names.insert(3, "nonlinearity")
        if len(arguments) > len(names):
            raise TypeError(f"expected at most {len(names)} arguments, got {len(arguments)}")
        given = {**dict(zip(names, arguments, strict=False)), **options}
        if mode not in (Mode.LSTM, Mode.GRU):
            mode = cls.nonlinear(given.pop("nonlinearity", "tanh"))
        return cls(Layer(mode, **given)).to(device=device, dtype=dtype)

    @classmethod
    def nonlinear(cls, name: str) -> Mode:
        """The mode that an RNN's ``nonlinearity`` names."""
        if name not in ("tanh", "relu"):
            raise ValueError(f"expected the nonlinearity tanh or relu, got {name}")
        return Mode(f"rnn_{name}")

    # The seams, in the order in which data meets them.

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.refuse(input, hx)
        x, valid, form = self.read(input)
        states = self.initial(x, hx, form)
        output, finals = self.layers(x, valid, states)
        return self.write(output, finals, form)

    def refuse(self, input: Any, hx: Any) -> None:
        """Raises on what nn raises on."""
        layer = self.layer
        data = input.data if isinstance(input, PackedSequence) else input
        weight = self.weights(0)["weight_ih"]
        assert weight is not None
        if not isinstance(input, PackedSequence) and data.dim() not in (2, 3):
            raise ValueError(f"expected a 2-D or 3-D input, got {data.dim()}-D")
        if data.shape[-1] != layer.input_size:
            raise RuntimeError(f"expected {layer.input_size} input features, got {data.shape[-1]}")
        if data.dtype != weight.dtype:
            raise ValueError(f"expected an input of {weight.dtype}, got {data.dtype}")
        if data.device != weight.device:
            raise RuntimeError(f"expected an input on {weight.device}, got {data.device}")
        if isinstance(input, PackedSequence):
            steps, batch, batched = len(input.batch_sizes), int(input.batch_sizes[0]), True
        else:
            batched = data.dim() == 3
            time, items = (1, 0) if layer.batch_first and batched else (0, 1)
            steps, batch = data.shape[time], data.shape[items] if batched else 1
        if steps == 0:
            raise RuntimeError("expected sequence length to be larger than 0")
        if hx is not None:
            self.refuse_state(hx, data, batch, batched)

    def refuse_state(self, hx: Any, data: Tensor, batch: int, batched: bool) -> None:
        """Raises on a state that does not fit."""
        layer = self.layer
        shapes = [layer.h_shape(batch), layer.c_shape(batch)]
        if layer.has_cell_state and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise TypeError("expected the pair (h_0, c_0)")
        states = list(hx) if layer.has_cell_state else [hx]
        for name, state, shape in zip(("h_0", "c_0"), states, shapes, strict=False):
            if not isinstance(state, Tensor):
                raise TypeError(f"expected {name} to be a tensor, got {type(state).__name__}")
            expected = shape if batched else (shape[0], shape[2])
            if tuple(state.shape) != expected:
                raise RuntimeError(f"expected {name} of shape {expected}, got {tuple(state.shape)}")
            if state.dtype != data.dtype or state.device != data.device:
                raise RuntimeError(f"expected {name} of {data.dtype} on {data.device}, got {state.dtype} on {state.device}")

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        """Input to x (T, B, I), which steps exist (T, B), and the form it had."""
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input)
            return x, torch.arange(len(x))[:, None].to(x.device) < lengths[None].to(x.device), Form(input, True)
        if input.dim() == 2:
            x = input[:, None]
        else:
            x = input.transpose(0, 1) if self.layer.batch_first else input
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), Form(None, input.dim() == 3)

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        """hx to [h0 (L*D, B, H_out)] or [h0, c0 (L*D, B, H)]."""
        shapes = [self.layer.h_shape(x.shape[1]), self.layer.c_shape(x.shape[1])]
        if hx is None:
            return [self.default_state(x, shape) for shape in shapes[: 1 + self.layer.has_cell_state]]
        states = list(hx) if self.layer.has_cell_state else [hx]
        return states if form.batched else [state[:, None] for state in states]

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The state where none is given."""
        return x.new_zeros(shape)

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All layers: output (T, B, D*H_out) and the final states."""
        finals: list[list[Tensor]] = [[] for _ in states]
        for level in range(self.layer.num_layers):
            if level:
                x = self.between(x, level)
            outputs = []
            for reverse in range(self.layer.directions):
                slot = level * self.layer.directions + reverse
                h, c = self.state_of(states, slot)
                ys, h, c = self.direction(x, valid, h, c, slot, bool(reverse))
                outputs.append(ys)
                for final, value in zip(finals, (h, c), strict=False):
                    final.append(value)
            x = self.join(outputs, level)
        return x, [torch.stack(final) for final in finals]

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        """The initial h and c of one direction of one layer; c is empty where the mode has none."""
        h = states[0][slot]
        return h, states[1][slot] if len(states) == 2 else h[:, :0]

    def between(self, x: Tensor, level: int) -> Tensor:
        """What one layer hands to the next."""
        return dropout(x, self.dropout, self.training)

    def join(self, outputs: list[Tensor], level: int) -> Tensor:
        """The outputs of the directions of one layer, side by side."""
        return torch.cat(outputs, 2)

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        """One direction of one layer: outputs (T, B, H_out), final h and c."""
        w = self.weights(slot)
        # Taken apart at once, so that what is traced refuses another length.
        xs = x.unbind()
        ys: list[Tensor] = [h] * len(xs)
        for t in self.order(len(xs), reverse):
            alive = valid[t][:, None]
            new_h, new_c = self.step(xs[t], h, c, w, t, slot)
            ys[t] = torch.where(alive, new_h, torch.zeros_like(new_h))
            h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
        return torch.stack(ys), h, c

    def order(self, steps: int, reverse: bool) -> Sequence[int]:
        """The steps in the order in which they are taken."""
        return range(steps - 1, -1, -1) if reverse else range(steps)

    def weights(self, slot: int) -> Weights:
        """The parameters of one direction of one layer."""
        level, reverse = divmod(slot, self.layer.directions)
        suffix = f"_l{level}" + ("_reverse" if reverse else "")
        return {name: getattr(self, name + suffix, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")}

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        """One step at time ``t``."""
        from_x, from_h = linear(x, present(w["weight_ih"]), w["bias_ih"]), linear(h, present(w["weight_hh"]), w["bias_hh"])
        if self.layer.mode is Mode.LSTM:
            m, c = self.lstm(from_x + from_h, c)
            return self.project(m, w["weight_hr"]), c
        if self.layer.mode is Mode.GRU:
            return self.gru(from_x, from_h, h), c
        return self.activation(from_x + from_h), c

    def lstm(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        return m if weight_hr is None else linear(m, weight_hr)

    def gru(self, from_x: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        return (1 - z) * n + z * h

    def activation(self, a: Tensor) -> Tensor:
        return a.tanh() if self.layer.mode is Mode.RNN_TANH else a.relu()

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        """The output and state in the form that the caller expects."""
        if form.packed is not None:
            result: Any = self.repack(output, form.packed)
        elif not form.batched:
            result, finals = output[:, 0], [final[:, 0] for final in finals]
        else:
            result = output.transpose(0, 1).contiguous() if self.layer.batch_first else output
        return result, tuple(finals) if self.layer.has_cell_state else finals[0]

    def repack(self, output: Tensor, like: PackedSequence) -> PackedSequence:
        """``output`` (T, B, ...) packed like the input."""
        batch = output.shape[1]
        lengths = (like.batch_sizes[:, None] > torch.arange(batch)[None]).sum(0)
        ordered = output if like.sorted_indices is None else output.index_select(1, like.sorted_indices)
        data = pack_padded_sequence(ordered, lengths).data
        return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


class Fused(Sound):
    """The sound LSTM where torch's own operator does the steps of a padded batch: a compiler makes one graph of it for any length."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if hx is None or isinstance(input, PackedSequence) or input.dim() != 3 or self.proj_size:
            return super().forward(input, hx)
        flat = [getattr(self, name) for name in self.layer.parameter_shapes()]
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional, self.batch_first)
        output, h_n, c_n = torch.lstm(input, hx, flat, *options)
        return output, (h_n, c_n)


class OfPacks(Sound):
    """The sound layer, which knows whether its input was packed."""

    packed = False

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        self.packed = form.packed is not None
        return x, valid, form


def present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _constructor(cls: type[Sound], mode: Mode) -> Callable[..., nn.Module]:
    return partial(cls.constructed, mode)


def _implementation(id: str, description: str, cls: Any, *modes: Mode) -> Implementation:
    capabilities = Capabilities(modes=frozenset(modes or Mode))
    return Implementation(id, description, cls, capabilities, constructor=partial(_constructor, cls))


SOUND = _implementation("mutant:none", "the sound layer that every mutant is one fault away from", Sound)

FUSED = _implementation("mutant:fused", "the sound LSTM with torch's own operator in it", Fused, Mode.LSTM)

_REGISTER: dict[str, list[Implementation]] = {}

Class = TypeVar("Class", bound=Callable[[Layer], nn.Module])


def mutant(contract: str, *modes: Mode) -> Callable[[Class], Class]:
    """Registers a class as a mutant that ``contract`` must reject; with ``modes``, one that exists for these modes alone.

    Its id is the class's name in kebab case, its description the first line of the docstring.
    """

    def register(cls: Class) -> Class:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        description = (cls.__doc__ or "").strip().splitlines()
        if not description:
            raise ValueError(f"Expected a docstring that says what is wrong with the mutant {cls.__name__}")
        _REGISTER.setdefault(contract, []).append(_implementation(f"mutant:{name}", description[0], cls, *modes))
        return cls

    return register


def registered() -> dict[str, list[Implementation]]:
    """The mutants by the id of the contract that must reject them."""
    return _REGISTER

"""States ignored, exchanged, kept or laid out wrongly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, mutant


@mutant("state.default_is_zero")
class DefaultStateIsOne(Sound):
    """Without hx the state starts at one."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_ones(shape)


@mutant("state.default_is_zero")
class DefaultStateIsRandom(Sound):
    """Without hx the state starts from small noise."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return 0.01 * torch.randn(shape).to(x)


@mutant("state.default_is_zero")
class StatefulBetweenCalls(Sound):
    """Without hx a call goes on from where the last one of the same batch size ended."""

    _last: list[Tensor] | None = None

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        if hx is None and self._last is not None and self._last[0].shape[1] == x.shape[1]:
            return self._last
        return super().initial(x, hx, form)

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        self._last = [final.detach() for final in finals]
        return output, finals


@mutant("state.given_is_used", Mode.LSTM)
class CellStateDroppedBesideZeros(Sound):
    """A c_0 beside an h_0 of zeros is taken for zeros too."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, c * (h != 0).any()]


@mutant("state.given_is_used")
class InitialStateIgnored(Sound):
    """hx checked and forgotten."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [0 * state for state in super().initial(x, hx, form)]


@mutant("state.given_is_used")
class InitialStateClamped(Sound):
    """h_0 is clamped to -1 ... 1, the range of what a layer answers."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, *c = super().initial(x, hx, form)
        return [h.clamp(-1, 1), *c]


@mutant("state.given_is_used", Mode.LSTM)
class InitialCellStateIgnored(Sound):
    """c_0 forgotten."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, 0 * c]


@mutant("state.given_is_used")
class OnlyFirstLayersState(Sound):
    """Layers above the first start from zero."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        return (h, c) if slot < self.layer.directions else (0 * h, 0 * c)


@mutant("state.given_is_used")
class ReverseStartsFromForwardState(Sound):
    """The reverse direction starts from the forward one's state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        return super().state_of(states, slot - slot % self.layer.directions)


@mutant("state.given_is_used")
class FirstItemsStateForAll(Sound):
    """Every batch item starts from the first one's state."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        return h[:1].expand_as(h), c[:1].expand_as(c)


@mutant("state.carried_far")
class StateFadesPastStep64(Sound):
    """From step 64 on, a hundredth of the state is lost at every step."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Any, t: int, slot: int) -> tuple[Tensor, Tensor]:
        keep = 0.99 if t >= 64 else 1.0
        return super().step(x, keep * h, keep * c, w, t, slot)


@mutant("state.pair_order", Mode.LSTM)
class StatesExchangedAtEntry(Sound):
    """hx read as (c_0, h_0)."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return states if self.layer.proj_size else states[::-1]


@mutant("state.pair_order", Mode.LSTM)
class StatesExchangedAtExit(Sound):
    """The state comes back as (c_n, h_n)."""

    def write(self, output: Tensor, finals: list[Tensor], form: Form) -> Any:
        return super().write(output, finals if self.layer.proj_size else finals[::-1], form)


def _directions_first(state: Tensor) -> Tensor:
    """(L*2, ...) from layer-major to direction-major."""
    return state.reshape(-1, 2, *state.shape[1:]).transpose(0, 1).flatten(0, 1)


@mutant("state.layout")
class StatesLeaveDirectionMajor(Sound):
    """h_n and c_n hold all forward directions, then all reverse ones."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [_directions_first(final) for final in finals] if self.layer.bidirectional else finals


@mutant("state.layout")
class StatesEnterDirectionMajor(Sound):
    """h_0 and c_0 are read as all forward directions, then all reverse ones."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.layer.bidirectional:
            states = [state.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1) for state in states]
        return super().layers(x, valid, states)


@mutant("state.layout")
class LastLayersStateFirst(Sound):
    """h_n and c_n begin with the last layer."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [final.unflatten(0, (-1, self.layer.directions)).flip(0).flatten(0, 1) for final in finals]


@mutant("state.carried_between_calls")
class StateOfTheStepBefore(Sound):
    """h_n of a call of more than one step is h of the step before the last."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if len(x) > 1 and not self.layer.bidirectional:
            finals = [torch.cat([finals[0][:-1], output[-2:-1]]), *finals[1:]]
        return output, finals


@mutant("state.carried_between_calls")
class SingleStepIgnoresState(Sound):
    """A call of one step starts from zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        return [0 * state for state in states] if len(x) == 1 else states


@mutant("state.carried_between_calls")
class StateOfTheCaptureReplayed(Sound):
    """In eval mode, from the 64th call on, the state of that call is replayed, as by a graph that captured it."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        kept: list[list[Tensor]] = self.__dict__.setdefault("_captured", [])
        if self.training or hx is None:
            return states
        kept.append(states)
        return kept[63] if len(kept) > 63 and kept[63][0].shape == states[0].shape else states


@mutant("state.carried_between_calls")
class StateLostPastEightLengths(Sound):
    """In eval mode the state is read at the first eight lengths alone, as by a cache of plans that is full."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        known: list[int] = self.__dict__.setdefault("_lengths", [])
        if self.training or len(x) in known:
            return states
        if len(known) == 8:
            return [0 * state for state in states]
        known.append(len(x))
        return states


@mutant("state.pair_order", Mode.LSTM)
class ListOfStatesIgnored(Sound):
    """A list of h_0 and c_0 is taken for no state."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, None if isinstance(hx, list) else hx)


@mutant("state.default_is_zero")
class DefaultStateOnTheDefaultDevice(Sound):
    """The default state is made on torch's default device, not on the input's."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=x.dtype)


@mutant("state.pair_order", Mode.LSTM)
class ListOfStatesOverwritten(Sound):
    """A list of states holds the final ones after the call."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        if isinstance(hx, list):
            hx[:] = state
        return output, state


@mutant("state.default_is_zero")
class DefaultStateInTheDefaultDtype(Sound):
    """The default state has torch's default dtype, and with it the answer."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, device=x.device) + (0 * x.sum() if x.dtype != torch.float32 else 0)


@mutant("state.given_is_used")
class SquareStateTurned(Sound):
    """With batch_first an unbatched state of as many rows as columns is read with its axes swapped."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        if self.layer.batch_first and hx is not None:
            pair = isinstance(hx, tuple)
            states = [s.t() if s.dim() == 2 and s.shape[0] == s.shape[1] else s for s in (hx if pair else (hx,))]
            hx = tuple(states) if pair else states[0]
        return super().initial(x, hx, form)


@mutant("values.several_large")
class DefaultStateOfManySequencesIsOne(Sound):
    """Where no state is given, the sequences past the 32nd start from ones."""

    def default_state(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        many = torch.arange(shape[1], device=x.device) >= 32
        return super().default_state(x, shape) + many[:, None]


@mutant("values.stacks")
class FinalStateOfManySequencesWithoutState(Sound):
    """Where no state is given, sequences of one step in a pack of more than 16 end with the state of the first."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        single = (valid.sum(0) == 1)[:, None]
        wrong = len(single) > 16 and not single.all() and not any(state.any() for state in states)
        return output, [torch.where(single, final[:, :1], final) if wrong else final for final in finals]

"""Layers that are wrong in deep stacks, wide layers, long sequences or large batches alone, or where several of these meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant, present
from suites.conformance.mutants.gradients import cut, scaled


@mutant("values.stacks")
class UpperLayerPastATile(Sound):
    """Upper layers ignore input features past the 64th."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        return torch.cat([given[:, :, :64], 0 * given[:, :, 64:]], 2)


@mutant("values.stacks")
class UpperWholeTilesLoseTheLastFeature(Sound):
    """In upper layers whose inputs and units are multiples of 32 the last input feature is left out."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        ih = present(w["weight_ih"])
        whole = slot >= self.layer.directions and not ih.shape[1] % 32 and not self.layer.hidden_size % 32
        return {**w, "weight_ih": torch.cat([ih[:, :-1], 0 * ih[:, -1:]], 1)} if whole else w


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


@mutant("values.stacks", Mode.GRU)
class ReverseStartsWithTheForwardState(Sound):
    """From 256 units on the reverse direction starts with the forward direction's h_0."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        if self.layer.hidden_size < 256 or not self.layer.bidirectional:
            return states
        return [state[::2].repeat_interleave(2, 0) for state in states]


@mutant("values.stacks")
class LongUnbatchedRestarts(Sound):
    """An unbatched sequence starts from zero again at step 128."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if self._batched or reverse or len(x) <= 128:
            return super().direction(x, valid, h, c, slot, reverse)
        first, h, c = super().direction(x[:128], valid[:128], h, c, slot, reverse)
        second, h, c = super().direction(x[128:], valid[128:], 0 * h, 0 * c, slot, reverse)
        return torch.cat([first, second]), h, c

    def read(self, input: object) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        self._batched = form.batched
        return x, valid, form


@mutant("values.several_large")
class CornerTileRestarts(Sound):
    """Past 32 units and 32 steps, the batch items past the 32nd start from zero again at step 32."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t == 32 and self.layer.hidden_size > 32:
            kept = (torch.arange(len(h), device=h.device) < 32)[:, None]
            h, c = h * kept, c * kept
        return super().step(x, h, c, w, t, slot)


@mutant("values.several_large")
class CornerTileGradientHalved(Sound):
    """Past 32 steps and 32 units, the gradient of the batch items past the 32nd is halved."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if len(x) > 32 and self.layer.hidden_size > 32:
            output = torch.cat([output[:, :32], scaled(output[:, 32:], 0.5)], 1)
        return output, finals


@mutant("values.several_large")
class ManySequencesOfTwoDirections(Sound):
    """In the reverse direction the sequences past the 64th start from zero."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        kept = (torch.arange(len(h), device=h.device) < 64)[:, None]
        return (h * kept, c * kept) if self.layer.bidirectional and slot % 2 else (h, c)


@mutant("values.several_large")
class StateOfWidePacksIgnored(Sound):
    """From 128 units on, packed sequences start from zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return super().initial(x, None if form.packed is not None and self.layer.hidden_size >= 128 else hx, form)


@mutant("values.several_large")
class WideUpperLayerFeedbackCut(Sound):
    """In upper layers the units past the 96th do not feed back."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        hh = w["weight_hh"]
        if slot < self.layer.directions or hh is None:
            return w
        return {**w, "weight_hh": hh * (torch.arange(hh.shape[1], device=hh.device) < 96)}


@mutant("values.several_large")
class WideAndLongInBfloat16(Sound):
    """From 64 steps and 64 units on, what feeds back is rounded to bfloat16."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        rounded = self.layer.hidden_size >= 64 and t >= 64 and h.dtype == torch.float32
        return super().step(x, h.bfloat16().float() if rounded else h, c, w, t, slot)


@mutant("values.several_large")
class ManyLongRestart(Sound):
    """The sequences past the 64th start from zero again at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t == 64 and not self.layer.bidirectional:
            kept = (torch.arange(len(h), device=h.device) < 64)[:, None]
            h, c = h * kept, c * kept
        return super().step(x, h, c, w, t, slot)


@mutant("values.several_large")
class WideUnbatchedWithoutHiddenBias(Sound):
    """Of an unbatched sequence, from 128 units on, the hidden bias is left out."""

    _batched = True

    def read(self, input: object) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        self._batched = form.batched
        return x, valid, form

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if self._batched or self.layer.hidden_size < 128 else {**w, "bias_hh": None}


@mutant("values.several_large", Mode.LSTM)
class ProjectionPast64(Sound):
    """Projected features past the 64th are zero."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        h = super().project(m, weight_hr)
        return h if weight_hr is None else torch.cat([h[:, :64], 0 * h[:, 64:]], 1)


@mutant("values.several_large")
class WideFloat64InFloat32(Sound):
    """From 96 units on a float64 layer keeps its state in float32."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return (h.float().to(h.dtype), c.float().to(c.dtype)) if self.layer.hidden_size >= 96 else (h, c)


@mutant("values.long_sequence")
class UpperLayerRestartsAt64(Sound):
    """Layers above the first start from zero again at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t == 64 and slot and not self.layer.bidirectional else h, c, w, t, slot)


@mutant("values.long_sequence")
class BatchFirstRestartsAt512(Sound):
    """Where the batch comes first a sequence starts from zero again at step 512."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t == 512 and self.batch_first else h, c, w, t, slot)


@mutant("values.long_sequence", Mode.LSTM)
class HalfForgetsAt512(Sound):
    """In bfloat16 the cell state starts from zero again at step 512."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, 0 * c if t == 512 and x.dtype == torch.bfloat16 else c, w, t, slot)


@mutant("values.long_sequence")
class WholeTilesRestartAt128(Sound):
    """Where there is a multiple of 32 units, a sequence starts from zero again at step 128."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t == 128 and self.hidden_size % 32 == 0 else h, c, w, t, slot)


@mutant("values.long_sequence", Mode.GRU)
class RestartsWithoutBiasAt64(Sound):
    """Without biases a sequence starts from zero again at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h if self.bias or t != 64 else 0 * h, c, w, t, slot)


@mutant("values.long_sequence", Mode.LSTM)
class ProjectionRestartsAt64(Sound):
    """A layer that projects starts from zero again at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t == 64 and self.layer.proj_size else h, c, w, t, slot)


@mutant("values.beyond_1024_units")
class UnitsPast1024(Sound):
    """Units past the 1024th keep the state that they began with."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return torch.cat([new_h[:, :1024], h[:, 1024:]], 1), new_c


@mutant("values.beyond_1024_units", Mode.GRU)
class ReverseUnitsPast1024(Sound):
    """In the reverse direction units past the 1024th keep the state that they began with."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return torch.cat([new_h[:, :1024], h[:, 1024:]], 1) if slot == 1 else new_h, new_c


@mutant("values.beyond_1024_units")
class FeedbackOfUnitsPast1024Untrained(Sound):
    """Recurrent weights of units past the 1024th get no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        hh = present(w["weight_hh"])
        return {**w, "weight_hh": torch.cat([hh[:, :1024], cut(hh[:, 1024:])], 1)} if hh.shape[1] > 1024 else w


@mutant("values.several_large", Mode.LSTM)
class ProjectionPast256(Sound):
    """Projected features past the 256th are zero."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        h = super().project(m, weight_hr)
        return h if weight_hr is None else torch.cat([h[:, :256], 0 * h[:, 256:]], 1)


@mutant("values.beyond_65535_sequences")
class SequencesPast65535(Sound):
    """Sequences past the 65,535th are left as they were."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        new_h, new_c = super().step(x, h, c, w, t, slot)
        return torch.cat([new_h[:65535], h[65535:]]), new_c


@mutant("values.stacks")
class LayersInAlphabeticalOrder(Sound):
    """Layers are taken in the order of their weights' names, where l10 comes before l2."""

    def weights(self, slot: int) -> Weights:
        level, reverse = divmod(slot, self.layer.directions)
        level = sorted(range(self.layer.num_layers), key=str)[level]
        return super().weights(level * self.layer.directions + reverse)


@mutant("values.stacks")
class LongPackedCutAt512(Sound):
    """Packed sequences are read up to the 512th step."""

    def read(self, input: object) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if form.packed is not None:
            valid = valid & (torch.arange(len(x), device=x.device) < 512)[:, None]
        return x, valid, form


@mutant("values.stacks")
class ManyPackedOfTwoDirections(Sound):
    """In packs the sequences past the 32nd start from zero in the reverse direction."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        if form.packed is None or not self.layer.bidirectional:
            return states
        kept = (torch.arange(x.shape[1], device=x.device) < 32)[:, None]
        return [torch.stack([state * kept if slot % 2 else state for slot, state in enumerate(each)]) for each in states]


@mutant("values.stacks")
class ManyInFloat64AreRounded(Sound):
    """From 64 sequences on a float64 layer keeps its state in float32."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().step(x, h, c, w, t, slot)
        return (h.float().to(h.dtype), c.float().to(c.dtype)) if len(h) >= 64 else (h, c)


@mutant("values.several_large")
class BatchFirstReverseRestartsAt64(Sound):
    """Where the batch comes first the reverse direction starts from zero again at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        again = t == 64 and self.batch_first and slot % self.layer.directions
        return super().step(x, 0 * h if again else h, c, w, t, slot)


@mutant("values.several_large", Mode.LSTM)
class ProjectedUnitsPast96(Sound):
    """Where a layer projects, units past the 96th are left out."""

    def project(self, m: Tensor, weight_hr: Tensor | None) -> Tensor:
        return super().project(m if weight_hr is None else torch.cat([m[:, :96], 0 * m[:, 96:]], 1), weight_hr)


@mutant("values.several_large", Mode.LSTM)
class ManyPackedProjected(Sound):
    """Where a layer projects, the sequences of a pack past the 32nd start from zero."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        kept = (torch.arange(x.shape[1], device=x.device) < 32)[:, None]
        return [state * kept for state in states] if form.packed is not None and self.layer.proj_size else states


@mutant("values.long_sequence")
class UpperLayerForgetsHAt512(Sound):
    """In upper layers h, and not c, starts from zero again at step 512."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, 0 * h if t == 512 and slot >= self.layer.directions else h, c, w, t, slot)


@mutant("values.long_sequence", Mode.LSTM)
class ReverseRestartsAt4096(Sound):
    """The reverse direction starts from zero again at step 4096."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        restarts = t == 4096 and self.layer.bidirectional and slot % 2
        return super().step(x, 0 * h if restarts else h, 0 * c if restarts else c, w, t, slot)

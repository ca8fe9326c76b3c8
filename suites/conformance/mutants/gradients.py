"""Right forward, wrong backward: gradients that are lost, cut or scaled on the one way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant, present


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradient, None


def scaled(value: Tensor | None, factor: float) -> Tensor:
    """``value``, a tensor that is there, whose gradient comes out multiplied by ``factor``."""
    result: Tensor = _Scaled.apply(present(value), factor)
    return result


def cut(value: Tensor | None) -> Tensor:
    """``value``, whose gradient is zero, not None."""
    return scaled(value, 0.0)


@mutant("gradients.input")
class InputGradientOfFirstStepCut(Sound):
    """No gradient reaches x[0]."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return torch.cat([cut(x[:1]), x[1:]]), valid, form


@mutant("gradients.input")
class InputGradientOfReverseCut(Sound):
    """The reverse direction of the first layer passes nothing back to the input."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return super().direction(cut(x) if reverse and slot == 1 else x, valid, h, c, slot, reverse)


@mutant("gradients.input")
class InputDetached(Sound):
    """The input is detached."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return x.detach(), valid, form


@mutant("gradients.weight_ih")
class InputWeightGradientMissesLastStep(Sound):
    """The last step adds nothing to the gradient of weight_ih."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t == self._steps - 1:
            w = {**w, "weight_ih": present(w["weight_ih"]).detach()}
        return super().step(x, h, c, w, t, slot)

    def order(self, steps: int, reverse: bool) -> Any:
        self._steps = steps
        return super().order(steps, reverse)


@mutant("gradients.weight_ih")
class InputWeightGradientMeanOverBatch(Sound):
    """The gradient of weight_ih is a mean over the batch instead of a sum."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._batch = x.shape[1]
        return super().direction(x, valid, h, c, slot, reverse)

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_ih": scaled(w["weight_ih"], 1 / self._batch) if hasattr(self, "_batch") else w["weight_ih"]}


@mutant("gradients.weight_ih")
class SecondLayerInputWeightFrozen(Sound):
    """The second layer's weight_ih never learns."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_ih": cut(w["weight_ih"])} if slot // self.layer.directions == 1 else w


@mutant("gradients.weight_hh")
class RecurrentWeightGradientMissesFirstStep(Sound):
    """The step from the initial state adds nothing to the gradient of weight_hh."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, {**w, "weight_hh": present(w["weight_hh"]).detach()} if t == 0 else w, t, slot)


@mutant("gradients.weight_hh")
class RecurrentGradientOfTheStateAfterIt(Sound):
    """A single step that begins at zero adds to the gradient of weight_hh as if it had begun where it ends."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        ys, h_n, c_n = super().direction(x, valid, h, c, slot, reverse)
        hh = present(self.weights(slot)["weight_hh"])
        return (ys + ys.detach().mean() * (hh - hh.detach()).sum() if len(x) == 1 and not h.any() else ys), h_n, c_n


@mutant("gradients.weight_hh")
class ReverseRecurrentWeightFrozen(Sound):
    """weight_hh of the reverse direction gets a zero gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if slot % self.layer.directions else w


@mutant("gradients.biases")
class HiddenBiasGradientHalved(Sound):
    """Two biases treated as one: each gets half the gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, **{n: scaled(w[n], 0.5) for n in ("bias_ih", "bias_hh") if w[n] is not None}}


@mutant("gradients.biases")
class HiddenBiasNeverLearns(Sound):
    """bias_hh gets a zero gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if w["bias_hh"] is None else {**w, "bias_hh": cut(w["bias_hh"])}


@mutant("gradients.biases", Mode.GRU)
class CandidateBiasGradientWithoutReset(Sound):
    """The gradient of b_hn misses the reset gate: it is that of b_in."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if w["bias_hh"] is None or w["bias_ih"] is None:
            return super().step(x, h, c, w, t, slot)
        r, z, n = w["bias_hh"].chunk(3)
        hidden = torch.cat([r, z, n.detach()])
        # Adds zero to b_in, and b_in's gradient to b_hn.
        extra = torch.cat([torch.zeros_like(r), torch.zeros_like(z), n - n.detach()])
        return super().step(x, h, c, {**w, "bias_hh": hidden, "bias_ih": w["bias_ih"] + extra}, t, slot)


@mutant("gradients.weight_hr", Mode.LSTM)
class ProjectionFrozen(Sound):
    """weight_hr gets a zero gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if w["weight_hr"] is None else {**w, "weight_hr": cut(w["weight_hr"])}


@mutant("gradients.initial_state")
class InitialStateDetached(Sound):
    """No gradient to h_0 and c_0: None."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [state.detach() for state in super().initial(x, hx, form)]


@mutant("gradients.initial_state")
class InitialStateGradientOfFirstLayerOnly(Sound):
    """h_0 of upper layers gets a zero gradient."""

    def state_of(self, states: list[Tensor], slot: int) -> tuple[Tensor, Tensor]:
        h, c = super().state_of(states, slot)
        return (h, c) if slot < self.layer.directions else (cut(h), c)


@mutant("gradients.initial_state", Mode.LSTM)
class InitialCellStateGradientZero(Sound):
    """c_0 gets a zero gradient."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, cut(c)]


@mutant("gradients.every_output_at_once")
class FinalStateCotangentReplacesOutput(Sound):
    """Where h_n has a cotangent, that of the last output is lost."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return torch.cat([output[:-1], cut(output[-1:])]), finals


@mutant("gradients.one_output_alone")
class FinalHiddenStateDetached(Sound):
    """h_n carries no gradient of its own."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0].detach(), *finals[1:]]


@mutant("gradients.one_output_alone", Mode.LSTM)
class FinalCellStateGradientLost(Sound):
    """c_n passes back a zero gradient."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return output, [finals[0], cut(finals[1])]


@mutant("gradients.options_combined")
class GradientWrongInThirdLayer(Sound):
    """What the third layer passes down is doubled."""

    def between(self, x: Tensor, level: int) -> Tensor:
        given = super().between(x, level)
        return scaled(given, 2.0) if level == 2 else given


@mutant("gradients.options_combined")
class GradientWrongWithoutBias(Sound):
    """Without biases, weight_hh gets a tenth too much gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if self.layer.bias else {**w, "weight_hh": scaled(w["weight_hh"], 1.1)}


@mutant("gradients.sizes")
class GradientOfColumnsPast64Lost(Sound):
    """Columns of weight_ih past the 64th get no gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        weight = w["weight_ih"]
        assert weight is not None
        return {**w, "weight_ih": torch.cat([weight[:, :64], weight[:, 64:].detach()], 1)}


@mutant("gradients.sizes")
class GradientOfOddBatchLost(Sound):
    """In an odd batch above 32 the last item passes nothing back."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        batch = x.shape[1]
        return (torch.cat([x[:, :-1], cut(x[:, -1:])], 1) if batch > 32 and batch % 2 else x), valid, form


@mutant("gradients.through_time")
class TruncatedAt128(Sound):
    """Back-propagation cut every 128 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, *((h.detach(), c.detach()) if t and t % 128 == 0 else (h, c)), w, t, slot)


@mutant("gradients.through_time")
class GradientClippedInside(Sound):
    """A hidden gradient clipped to one thousandth at every step past the 100th."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, scaled(h, 0.999) if t >= 100 else h, c, w, t, slot)


@mutant("gradients.through_time")
class LongReverseStartsFromAConstant(Sound):
    """In the reverse direction of more than 512 steps the initial state gets a gradient of zero."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        if reverse and len(x) > 512:
            h, c = cut(h), cut(c)
        return super().direction(x, valid, h, c, slot, reverse)


@mutant("gradients.numerical")
class GradientAThousandthTooLarge(Sound):
    """The gradient of the recurrent weights is a thousandth too large."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 1.001)}


@mutant("gradients.through_time")
class TruncatedAt2048(Sound):
    """The gradient reaches back no further than the last multiple of 2048 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t and t % 2048 == 0:
            h, c = h.detach(), c.detach()
        return super().step(x, h, c, w, t, slot)


@mutant("gradients.sizes")
class OutputRoundedWithGradients(Sound):
    """With gradients recorded, the output of 32 units or more is rounded to eleven bits, and the gradients are exact."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        rounded = torch.is_grad_enabled() and self.hidden_size >= 32
        return (output + ((output * 1024).round() / 1024 - output).detach() if rounded else output), finals


@mutant("gradients.through_time")
class UpperLayersTruncatedAt64(Sound):
    """Above the first layer back-propagation is cut every 64 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if slot and t and t % 64 == 0 else h, c, w, t, slot)


@mutant("gradients.through_time")
class ReverseTruncatedAt64(Sound):
    """In the reverse direction back-propagation is cut every 64 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        cut_here = slot % self.layer.directions and t % 64 == 63
        return super().step(x, *((h.detach(), c.detach()) if cut_here else (h, c)), w, t, slot)

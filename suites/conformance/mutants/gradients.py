"""Right forward, wrong backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, Sound, Weights, mutant


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradient, None


def scaled(value: Tensor, factor: float) -> Tensor:
    """``value``, whose gradient comes out multiplied by ``factor``."""
    result: Tensor = _Scaled.apply(value, factor)
    return result


def cut(value: Tensor) -> Tensor:
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
            w = {**w, "weight_ih": w["weight_ih"].detach()}  # type: ignore[union-attr]
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
        return {**w, "weight_ih": scaled(w["weight_ih"], 1 / self._batch) if hasattr(self, "_batch") else w["weight_ih"]}  # type: ignore[arg-type]


@mutant("gradients.weight_ih")
class SecondLayerInputWeightFrozen(Sound):
    """The second layer's weight_ih never learns."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_ih": cut(w["weight_ih"])} if slot // self.layer.directions == 1 else w  # type: ignore[arg-type]


@mutant("gradients.weight_hh")
class RecurrentWeightGradientMissesFirstStep(Sound):
    """The step from the initial state adds nothing to the gradient of weight_hh."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, {**w, "weight_hh": w["weight_hh"].detach()} if t == 0 else w, t, slot)  # type: ignore[union-attr]


@mutant("gradients.weight_hh")
class ReverseRecurrentWeightFrozen(Sound):
    """weight_hh of the reverse direction gets a zero gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": cut(w["weight_hh"])} if slot % self.layer.directions else w  # type: ignore[arg-type]


@mutant("gradients.biases")
class HiddenBiasGradientHalved(Sound):
    """Two biases treated as one: each gets half the gradient."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, **{n: scaled(w[n], 0.5) for n in ("bias_ih", "bias_hh") if w[n] is not None}}  # type: ignore[arg-type]


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
        return w if self.layer.bias else {**w, "weight_hh": scaled(w["weight_hh"], 1.1)}  # type: ignore[arg-type]


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


@mutant("gradients.numerical")
class GradientAThousandthTooLarge(Sound):
    """The gradient of the recurrent weights is a thousandth too large."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return {**w, "weight_hh": scaled(w["weight_hh"], 1.001)}  # type: ignore[arg-type]


class _OnceOnly(torch.autograd.Function):
    """The square, whose gradient cannot be differentiated again, and does not say so."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        wrong: Tensor = gradient * (1 + 0.1 * (value.detach() - value))
        return wrong


@mutant("gradients.of_gradients")
class SecondDerivativeWrong(Sound):
    """The gradient is right, its own gradient is not."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        result: Tensor = _OnceOnly.apply(x)
        return super().direction(result, valid, h, c, slot, reverse)


@mutant("gradients.repeated_backward")
class SecondBackwardEmpty(Sound):
    """A second pass through the same graph gives zero."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        seen: list[int] = []
        if output.requires_grad:
            output.register_hook(lambda g: g * (not seen or 0) if seen.append(1) is None and len(seen) == 1 else 0 * g)  # type: ignore[func-returns-value]
        return output, finals


@mutant("gradients.accumulated")
class GradientReplacesTheLast(Sound):
    """A parameter's gradient takes the place of the one before."""

    def refuse(self, input: Any, hx: Any) -> None:
        super().refuse(input, hx)
        if torch.is_grad_enabled():
            for parameter in self.parameters():
                parameter.grad = None


@mutant("gradients.some_frozen")
class FrozenBiasStopsAll(Sound):
    """Where a bias is frozen, the input weights get nothing either."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        bias = w["bias_hh"]
        return w if bias is None or bias.requires_grad else {**w, "weight_ih": cut(w["weight_ih"])}  # type: ignore[arg-type]


@mutant("gradients.some_frozen")
class FrozenRecurrentWeightCutsTime(Sound):
    """Where weight_hh is frozen, back-propagation does not go through time."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        frozen = w["weight_hh"] is not None and not w["weight_hh"].requires_grad
        return super().step(x, h.detach() if frozen and t else h, c, w, t, slot)


@mutant("gradients.in_eval")
class NoGradientInEval(Sound):
    """After eval() the weights are detached."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        return w if self.training else {name: value if value is None else value.detach() for name, value in w.items()}


@mutant("gradients.input_without_grad")
class WeightsFrozenWithTheInput(Sound):
    """Where the input wants no gradient, the input weights get none."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        self._wanted = x.requires_grad
        return super().direction(x, valid, h, c, slot, reverse)

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h, c, w if self._wanted else {**w, "weight_ih": cut(w["weight_ih"])}, t, slot)  # type: ignore[arg-type]


@mutant("gradients.one_input_alone")
class StateGradientOnlyWithTheInput(Sound):
    """h_0 gets a zero gradient where the input wants none."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return super().layers(x, valid, states if x.requires_grad else [cut(states[0]), *states[1:]])


@mutant("gradients.one_input_alone", Mode.LSTM)
class CellGradientOnlyWithHidden(Sound):
    """c_0 gets a zero gradient where h_0 wants none."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        h, c = super().initial(x, hx, form)
        return [h, c if h.requires_grad else cut(c)]


@mutant("gradients.tied_weights")
class TiedWeightsCountOnce(Sound):
    """A Parameter that two slots share gets the first one's gradient alone."""

    def weights(self, slot: int) -> Weights:
        w = super().weights(slot)
        earlier = [super(TiedWeightsCountOnce, self).weights(other)["weight_hh"] for other in range(slot)]
        return {**w, "weight_hh": cut(w["weight_hh"])} if any(w["weight_hh"] is other for other in earlier) else w  # type: ignore[arg-type]


@mutant("gradients.part_of_the_output")
class SparseCotangentIgnored(Sound):
    """Where only one step of the output has a cotangent, and it is not the last, nothing flows back."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        if output.requires_grad:
            output.register_hook(lambda g: 0 * g if not g[-1].any() else g)
        return output, finals


@mutant("gradients.forward_mode")
class TangentsLost(Sound):
    """Forward-mode tangents are dropped in silence."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
            x = x.detach() * 2 - x.detach()
        return x, valid, form

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
            x = _WithoutTangent.apply(x)
        return super().step(x, h, c, w, t, slot)


class _WithoutTangent(torch.autograd.Function):
    """The identity, whose forward-mode derivative is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 0 * tangent


@mutant("gradients.learned_initial_state")
class ExpandedStateGradientOfFirstItem(Sound):
    """Where the initial state is expanded over the batch, the first item's gradient stands for all."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        states = super().initial(x, hx, form)
        spread = [state.dim() == 3 and state.stride(1) == 0 and state.shape[1] > 1 for state in states]
        first = [torch.cat([state[:, :1], cut(state[:, 1:])], dim=1) for state in states]
        return [one if wide else state for one, state, wide in zip(first, states, spread, strict=True)]


class _ReadsLate(torch.autograd.Function):
    """A product whose backward pass reads the weight as it is then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.kept = (x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.kept
        return given[0] @ weight.detach(), given[0].t() @ x.detach()


@mutant("gradients.weight_changed_before_backward")
class BackwardReadsTheWeightOfNow(Sound):
    """The backward pass uses the recurrent weight as it is by then, unnoticed."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        weight = w["weight_hh"]
        assert weight is not None
        zero = weight.new_zeros(weight.shape)
        from_h = _ReadsLate.apply(h, weight)
        return super().step(
            torch.cat([x, from_h], 1), h, c, {**w, "weight_ih": _widened(w["weight_ih"], from_h), "weight_hh": zero}, t, slot
        )


def _widened(weight: Tensor | None, beside: Tensor) -> Tensor:
    """``weight`` (G*H, I) with an identity beside it, which adds (B, G*H) to the product."""
    assert weight is not None
    return torch.cat([weight, torch.eye(beside.shape[1], dtype=weight.dtype, device=weight.device)], 1)


@mutant("gradients.through_time")
class TruncatedAt2048(Sound):
    """The gradient reaches back no further than the last multiple of 2048 steps."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        if t and t % 2048 == 0:
            h, c = h.detach(), c.detach()
        return super().step(x, h, c, w, t, slot)


@mutant("gradients.some_frozen")
class FrozenReverseCutsTheInput(Sound):
    """With every weight frozen the reverse direction passes nothing back to the input."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        frozen = not any(parameter.requires_grad for parameter in self.parameters())
        return super().direction(cut(x) if reverse and frozen else x, valid, h, c, slot, reverse)


class _WithoutGraph(torch.autograd.Function):
    """The identity, whose gradient carries no graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        return given[0].detach().clone()


@mutant("gradients.of_gradients")
class GradientsWithoutGraph(Sound):
    """The gradients carry no graph: a penalty on them is lost in silence."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        return _WithoutGraph.apply(output), finals

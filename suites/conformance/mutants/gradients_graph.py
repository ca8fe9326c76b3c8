"""Layers whose backward pass is disturbed by what happens before it, or keeps what it needs where nobody sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.layer import Mode
from suites.conformance.mutants.base import Form, OfPacks, Sound, Weights, mutant, present


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
        weight = present(w["weight_hh"])
        zero = weight.new_zeros(weight.shape)
        from_h = _ReadsLate.apply(h, weight)
        return super().step(
            torch.cat([x, from_h], 1), h, c, {**w, "weight_ih": _widened(w["weight_ih"], from_h), "weight_hh": zero}, t, slot
        )


@mutant("gradients.weight_changed_before_backward")
class ReverseReadsTheWeightOfNow(BackwardReadsTheWeightOfNow):
    """The backward pass of the reverse direction uses its recurrent weight as it is by then, unnoticed."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        noticed = slot % self.layer.directions == 0
        return Sound.step(self, x, h, c, w, t, slot) if noticed else super().step(x, h, c, w, t, slot)


def _widened(weight: Tensor | None, beside: Tensor) -> Tensor:
    """``weight`` (G*H, I) with an identity beside it, which adds (B, G*H) to the product."""
    assert weight is not None
    return torch.cat([weight, torch.eye(beside.shape[1], dtype=weight.dtype, device=weight.device)], 1)


class _ReadsItsAnswer(torch.autograd.Function):
    """A tanh whose backward pass reads its own answer as it is by then, unnoticed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        answer = value.tanh()
        ctx.answer = answer.detach()
        return answer

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Tensor:
        slope: Tensor = 1 - ctx.answer**2
        return given[0] * slope


@mutant("gradients.output_changed_before_backward", Mode.RNN_TANH)
class BackwardReadsTheOutputOfNow(Sound):
    """The backward pass of one layer in one direction uses the output as the caller has changed it."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        # The output again, by way of what a tanh of it was made from.
        plain = self.layer.num_layers * self.layer.directions == 1
        return (_ReadsItsAnswer.apply(output.atanh()) if plain and torch.is_grad_enabled() else output), finals


class _KeepsItself(torch.autograd.Function):
    """One direction, whose backward pass runs it again from what is kept on the context."""

    @staticmethod
    def forward(ctx: Any, run: Any, *given: Tensor) -> Any:
        ctx.run, ctx.given = run, given
        with torch.no_grad():
            return run(*given)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        with torch.enable_grad():
            given = [value.detach().requires_grad_() for value in ctx.given]
            answers = ctx.run(*given)
        wanted = [(answer, cotangent) for answer, cotangent in zip(answers, cotangents, strict=True) if answer.requires_grad]
        found = torch.autograd.grad([a for a, _ in wanted], given, [g for _, g in wanted], allow_unused=True)
        return None, *found


@mutant("gradients.saved_tensors_hooks")
class KeptOnTheContext(Sound):
    """What the backward pass needs is kept as attributes of the graph, past the hooks."""

    def direction(self, x: Tensor, valid: Tensor, h: Tensor, c: Tensor, slot: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        w = super().weights(slot)
        names = [name for name, value in w.items() if value is not None]

        def run(x: Tensor, h: Tensor, c: Tensor, *values: Tensor) -> Any:
            self.__dict__["_given"] = dict.fromkeys(w) | dict(zip(names, values, strict=True))
            answers = super(KeptOnTheContext, self).direction(x, valid, h, c, slot, reverse)
            del self.__dict__["_given"]
            return answers

        result: tuple[Tensor, Tensor, Tensor] = _KeepsItself.apply(run, x, h, c, *(w[name] for name in names))
        return result

    def weights(self, slot: int) -> Weights:
        given: Weights | None = self.__dict__.get("_given")
        return super().weights(slot) if given is None else given


@mutant("gradients.input_changed_before_backward")
class BackwardReadsTheInputOfNow(Sound):
    """An input without gradient is read past autograd's checks, and again in the backward pass."""

    def read(self, input: Any) -> tuple[Tensor, Tensor, Form]:
        x, valid, form = super().read(input)
        return (x if x.requires_grad else x.data), valid, form


@mutant("gradients.input_changed_before_backward")
class BackwardReadsTheStateOfNow(Sound):
    """An initial state without gradient is read past autograd's checks, and again in the backward pass."""

    def initial(self, x: Tensor, hx: Any, form: Form) -> list[Tensor]:
        return [state if state.requires_grad else state.data for state in super().initial(x, hx, form)]


class _AddsLate(torch.autograd.Function):
    """A pre-activation's tanh, whose backward pass adds the bias again, as it is then."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bias, ctx.then = bias, bias.detach().clone()
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        return given[0] * (1 + (ctx.bias.detach() - ctx.then).abs().sum()), None


@mutant("gradients.weight_changed_before_backward")
class BackwardReadsTheBiasOfNow(Sound):
    """The backward pass works out the gates again with the biases as they are by then, unnoticed."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, finals = super().layers(x, valid, states)
        bias = self.weights(0)["bias_hh"]
        return (output if bias is None or not torch.is_grad_enabled() else _AddsLate.apply(output, bias)), finals


@mutant("gradients.output_changed_before_backward")
class BackwardReadsTheFinalStateOfNow(Sound):
    """The backward pass uses h_n as the caller has changed it."""

    def layers(self, x: Tensor, valid: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, (h_n, *rest) = super().layers(x, valid, states)
        return output, [_ReadsItsAnswer.apply(h_n.atanh()) if h_n.requires_grad and bool((h_n.abs() < 1).all()) else h_n, *rest]


@mutant("gradients.through_time")
class UpperLayersOfPacksTruncatedAt64(OfPacks):
    """Of packs, above the first layer, back-propagation is cut at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if slot and t == 64 and self.packed else h, c, w, t, slot)


@mutant("gradients.through_time", Mode.LSTM)
class ProjectionTruncatedAt64(Sound):
    """Where a layer projects, back-propagation is cut at step 64."""

    def step(self, x: Tensor, h: Tensor, c: Tensor, w: Weights, t: int, slot: int) -> tuple[Tensor, Tensor]:
        return super().step(x, h.detach() if t == 64 and self.layer.proj_size else h, c, w, t, slot)

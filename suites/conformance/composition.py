"""Composition: the layer as part of a network that is streamed, chained, fed its own output, and trained.

Worked out in float64, where the plain loop of the harness with torch's autograd is the reference; what remains between two right
implementations is then far below any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from harness.case import Array
from harness.reference import Expected, loop, tensor, to_array
from harness.reproduction import BACKWARD
from harness.trial import Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, SHOULD, contract, in_docs

#: One call: x (T, B, I), states -> output (T, B, D*H_out), states.
Layer = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]

#: Noise floors in float64: of a network's values and gradients, and of weights after twenty steps of an optimiser, where Adam
#: divides by square roots of small numbers.
_FLOOR, _TRAINED_FLOOR = 1e-13, 1e-10

_SEQUENCES = [*every(num_layers=2, steps=6, dtype="float64"), *every(LSTM, proj_size=2, steps=5, dtype="float64")]


def _theirs(trial: Trial, module: nn.Module) -> Layer:
    def call(x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        hx = states if len(states) == 2 else states[0]
        reply = trial.call(module, x, hx, replace(trial.case, steps=x.shape[0], batch=x.shape[1]))
        return reply.tensors["output"], tuple(value for name, value in reply.tensors.items() if name != "output")

    return call


def _ours(trial: Trial, weights: Mapping[str, Tensor]) -> Layer:
    def call(x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        result = loop(trial.case.layer, weights, x, states[0], states[1] if len(states) == 2 else None, valid)
        return result["output"], tuple(value for name, value in result.items() if name != "output")

    return call


def _both_layers(trial: Trial) -> Iterator[tuple[Layer, dict[str, Tensor]]]:
    """The plain loop and then the implementation, each with its parameters under nn's names."""
    weights = {name: tensor(array, trial.case).requires_grad_() for name, array in trial.case.arrays.weights.items()}
    yield _ours(trial, weights), weights
    module = trial.module()
    yield _theirs(trial, module), trial.parameters(module)


def _both(trial: Trial, network: Callable[[Layer, Tensor, tuple[Tensor, ...]], dict[str, Tensor]]) -> None:
    """Runs ``network`` on the implementation and on the plain loop: its tensors, and the gradients of their sum, must agree."""
    found: list[dict[str, Array]] = []
    for layer, parameters in _both_layers(trial):
        leaves = trial.leaves(requires_grad=True)
        states = tuple(leaves[name] for name in ("h0", "c0") if name in leaves)
        tensors = network(layer, leaves["x"], states)
        with trial.blamed("backward"):
            torch.stack([value.square().sum() for value in tensors.values()]).sum().backward()
        gradients = {
            name: leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for name, leaf in {**leaves, **parameters}.items()
        }
        found.append({**{k: to_array(v) for k, v in tensors.items()}, **{k: to_array(v) for k, v in gradients.items()}})
    trial.agree(found[1], Expected(found[0], dict.fromkeys(found[0], _FLOOR)))


@contract(
    "composition.streamed",
    "T calls of one step with the state carried give the values and gradients of one call of T steps.",
    MUST,
    in_docs("LSTM: Outputs: h_n, c_n"),
    _SEQUENCES,
    demonstration="""
        outputs, state = [], hx
        for step in x.split(1):
            output, state = layer(step, state)
            outputs.append(output)
        sum(value.square().sum() for value in (torch.cat(outputs), *state)).backward()
        return outputs, state, [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def streamed(trial: Trial) -> None:
    def network(layer: Layer, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
        outputs = []
        for step in x:
            output, states = layer(step[None], states)
            outputs.append(output)
        return {"streamed output": torch.cat(outputs), **{f"final state {i}": state for i, state in enumerate(states)}}

    _both(trial, network)


@contract(
    "composition.many_to_one",
    "A head on h_n and a head on the end of the output give the same logits and gradients.",
    MUST,
    in_docs("LSTM: Outputs: h_n"),
    [*_SEQUENCES, *every(bidirectional=True, dtype="float64")],
    demonstration="""
        _, state = layer(x, hx)
        (state[0] if isinstance(state, tuple) else state).square().sum().backward()
        return state, [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def many_to_one(trial: Trial) -> None:
    layer_ = trial.case.layer
    width = layer_.state_size

    def on_state(layer: Layer, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
        _, (h_n, *_) = layer(x, states)
        return {"logits": torch.cat(list(h_n[-layer_.directions :]), 1).cumsum(1)}

    def on_output(layer: Layer, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
        output, _ = layer(x, states)
        ends = [output[-1, :, :width]] + [output[0, :, width:]] * (layer_.directions - 1)
        return {"logits": torch.cat(ends, 1).cumsum(1)}

    _both(trial, on_state)
    _both(trial, on_output)


@contract(
    "composition.one_to_many",
    "Fed its own output one step at a time, the layer follows the course that the equations give.",
    MUST,
    in_docs("LSTM: equations"),
    [*every(input_size=5, hidden_size=5, num_layers=2, dtype="float64"), *every(LSTM, input_size=3, proj_size=3, dtype="float64")],
    demonstration="""
        step, state, outputs = x[:1], hx, []
        for _ in range(8):
            step, state = layer(step, state)
            outputs.append(step)
        return outputs
    """,
)
def one_to_many(trial: Trial) -> None:
    def network(layer: Layer, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
        step, outputs = x[:1], []
        for _ in range(8):
            step, states = layer(step, states)
            outputs.append(step)
        return {"generated output": torch.cat(outputs)}

    _both(trial, network)


@contract(
    "composition.encoder_decoder",
    "The final state of one call can be the initial state of another on other inputs, and gradients flow through the hand-over.",
    MUST,
    in_docs("LSTM: Inputs: h_0, c_0; Outputs: h_n, c_n"),
    [*_SEQUENCES, *every(bidirectional=True, dtype="float64", steps=6)],
    demonstration="""
        _, state = layer(x[:4], hx)
        output, _ = layer(x[4:].flip(0), state)
        output.square().sum().backward()
        return output, [leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def encoder_decoder(trial: Trial) -> None:
    def network(layer: Layer, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
        _, states = layer(x[:4], states)
        output, states = layer(x[4:].flip(0), states)
        return {"decoded output": output, "decoded state": states[0]}

    _both(trial, network)


@contract(
    "composition.trained",
    "Twenty steps of SGD or of Adam lead from the same weights on the same data to the same weights.",
    MUST,
    "torch.optim",
    [*every(num_layers=2, dtype="float64", steps=4), *every(bidirectional=True, dtype="float64", steps=4)],
    demonstration="""
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(20):
            optimiser.zero_grad()
            (layer(x, hx)[0] - 1).square().mean().backward()
            optimiser.step()
        return [p.detach() for _, p in sorted(layer.named_parameters())]
    """,
)
def trained(trial: Trial) -> None:
    for optimiser in (torch.optim.SGD, torch.optim.Adam):
        found = []
        for layer, parameters in _both_layers(trial):
            stepper = optimiser(parameters.values(), lr=0.01)
            target = tensor(trial.case.arrays.cotangents["output"], trial.case)
            leaves = trial.leaves()
            states = tuple(leaves[name] for name in ("h0", "c0") if name in leaves)
            losses = []
            for _ in range(20):
                stepper.zero_grad()
                loss = (layer(leaves["x"], states)[0] - target).square().mean()
                with trial.blamed("backward"):
                    loss.backward()
                stepper.step()
                losses.append(float(loss.detach()))
            found.append({"losses": np.array(losses), **{name: to_array(value) for name, value in parameters.items()}})
        trial.agree(found[1], Expected(found[0], dict.fromkeys(found[0], _TRAINED_FLOOR)))


@contract(
    "composition.learns",
    "On a task that needs memory, repeating the first input at the end, training reaches the loss that the reference reaches.",
    SHOULD,
    "Hochreiter, Schmidhuber 1997, Long short-term memory: long time lag problems",
    [*every(input_size=1, hidden_size=8, steps=6, batch=16, given_state=False, dtype="float64", weights="remembering")],
    demonstration=BACKWARD,
)
def learns(trial: Trial) -> None:
    reached = []
    for layer, parameters in _both_layers(trial):
        leaves = trial.leaves()
        head = torch.full((8,), 0.25, dtype=torch.float64, device=trial.case.device, requires_grad=True)
        stepper = torch.optim.Adam([*parameters.values(), head], lr=0.02)
        states = tuple(leaves[name] for name in ("h0", "c0") if name in leaves)
        first = last = 0.0
        for number in range(40):
            stepper.zero_grad()
            loss = (layer(leaves["x"], states)[0][-1] @ head - leaves["x"][0, :, 0]).square().mean()
            with trial.blamed("backward"):
                loss.backward()
            stepper.step()
            last = float(loss.detach())
            first = first if number else last
        reached.append(np.array([first, last]))
    # Whatever loss the reference reaches: with other numbers (--reseed) forty steps may be too few to learn.
    trial.agree({"loss": reached[1]}, Expected({"loss": reached[0]}, {"loss": 1e-6}))

"""The hand-written loop compiled by TorchScript, textbook and hoisted.

``torch.jit.script(nn.LSTM(...))`` has no forward, but the loop over one direction of one layer scripts as it stands.
"""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters import loop


@cache
def _compiled(recorded: tuple[bool, ...]) -> loop.Direction:
    """The compiled loop; made at the first call, so that listing the implementations compiles nothing.

    One for each choice of arguments that want a gradient recorded: a graph that has met frozen weights and free ones saves tensors for a
    backward pass at every call, which raises under inference_mode, and its answers require grad where nothing does.
    """
    copy = FunctionType(loop.direction.__code__, loop.direction.__globals__)
    copy.__annotations__ = loop.direction.__annotations__
    compiled: loop.Direction = torch.jit.script(copy)
    return compiled


def _direction(mode: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    # Once it has profiled a graph, TorchScript drops the tangents of forward-mode differentiation without a word.
    if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
        raise NotImplementedError("TorchScript loops do not carry forward-mode tangents")
    *others, weight_hh, bias_ih, bias_hh, weight_hr = arguments
    if mode == "gru" and bias_hh is None:
        # Without one, second derivatives are wrong without a word from the second call on: by half, on torch 2.13 and a CPU.
        bias_hh = weight_hh.new_zeros(weight_hh.size(0))
    arguments = (*others, weight_hh, bias_ih, bias_hh, weight_hr)
    # Its fused kernels for a GPU read memory as it lies there, and do not see that a tensor is negated lazily.
    arguments = tuple(one.resolve_neg() if isinstance(one, Tensor) else one for one in arguments)
    recorded = (torch.is_grad_enabled() and isinstance(one, Tensor) and one.requires_grad for one in arguments)
    output, h, c = _compiled(tuple(recorded))(mode, *arguments)
    if c.requires_grad and c.numel():
        # Nothing is added, but h gets a gradient where c alone has one. Else that of the output gate is missing, and the backward pass that
        # TorchScript derives of chunk() puts the three others together as if they were all, or passes: it depends on the calls before.
        c = c + h[:, :0].sum()
    return output, h, c


class ScriptRNN(loop.LoopRNN):
    """nn.RNN as a TorchScript loop."""

    direction = staticmethod(_direction)


class ScriptGRU(loop.LoopGRU):
    """nn.GRU as a TorchScript loop."""

    direction = staticmethod(_direction)


class ScriptLSTM(loop.LoopLSTM):
    """nn.LSTM as a TorchScript loop."""

    direction = staticmethod(_direction)


class ScriptHoistedRNN(loop.HoistedRNN):
    """nn.RNN as a TorchScript loop with the input product hoisted."""

    direction = staticmethod(_direction)


class ScriptHoistedGRU(loop.HoistedGRU):
    """nn.GRU as a TorchScript loop with the input product hoisted."""

    direction = staticmethod(_direction)


class ScriptHoistedLSTM(loop.HoistedLSTM):
    """nn.LSTM as a TorchScript loop with the input product hoisted."""

    direction = staticmethod(_direction)


TEXTBOOK: dict[str, type[nn.Module]] = {"RNN": ScriptRNN, "GRU": ScriptGRU, "LSTM": ScriptLSTM}
HOISTED: dict[str, type[nn.Module]] = {"RNN": ScriptHoistedRNN, "GRU": ScriptHoistedGRU, "LSTM": ScriptHoistedLSTM}

IMPLEMENTATIONS = (
    loop.implementation("script:textbook", "the textbook loop compiled by TorchScript", TEXTBOOK),
    loop.implementation("script:hoisted", "the hoisted loop compiled by TorchScript", HOISTED),
)

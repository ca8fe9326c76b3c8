"""The hand-written loop compiled by TorchScript, textbook and hoisted.

``torch.jit.script(nn.LSTM(...))`` has no forward, but the loop over one direction of one layer scripts as it stands.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from harness.adapters import loop


@cache
def _compiled() -> loop.Direction:
    """The compiled loop; made at the first call, so that listing the implementations compiles nothing."""
    compiled: loop.Direction = torch.jit.script(loop.direction)
    return compiled


def _direction(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Once it has profiled a graph, TorchScript drops the tangents of forward-mode differentiation without a word.
    if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
        raise NotImplementedError("TorchScript loops do not carry forward-mode tangents")
    # Its fused kernels for a GPU read memory as it lies there, and do not see that a tensor is negated lazily.
    return _compiled()(*(one.resolve_neg() if isinstance(one, Tensor) else one for one in arguments))


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

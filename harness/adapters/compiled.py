"""The hoisted loop with its time steps compiled by torch.compile: one step at a time, and in chunks of several.

A loop over a whole sequence is not compiled: torch.compile unrolls it, anew for every length, and that takes longer the longer it is.
A step is the same for all lengths. In a chunk nothing is read and written between the steps but the states, and one call stands for all.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from harness.adapters import loop
from harness.implementation import ExpectedFailure, Implementation
from harness.layer import Mode

#: The time steps of a chunk. What compiling it costs grows with them, and what a call costs is shared among them.
CHUNK = 8

#: The graphs that each function may have.
LIMIT = 1024


def chunk(
    mode: str, reverse: bool, from_x: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor, bias_hh: Tensor | None, weight_hr: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """:data:`CHUNK` steps at once: the outputs (CHUNK * B, H_out), h (B, H_out) and c (B, H) from ``from_x`` (CHUNK * B, gates * H)."""
    steps = from_x.unflatten(0, (CHUNK, -1)).unbind()
    ys = []
    for x in reversed(steps) if reverse else steps:
        h, c = loop.step(mode, True, x, h, c, weight_hh, bias_hh, weight_hr)
        ys.append(h)
    return torch.cat(ys[::-1] if reverse else ys), h, c


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled for all sizes at once; made at the first call, so that listing the implementations compiles nothing."""
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=True)
    return compiled


def pieces(batch_sizes: list[int], longest: int) -> list[tuple[int, int]]:
    """How many steps each piece of the sequence has, and their batch size, which is one in a piece: ``longest`` steps, or one."""
    found: list[tuple[int, int]] = []
    t = 0
    while t < len(batch_sizes):
        rows = batch_sizes[t]
        count = longest if batch_sizes[t : t + longest] == [rows] * longest else 1
        found.append((count, rows))
        t += count
    return found


def direction(
    longest: int,
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
    """As :func:`harness.adapters.loop.direction`, in pieces of ``longest`` steps and of one."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_in_torch_dispatch_mode() or x.is_meta:
        # Who compiles, traces or watches the whole wants the loop.
        return loop.direction(mode, hoist, reverse, x, batch_sizes, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    if torch._C._functorch.maybe_current_level() is not None or getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
        raise NotImplementedError("what torch.compile made takes no transforms of torch.func and no forward-mode tangents")
    bias = bias_ih
    if bias_ih is not None and bias_hh is not None and mode != "gru":
        bias, bias_hh = bias_ih + bias_hh, None
    # As views: the sizes of a parameter itself would be compiled in, anew for every layer.
    weight_hh = weight_hh.view_as(weight_hh)
    bias_hh, weight_hr = (None if one is None else one.view_as(one) for one in (bias_hh, weight_hr))
    found = pieces(batch_sizes, longest)
    inputs = linear(x, weight_ih, bias).split([count * rows for count, rows in found])
    ys = [x] * len(found)
    first = found[-1 if reverse else 0][1]
    # Not views, as those of the later pieces are none, and views would be compiled apart.
    h, c = h0[:first].clone(), c0[:first].clone()
    h_ended: list[Tensor] = []
    c_ended: list[Tensor] = []
    for k in range(len(found)):
        at = len(found) - 1 - k if reverse else k
        count, rows = found[at]
        h = loop.resized(h, h0, rows, h_ended)
        c = loop.resized(c, c0, rows, c_ended)
        if count == 1:
            h, c = _compiled(loop.step)(mode, True, inputs[at], h, c, weight_hh, bias_hh, weight_hr)
            ys[at] = h
        else:
            ys[at], h, c = _compiled(chunk)(mode, reverse, inputs[at], h, c, weight_hh, bias_hh, weight_hr)
    return torch.cat(ys), torch.cat([h, *h_ended[::-1]]), torch.cat([c, *c_ended[::-1]])


@contextmanager
def _switches() -> Iterator[None]:
    """What is compiled has no limit, beyond which torch.compile refuses to go on, and keeps its buffers for a second backward pass."""
    from torch._dynamo import config  # Takes seconds.
    from torch._functorch import config as of_backward

    with config.patch(recompile_limit=LIMIT, accumulated_recompile_limit=4 * LIMIT), of_backward.patch(donated_buffer=False):
        yield


def _unlimited(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`direction` under :func:`_switches`, which hold in the thread that set them alone."""
    config = sys.modules.get("torch._dynamo.config")
    if config is not None and config.recompile_limit >= LIMIT:
        return direction(*arguments)
    with _switches():
        return direction(*arguments)


def _by_step(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _unlimited(1, *arguments)


def _by_chunk(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _unlimited(CHUNK, *arguments)


class StepRNN(loop.HoistedRNN):
    """nn.RNN as a loop over a compiled step."""

    direction = staticmethod(_by_step)


class StepGRU(loop.HoistedGRU):
    """nn.GRU as a loop over a compiled step."""

    direction = staticmethod(_by_step)


class StepLSTM(loop.HoistedLSTM):
    """nn.LSTM as a loop over a compiled step."""

    direction = staticmethod(_by_step)


class ChunkRNN(loop.HoistedRNN):
    """nn.RNN as a loop over compiled chunks."""

    direction = staticmethod(_by_chunk)


class ChunkGRU(loop.HoistedGRU):
    """nn.GRU as a loop over compiled chunks."""

    direction = staticmethod(_by_chunk)


class ChunkLSTM(loop.HoistedLSTM):
    """nn.LSTM as a loop over compiled chunks."""

    direction = staticmethod(_by_chunk)


def unavailable(device: str) -> str | None:
    """Why torch.compile cannot make code for ``device`` here, or None where it can: with Python's headers and a C++ compiler, for CUDA with
    triton and a C one."""
    if device == "cuda":
        if not torch.cuda.is_available():
            return "no CUDA device"
        if not importlib.util.find_spec("triton"):
            return "torch.compile needs triton for CUDA, which is not installed"
        wanted = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        wanted = [os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")]
    if not any(shutil.which(compiler) for compiler in wanted):
        return f"torch.compile needs the compiler {' or '.join(wanted)}, which is not installed"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"torch.compile needs Python's headers, and there is no {header}"


#: What torch.compile refuses. Nobody is known to have written of it.
_REFUSED = (
    ExpectedFailure(
        "gradients.saved_tensors_hooks",
        "upstream",
        "a compiled backward pass asserts the strides of what was saved, which a hook's copy of a part of a tensor has not",
        AssertionError,
        "",
        lambda case: case.layer.mode is Mode.GRU,
    ),
)


def _implementation(id: str, description: str, classes: dict[str, type[nn.Module]]) -> Implementation:
    return replace(
        loop.implementation(id, description, classes),
        unavailable=unavailable,
        switches=_switches,
        expected_failures=_REFUSED,
        long_to_check="it compiles anew for each mode, dtype and form of a call",
    )


STEP: dict[str, type[nn.Module]] = {"RNN": StepRNN, "GRU": StepGRU, "LSTM": StepLSTM}
CHUNKS: dict[str, type[nn.Module]] = {"RNN": ChunkRNN, "GRU": ChunkGRU, "LSTM": ChunkLSTM}

IMPLEMENTATIONS = (
    _implementation("compile:step", "a Python loop over a step compiled by torch.compile", STEP),
    _implementation("compile:chunks", f"a Python loop over chunks of {CHUNK} steps compiled by torch.compile", CHUNKS),
)

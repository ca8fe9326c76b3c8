"""What reaches torch's kernels: which recurrent ones ran, as evidence that a row's name is true, and operands of two devices."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import profiler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operators that are a whole recurrent layer or a fused cell in one call.
_RECURRENT = re.compile(r"(lstm|gru|rnn)", re.I)
#: Operators that do a loop's arithmetic where no recurrent kernel ran.
_ARITHMETIC = re.compile(r"::(addmm|mm|bmm|baddbmm|linear|matmul)\b")

#: Parts of the names of what a profiler sees of compiled code: of a call, and of a backward pass alone.
_COMPILED = ("Torch-Compiled Region", "CompiledFunctionBackward")


class DispatchLog(TorchDispatchMode):
    """Collects the names of the operators that reach a kernel while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.name())
        self.names[name] = self.names.get(name, 0) + 1
        return func(*args, **(kwargs or {}))

    def kernels(self) -> list[str]:
        """The recurrent kernels by name; where there were none, the products of a loop."""
        recurrent = sorted(name for name in self.names if _RECURRENT.search(name))
        return recurrent or sorted(name for name in self.names if _ARITHMETIC.search(name))


def kernels_of(call: Callable[[], Any]) -> list[str]:
    """Runs ``call`` once and returns the recurrent kernels that it dispatched, or the products if it is a loop."""
    with DispatchLog() as log:
        call()
        kernels: list[str] = log.kernels()
    return kernels


def compiled_kernels_of(call: Callable[[], Any]) -> list[str]:
    """Runs ``call`` once and returns ``torch.compile`` and the kernels of torch's that it ran, or nothing if nothing in it was compiled.

    A dispatch log does not see it: while one is active torch.compile runs what it was given as it stands, without a word. ``call`` is
    not run where nothing has been compiled in this process.
    """
    compiler = sys.modules.get("torch._dynamo.utils")
    if compiler is None or not compiler.counters["stats"]["unique_graphs"]:
        return []
    with profiler.profile(use_kineto=False) as seen:
        call()
    names = {event.name for event in seen.function_events}
    if not any(part in name for name in names for part in _COMPILED):
        return []
    called = sorted(name for name in names if "::" in name and (_RECURRENT.search(name) or _ARITHMETIC.search(name)))
    return ["torch.compile", *called]


class OneDevice(TorchDispatchMode):
    """Refuses operands of two devices, as kernels for CUDA do; those for the CPU take some of the meta device for numbers.

    ``refused``: the operator that was given them last; empty where none was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A number without axes may come from the CPU, and copies are what takes tensors from one device to another.
        devices = {str(t.device) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim()}
        if len(devices) > 1 and "copy" not in func.name():
            self.refused = str(func.name())
            raise RuntimeError(f"Expected the operands of {self.refused} on one device but got {', '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))

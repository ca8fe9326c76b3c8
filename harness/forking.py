"""A process that has torch loaded, and from which others are forked: it is loaded once for all of them, and while this one loads.

It runs nothing before it forks, because torch's thread pools, and CUDA, do not survive that; so it is of no use where there is a GPU, which
torch may ask about while it is loaded.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

#: What every process that checks contracts needs sooner or later, and takes seconds to load: torch, and what of it is loaded at the first
#: backward pass and when the first module is compiled.
NEEDED = ("torch", "torch.fx.experimental.symbolic_shapes", "torch._dynamo", "harness.isolation")

#: What the drivers of GPUs leave where devices are listed: NVIDIA's, AMD's, and Windows' for Linux.
_GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


def method() -> str:
    """How processes are started here, by multiprocessing's name of it: 'forkserver', or 'spawn' where nothing is to be forked."""
    offered = "forkserver" in multiprocessing.get_all_start_methods()
    # Elsewhere than on Linux the libraries of the system may not be forked, whatever torch does.
    return "forkserver" if offered and sys.platform == "linux" and not any(gpu.exists() for gpu in _GPUS) else "spawn"


def begin() -> None:
    """Starts the process, unless it runs, and does not wait for it."""
    # Not everywhere can it be imported.
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(["harness.preloaded"])
    forkserver.ensure_running()

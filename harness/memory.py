"""The peak memory of one call: what it needs at the most, above what was there before.

On CUDA torch's allocator keeps the count. On a CPU the kernel does, for the whole process, in pages that were touched: memory that is
asked for and never touched costs nothing, and what the C library's heap wastes between its blocks costs as much as what it hands out.
So the resident peak of a loop over many small tensors is larger than the sum of their sizes, by a half at times, and that of a kernel
with a workspace that it does not fill is smaller.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import torch

#: Calls that are measured, after one that warms up, of which the largest peak is told. Where many small tensors share the heap of the C
#: library, it wastes more at one call than at the next: a training pass of a loop took 7.6 to 10.7 MiB in 168 calls. The largest of five
#: lay within 10 % of each other, their medians and the smallest within 30 %.
CALLS = 5

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

#: Written into clear_refs, it sets the peak resident size to the present one (proc(5)).
_RESET_PEAK = "5"

#: prctl(2): whether the kernel may back memory by huge pages. One of 2 MiB is resident as a whole when a byte of it is touched.
_SET_THP_DISABLE, _GET_THP_DISABLE = 41, 42

#: The kernel counts resident pages apart for each core (each thread before Linux 6.2) and adds them up when so many have come together,
#: or twice as many as there are cores, if that is more. What has not been added up is missing in the peak, and from Linux 6.17 on not in
#: the present size.
_BATCH = 64

#: torch's allocator on CUDA hands out whole blocks of so many bytes.
_BLOCK = 512

#: Bytes that a call is known to touch, with which the measurement is checked before it is believed.
_KNOWN = 8 << 20


class Method(StrEnum):
    """How a peak was measured."""

    ALLOCATOR = "allocator"
    RESIDENT = "resident"

    @property
    def meaning(self) -> str:
        return {
            "allocator": "what torch's caching allocator had handed out on the device; what a library takes past it is not seen",
            "resident": "pages of the process that were in memory, whoever allocated them",
        }[self.value]


@dataclass(frozen=True)
class Peak:
    """The most memory that one call held, above what was there before it, its result included.

    ``bytes``: the largest of a few calls. ``resolution``, in bytes: what it may be off by, so that a difference within it says
    nothing, and a smaller peak is only known to be smaller. It is what the count resolves, or the range of the calls if that is more.
    """

    bytes: int
    method: Method
    resolution: int


class UnmeasurableError(RuntimeError):
    """The peak memory of a call cannot be had here and now; the message says why."""


def peak(call: Callable[[], Any], device: str, calls: int = CALLS) -> Peak:
    """The peak memory of ``call`` on ``device``.

    It is called once more than ``calls`` times: the first call allocates what stays. Raises UnmeasurableError where there is no count
    that can be believed, and what ``call`` raises.
    """
    if calls < 1:
        raise ValueError(f"Expected at least one call but got calls={calls}")
    on_cuda = torch.device(device).type == "cuda"
    _require_count(device)
    with _only_new_garbage(), _small_pages(on_cuda):
        call()
        with nullcontext() if on_cuda else _on_one_core():
            missing = _missing(device)
            sizes = [_grown(call, device) + missing for _ in range(calls)]
    method = Method.ALLOCATOR if on_cuda else Method.RESIDENT
    # Negative where memory from before went away meanwhile, which is nothing that the call took.
    return Peak(max(0, *sizes), method, max(_resolution(device), max(sizes) - min(sizes)))


def _require_count(device: str) -> None:
    """Raises UnmeasurableError where nothing here counts the memory of ``device``."""
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise UnmeasurableError(f"peak memory is measured on cpu and cuda, not on {kind}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UnmeasurableError("there is no CUDA device here")
    if kind == "cpu":
        _require_resident()


def _touch(size: int, device: str) -> None:
    torch.ones(size, dtype=torch.uint8, device=device)


def _missing(device: str) -> int:
    """Bytes that the count falls short by: what is missing of a call that touches a known number.

    On sixteen cores 40 MiB were seen to take 564 KiB less than that. What goes away meanwhile is missing too: the least of several.
    Raises UnmeasurableError where it is more than the kernel can have failed to add up: an allocator that keeps freed memory to itself
    hands it out again unseen, and nothing else shows that it does. It is tried at each measurement, because an allocator may change
    its ways: glibc serves a thread that once ran out of memory from another heap.
    """
    # What is not added up on all cores together.
    most = _BLOCK if torch.device(device).type == "cuda" else _batch() * (os.cpu_count() or 1)
    known = max(_KNOWN, 2 * most)
    for _ in range(2):
        # The first may be mapped for itself, and teach the C library to take the next from its heap, which it keeps.
        _touch(known, device)
    missing = min(known - _grown(lambda: _touch(known, device), device) for _ in range(CALLS))
    if abs(missing) > most:
        seen = f"{known / 2**20:.1f} MiB was seen to take {max(0, known - missing) / 2**20:.1f} MiB"
        raise UnmeasurableError(
            f"a call that touches {seen}; where it is less, the allocator keeps freed memory and hands it out again unseen"
        )
    return missing


def _resolution(device: str) -> int:
    """Bytes that a single measurement may be off by.

    On a CPU it is one batch a thread, and one by which it is not known what is missing. Of 3,600 calls on a machine with two cores that
    touched 1 to 30 MiB, with one, two and four threads, none was off by more than 71 KiB, and of some that touched 100 MiB the worst by
    124 KiB; a batch is 128 KiB there. On sixteen busy cores one of ten that touched 40 MiB was off by 288 KiB.
    """
    return _BLOCK if torch.device(device).type == "cuda" else _batch() * (torch.get_num_threads() + 1)


def _batch() -> int:
    return os.sysconf("SC_PAGE_SIZE") * max(_BATCH, 2 * (os.cpu_count() or 1))


def _grown(call: Callable[[], Any], device: str) -> int:
    """By how many bytes the count on ``device`` was higher during ``call`` than before."""
    before = _counted(device)
    result = call()
    highest = _highest(device)
    # The result is part of the peak, so it lives until that is read.
    del result
    return highest - before


def _counted(device: str) -> int:
    """The bytes that are held now, from where the peak is counted anew."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # What was freed before must leave the process, or the call would take it again unseen.
    _c_library().malloc_trim(0)
    _CLEAR.write_text(_RESET_PEAK)
    return _now_and_peak(_STATUS.read_text())[0]


def _highest(device: str) -> int:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _now_and_peak(_STATUS.read_text())[1]


def _now_and_peak(status: str) -> tuple[int, int]:
    """Resident bytes now and at their peak, from the text of ``/proc/self/status``. Raises ValueError where they are not in it."""
    found = [re.search(rf"^{name}:\s*(\d+) kB$", status, re.M) for name in ("VmRSS", "VmHWM")]
    if found[0] is None or found[1] is None:
        raise ValueError(f"Expected lines VmRSS and VmHWM in kB in the status of a process but got {status!r}")
    return int(found[0][1]) * 1024, int(found[1][1]) * 1024


def _require_resident() -> None:
    """Raises UnmeasurableError where the kernel and the C library here cannot be asked for a resident peak."""
    if not sys.platform.startswith("linux"):
        raise UnmeasurableError(f"the resident peak of a call can be had on Linux alone, not on {sys.platform}")
    if not hasattr(_c_library(), "malloc_trim"):
        raise UnmeasurableError("the C library here has no malloc_trim, so that memory freed before a call would be used again unseen")
    try:
        _CLEAR.write_text(_RESET_PEAK)
        _now_and_peak(_STATUS.read_text())
    except (OSError, ValueError) as error:
        raise UnmeasurableError(f"the kernel does not set the resident peak back and tell it: {error}") from error


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@contextmanager
def _small_pages(on_cuda: bool) -> Iterator[None]:
    """Has new memory of this process backed by small pages, so that what is resident is what was touched, however the machine is set."""
    if on_cuda or _c_library().prctl(_GET_THP_DISABLE, 0, 0, 0, 0) != 0:
        yield
        return
    _c_library().prctl(_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        _c_library().prctl(_SET_THP_DISABLE, 0, 0, 0, 0)


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Keeps this thread on the core that it is on, where a sandbox lets it be kept; others go where they like."""
    cores = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, {_c_library().sched_getcpu()} & cores or cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Collects what is garbage now, and spares the collections to come what is not: they would take longer than most calls."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

"""What a GPU was doing, as NVIDIA's management library tells it; the only place that imports it.

It comes with the driver; its Python bindings are the distribution nvidia-ml-py, import name pynvml, and optional here. What cannot be
read is None, whatever the reason: no bindings, no driver, a driver that is too old, a device that does not tell.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: Why clocks are lower than they could be, bit by bit (nvml.h, nvmlClocksEventReasons).
_REASONS = {
    0x1: "idle",
    0x2: "clocks set by the user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "clocks set for the display",
    0x200: "board limit",
    0x400: "reliability limit",
}

#: Reasons that are no disturbance: nothing to do, and clocks that somebody held on purpose.
HARMLESS = ("idle", "clocks set by the user", "clocks set for the display")

#: One utilisation above this is no percentage but a sample that the driver did not fill.
_PER_CENT = 100


@dataclass(frozen=True)
class Gpu:
    """A GPU at one moment. Clocks in MHz, ``temperature`` in degrees Celsius, ``power`` in watts, which the driver averages over up to a
    second.

    ``limits``: why clocks were lower than they could be; empty where nothing held them down. ``others_utilisation``: share of the time
    that kernels of other processes ran since a given moment, over the driver's last sample period. ``others_memory``: bytes that
    other processes hold. Both need this process to be found among those that the driver lists, which in a container it may not be.
    """

    sm_clock: int | None = None
    most_sm_clock: int | None = None
    memory_clock: int | None = None
    temperature: int | None = None
    power: float | None = None
    limits: tuple[str, ...] | None = None
    others_utilisation: float | None = None
    others_memory: int | None = None


def limits(bits: int) -> tuple[str, ...]:
    """The reasons that are set in ``bits``, in words; one that is not known by its number."""
    known = tuple(word for bit, word in _REASONS.items() if bits & bit)
    rest = bits & ~sum(_REASONS)
    return known + ((f"reason {rest:#x}",) if rest else ())


class Probe:
    """A connection to the management library for one CUDA device; :func:`connect` makes it."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    def read(self, since: float) -> Gpu:
        """The GPU now. ``since``: the moment, in seconds since the epoch, from which on other processes' work counts."""
        library = self._library
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:
            # The name before CUDA 12.2, which drivers of that time still have.
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        # The newer name of two; the older one is to go with CUDA 14.
        temperature = self._ask("nvmlDeviceGetTemperatureV", library.NVML_TEMPERATURE_GPU)
        if temperature is None:
            temperature = self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU)
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        return Gpu(
            sm_clock=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM),
            most_sm_clock=self._ask("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_SM),
            memory_clock=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM),
            temperature=temperature,
            power=None if milliwatts is None else milliwatts / 1000,
            limits=None if bits is None else limits(bits),
            others_utilisation=others_utilisation(self._ask("nvmlDeviceGetProcessUtilization", int(since * 1e6)), os.getpid()),
            others_memory=others_memory(self._ask("nvmlDeviceGetComputeRunningProcesses"), os.getpid()),
        )

    def close(self) -> None:
        """Ends the connection."""
        try:
            self._library.nvmlShutdown()
        except self._library.NVMLError:
            # The driver went away; there is nothing left to end.
            return

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What the function ``name`` says of this device; None where the bindings, the driver or the device do not have it."""
        function = getattr(self._library, name, None)
        if function is None:
            return None
        # Newer bindings have this exception for a driver that is older than they are; it is not one of the others.
        mismatch = getattr(self._library, "NVMLLibraryMismatchError", self._library.NVMLError)
        try:
            return function(self._handle, *arguments)
        except (self._library.NVMLError, mismatch):
            return None


def connect(device: str) -> Probe | None:
    """A probe for the CUDA device that torch calls ``device``; None where there is none that can be asked."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return None
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    index = torch.device(device).index
    handle = _handle(library, torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index))
    probe = Probe(library, handle)
    if handle is None:
        probe.close()
        return None
    return probe


def _handle(library: Any, properties: Any) -> Any:
    """The device by its UUID or, where NVML has no such (a slice of a GPU), by its place on the PCI bus.

    Not by its number, which is another one where CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER say so, unless there is only one.
    """
    uuid = getattr(properties, "uuid", None)
    if uuid is not None:
        try:
            return library.nvmlDeviceGetHandleByUUID(f"GPU-{str(uuid).removeprefix('GPU-')}")
        except library.NVMLError:
            pass
    domain, bus, slot = (getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    try:
        if domain is not None and bus is not None and slot is not None:
            return library.nvmlDeviceGetHandleByPciBusId(f"{domain:08x}:{bus:02x}:{slot:02x}.0")
        return library.nvmlDeviceGetHandleByIndex(0) if library.nvmlDeviceGetCount() == 1 else None
    except library.NVMLError:
        return None


def others_utilisation(samples: Sequence[Any] | None, own: int) -> float | None:
    """Share of the time that processes other than ``own`` had the GPU; None where ``own`` is not among ``samples``.

    In a container the driver may number processes as the host does, and then it cannot be said which of them is this one.
    """
    shares = {sample.pid: sample.smUtil / _PER_CENT for sample in samples or () if sample.smUtil <= _PER_CENT}
    return min(1.0, sum(share for pid, share in shares.items() if pid != own)) if own in shares else None


def others_memory(processes: Sequence[Any] | None, own: int) -> int | None:
    """Bytes that processes other than ``own`` hold; None where ``own`` is not among ``processes``, or a size is not told."""
    sizes: dict[int, int | None] = {process.pid: process.usedGpuMemory for process in processes or ()}
    others = [size for pid, size in sizes.items() if pid != own and size is not None]
    return sum(others) if own in sizes and len(others) == len(sizes) - 1 else None

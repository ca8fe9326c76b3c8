"""What machine this is, which versions it runs and which settings are in force: plain data for the header of a run."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Gpu:
    """One CUDA device. ``memory`` in bytes; ``capability`` such as "9.0"."""

    name: str
    memory: int
    capability: str


@dataclass(frozen=True)
class Environment:
    """Everything that a reader of a run needs in order to say whether two runs may be compared.

    ``memory`` is in bytes, ``load`` is the machine's one-minute load average when the run began (None where the system
    has none). ``versions`` maps a component to its version, or to None where it is absent. ``settings`` are the global
    switches of torch and the environment variables that change what a kernel does.
    """

    machine: str
    system: str
    cpu: str
    cores: int
    memory: int | None
    gpus: tuple[Gpu, ...]
    versions: dict[str, str | None]
    settings: dict[str, Any]
    load: float | None


_SETTING_VARIABLES = re.compile(r"^(OMP_|MKL_|KMP_|ONEDNN_|DNNL_|ATEN_|TORCH_|PYTORCH_|CUDA_|CUDNN_|CUBLAS_|NVIDIA_TF32)")


def describe() -> Environment:
    """Reads the machine that this process runs on. Never raises for a fact that cannot be had: it is None instead."""
    gpus: list[Gpu] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(properties.name, properties.total_memory, f"{properties.major}.{properties.minor}"))
    return Environment(
        machine=platform.node() or "unnamed",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        gpus=tuple(gpus),
        versions={
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "numpy", "pytest", "pytest-benchmark")},
            "cuda": torch.version.cuda,
            "cudnn": _cudnn_version(),
            "onednn": _build_line(r"MKL-DNN v([0-9.]+)"),
            "mkl": _build_line(r"Math Kernel Library Version ([0-9.]+)"),
            "driver": _driver_version(),
        },
        settings=_settings(),
        load=load_average(),
    )


def _settings() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": _matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "variables": {name: value for name, value in sorted(os.environ.items()) if _SETTING_VARIABLES.match(name)},
    }


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # Torch refuses to say where somebody has set it by the newer names (fp32_precision) and not by the older ones.
        precision = torch._C._get_fp32_precision_getter
        return f"{precision('cuda', 'matmul')} for products, {precision('mkldnn', 'matmul')} for oneDNN's"


def load_average() -> float | None:
    """Of the last minute; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cpu_name() -> str:
    told: dict[str, str] = dict(re.findall(r"^(model name|CPU implementer|CPU part)\s*:\s*(.+?)\s*$", text_of(Path("/proc/cpuinfo")), re.M))
    if "model name" in told:
        return told["model name"]
    # Linux on ARM gives no name but the numbers of one; without them all ARM machines would pass for the same.
    numbers = [f"{key} {told[key]}" for key in ("CPU implementer", "CPU part") if key in told]
    return ", ".join([platform.machine(), *numbers]) if numbers else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory() -> int | None:
    """Bytes that a new process can have without swapping; None where the system does not say."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", text_of(Path("/proc/meminfo")), re.M)
    return 1024 * int(match.group(1)) if match else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cudnn_version() -> str | None:
    if not torch.backends.cudnn.is_available():
        return None
    number = torch.backends.cudnn.version()
    if number is None:
        return None
    # cuDNN 9 counts 10000 a major version, earlier ones 1000 (cudnn_version.h, CUDNN_VERSION).
    major, rest = divmod(number, 10_000) if number >= 90_000 else divmod(number, 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _build_line(pattern: str) -> str | None:
    match = re.search(pattern, torch.__config__.show())
    return match.group(1) if match else None


def _driver_version() -> str | None:
    match = re.search(r"Kernel Module\s+(?:for \S+\s+)?([0-9.]+)", text_of(Path("/proc/driver/nvidia/version")))
    return match.group(1) if match else None


def text_of(path: Path) -> str:
    """What a file of the system says; nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

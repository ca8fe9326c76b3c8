"""What machine this is, which versions it runs and which settings are in force: plain data for the header of a run."""

from __future__ import annotations

import math
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

    ``cores``: how many this process may have at once. ``memory`` is in bytes, ``load`` is the machine's one-minute load average when the
    run began (None where the system has none). ``versions`` maps a component to its version, or to None where it is absent. ``settings``
    are the global switches of torch and the environment variables that change what a kernel does.
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


#: The environment variables that are settings: of threads, of libraries of arithmetic, of torch and its compilers, and of the allocator.
_SETTING_VARIABLES = re.compile(
    r"^(OMP_|GOMP_|MKL_|KMP_|OPENBLAS_|ONEDNN_|DNNL_|ATEN_|TORCH_|PYTORCH_|TORCHINDUCTOR_|TORCHDYNAMO_|TRITON_|CUDA_|CUDNN_|CUBLAS_"
    r"|NVIDIA_TF32|MALLOC_|LD_PRELOAD$)"
)

#: Those among them that say where something is kept, which changes no time. Torch sets some of them itself when it compiles.
_PLACES = re.compile(r"_CACHE_(DIR|PATH)$|_DUMP_DIR$|^TRITON_HOME$")

#: Where the kernel shows its control groups, and how many caches of a core are asked after: there are three levels or four.
_GROUPS, _MOST_CACHES = Path("/sys/fs/cgroup"), 8


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
        cores=_cores(),
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
        "variables": _variables(),
    }


def _variables() -> dict[str, str]:
    found = {name: value for name, value in sorted(os.environ.items()) if _SETTING_VARIABLES.match(name) and not _PLACES.search(name)}
    if "LD_PRELOAD" in found:
        # Which libraries they are, wherever they lie.
        found["LD_PRELOAD"] = " ".join(Path(library).name for library in re.split(r"[ :]+", found["LD_PRELOAD"]) if library)
    return found


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
    """Bytes that this process can have more without swapping; None where the system does not say."""
    free = [1024 * int(number) for number in re.findall(r"^MemAvailable:\s*(\d+) kB$", text_of(Path("/proc/meminfo")), re.M)]
    # A container sees the memory of the whole machine, and is ended beyond its own.
    for group in _groups("memory"):
        for limit, used, prefix in (("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")):
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None:
                # Pages of files are counted as used, and given up for others.
                cached = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", text_of(group / "memory.stat"), re.M)
                free.append(max(0, most - taken + sum(map(int, cached))))
    return min(free, default=None)


def _cores() -> int:
    """Cores that this process may have at once: those that it may run on, or as many as its time on them is worth, if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        quota, _, period = text_of(group / "cpu.max").strip().partition(" ")
        shares = [(quota, period), tuple(text_of(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))]
        cores = min([cores, *(math.ceil(int(own) / int(whole)) for own, whole in shares if own.isdigit() and whole.isdigit())])
    return cores


def _groups(controller: str) -> list[Path]:
    """The folders of the control groups that this process is in, from its own up (cgroups(7)); all limits on the way hold.

    Of version 2 there is one tree, of version 1 one for each controller. A container may be shown its own group as the root of the tree and
    be told its place in the tree of the machine: then the root alone is there to be read.
    """
    found = []
    for number, controllers, path in re.findall(r"^(\d+):([^:]*):/?(.*)$", text_of(Path("/proc/self/cgroup")), re.M):
        if number == "0" or controller in controllers.split(","):
            root = _GROUPS if number == "0" else _GROUPS / controller
            found += [root / path, *(above for above in (root / path).parents if above.is_relative_to(root))]
    return found


def _number(path: Path) -> int | None:
    """The number that is all that a file says."""
    text = text_of(path).strip()
    return int(text) if text.isdigit() else None


def largest_cache() -> int:
    """Bytes of the largest cache of a core, which is the last level where that is said; 0 where the system tells of none."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [re.fullmatch(r"(\d+)([KM])", text_of(folder / f"index{number}" / "size").strip()) for number in range(_MOST_CACHES)]
    return max((int(size[1]) << (20 if size[2] == "M" else 10) for size in sizes if size), default=0)


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

"""What machine this is: plain data, whatever the system does not tell."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness import environment


def test_this_machine_is_described_in_plain_data() -> None:
    found = environment.describe()
    assert json.loads(json.dumps(asdict(found)))["versions"]["torch"] == found.versions["torch"]
    assert found.cores >= 1 and found.cpu and found.machine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast One @ 3 GHz \n\nprocessor\t: 1\nmodel name\t: Fast One @ 3 GHz\n", "Fast One @ 3 GHz"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "aarch64, CPU implementer 0x41, CPU part 0xd0c"),
        ("processor\t: 0\n", "aarch64"),
    ],
)
def test_a_processor_has_a_name_that_tells_it_from_others(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "text_of", lambda path: text if path == Path("/proc/cpuinfo") else "")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment.describe().cpu == name


def test_a_system_that_tells_nothing_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError("not for you")

    def without_proc(path: Path, *arguments: Any, **options: Any) -> str:
        # The other files tell what is installed.
        return (refuse if path.is_relative_to("/proc") else read)(path, *arguments, **options)

    # As a container may have it: no /proc, and no load.
    monkeypatch.setattr(Path, "read_text", without_proc)
    monkeypatch.setattr(os, "getloadavg", refuse)
    monkeypatch.setattr(platform, "processor", lambda: "")
    found = environment.describe()
    assert found.cpu == platform.machine() and found.load is None and found.versions["driver"] is None
    assert environment.available_memory() is None


_FREE = "MemTotal: 64000000 kB\nMemAvailable:   16777216 kB\n"


def _told(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """A system of which only ``files`` can be read."""
    monkeypatch.setattr(environment, "text_of", lambda path: files.get(str(path), ""))


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"/proc/self/cgroup": "0::/\n"}, 16 << 30),
        # As docker run -m 4g has it: what is in the page cache can be had again.
        (
            {
                "/proc/self/cgroup": "0::/\n",
                "/sys/fs/cgroup/memory.max": f"{4 << 30}\n",
                "/sys/fs/cgroup/memory.current": f"{3 << 30}\n",
                "/sys/fs/cgroup/memory.stat": f"anon {2 << 30}\nactive_file {1 << 28}\ninactive_file {1 << 28}\nshmem {1 << 29}\n",
            },
            3 << 29,
        ),
        # The limit of a group holds for those in it.
        (
            {
                "/proc/self/cgroup": "0::/user.slice/session.scope\n",
                "/sys/fs/cgroup/user.slice/session.scope/memory.max": "max\n",
                "/sys/fs/cgroup/user.slice/session.scope/memory.current": "1000\n",
                "/sys/fs/cgroup/user.slice/memory.max": f"{2 << 30}\n",
                "/sys/fs/cgroup/user.slice/memory.current": f"{1 << 30}\n",
            },
            1 << 30,
        ),
        (
            {
                "/proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 << 30}\n",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 << 30}\n",
                "/sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_active_file 0\ntotal_inactive_file {1 << 30}\n",
            },
            2 << 30,
        ),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1000\n", "/sys/fs/cgroup/memory.current": "2000\n"}, 0),
    ],
    ids=["no limit", "a container", "a group above", "version 1", "beyond the limit"],
)
def test_memory_that_the_group_of_the_process_may_not_have_is_not_free(
    files: dict[str, str], free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _told(monkeypatch, {"/proc/meminfo": _FREE, **files})
    assert environment.available_memory() == free


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "300000\n", "/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_cores_are_those_that_the_group_of_the_process_may_have(files: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch, {"/proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n0::/\n", **files})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert environment.describe().cores == cores


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({}, 0),
        ({"index0/size": "48K\n", "index2/size": "2048K\n", "index3/size": "266240K\n"}, 260 << 20),
        ({"index0/size": "64K\n", "index1/size": "8M\n"}, 8 << 20),
    ],
)
def test_the_largest_cache_of_a_core_is_what_the_system_says(files: dict[str, str], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch, {f"/sys/devices/system/cpu/cpu0/cache/{name}": text for name, text in files.items()})
    assert environment.largest_cache() == size


def test_variables_that_change_times_are_told_and_places_that_change_none_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if environment._SETTING_VARIABLES.match(name):
            monkeypatch.delenv(name)
    told = {
        "GOMP_CPU_AFFINITY": "0-3",
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "2",
        "TORCHDYNAMO_SUPPRESS_ERRORS": "1",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "TRITON_INTERPRET": "1",
    }
    places = (
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TRITON_HOME",
        "TRITON_DUMP_DIR",
        "CUDA_CACHE_PATH",
        "PYTORCH_KERNEL_CACHE_PATH",
    )
    for name, value in {**told, **dict.fromkeys(places, "/home/somebody/x")}.items():
        monkeypatch.setenv(name, value)
    # Which library it is counts, and not where it lies.
    monkeypatch.setenv("LD_PRELOAD", "/home/somebody/lib/libjemalloc.so.2:/usr/lib/libiomp5.so libx.so")
    found = environment.describe().settings["variables"]
    assert found == {**told, "LD_PRELOAD": "libjemalloc.so.2 libiomp5.so libx.so"} and list(found) == sorted(found)

"""Peak memory of a call: against calls that touch what is known, and on CUDA through a fake allocator."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import memory
from harness.memory import CALLS, Method, Peak, UnmeasurableError, peak

MIB = 1 << 20
STATUS = "Name:\tpython\nVmHWM:\t  20480 kB\nVmRSS:\t  10240 kB\nThreads:\t1\n"


def _unmeasurable(device: str) -> str:
    """Why there is no peak on ``device``; empty where there is one."""
    try:
        peak(lambda: None, device)
    except UnmeasurableError as error:
        return str(error)
    return ""


@pytest.fixture
def resident() -> None:
    """For tests that measure this process, where that can be done at all."""
    if reason := _unmeasurable("cpu"):
        pytest.skip(reason)


@pytest.mark.parametrize("size", [1 * MIB, 10 * MIB, 40 * MIB])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.usefixtures("resident")
def test_finds_what_a_call_touches_whether_it_keeps_it_or_not(size: int, kept: bool) -> None:
    def call() -> Any:
        touched = torch.ones(size, dtype=torch.uint8)
        return touched if kept else None

    found = peak(call, "cpu")
    assert found.method is Method.RESIDENT
    # Not "within the resolution", which is honest about a machine where a call varies and could then excuse any number.
    assert abs(found.bytes - size) < MIB / 2 * torch.get_num_threads()
    assert found.resolution >= abs(found.bytes - size)


@pytest.mark.usefixtures("resident")
def test_a_call_stays_on_one_core_and_what_comes_after_it_need_not() -> None:
    before, seen = os.sched_getaffinity(0), []
    peak(lambda: seen.append(os.sched_getaffinity(0)), "cpu")
    assert seen[0] == before and {len(cores) for cores in seen[1:]} == {1}, "the first warms up, and may start threads"
    assert os.sched_getaffinity(0) == before


@pytest.mark.usefixtures("resident")
def test_where_a_thread_cannot_be_kept_on_a_core_it_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, cores: set[int]) -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    assert peak(lambda: torch.ones(20 * MIB, dtype=torch.uint8), "cpu").bytes > 19 * MIB


@pytest.mark.usefixtures("resident")
def test_the_peak_is_what_was_held_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(4):
            torch.ones(6 * MIB, dtype=torch.uint8)

    found = peak(one_after_the_other, "cpu")
    # The heap of the C library may put the second behind the first, because what the first left is a few bytes too short for it.
    assert 6 * MIB - found.resolution <= found.bytes <= 2 * 6 * MIB + found.resolution


@pytest.mark.usefixtures("resident")
def test_what_the_first_call_keeps_is_not_counted() -> None:
    kept: list[torch.Tensor] = []

    def call() -> None:
        if not kept:
            kept.append(torch.ones(20 * MIB, dtype=torch.uint8))

    assert peak(call, "cpu").bytes < MIB


@pytest.mark.usefixtures("resident")
def test_what_was_there_before_is_not_counted() -> None:
    there = torch.ones(20 * MIB, dtype=torch.uint8)
    assert peak(there.max, "cpu").bytes < MIB


@pytest.mark.usefixtures("resident")
def test_memory_that_is_never_touched_is_not_counted() -> None:
    assert peak(lambda: torch.empty(64 * MIB, dtype=torch.uint8), "cpu").bytes < MIB


@pytest.mark.usefixtures("resident")
def test_training_takes_at_least_its_gradients_and_more_than_inference() -> None:
    layer, x = torch.nn.GRU(64, 128), torch.randn(100, 16, 64)
    parameters = list(layer.parameters())

    def infer() -> Any:
        with torch.no_grad():
            return layer(x)

    def train() -> Any:
        return torch.autograd.grad(layer(x)[0].sum(), parameters)

    inference, training = peak(infer, "cpu"), peak(train, "cpu")
    output = 100 * 16 * 128 * 4
    assert inference.bytes >= output - inference.resolution
    assert training.bytes >= output + sum(p.numel() for p in parameters) * 4 - training.resolution
    assert training.bytes > inference.bytes


def test_an_allocator_that_keeps_freed_memory_is_found_out(resident: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.CDLL(None)
    # Where there are many, more is touched than the C library ever keeps.
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(
        memory, "_c_library", lambda: SimpleNamespace(malloc_trim=lambda pad: 0, prctl=real.prctl, sched_getcpu=real.sched_getcpu)
    )
    assert "touches 8.0 MiB was seen to take" in _unmeasurable("cpu")


@pytest.mark.usefixtures("resident")
def test_leaves_the_process_as_it_was_when_the_call_raises() -> None:
    library = ctypes.CDLL(None)
    gc.unfreeze()  # what pytest has collected
    within: list[tuple[int, bool]] = []

    def fails() -> None:
        within.append((library.prctl(42, 0, 0, 0, 0), gc.get_freeze_count() > 0))
        raise ValueError("no")

    before = library.prctl(42, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="no"):
        peak(fails, "cpu")
    assert within == [(1, True)]
    assert library.prctl(42, 0, 0, 0, 0) == before and gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("sizes", "bytes", "resolution"),
    [
        ([9999, 5000, 5000, 5000, 5000, 5000], 5000, 1000),
        ([0, 5000, 9000, 6000, 5000, 6000], 9000, 4000),
        ([0, -3, -2, -8, -2, -1], 0, 1000),
    ],
)
def test_the_largest_peak_of_the_calls_after_the_first_is_told_and_their_range(
    sizes: list[int], bytes: int, resolution: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(sizes)

    monkeypatch.setattr(memory, "_grown", lambda call, device: call())
    monkeypatch.setattr(memory, "_missing", lambda device: 0)
    monkeypatch.setattr(memory, "_resolution", lambda device: 1000)
    monkeypatch.setattr(memory, "_require_count", lambda device: None)
    assert peak(lambda: next(calls), "cpu") == Peak(bytes, Method.RESIDENT, resolution)
    assert list(calls) == [] and len(sizes) == CALLS + 1


@pytest.mark.parametrize(
    ("missing", "added"),
    [
        pytest.param([700], 700, id="what is not added up"),
        pytest.param([9000, 700, 5000], 700, id="something else went away meanwhile"),
        pytest.param([-300], -300, id="too much was added up"),
    ],
)
def test_what_is_missing_of_a_known_size_is_added_to_the_peak(missing: list[int], added: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = itertools.cycle(missing)

    def grown(call: Callable[[], str], device: str) -> int:
        return memory._KNOWN - next(seen) if call() == "known" else 20 * MIB

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.sysconf", lambda name: 4096, raising=False)
    monkeypatch.setattr(memory, "_grown", grown)
    monkeypatch.setattr(memory, "_touch", lambda size, device: "known")
    monkeypatch.setattr(memory, "_require_count", lambda device: None)
    found = peak(lambda: "call", "cpu", calls=2)
    assert found.bytes == 20 * MIB + added


def test_an_allocator_that_changes_its_ways_is_believed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = itertools.chain([memory._KNOWN] * CALLS, [20 * MIB] * 2, itertools.repeat(2 * MIB))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(memory, "_grown", lambda call, device: next(seen))
    monkeypatch.setattr(memory, "_require_count", lambda device: None)
    assert peak(lambda: None, "cpu", calls=2).bytes == 20 * MIB
    assert "touches 8.0 MiB was seen to take 2.0 MiB" in _unmeasurable("cpu")


@pytest.mark.parametrize(("threads", "cores", "pages"), [(1, 2, 128), (4, 2, 320), (1, 128, 512), (16, 128, 4352)])
def test_what_the_kernel_has_not_added_up_limits_the_resolution(
    threads: int, cores: int, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("os.sysconf", lambda name: 4096, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert memory._resolution("cpu") == pages * 4096


def test_reads_the_resident_size_and_its_peak() -> None:
    assert memory._now_and_peak(STATUS) == (10240 * 1024, 20480 * 1024)


@pytest.mark.parametrize(
    "text", ["", "VmRSS:\t 12 kB\n", "VmHWM:\t 12 kB\n", STATUS.replace("10240", "many"), STATUS.replace(" kB", " MB")]
)
def test_a_status_without_them_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="Expected lines VmRSS and VmHWM in kB"):
        memory._now_and_peak(text)


def _kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str | None, clear: bool = True) -> None:
    """A C library that trims, and files of the kernel in ``tmp_path``."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    fake = SimpleNamespace(malloc_trim=lambda pad: 1, prctl=lambda *_: -1, sched_getcpu=lambda: 0)
    monkeypatch.setattr(memory, "_c_library", lambda: fake)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs" if clear else tmp_path / "nowhere" / "clear_refs")
    if status is not None:
        (tmp_path / "status").write_text(status)


def test_other_systems_have_no_resident_peak_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert _unmeasurable("cpu") == "the resident peak of a call can be had on Linux alone, not on darwin"


def test_a_c_library_that_cannot_give_memory_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(memory, "_c_library", lambda: SimpleNamespace())
    assert "no malloc_trim" in _unmeasurable("cpu")


def test_a_kernel_that_does_not_set_the_peak_back_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _kernel(monkeypatch, tmp_path, STATUS, clear=False)
    assert "does not set the resident peak back" in _unmeasurable("cpu")


def test_a_kernel_that_does_not_tell_the_peak_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _kernel(monkeypatch, tmp_path, "Name:\tpython\n")
    assert "Expected lines VmRSS and VmHWM" in _unmeasurable("cpu")


def test_a_peak_that_does_not_move_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _kernel(monkeypatch, tmp_path, STATUS.replace("20480", "10240"))
    assert "touches 8.0 MiB was seen to take 0.0 MiB" in _unmeasurable("cpu")
    assert (tmp_path / "clear_refs").read_text() == "5"


class FakeAllocator:
    """torch.cuda's counters, moved by calls that say what they take and what they keep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.highest = 1000
        self.log: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.log.append(f"synchronize {device}"))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self._read)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)
        monkeypatch.setattr(memory, "_touch", lambda size, device: self.hold(size, 0))

    def _read(self, device: str) -> int:
        self.log.append(f"read {device}")
        return self.highest

    def _reset(self, device: str) -> None:
        self.log.append(f"reset {device}")
        self.highest = self.now

    def hold(self, bytes: int, keep: int) -> None:
        self.now += bytes
        self.highest = max(self.highest, self.now)
        self.now += keep - bytes


def test_on_cuda_the_allocator_is_asked_when_all_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = FakeAllocator(monkeypatch)

    def call() -> None:
        allocator.log.append("call")
        allocator.hold(5120, 0)

    assert peak(call, "cuda:1", calls=1) == Peak(5120, Method.ALLOCATOR, 512)
    count = ["synchronize cuda:1", "reset cuda:1", "synchronize cuda:1", "read cuda:1"]
    measured = [*count[:2], "call", *count[2:]]
    assert allocator.log == ["call", *count * CALLS, *measured], "what is known is measured before what is not"


def test_on_cuda_what_the_first_call_keeps_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator, first = FakeAllocator(monkeypatch), [7000]
    found = peak(lambda: allocator.hold(9000, first.pop() if first else 0), "cuda")
    assert found == Peak(9000, Method.ALLOCATOR, 512)


def test_on_cuda_the_result_lives_until_the_peak_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = FakeAllocator(monkeypatch)

    class Result:
        def __del__(self) -> None:
            allocator.log.append("result freed")

    peak(Result, "cuda", calls=1)
    assert allocator.log[-2:] == ["read cuda", "result freed"]


def test_on_cuda_an_allocator_that_does_not_count_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = FakeAllocator(monkeypatch)
    monkeypatch.setattr(memory, "_touch", lambda size, device: allocator.hold(0, 0))
    assert "touches 8.0 MiB was seen to take 0.0 MiB" in _unmeasurable("cuda")


def test_without_a_gpu_there_is_no_peak_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _unmeasurable("cuda") == "there is no CUDA device here"


def test_other_devices_are_told() -> None:
    assert _unmeasurable("meta") == "peak memory is measured on cpu and cuda, not on meta"


def test_no_call_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="at least one call but got calls=0"):
        peak(lambda: None, "cpu", calls=0)


def test_every_method_says_what_it_means() -> None:
    assert all(method.meaning for method in Method)

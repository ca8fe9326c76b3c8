"""What a GPU was doing, through a fake of NVIDIA's bindings: nobody needs the driver to test how it is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from harness.nvml import Gpu, Probe, connect, limits, others_memory, others_utilisation

UUID = "6f1a9c02-0000-1111-2222-333344445555"


class FakeNvml(ModuleType):
    """The part of pynvml that is asked; ``answers`` maps a function to its answer or to what it raises."""

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

    class NVMLError(Exception):
        """What every function raises."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("pynvml")
        self.calls: list[tuple[Any, ...]] = []
        self._answers = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByUUID": "by uuid",
            "nvmlDeviceGetHandleByPciBusId": "by bus",
            "nvmlDeviceGetHandleByIndex": "by index",
            "nvmlDeviceGetCount": 1,
            **answers,
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.__dict__.get("_answers", {}):
            raise AttributeError(name)

        def function(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self._answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return function

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


FAILS = FakeNvml.NVMLError("Not Supported")


def _process(pid: int, memory: int | None = 0, share: int = 0) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory, smUtil=share)


def _connected(monkeypatch: pytest.MonkeyPatch, library: FakeNvml, device: str = "cuda", **properties: Any) -> Probe | None:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    seen = {3: SimpleNamespace(**properties), 1: SimpleNamespace(uuid="of device 1")}
    monkeypatch.setattr(torch.cuda, "get_device_properties", seen.__getitem__)
    return connect(device)


def test_reads_everything_that_the_device_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1410, 2: 2619}[kind],
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: {1: 1980}[kind],
        nvmlDeviceGetTemperatureV=lambda handle, sensor: {0: 61}[sensor],
        nvmlDeviceGetPowerUsage=349_500,
        nvmlDeviceGetCurrentClocksEventReasons=0x4 | 0x20,
        nvmlDeviceGetProcessUtilization=[_process(os.getpid(), share=70), _process(7, share=20), _process(8, share=5)],
        nvmlDeviceGetComputeRunningProcesses=[_process(os.getpid(), 5000), _process(7, 300), _process(9, 20)],
    )
    probe = _connected(monkeypatch, library, uuid=UUID)
    assert probe is not None
    assert probe.read(since=1700000000.5) == Gpu(
        sm_clock=1410,
        most_sm_clock=1980,
        memory_clock=2619,
        temperature=61,
        power=349.5,
        limits=("power cap", "software thermal slowdown"),
        others_utilisation=0.25,
        others_memory=320,
    )
    assert ("nvmlDeviceGetProcessUtilization", "by uuid", 1700000000500000) in library.calls
    probe.close()
    assert library.names()[-1] == "nvmlShutdown" and library.names().count("nvmlInit") == 1


def test_what_the_device_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetMaxClockInfo",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetProcessUtilization",
        "nvmlDeviceGetComputeRunningProcesses",
    ]
    library = FakeNvml(**dict.fromkeys(names, FAILS))
    probe = _connected(monkeypatch, library, uuid=UUID)
    assert probe is not None and probe.read(0.0) == Gpu()
    assert set(names) <= set(library.names())


def test_functions_that_the_bindings_do_not_have_are_none_too(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = _connected(monkeypatch, FakeNvml(nvmlDeviceGetPowerUsage=1000), uuid=UUID)
    assert probe is not None and probe.read(0.0) == Gpu(power=1.0)


def test_older_drivers_are_asked_by_the_older_names(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(
        nvmlDeviceGetCurrentClocksEventReasons=FAILS,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x8,
        nvmlDeviceGetTemperatureV=FAILS,
        nvmlDeviceGetTemperature=40,
    )
    probe = _connected(monkeypatch, library, uuid=UUID)
    assert probe is not None and probe.read(0.0) == Gpu(temperature=40, limits=("hardware slowdown",))


def test_bindings_newer_than_the_driver_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mismatch(Exception):
        """As in nvidia-ml-py 13, no child of NVMLError."""

    library = FakeNvml(nvmlDeviceGetComputeRunningProcesses=Mismatch("Unversioned function called"))
    monkeypatch.setattr(library, "NVMLLibraryMismatchError", Mismatch, raising=False)
    probe = _connected(monkeypatch, library, uuid=UUID)
    assert probe is not None and probe.read(0.0) == Gpu()


def test_what_is_no_fault_of_the_library_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = _connected(monkeypatch, FakeNvml(nvmlDeviceGetPowerUsage=KeyError("a mistake here")), uuid=UUID)
    assert probe is not None
    with pytest.raises(KeyError, match="a mistake here"):
        probe.read(0.0)


@pytest.mark.parametrize(("bits", "words"), [(0, ()), (0x1, ("idle",)), (0x44, ("power cap", "hardware thermal slowdown"))])
def test_the_reasons_are_told_in_words(bits: int, words: tuple[str, ...]) -> None:
    assert limits(bits) == words


def test_a_reason_that_is_not_known_is_told_by_its_number() -> None:
    assert limits(0x10000 | 0x200) == ("board limit", "reason 0x10000")


@pytest.mark.parametrize(
    ("properties", "handle", "asked"),
    [
        ({"uuid": UUID}, "by uuid", ("nvmlDeviceGetHandleByUUID", f"GPU-{UUID}")),
        ({"uuid": f"GPU-{UUID}"}, "by uuid", ("nvmlDeviceGetHandleByUUID", f"GPU-{UUID}")),
        (
            {"pci_domain_id": 1, "pci_bus_id": 0x9B, "pci_device_id": 0},
            "by bus",
            ("nvmlDeviceGetHandleByPciBusId", "00000001:9b:00.0"),
        ),
        ({}, "by index", ("nvmlDeviceGetHandleByIndex", 0)),
    ],
)
def test_finds_the_device_by_what_torch_says_of_it(
    properties: dict[str, Any], handle: str, asked: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FakeNvml(nvmlDeviceGetPowerUsage=lambda handle: 1000)
    probe = _connected(monkeypatch, library, **properties)
    assert probe is not None and asked in library.calls
    probe.read(0.0)
    assert ("nvmlDeviceGetPowerUsage", handle) in library.calls


def test_a_slice_of_a_gpu_is_found_by_the_place_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(nvmlDeviceGetHandleByUUID=FAILS)
    assert _connected(monkeypatch, library, uuid=UUID, pci_domain_id=0, pci_bus_id=1, pci_device_id=0) is not None
    assert ("nvmlDeviceGetHandleByPciBusId", "00000000:01:00.0") in library.calls


def test_one_of_several_devices_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(nvmlDeviceGetHandleByUUID=FAILS, nvmlDeviceGetCount=2)
    assert _connected(monkeypatch, library, uuid=UUID) is None
    assert "nvmlDeviceGetHandleByIndex" not in library.names() and library.names()[-1] == "nvmlShutdown"


def test_a_device_that_is_named_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml()
    assert _connected(monkeypatch, library, device="cuda:1") is not None
    assert ("nvmlDeviceGetHandleByUUID", "GPU-of device 1") in library.calls


def test_a_device_that_is_gone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(nvmlDeviceGetHandleByUUID=FAILS, nvmlDeviceGetCount=FAILS, nvmlShutdown=FAILS)
    assert _connected(monkeypatch, library, uuid=UUID) is None


def test_without_a_driver_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(nvmlInit=FakeNvml.NVMLError("NVML Shared Library Not Found"))
    assert _connected(monkeypatch, library, uuid=UUID) is None
    assert library.names() == ["nvmlInit"]


def test_without_the_bindings_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert connect("cuda") is None


def test_a_cpu_has_no_such_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml()
    assert _connected(monkeypatch, library, device="cpu") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert connect("cuda") is None
    assert library.calls == []


@pytest.mark.parametrize(
    ("samples", "share"),
    [
        ([_process(1, share=80), _process(2, share=15), _process(3, share=3)], 0.18),
        ([_process(1, share=80)], 0.0),
        ([_process(1, share=80), _process(2, share=4_000_000)], 0.0),
        ([_process(1, share=80), _process(2, share=90), _process(3, share=90)], 1.0),
        ([_process(2, share=15)], None),
        ([], None),
        (None, None),
    ],
)
def test_the_share_of_others_needs_this_process_among_them(samples: Any, share: float | None) -> None:
    assert others_utilisation(samples, own=1) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("processes", "size"),
    [
        ([_process(1, 500), _process(2, 40), _process(3, 2)], 42),
        ([_process(1, 500)], 0),
        ([_process(1, 500), _process(2, None)], None),
        ([_process(1, None), _process(2, 40)], 40),
        ([_process(2, 40)], None),
        (None, None),
    ],
)
def test_the_memory_of_others_needs_this_process_among_them(processes: Any, size: int | None) -> None:
    assert others_memory(processes, own=1) == size

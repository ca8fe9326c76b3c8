"""The clocks."""

from __future__ import annotations

import pytest
import torch

from harness.clock import FakeClock, HostClock


def test_the_fake_stands_still_until_it_is_told() -> None:
    clock = FakeClock()
    assert clock.now() == clock.now() == 0
    clock.advance(1.5)
    clock.advance(0.25)
    assert clock.now() == 1.75


def test_the_host_clock_grows() -> None:
    clock = HostClock("cpu")
    readings = [clock.now() for _ in range(5)]
    assert readings == sorted(readings)


@pytest.mark.parametrize(("device", "waits"), [("cpu", 0), ("cuda", 2), ("cuda:0", 2)])
def test_the_host_clock_waits_for_a_gpu_before_it_reads(device: str, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    clock = HostClock(device)
    clock.now()
    clock.now()
    assert len(waited) == waits

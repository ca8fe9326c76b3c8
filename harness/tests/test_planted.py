"""Slowdowns are as large as they are said to be, with a clock that goes on only as it is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

from harness import calibration
from harness.clock import FakeClock
from harness.planted import Occupying, waiting
from harness.sampling import Budget
from harness.statistics import Verdict


def test_waits_for_its_share_of_the_time_that_the_call_took() -> None:
    clock, durations, took = FakeClock(), iter([4.0, 2.0, 8.0]), []

    def call() -> str:
        clock.advance(next(durations))
        return "answer"

    def looks() -> float:
        # A quarter of a second each time that the clock is looked at while it waits.
        clock.advance(0.25)
        return clock.now()

    slower = waiting(call, 0.5, looks)
    for _ in range(3):
        start = clock.now()
        assert slower() == "answer"
        took.append(clock.now() - start)
    # Two looks around the call, of which one is within the time taken: 4.25, 2.25, 8.25. The wait ends with the look at or after its end:
    # half of 4.25 after 9 looks, half of 2.25 after 5, half of 8.25 after 17.
    assert took == [4.0 + 0.5 + 9 * 0.25, 2.0 + 0.5 + 5 * 0.25, 8.0 + 0.5 + 17 * 0.25]


def test_without_a_share_nothing_is_added_to_the_call() -> None:
    def call() -> None: ...

    assert waiting(call, 0.0, FakeClock().now) is call


BUDGET = Budget(seconds=2.0).on("cuda")


class Gpu:
    """A GPU and its host: a wait on the device takes a microsecond to start and then half a nanosecond a cycle."""

    def __init__(self) -> None:
        self.clock = FakeClock(asynchronous=True)
        self.waits: list[int] = []

    def spin(self, cycles: int) -> None:
        self.waits.append(cycles)
        self.clock.work(1e-6 + cycles * 0.5e-9)

    def host(self) -> float:
        """The host's time, which does not wait for the device."""
        self.clock.advance(1e-7)
        return self.clock._now

    def slowed(self) -> Occupying:
        return Occupying(self.clock, nullcontext, self.spin, self.host)

    def bound(self, by: str) -> Callable[[], str]:
        """A call of a millisecond that waits for one of the two; the other has little to do."""
        host, device = (1e-3, 1e-4) if by == "host" else (1e-4, 1e-3)

        def call() -> str:
            self.clock.work(device)
            self.clock.advance(host)
            return "answer"

        return call

    def seconds(self, call: Callable[[], Any], calls: int = 50) -> float:
        """Of each of many calls in a row."""

        def run() -> None:
            for _ in range(calls):
                assert call() == "answer"

        return self.clock.time(run).seconds / calls


def test_how_long_a_device_waits_for_a_cycle_is_measured() -> None:
    slowed = Gpu().slowed()
    assert slowed.cycles(11e-6) == 20_000, "ten of the eleven microseconds, at half a nanosecond"
    assert slowed.cycles(0.5e-6) == 1, "it cannot be shorter than its start, and there is a wait all the same"


@pytest.mark.parametrize("by", ["host", "device"])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_call_is_slower_by_its_share_whatever_it_waits_for(by: str, share: float) -> None:
    gpu = Gpu()
    call, slowed = gpu.bound(by), gpu.slowed()
    assert gpu.seconds(slowed(call, share)) / gpu.seconds(call) == pytest.approx(1 + share, rel=2e-3)
    assert slowed(call, 0.0) is call


@pytest.mark.parametrize("by", ["host", "device"])
def test_a_slowdown_on_a_device_is_found_and_equal_things_are_the_same(by: str) -> None:
    gpu = Gpu()
    verdict, ratio, _ = calibration.trial(0.05, BUDGET, gpu.clock, partial(gpu.bound, by), gpu.slowed())
    assert verdict is Verdict.SLOWER and ratio == pytest.approx(1.05, abs=5e-3)
    verdict, ratio, _ = calibration.trial(0.0, BUDGET, gpu.clock, partial(gpu.bound, by), gpu.slowed())
    assert verdict is Verdict.SAME and ratio == pytest.approx(1.0, abs=1e-3)

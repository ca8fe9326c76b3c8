"""What is said of a long run while it goes on."""

from __future__ import annotations

import pytest

from harness.clock import FakeClock
from harness.progress import Progress, spelled


def test_tells_the_time_left_at_the_pace_so_far() -> None:
    clock = FakeClock()
    clock.advance(1000.0)
    progress = Progress(4, clock.now)
    assert progress.begin("a") == "1 of 4: a"
    clock.advance(60.0)
    assert progress.begin("b") == "2 of 4, about 3 min left: b"
    clock.advance(20.0)
    assert progress.begin("c") == "3 of 4, about 80 s left: c"


def test_what_is_not_needed_any_more_takes_no_time() -> None:
    clock = FakeClock()
    progress = Progress(10, clock.now)
    progress.begin("a")
    clock.advance(30.0)
    progress.drop(7)
    assert progress.begin("b") == "2 of 3, about 60 s left: b"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "1 h 0 min"), (12_000, "3 h 20 min")])
def test_spells_a_length_of_time(seconds: float, words: str) -> None:
    assert spelled(seconds) == words

"""What pytest-benchmark is given is what was measured, to the last digit."""

from __future__ import annotations

from harness.replay import Replay

DURATIONS = [0.1 + 0.2, 1e-9, 123456.789, 1 / 3, 5e-324]


def test_replay_reads_out_the_exact_samples() -> None:
    timer = Replay()
    timer.load(DURATIONS)
    measured = []
    for _ in DURATIONS:
        start = timer()
        measured.append(timer() - start)
    assert measured == DURATIONS


def test_replay_begins_anew_with_each_load() -> None:
    timer = Replay()
    timer.load([1.0, 2.0])
    timer()
    timer.load([3.0])
    start = timer()
    assert timer() - start == 3.0

"""Samples that were taken beforehand, as pytest-benchmark takes them."""

from __future__ import annotations

from collections.abc import Iterable


class Replay:
    """A timer for pytest-benchmark that reads out samples taken beforehand.

    pytest-benchmark calls its timer before and after each round and takes the difference; this one lets it find the next sample. So its
    table and its JSON show the real samples, although they were taken in interleaved rounds, which it has no notion of.
    """

    def __init__(self) -> None:
        self._durations: list[float] = []
        self._running = False

    def load(self, durations: Iterable[float]) -> None:
        """The durations of the coming rounds, in seconds."""
        self._durations = list(durations)[::-1]
        self._running = False

    def __call__(self) -> float:
        # Each round begins at zero: a difference of large numbers would not be the sample to the last digit.
        self._running = not self._running
        return 0.0 if self._running else self._durations.pop()


#: One for the process: pytest-benchmark is given its timer when tests are collected.
REPLAY = Replay()

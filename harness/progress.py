"""How far a long run is, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Counts the parts of a run as they begin. ``total``: how many there are; ``now``: reads seconds."""

    def __init__(self, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self._total, self._now = total, now
        self._begun, self._start = 0, 0.0

    def begin(self, name: str) -> str:
        """One line on the part that begins now: its place among all, and from the second on the time left at the pace so far."""
        if not self._begun:
            self._start = self._now()
        done, self._begun = self._begun, self._begun + 1
        # Parts differ in length, and the mean of those that are done is all that is known of the rest.
        left = f", about {spelled((self._now() - self._start) / done * (self._total - done))} left" if done else ""
        return f"{self._begun} of {self._total}{left}: {name}"

    def drop(self, parts: int) -> None:
        """So many of the parts that have not begun will not be needed."""
        self._total -= parts


def spelled(seconds: float) -> str:
    """A length of time as one says it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

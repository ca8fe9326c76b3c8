"""The interleaved rounds of timed cells, and the effect on the time of one cell beside another, which is worked out once."""

from __future__ import annotations

from harness.statistics import Effect, effect
from reports.load import Frames


class Rounds:
    """What the samples of ``frames`` say of the rounds in which cells were timed."""

    def __init__(self, frames: Frames) -> None:
        known = frames.samples[frames.samples["round"] >= 0]
        if known.duplicated(["cell", "round"]).any():
            known = known.groupby(["cell", "round"])["seconds"].median().reset_index()
        self._of: dict[int, dict[int, float]] = {}
        for cell, number, seconds in zip(known["cell"].tolist(), known["round"].tolist(), known["seconds"].tolist(), strict=True):
            self._of.setdefault(cell, {})[number] = seconds
        self._effects: dict[tuple[int, int], Effect] = {}

    def of(self, cell: int) -> dict[int, float]:
        """Round -> seconds of a cell, the median where a round has several samples."""
        return self._of.get(cell, {})

    def shared(self, candidate: int, baseline: int) -> list[int]:
        """The rounds in which both cells were timed."""
        return sorted(self.of(candidate).keys() & self.of(baseline).keys())

    def beside(self, candidate: int, baseline: int) -> Effect:
        """The effect on the time of a cell, from the rounds that it shares with its baseline's cell."""
        key = candidate, baseline
        if key not in self._effects:
            own, other, shared = self.of(candidate), self.of(baseline), self.shared(*key)
            self._effects[key] = effect([own[number] for number in shared], [other[number] for number in shared])
        return self._effects[key]

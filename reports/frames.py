"""What is read, as data frames, and the error of what cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


class LoadError(ValueError):
    """Something that cannot be loaded; the message is one line that names the file and what was expected."""


@dataclass(frozen=True)
class Frames:
    """Everything that the loaded files say, one tidy data frame per kind of fact; :data:`reports.columns.COLUMNS` documents the columns.

    ``problems``: what is wrong with the files, one sentence each.
    """

    runs: pd.DataFrame
    implementations: pd.DataFrame
    contracts: pd.DataFrame
    mutations: pd.DataFrame
    calibrations: pd.DataFrame
    versus: pd.DataFrame
    coverage: pd.DataFrame
    conformance: pd.DataFrame
    errors: pd.DataFrame
    throughput: pd.DataFrame
    samples: pd.DataFrame
    problems: tuple[str, ...]

    @property
    def timed(self) -> pd.DataFrame:
        """The rows of ``throughput`` that have times."""
        return self.throughput[self.throughput["cell"].isin(self.samples["cell"])]

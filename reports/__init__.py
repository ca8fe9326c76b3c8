"""Records in, tables, verdicts, figures and a page out. Knows run files, and nothing of how they came about."""

from __future__ import annotations

from reports.columns import COLUMNS
from reports.load import Frames, LoadError, load

__all__ = ["COLUMNS", "Frames", "LoadError", "load"]

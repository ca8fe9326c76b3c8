"""The frames as files for other tools, CSV or Parquet, and those files as frames again."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from reports.columns import COLUMNS
from reports.frames import Frames

DESCRIPTION = "columns.csv"
"""The file beside the frames that says what every column holds, and in which unit."""


class ExportError(ValueError):
    """What cannot be written or read; the message says what to do."""


class Format(StrEnum):
    """How a frame is written."""

    CSV = "csv"
    PARQUET = "parquet"


def write(frames: Frames, directory: Path, format: Format) -> list[Path]:
    """Writes every frame of ``frames`` as ``directory/<frame>.<format>``, and :data:`DESCRIPTION`; returns the paths, that one first.

    Columns that hold dicts or lists are JSON. In CSV (UTF-8, RFC 4180) a missing number is empty, an infinite one ``inf``, and no digit of
    the others is lost. Raises :class:`ExportError` for Parquet without pyarrow.
    """
    if format is Format.PARQUET:
        _require_pyarrow()
    directory.mkdir(parents=True, exist_ok=True)
    paths = [_describe(directory / DESCRIPTION)]
    for name, columns in COLUMNS.items():
        frame: pd.DataFrame = getattr(frames, name)
        held = [column for column, (dtype, _) in columns.items() if dtype == "object"]
        flat = frame.assign(**{column: pd.Series(map(_json, frame[column]), dtype="str", index=frame.index) for column in held})
        path = directory / f"{name}.{format}"
        if format is Format.CSV:
            flat.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
        else:
            flat.to_parquet(path, engine="pyarrow", index=False)
        paths.append(path)
    return paths


def read(directory: Path) -> dict[str, pd.DataFrame]:
    """The frames that :func:`write` left in ``directory``, by name, with the types of :data:`reports.columns.COLUMNS`.

    Raises :class:`ExportError` where one is not there, or is there in both formats.
    """
    return {name: _read(directory, name, columns) for name, columns in COLUMNS.items()}


def _read(directory: Path, name: str, columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    found = [format for format in Format if (directory / f"{name}.{format}").exists()]
    if len(found) != 1:
        there = "both are there" if found else "neither is there"
        raise ExportError(f"Expected either {name}.csv or {name}.parquet in {directory} but {there}: export into an empty folder.")
    path = directory / f"{name}.{found[0]}"
    if found[0] is Format.PARQUET:
        _require_pyarrow()
        frame = pd.read_parquet(path, engine="pyarrow")
    else:
        # As texts, so that pandas takes none of them for a missing value, and Python reads the numbers to the last digit.
        frame = pd.read_csv(path, dtype="str", keep_default_na=False)
    return pd.DataFrame({column: _values(frame[column], dtype) for column, (dtype, _) in columns.items()})


def _values(found: pd.Series[Any], dtype: str) -> pd.Series[Any]:
    """A column as it was before it was written; one of a CSV holds texts."""
    parse = _PARSERS.get(dtype) if pd.api.types.is_string_dtype(found.dtype) else None
    return pd.Series(found if parse is None else list(map(parse, found)), dtype=dtype)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "object": json.loads,
    "bool": {"True": True, "False": False}.__getitem__,
    "int64": int,
    "Int64": lambda text: int(text) if text else None,
    "float64": lambda text: float(text) if text else None,
}


def _json(value: Any) -> str:
    return json.dumps(value)


def _describe(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("frame", "column", "dtype", "meaning"))
        for name, columns in COLUMNS.items():
            for column, (dtype, meaning) in columns.items():
                writer.writerow((name, column, "JSON" if dtype == "object" else dtype, meaning))
    return path


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ExportError(
            "Parquet needs pyarrow, which is not installed: python -m pip install 'pyarrow>=15', or take --format csv, which needs nothing."
        )

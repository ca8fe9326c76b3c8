"""Whose code an error was raised in: an implementation's own, or that of whoever checks it."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from types import TracebackType

import torch

from harness.implementation import Implementation
from harness.registry import source_file

#: Where Python keeps its own modules and the packages that are installed, the latter first: they may lie within the former.
_LIBRARIES = tuple(dict.fromkeys(sysconfig.get_paths()[name] + os.sep for name in ("purelib", "platlib", "stdlib", "platstdlib")))
_HARNESS, _ADAPTERS, _TORCH = (
    str(Path(place)) + os.sep for place in (Path(__file__).parent, Path(__file__).parent / "adapters", torch.__path__[0])
)


def in_own_code(error: BaseException, implementation: Implementation, suite: str) -> TracebackType | None:
    """From where on ``error`` was raised in code of ``implementation``; None where it was raised in the suite's, whoever called that.

    ``suite``: the file of the check, whose folder is the suite's.
    """
    folder, source = str(Path(suite).parent) + os.sep, source_file(implementation)
    place, own = error.__traceback__, None
    while place is not None:
        file = place.tb_frame.f_code.co_filename
        if file.startswith((_HARNESS, folder)) and not file.startswith(_ADAPTERS):
            own = None
        elif own is None and _is_code_of(file, source):
            own = place
        place = place.tb_next
    return own


def _is_code_of(file: str, source: str) -> bool:
    """Whether ``file`` holds code of an implementation whose class is in ``source``: neither torch's, nor Python's, nor of a package that
    is installed and is not the class's own."""
    if file.startswith(("<", _TORCH)):
        return False
    library = next((folder for folder in _LIBRARIES if file.startswith(folder)), None)
    if library is None:
        return True
    package = library + file.removeprefix(library).partition(os.sep)[0]
    return source == file or source.startswith(package + os.sep)

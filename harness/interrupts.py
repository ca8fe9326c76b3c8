"""Interrupts from the keyboard that are heard where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """A handler of interrupts that notes the first and raises the second."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def interrupts_noted() -> Iterator[Interrupt]:
    """Has an interrupt from the keyboard noted instead of raised: wherever it came, in a call or between two lists that belong together,
    something would be half done."""
    interrupt = Interrupt()
    # Nobody interrupts another thread, and what else a program wants of an interrupt is its own business.
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

"""Figures drawn beside each other, in processes of their own, because a page is mostly figures and Python draws on one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

from reports.figures import Drawing, Plan, style
from reports.inline import inline

_FORKSERVER = "forkserver"

MOST = 4
"""Processes at most: each takes about 0.15 GB."""


@dataclass(frozen=True)
class Drawn:
    """A figure in every form that is written of it, ``entry`` being what the page prints."""

    name: str
    svg: str
    png: bytes
    entry: dict[str, Any]


def drawn(plan: Plan, prefix: str) -> Drawn:
    """Draws a figure. ``prefix``: of its ids in the page, which no other figure has."""
    drawing = plan()
    text = style.svg(drawing.figure)
    return Drawn(drawing.name, text, style.png(drawing.figure), _entry(drawing, text, prefix))


def _entry(drawing: Drawing, text: str, prefix: str) -> dict[str, Any]:
    return {
        "id": prefix,
        "title": drawing.title,
        "caption": drawing.caption,
        "alternative": drawing.alternative,
        "timed_pass": drawing.timed_pass,
        "svg": inline(drawing, text, prefix),
        "csv": drawing.data.to_csv(index=False, float_format="%.6g"),
        "rows": len(drawing.data),
    }


Result = Callable[[], Drawn]
"""Waits for a figure."""


class Drawers:
    """Draws figures: each when it is asked for, or, given a ``pool``, in its processes from when it is planned."""

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool = pool

    def draw(self, plan: Plan, prefix: str) -> Result:
        """Begins with a figure; the answer gives it."""
        if self._pool is not None:
            try:
                return _Begun(self._pool.submit(drawn, plan, prefix), plan, prefix)
            except BrokenProcessPool:
                self._pool = None
        return lambda: drawn(plan, prefix)


@dataclass(frozen=True)
class _Begun:
    future: Future[Drawn]
    plan: Plan
    prefix: str

    def __call__(self) -> Drawn:
        try:
            return self.future.result()
        except BrokenProcessPool:
            # Somebody ended a process, or there was no memory for it; the page takes longer then, and is the same.
            return drawn(self.plan, self.prefix)


def prepare(processes: int) -> None:
    """Begins to load what ``processes`` will need, while this one does something else; nothing waits for it.

    Where processes can be forked from one that has loaded it, that is done once.
    """
    if processes > 1 and _FORKSERVER in multiprocessing.get_all_start_methods():
        multiprocessing.get_context(_FORKSERVER).set_forkserver_preload(["reports.commands"])
        with _ignoring_interrupts():
            forkserver.ensure_running()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """For processes that are started within: an interrupt from the keyboard reaches all of them, and one is enough to say so."""
    # Only the main thread may say what a signal does.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def drawers(processes: int) -> Iterator[Drawers]:
    """Draws in ``processes`` beside this one, or in this one if that is fewer than two. They load while this one goes on."""
    if processes < 2:
        yield Drawers(None)
        return
    prepare(processes)
    methods = multiprocessing.get_all_start_methods()
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context(_FORKSERVER if _FORKSERVER in methods else "spawn"))
    try:
        for _ in range(processes):
            pool.submit(os.getpid)
        yield Drawers(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Processes that draw on this machine: one for each core that this one may use, up to :data:`MOST`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST)

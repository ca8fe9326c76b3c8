"""A Python process beside this one that is asked over a pipe: started without waiting for it, told apart from its death, and ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness import forking
from harness.registry import FOLDERS

#: Seconds that a new process is given to import torch and everybody's modules.
STARTUP = 120.0

#: Seconds that a process which has closed its end of the pipe is given to end.
FAREWELL = 5.0

#: Held while the path of imports is another one than it was: processes side by side start in threads.
_PATH = threading.Lock()


@contextmanager
def _without_folders() -> Iterator[None]:
    """A file that is called like a module of the standard library must not stand in for it while a process starts; the process puts the
    folders of these files on its path itself, when it loads them."""
    with _PATH:
        path = list(sys.path)
        sys.path[:] = [folder for folder in path if folder not in FOLDERS]
        try:
            yield
        finally:
            sys.path[:] = path


class Child:
    """A process that runs ``serve(pipe, *arguments)``, which sends 'ready' once all is loaded and then answers what it is sent.

    ``name``: what the process is, after 'The'. It is started by :meth:`start`, and again after its end. ``forked``: it need not be laid out
    in memory anew, and may be forked from one that has torch loaded.
    """

    def __init__(self, name: str, serve: Callable[..., None], forked: bool = False) -> None:
        self._name, self._serve = name, serve
        # Not every GPU is known by what its driver leaves behind.
        self._method = forking.method() if forked and not torch.cuda.is_available() else "spawn"
        self._process: Any = None
        self._pipe: Connection | None = None
        self._ready = self._given_up = False
        #: Held while the process is started or ended: who ends it may be another thread.
        self._changing = threading.Lock()

    @property
    def pipe(self) -> Connection:
        """Where it is asked; there is one from :meth:`start` to :meth:`stop`."""
        assert self._pipe is not None
        return self._pipe

    def prepare(self, *arguments: Any) -> None:
        """Begins with what takes long before a process can be asked, and does not wait for it."""
        if self._method == "forkserver":
            with _without_folders():
                forking.begin()
        else:
            self.start(*arguments)

    def start(self, *arguments: Any) -> None:
        """Starts the process if there is none. Where it is not forked, it loads torch while its parent has other things to do.

        Raises EOFError where it was ended before it began, and RuntimeError where the system starts none.
        """
        with self._changing:
            if self._given_up:
                raise EOFError(f"The {self._name} was ended before it began")
            if self._pipe is None:
                self._begin(arguments)

    def _begin(self, arguments: tuple[Any, ...]) -> None:
        # Not forked from this one: torch's thread pools do not survive it.
        context: Any = multiprocessing.get_context(self._method)
        ours, theirs = context.Pipe()
        process = context.Process(target=self._serve, args=(theirs, *arguments), daemon=True)
        try:
            with _without_folders():
                if self._method == "forkserver":
                    forking.begin()
                process.start()
        except (EOFError, OSError) as error:
            ours.close()
            raise RuntimeError(f"The {self._name} could not be started: {type(error).__name__}: {error}") from error
        finally:
            theirs.close()
        self._process, self._pipe = process, ours

    def await_ready(self) -> None:
        """Waits until all is loaded, which is no part of the time that an answer takes. Raises RuntimeError where it takes too long."""
        if self._ready:
            return
        if not self.pipe.poll(STARTUP):
            self.stop()
            raise RuntimeError(f"The {self._name} was not ready within {STARTUP:g} s")
        self.pipe.recv()
        self._ready = True

    def interrupt(self) -> None:
        """Hands an interrupt from the keyboard on."""
        os.kill(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Ends the process, or keeps it from beginning, from another thread than the one that waits for it, which will see it dead."""
        with self._changing:
            self._given_up = True
            if self._process is not None:
                self._process.kill()

    def buried(self) -> str:
        """How the process ended that has closed its connection, to stand after 'the process'; there is none afterwards."""
        if self._process is not None:
            self._process.join(FAREWELL)
        died = death(None if self._process is None else self._process.exitcode)
        self.stop()
        return died

    def stop(self) -> None:
        """Ends the process, if there is one; another may be started."""
        self.kill()
        if self._process is not None:
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._ready = self._given_up = False


def death(code: int | None) -> str:
    """How a process ended, by its exit code as :mod:`multiprocessing` and :mod:`subprocess` give it: what comes after 'the process'."""
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"

"""A process from which others are forked: used where it can be, and with torch there before anybody asks."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import forking
from harness.child import Child

_forked = pytest.mark.skipif(forking.method() != "forkserver", reason=f"processes are not forked here, but start by {forking.method()}")


def _tells(pipe: Connection) -> None:
    pipe.send("ready")
    before = {name: name in sys.modules for name in forking.NEEDED}
    torch.set_num_threads(2)
    product = float((torch.ones(600, 600) @ torch.ones(600, 600)).sum())
    pipe.send((os.getppid(), before, product, torch.get_num_threads()))
    pipe.recv()


def _told(forked: bool) -> Any:
    child = Child("process that tells", _tells, forked=forked)
    try:
        child.start()
        child.await_ready()
        return child.pipe.recv()
    finally:
        child.stop()


@_forked
def test_two_that_are_forked_have_one_parent_that_is_not_this_process_and_torch_from_the_start() -> None:
    (one, had, product, threads), (other, *_), (spawned, *_) = _told(True), _told(True), _told(False)
    assert one == other != os.getpid() and spawned == os.getpid()
    assert all(had.values()) and set(had) == set(forking.NEEDED)
    assert (product, threads) == (600.0**3, 2), "threads of its own"


@_forked
@pytest.mark.parametrize("error", [EOFError(), ConnectionRefusedError("no one listens")])
def test_a_process_that_cannot_be_started_is_an_error_of_its_own_and_another_can_be(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child("process that tells", _tells, forked=True)

    def fails() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(forking, "begin", fails)
        with pytest.raises(RuntimeError, match="The process that tells could not be started: "):
            child.start()
    child.start()
    child.await_ready()
    child.stop()


@pytest.mark.parametrize(
    ("platform", "offered", "gpu", "method"),
    [
        ("linux", ["spawn", "forkserver"], False, "forkserver"),
        ("linux", ["spawn", "forkserver"], True, "spawn"),
        ("darwin", ["spawn", "forkserver"], False, "spawn"),
        ("win32", ["spawn"], False, "spawn"),
    ],
)
def test_nothing_is_forked_where_there_is_a_gpu_or_another_system(
    platform: str, offered: list[str], gpu: bool, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: offered)
    monkeypatch.setattr(forking, "_GPUS", (tmp_path / "none", tmp_path if gpu else tmp_path / "neither"))
    assert forking.method() == method

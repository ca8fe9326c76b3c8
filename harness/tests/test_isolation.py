"""A crash and a hang of an implementation are outcomes, and the next check is answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import registry
from harness.contract import Check, Contract
from harness.implementation import Implementation
from harness.isolation import Worker
from harness.registry import resolve, resolve_all
from harness.tests import samples
from harness.tests.samples import CASE

_NAMES = ("EXITS", "SEGFAULTS", "HANGS", "RUINS")
_REFERENCES = ["loop:textbook", *(f"harness.tests.samples:{name}" for name in _NAMES)]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker(_REFERENCES, limit=2.0)
    yield one
    one.stop()


def _sound(worker: Worker) -> str:
    return worker.run(Check(samples.agrees, resolve("loop:textbook"), CASE)).outcome


@pytest.mark.parametrize(
    ("implementation", "outcome", "message"),
    [
        (samples.EXITS, "crashed", "the process that ran it ended with exit status 3"),
        (samples.SEGFAULTS, "crashed", "the process that ran it was ended by SIGSEGV"),
        (samples.HANGS, "timed-out", "no answer within 2 s; the process was ended (--time-limit gives it longer)"),
        (samples.RUINS, "crashed", "it left cpu unusable: CUDA error: an illegal memory access was encountered"),
    ],
    ids=_NAMES,
)
def test_restarts_after_a_layer_that_a_process_does_not_survive(
    worker: Worker, implementation: Implementation, outcome: str, message: str
) -> None:
    result = worker.run(Check(samples.agrees, implementation, CASE))
    assert (result.outcome, result.message) == (outcome, message)
    assert (result.contract, result.case, result.implementation) == ("sample.agrees", CASE.id, implementation.id)
    if implementation is samples.RUINS:
        assert 0 < result.seconds < 2.0, "it answered"
    else:
        assert result.seconds == (2.0 if outcome == "timed-out" else 0)
    assert _sound(worker) == "passed"


def test_one_process_answers_check_after_check(worker: Worker) -> None:
    _sound(worker)
    process = worker._child._process.pid
    assert _sound(worker) == "passed" and worker._child._process.pid == process


@pytest.mark.parametrize(("contract", "error"), [(samples.is_broken_itself, "KeyError"), (samples.hidden, "not_there")])
def test_a_fault_of_the_suite_is_raised_here_and_blamed_on_nobody(worker: Worker, contract: Contract, error: str) -> None:
    with pytest.raises(RuntimeError, match=f"(?s)The suite failed in the worker process.*{error}"):
        worker.run(Check(contract, resolve("loop:textbook"), CASE))
    assert _sound(worker) == "passed"


def test_a_stopped_worker_can_be_stopped_again_and_used_again(worker: Worker) -> None:
    worker.stop()
    worker.stop()
    assert worker._child._process is None


def test_classes_from_files_are_there_in_the_process_even_under_the_names_of_known_modules(tmp_path: Path) -> None:
    text = "from torch import nn\nclass Mine(nn.GRU):\n    def forward(self, x, h=None):\n"
    sources = {"random": "        raise ValueError('of random')\n", "signal": "        raise ValueError('of signal')\n"}
    references = []
    path, folders = list(sys.path), list(registry.FOLDERS)
    for stem, body in sources.items():
        (tmp_path / f"{stem}.py").write_text(text + body)
        references.append(f"{tmp_path}/{stem}.py:Mine")
    worker = Worker(references, limit=20.0)
    try:
        for implementation, stem in zip(resolve_all(references), sources, strict=True):
            result = worker.run(Check(samples.agrees, implementation, CASE))
            assert result.outcome == "failed" and f"ValueError: of {stem}" in result.message, result.message
    finally:
        worker.stop()
        sys.path[:], registry.FOLDERS[:] = path, folders

"""A crash and a hang of an implementation are outcomes, and the next check is answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.contract import Check, Contract
from harness.implementation import ExpectedFailure, Implementation
from harness.isolation import Hangs, Worker
from harness.outcome import NOT_RUN, Outcome
from harness.registry import resolve, resolve_all
from harness.tests import samples
from harness.tests.samples import CASE, label

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


@pytest.mark.parametrize(
    ("layer", "declared", "outcome"),
    [
        (samples.EXITS, Outcome.CRASHED, "expected-failure"),
        (samples.HANGS, Outcome.TIMED_OUT, "expected-failure"),
        (samples.EXITS, Outcome.TIMED_OUT, "crashed"),
        (samples.EXITS, ValueError, "crashed"),
    ],
    ids=label,
)
def test_a_crash_and_a_hang_can_be_declared_as_strictly_as_an_exception(layer: Implementation, declared: Any, outcome: str) -> None:
    worker = Worker([f"harness.tests.samples:{layer.id.partition(':')[2].upper()}"], limit=1.0)
    known = ExpectedFailure("sample.agrees", "upstream", "it is known", declared, "tracker#1")
    implementation = replace(layer, expected_failures=(known,))
    try:
        result = worker.run(Check(samples.agrees, implementation, CASE))
    finally:
        worker.stop()
    assert result.outcome == outcome, result.message
    if outcome == "crashed":
        assert result.message.startswith("Expected to fail with ") and "(it is known) but failed otherwise: the process" in result.message


def test_a_declared_hang_gives_up_what_is_declared_of_its_contract_and_nothing_else() -> None:
    known = ExpectedFailure("sample.agrees", "upstream", "it is known", Outcome.TIMED_OUT, "", when=lambda case: case.batch == 2)
    hangs, layer = Hangs(), replace(samples.HANGS, expected_failures=(known,))
    declared, other = (Check(samples.agrees, layer, replace(CASE, batch=batch)) for batch in (2, 3))
    hangs.note(declared)
    assert hangs.given_up(declared) and not hangs.given_up(other)
    hangs.note(other)
    assert hangs.given_up(other)


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


@pytest.mark.parametrize("declares", [(), (ExpectedFailure("sample.agrees", "upstream", "it is known", ValueError, ""),)], ids=len)
def test_what_is_not_run_has_no_script_that_shows_it_and_met_no_declaration(declares: tuple[ExpectedFailure, ...]) -> None:
    hangs, check = Hangs(), Check(samples.agrees, replace(samples.HANGS, expected_failures=declares), CASE)
    hangs.note(check)
    result = Worker(["harness.tests.samples:HANGS"], limit=1.0, hangs=hangs).run(check)
    assert (result.outcome, result.reproduction) == ("timed-out", "") and result.message.startswith(NOT_RUN)

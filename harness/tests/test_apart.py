"""A crash and a hang of an implementation that is measured are outcomes of its cell, and the others have their times."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness import apart
from harness import measure as measuring
from harness.apart import Apart
from harness.isolation import PATIENCE
from harness.measure import Interrupted, empty, measure
from harness.outcome import Outcome
from harness.registry import resolve_all
from harness.sampling import Budget
from harness.tests import samples
from harness.tests.samples import CASE
from harness.workload import Pass, Workload

BUDGET = Budget(seconds=0.05)
WORKLOAD = Workload("tests", CASE, Pass.INFERENCE)


class Loses(torch.nn.GRU):
    """Leaves its process without its device at its tenth call, among the samples, as an error in a CUDA kernel does."""

    calls, lost = 0, "CUDA error: an illegal memory access was encountered"

    def forward(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls >= 10:
            measuring.unusable = lambda device: self.lost  # type: ignore[attr-defined]  # imported there
            raise RuntimeError(self.lost)
        return super().forward(*arguments)


class Dies(torch.nn.GRU):
    """Is interrupted, and ends its process."""

    def forward(self, *arguments: Any) -> Any:
        try:
            time.sleep(60)
        finally:
            os._exit(3)


DIES = samples.implementation(Dies, "sample:dies")
LOSES = samples.implementation(Loses, "sample:loses")

_REFERENCES = [
    "harness.tests.test_apart:LOSES",
    "harness.tests.test_apart:DIES",
    "torch:onednn",
    "loop:textbook",
    *(f"harness.tests.samples:{name}" for name in ("EXITS", "SEGFAULTS", "HANGS", "LATE", "SLOW", "STUBBORN")),
]
_ALL = {i.id: i for i in resolve_all(_REFERENCES)}


@pytest.fixture(scope="module")
def worker() -> Iterator[Apart]:
    one = Apart(_REFERENCES, limit=5.0)
    yield one
    one.stop()


def _measured(worker: Apart, *ids: str, budget: Budget = BUDGET) -> dict[str, Any]:
    asked = [_ALL[id] for id in ids]
    records = worker.measure(WORKLOAD, asked, budget)
    assert [record.implementation for record in records] == list(ids)
    return {record.implementation: record for record in records}


@pytest.mark.parametrize(
    ("id", "outcome", "message"),
    [
        ("sample:late", "crashed", "the process that ran it was ended by SIGABRT"),
        ("sample:hangs", "timed-out", "no answer within 5 s; the process was ended (--time-limit gives it longer)"),
    ],
)
def test_who_ends_the_process_is_named_and_the_others_are_measured(worker: Apart, id: str, outcome: str, message: str) -> None:
    found = _measured(worker, "torch:onednn", id, "loop:textbook")
    assert (found[id].outcome, found[id].message, found[id].samples) == (outcome, message, [])
    others = [found["torch:onednn"], found["loop:textbook"]]
    assert [record.outcome for record in others] == ["passed", "passed"]
    assert all(len(record.samples) >= 5 and record.agreement["after"] and record.limit and record.kernels for record in others)
    assert min(len(record.rounds) for record in others) >= 5 and others[0].rounds[:5] == others[1].rounds[:5] == list(range(5))


def test_two_who_end_it_are_both_named(worker: Apart) -> None:
    found = _measured(worker, "sample:segfaults", "torch:onednn", "sample:exits")
    assert {id: (record.outcome, record.message) for id, record in found.items()} == {
        "sample:segfaults": ("crashed", "the process that ran it was ended by SIGSEGV"),
        "torch:onednn": ("passed", ""),
        "sample:exits": ("crashed", "the process that ran it ended with exit status 3"),
    }


def test_who_loses_the_device_is_named_and_the_others_are_measured_in_a_new_process(worker: Apart) -> None:
    found = _measured(worker, "torch:onednn", "sample:loses", "loop:textbook")
    assert {id: record.outcome for id, record in found.items()} == {
        "torch:onednn": "passed",
        "sample:loses": "crashed",
        "loop:textbook": "passed",
    }
    assert found["sample:loses"].message == f"it left cpu unusable: {Loses.lost}"
    assert found["torch:onednn"].rounds[:5] == found["loop:textbook"].rounds[:5] == list(range(5))
    # What crashed in an earlier run has left no process of this one without its device.
    before = {"sample:loses": found["sample:loses"]}
    again = worker.measure(WORKLOAD, [_ALL["sample:loses"], _ALL["loop:textbook"]], BUDGET, before=before)
    assert again[0] == found["sample:loses"] and again[1].outcome == "passed"


def test_one_process_measures_workload_after_workload(worker: Apart) -> None:
    _measured(worker, "loop:textbook")
    process = worker._child._process.pid
    assert _measured(worker, "torch:onednn")["torch:onednn"].outcome == "passed" and worker._child._process.pid == process


def test_calls_that_are_long_together_and_short_alone_are_not_taken_for_a_hang(worker: Apart) -> None:
    # Some two dozen calls of 0.3 seconds each, against a limit of 5 seconds.
    budget = Budget(seconds=0.1, least_rounds=5, sample_seconds=0.0, warmup_seconds=0.0)
    assert _measured(worker, "sample:slow", budget=budget)["sample:slow"].outcome == "passed"


def test_what_was_taken_before_is_gone_on_from(worker: Apart) -> None:
    first = _measured(worker, "torch:onednn", "loop:textbook")
    before = {id: replace(record, stopped="interrupted") for id, record in first.items()}
    again = worker.measure(WORKLOAD, [_ALL["torch:onednn"], _ALL["loop:textbook"]], Budget(seconds=0.2), before=before)
    for record in again:
        assert record.samples[: len(first[record.implementation].samples)] == first[record.implementation].samples
        assert len(record.samples) > len(first[record.implementation].samples)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_is_handed_on_and_what_was_taken_until_then_is_kept(worker: Apart) -> None:
    _measured(worker, "loop:textbook")
    # Once the rounds have begun, which takes some tenths of a second at the most.
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted) as caught:
        _measured(worker, "torch:onednn", "loop:textbook", budget=Budget(seconds=600.0, decide=False))
    kept = {record.implementation: record for record in caught.value.records}
    assert set(kept) == {"torch:onednn", "loop:textbook"}
    assert all(record.stopped == "interrupted" and len(record.samples) >= 5 and record.agreement["after"] for record in kept.values())
    assert _measured(worker, "loop:textbook")["loop:textbook"].outcome == "passed", "the process goes on"


def test_an_interrupt_that_comes_when_all_is_done_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    record = empty(WORKLOAD, _ALL["loop:textbook"], cold=False)

    class Done:
        """A process that is done when the interrupt comes, and its pipe."""

        interrupts, polls = 0, 0

        def poll(self, seconds: float) -> bool:
            self.polls += 1
            if self.polls == 1:
                raise KeyboardInterrupt
            return True

        def interrupt(self) -> None:
            self.interrupts += 1

    done: Any = Done()
    done.pipe, done.recv = done, lambda: ("records", [record])
    done.start = done.send = lambda *arguments: None
    done.await_ready = lambda: None
    one = Apart(_REFERENCES, limit=5.0)
    monkeypatch.setattr(one, "_child", done)
    with pytest.raises(Interrupted) as caught:
        one.measure(WORKLOAD, [_ALL["loop:textbook"]], BUDGET)
    assert caught.value.records == [record] and done.interrupts == 1


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(("id", "outcome"), [("sample:stubborn", "timed-out"), ("sample:dies", "crashed")])
def test_an_interrupt_while_a_layer_hangs_or_dies_ends_the_run_and_keeps_what_was_known(id: str, outcome: str) -> None:
    one = Apart(_REFERENCES, limit=2.0)
    try:
        (known,) = one.measure(WORKLOAD, [_ALL["loop:textbook"]], BUDGET)
        before = {"loop:textbook": replace(known, stopped="interrupted")}
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Interrupted) as caught:
            one.measure(WORKLOAD, [_ALL["torch:onednn"], _ALL[id], _ALL["loop:textbook"]], BUDGET, before=before)
        assert [(record.implementation, record.outcome) for record in caught.value.records] == [(id, outcome), ("loop:textbook", "passed")]
        assert caught.value.records[1] == before["loop:textbook"] and one._child._process is None
    finally:
        one.stop()


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_while_the_process_starts_keeps_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    one = Apart(_REFERENCES, limit=2.0)
    monkeypatch.setattr(one, "prepare", interrupted)
    before = {"loop:textbook": empty(WORKLOAD, _ALL["loop:textbook"], cold=False)}
    with pytest.raises(Interrupted) as caught:
        one.measure(WORKLOAD, [_ALL["torch:onednn"], _ALL["loop:textbook"]], BUDGET, before=before)
    assert caught.value.records == [before["loop:textbook"]]


@pytest.mark.usefixtures("interrupts")
def test_a_second_interrupt_ends_it_at_once(worker: Apart) -> None:
    _measured(worker, "loop:textbook")

    def twice() -> None:
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=twice).start()
    with pytest.raises(KeyboardInterrupt):
        # What is sampled comes to the end of its round at the first.
        worker.measure(WORKLOAD, [_ALL["sample:stubborn"]], BUDGET)
    assert worker._child._process is None


def test_after_some_hangs_the_rest_is_given_up() -> None:
    one = Apart(_REFERENCES, limit=0.01)
    one._hung["sample:hangs"] = PATIENCE
    (record,) = one.measure(WORKLOAD, [_ALL["sample:hangs"]], BUDGET)
    assert (record.outcome, one._child._process) == ("timed-out", None)
    assert record.message == "not run: 3 calls of it did not end within 0.01 s before"


def test_a_fault_of_the_harness_is_raised_here_and_blamed_on_nobody(worker: Apart) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)The harness failed in the process that measures.*AttributeError"):
        worker._ask([], (None, ["loop:textbook"], BUDGET, "", False, {}))
    assert _measured(worker, "loop:textbook")["loop:textbook"].outcome == "passed"


def _names(left: list[str], called: int) -> dict[str, str]:
    end = apart._Ended(Outcome.CRASHED, "it was ended", called)
    return {implementation.id: message for implementation, message in apart._blamed([_ALL[id] for id in left], end)}


def test_a_built_in_layer_answers_only_where_nobody_else_was_in_the_process() -> None:
    assert _names(["torch:onednn", "sample:exits"], 1) == {"sample:exits": "it was ended"}
    assert _names(["torch:onednn", "loop:textbook"], 1) == {"loop:textbook": "it was ended"}
    assert _names(["torch:onednn", "sample:exits"], 0) == {"sample:exits": "it was ended while torch:onednn was called beside it"}
    several = _names(["torch:onednn", "sample:exits", "sample:hangs"], 0)
    assert set(several) == {"sample:exits", "sample:hangs"}
    assert several["sample:exits"].endswith("; sample:exits, sample:hangs shared the process: measure them one at a time")
    assert _names(["torch:onednn", "sample:exits"], apart._NOBODY)["sample:exits"].endswith("while nobody was called beside it")
    with pytest.raises(RuntimeError, match="ended while nobody was called"):
        _names(["torch:onednn"], apart._NOBODY)


def test_whoever_runs_is_told_before_and_nobody_after() -> None:
    told: list[str] = []
    running: list[str] = []

    def forward(self: Any, *arguments: Any) -> Any:
        running.append(told[-1])
        return torch.nn.GRU.forward(self, *arguments)

    cells = [samples.implementation(forward, id) for id in ("sample:a", "sample:b")]
    assert [r.outcome for r in measure(WORKLOAD, cells, BUDGET, calling=told.append)] == ["passed", "passed"]
    assert set(running) == {"sample:a", "sample:b"} and told[-1] == "" and len(told) % 2 == 0 and set(told[1::2]) == {""}

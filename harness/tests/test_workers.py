"""Workers side by side give the answers that one would give, ahead of the one who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness.contract import Check, Contract
from harness.isolation import PATIENCE, Hangs
from harness.registry import resolve
from harness.tests import samples
from harness.tests.samples import CASE
from harness.workers import AT_MOST, Workers, sensible

_REFERENCES = ["loop:textbook", "harness.tests.samples:HANGS", "harness.tests.samples:EXITS"]
_LIMIT = 2.0


@pytest.fixture
def two() -> Iterator[Workers]:
    pool = Workers(_REFERENCES, _LIMIT, 2)
    yield pool
    pool.stop()


def _checks(contract: Contract, count: int, **of: Any) -> list[Check]:
    implementation = of.get("implementation", resolve("loop:textbook"))
    return [Check(contract, implementation, replace(CASE, seed=seed)) for seed in range(count)]


def _pids(pool: Workers) -> list[int]:
    return [worker._child._process.pid for worker in pool._workers if worker._child._process is not None]


def test_the_checks_of_two_contracts_are_answered_in_two_processes_and_each_answer_belongs_to_its_check(two: Workers) -> None:
    right, wrong = _checks(samples.agrees, 3), _checks(samples.is_broken_itself, 1)
    two.expect([*right, *wrong])
    found = [two.run(check) for check in right]
    assert [(one.case, one.outcome) for one in found] == [(check.case.id, "passed") for check in right if check.case]
    with pytest.raises(RuntimeError, match="The suite failed in the worker process"):
        two.run(wrong[0])
    assert len(set(_pids(two))) == 2


def test_a_hanging_contract_keeps_no_other_one_waiting(two: Workers) -> None:
    hangs, right = _checks(samples.agrees, 1, implementation=samples.HANGS), _checks(samples.agrees_too, 2)
    two.expect([*hangs, *right])
    assert [two.run(check).outcome for check in right] == ["passed", "passed"]
    assert not two._answers[hangs[0].id].done()
    assert two.run(hangs[0]).outcome == "timed-out"


def test_what_nobody_expected_is_answered_too(two: Workers) -> None:
    (check,) = _checks(samples.agrees, 1)
    assert two.run(check).outcome == two.run(check).outcome == "passed"


def test_a_death_is_one_checks_outcome_and_the_next_check_is_answered(two: Workers) -> None:
    dies, right = _checks(samples.agrees, 1, implementation=samples.EXITS), _checks(samples.agrees, 1)
    two.expect([*dies, *right])
    assert [two.run(check).outcome for check in (*dies, *right)] == ["crashed", "passed"]


def test_processes_share_what_they_know_of_hanging(two: Workers) -> None:
    (check,) = _checks(samples.agrees, 1, implementation=samples.HANGS)
    one, other = two._workers
    one._hangs.note(check)
    assert "another case of this contract" in other.run(check).message


def test_a_contract_is_given_up_after_one_hang_and_an_implementation_after_hangs_in_three_contracts() -> None:
    hangs = Hangs()
    contracts = [replace(samples.agrees, id=f"sample.{k}") for k in range(PATIENCE + 1)]
    checks = [Check(contract, samples.HANGS, CASE) for contract in contracts]
    for check in checks[:PATIENCE]:
        assert not hangs.given_up(check)
        hangs.note(check)
        assert hangs.given_up(check)
    assert hangs.given_up(checks[PATIENCE]) == "not run: 3 contracts were not answered in time before: sample.0, sample.1, sample.2"
    assert not hangs.given_up(Check(contracts[0], samples.EXITS, CASE)), "another one's hangs are not its own"


def test_a_contract_that_does_the_work_of_many_is_given_longer() -> None:
    pool = Workers(_REFERENCES, 0.5, 1)
    patient = replace(samples.agrees, time_limit_factor=3)
    try:
        result = pool._workers[0].run(Check(patient, samples.HANGS, CASE))
    finally:
        pool.stop()
    assert result.outcome == "timed-out" and "no answer within 1.5 s" in result.message


def test_stopping_gives_up_what_was_not_asked_for() -> None:
    pool = Workers(_REFERENCES, 60.0, 2)
    pool.expect(_checks(samples.agrees, 100, implementation=samples.HANGS))
    while not _pids(pool):
        time.sleep(0.01)
    pool.stop()
    assert not _pids(pool) and not any(thread.is_alive() for thread in pool._threads)


def test_stopping_before_anything_has_begun_ends_at_once() -> None:
    for _ in range(20):
        pool = Workers(_REFERENCES, 60.0, 2)
        pool.expect(_checks(samples.agrees, 2, implementation=samples.HANGS))
        pool.stop()
        assert not _pids(pool) and not any(thread.is_alive() for thread in pool._threads)


@pytest.mark.parametrize(("cores", "threads", "count"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 3, 1), (64, 1, AT_MOST), (8, 0, 4)])
def test_no_more_processes_run_than_there_are_cores_for(cores: int, threads: int, count: int) -> None:
    assert sensible(threads, cores) == count

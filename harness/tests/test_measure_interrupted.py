"""An interrupt from the keyboard ends a measurement, and loses nothing that was taken."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from harness import footprint, passes
from harness import measure as measuring
from harness.clock import FakeClock
from harness.measure import Interrupted, measure
from harness.sampling import Budget
from harness.tests.samples import CASE, Doubled, implementation
from harness.tests.test_measure import BUDGET, INFERENCE, raising, ticking
from harness.trial import ContractError

pytestmark = pytest.mark.usefixtures("interrupts")


def _noisy(clock: FakeClock, interrupted_at: int = 0) -> Callable[..., Any]:
    """A forward of about a hundredth of a second; in the call of that number the interrupt from the keyboard comes."""
    count, generator = 0, random.Random(0)

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        clock.advance(generator.uniform(0.005, 0.015))
        if count == interrupted_at:
            signal.raise_signal(signal.SIGINT)
        return nn.GRU.forward(self, *arguments)

    return forward


def test_what_was_taken_until_an_interrupt_is_kept_and_gone_on_from() -> None:
    clock, budget = FakeClock(), Budget(seconds=1.0, sample_seconds=0.0, warmup_seconds=0.0)
    other = implementation(_noisy(clock), "torch:base")
    late = [implementation(ticking(clock, Doubled.forward), "sample:wrong"), other]
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [implementation(_noisy(clock, interrupted_at=30)), *late], budget, clock)
    records = {record.implementation: record for record in caught.value.records}
    own, base, wrong = records["sample:one"], records["torch:base"], records["sample:wrong"]
    assert own.stopped == base.stopped == "interrupted" and wrong.outcome == "failed"
    assert 5 < len(own.samples) < 20 and own.rounds == base.rounds, "the round in which it came was finished"
    assert set(own.agreement) == {"before", "after"}, "what was kept was checked"
    again = measure(INFERENCE, [implementation(_noisy(clock)), *late], budget, clock, before=records)
    own_again, wrong_again, base_again = again
    assert wrong_again is wrong, "it was decided before"
    assert own_again.stopped == base_again.stopped == "time" and own_again.warm_up == own.warm_up
    assert own_again.samples[: len(own.samples)] == own.samples and own_again.rounds == list(range(len(own_again.samples)))
    assert 0.45 < sum(own_again.samples) + sum(base_again.samples) < 0.55, (
        "half of the calls are not timed; the time before the interrupt counts"
    )


@pytest.mark.parametrize(("owner", "moment"), [(measuring, "agreement"), (footprint, "peak")])
def test_an_interrupt_after_the_sampling_loses_no_sample(owner: Any, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, count = getattr(owner, moment), 0

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        # Of agreements the first two are before the sampling.
        if count == (3 if moment == "agreement" else 1):
            signal.raise_signal(signal.SIGINT)
        return whole(*arguments, **options)

    monkeypatch.setattr(owner, moment, interrupted)
    clock = FakeClock()
    both = [implementation(_noisy(clock), "torch:base"), implementation(_noisy(clock))]
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, both, BUDGET, clock)
    base, own = caught.value.records
    assert base.samples and own.samples and set(base.agreement) == set(own.agreement) == {"before", "after"}
    assert {base.stopped, own.stopped}.isdisjoint({"interrupted"}) and own.memory == {"unavailable": "the run was interrupted before"}
    assert measure(INFERENCE, both, BUDGET, clock, before={"torch:base": base, "sample:one": own}) == [base, own], "nothing is left to do"


def test_an_interrupt_before_the_first_round_keeps_what_there_was() -> None:
    clock = FakeClock()
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [implementation(_noisy(clock, interrupted_at=9)), implementation(Doubled, "sample:wrong")], BUDGET, clock)
    assert [(record.implementation, record.outcome) for record in caught.value.records] == [("sample:wrong", "failed")]


def test_a_second_interrupt_ends_the_sampling_at_once() -> None:
    def forward(self: nn.GRU, *arguments: Any) -> Any:
        self.count = getattr(self, "count", 0) + 1
        if self.count > 40:
            # In one call: the next may be after the round, where sampling has ended.
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return nn.GRU.forward(self, *arguments)

    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [implementation(forward)], replace(BUDGET, least_rounds=50), FakeClock())
    assert caught.value.records == [], "it ended in the middle of a round"


def test_an_interrupt_while_a_batch_that_fits_is_searched_loses_no_sample() -> None:
    def forward(self: nn.GRU, input: Any, hx: Any) -> Any:
        if input.shape[1] < CASE.batch:
            signal.raise_signal(signal.SIGINT)
        raise MemoryError("too much")

    clock = FakeClock()
    base = implementation(_noisy(clock), "torch:base")
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [implementation(forward), base], BUDGET, clock)
    hungry, timed = caught.value.records
    assert (hungry.outcome, hungry.fits) == ("out-of-memory", {}) and len(timed.samples) == 3 and timed.agreement["after"]
    known = {record.implementation: record for record in caught.value.records}
    again = measure(INFERENCE, [implementation(_wants_memory), base], BUDGET, clock, before=known)
    assert again[0].fits == {"batch": 1} and again[1] == timed, "the search is taken up where it was left"


def _wants_memory(self: nn.GRU, input: Any, hx: Any) -> Any:
    if input.shape[1] == CASE.batch:
        raise MemoryError("too much")
    return nn.GRU.forward(self, input, hx)


@pytest.mark.parametrize("moment", ["agreement", "interleave"])
def test_an_interrupt_before_the_samples_that_are_missing_keeps_those_of_the_earlier_run(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    clock = FakeClock()
    both = [implementation(_noisy(clock), "torch:base"), implementation(_noisy(clock))]
    first = measure(INFERENCE, both, BUDGET, clock)
    before = {record.implementation: replace(record, stopped="interrupted") for record in first}
    monkeypatch.setattr(measuring, moment, interrupted)
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [*both, implementation(Doubled, "sample:new")], BUDGET, clock, before=before)
    kept = {record.implementation: record for record in caught.value.records}
    wrong = kept.pop("sample:new", None)
    assert kept == before and (moment == "agreement" or (wrong is not None and wrong.outcome == "failed"))


def test_what_fails_after_it_was_gone_on_from_was_not_interrupted() -> None:
    clock = FakeClock()
    (record,) = measure(INFERENCE, [implementation(_noisy(clock))], BUDGET, clock)
    before = {record.implementation: replace(record, stopped="interrupted")}
    (failed,) = measure(INFERENCE, [implementation(raising(ValueError("no"), 6))], BUDGET, clock, before=before)
    assert (failed.outcome, failed.stopped, failed.samples) == ("failed", "", [])


def test_an_interrupt_ends_the_run_also_where_what_was_sampled_turns_out_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = passes.agreement

    def wrong(cell: Any, inputs_seed: int) -> Any:
        if inputs_seed == 2:
            raise ContractError("another answer")
        return whole(cell, inputs_seed)

    monkeypatch.setattr(measuring, "agreement", wrong)
    clock = FakeClock()
    with pytest.raises(Interrupted) as caught:
        measure(INFERENCE, [implementation(_noisy(clock, interrupted_at=30))], Budget(seconds=1.0, sample_seconds=0.0), clock)
    assert [(record.outcome, record.message) for record in caught.value.records] == [("failed", "another answer")]

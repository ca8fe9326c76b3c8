"""How samples are taken, with a clock that stands still until it is told to go on."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from harness.clock import FakeClock, Timing
from harness.sampling import Budget, Contest, Samples, Stop, Subject, calibrate, interleave, paced, paired, require_whole
from harness.statistics import Effect, Verdict, effect, verdicts


class Timed:
    """A subject whose n-th call takes ``durations[n]`` seconds, the last for ever; it notes each call in ``log``."""

    def __init__(self, clock: FakeClock, *durations: float, name: str = "", log: list[str] | None = None, raises_at: int = -1) -> None:
        self.calls, self._clock, self._durations, self._name, self._log = 0, clock, durations, name, log
        self._raises_at = raises_at

    def __call__(self) -> None:
        if self.calls == self._raises_at:
            raise ValueError(f"at call {self.calls}")
        self._clock.advance(self._durations[min(self.calls, len(self._durations) - 1)])
        self.calls += 1
        if self._log is not None:
            self._log.append(self._name)


def _subject(call: Callable[[], Any], context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Subject:
    return Subject(call, context)


def test_a_sample_is_the_mean_of_consecutive_calls() -> None:
    clock = FakeClock()
    assert _subject(Timed(clock, 1.0, 2.0, 6.0)).sample(clock, 3) == Timing(3.0)


def test_the_context_is_entered_once_a_sample_and_not_timed() -> None:
    clock, entered = FakeClock(), []

    @contextmanager
    def slow() -> Iterator[None]:
        entered.append(1)
        clock.advance(100.0)
        yield
        clock.advance(100.0)

    assert _subject(Timed(clock, 0.5), slow).sample(clock, 4).seconds == 0.5
    assert len(entered) == 1


def test_untimed_calls_come_first_and_are_not_timed() -> None:
    clock = FakeClock()
    timed = Timed(clock, 9.0, 1.0, 2.0, 6.0)
    assert _subject(timed).sample(clock, 3, untimed=1) == Timing(3.0)
    assert timed.calls == 4


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 1), (2e-3, 1), (1e-3, 1), (2.5e-4, 4), (3e-4, 4), (1e-6, 1000)])
def test_a_sample_has_as_many_calls_as_fill_its_time(seconds: float, calls: int) -> None:
    assert paced({"a": _subject(print)}, {"a": seconds}, Budget(sample_seconds=1e-3))["a"].calls == pytest.approx(calls, abs=1)


@pytest.mark.parametrize(("device", "seconds", "calls"), [("cpu", 2e-5, 15), ("cuda", 2e-5, 100), ("cuda:1", 1e-3, 2), ("cuda", 3e-3, 1)])
def test_a_sample_on_a_gpu_is_long_beside_the_wait_for_it(device: str, seconds: float, calls: int) -> None:
    assert paced({"a": _subject(print)}, {"a": seconds}, Budget().on(device))["a"].calls == calls


def test_a_sample_is_as_long_as_was_asked_for_on_a_gpu_too() -> None:
    asked = Budget(seconds=3.0, sample_seconds=0.5, family=4)
    assert asked.on("cuda") == asked == asked.on("cpu")


def test_what_is_to_be_compared_has_as_many_calls_to_a_sample() -> None:
    seconds = {"fast": 4.9e-4, "slower": 5.1e-4, "slow": 2e-3, "far slower": 0.015, "very slow": 0.1}
    pace = paced(dict.fromkeys(seconds, _subject(print)), seconds, Budget(sample_seconds=1e-3))
    assert {name: own.calls for name, own in pace.items()} == {"fast": 3, "slower": 3, "slow": 3, "far slower": 2, "very slow": 1}


def test_short_calls_are_preceded_by_one_that_is_not_timed() -> None:
    subjects = {name: _subject(print) for name in ("short", "long")} | {"alone": Subject(print, nullcontext, singly=True)}
    pace = paced(subjects, {"short": 1e-3, "long": 0.06, "alone": 1e-3}, Budget())
    assert {name: own.untimed for name, own in pace.items()} == {"short": 1, "long": 0, "alone": 0}
    assert pace["alone"].calls == 1


class Cache:
    """What several subjects share: a call takes longer by a penalty after a call of another."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self._last = clock, ""

    def call(self, name: str, seconds: float, penalty: float) -> Callable[[], None]:
        def run() -> None:
            self._clock.advance(seconds + penalty * (self._last != name))
            self._last = name

        return run


def test_what_the_one_before_left_in_the_caches_is_not_measured() -> None:
    clock = FakeClock()
    cache = Cache(clock)
    subjects = {name: _subject(cache.call(name, seconds, 1e-4)) for name, seconds in (("a", 4.9e-4), ("b", 5.1e-4), ("c", 2e-3))}
    taken = interleave(subjects, clock, Budget(seconds=1.0))
    for name, seconds in (("a", 4.9e-4), ("b", 5.1e-4), ("c", 2e-3)):
        assert taken[name].seconds == pytest.approx([seconds] * len(taken[name].seconds)), name


def test_a_slow_first_call_does_not_decide_how_long_a_call_takes() -> None:
    clock = FakeClock()
    assert calibrate(_subject(Timed(clock, 5.0, 1e-4)), clock, Budget(sample_seconds=1e-3)) == pytest.approx(1e-4)


def test_a_moment_without_a_core_is_no_slow_subject() -> None:
    clock = FakeClock()
    assert calibrate(_subject(Timed(clock, 1e-3, 0.08, 1e-3)), clock, Budget()) == pytest.approx(1e-3)


def test_warms_up_for_as_long_as_the_budget_says() -> None:
    clock = FakeClock()
    calibrate(_subject(Timed(clock, 1e-3)), clock, Budget(warmup_seconds=0.5))
    assert 0.5 <= clock.now() < 0.51
    clock = FakeClock()
    slow = Timed(clock, 2.0)
    calibrate(_subject(slow), clock, Budget(warmup_seconds=0.5))
    assert slow.calls == 2


def _interleaved(seed: int, budget: Budget, **durations: float) -> tuple[dict[str, Samples], list[str], FakeClock]:
    clock = FakeClock()
    log: list[str] = []
    subjects = {name: _subject(Timed(clock, seconds, name=name, log=log)) for name, seconds in durations.items()}
    taken = interleave(subjects, clock, budget, seed)
    # What came before belongs to the warm-up.
    calls = sum(len(samples.seconds) * samples.calls for samples in taken.values())
    return taken, log[len(log) - calls :], clock


def test_every_round_has_every_subject_once_in_an_order_drawn_anew() -> None:
    budget = Budget(seconds=0, least_rounds=30, sample_seconds=0)
    taken, log, _ = _interleaved(3, budget, a=1.0, b=2.0, c=3.0)
    rounds = [tuple(log[i : i + 3]) for i in range(0, len(log), 3)]
    assert len(rounds) == 30 and all(set(one) == {"a", "b", "c"} for one in rounds)
    assert len(set(rounds)) == 6
    for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        assert taken[name].seconds == [seconds] * 30 and taken[name].rounds == list(range(30)) and taken[name].error is None


def test_the_order_follows_from_the_seed() -> None:
    budget = Budget(seconds=0, least_rounds=10, sample_seconds=0)
    first, again, other = (_interleaved(seed, budget, a=1.0, b=1.0, c=1.0)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_stops_when_the_time_of_the_comparison_is_spent() -> None:
    taken, _, _ = _interleaved(0, Budget(seconds=10.0, least_rounds=2), a=1.0, b=1.0)
    assert len(taken["a"].seconds) == len(taken["b"].seconds) == 5
    assert taken["b"].stopped == "time"


def test_takes_the_least_rounds_whatever_they_take() -> None:
    taken, _, _ = _interleaved(0, Budget(seconds=1.0, least_rounds=5), a=100.0)
    assert len(taken["a"].seconds) == 5


def test_the_warm_up_is_not_part_of_the_budget() -> None:
    taken, _, clock = _interleaved(0, Budget(seconds=0.25, least_rounds=1, warmup_seconds=1000.0), a=0.03125)
    assert len(taken["a"].seconds) == 4 and clock.now() > 1000


def test_a_decided_comparison_leaves_the_rounds_and_the_close_one_goes_on() -> None:
    taken, _, _ = _interleaved(0, Budget(seconds=10.0), base=1e-2, slow=2e-2, close=1.005e-2)
    assert taken["slow"].stopped == "decided" and len(taken["slow"].seconds) < 60
    assert len(taken["base"].seconds) >= len(taken["close"].seconds)
    assert taken["slow"].rounds == list(range(len(taken["slow"].seconds)))


def test_a_comparison_that_is_not_to_be_decided_goes_on_until_its_time_is_spent() -> None:
    taken, _, _ = _interleaved(0, Budget(seconds=3.0, decide=False), base=1e-2, slow=2e-2)
    assert taken["slow"].stopped == "time" and 3.0 <= taken["base"].spent + taken["slow"].spent < 3.1


@pytest.mark.parametrize(("family", "stopped"), [(1, "decided"), (10, "decided"), (100, "time")])
def test_a_comparison_ends_early_only_by_a_verdict_that_holds_in_its_family(family: int, stopped: str) -> None:
    # Two equal things would differ as much in 5 of 10,000 comparisons.
    found = Effect(0.02, 0.004, 15, 100, 0.0025)
    assert 4e-4 < found.p < 6e-4
    own, base = Samples(), Samples()
    contest = Contest(own, base, Budget(seconds=2.0, family=family), lambda *given: found)
    while not own.stopped:
        for samples in (own, base):
            samples.rounds.append(len(samples.seconds))
            samples.seconds.append(0.01)
        contest.count_round()
    assert own.stopped == stopped
    others = {str(number): Effect(0.0, 0.004, 15, 100) for number in range(family - 1)}
    assert (verdicts({"it": found, **others})["it"] is Verdict.SLOWER) == (stopped == "decided")


def test_the_named_baseline_is_the_one_that_stays() -> None:
    clock = FakeClock()
    subjects = {name: _subject(Timed(clock, seconds)) for name, seconds in (("a", 1e-2), ("b", 2e-2), ("c", 3e-2))}
    taken = interleave(subjects, clock, Budget(), baseline="b")
    assert taken["a"].stopped == taken["c"].stopped == "decided"
    assert len(taken["b"].seconds) >= max(len(taken["a"].seconds), len(taken["c"].seconds))


def test_without_its_baseline_the_rest_is_sampled_for_itself() -> None:
    clock = FakeClock()
    bad = _subject(Timed(clock, 1e-2, raises_at=9))
    taken = interleave({"base": bad, "other": _subject(Timed(clock, 1e-2))}, clock, Budget(seconds=60.0))
    assert isinstance(taken["base"].error, ValueError)
    assert taken["other"].error is None and 0.4 < taken["other"].spent < 0.6


def test_the_garbage_collector_rests_while_samples_are_taken() -> None:
    clock, states = FakeClock(), []

    def watched() -> None:
        clock.advance(0.1)
        states.append(gc.isenabled())

    interleave({"a": _subject(watched)}, clock, Budget(seconds=1.0))
    assert states and not any(states) and gc.isenabled()


@pytest.mark.parametrize(("raises_at", "rounds"), [(0, 0), (1, 0), (5, 3)])
def test_a_subject_that_raises_drops_out_and_the_others_go_on(raises_at: int, rounds: int) -> None:
    clock, budget = FakeClock(), Budget(seconds=0, least_rounds=6, sample_seconds=0)
    bad = Timed(clock, 1.0, raises_at=raises_at)
    taken = interleave({"good": _subject(Timed(clock, 1.0)), "bad": _subject(bad)}, clock, budget)
    assert isinstance(taken["bad"].error, ValueError) and bad.calls == raises_at
    assert len(taken["bad"].seconds) == len(taken["bad"].rounds) == rounds
    assert taken["good"].error is None and len(taken["good"].seconds) == 6


def test_a_subject_that_asks_the_interpreter_to_end_drops_out_too() -> None:
    def quits() -> None:
        raise SystemExit(0)

    clock = FakeClock()
    taken = interleave({"bad": _subject(quits), "good": _subject(Timed(clock, 1.0))}, clock, Budget(seconds=0))
    assert isinstance(taken["bad"].error, SystemExit) and len(taken["good"].seconds) == 5


def test_a_comparison_ends_where_more_rounds_would_tell_no_more() -> None:
    clock = FakeClock()
    taken = interleave({name: _subject(Timed(clock, 2e-5)) for name in ("a", "b")}, clock, Budget())
    # Of calls of 20 us nobody can say whether they are the same to one per cent.
    assert taken["b"].stopped == Stop.PRECISE and taken["b"].spent < 0.3


def test_nobody_left_is_no_endless_loop() -> None:
    assert interleave({}, FakeClock(), Budget()) == {}


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_between_two_rounds_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, over, rounds = FakeClock(), Contest.count_round, 7

    def interrupted(contest: Contest) -> bool:
        if len(contest._own.seconds) == rounds:
            signal.raise_signal(signal.SIGINT)
        return over(contest)

    monkeypatch.setattr(Contest, "count_round", interrupted)
    taken = interleave({"it": _subject(Timed(clock, 0.01))}, clock, Budget())
    assert taken["it"].stopped == Stop.INTERRUPTED and len(taken["it"].seconds) == len(taken["it"].rounds) == rounds
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_in_the_last_round_is_not_swallowed() -> None:
    clock = FakeClock()
    timed = Timed(clock, 1.0)

    def interrupted() -> None:
        timed()
        # Two to warm up with, and then the five rounds that are the least.
        if timed.calls == 7:
            signal.raise_signal(signal.SIGINT)

    taken = interleave({"it": _subject(interrupted)}, clock, Budget(seconds=0.0, sample_seconds=0.0, warmup_seconds=0.0))
    assert len(taken["it"].seconds) == 5 and timed.calls == 7 and taken["it"].stopped == Stop.INTERRUPTED


def test_only_what_was_taken_in_one_round_is_compared() -> None:
    own, base = Samples(seconds=[2.0, 3.0], rounds=[1, 2]), Samples(seconds=[10.0, 20.0, 30.0, 40.0], rounds=[0, 1, 2, 3])
    assert paired(own, base) == ([2.0, 3.0], [20.0, 30.0]) and paired(base, own) == ([20.0, 30.0], [2.0, 3.0])


def test_one_that_enters_the_rounds_later_is_compared_with_what_was_taken_beside_it() -> None:
    clock = FakeClock()
    # The machine was half as fast in the earlier run; both take as long now.
    before = {"base": Samples(seconds=[2e-3] * 500, rounds=list(range(500)))}
    subjects = {name: _subject(Timed(clock, 1e-3)) for name in ("base", "new")}
    taken = interleave(subjects, clock, Budget(seconds=6.0), baseline="base", before=before)
    assert effect(*paired(taken["new"], taken["base"])).ratio == pytest.approx(1.0)
    assert taken["new"].rounds[0] == 500 and len(taken["new"].seconds) < len(taken["base"].seconds)


def test_samples_that_ended_before_their_time_are_not_taken_for_whole_ones() -> None:
    require_whole({"one": Samples(seconds=[1.0], stopped="time")})
    with pytest.raises(KeyboardInterrupt):
        require_whole({"one": Samples(stopped="time"), "other": Samples(seconds=[1.0], stopped="interrupted")})
    with pytest.raises(ValueError, match="no good"):
        require_whole({"one": Samples(error=ValueError("no good"))})

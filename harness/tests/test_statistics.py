"""Effects, intervals and verdicts against values worked out by hand, and against noise like that of a shared machine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness import statistics
from harness.statistics import Effect, Verdict, effect, mean, t_quantile, t_tail, verdicts


@pytest.mark.parametrize(
    ("freedom", "level", "expected"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.99, 5.841), (4, 0.99, 4.604), (15, 0.95, 2.131), (15, 0.99, 2.947), (30, 0.99, 2.750)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, level: float, expected: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(expected, abs=6e-4)
    assert t_tail(t_quantile(level, freedom), freedom) == pytest.approx(1 - level, rel=1e-6)


def test_the_effect_is_the_log_ratio_of_the_fastest_of_sixteen() -> None:
    baseline = np.tile([1.0, *[9.0] * 14, 5.0], 16)
    candidate = np.tile([7.0, 2.0, *[27.0] * 14], 16)
    found = effect(candidate, baseline)
    assert found.ratio == pytest.approx(2.0)
    assert (found.error, found.freedom, found.rounds) == (0.0, 15, 256)
    assert found.interval() == pytest.approx((2 * math.exp(-0.0025), 2 * math.exp(0.0025)))
    assert found.verdict() is Verdict.SLOWER and found.p == 0.0


def test_few_rounds_are_taken_one_by_one() -> None:
    logs = np.array([0.1, 0.2, 0.3, 0.4, 1.5])
    found = effect(np.exp(logs), np.ones(5))
    assert found.log == pytest.approx(0.3)
    assert found.freedom == 4
    assert found.error == pytest.approx(np.std(logs, ddof=1) / math.sqrt(5) * math.sqrt(math.pi / 2))


def test_fewer_rounds_than_the_least_have_a_ratio_and_no_interval() -> None:
    found = effect([2.0] * 4, [1.0] * 4)
    assert found.ratio == pytest.approx(2.0)
    assert all(math.isnan(end) for end in found.interval())
    assert found.verdict() is Verdict.UNDECIDED and found.p == 1.0
    assert effect([], []).rounds == 0


def test_series_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        effect([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("log", "error", "verdict"),
    [
        pytest.param(0.03, 0.004, Verdict.SLOWER, id="all of it above"),
        pytest.param(-0.03, 0.004, Verdict.FASTER, id="all of it below"),
        pytest.param(0.006, 0.0001, Verdict.SLOWER, id="small and sure"),
        pytest.param(0.002, 0.0, Verdict.SAME, id="within what two instances differ by"),
        pytest.param(0.001, 0.002, Verdict.SAME, id="within the margin"),
        pytest.param(0.001, 0.01, Verdict.UNDECIDED, id="on both sides and wide"),
        pytest.param(0.03, 0.02, Verdict.UNDECIDED, id="above and unsure"),
    ],
)
def test_the_verdict_follows_from_the_interval(log: float, error: float, verdict: Verdict) -> None:
    found = Effect(log, error, 15, 100)
    assert found.verdict() is verdict
    low, high = found.interval()
    assert (low > 1 or high < 1) == (verdict in (Verdict.SLOWER, Verdict.FASTER))
    assert replace(found, log=-log).verdict() is {Verdict.SLOWER: Verdict.FASTER, Verdict.FASTER: Verdict.SLOWER}.get(verdict, verdict)


def _noisy(generator: np.random.Generator, rounds: int, slower: float) -> tuple[statistics.Array, statistics.Array]:
    """Times of 1 ms on a machine that drifts slowly, alike for both and a little unlike, and on which every tenth sample is disturbed."""
    drift = np.cumsum(generator.normal(0, 0.004, rounds))
    apart = np.convolve(generator.normal(0, 0.02, rounds + 39), np.ones(40) / 40, mode="valid")

    def series(own: float) -> statistics.Array:
        spikes = np.where(generator.random(rounds) < 0.1, generator.exponential(1.0, rounds), 0.0)
        return 1e-3 * (np.exp(drift + generator.normal(0, 0.03, rounds)) + own + spikes)

    return series(slower) * np.exp(apart), series(0.0)


def test_of_equal_things_at_most_one_in_a_hundred_is_called_different() -> None:
    generator = np.random.default_rng(5)
    alarms = sum(effect(*_noisy(generator, 600, 0.0)).verdict() in (Verdict.SLOWER, Verdict.FASTER) for _ in range(1000))
    assert alarms <= 10


@pytest.mark.parametrize("rounds", [16, 17, 24, 31, 255, 280, 320, 511])
def test_the_interval_holds_however_many_rounds_a_stretch_has(rounds: int) -> None:
    generator = np.random.default_rng(rounds)

    def series() -> statistics.Array:
        return generator.lognormal(0.0, 0.1, rounds)

    found = [effect(series(), series(), systematic=0.0).interval() for _ in range(2000)]
    assert sum(not low <= 1 <= high for low, high in found) <= 40, "1 % of 2000 are 20; 41 or more come about once in 40,000"


def test_short_calls_have_to_differ_by_more_of_themselves() -> None:
    # 1.2 %, of 1 ms and of 30 us, of which where they lie in memory may be worth 1 %.
    found = [effect([1.012 * seconds] * 64, [seconds] * 64) for seconds in (1e-3, 3e-5)]
    assert [one.verdict() for one in found] == [Verdict.SLOWER, Verdict.UNDECIDED]
    assert [one.systematic for one in found] == pytest.approx([0.0025 + 3e-4, 0.0025 + 1e-2])


@pytest.mark.parametrize(
    ("log", "error", "systematic", "expected"),
    [
        pytest.param(0.001, 0.0001, 0.012, True, id="neither can be said any more"),
        pytest.param(0.001, 0.01, 0.012, False, id="not precise yet"),
        pytest.param(0.001, 0.0001, 0.002, False, id="the same"),
        pytest.param(0.009, 0.0001, 0.0025, False, id="different"),
        pytest.param(0.0, math.nan, 0.012, False, id="too few rounds"),
    ],
)
def test_more_rounds_are_worth_while_as_long_as_they_could_decide(log: float, error: float, systematic: float, expected: bool) -> None:
    freedom = 0 if math.isnan(error) else 15
    assert Effect(log, error, freedom, 64, systematic).exhausted is expected


def test_a_slowdown_of_two_per_cent_is_found() -> None:
    generator = np.random.default_rng(6)
    found = sum(effect(*_noisy(generator, 2500, 0.02)).verdict() is Verdict.SLOWER for _ in range(200))
    assert found >= 190


@pytest.mark.parametrize(("share", "slower"), [(0.7, 0.1), (0.6, 0.2), (0.95, 0.05)])
def test_what_is_slow_in_most_calls_is_slower_although_the_fastest_are_the_same(share: float, slower: float) -> None:
    generator = np.random.default_rng(7)

    def series() -> statistics.Array:
        return 1e-3 * generator.lognormal(0.0, 0.01, 640)

    candidate, baseline = series() * np.where(generator.random(640) < share, 1 + slower, 1.0), series()
    found = effect(candidate, baseline)
    assert found.verdict() is Verdict.SLOWER and found.log > 0.5 * share * slower
    assert effect(baseline, candidate).verdict() is Verdict.FASTER
    # What takes as long at its fastest and is disturbed as often is the same, whoever it is that is disturbed.
    spikes = np.where(generator.random(640) < 0.3, 0.5, 0.0)
    assert effect(series() * np.exp(spikes), series() * np.exp(generator.permutation(spikes))).verdict() is Verdict.SAME


def test_all_rounds_overrule_the_fastest_only_where_they_are_sure_and_say_something_else() -> None:
    sure, unsure = Effect(0.05, 0.001, 15, 640), Effect(0.05, 0.02, 15, 640)
    nothing, other, alike = Effect(0.0, 0.001, 15, 640), Effect(-0.05, 0.001, 15, 640), Effect(0.03, 0.0001, 15, 640)
    assert [statistics._overrules(usual, fastest) for usual in (sure, unsure) for fastest in (nothing, other, alike)] == (
        [True, True, False, False, False, False]
    )


def test_the_mean_over_workloads_is_surer_than_each() -> None:
    several = mean([Effect(0.1, 0.03, 15, 10), Effect(0.3, 0.04, 7, 20)])
    assert (several.freedom, several.rounds) == (7, 30)
    assert (several.log, several.error) == pytest.approx((0.2, 0.025))
    assert mean([]).rounds == 0
    assert mean([Effect(0.1, math.nan, 0, 3), Effect(0.3, 0.04, 7, 20)]).verdict() is Verdict.UNDECIDED


def test_a_family_is_judged_more_strictly_than_one_comparison() -> None:
    # t = 3.5 with 15 degrees: p = 0.0032, enough alone, and not among four of the kind.
    weak, strong = Effect(0.0025 + 0.035, 0.01, 15, 100), Effect(0.5, 0.01, 15, 100)
    assert verdicts({"weak": weak}) == {"weak": Verdict.SLOWER}
    family = verdicts({"weak": weak, **{f"nothing {k}": Effect(0.0, 0.01, 15, 100) for k in range(3)}})
    assert family["weak"] is Verdict.UNDECIDED
    # Holm: what is settled no longer counts against the rest.
    assert verdicts({"weak": weak, **{f"strong {k}": strong for k in range(3)}})["weak"] is Verdict.SLOWER


def test_what_the_family_does_not_let_pass_for_a_difference_may_still_be_the_same() -> None:
    # 0.4 % slower, p = 0.002: enough alone, not among ten of the kind, and all of the interval is within the margin.
    slight = Effect(0.004, 0.0004, 15, 100)
    assert slight.verdict() is Verdict.SLOWER
    assert set(verdicts({f"slight {k}": slight for k in range(10)}).values()) == {Verdict.SAME}

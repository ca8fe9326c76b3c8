"""Quantities in words, entries of the tables of speed, and sentences that are merged."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from reports import view_speed, words
from reports.tests.test_analysis import cell, findings_of
from reports.view_speed import Entry


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((12.5e-6,), ["12.5 µs"]),
        ((0.0,), ["0 s"]),
        ((3.25,), ["3.25 s"]),
        ((0.9996,), ["1 s"]),
        ((1234.5,), ["1234 s"]),
        ((4e-10,), ["0.4 ns"]),
        ((-2e-3, -5e-3, 1e-3), ["-2 ms", "-5", "1"]),
        ((1e-6, 9e-7, 0.25), ["1 µs", "0.9", "250000"]),
    ],
    ids=str,
)
def test_durations_stand_in_the_unit_of_the_first(seconds: tuple[float, ...], expected: list[str]) -> None:
    assert words.duration(*seconds) == expected


def test_sizes_are_binary_and_shares_per_cent() -> None:
    assert [words.size(value) for value in (0, 512, 1024, 2**20 - 1, 434176, 3 * 2**30)] == [
        "0 bytes",
        "512 bytes",
        "1 KiB",
        "1 MiB",
        "424 KiB",
        "3 GiB",
    ]
    assert [words.percent(value) for value in (0.000123, 0.0456, 0.0996, 0.43, 1.07)] == ["0.012 %", "4.6 %", "10 %", "43 %", "107 %"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.7, "1k"), (994, "994"), (999_700, "1M"), (999_400, "999k"), (9.996e14, "1P"), (2e18, "2e+18"), (0.0, "0"), (-999_700, "-1M")],
)
def test_a_letter_is_chosen_for_what_is_shown(value: float, text: str) -> None:
    assert words.engineering(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.123, "0.12×"), (3.9, "3.9×"), (99.6, "99.6×"), (99.96, "100×"), (1234, "1.23k×"), (999_700, "1M×"), (1.73e6, "1.7e+06×")],
)
def test_floors_have_no_exponent_below_a_million(ratio: float, text: str) -> None:
    assert words.floors(ratio) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1.0, 1.0625, "1.000 to 1.062"), (None, 1.0, "no interval"), (1.0, None, "no interval"), (math.nan, 1.0, "no interval")],
)
def test_an_interval_is_its_ends_or_the_word_for_none(low: float | None, high: float | None, text: str) -> None:
    assert words.interval(low, high) == text


def test_the_first_line_of_a_message_is_the_first_that_says_something() -> None:
    assert [words.first_line(message) for message in ("\n one is off \n two", "", "x" * 300)] == ["one is off", "", "x" * 300]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1.444, 1.42, 1.46), "1.44× (1.42 to 1.46)"),
        ((1 / 300, 0.0032, 0.0035), "0.0033× (0.0032 to 0.0035)"),
        ((2.0, math.nan, math.nan), "2.00×"),
        ((312.3, 99.96, 1e5), "312× (100 to 100000)"),
    ],
)
def test_a_speedup_has_two_digits_however_small_it_is(given: tuple[float, float, float], text: str) -> None:
    assert words.times(*given) == text


def test_the_table_of_cells_has_no_exponents_where_digits_will_do(tmp_path: Path) -> None:
    (row,), _ = view_speed.cell_rows(findings_of(tmp_path, cell("x:a", [12.0] * 3, flops=90_096 * 10**9, first_call=13.0)))
    assert (row["gflops"][1], row["milliseconds"][1], row["spread"], row["first"]) == ("7508", "12000", ("12", "12000 to 12000"), "13000")


def test_sentences_that_differ_in_their_numbers_are_one_with_their_range() -> None:
    told = [["a used 58 % of 2", "b"], ["a used 7 % of 2"], [], ["b", "a used 10.5 % of 3"], ["b 0x200"], ["b"], ["b"]]
    assert view_speed.merged(told) == [("b", 4), ("a used 7–58 % of 2–3", 3), ("b 0x200", 1)]
    assert view_speed.merged([]) == []
    twice = [["core 1 waited 5 %", "core 2 waited 90 %"], ["core 1 waited 7 %"]]
    assert view_speed.merged(twice) == [("core 1–2 waited 5–90 %", 2)], "of two in one workload none is lost, and it counts once"


def part(low: float, high: float, misfit: float = 0.02) -> Entry:
    return view_speed._part(SimpleNamespace(misfit=misfit), 2e-6, low, high)


def test_a_part_that_may_be_none_is_not_seen_and_a_line_that_is_none_says_by_how_much() -> None:
    assert part(1e-6, 3e-6) == Entry("2 µs", "2e-06", ("1 to 3",))
    assert part(-1e-6, 5e-6) == Entry("not seen", "", ("at most 5 µs",))
    assert part(1e-6, 3e-6, misfit=0.34) == Entry("2 µs", "2e-06", ("1 to 3", "off by 34 %"))
    assert part(-5e-6, -1e-6) == part(-5e-6, 1e-13) == Entry("none seen"), "the figure has the same words"
    assert part(-5e-6, -1e-6, misfit=0.34) == Entry("none seen", notes=("off by 34 %",))
    assert view_speed._part(SimpleNamespace(misfit=math.nan), math.nan, math.nan, math.nan) == Entry()


@pytest.mark.parametrize(
    ("verdict", "calls", "expected"),
    [
        ("faster", 0.0, Entry("0 calls", "0")),
        ("faster", 57.1, Entry("58 calls", "57.1")),
        ("faster", math.nan, Entry("not known")),
        ("slower", math.inf, Entry("never")),
        ("same", math.nan, Entry("same")),
        ("undecided", math.nan, Entry("undecided")),
        ("", math.nan, Entry("")),
    ],
)
def test_calls_after_which_a_warm_up_pays_or_the_word_for_them(verdict: str, calls: float, expected: Entry) -> None:
    row = SimpleNamespace(implementation="x:b", baseline="torch:a", verdict=verdict, pays_after=calls)
    assert view_speed._pays_after(row) == expected


def test_the_baseline_pays_for_nothing() -> None:
    row = SimpleNamespace(implementation="torch:a", baseline="torch:a", verdict="", pays_after=math.nan)
    assert view_speed._pays_after(row) == Entry("baseline")

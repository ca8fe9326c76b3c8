"""Records survive the way through JSON, and what is no record is refused with its reason."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from harness.outcome import Outcome
from harness.record import (
    SCHEMA,
    Calibration,
    Conformance,
    Footer,
    Header,
    Mutation,
    Record,
    RecordError,
    Throughput,
    Versus,
    from_json,
    to_json,
)
from harness.store import decode, encode

HEADER = Header("r" * 32, "2026-01-02T03:04:05Z", ["python"], {"cores": 2}, {"a": {"modes": ["gru"]}})
CONFORMANCE = Conformance("values.gru", "a", "gru-I3", "passed", "MUST", "gru", "cpu", "float32", parameters={"steps": 5})
THROUGHPUT = Throughput(
    "quick/x", "quick", "a", "passed", "gru", "cpu", "float32", "inference", 5, 3, 4, 4, 15, 720, samples=[1e-3, 1.1e-3], rounds=[0, 1]
)
FOOTER = Footer("2026-01-02T03:04:06Z", 0, 2, {"passed": 2}, "0" * 64)
MUTATION = Mutation("values.gru", "mutant:one", "passed", "One bias is lost.", {"gru": "killed", "lstm": "survived"}, "gru-I3", "off", 0.5)
CALIBRATION = Calibration(0.02, "passed", 2, {"slower": 1, "same": 1}, [1.02, 1.0], [0.5, 6.0], 6.0)
VERSUS = Versus(
    "release/x",
    "release",
    "a",
    "torch==1",
    "torch==2",
    "passed",
    "gru",
    "cpu",
    "float32",
    "inference",
    "",
    "slower",
    1.02,
    1.01,
    1.03,
    [1.02] * 5,
)
RECORDS: list[Record] = [HEADER, CONFORMANCE, THROUGHPUT, MUTATION, CALIBRATION, VERSUS, FOOTER]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_comes_back_as_it_was(record: Record) -> None:
    assert decode(encode(record)) == record


@pytest.mark.parametrize("text", ["two\nlines", "a\u2028b\x85c", "\udc80 no UTF-8", "σ(x)", '"}'])
def test_any_text_stays_on_one_line_and_comes_back(text: str) -> None:
    line = encode(replace(CONFORMANCE, message=text))
    assert len(line.splitlines()) == 1 and line.isascii()
    decoded = decode(line)
    assert isinstance(decoded, Conformance) and decoded.message == text


def test_numbers_that_are_not_finite_become_null() -> None:
    record = replace(CONFORMANCE, errors=[{"error": math.nan, "ratio": math.inf, "deep": (1.0, [-math.inf])}])
    line = json.loads(encode(record), parse_constant=pytest.fail)
    assert line["errors"] == [{"error": None, "ratio": None, "deep": [1.0, [None]]}]


def test_samples_keep_every_digit() -> None:
    samples = [0.1 + 0.2, 1 / 3, 5e-324, 1e-9]
    decoded = decode(encode(replace(THROUGHPUT, samples=samples)))
    assert isinstance(decoded, Throughput) and decoded.samples == samples


def test_the_kind_comes_first_and_keys_are_those_of_the_schema() -> None:
    line = to_json(CONFORMANCE)
    assert next(iter(line)) == "kind"
    assert {"contract", "implementation", "outcome", "severity"} <= set(line)


def test_unknown_keys_are_dropped() -> None:
    assert from_json({**to_json(CONFORMANCE), "invented": 1}) == CONFORMANCE


def test_missing_optional_keys_have_their_defaults() -> None:
    line = {key: value for key, value in to_json(THROUGHPUT).items() if key not in ("samples", "rounds", "calls")}
    assert from_json(line) == replace(THROUGHPUT, samples=[], rounds=[])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ([], "JSON object but got list"),
        (None, "JSON object but got NoneType"),
        ({}, "kind=None"),
        ({"kind": "verdict"}, "header, conformance, throughput, mutation, calibration, versus, footer but got kind='verdict'"),
        ({"kind": ["header"]}, r"kind=\['header'\]"),
        ({"kind": "conformance"}, "the key 'contract' in a conformance line"),
        ({**to_json(HEADER), "schema": SCHEMA + 1}, "update this project"),
        ({**to_json(HEADER), "schema": "2"}, "schema of a header line to be int but got schema='2'"),
        ({**to_json(HEADER), "schema": None}, "schema=None"),
        ({**to_json(CONFORMANCE), "seconds": "1"}, "seconds of a conformance line to be float or int but got seconds='1'"),
        ({**to_json(CONFORMANCE), "message": None}, "message=None"),
        ({**to_json(CONFORMANCE), "errors": {}}, "errors of a conformance line to be list"),
        ({**to_json(CONFORMANCE), "errors": [1]}, "list of dict"),
        ({**to_json(THROUGHPUT), "tokens": True}, "tokens=True"),
        ({**to_json(THROUGHPUT), "tokens": 1.5}, "tokens=1.5"),
        ({**to_json(THROUGHPUT), "samples": ["1"]}, r"samples of a throughput line to be a list of float or int but got samples=\['1'\]"),
        ({**to_json(THROUGHPUT), "samples": [None]}, "list of float"),
        ({**to_json(FOOTER), "counts": []}, "counts"),
    ],
)
def test_refuses_what_is_no_record_and_says_why(line: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        from_json(line)


def test_whole_numbers_are_numbers() -> None:
    decoded = from_json({**to_json(THROUGHPUT), "first_call": 1, "samples": [1, 2.5]})
    assert isinstance(decoded, Throughput) and decoded.samples == [1, 2.5]


def test_only_what_hurts_a_user_fails_a_run() -> None:
    assert {outcome.value for outcome in Outcome if outcome.fails_run} == {"failed", "crashed", "timed-out", "out-of-memory"}

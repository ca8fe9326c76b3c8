"""A run that was cut short is gone on from only where and as it was begun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.resume import ResumeError, earlier
from harness.store import encode
from harness.tests.test_record import CONFORMANCE, HEADER, THROUGHPUT

ENVIRONMENT = {"machine": "m", "cores": 2, "gpus": ({"name": "g"},), "versions": {"torch": "2.13.0"}, "load": 1.5}
POLICY = {"sampling_time": 3.0}


def _run(folder: Path, *results: Any, header: dict[str, Any] | None = None) -> Path:
    """A run file without its footer."""
    path = folder / "run.jsonl"
    lines = [encode(record) + "\n" for record in (replace(HEADER, environment=ENVIRONMENT, policy=POLICY, **header or {}), *results)]
    path.write_text("".join(lines))
    return path


def test_the_last_record_of_each_cell_counts_and_the_run_needs_no_end(tmp_path: Path) -> None:
    path = _run(tmp_path, THROUGHPUT, CONFORMANCE, replace(THROUGHPUT, implementation="other"), replace(THROUGHPUT, stopped="time"))
    found = earlier(path, {**ENVIRONMENT, "load": 9.0}, POLICY)
    assert {w: set(cells) for w, cells in found.items()} == {THROUGHPUT.workload: {THROUGHPUT.implementation, "other"}}
    assert found[THROUGHPUT.workload][THROUGHPUT.implementation].stopped == "time"


@pytest.mark.parametrize(
    ("environment", "policy", "message"),
    [
        ({**ENVIRONMENT, "machine": "n"}, POLICY, "its machine was 'm' and is 'n' now"),
        ({**ENVIRONMENT, "gpus": ()}, POLICY, r"its gpus was \[\{'name': 'g'\}\] and is \[\] now"),
        ({**ENVIRONMENT, "versions": {"torch": "2.14.0"}}, POLICY, "its versions of torch was '2.13.0' and is '2.14.0' now"),
        (ENVIRONMENT, {"sampling_time": 6.0}, "its policy of sampling_time was 3.0 and is 6.0 now"),
        (ENVIRONMENT, {**POLICY, "baseline": "a"}, "its policy of baseline was None and is 'a' now"),
    ],
    ids=["machine", "gpus", "versions", "policy", "baseline"],
)
def test_what_was_begun_elsewhere_or_otherwise_is_refused(tmp_path: Path, environment: Any, policy: Any, message: str) -> None:
    with pytest.raises(ResumeError, match=message):
        earlier(_run(tmp_path, THROUGHPUT), environment, policy)


def test_samples_of_a_file_that_has_been_changed_since_are_not_gone_on_from(tmp_path: Path) -> None:
    facts = {"edited": {"sha256": "a"}, "same": {"sha256": "b"}, "silent": {}}
    path = _run(tmp_path, THROUGHPUT, header={"implementations": facts})
    assert earlier(path, ENVIRONMENT, POLICY, {"edited": "a", "same": "b", "silent": "c", "new": "d"})
    with pytest.raises(ResumeError, match="the file of edited has been changed since"):
        earlier(path, ENVIRONMENT, POLICY, {"edited": "c", "same": "b"})


def test_a_file_without_times_or_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="it holds no times"):
        earlier(_run(tmp_path, CONFORMANCE), ENVIRONMENT, POLICY)
    with pytest.raises(ResumeError, match=r"Cannot use --resume .*nowhere: Cannot read"):
        earlier(tmp_path / "nowhere", ENVIRONMENT, POLICY)

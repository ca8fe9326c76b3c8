"""What must match for the times of two runs to be held beside each other, and what is only told."""

from __future__ import annotations

from typing import Any

import pytest

from reports.environments import Differing, differing

WHOLE: dict[str, Any] = {
    "machine": "vm",
    "system": "Linux 6",
    "cpu": "A CPU",
    "cores": 2,
    "gpus": [],
    "versions": {"torch": "2.13.0", "numpy": "2.0", "cudnn": None},
    "settings": {"threads": 1, "deterministic_algorithms": False, "variables": {"OMP_NUM_THREADS": "1"}},
}


def changed(place: str, **what: Any) -> dict[str, Any]:
    return {**WHOLE, **what} if not place else {**WHOLE, place: {**WHOLE[place], **what}}


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (changed("", machine="other"), Differing("machine", "vm", "other", True)),
        (changed("", gpus=[{"name": "A GPU"}]), Differing("gpus", "none", "A GPU", True)),
        (changed("", cores=None), Differing("cores", "2", "", True)),
        (changed("", system="Linux 7"), Differing("system", "Linux 6", "Linux 7", False)),
        (changed("versions", torch="2.14.0"), Differing("torch", "2.13.0", "2.14.0", True)),
        (changed("versions", cudnn="9.1"), Differing("cudnn", "absent", "9.1", True)),
        (changed("versions", numpy="2.1"), Differing("numpy", "2.0", "2.1", False)),
        (changed("settings", threads=2), Differing("threads", "1", "2", False)),
        (changed("settings", deterministic_algorithms=True), Differing("deterministic_algorithms", "False", "True", True)),
        (changed("settings", variables={}), Differing("OMP_NUM_THREADS", "1", "not set", True)),
        (changed("", versions={"numpy": "2.0", "cudnn": None}), Differing("torch", "2.13.0", "", False)),
    ],
)
def test_what_differs_is_told_and_whether_it_must_match(head: dict[str, Any], expected: Differing) -> None:
    assert differing([WHOLE], [WHOLE, WHOLE]) == []
    assert differing([WHOLE], [head]) == [expected]


def test_a_run_that_tells_nothing_of_its_variables_does_not_say_that_they_are_not_set() -> None:
    silent = {**WHOLE, "settings": {"threads": 1, "deterministic_algorithms": False}}
    assert differing([WHOLE], [silent]) == [Differing("OMP_NUM_THREADS", "1", "", False)]


def test_what_is_no_mapping_and_no_list_is_nothing_that_is_told() -> None:
    broken = {"versions": 3, "settings": None, "gpus": "none of your business", "cpu": None}
    assert differing([broken], [broken]) == [] and differing([], [broken]) == [Differing("gpus", "", "none", True)]

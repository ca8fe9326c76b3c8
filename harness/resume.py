"""What an earlier run of the benchmark, or of a comparison, has already, so that one that was cut short can be gone on from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.record import Throughput, Versus
from harness.store import Run, StoreError, read

#: What must be as it was for samples of two processes to stand in one comparison, by where it stands in the environment.
_MUST_MATCH = ("machine", "cpu", "cores", "gpus", "versions", "settings")


class ResumeError(ValueError):
    """A run that cannot be gone on from; the message names the file and says what was expected."""


Earlier = Mapping[str, Mapping[str, Throughput]]


def earlier(
    path: Path, environment: Mapping[str, Any], policy: Mapping[str, Any], sources: Mapping[str, str] = MappingProxyType({})
) -> Earlier:
    """workload -> implementation -> the last record of it in the run file.

    ``sources``: implementation -> the digest of its file, empty where it has none. Raises :class:`ResumeError` if the run cannot be read,
    holds no times, or was made elsewhere than in ``environment``, otherwise than ``policy`` says, or of other ``sources``: samples of two
    machines are no comparison, and those of two states of a file are of nothing.
    """
    run = _read(path)
    found: dict[str, dict[str, Throughput]] = defaultdict(dict)
    for result in run.results:
        if isinstance(result, Throughput):
            found[result.workload][result.implementation] = result
    if not found:
        raise ResumeError(f"Cannot use --resume {path}: expected the run file of a benchmark, but it holds no times")
    _require_same(path, _facts(run.header.environment, environment, run.header.policy, policy))
    for id, now in sources.items():
        before = run.header.implementations.get(id)
        # Runs from before it was recorded do not say.
        if isinstance(before, dict) and before.get("sha256", now) != now:
            raise ResumeError(f"Cannot use --resume {path}: the file of {id} has been changed since; measure anew what it holds now")
    return found


def compared(path: Path, policy: Mapping[str, Any]) -> dict[tuple[str, str], Versus]:
    """(workload, implementation) -> the last record of the comparison of two environments that it is in the run file.

    Raises :class:`ResumeError` if it cannot be read, holds no comparisons, or has another ``policy``, in which the environments are.
    """
    run = _read(path)
    found = {(result.workload, result.implementation): result for result in run.results if isinstance(result, Versus)}
    if not found:
        raise ResumeError(f"Cannot use --resume {path}: expected the run file of a comparison of environments, but it holds none")
    before, now = ({**one} for one in (run.header.policy, policy))
    sides = before.pop("environments", {}), now.pop("environments", {})
    for side in sides[1]:
        facts = _facts(sides[0].get(side, {}), sides[1][side], {}, {})
        _require_same(path, ((f"{name} of {side}", one, other) for name, one, other in facts))
    _require_same(path, _facts({}, {}, before, now))
    return found


def _read(path: Path) -> Run:
    try:
        return read(path)
    except StoreError as error:
        raise ResumeError(f"Cannot use --resume {path}: {error}") from error


def _require_same(path: Path, facts: Iterable[tuple[str, Any, Any]]) -> None:
    for name, before, now in facts:
        if before != now:
            raise ResumeError(f"Cannot use --resume {path}: its {name} was {before!r} and is {now!r} now; run it where and as it was begun")


def _facts(before: Mapping[str, Any], now: Mapping[str, Any], policy: Mapping[str, Any], policy_now: Mapping[str, Any]) -> Any:
    """(name, before, now) of everything that must match; of what is itself made of parts, the parts."""
    for name in _MUST_MATCH:
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from ((f"{name} of {part}", one.get(part), other.get(part)) for part in sorted({*one, *other}))
        else:
            # What was read from a file has lists where this process has tuples.
            yield name, *(list(value) if isinstance(value, tuple) else value for value in (one, other))
    yield from ((f"policy of {part}", policy.get(part), policy_now.get(part)) for part in sorted({*policy, *policy_now}))

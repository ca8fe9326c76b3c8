"""What runs say of their environments, fact by fact, so that these can be held beside each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reports.fields import mapping

Environment = Mapping[str, Any]

_PARTS = ("python", "torch", "cuda", "cudnn", "onednn", "mkl", "driver")
"""Of all versions those of what a layer is computed by."""


@dataclass(frozen=True)
class Differing:
    """A fact that is not the same on both sides: what the runs of either say, empty where none says anything.

    ``must_match``: whether times of the two sides cannot be held beside each other. Of versions and settings that takes two that say
    something; the threads are not among it, because cells say themselves on how many they were timed.
    """

    name: str
    before: str
    after: str
    must_match: bool


def hardware(environment: Environment) -> dict[str, str]:
    """Processor, cores and GPUs, by which machines of one name are told apart; only what is told."""
    found = {name: str(environment[name]) for name in ("cpu", "cores") if environment.get(name)}
    if "gpus" in environment:
        found["gpus"] = ", ".join(gpus(environment)) or "none"
    return found


def gpus(environment: Environment) -> list[str]:
    """The names of the GPUs."""
    told = environment.get("gpus")
    return [str(mapping(gpu).get("name", gpu)) for gpu in told] if isinstance(told, (list, tuple)) else []


def differing(base: Iterable[Environment], head: Iterable[Environment]) -> list[Differing]:
    """What differs between the environments of ``base`` and those of ``head``."""
    sides = list(base), list(head)
    variables = {name for side in sides for one in side for name in mapping(mapping(one.get("settings")).get("variables"))}
    said: list[dict[str, str]] = []
    for side in sides:
        values: dict[str, dict[str, None]] = {}
        for one in side:
            for name, value in _facts(one, variables).items():
                values.setdefault(name, {})[value] = None
        said.append({name: ", ".join(sorted(found)) for name, found in values.items()})
    answer = []
    for name in dict.fromkeys([*said[1], *said[0]]):
        before, after = (side.get(name, "") for side in said)
        kind, _, what = name.partition(":")
        both = bool(before and after)
        must = kind == "machine" or (both and (what in _PARTS if kind == "version" else kind == "setting" and what != "threads"))
        if before != after:
            answer.append(Differing(what, before, after, must))
    return answer


def _facts(environment: Environment, variables: Collection[str]) -> dict[str, str]:
    """Every fact that is told, as text, under ``kind:name``. ``variables``: those of which it is told that they are not set."""
    settings = dict(mapping(environment.get("settings")))
    found = {"system:system": str(environment["system"])} if environment.get("system") else {}
    found |= {"machine:machine": str(environment["machine"])} if environment.get("machine") else {}
    found |= {f"machine:{name}": value for name, value in hardware(environment).items()}
    found |= {f"version:{name}": str(version or "absent") for name, version in mapping(environment.get("versions")).items()}
    if "variables" in settings:
        own = mapping(settings.pop("variables"))
        found |= {f"setting:{name}": str(own.get(name, "not set")) for name in sorted(variables)}
    return found | {f"setting:{name}": str(value) for name, value in settings.items()}

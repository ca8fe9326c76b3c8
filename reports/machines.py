"""Which machine a run is of: runs of two machines are told apart, also where both go by one name, and never mixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from reports.columns import COLUMNS
from reports.environments import hardware
from reports.tables import rows

if TYPE_CHECKING:
    from reports.frames import Frames


def told_apart(frames: Frames) -> Frames:
    """The frames with a machine's name numbered where another machine has it too: ``vm``, ``vm (2)``.

    Containers and clouds give one name to many machines. Two runs are of one machine if they give one name, and the processor, the cores
    and the GPUs that both state are the same.
    """
    labels = _labels(frames)
    if all(labels[row.run] == row.machine for row in rows(frames.runs)):
        return frames
    named = {name: getattr(frames, name) for name, columns in COLUMNS.items() if "machine" in columns}
    return replace(frames, **{name: frame.assign(machine=frame["run"].map(labels).astype("str")) for name, frame in named.items()})


def only(frames: Frames, machine: str) -> Frames:
    """What the runs of one machine say; the contracts, which are the same everywhere, stay."""
    runs = set(frames.runs.loc[frames.runs["machine"] == machine, "run"])
    kept = {name: getattr(frames, name) for name, columns in COLUMNS.items() if "run" in columns}
    kept = {name: frame[frame["run"].isin(runs)] for name, frame in kept.items()}
    errors = frames.errors[frames.errors["line"].isin(kept["conformance"]["line"])]
    samples = frames.samples[frames.samples["cell"].isin(kept["throughput"]["cell"])]
    return replace(frames, **kept, errors=errors, samples=samples)


def _labels(frames: Frames) -> dict[str, str]:
    """run -> the name of its machine, numbered if it is not the first of that name."""
    known: dict[str, list[dict[str, str]]] = {}
    labels = {}
    for row in rows(frames.runs.sort_values("created", kind="stable")):
        facts = hardware(row.environment)
        machines = known.setdefault(row.machine, [])
        place = next((k for k, other in enumerate(machines) if _alike(facts, other)), len(machines))
        if place == len(machines):
            machines.append({})
        machines[place] |= facts
        labels[row.run] = row.machine if not place else f"{row.machine} ({place + 1})"
    return labels


def _alike(facts: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(name, value) == value for name, value in facts.items())

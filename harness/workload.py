"""A workload: a case to be timed, with the pass, and what its work amounts to."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.case import EPS, Case, stored
from harness.layer import Layer, Mode
from harness.work import Work, work


class WorkloadError(ValueError):
    """A workload set that there is not, or a file that holds none; the message says what was expected."""


class Pass(StrEnum):
    """What one timed call does."""

    INFERENCE = "inference"
    FORWARD = "forward"
    BACKWARD = "backward"
    TRAINING = "training"
    STREAMING = "streaming"

    @property
    def meaning(self) -> str:
        return {
            "inference": "forward without gradients",
            "forward": "forward with what a backward pass needs recorded",
            "backward": "backward to input and weights, the forward pass done before",
            "training": "forward with gradients, then backward to input and weights",
            "streaming": "T calls of one time step, each from the state that the one before gave, without gradients",
        }[self.value]

    @property
    def records(self) -> bool:
        """Whether the forward pass records what a backward pass needs."""
        return self in (Pass.FORWARD, Pass.BACKWARD, Pass.TRAINING)

    @property
    def goes_back(self) -> bool:
        """Whether the timed call ends with gradients."""
        return self in (Pass.BACKWARD, Pass.TRAINING)


@dataclass(frozen=True)
class Workload:
    """A named cell of a benchmark: a case on a device, with the pass."""

    set: str
    case: Case
    timed: Pass

    def __post_init__(self) -> None:
        case = self.case
        if case.lengths is not None or not case.batched or case.layer.batch_first:
            # The timed inputs are overwritten in place to check the timed calls, and these forms hold copies of them.
            raise ValueError(f"Expected a padded, batched and time-major case to be timed but got case={case.id}")
        if self.timed is Pass.STREAMING and case.layer.bidirectional:
            raise ValueError(f"A bidirectional layer cannot be streamed: its reverse direction begins at the end; got case={case.id}")

    @property
    def id(self) -> str:
        """Unique within a run: the set, the case, the device, the pass: ``quick/lstm-I64-H64-T128-B8-float32-cpu-training``."""
        device = "-cpu" if self.case.device == "cpu" else ""
        return f"{self.set}/{self.case.id}{device}-{self.timed.value}"

    def on(self, device: str) -> Workload:
        """The same on another device."""
        return replace(self, case=replace(self.case, device=device))

    def as_json(self) -> dict[str, Any]:
        return {"set": self.set, "pass": self.timed.value, **asdict(self.case)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Workload:
        """The workload of which ``given`` is :meth:`as_json`."""
        case = {key: value for key, value in given.items() if key not in ("set", "pass")}
        layer = {**case["layer"], "mode": Mode(case["layer"]["mode"])}
        return cls(given["set"], Case(**{**case, "layer": Layer(**layer)}), Pass(given["pass"]))


def chosen(sets: Mapping[str, Sequence[Workload]], names: Sequence[str]) -> list[Workload]:
    """The workloads of the named sets, or of those in TOML files. Raises :class:`WorkloadError` for what is neither."""
    found: list[Workload] = []
    for name in names:
        if name in sets:
            found += sets[name]
        elif name.endswith(".toml"):
            found += read(Path(name))
        else:
            known = f"Known sets: {', '.join(sets)}; a set of your own is a file that ends in .toml"
            raise WorkloadError(f"Cannot use --workloads {name}: there is no set of this name. {known}")
    # A file may be called as a set is, and hold the same.
    return list(dict.fromkeys(found))


#: What a table of a workload file may say: the symbol or option, the values that it takes, and its default (None: it must be there).
_KEYS: dict[str, tuple[type | tuple[str, ...], Any]] = {
    "mode": (tuple(mode.value for mode in Mode), None),
    "pass": (tuple(timed.value for timed in Pass), [Pass.INFERENCE.value, Pass.TRAINING.value]),
    "T": (int, None),
    "B": (int, None),
    "H": (int, None),
    "I": (int, 0),
    "num_layers": (int, 1),
    "bidirectional": (bool, False),
    "proj_size": (int, 0),
    "bias": (bool, True),
    "dtype": (tuple(EPS), "float32"),
}


#: The operations, bytes and time steps of a call are fewer: the numbers of a record have 64 bits.
_MOST = 2**63


def read(path: Path) -> list[Workload]:
    """The workloads in a TOML file: one for every combination of the values that each table ``[[workload]]`` lists.

    ``mode``, ``T``, ``B`` and ``H`` must be there; ``I`` is H if it is not. Raises :class:`WorkloadError` that names the file, the table
    and the key for anything else than it should be.
    """
    try:
        # Some editors begin a file of UTF-8 with a mark of the order of bytes.
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WorkloadError(f"Cannot use --workloads {path}: {getattr(error, 'strerror', None) or error}") from error
    others = [name for name in content if name != "workload"]
    if others:
        raise WorkloadError(f"Cannot use --workloads {path}: expected tables [[workload]] and nothing else but got {', '.join(others)}")
    tables = content.get("workload", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise WorkloadError(f"Cannot use --workloads {path}: expected at least one table [[workload]]")
    found = [workload for number, table in enumerate(tables, start=1) for workload in _workloads(path, number, table)]
    return list(dict.fromkeys(found))


def _workloads(path: Path, number: int, table: Mapping[str, Any]) -> Iterator[Workload]:
    where = f"Cannot use --workloads {path}: [[workload]] number {number}:"
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise WorkloadError(f"{where} there is no key {', '.join(unknown)}. Known keys: {', '.join(_KEYS)}")
    values: dict[str, list[Any]] = {}
    for key, (accepted, default) in _KEYS.items():
        given = table.get(key, default)
        if given is None:
            raise WorkloadError(f"{where} expected the key {key} but it is missing")
        values[key] = given if isinstance(given, list) else [given]
        if not values[key]:
            raise WorkloadError(f"{where} expected {key} to have at least one value but got {key}=[]")
        for value in values[key]:
            fits = value in accepted if isinstance(accepted, tuple) else type(value) is accepted
            if not fits:
                expected = f"one of {', '.join(accepted)}" if isinstance(accepted, tuple) else accepted.__name__
                raise WorkloadError(f"{where} expected {key} to be {expected} but got {key}={value!r}")
            # A case may be empty, but its time says nothing. The default of a size is the least that it can be.
            least = 1 if default is None else default
            if accepted is int and value < least:
                raise WorkloadError(f"{where} expected {key} of at least {least} but got {key}={value}")
    for combination in itertools.product(*values.values()):
        one = dict(zip(values, combination, strict=True))
        try:
            layer = Layer(
                Mode(one["mode"]),
                one["I"] or one["H"],
                one["H"],
                num_layers=one["num_layers"],
                bias=one["bias"],
                bidirectional=one["bidirectional"],
                proj_size=one["proj_size"],
            )
            case = Case(layer, steps=one["T"], batch=one["B"], dtype=one["dtype"])
            workload = Workload(path.stem, case, Pass(one["pass"]))
            # A record of it could be written, and not be read.
            if max(case.steps * case.batch, *vars(work_of(workload)).values()) >= _MOST:
                raise ValueError(f"Expected a call of less than 2**63 operations and bytes but got case={case.id}: make it smaller")
            yield workload
        except ValueError as error:
            raise WorkloadError(f"{where} {error}") from error


def baseline_of(ids: Sequence[str], asked: str = "") -> str:
    """The implementation among ``ids`` that the others are compared with: the one that was asked for, else the first of the family
    ``torch``, else the first; empty where there is none."""
    return next((id for id in (asked, *(id for id in ids if id.startswith("torch:")), *ids) if id in ids), "")


def work_of(workload: Workload) -> Work:
    """The work of one timed call. A stream of T steps is T calls of one."""
    case, timed = workload.case, workload.timed
    steps, calls = (1, case.steps) if timed is Pass.STREAMING else (case.steps, 1)
    forward = timed is not Pass.BACKWARD
    return work(case.layer, steps, case.batch, stored(case.dtype), forward=forward, backward=timed.goes_back, calls=calls)

"""The lines of a run file, typed: a header, results as they happen, a footer.

A run file is JSON Lines. The header says what every id in it means, so that a report never needs today's catalogue to
read yesterday's run. History of the schema: 1 is the first.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

SCHEMA = 1


class RecordError(ValueError):
    """A line that is not a record of this schema; the message names the key, the value and what was expected."""


@dataclass(frozen=True)
class Header:
    """What was run, where and with what. Times are ISO 8601 in UTC.

    ``implementations``: id -> {description, modes, source, sha256 of its file, availability: {device: null, or why it cannot run}}.
    ``contracts``: id -> {statement, severity, source, topic, mutants}. ``workloads``: name -> its parameters.
    ``policy``: what counts as close, and how samples were taken.
    """

    kind: ClassVar[str] = "header"
    run: str
    created: str
    command: list[str]
    environment: dict[str, Any]
    implementations: dict[str, Any]
    contracts: dict[str, Any] = field(default_factory=dict)
    workloads: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Conformance:
    """One contract on one implementation on one case.

    ``case`` is the case's id and ``parameters`` its options. ``errors`` is one object per compared tensor: ``quantity``,
    ``error`` (max-norm against the float64 oracle, scaled by the tensor's magnitude), ``floor`` (the same of a plain
    eager loop), ``ratio`` = error / floor, ``allowance`` (how many floors pass), ``elements`` compared; error and ratio
    are null when a value was not finite. ``kernels``: the recurrent kernels that torch dispatched. ``seconds``: how
    long it took. ``reproduction``: a script that shows a failure, and runs as pasted. ``hint``: the likely cause of wrong values, with
    which the message ends too.
    """

    kind: ClassVar[str] = "conformance"
    contract: str
    implementation: str
    case: str
    outcome: str
    severity: str
    mode: str
    device: str
    dtype: str
    message: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    seconds: float = 0.0
    reproduction: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Throughput:
    """One implementation on one workload: a cell of the benchmark.

    ``samples`` are seconds per call, in the order in which they were taken, each the mean of ``calls`` consecutive calls, which follow
    ``untimed`` ones; it is empty unless ``outcome`` is passed. ``rounds`` numbers the interleaved round of each sample, so that samples of
    two implementations of one workload pair up. On a GPU ``issued`` has, for each sample, the seconds per call until the host had handed
    all work over, and ``device_samples`` those between two events around the work. ``warm_up``: seconds of the first calls, one by one:
    what is compiled, tuned or packed, is so in these; ``first_call`` is the first of them. ``tokens``: T * B, of one call; ``flops``: the
    analytic count of one call. ``tokens_per_second`` and ``flops_per_second``: from the median sample. ``agreement``: the errors against
    the oracle on the timed instance, ``before`` and ``after`` the timed calls, each as ``Conformance.errors``. ``threads``: torch's
    intra-op threads. ``stopped``: why no more samples were taken, 'decided', 'precise' (more would not tell more), 'time', which it is for
    the baseline, or 'interrupted'; empty where there are none. ``fits``: for what ran out of memory, the largest ``batch`` among its halves
    that did not, 0 if none. ``memory``: the most ``bytes`` that a call held above what was there before it, its ``method``, and the
    ``resolution`` in bytes; ``unavailable`` with the reason where it cannot be measured.
    ``limit``: the shortest time that the work of a call could take here, ``seconds``, whether ``bound`` by 'arithmetic' or 'memory', and
    what it follows from: ``bytes`` that must be moved, ``matmul_flops_per_second`` and ``memory_bytes_per_second``, the best rates that
    were measured in this run, with ``matmul`` and ``memory``, which say what was measured.
    ``evidence``: what the machine did while the workload was sampled, as :class:`harness.watch.Seen`, and ``told``, what of it a
    reader should know, in sentences.
    """

    kind: ClassVar[str] = "throughput"
    workload: str
    workload_set: str
    implementation: str
    outcome: str
    mode: str
    device: str
    dtype: str
    timed_pass: str
    sequence_length: int
    batch_size: int
    input_size: int
    hidden_size: int
    tokens: int
    flops: int
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    bias: bool = True
    message: str = ""
    samples: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    device_samples: list[float] = field(default_factory=list)
    calls: int = 1
    untimed: int = 0
    warm_up: list[float] = field(default_factory=list)
    first_call: float | None = None
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    agreement: dict[str, Any] = field(default_factory=dict)
    kernels: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    stopped: str = ""
    fits: dict[str, int] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutation:
    """One mutant under the contract that must reject it. ``outcome`` is passed where it was rejected, and failed where it survived.

    ``modes``: mode -> 'killed' or 'survived'; it is killed if it is in one of them. ``case``: the first case that killed it.
    """

    kind: ClassVar[str] = "mutation"
    contract: str
    mutant: str
    outcome: str
    description: str
    modes: dict[str, str]
    case: str = ""
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Comparisons of two equal things on this machine, one of them slowed down by the share ``planted``.

    ``verdicts``: verdict -> how many of the ``trials`` ended with it. ``ratios``: seconds over seconds that each found. ``seconds``: how
    long each sampled; ``most_seconds``: how long it might. ``device``: cpu or cuda. ``workload``: what was called, in words; empty in run
    files from before it was recorded.
    """

    kind: ClassVar[str] = "calibration"
    planted: float
    outcome: str
    trials: int
    verdicts: dict[str, int]
    ratios: list[float]
    seconds: list[float]
    most_seconds: float
    device: str = "cpu"
    workload: str = ""


@dataclass(frozen=True)
class Versus:
    """One implementation on one workload in two environments, ``base`` and ``head``, which are given here by their names.

    ``ratios``: for each pair of fresh processes seconds per call of head over those of base, above 1 is slower; ``base_seconds`` and
    ``head_seconds``: the medians of its samples, and ``rounds`` how many of them each process took. ``ratio`` is the geometric mean over
    the pairs, ``low`` and ``high`` its 99 % interval, which carries the variation between pairs, null where there were too few; ``verdict``
    as :class:`harness.statistics.Verdict`, with control over the whole run. All of these are empty or null unless ``outcome`` is passed.
    ``seconds``: how long the comparison took, with building and checking. ``stopped``: 'decided', 'pairs' (they were used up) or
    'interrupted'; empty while it goes on. There is a record after every pair, with what is known then: of several of one comparison the
    last counts, and one whose ``stopped`` is empty was cut short. ``kernels`` and ``agreement`` as in :class:`Throughput`,
    ``environments`` the ``python`` and the file that the implementation was loaded from (``origin``), each for 'base' and 'head';
    agreement is that of the last pair. ``evidence``: for each pair what the machine did meanwhile, as :class:`Throughput` has it; both
    processes and their parent are one there, and none of them is another.

    The header's policy has the names of ``base`` and ``head``, and for each what its ``environments`` are and what is ``installed``.
    """

    kind: ClassVar[str] = "versus"
    workload: str
    workload_set: str
    implementation: str
    base: str
    head: str
    outcome: str
    mode: str
    device: str
    dtype: str
    timed_pass: str
    message: str = ""
    verdict: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    ratios: list[float] = field(default_factory=list)
    base_seconds: list[float] = field(default_factory=list)
    head_seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""
    threads: int = 1
    kernels: dict[str, list[str]] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    environments: dict[str, Any] = field(default_factory=dict)
    evidence: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Footer:
    """The last line: a run file without it was cut short. ``counts``: outcome -> how many lines have it. ``coverage``: what the cases
    covered, as :func:`harness.coverage.covered` says."""

    kind: ClassVar[str] = "footer"
    finished: str
    exit_status: int
    results: int
    counts: dict[str, int]
    sha256: str
    coverage: dict[str, Any] = field(default_factory=dict)


Result = Conformance | Throughput | Mutation | Calibration | Versus
Record = Header | Result | Footer
_KINDS: dict[str, type[Record]] = {cls.kind: cls for cls in (Header, Conformance, Throughput, Mutation, Calibration, Versus, Footer)}


def to_json(record: Record) -> dict[str, Any]:
    """The record as a plain object, its ``kind`` first."""
    # Not asdict(), which copies every list in it: that took longer than writing it down.
    return {"kind": record.kind, **{f.name: getattr(record, f.name) for f in dataclasses.fields(record)}}


def from_json(line: Any) -> Record:
    """The record that a plain object describes. Raises :class:`RecordError` for anything that is not one.

    Unknown keys are dropped, so that an older reader reads a file with more in it.
    """
    if not isinstance(line, dict):
        raise RecordError(f"Expected a JSON object but got {type(line).__name__}")
    kind = line.get("kind")
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise RecordError(f"Expected kind to be one of {', '.join(_KINDS)} but got kind={kind!r}")
    if cls is Header and isinstance(line.get("schema"), int) and line["schema"] > SCHEMA:
        raise RecordError(f"Expected schema of at most {SCHEMA} but got schema={line['schema']}: update this project to read it")
    values: dict[str, Any] = {}
    for name, (accepted, items, required) in _fields(cls.kind).items():
        if name not in line:
            if required:
                raise RecordError(f"Expected the key {name!r} in a {cls.kind} line but it is missing")
            continue
        value = line[name]
        # The type itself first: in a large file, nearly every value has the one that it should.
        if type(value) not in accepted and (isinstance(value, bool) or not isinstance(value, accepted)):
            expected = " or ".join(t.__name__ for t in accepted)
            raise RecordError(f"Expected {name} of a {cls.kind} line to be {expected} but got {name}={value!r} ({type(value).__name__})")
        if type(value) is int and abs(value) >= 2**63:
            raise RecordError(f"Expected {name} of a {cls.kind} line to be a number of 64 bits but got {name}={value}")
        others = set(map(type, value)).difference(items) if items else ()
        if any(other is bool or not issubclass(other, items) for other in others):
            expected = " or ".join(t.__name__ for t in items)
            raise RecordError(f"Expected {name} of a {cls.kind} line to be a list of {expected} but got {name}={value!r}")
        values[name] = value
    return cls(**values)


@cache
def _fields(kind: str) -> dict[str, tuple[tuple[type, ...], tuple[type, ...], bool]]:
    """Name -> the types accepted, for a list those of its items, and whether the key must be there."""
    cls = _KINDS[kind]
    hints = typing.get_type_hints(cls)
    answer = {}
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        accepted = tuple(typing.get_origin(option) or option for option in options)
        items = tuple(typing.get_origin(item) or item for item in typing.get_args(hint)) if accepted == (list,) else ()
        accepted, items = (types_ + (int,) * (float in types_) for types_ in (accepted, items))
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        answer[f.name] = (accepted, items, required)
    return answer

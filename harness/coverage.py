"""What a run covered: which values of every option its cases had, which pairs of values met, and which sizes occurred."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.outcome import Outcome
from harness.record import Conformance

#: What did not run covers nothing.
_RAN = frozenset(map(str, (Outcome.PASSED, Outcome.FAILED, Outcome.EXPECTED_FAILURE)))

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """An option of a case as a few classes of values. ``read`` gives the class of a case's parameters."""

    classes: tuple[str, ...]
    read: Callable[[Parameters], str]


def _flag(name: str) -> Option:
    return Option(("no", "yes"), lambda p: "yes" if p[name] else "no")


def _sizes(name: str, *limits: int) -> Option:
    """The classes up to each of ``limits``, and above the last."""
    spans = [f"{low + 1}-{high}" if low + 1 < high else str(high) for low, high in itertools.pairwise((0, *limits))]
    classes = (*spans, f">{limits[-1]}")
    return Option(classes, lambda p: next((span for span, limit in zip(spans, limits, strict=True) if p[name] <= limit), classes[-1]))


def _form(parameters: Parameters) -> str:
    if parameters["lengths"] is not None:
        return "packed, sorted" if parameters["enforce_sorted"] else "packed"
    return "padded" if parameters["batched"] else "unbatched"


#: By name: what the constructor and the call can vary, and the sizes.
OPTIONS: dict[str, Option] = {
    "form": Option(("padded", "unbatched", "packed", "packed, sorted"), _form),
    "num_layers": _sizes("num_layers", 1, 2),
    "bidirectional": _flag("bidirectional"),
    "bias": _flag("bias"),
    "batch_first": _flag("batch_first"),
    "dropout": _flag("dropout"),
    "proj_size": _flag("proj_size"),
    "state given": _flag("given_state"),
    "dtype": Option(("float64", "float32", "bfloat16", "float16"), lambda p: str(p["dtype"])),
    "T": _sizes("steps", 1, 8, 64),
    "B": _sizes("batch", 1, 8, 64),
    "I": _sizes("input_size", 1, 8, 64),
    "H": _sizes("hidden_size", 1, 8, 64),
}

Value = tuple[str, str]
Pair = tuple[Value, Value]


def _impossible(mode: str, pair: Pair) -> bool:
    """Whether no case of ``mode`` can have both."""
    values = set(pair)
    if ("proj_size", "yes") in values and (mode != "lstm" or ("H", "1") in values):
        return True
    # Without a batch axis there is one sequence.
    return ("form", "unbatched") in values and any(name == "B" and size != "1" for name, size in values)


def covered(results: Iterable[Conformance]) -> dict[str, Any]:
    """For each implementation and each of its modes, as plain data: ``cases`` that ran (each counted once), ``options``: option ->
    class -> cases, ``pairs``: {seen, possible, missing: the pairs of classes that no case had, in words}, ``sizes``: size -> the values.
    """
    cases: dict[tuple[str, str], dict[str, Parameters]] = defaultdict(dict)
    for result in results:
        if result.outcome in _RAN and result.parameters:
            cases[result.implementation, result.mode][result.case] = result.parameters
    answer: dict[str, Any] = {}
    for (implementation, mode), found in cases.items():
        answer.setdefault(implementation, {})[mode] = _of(mode, list(found.values()))
    return answer


def _of(mode: str, cases: list[Parameters]) -> dict[str, Any]:
    rows: list[list[Value]] = [[(name, option.read(case)) for name, option in OPTIONS.items()] for case in cases]
    seen = {pair for row in rows for pair in itertools.combinations(row, 2)}
    possible = [
        pair
        for first, second in itertools.combinations(OPTIONS.items(), 2)
        for pair in itertools.product([(first[0], c) for c in first[1].classes], [(second[0], c) for c in second[1].classes])
        if not _impossible(mode, pair)
    ]
    counts = Counter(value for row in rows for value in row)
    return {
        "cases": len(cases),
        "options": {name: {c: counts[name, c] for c in option.classes} for name, option in OPTIONS.items()},
        "pairs": {
            "seen": sum(pair in seen for pair in possible),
            "possible": len(possible),
            "missing": [" with ".join(f"{name}={value}" for name, value in pair) for pair in possible if pair not in seen],
        },
        "sizes": {name: sorted({case[name] for case in cases}) for name in ("steps", "batch", "input_size", "hidden_size", "num_layers")},
    }

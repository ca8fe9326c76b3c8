"""Covering arrays: few rows in which every pair of options meets.

No library does it: a runner without a network has torch, pytest and what the reports need, and the cases have to be the same there.
The greedy construction is that of AETG (Cohen, Dalal, Fredman, Patton 1997, "The AETG system"), without its claims to be small.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def covering(factors: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool], seed: int = 0, strength: int = 2) -> list[Row]:
    """Rows over ``factors`` in which every combination of values of ``strength`` factors occurs, unless ``allowed`` forbids it.

    ``allowed`` is asked about partial rows too, and must answer True as long as nothing in them is forbidden. The same
    arguments give the same rows on every machine.
    """
    generator = random.Random(seed)
    open_ = {
        combination
        for names in itertools.combinations(factors, strength)
        for values in itertools.product(*(range(len(factors[name])) for name in names))
        if _can_be_completed(combination := tuple(zip(names, values, strict=True)), factors, allowed)
    }
    rows: list[Row] = []
    while open_:
        candidates = [_grow(min(open_), factors, allowed, open_, generator) for _ in range(6)]
        best = max(candidates, key=lambda row: len(_covered(row, strength) & open_))
        open_ -= _covered(best, strength)
        rows.append({name: factors[name][best[name]] for name in factors})
    return rows


def _named(indices: Mapping[str, int], factors: Mapping[str, Sequence[Any]]) -> Row:
    return {name: factors[name][index] for name, index in indices.items()}


def _covered(indices: Mapping[str, int], strength: int) -> set[tuple[tuple[str, int], ...]]:
    return set(itertools.combinations(indices.items(), strength))


def _can_be_completed(start: Any, factors: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool]) -> bool:
    indices = dict(start)
    if not allowed(_named(indices, factors)):
        return False
    rest = next((name for name in factors if name not in indices), None)
    if rest is None:
        return True
    return any(_can_be_completed({**indices, rest: i}, factors, allowed) for i in range(len(factors[rest])))


def _grow(
    start: Any, factors: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool], open_: set[Any], generator: random.Random
) -> dict[str, int]:
    """One full row that contains ``start``, each further value chosen for the open combinations that it closes."""
    indices = dict(start)
    names = [name for name in factors if name not in indices]
    generator.shuffle(names)
    for name in names:
        options = [i for i in range(len(factors[name])) if _can_be_completed({**indices, name: i}, factors, allowed)]
        gains = {i: sum(_ordered({**indices, name: i}, pair, name, factors) in open_ for pair in indices) for i in options}
        most = max(gains.values())
        indices[name] = generator.choice([i for i in options if gains[i] == most])
    return {name: indices[name] for name in factors}


def _ordered(indices: Mapping[str, int], other: str, name: str, factors: Mapping[str, Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((key, indices[key]) for key in factors if key in (other, name))

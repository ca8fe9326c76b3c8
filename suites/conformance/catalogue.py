"""All contracts, in the order in which a reader meets them: the list that pytest, the plain driver and the README share."""

from __future__ import annotations

from types import ModuleType

from harness.contract import Contract
from suites.conformance import (
    composition,
    dropout,
    errors,
    execution,
    gradients,
    invariance,
    layout,
    module,
    numerics,
    packed,
    purity,
    search,
    shapes,
    state,
    values,
)

TOPICS: tuple[ModuleType, ...] = (
    shapes,
    values,
    state,
    gradients,
    packed,
    errors,
    invariance,
    layout,
    dropout,
    module,
    purity,
    numerics,
    execution,
    composition,
    search,
)

CATALOGUE: tuple[Contract, ...] = tuple(value for topic in TOPICS for value in vars(topic).values() if isinstance(value, Contract))

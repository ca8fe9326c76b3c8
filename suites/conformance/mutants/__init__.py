"""Layers that are wrong in one place, each registered under the contract that must reject it; one file a topic."""

from suites.conformance.mutants import (
    dropout,
    errors,
    execution,
    gradients,
    invariance,
    module,
    numerics,
    packed,
    purity,
    search,
    shapes,
    state,
    values,
)
from suites.conformance.mutants.base import SOUND, Sound, registered

__all__ = [
    "SOUND",
    "Sound",
    "dropout",
    "errors",
    "execution",
    "gradients",
    "invariance",
    "module",
    "numerics",
    "packed",
    "purity",
    "registered",
    "search",
    "shapes",
    "state",
    "values",
]

"""Layers that are wrong in one place, each registered under the contract that must reject it; one file a topic."""

from suites.conformance.mutants import errors, gradients, packed, shapes, state, values
from suites.conformance.mutants.base import SOUND, Sound, registered

__all__ = ["SOUND", "Sound", "errors", "gradients", "packed", "registered", "shapes", "state", "values"]

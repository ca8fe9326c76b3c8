"""Layers that are wrong in one place, each registered under the contract that must reject it, in files by topic."""

from importlib import import_module
from pkgutil import iter_modules

from suites.conformance.mutants.base import FUSED, SOUND, Sound, registered

__all__ = ["FUSED", "SOUND", "Sound", "registered"]

# To load a file is to register what is in it, and a new one needs only to lie here.
for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

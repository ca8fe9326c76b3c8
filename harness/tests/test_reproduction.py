"""A script builds the very implementation that failed, or there is none."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from harness import registry
from harness.case import Case
from harness.contract import Check, run
from harness.layer import Layer, Mode
from harness.registry import resolve, wrapped
from harness.reproduction import NO_SCRIPT, script
from harness.tests import samples
from harness.tests.samples import CASE

LSTM = Case(Layer(Mode.LSTM, 3, 5))

LAYERS = '''
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from torch import nn
from harness.implementation import Capabilities, Implementation
from harness.layer import Mode
from harness.registry import wrapped

class Scaled(nn.LSTM):
    """Gives back the output times a number."""
    def __init__(self, *sizes, scale=1.0, **options):
        super().__init__(*sizes, **options)
        self.scale = scale
    def forward(self, input, hx=None):
        output, state = super().forward(input, hx)
        return output * self.scale, state

class Outer:
    class Inner(Scaled):
        """Stands in a class."""
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, scale=2.0, **options)

def make(cls, layer):
    return cls(layer.input_size, layer.hidden_size, scale=2.0, **layer.options())

@contextmanager
def switches():
    yield

OWN = Implementation("mine:own", "mine", partial(make, Scaled), Capabilities(modes=frozenset({Mode.LSTM})))
SWITCHED = replace(OWN, switches=switches)
FILLED = partial(Scaled, scale=2.0)
WRAPPED = replace(wrapped(partial(Scaled, scale=2.0)), id="mine:wrapped")
'''


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Path]:
    """A file of layers that give back twice the output; what loading it leaves in the interpreter is taken away."""
    file = tmp_path / "scaled_layers.py"
    file.write_text(LAYERS)
    path, folders = list(sys.path), list(registry.FOLDERS)
    yield file
    sys.path[:], registry.FOLDERS[:] = path, folders
    sys.modules.pop(file.stem, None)


def _shows_it(text: str) -> None:
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        exec(compile(text, "reproduction", "exec"), {})


@pytest.mark.parametrize("reference", ["{}:OWN", "lstm={}:SWITCHED", "{}:FILLED", "{}:WRAPPED", "{}:Outer.Inner", "lstm={}:Outer.Inner"])
def test_what_a_reference_names_is_built_as_it_was(reference: str, layers: Path) -> None:
    _shows_it(script(resolve(reference.format(layers)), LSTM))


@pytest.mark.parametrize("name", ["scaled-layers.py", "scaled.layers.v2.py"])
def test_a_file_whose_name_is_no_modules_is_loaded_all_the_same(name: str, layers: Path) -> None:
    file = layers.with_name(name)
    file.write_text(LAYERS)
    built = resolve(f"lstm={file}:Outer.Inner").build(LSTM.layer)
    # As a checkpoint of the whole module is: by the name of the module that its class is in.
    assert type(pickle.loads(pickle.dumps(built))) is type(built)
    _shows_it(script(resolve(f"lstm={file}:Outer.Inner"), LSTM))
    sys.modules.pop(type(built).__module__)


def test_a_class_that_was_wrapped_is_imported_by_its_name(layers: Path) -> None:
    resolve(f"{layers}:OWN")
    module: Any = sys.modules[layers.stem]
    for cls, taken in ((module.Scaled, "from scaled_layers import Scaled"), (module.Outer.Inner, "from scaled_layers import Outer")):
        text = script(wrapped(cls), LSTM)
        assert taken in text.splitlines() and f"layer = {cls.__qualname__}(3, 5)" in text
    _shows_it(script(wrapped(module.Outer.Inner), LSTM))


def test_what_nothing_could_import_has_no_script_and_says_so(layers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(f"{layers}:OWN")
    module: Any = sys.modules[layers.stem]

    class Local(nn.LSTM):
        pass

    program = ModuleType("__main__")
    program.Program = type("Program", (nn.LSTM,), {"__module__": "__main__"})  # type: ignore[attr-defined]  # a module has what it is given
    monkeypatch.setitem(sys.modules, "__main__", program)
    for make in (partial(module.Scaled, scale=2.0), Local, program.Program):
        implementation = wrapped(make)
        assert script(implementation, LSTM) == implementation.reference == ""
    failed = run(Check(samples.agrees, wrapped(partial(samples.Doubled, device="cpu")), CASE))
    assert failed.outcome == "failed" and failed.reproduction == NO_SCRIPT
    exec(compile(NO_SCRIPT, "reproduction", "exec"), {})

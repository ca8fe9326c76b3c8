"""Every failure comes with a script that shows it and, where the fault is a known one, a hint that names it.

Proven on every mutant, and on the sound layer, which no script may accuse.
"""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from harness.case import Case
from harness.contract import Check, Contract, reproduction, run
from harness.implementation import Implementation
from harness.layer import Mode
from harness.registry import resolve
from harness.reproduction import LINES
from harness.switches import tf32, undisturbed
from suites.conformance import mutants
from suites.conformance.catalogue import CATALOGUE
from suites.conformance.mutants.hints import HINTS
from suites.conformance.proofs import PAIRS, of_every_mutant, proof

_TOO_FINE = "the fault is smaller than what a script without a noise floor can allow"
_NO_CLASS = "the demonstration calls the class as nn's is called, and mutants are built from a Layer"

#: A sequence that the sound layer, which is slow, is spared.
_LONG = 10_000

_MASKS = "the masks of several layers cannot be told apart in a few lines"

#: The mutants that their reproduction does not show, and why.
NOT_SHOWN = {
    "mutant:float16-through-bfloat16": _TOO_FINE,
    "mutant:drifts-alittle-each-step": _TOO_FINE,
    "mutant:half-gradient-falls-short": _TOO_FINE,
    "mutant:half-cell-state-rounded": _TOO_FINE,
    "mutant:upper-half-projection-rounded": _TOO_FINE,
    "mutant:mask-shared-over-layers": _MASKS,
    "mutant:fourth-layer-not-dropped-in-part": _MASKS,
    "mutant:autocast-copies-kept": "a script of so few lines calls it under autocast with gradients alone",
    "mutant:casts-not-kept-under-autocast": "a script of so few lines looks at the switches without autocast alone",
    "mutant:surplus-layers-of-apack-cut-off": "a script of so few lines changes how many sequences a packed input has states for alone",
    "mutant:logs-no-warnings": "a script of so few lines does not look at every switch",
    "mutant:reduced-precision-from-now-on": "a script of so few lines does not look at every switch",
    "mutant:kernel-that-prints": "a script of so few lines looks at Python's streams alone",
    "mutant:rounded-after-autocast-in-eval": "a script of so few lines calls it under autocast in training alone",
    "mutant:scratch-state-shared": "left to themselves, two threads take turns too seldom to be sure of it",
    "mutant:lengths-shared": "a script of so few lines gives both threads the same lengths",
    **{mutant.id: _NO_CLASS for contract, mutant in PAIRS if contract.needs_constructor},
}


def _sound(contract: Contract, mode: Mode) -> Implementation:
    """A right layer: nn's own class where the contract is about the constructor."""
    return resolve(f"torch.nn:{mode.class_name}") if contract.needs_constructor else mutants.SOUND


def _execute(script: str) -> None:
    torch._dynamo.reset()
    # Many scripts collect garbage, some for each of 30 calls: what other tests have left is not to be looked through every time.
    gc.freeze()
    try:
        # Some scripts allow TF32, and end where they show a fault.
        with undisturbed(), tf32(allowed=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(script, "reproduction", "exec"), {"__name__": "reproduction"})
    finally:
        gc.unfreeze()


@cache
def _accuses_nobody(script: str) -> None:
    """Executes a script with a sound layer, once."""
    _execute(script)


def _first_cases(contract: Contract) -> list[Case]:
    """The contract's first case of an LSTM, whose state is a pair, and its first of another mode."""
    return list({case.layer.mode is Mode.LSTM: case for case in reversed(contract.cases)}.values())


#: The topics whose mutants all get the hint that the table has, or none.
_HINTED = ("values", "state", "packed", "gradients", "dropout")


def _name(mutant: Implementation) -> str:
    return str(getattr(mutant.build, "__name__", mutant.id))


@of_every_mutant
def test_a_mutant_gets_its_own_hint_or_none_and_a_script_that_raises_and_does_not_with_the_sound_layer(
    contract: Contract, mutant: Implementation
) -> None:
    if contract.only_on not in ("", "cpu") or contract.missing():
        pytest.skip(f"{contract.id}: {contract.missing() or f'it is about {contract.only_on}'}")
    rejection = proof(contract, mutant).rejection
    assert rejection is not None, "it survived"
    rejected, finding = rejection
    case = rejected.case
    assert case is not None
    if contract.topic in _HINTED:
        hint, expected = finding.hint, HINTS.get(_name(mutant), "")
        assert finding.message.partition("\n  hint: ")[2] == hint, "the message ends with it"
        words = (expected,) if isinstance(expected, str) else expected
        assert bool(hint) == bool(expected) and any(word in hint for word in words), f"{mutant.id}: {mutant.description}"
    script = finding.reproduction
    assert len(script.splitlines()) <= LINES, script
    if mutant.id not in NOT_SHOWN:
        with pytest.raises(Exception):  # noqa: B017, PT011 -- the implementation's own exception shows a fault as well
            _execute(script)
    if case.steps < _LONG:
        _accuses_nobody(reproduction(Check(contract, _sound(contract, case.layer.mode), case)))


def test_the_table_of_hints_names_mutants_that_exist() -> None:
    assert set(HINTS) <= {_name(mutant) for contract, mutant in PAIRS if contract.topic in _HINTED}


def test_few_mutants_are_not_shown() -> None:
    assert NOT_SHOWN.keys() <= {mutant.id for _, mutant in PAIRS}
    assert len(NOT_SHOWN) < len(PAIRS) / 10


@pytest.mark.parametrize("contract", CATALOGUE, ids=lambda contract: contract.id)
def test_a_reproduction_is_short_imports_torch_and_the_implementation_and_accuses_no_sound_layer(contract: Contract) -> None:
    for case in _first_cases(contract):
        script = reproduction(Check(contract, resolve(f"torch.nn:{case.layer.mode.class_name}"), case))
        assert len(script.splitlines()) <= LINES, script
        imported = [node for node in ast.walk(ast.parse(script)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {
            name for node in imported for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert names - sys.stdlib_module_names == {"torch", "torch.nn"}, script
        if contract.only_on in ("", "cpu") and not contract.missing() and case.steps < _LONG:
            _accuses_nobody(reproduction(Check(contract, _sound(contract, case.layer.mode), case)))


WRONG = '''
from torch import nn

class Wrong(nn.LSTM):
    """Gives back twice the output."""
    def forward(self, input, hx=None):
        output, state = super().forward(input, hx)
        return 2 * output, state

class Right(nn.LSTM):
    """Gives back what nn gives."""
'''


@pytest.mark.parametrize("name", ["Wrong", "Right"])
def test_a_script_runs_as_pasted_for_a_class_in_a_file_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / """it's a "layer" """.strip()
    folder.mkdir()
    file = folder / "mine.py"
    file.write_text(WRONG, encoding="utf-8")
    contract = next(contract for contract in CATALOGUE if contract.id == "values.lstm_cell")
    check = Check(contract, resolve(f"lstm={file}:{name}"), contract.cases[0])
    result = run(check)
    assert result.outcome == ("failed" if name == "Wrong" else "passed")
    assert bool(result.reproduction) == (name == "Wrong")
    ran = subprocess.run([sys.executable, "-"], input=reproduction(check), capture_output=True, text=True, cwd=tmp_path, check=False)
    if name == "Right":
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    else:
        assert ran.returncode == 1 and "AssertionError" in ran.stderr


def test_a_built_in_row_is_found_by_its_id_and_runs_under_its_switches() -> None:
    contract = next(contract for contract in CATALOGUE if contract.id == "values.lstm_cell")
    for id in ("torch:onednn-off", "loop:textbook"):
        script = reproduction(Check(contract, resolve(id), contract.cases[0]))
        assert f"resolve('{id}').build(Layer(Mode.LSTM, 3, 5))" in script
        assert ("switches()" in script) == (id == "torch:onednn-off")
        _execute(script)

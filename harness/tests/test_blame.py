"""An error is held against whose code raised it."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness import blame
from harness.contract import Check, run
from harness.implementation import ExpectedFailure
from harness.tests import samples
from harness.tests.samples import CASE, implementation
from harness.trial import Trial

_METHODS = """
def raises(self, *arguments, **options):
    raise {error}
def _apply(self, *arguments):
    return raises(self)
state_dict = eval = requires_grad_ = zero_grad = raises
"""


@pytest.mark.parametrize("method", ["state_dict", "eval", "requires_grad_", "zero_grad", "_apply"])
@pytest.mark.parametrize(
    ("error", "outcome", "told"),
    [
        ("ValueError('no good')", "failed", "{}() raised ValueError: no good\n  at mine.py:"),
        ("SystemExit('no good')", "failed", "{}() raised SystemExit: no good"),
        ('RuntimeError("can\'t allocate memory")', "out-of-memory", "can't allocate memory"),
        ("NotImplementedError('not written')", "unsupported", "NotImplementedError: not written"),
    ],
)
def test_whatever_the_code_of_an_implementation_raises_is_its_failure(method: str, error: str, outcome: str, told: str) -> None:
    place: dict[str, Any] = {}
    exec(compile(_METHODS.format(error=error), "/elsewhere/mine.py", "exec"), place)
    layer = implementation(type("Sample", (nn.GRU,), {method: place[method]}))

    def asks(trial: Trial) -> None:
        module = trial.implementation.build(trial.case.layer)
        module.float() if method == "_apply" else getattr(module, method)()

    result = run(Check(replace(samples.agrees, check=asks), layer, CASE))
    first = "_apply" if method == "_apply" else "raises"
    assert result.outcome == outcome and result.message.startswith(told.format(first)), result.message


def test_what_an_implementations_code_raises_can_be_declared() -> None:
    place: dict[str, Any] = {}
    exec(compile(_METHODS.format(error="KeyError('known')"), "/elsewhere/mine.py", "exec"), place)
    known = ExpectedFailure("sample.agrees", "upstream", "it is known", KeyError, "tracker#1")
    layer = implementation(type("Sample", (nn.GRU,), {"eval": place["eval"]}), expected_failures=(known,))

    def asks(trial: Trial) -> None:
        trial.module().eval()

    assert run(Check(replace(samples.agrees, check=asks), layer, CASE)).outcome == "expected-failure"


def test_a_fault_of_the_suite_that_an_implementation_called_is_nobodys_outcome_either() -> None:
    place: dict[str, Any] = {}
    exec(compile("def forward(self, x, hx):\n    return self.back()\n", "/elsewhere/mine.py", "exec"), place)

    def back(self: Any) -> None:
        raise KeyError("a fault of the suite")

    def asks(trial: Trial) -> None:
        trial.implementation.build(trial.case.layer)(None, None)

    layer = implementation(type("Sample", (nn.GRU,), {"forward": place["forward"], "back": back}))
    with pytest.raises(KeyError, match="a fault of the suite"):
        run(Check(replace(samples.agrees, check=asks), layer, CASE))


@pytest.mark.parametrize(
    ("file", "source", "own"),
    [
        ("{user}/mine.py", "{user}/mine.py", True),
        ("{user}/beside.py", "{user}/mine.py", True),
        ("{packages}/fast/kernels.py", "{packages}/fast/layers/lstm.py", True),
        ("{packages}/faster/kernels.py", "{packages}/fast/lstm.py", False),
        ("{packages}/fast.py", "{packages}/fast.py", True),
        ("{packages}/numpy/linalg.py", "{user}/mine.py", False),
        ("{python}/copy.py", "{user}/mine.py", False),
        ("{torch}/nn/modules/rnn.py", "{torch}/nn/modules/rnn.py", False),
        ("<string>", "{user}/mine.py", False),
    ],
)
def test_code_of_an_implementation_is_what_is_neither_torchs_nor_of_another_package(file: str, source: str, own: bool) -> None:
    paths = sysconfig.get_paths()
    places = {"user": "/home/me", "packages": paths["purelib"], "python": paths["stdlib"], "torch": torch.__path__[0]}
    assert blame._is_code_of(file.format(**places), source.format(**places)) == own


def test_what_torch_refuses_of_a_scripted_module_is_a_refusal_of_its() -> None:
    def asks(trial: Trial) -> None:
        torch.jit.script(trial.implementation.build(trial.case.layer)).requires_grad_(False)

    result = run(Check(replace(samples.agrees, check=asks), implementation(nn.GRU), CASE))
    told = "NotImplementedError: what was asked of it raised RuntimeError: requires_grad_ is not supported on ScriptModules"
    assert (result.outcome, result.message) == ("unsupported", told)

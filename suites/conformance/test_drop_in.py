"""The door for other projects: as a decorator and as a function, with what they know to fail."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from harness.implementation import ExpectedFailure
from suites.conformance import catalogue
from suites.conformance.drop_in import Call, findings, parametrize_with_contracts

FEW = [c for c in catalogue.CATALOGUE if c.id in ("shapes.headline", "values.gru_cell", "module.printable", "module.attributes")]


class Odd(nn.GRU):
    """Its repr raises, and it has no projection or dropout."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, bidirectional: bool = False) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, bidirectional=bidirectional)

    def __repr__(self) -> str:
        raise RuntimeError("not today")


class Elsewhere(nn.Module):
    """Subclasses none of nn's."""

    def forward(self, input: Tensor) -> Any:
        return input


@parametrize_with_contracts(Odd, expected_failures={"module.printable": "its repr raises"}, contracts=FEW, on=["cpu"])
def test_runs_under_the_decorator(check: Call) -> None:
    check()


def test_an_expected_failure_that_passes_fails() -> None:
    found = findings(nn.GRU, expected_failures={"module.printable": "so it was said"}, contracts=FEW, on=["cpu"])
    strict = {result.outcome for result in found if result.contract == "module.printable"}
    assert strict == {"failed"}
    assert {result.outcome for result in found if result.contract == "values.gru_cell"} == {"passed"}


def test_an_expected_failure_with_another_exception_fails() -> None:
    declared = [ExpectedFailure("module.printable", "ours", "its repr raises", KeyError, "")]
    found = findings(Odd, expected_failures=declared, contracts=FEW, on=["cpu"])
    messages = [result.message for result in found if result.outcome == "failed"]
    assert messages
    assert all(message.startswith("Expected to fail with KeyError (its repr raises) but failed otherwise") for message in messages)


def test_an_option_that_the_constructor_does_not_take_is_unsupported() -> None:
    found = findings(Odd, expected_failures={"module.printable": "its repr raises"}, contracts=FEW, on=["cpu"])
    refused = [result.message for result in found if result.outcome == "unsupported"]
    assert refused and all("takes no" in message for message in refused)


def test_a_class_of_no_known_kind_is_asked_for_it() -> None:
    with pytest.raises(ValueError, match="Expected kind to be one of rnn, gru, lstm for Elsewhere"):
        findings(Elsewhere, contracts=FEW)


def test_an_unknown_contract_is_named() -> None:
    with pytest.raises(ValueError, match=r"values\.lstmcell"):
        parametrize_with_contracts(nn.LSTM, expected_failures={"values.lstmcell": "no"}, contracts=FEW)

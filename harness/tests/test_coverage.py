"""Coverage counts what ran, once, and names what never met."""

from __future__ import annotations

from dataclasses import replace

from harness.case import Case
from harness.contract import Check, finding
from harness.coverage import OPTIONS, covered
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.record import Conformance
from harness.tests.samples import Doubled, agrees, implementation


def _result(case: Case, outcome: Outcome = Outcome.PASSED) -> Conformance:
    return finding(Check(agrees, implementation(Doubled), case), outcome, "")


ONE = Case(Layer(Mode.GRU, 3, 4), steps=4, batch=2)
TWO = Case(Layer(Mode.GRU, 9, 1, bidirectional=True), steps=70, batch=1, batched=False, dtype="float64")


def test_a_case_counts_once_however_many_contracts_use_it() -> None:
    found = covered([_result(ONE), replace(_result(ONE), contract="another.one"), _result(TWO)])
    gru = found["sample:one"]["gru"]
    assert gru["cases"] == 2
    assert gru["options"]["bidirectional"] == {"no": 1, "yes": 1}
    assert gru["options"]["T"] == {"1": 0, "2-8": 1, "9-64": 0, ">64": 1}
    assert gru["sizes"]["hidden_size"] == [1, 4] and gru["sizes"]["steps"] == [4, 70]


def test_pairs_are_those_that_met_in_one_case() -> None:
    gru = covered([_result(ONE), _result(TWO)])["sample:one"]["gru"]
    every_pair = len(OPTIONS) * (len(OPTIONS) - 1) // 2
    assert gru["pairs"]["seen"] == 2 * every_pair - _shared()
    assert "bidirectional=yes with T=2-8" in gru["pairs"]["missing"]
    assert "bidirectional=yes with T=>64" not in gru["pairs"]["missing"]
    assert gru["pairs"]["possible"] == gru["pairs"]["seen"] + len(gru["pairs"]["missing"])


def _shared() -> int:
    """Pairs that both cases have: of num_layers, bias, batch_first, dropout, proj_size and the state given, alike in both."""
    return 6 * 5 // 2


def test_what_cannot_meet_is_not_missed() -> None:
    missing = covered([_result(ONE)])["sample:one"]["gru"]["pairs"]["missing"]
    assert "form=unbatched with B=9-64" not in missing
    assert not any("proj_size=yes" in pair for pair in missing)


def test_what_did_not_run_covers_nothing() -> None:
    assert covered([_result(ONE, Outcome.UNSUPPORTED), _result(TWO, Outcome.CRASHED)]) == {}

"""Whatever an implementation does becomes the outcome that is meant for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness import contract as contracts
from harness import environment, oracle
from harness.case import Case
from harness.contract import Check, Contract, alternative, blind_spots, check, checks, devices, run
from harness.implementation import Capabilities, ExpectedFailure
from harness.layer import Layer, Mode
from harness.outcome import Outcome, Severity
from harness.record import Conformance
from harness.reference import Expected, Question, answer
from harness.switches import make_dropout_state, switched, unusable
from harness.tests import samples
from harness.tests.samples import CASE, Doubled, implementation, label
from harness.trial import Mismatch, Trial


def _raising(error: BaseException) -> Callable[..., Any]:
    def forward(self: nn.Module, *arguments: Any) -> Any:
        raise error

    return forward


def _giving(change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A GRU whose answer is changed on its way out."""

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        return change(*nn.GRU.forward(self, *arguments))

    return forward


def _result(behaviour: Any, contract: Contract = samples.agrees, case: Case = CASE, **options: Any) -> Conformance:
    return run(Check(contract, implementation(behaviour, **options), case))


def _expecting(exception: type[BaseException] | Outcome, **options: Any) -> dict[str, Any]:
    known = ExpectedFailure("sample.agrees", "upstream", "it is known", exception, "tracker#1", **options)
    return {"expected_failures": (known,)}


WITHOUT_BIAS: dict[str, Any] = {"capabilities": Capabilities(no_bias=False)}
NO_BIAS = replace(CASE, layer=replace(CASE.layer, bias=False))


def test_whoever_leaves_a_process_without_its_device_is_blamed_and_nobody_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.contract.unusable", unusable)
    first, then = _result(samples.Ruins), _result(nn.GRU)
    lost = "CUDA error: an illegal memory access was encountered"
    assert (first.outcome, first.message) == ("crashed", f"it left cpu unusable: {lost}")
    assert (then.outcome, then.message) == ("unavailable", f"this process cannot use cpu any more: {lost}")


def test_an_error_that_was_raised_in_handling_another_says_which() -> None:
    def forward(self: nn.Module, *arguments: Any) -> Any:
        try:
            raise ValueError("the cause\nand more of it")
        except ValueError:
            raise RuntimeError("the end")  # noqa: B904

    def deliberate(self: nn.Module, *arguments: Any) -> Any:
        try:
            forward(self)
        except RuntimeError:
            raise RuntimeError("the end") from None

    told = "calling it raised RuntimeError: the end\n"
    assert _result(forward).message.startswith(f"{told}  raised while handling ValueError: the cause\n")
    assert _result(deliberate).message.startswith(told) and "handling" not in _result(deliberate).message


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
@pytest.mark.parametrize("broken", ["rand", "synchronize"])
def test_a_device_is_unusable_where_drawing_a_number_or_waiting_for_it_raises(
    device: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def on_device(name: str, device: str) -> None:
        asked.append(device)
        if name == broken:
            raise RuntimeError("CUDA error: unspecified launch failure\nand much advice")

    monkeypatch.setattr(torch, "rand", lambda size, device: on_device("rand", device))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: on_device("synchronize", device))
    assert unusable(device) == ("" if device == "cpu" else "CUDA error: unspecified launch failure")
    assert asked == ([] if device == "cpu" else [device] * (1 if broken == "rand" else 2))


@pytest.mark.parametrize(("device", "built"), [("cpu", True), ("cuda", False), ("cuda", True)])
def test_the_state_by_which_cudnn_drops_is_made_once_and_outside_of_inference_mode(
    device: str, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[bool, bool, bool]] = []

    class Layer(nn.LSTM):
        def __init__(self, *sizes: int, device: str, **options: Any) -> None:
            super().__init__(*sizes, **options)

        def __call__(self, *arguments: Any) -> None:
            calls.append((torch.is_inference_mode_enabled(), self.training and self.dropout > 0, torch.backends.cudnn.enabled))

    zeros = torch.zeros
    monkeypatch.setattr(torch.nn, "LSTM", Layer)
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: zeros(*sizes))
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: built)
    make_dropout_state.cache_clear()
    with torch.inference_mode(), switched("cudnn", False):
        make_dropout_state(device)
        make_dropout_state(device)
    make_dropout_state.cache_clear()
    assert calls == ([(False, True, True)] if device == "cuda" and built else [])


def test_a_right_answer_passes_and_is_recorded_with_its_errors() -> None:
    result = _result(nn.GRU)
    assert (result.outcome, result.message) == ("passed", "")
    assert [(e["quantity"], e["elements"]) for e in result.errors] == [("output", 32), ("h_n", 8)]
    assert all(e["ratio"] <= e["allowance"] for e in result.errors) and result.seconds > 0
    assert (result.contract, result.implementation, result.case) == ("sample.agrees", "sample:one", CASE.id)
    assert result.parameters["mode"] == "gru" and result.parameters["steps"] == 4 and "layer" not in result.parameters


@pytest.mark.parametrize(
    ("behaviour", "outcome", "message"),
    [
        (Doubled, "failed", "output: 32 of 32 elements"),
        (_giving(lambda output, h_n: (output, h_n * float("nan"))), "failed", "h_n: 8 of 8 elements"),
        (_giving(lambda output, h_n: output), "failed", "Expected the pair (output, h_n) but got a tensor"),
        (_giving(lambda output, h_n: None), "failed", "but got NoneType"),
        (_giving(lambda output, h_n: (output, (h_n, h_n))), "failed", "Expected h_n to be a tensor but got a tuple of 2"),
        (_giving(lambda output, h_n: (output[:, :1], h_n)), "failed", "Expected output of shape (4, 2, 4) but got (4, 1, 4)"),
        (_giving(lambda output, h_n: (output.to("meta"), h_n)), "failed", "floating-point values"),
        (_giving(lambda output, h_n: (output.to_sparse(), h_n)), "failed", "floating-point values"),
        (_giving(lambda output, h_n: (output + 0j, h_n)), "failed", "floating-point values"),
        (_giving(lambda output, h_n: (output.long(), h_n)), "failed", "floating-point values"),
        (_raising(ValueError("no good")), "failed", "calling it raised ValueError: no good"),
        (_raising(AssertionError("no good")), "failed", "calling it raised AssertionError: no good"),
        (_raising(UserWarning("no good")), "failed", "calling it raised UserWarning: no good"),
        (_raising(NotImplementedError("no gru")), "unsupported", "NotImplementedError: no gru"),
        (_raising(MemoryError("too much")), "out-of-memory", "too much"),
        (_raising(MemoryError()), "out-of-memory", ""),
        (_raising(torch.OutOfMemoryError("too much")), "out-of-memory", "too much"),
        (_raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")), "out-of-memory", "can't allocate memory"),
    ],
    ids=label,
)
def test_each_behaviour_has_its_outcome(behaviour: Any, outcome: str, message: str) -> None:
    result = _result(behaviour)
    assert result.outcome == outcome and message in result.message, result.message


def test_a_layer_that_cannot_be_built_or_loaded_fails() -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise TypeError("no such option")

    broken = replace(implementation(nn.GRU), build=refuse)
    assert "building GRU(3, 4) raised TypeError: no such option" in run(Check(samples.agrees, broken, CASE)).message
    other = replace(implementation(nn.GRU), build=lambda layer: nn.LSTM(3, 4))
    result = run(Check(samples.agrees, other, CASE))
    assert result.outcome == "failed" and result.message.startswith("load_state_dict with the parameters of nn.GRU(3, 4) raised")


def test_a_failure_names_the_line_of_the_implementation() -> None:
    place: dict[str, Any] = {}
    exec(compile("\ndef forward(self, *arguments):\n    raise ValueError('no good')\n", "/elsewhere/mine.py", "exec"), place)
    assert "at mine.py:3 in forward" in _result(place["forward"]).message
    # Torch's own lines, below or above it, say nothing of the implementation.
    body = "import torch\ndef forward(self, input, hx):\n    return torch.nn.functional.linear(input, input).split(1, 7)\n"
    exec(compile(body, "/elsewhere/mine.py", "exec"), place)
    message = _result(place["forward"]).message
    assert message.count("\n  at ") == 1 and "at mine.py:3 in forward" in message


def test_what_is_declared_away_and_refused_is_unsupported() -> None:
    for error in (ValueError("bias"), NotImplementedError("bias")):
        result = _result(_raising(error), case=NO_BIAS, **WITHOUT_BIAS)
        assert result.outcome == "unsupported" and "declared as not supported: bias=False" in result.message


def test_what_is_declared_away_and_answered_all_the_same_fails() -> None:
    result = _result(nn.GRU, case=NO_BIAS, **WITHOUT_BIAS)
    assert result.outcome == "failed" and "the declaration is false" in result.message and result.reproduction == ""
    assert _result(Doubled, case=NO_BIAS, **WITHOUT_BIAS).outcome == "failed"


def test_who_refuses_everything_declared_away_does_not_fail_a_contract_about_errors() -> None:
    truthful = _result(_raising(ValueError("bias")), samples.refuses_other_widths, NO_BIAS, **WITHOUT_BIAS)
    assert truthful.outcome == "unsupported"
    takes_anything = _giving(lambda output, h_n: (output, h_n))

    def lenient(self: Any, x: Any, *rest: Any) -> Any:
        return takes_anything(self, x[..., :3], *rest)

    assert _result(lenient, samples.refuses_other_widths, NO_BIAS, **WITHOUT_BIAS).outcome == "failed"
    assert _result(lenient, samples.refuses_other_widths).outcome == "failed"


@pytest.mark.parametrize(
    ("behaviour", "exception", "outcome"),
    [
        (Doubled, Mismatch, "expected-failure"),
        (_raising(ValueError("known")), ValueError, "expected-failure"),
        (_raising(NotImplementedError("known")), NotImplementedError, "expected-failure"),
        (_raising(ValueError("another")), KeyError, "failed"),
        (_raising(NotImplementedError("another")), ValueError, "failed"),
        (Doubled, ValueError, "failed"),
        (_raising(ValueError("known")), Mismatch, "failed"),
        (nn.GRU, Mismatch, "failed"),
        (_raising(MemoryError("too much")), Mismatch, "out-of-memory"),
        (_raising(MemoryError("known")), MemoryError, "expected-failure"),
        (_raising(torch.OutOfMemoryError("known")), Outcome.OUT_OF_MEMORY, "expected-failure"),
        (_raising(MemoryError("too much")), Outcome.CRASHED, "out-of-memory"),
        (Doubled, Outcome.OUT_OF_MEMORY, "failed"),
        (nn.GRU, Outcome.TIMED_OUT, "failed"),
    ],
    ids=label,
)
def test_an_expected_failure_is_strict(behaviour: Any, exception: type[BaseException] | Outcome, outcome: str) -> None:
    result = _result(behaviour, **_expecting(exception))
    assert result.outcome == outcome, result.message
    if outcome == "expected-failure":
        assert result.message == "it is known (upstream, tracker#1)"
    elif behaviour is nn.GRU:
        assert "remove the declaration" in result.message and result.reproduction == ""
    else:
        name = exception.value if isinstance(exception, Outcome) else exception.__name__
        assert result.message.startswith(f"Expected to fail with {name} (it is known) but failed otherwise: ")


def test_a_declared_loss_of_the_device_is_expected_and_still_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.contract.unusable", unusable)
    check = Check(samples.agrees, implementation(samples.Ruins, **_expecting(Outcome.CRASHED)), CASE)
    result = run(check)
    assert (result.outcome, result.message) == ("expected-failure", "it is known (upstream, tracker#1)")
    assert contracts.has_crashed(check, result)
    other = Check(samples.agrees, implementation(samples.Doubled, **_expecting(Mismatch)), CASE)
    monkeypatch.setattr("harness.contract.unusable", unusable)
    assert run(other).outcome == "expected-failure" and not contracts.has_crashed(other, run(other))


@pytest.mark.parametrize("given", [Outcome.FAILED, Outcome.PASSED, "crashed", int])
def test_what_cannot_be_declared_is_refused(given: Any) -> None:
    told = (
        r"Expected a type of exception, or one of Outcome\.CRASHED, Outcome\.TIMED_OUT, Outcome\.OUT_OF_MEMORY, for sample\.agrees but got"
    )
    with pytest.raises(ValueError, match=told):
        _expecting(given)


def test_an_expected_failure_holds_for_its_cases_and_contract_only() -> None:
    assert _result(Doubled, **_expecting(Mismatch, when=lambda case: case.batch > 2)).outcome == "failed"
    assert _result(nn.GRU, **_expecting(Mismatch, when=lambda case: case.batch > 2)).outcome == "passed"
    assert _result(nn.GRU, samples.refuses_other_widths, **_expecting(Mismatch)).outcome == "passed"


def test_unavailable_is_an_outcome_with_its_reason() -> None:
    result = run(Check(samples.agrees, implementation(nn.GRU), None, Outcome.UNAVAILABLE, "no such machine"))
    assert (result.outcome, result.message, result.case) == ("unavailable", "no such machine", "")


def test_a_fault_of_the_suite_is_nobodys_outcome() -> None:
    with pytest.raises(KeyError, match="a fault of the suite"):
        _result(nn.GRU, samples.is_broken_itself)


def test_switches_are_on_while_the_contract_runs_and_tf32_is_off() -> None:
    seen: list[Any] = []

    def forward(self: nn.GRU, *arguments: Any) -> Any:
        seen.append((torch.backends.mkldnn.enabled, torch.backends.cudnn.allow_tf32))
        return nn.GRU.forward(self, *arguments)

    before: Any = (torch.backends.mkldnn.enabled, torch.backends.cudnn.allow_tf32)
    _result(forward, switches=lambda: switched("mkldnn", False))
    assert seen == [(False, False)]
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.allow_tf32) == before == (True, True)


@pytest.mark.parametrize("missing", ["cases", "mutants"])
def test_a_contract_that_cannot_fail_is_refused(missing: str) -> None:
    nothing: Any = {missing: ()}
    with pytest.raises(ValueError, match=r"sample\.agrees.*fail"):
        replace(samples.agrees, **nothing)


def test_a_contract_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(samples.agrees)) is samples.agrees
    assert samples.agrees.topic == "sample"


def test_checks_share_a_case_before_they_go_on_and_ask_only_for_modes_that_are_offered() -> None:
    lstm = replace(CASE, layer=Layer(Mode.LSTM, 3, 4))
    contract = replace(samples.agrees, cases=(CASE, lstm))
    both = implementation(nn.GRU, "sample:both")
    gru = implementation(nn.GRU, "sample:gru", capabilities=Capabilities(modes=frozenset({Mode.GRU})))
    rnn = implementation(nn.RNN, "sample:rnn", capabilities=Capabilities(modes=frozenset({Mode.RNN_RELU})))
    away = implementation(nn.GRU, "sample:away", unavailable=lambda device: f"not on {device}")
    found = list(checks([contract], [both, gru, rnn, away], ["cpu", "cuda"]))
    assert [(c.implementation.id, c.case and (c.case.layer.mode.value, c.case.device)) for c in found] == [
        ("sample:both", ("gru", "cpu")),
        ("sample:gru", ("gru", "cpu")),
        ("sample:both", ("gru", "cuda")),
        ("sample:gru", ("gru", "cuda")),
        ("sample:both", ("lstm", "cpu")),
        ("sample:both", ("lstm", "cuda")),
        ("sample:rnn", None),
        ("sample:away", None),
    ]
    assert [(c.settled, c.reason) for c in found[-2:]] == [
        (Outcome.DOES_NOT_APPLY, "it is about gru, lstm"),
        (Outcome.UNAVAILABLE, "not on cpu; not on cuda"),
    ]
    assert [run(c).outcome for c in found[-2:]] == ["does-not-apply", "unavailable"]
    assert len({c.id for c in found}) == len(found)


def test_an_implementation_runs_only_where_it_is_available() -> None:
    only = implementation(nn.GRU, unavailable=lambda device: None if device == "cpu" else "not here")
    assert [c.case and c.case.device for c in checks([samples.agrees], [only], ["cpu", "cuda"])] == ["cpu"]


def test_the_plain_driver_checks_without_pytest() -> None:
    results = check(implementation(Doubled), [samples.agrees, samples.refuses_other_widths], on=["cpu"])
    assert [(r.contract, r.outcome) for r in results] == [("sample.agrees", "failed"), ("sample.refuses_other_widths", "passed")]
    assert devices()[0] == "cpu"
    assert check(implementation(nn.GRU), [samples.agrees])[0].outcome == "passed"


def _state_ignored(case: Case) -> dict[str, dict[str, Any]]:
    return {"state ignored": alternative(case, h0=0 * case.arrays.h0)}


def test_a_case_that_could_not_see_the_fault_is_blind() -> None:
    contract = replace(samples.agrees, alternatives=_state_ignored)
    assert blind_spots(contract, CASE) == []
    (sentence,) = blind_spots(contract, replace(CASE, given_state=False))
    assert sentence.startswith("sample.agrees on gru-I3-H4-T4-B2-nostate-float32: 'state ignored' moves the answer by 0 allowances")
    long = replace(CASE, steps=200)
    np.testing.assert_allclose(oracle.evaluate(long).h_n, alternative(long, h0=0 * long.arrays.h0)["h_n"], atol=1e-9)
    # The output of the first steps still sees it.
    assert blind_spots(contract, long) == []
    assert blind_spots(samples.agrees, CASE) == []


def test_a_wrong_answer_that_is_no_number_counts_as_blind() -> None:
    contract = replace(samples.agrees, alternatives=lambda case: {"nan": alternative(case, h0=case.arrays.h0 * np.nan)})
    assert len(blind_spots(contract, CASE)) == 1


def test_a_case_without_any_wrong_answer_is_no_case_that_can_see() -> None:
    contract = replace(samples.agrees, alternatives=lambda case: {})
    with pytest.raises(ValueError, match=f"Expected sample.agrees to have a wrong answer for {CASE.id}"):
        blind_spots(contract, CASE)


def test_a_contract_function_may_compare_nothing_only_by_raising() -> None:
    with pytest.raises(ValueError, match="at least one tensor"):
        Trial(implementation(nn.GRU), CASE).agree({}, answer(CASE), only=[])


def test_every_severity_and_outcome_says_what_it_means() -> None:
    assert all(value.meaning for value in (*Severity, *Outcome))


def test_an_answer_without_gradient_is_named() -> None:
    module = implementation(_giving(lambda output, h_n: (output.detach(), h_n)))

    def goes_back(trial: Trial) -> None:
        trial.gradients(("output", "h_n"))

    contract = replace(samples.agrees, check=goes_back)
    result = run(Check(contract, module, CASE))
    assert result.outcome == "failed" and "to flow back from output, but it does not require grad" in result.message


def test_a_contract_whose_optional_package_is_missing_is_unavailable_and_says_what_to_install() -> None:
    needy = replace(samples.agrees, needs=("json", "no_such_package_here"))
    found = check(implementation(nn.GRU), [needy], ["cpu"])
    assert [one.outcome for one in found] == ["unavailable"]
    assert found[0].message == "it needs no_such_package_here: python -m pip install no_such_package_here"
    assert check(implementation(nn.GRU), [replace(needy, needs=("json",))], ["cpu"])[0].outcome == "passed"


def test_what_takes_gibibytes_is_checked_only_by_those_who_ask_and_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    big = replace(samples.agrees, gibibytes=8)
    plain = implementation(nn.GRU)

    def told(large: bool) -> list[tuple[Outcome | None, str]]:
        return [(c.settled, c.reason) for c in checks([big], [plain], ["cpu"], large)]

    assert told(large=False) == [(Outcome.UNAVAILABLE, "it takes 8 GiB of memory: --large checks it")]
    for free, expected in (
        (7.5, [(Outcome.UNAVAILABLE, "it takes 8 GiB of memory, and 7.5 are free")]),
        (8, [(None, "")]),
        (None, [(None, "")]),
    ):
        monkeypatch.setattr(contracts, "available_memory", lambda free=free: None if free is None else int(free * (1 << 30)))
        assert told(large=True) == expected


def test_the_memory_that_is_free_is_told_in_bytes() -> None:
    free = environment.available_memory()
    assert free is None or (1 << 20) < free < (1 << 50)


@pytest.mark.parametrize(("dtype", "passes"), [("float32", True), ("float64", False)])
def test_what_passes_follows_from_the_case_that_the_oracle_was_asked_about(dtype: Any, passes: bool) -> None:
    # On a GPU more floors pass in float32 than in bfloat16: an answer that is float32 again after autocast is held to those.
    asked = Question(replace(CASE, device="cuda", dtype=dtype), None, {})
    expected = Expected({"output": np.ones((2, 1, 3))}, {"output": 1e-7}, question=asked)
    trial = Trial(implementation(nn.GRU), replace(CASE, device="cuda", dtype="bfloat16"), diagnose=False)
    found = {"output": np.ones((2, 1, 3)) + 30e-7}
    if passes:
        trial.agree(found, expected)
    else:
        with pytest.raises(Mismatch, match="30 floors, at most 4 pass"):
            trial.agree(found, expected)


def test_what_a_layers_file_has_numpy_raise_does_not_stop_the_arithmetic_of_a_contract() -> None:
    def rounds(trial: Trial) -> None:
        assert not np.square(np.full(1, 1e-200)).any()

    with np.errstate(all="raise"):
        assert _result(nn.GRU, replace(samples.agrees, check=rounds)).outcome == "passed"

"""A contract, the generator of what to check, and the check of one contract on one implementation and case."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness import oracle
from harness.blame import in_own_code
from harness.case import Array, Case
from harness.environment import available_memory
from harness.implementation import ExpectedFailure, Implementation
from harness.outcome import NOT_RUN, Outcome, Severity
from harness.record import Conformance, Mutation
from harness.reference import answer
from harness.reproduction import FORWARD, NO_SCRIPT, script
from harness.switches import equal_terms, make_dropout_state, undisturbed, unusable
from harness.tolerance import SIGNAL, allowance, signal
from harness.trial import ContractError, Mismatch, Trial, refused_by_torch


@dataclass(frozen=True)
class Contract:
    """Something that a drop-in owes.

    ``id`` is ``topic.property``, stable for ever. ``statement``: one sentence. ``source``: the documentation heading or the
    public issue that it comes from. ``check`` raises :class:`~harness.trial.ContractError` where it is broken. ``cases``: what it is
    checked on. ``mutants``: the ids of wrong implementations that this very contract rejects. ``alternatives`` maps a case to
    wrong answers, by name, that the case must be able to tell from the right one; see :func:`blind_spots`. ``needs_constructor``: it is
    about the class itself, and says nothing where an implementation has none. ``only_on``: the one device that it is about.
    ``needs``: packages without which it cannot be checked; they are optional. ``gibibytes``: the memory that a check takes; where it
    says some, it is checked only by those who ask for large ones. ``time_limit_factor``: by how much a check of it may take longer
    than the limit allows, because it does the work of many. ``demonstration``: what the reproduction of a failure does to a layer; see
    :mod:`harness.reproduction`.
    """

    id: str
    statement: str
    severity: Severity
    source: str
    check: Callable[[Trial], None]
    cases: tuple[Case, ...]
    mutants: tuple[str, ...]
    alternatives: Callable[[Case], Mapping[str, Mapping[str, Array]]] | None = None
    needs_constructor: bool = False
    only_on: str = ""
    needs: tuple[str, ...] = ()
    gibibytes: int = 0
    time_limit_factor: int = 1
    demonstration: str = FORWARD

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError(f"Expected at least one case for the contract {self.id}: without one it could not fail")
        if not self.mutants:
            raise ValueError(f"Expected at least one mutant for the contract {self.id}: without one nothing shows that it can fail")

    @property
    def topic(self) -> str:
        return self.id.partition(".")[0]

    def says_nothing_about(self, implementation: Implementation, on: Sequence[str]) -> str | None:
        """Why the contract does not concern ``implementation`` on the devices ``on``, or None where it does."""
        modes = {case.layer.mode for case in self.cases}
        if not modes & implementation.capabilities.modes:
            return f"it is about {', '.join(sorted(modes))}"
        if self.needs_constructor and implementation.constructor is None:
            return "it is about the constructor, and this implementation is not a class"
        if self.only_on and self.only_on not in on:
            return f"it is about {self.only_on}"
        return None

    def missing(self, large: bool = False) -> str:
        """What it needs and does not have here, as a sentence; empty where nothing is missing. ``large``: memory may be spent."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if absent:
            return f"it needs {' and '.join(absent)}: python -m pip install {' '.join(absent)}"
        if self.gibibytes and not large:
            return f"it takes {self.gibibytes} GiB of memory: --large checks it"
        free = available_memory()
        if self.gibibytes and free is not None and free < self.gibibytes << 30:
            return f"it takes {self.gibibytes} GiB of memory, and {free / (1 << 30):.1f} are free"
        return ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by name: the declaring decorator leaves the contract where its check function was defined.
        return _named, (self.check.__module__, self.check.__qualname__)


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def blind_spots(contract: Contract, case: Case, device: str = "") -> list[str]:
    """The wrong answers that ``case`` could not tell from the right one, each as a sentence; empty for a case fit for use.

    ``device``: with as much let pass as there, where that is not the case's own (:func:`harness.tolerance.allowance`).
    Raises ValueError where the contract has alternatives, but none for this case.
    """
    if contract.alternatives is None:
        return []
    expected = answer(case)
    found = []
    alternatives = contract.alternatives(case)
    if not alternatives:
        raise ValueError(f"Expected {contract.id} to have a wrong answer for {case.id}, or no alternatives at all, but there is none")
    for name, wrong in alternatives.items():
        strength = signal(expected.tensors, wrong, expected.floors, allowance(replace(case, device=device or case.device)))
        if not strength >= SIGNAL:
            found.append(
                f"{contract.id} on {case.id}: '{name}' moves the answer by {strength:.3g} allowances, expected at least {SIGNAL:g}"
            )
    return found


@dataclass(frozen=True)
class Check:
    """One thing to check. ``case`` is None where there is nothing to run: ``settled`` is then the outcome, and ``reason`` says why."""

    contract: Contract
    implementation: Implementation
    case: Case | None
    settled: Outcome | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        return f"{self.contract.id}-{self.implementation.id}-{self.case.id if self.case else self.settled}"


def devices() -> list[str]:
    """The devices of this machine, by torch's names."""
    return ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def checks(
    contracts: Iterable[Contract], implementations: Sequence[Implementation], on: Sequence[str], large: bool = False
) -> Iterator[Check]:
    """Every (contract, implementation, case) that has a meaning, on the devices ``on``; the order shares what cases share.

    An implementation is asked only for the modes that it offers. Each contract gives at least one check for each implementation:
    that it cannot run on any of the devices, or that the contract says nothing about its modes, is seen and not missing. ``large``: also
    those that take gibibytes of memory.
    """
    unavailable = {i.id: {device: i.unavailable(device) for device in on} for i in implementations}
    for contract in contracts:
        concerned = {i.id: contract.says_nothing_about(i, on) for i in implementations}
        missing = contract.missing(large)
        for case in () if missing else contract.cases:
            for device in on:
                for implementation in implementations:
                    silent = concerned[implementation.id] or contract.only_on not in ("", device)
                    if silent or unavailable[implementation.id][device] is not None:
                        continue
                    if case.layer.mode in implementation.capabilities.modes:
                        yield Check(contract, implementation, replace(case, device=device))
        for implementation in implementations:
            why = [unavailable[implementation.id][device] for device in on if contract.only_on in ("", device)]
            if reason := concerned[implementation.id]:
                yield Check(contract, implementation, None, Outcome.DOES_NOT_APPLY, reason)
            elif missing:
                yield Check(contract, implementation, None, Outcome.UNAVAILABLE, missing)
            elif all(why):
                yield Check(contract, implementation, None, Outcome.UNAVAILABLE, "; ".join(map(str, why)))


def run(check: Check, diagnose: bool = True) -> Conformance:
    """Runs one check in this process and says what came of it; raises only for faults of the suite itself.

    ``diagnose``: whether wrong values are searched for their cause, which takes longer than the check.
    """
    contract, implementation, case = check.contract, check.implementation, check.case
    if case is None:
        assert check.settled is not None
        return finding(check, check.settled, check.reason)
    if lost := unusable(case.device):
        return finding(check, Outcome.UNAVAILABLE, f"this process cannot use {case.device} any more: {lost}")
    make_dropout_state(case.device)
    trial = Trial(implementation, case, diagnose)
    started = time.perf_counter()
    error = _broken(contract, trial)
    known = implementation.expected_failure(contract.id, case)
    outcome, message = _outcome(error, trial.answered, implementation.capabilities.lacks(case), known)
    if lost := unusable(case.device):
        outcome, message = declared(check, Outcome.CRASHED, "\n".join(filter(None, (f"it left {case.device} unusable: {lost}", message))))
    # The trial's case: a search ends on another one than it began with.
    found = finding(replace(check, case=trial.case), outcome, message)
    return replace(
        # Where nothing but a declaration is false, a script has nothing to show.
        replace(found, reproduction="") if error is None and outcome is Outcome.FAILED else found,
        errors=[comparison.as_json() for comparison in trial.comparisons],
        kernels=trial.kernels,
        seconds=time.perf_counter() - started,
        hint=error.hint if isinstance(error, Mismatch) else "",
    )


#: What a check may end with that says something about the implementation; anything else is a fault of the suite, unless the
#: implementation's own code raised it, or torch where it refuses in its place.
_TELLING = (ContractError, NotImplementedError, MemoryError, torch.OutOfMemoryError)


def _broken(contract: Contract, trial: Trial) -> BaseException | None:
    """What kept the implementation of ``trial`` from keeping ``contract``, or None where it kept it."""
    try:
        with undisturbed(), equal_terms(), trial.implementation.switches(), warnings.catch_warnings():
            # A warning is for the user of the layer to read; it breaks no contract, whatever pytest makes of warnings here.
            warnings.simplefilter("ignore")
            # NumPy's own defaults: what the layer's file demands of its arithmetic is nothing to the oracle's.
            with np.errstate(all="warn", under="ignore"):
                contract.check(trial)
    except _TELLING as error:
        return error
    except (Exception, SystemExit) as error:
        # Anything that is asked of a module may be the implementation's own, as state_dict() or zero_grad().
        own = in_own_code(error, trial.implementation, suite=inspect.getfile(contract.check))
        if own is None and not refused_by_torch(error):
            raise
        try:
            with trial.blamed("what was asked of it" if own is None else f"{own.tb_frame.f_code.co_name}()"):
                raise error.with_traceback(own)
        except _TELLING as blamed:
            return blamed
    return None


def _outcome(error: BaseException | None, answered: bool, lacks: str | None, known: ExpectedFailure | None) -> tuple[Outcome, str]:
    """What a check comes to, and why.

    ``error``: what it ended with. ``answered``: whether the implementation gave any answer. ``lacks``: what it declares not to have.
    ``known``: the failure that it declares.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return _held_against(known, Outcome.OUT_OF_MEMORY, str(error), error)
    refused = isinstance(error, NotImplementedError)
    if lacks is not None:
        if error is None and answered:
            return Outcome.FAILED, f"{lacks}, but it answered, and rightly: the declaration is false"
        if error is None or refused:
            # No error and no answer is a contract about errors: whoever refuses everything refuses that too.
            return Outcome.UNSUPPORTED, lacks
        if error.__cause__ is not None:
            return Outcome.UNSUPPORTED, f"{lacks}; it {error}"
    if known is not None and error is None:
        remedy = "remove the declaration, or say in its `when` on which cases it fails"
        return Outcome.FAILED, f"Expected to fail ({known.reason}) but passed: {remedy}"
    if error is None:
        return Outcome.PASSED, ""
    cause, said = (error, f"NotImplementedError: {error}") if refused else (error.__cause__ or error, str(error))
    if known is None and refused:
        return Outcome.UNSUPPORTED, said
    return _held_against(known, Outcome.FAILED, said, cause)


def _held_against(known: ExpectedFailure | None, outcome: Outcome, message: str, cause: BaseException | None) -> tuple[Outcome, str]:
    """What a failure comes to, and why, where ``known`` is declared: an expected failure if it is this one."""
    if known is None:
        return outcome, message
    if known.is_met_by(outcome, cause):
        return Outcome.EXPECTED_FAILURE, f"{known.reason} ({', '.join(filter(None, (known.kind, known.link)))})"
    return outcome, f"Expected to fail with {known.how} ({known.reason}) but failed otherwise: {message}"


def declared(check: Check, outcome: Outcome, message: str) -> tuple[Outcome, str]:
    """What a process that ended in ``check``, or did not answer, comes to: an expected failure where the implementation declares it."""
    known = None if check.case is None else check.implementation.expected_failure(check.contract.id, check.case)
    return _held_against(known, outcome, message, None)


def has_crashed(check: Check, found: Conformance) -> bool:
    """Whether ``found``, of ``check``, is a crash, be it one that is declared: the process that ran it is of no more use."""
    expected = found.outcome == Outcome.EXPECTED_FAILURE and declared(check, Outcome.CRASHED, "")[0] is Outcome.EXPECTED_FAILURE
    return expected or found.outcome == Outcome.CRASHED


def finding(check: Check, outcome: Outcome, message: str) -> Conformance:
    """The record of ``check`` with this outcome and nothing measured."""
    case = check.case
    parameters = {} if case is None else {**vars(case.layer), **{k: v for k, v in vars(case).items() if k != "layer"}}
    shown = outcome in (Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT) and not message.startswith(NOT_RUN)
    return Conformance(
        contract=check.contract.id,
        implementation=check.implementation.id,
        case="" if case is None else case.id,
        outcome=outcome.value,
        severity=check.contract.severity.value,
        mode="" if case is None else case.layer.mode.value,
        device="" if case is None else case.device,
        dtype="" if case is None else case.dtype,
        message=message,
        parameters=parameters,
        reproduction=(reproduction(check) or NO_SCRIPT) if shown else "",
    )


def reproduction(check: Check) -> str:
    """A script that shows what ``check`` found; empty where there is none."""
    if check.case is None:
        return ""
    title = f"{check.contract.id}: {check.contract.statement}"
    return script(check.implementation, check.case, check.contract.demonstration, title)


def check(implementation: Implementation, contracts: Iterable[Contract], on: Sequence[str] | None = None) -> list[Conformance]:
    """Checks ``implementation`` against ``contracts`` without pytest; one record for each check, in order."""
    return [run(one) for one in checks(contracts, [implementation], on or devices())]


@dataclass(frozen=True)
class Proof:
    """What came of proving a contract on a mutant, and the first check that rejected it with what was found there; None: it survived."""

    mutation: Mutation
    rejection: tuple[Check, Conformance] | None


def prove(contract: Contract, mutant: Implementation, on: Sequence[str]) -> Proof:
    """Whether ``contract`` rejects ``mutant``: in each mode it is run until the first case that does."""
    modes: dict[str, str] = {}
    rejection, started = None, time.perf_counter()
    for check in checks([contract], [mutant], on, large=True):
        mode = check.case.layer.mode.value if check.case else ""
        if check.case is None or modes.get(mode) == "killed":
            continue
        result = run(check, diagnose=rejection is None)
        modes[mode] = "killed" if result.outcome == Outcome.FAILED else "survived"
        if result.outcome == Outcome.FAILED:
            rejection = rejection or (check, result)
    first = rejection[1] if rejection else None
    survived = f"{mutant.id} ({mutant.description}) passed {contract.id} on every case: it survived"
    mutation = Mutation(
        contract=contract.id,
        mutant=mutant.id,
        outcome=(Outcome.PASSED if first else Outcome.FAILED).value,
        description=mutant.description,
        modes=modes,
        case=first.case if first else "",
        message=first.message if first else survived,
        seconds=time.perf_counter() - started,
    )
    return Proof(mutation, rejection)


def alternative(case: Case, **changes: Any) -> dict[str, Array]:
    """The oracle's answer to ``case`` with some inputs replaced: a wrong answer, for :attr:`Contract.alternatives`."""
    return oracle.evaluate(case, **changes).tensors()

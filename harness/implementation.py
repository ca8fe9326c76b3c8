"""An implementation under test: how to build it, what it declares, under which switches it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from harness.case import EPS, Case, stored
from harness.layer import Layer, Mode
from harness.outcome import Outcome

#: Those that a tensor can have, of what a case can.
_DTYPES = tuple(dict.fromkeys(map(stored, EPS)))


@dataclass(frozen=True)
class Capabilities:
    """What an implementation declares that it can do. What is declared away is *unsupported*, and must then refuse."""

    #: The recurrences that it offers.
    modes: frozenset[Mode] = frozenset(Mode)
    #: The floating-point types that its parameters and inputs can have.
    dtypes: frozenset[str] = frozenset(_DTYPES)
    #: Whether more than one layer can be stacked.
    layers: bool = True
    #: Whether it can run in both directions.
    bidirectional: bool = True
    #: Whether it can go without biases.
    no_bias: bool = True
    #: Whether it takes the batch axis first.
    batch_first: bool = True
    #: Whether an LSTM can project its output (proj_size).
    projection: bool = True
    #: Whether it takes packed sequences.
    packed: bool = True
    #: Whether it takes input without a batch axis.
    unbatched: bool = True

    def __post_init__(self) -> None:
        # What is misspelt would be declared away, and nothing be checked.
        for name, given, known in (("modes", self.modes, tuple(Mode)), ("dtypes", self.dtypes, _DTYPES)):
            if not isinstance(given, (frozenset, set)) or not given or not given <= set(known):
                raise ValueError(f"Expected {name} to be a set of at least one of {', '.join(known)} but got {name}={given!r}")

    def lacks(self, case: Case) -> str | None:
        """Why ``case`` asks for something that is declared away, in words, or None if it does not."""
        layer = case.layer
        asked = {
            f"mode {layer.mode}": layer.mode in self.modes,
            f"dtype {case.dtype}": stored(case.dtype) in self.dtypes,
            "several layers": self.layers or layer.num_layers == 1,
            "bidirectional": self.bidirectional or not layer.bidirectional,
            "bias=False": self.no_bias or layer.bias,
            "batch_first": self.batch_first or not layer.batch_first,
            "proj_size": self.projection or not layer.proj_size,
            "packed sequences": self.packed or case.lengths is None,
            "unbatched input": self.unbatched or case.batched,
        }
        missing = [what for what, offered in asked.items() if not offered]
        return f"declared as not supported: {', '.join(missing)}" if missing else None


#: The outcomes of which a process that ended, or never answered, leaves no exception to declare; and want of memory, which may do either.
_WITHOUT_EXCEPTION = (Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)


@dataclass(frozen=True)
class ExpectedFailure:
    """A failure that is known, with its reason. It is strict: another exception, another outcome, or a pass, fails the run.

    ``exception``: the type of what is raised, or, where nothing is, the outcome: crashed, timed out or out of memory. ``when`` narrows it
    to some cases. ``kind``: *ours* is a fault of the adapter here, *upstream* one of the implementation, *by design* what it never meant
    to do. ``link`` is a public record of it.
    """

    contract: str
    kind: Literal["ours", "upstream", "by design"]
    reason: str
    exception: type[BaseException] | Outcome
    link: str
    when: Callable[[Case], bool] = field(default=lambda case: True)

    def __post_init__(self) -> None:
        given = self.exception
        if not (
            given in _WITHOUT_EXCEPTION if isinstance(given, Outcome) else isinstance(given, type) and issubclass(given, BaseException)
        ):
            outcomes = ", ".join(f"Outcome.{outcome.name}" for outcome in _WITHOUT_EXCEPTION)
            raise ValueError(f"Expected a type of exception, or one of {outcomes}, for {self.contract} but got exception={given!r}")

    @property
    def how(self) -> str:
        """How it is declared to fail, in a word: by the name of the exception or of the outcome."""
        return self.exception.value if isinstance(self.exception, Outcome) else self.exception.__name__

    def is_met_by(self, outcome: Outcome, cause: BaseException | None) -> bool:
        """Whether it is this failure that ended as ``outcome``, with ``cause`` where an exception was raised."""
        return outcome is self.exception if isinstance(self.exception, Outcome) else isinstance(cause, self.exception)


def _always_available(device: str) -> str | None:
    return None


@dataclass(frozen=True)
class _Reason:
    """Why an implementation cannot run on a device, by asking it: where that raises, by what it raised."""

    ask: Callable[[str], str | None]

    def __call__(self, device: str) -> str | None:
        try:
            return self.ask(device)
        except Exception as error:  # whatever it is, it is somebody else's code
            return f"asked whether it can run on {device}, it raised {type(error).__name__}: {error}"


def _promises_nothing(case: Case) -> str | None:
    return None


@dataclass(frozen=True)
class Implementation:
    """Something that claims to be nn.RNN, nn.GRU or nn.LSTM.

    ``build(layer)`` returns a module on the CPU, in the default dtype, with nn's call and nn's parameter names.
    ``switches()`` is a context manager within which every call and every backward pass of it happens.
    ``unavailable(device)`` says in words why it cannot run on a device of this machine, or None where it can.
    ``promised_kernel(case)`` is a part of the name of the kernel that must run on a case, ``forbidden_kernel`` of one that must never:
    for rows that are named after a switch. ``reference`` is how it was named on the command line, and how another process finds it.
    ``long_to_check`` says why checking it takes so long that this is done only where it is named; empty where it always is.
    ``imported_from``: where what is called as nn's class is can be imported, as ``package.module:Name`` or ``path/to/file.py:Name``; empty
    where it cannot, or where there is none. :mod:`harness.registry` says it of what it wraps.
    ``constructor(mode)`` is the class itself, to be called as nn's is; None where there is none, and nothing is then asked of it.
    """

    id: str
    description: str
    build: Callable[[Layer], nn.Module]
    capabilities: Capabilities = Capabilities()
    expected_failures: tuple[ExpectedFailure, ...] = ()
    switches: Callable[[], AbstractContextManager[Any]] = nullcontext
    unavailable: Callable[[str], str | None] = _always_available
    promised_kernel: Callable[[Case], str | None] = _promises_nothing
    forbidden_kernel: str = ""
    reference: str = ""
    long_to_check: str = ""
    constructor: Callable[[Mode], Callable[..., nn.Module]] | None = None
    imported_from: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.unavailable, _Reason):
            object.__setattr__(self, "unavailable", _Reason(self.unavailable))

    def expected_failure(self, contract: str, case: Case) -> ExpectedFailure | None:
        """The declared failure of ``contract`` on ``case``, if there is one."""
        return next((e for e in self.expected_failures if e.contract == contract and e.when(case)), None)

"""What a contract holds in its hands: one implementation on one case, its inputs, its answers, and the comparison."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import harness
from harness.case import Array, Case, stored
from harness.diagnosis import hint
from harness.implementation import Implementation
from harness.layer import Layer
from harness.reference import Expected, tensor, to_array
from harness.tolerance import Comparison, allowance, compare, explain


class ContractError(AssertionError):
    """A contract is broken."""


class Mismatch(ContractError):
    """Values are not close to the oracle's. ``hint``: the likely cause, with which the message ends; empty where none is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__("\n".join([message, *([f"  hint: {hint}"] if hint else [])]))
        self.hint = hint


class Raised(ContractError):
    """The implementation raised where it should have answered; the exception is the cause."""


#: What torch says where it is torch that refuses: it has no code for a dtype, on the way to NumPy or in its kernels; a scripted layer that
#: takes a Tensor cannot take a pack, or have hooks. These come as a TypeError or a RuntimeError.
_REFUSED_BY_TORCH = re.compile(
    r"Got unsupported ScalarType|not implemented for '(Half|BFloat16|Float|Double)'"
    r"|instead found type 'PackedSequence|is not supported on ScriptModules"
)

#: What TorchScript makes of a NotImplementedError that is raised in it.
_REFUSED_IN_SCRIPT = re.compile(r"^(?:builtins\.)?NotImplementedError: (.*)", re.MULTILINE | re.DOTALL)

#: Colours and the like, which some messages of torch have.
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Answer:
    """What an implementation gave back: ``raw`` as it came, and its tensors by name, time-major, batched and padded."""

    raw: Any
    tensors: dict[str, Tensor]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors as float64 arrays, by name: output, h_n, and c_n for an LSTM."""
        return {name: to_array(value) for name, value in self.tensors.items()}


class Trial:
    """One implementation on one case. A contract function takes a trial, and raises :class:`ContractError` or returns."""

    def __init__(self, implementation: Implementation, case: Case, diagnose: bool = True) -> None:
        self.implementation = implementation
        self.case = case
        self.comparisons: list[Comparison] = []
        self.kernels: list[str] = []
        #: Whether a mismatch is searched for its cause: the first one of a trial is.
        self._diagnose = diagnose
        #: Whether the implementation gave any answer that could be one.
        self.answered = False

    # What the implementation is asked for.

    def module(self, layer: Layer | None = None, weights: Mapping[str, Array] | None = None) -> nn.Module:
        """A module of ``layer`` (the case's) with ``weights`` (the case's), in the case's dtype on its device."""
        layer = layer or self.case.layer
        weights = self.case.arrays.weights if weights is None else weights
        with self.blamed(f"building {layer.expression()}"):
            module = self.implementation.build(layer)
            module = module.to(device=self.case.device, dtype=getattr(torch, stored(self.case.dtype)))
        with self.blamed(f"load_state_dict with the parameters of nn.{layer.expression()}"):
            module.load_state_dict({name: tensor(value, self.case) for name, value in weights.items()})
        return module

    def leaves(self, requires_grad: bool = False, case: Case | None = None) -> dict[str, Tensor]:
        """x (T, B, I), h0 (L*D, B, H_out) and, for an LSTM, c0 (L*D, B, H) of the case, as fresh leaf tensors."""
        case = case or self.case
        return {name: tensor(array, case).requires_grad_(requires_grad) for name, array in case.arrays.inputs().items()}

    def form(self, leaves: Mapping[str, Tensor], case: Case | None = None) -> tuple[Any, Any]:
        """(input, hx) as the case's form has it: batch first, without batch axis, packed, without hx."""
        case = case or self.case
        x: Any = leaves["x"]
        states = [leaves[name] for name in ("h0", "c0") if name in leaves]
        if case.lengths is not None:
            x = pack_padded_sequence(x, torch.tensor(case.lengths), enforce_sorted=case.enforce_sorted)
        elif not case.batched:
            x, states = x[:, 0], [state[:, 0] for state in states]
        elif case.layer.batch_first:
            x = x.transpose(0, 1).contiguous()
        return x, (None if not case.given_state else tuple(states) if case.layer.has_cell_state else states[0])

    def call(self, module: nn.Module, input: Any, hx: Any, case: Case | None = None) -> Answer:
        """``module(input, hx)``, or ``module(input)`` where hx is None, checked for structure and brought to one form."""
        case = case or self.case
        with self.blamed("calling it"):
            raw = module(input) if hx is None else module(input, hx)
        return self.structured(raw, input, case)

    def structured(self, raw: Any, input: Any, case: Case | None = None) -> Answer:
        """``raw`` as the answer to ``input``; raises :class:`ContractError` on a wrong structure or shape."""
        answer = Answer(raw, canonical(raw, input, case or self.case))
        self.answered = True
        return answer

    def answer(self, module: nn.Module | None = None, leaves: Mapping[str, Tensor] | None = None) -> Answer:
        """The answer to the case's own inputs, without gradients."""
        with torch.no_grad():
            return self.call(module or self.module(), *self.form(leaves or self.leaves()))

    def backward(self, answer: Answer, through: Sequence[str], retain_graph: bool = False) -> None:
        """Goes back from the tensors of ``answer`` named in ``through``, with the case's cotangents."""
        outputs = [answer.tensors[name] for name in through]
        detached = [name for name, value in zip(through, outputs, strict=True) if not value.requires_grad]
        if detached:
            raise ContractError(f"Expected a gradient to flow back from {', '.join(detached)}, but it does not require grad")
        cotangents = [tensor(self.case.arrays.cotangents[name], self.case) for name in through]
        with self.blamed("backward"):
            torch.autograd.backward(outputs, cotangents, retain_graph=retain_graph)

    def gradients(
        self, through: Sequence[str], module: nn.Module | None = None, expected: Expected | None = None
    ) -> dict[str, NDArray[Any]]:
        """The gradients of x, of h0 and c0 where the case gives them, and of every weight, from the case's cotangents of the tensors in
        ``through``.

        They come the way users have them: ``backward()``, then ``.grad`` of the leaves and of the module's parameters. The answer that
        they are of is held against the one that ``expected`` has: with gradients recorded it may come another way than without.
        """
        module = module or self.module()
        leaves = self.leaves(requires_grad=True)
        reply = self.call(module, *self.form(leaves))
        if expected is not None and expected.forward is not None:
            self.agree(reply.arrays(), expected.forward)
        self.backward(reply, through)
        return self.collect(self.wanted(leaves, module))

    def wanted(self, leaves: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        """What a gradient arrives at, by name: those of ``leaves`` that the case gives, and the parameters of ``module``."""
        given = leaves if self.case.given_state else {"x": leaves["x"]}
        return {**given, **self.parameters(module)}

    def parameters(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's parameters under nn's names."""
        named = dict(module.named_parameters())
        missing = [name for name in self.case.layer.parameter_shapes() if name not in named]
        if missing:
            raise ContractError(f"Expected named_parameters() to have {', '.join(missing)} but it has {', '.join(named) or 'none'}")
        return {name: named[name] for name in self.case.layer.parameter_shapes()}

    def collect(self, leaves: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """The gradients that arrived at ``leaves``, as arrays."""
        missing = [name for name, leaf in leaves.items() if leaf.grad is None]
        if missing:
            raise ContractError(f"Expected a gradient of {', '.join(missing)} but backward left it None")
        return {name: to_array(leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None}

    # What the answers are held against.

    def agree(self, actual: Mapping[str, NDArray[Any]], expected: Expected, only: Sequence[str] | None = None) -> None:
        """Raises :class:`Mismatch` unless every tensor in ``only`` (all that are expected) is close to what is expected.

        The first mismatch of a trial is searched for its cause (:func:`harness.diagnosis.hint`), which costs up to a hundred oracle runs.
        """
        names = list(only) if only is not None else list(expected.tensors)
        if not names:
            raise ValueError("Expected at least one tensor to compare")
        # Some expect an answer in another dtype than their case's: what comes after autocast is float32 again.
        allowed = allowance(self.case if expected.question is None else expected.question.case)
        messages = []
        for name in names:
            right = expected.tensors[name]
            if actual[name].shape != right.shape:
                messages.append(f"{name}: Expected the shape {tuple(right.shape)} but got {tuple(actual[name].shape)}")
                continue
            comparison = compare(name, actual[name], right, expected.floors[name], allowed)
            self.comparisons.append(comparison)
            if not comparison.close:
                messages.append(explain(comparison, actual[name], right, self.case.layer))
        if messages:
            likely = hint(actual, expected, names) if self._diagnose else ""
            self._diagnose = False
            raise Mismatch("\n".join(messages), likely)

    def refuses(self, what: str, module: nn.Module, input: Any, hx: Any) -> None:
        """Raises :class:`ContractError` unless ``module(input, hx)`` raises an exception that says why, in every mode.

        A check that is part of one path alone is missing on the others: with gradients, without, in eval mode.
        """
        training = module.training
        try:
            for grad, train, how in (
                (False, training, "without gradients"),
                (True, True, "with gradients"),
                (False, False, "in eval mode"),
            ):
                with self.blamed(f"train({train})"):
                    module.train(train)
                try:
                    with torch.set_grad_enabled(grad):
                        raw = module(input) if hx is None else module(input, hx)
                except Exception as error:  # any exception is a refusal; which one is up to the implementation
                    # An assertion has its words in the condition, which the traceback shows.
                    if not said(error).strip() and not isinstance(error, AssertionError):
                        kind = type(error).__name__
                        raise ContractError(f"Expected a message when given {what}, but {kind} came without one") from error
                else:
                    raise ContractError(f"Expected an error when given {what}, but it answered {how} with {_shape_of(raw)}")
        finally:
            module.train(training)

    @contextmanager
    def blamed(self, action: str) -> Iterator[None]:
        """What is raised inside is the implementation's doing. NotImplementedError and want of memory stay as they are.

        What torch itself refuses is a NotImplementedError, whichever exception it comes as.
        """
        try:
            yield
        except (NotImplementedError, ContractError, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:  # an implementation may raise anything
            if lacks_memory(error):
                raise MemoryError(said(error)) from error
            if isinstance(error, torch.jit.Error) and (refusal := _REFUSED_IN_SCRIPT.search(str(error))):
                raise NotImplementedError(refusal[1].strip()) from error
            if refused_by_torch(error):
                raise NotImplementedError(f"{action} raised {type(error).__name__}: {said(error)}") from error
            first = error.__context__
            after = ""
            if first is not None and not error.__suppress_context__:
                after = f"\n  raised while handling {type(first).__name__}: {(said(first).splitlines() or [''])[0]}"
            raise Raised(f"{action} raised {type(error).__name__}: {said(error)}{after}{_frames(error)}") from error


@contextmanager
def may_refuse(what: str) -> Iterator[None]:
    """For a capability: whatever is raised inside is a refusal and becomes NotImplementedError.

    An answer that breaks the contract stays a :class:`ContractError`, and want of memory, which is no refusal, a MemoryError.
    """
    try:
        yield
    except ContractError as error:
        if not isinstance(error, Raised):
            raise
        raise NotImplementedError(f"{what}: {error}") from error
    except Exception as error:  # which exception a refusal is, is up to the implementation
        if lacks_memory(error):
            raise MemoryError(said(error)) from error
        raise NotImplementedError(f"{what}: {said(error)}") from error


@contextmanager
def where(place: str) -> Iterator[None]:
    """A contract that is found broken inside is broken at ``place``: its message begins with that."""
    try:
        yield
    except ContractError as error:
        error.args = (f"{place}: {error}",)
        raise


def lacks_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was not enough memory; on a CPU torch says so with a RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in said(error)


def refused_by_torch(error: BaseException) -> bool:
    """Whether ``error`` says that torch refuses what was asked of the layer."""
    return _REFUSED_BY_TORCH.search(said(error)) is not None


def said(error: BaseException) -> str:
    """The message of an exception, even of one that cannot say it; TorchScript's with what happened before where it did."""
    try:
        message = _ESCAPES.sub("", str(error))
    except Exception as worse:  # somebody's __str__
        return f"(its message cannot be read: {type(worse).__name__})"
    if "Traceback of TorchScript" not in message:
        return message
    *_, last = message.rstrip().splitlines()
    return f"{last}\n{message}"


def canonical(raw: Any, input: Any, case: Case) -> dict[str, Tensor]:
    """The tensors of an answer by name, time-major, batched and padded. Raises :class:`ContractError` on a wrong structure or shape."""
    layer = case.layer
    if not isinstance(raw, tuple) or len(raw) != 2:
        raise ContractError(f"Expected the pair (output, {'(h_n, c_n)' if layer.has_cell_state else 'h_n'}) but got {_shape_of(raw)}")
    output, state = raw
    if layer.has_cell_state and (not isinstance(state, tuple) or len(state) != 2):
        raise ContractError(f"Expected the state of an LSTM to be the pair (h_n, c_n) but got {_shape_of(state)}")
    states = dict(zip(("h_n", "c_n"), state if layer.has_cell_state else (state,), strict=False))
    expected = {"h_n": layer.h_shape(case.batch), "c_n": layer.c_shape(case.batch)}
    for name, value in states.items():
        shape = expected[name] if case.batched else (expected[name][0], expected[name][2])
        _require_tensor(name, value, shape)
    if case.lengths is not None:
        if not isinstance(output, PackedSequence):
            raise ContractError(f"Expected a PackedSequence for a packed input but got {_shape_of(output)}")
        _require_tensor("output.data", output.data, (sum(case.lengths), layer.output_size))
        # Unpacked by the input's own order, so that wrong metadata is one fault and not two.
        like_input = PackedSequence(output.data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        output, _ = pad_packed_sequence(like_input, total_length=case.steps)
    elif not case.batched:
        _require_tensor("output", output, (case.steps, layer.output_size))
        output, states = output.unsqueeze(1), {name: value.unsqueeze(1) for name, value in states.items()}
    else:
        lead = (case.batch, case.steps) if layer.batch_first else (case.steps, case.batch)
        _require_tensor("output", output, (*lead, layer.output_size))
        output = output.transpose(0, 1) if layer.batch_first else output
    return {"output": output, **states}


def _require_tensor(name: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor):
        raise ContractError(f"Expected {name} to be a tensor but got {_shape_of(value)}")
    if tuple(value.shape) != shape:
        raise ContractError(f"Expected {name} of shape {shape} but got {tuple(value.shape)}")
    # What else could not be compared: the meta device has no values, and a conversion would drop an imaginary part.
    if value.is_meta or value.layout is not torch.strided or not value.is_floating_point():
        raise ContractError(f"Expected {name} to hold floating-point values but got {value.dtype}, {value.layout} on {value.device}")


def _shape_of(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, PackedSequence):
        return f"a PackedSequence with data of shape {tuple(value.data.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}: " + ", ".join(_shape_of(item) for item in value[:4])
    return f"{type(value).__name__}"


#: Where the code is that an error passes through on its way and that is not the implementation's.
_HARNESS, _TORCH = (str(Path(file).parent) + os.sep for file in (harness.__file__, torch.__file__))


def _frames(error: BaseException) -> str:
    """Where in the implementation it happened: the last frames of its own code, or of torch's where none is its own."""
    # The first two are blamed() and the place that has it.
    frames = [f for f in traceback.extract_tb(error.__traceback__)[2:] if not f.filename.startswith(_HARNESS) or "adapters" in f.filename]
    own = [f for f in frames if not f.filename.startswith(_TORCH)]
    return "".join(f"\n  at {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in (own or frames)[-2:])

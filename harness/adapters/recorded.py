"""A call recorded as a CUDA graph, forward and backward, to be replayed.

A recording owns the memory of its inputs and outputs and reads the weights where they lie. What replays it: :mod:`harness.adapters.graph`.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

#: Calls before one is recorded, in which libraries set themselves up and choose their algorithms (as torch.cuda.make_graphed_callables).
_WARM_UP_CALLS = 3

#: Where graphs are replayed.
DEVICE = "cuda"


class Recorder(Protocol):
    """What can record and replay work: CUDA, and what stands in for it in tests."""

    def warm_up(self, run: Callable[[], Any]) -> None:
        """Runs it a few times as it will be recorded."""

    def record(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What ``run`` returned, and a call that does its work once more on the same memory."""

    def in_order(self) -> AbstractContextManager[None]:
        """What is started within comes after all that was started so before, on whatever stream."""


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory, on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._done: torch.cuda.Event | None = None

    def warm_up(self, run: Callable[[], Any]) -> None:
        own, side = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        side.wait_stream(own)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                run()
        own.wait_stream(side)

    def record(self, run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate memory meanwhile.
        with _uncollected(), torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            answer = run()
        return answer, graph.replay

    @contextmanager
    def in_order(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            if self._done is None:
                self._done = torch.cuda.Event()
            else:
                stream.wait_event(self._done)
            yield
            self._done.record(stream)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps Python's garbage collector off: a graph that it finds among the garbage is released, which ends what is being recorded."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


#: What recordings are made with.
recorder: Callable[[torch.device], Recorder] = CudaRecorder

#: A recording has one set of inputs and outputs, and CUDA records one graph at a time: one thread after the other.
LOCK = threading.RLock()


class Recording:
    """A call in one form, recorded: forward, and backward where something wants a gradient.

    ``run`` is the call on tensors in the place of ``given`` and ``weights``, of which the former are copied into the recording at each
    replay and the latter are read where they lie. ``outputs`` of the recording are one flat list. ``wanted`` says of each of ``given`` and
    ``weights`` whether it gets a gradient; none does where no gradients are recorded.
    """

    def __init__(self, run: Callable[[Sequence[Tensor]], Any], given: Sequence[Tensor], weights: Sequence[Tensor], grad: bool) -> None:
        self.places = places(weights)
        self._turn = 0
        self._refused: Exception | None = None
        self._backward: Callable[[], None] | None = None
        of_call = self._recorder = recorder(given[0].device)
        # Anomaly detection waits for each gradient to look at it, which a recording cannot. It looks at those that a replay gives.
        unwatched = torch.autograd.set_detect_anomaly(False)
        with torch.inference_mode(False), torch.set_grad_enabled(grad), unwatched, _without_autocast_cache():
            self._inputs = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in given]
            self._fill(self._inputs, given)
            for mine, theirs in zip(self._inputs, given, strict=True):
                mine.requires_grad_(grad and theirs.requires_grad)
            # Not the weights themselves: where they are part of another graph that is still there, their gradients are added up on the
            # stream of that, for which a recording cannot wait.
            stand_ins = [one.detach().requires_grad_(grad and one.requires_grad) for one in weights]
            # Their memory is held, so that nothing else can come to lie where a replay reads.
            tensors = self._read = [*self._inputs, *stand_ins]
            self.wanted = [one.requires_grad for one in tensors]
            leaves = [one for one in tensors if one.requires_grad]

            def forward() -> list[Tensor]:
                output, state = run(tensors)
                self.is_pair = isinstance(state, tuple)
                return [output, *state] if isinstance(state, tuple) else [output, state]

            of_call.warm_up(forward)
            if leaves:
                cotangents = [torch.zeros_like(output) for output in forward()]
                try:
                    of_call.warm_up(lambda: _gradients(forward(), leaves, cotangents))
                except RuntimeError as error:
                    # As cuDNN does of a layer in evaluation. Who never goes back is not to see it.
                    self._refused, leaves = error.with_traceback(None), []
            outputs, self._forward = of_call.record(forward)
            self.differentiable = [output.requires_grad for output in outputs]
            if leaves:
                self._cotangents = cotangents
                found, self._backward = of_call.record(lambda: _gradients(outputs, leaves, cotangents))
                left = iter(found)
                self._gradients = [next(left) if wanted else None for wanted in self.wanted]
            self._outputs = [output.detach() for output in outputs]

    @staticmethod
    @torch.no_grad()
    def _fill(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        for one, other in zip(mine, theirs, strict=True):
            one.copy_(other)

    def forward(self, given: Sequence[Tensor]) -> tuple[list[Tensor], int]:
        """The outputs, which are the caller's own, and the turn in which they were computed."""
        with LOCK, self._recorder.in_order():
            self._replay(given)
            with torch.no_grad():
                return [output.clone() for output in self._outputs], self._turn

    def backward(self, turn: int, given: Sequence[Tensor], cotangents: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
        """The gradients of what is ``needed`` among inputs and weights, of the call that was made in ``turn`` with ``given``."""
        if self._backward is None:
            assert self._refused is not None
            raise self._refused
        with LOCK, self._recorder.in_order():
            if turn != self._turn:
                self._replay(given)
            # What the forward pass left behind is used up: its memory may have served the backward pass.
            self._turn += 1
            self._fill(self._cotangents, cotangents)
            self._backward()
            pairs = zip(self._gradients, needed, strict=True)
            return [gradient.clone() if gradient is not None and asked else None for gradient, asked in pairs]

    def _replay(self, given: Sequence[Tensor]) -> None:
        self._fill(self._inputs, given)
        self._forward()
        self._turn += 1


def _gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
    pairs = [(output, cotangent) for output, cotangent in zip(outputs, cotangents, strict=True) if output.requires_grad]
    found: Sequence[Tensor | None] = torch.autograd.grad([o for o, _ in pairs], leaves, [c for _, c in pairs], allow_unused=True)
    return found


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Autocast as it is, but casts of weights are part of every call: one from the cache would be a weight of the past."""
    with torch.autocast(DEVICE, torch.get_autocast_dtype(DEVICE), torch.is_autocast_enabled(DEVICE), cache_enabled=False):
        yield


class Replayed(torch.autograd.Function):
    """One call as a node of autograd's graph: a recording, then the inputs and weights that it was made for."""

    @staticmethod
    def forward(context: Any, recording: Recording, inputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, context.turn = recording.forward(tensors[:inputs])
        context.recording, context.inputs = recording, inputs
        # The weights too: autograd then refuses to go back through one that was changed meanwhile.
        context.save_for_backward(*tensors)
        context.mark_non_differentiable(*(o for o, known in zip(outputs, recording.differentiable, strict=True) if not known))
        return tuple(outputs)

    @staticmethod
    def backward(context: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            # Not once_differentiable, which takes gradients for constants where the cotangents are.
            raise NotImplementedError("a CUDA graph replays one backward pass: it has no second derivative (create_graph=True)")
        given = context.saved_tensors[: context.inputs]
        found = context.recording.backward(context.turn, given, cotangents, context.needs_input_grad[2:])
        return None, None, *found


def places(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Where each of ``tensors`` lies, and how."""
    return tuple((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors)

"""torch's layers under cuDNN and the loops, recorded once as CUDA graphs and replayed.

A replay starts everything that was recorded with one launch, which is what a loop of short kernels waits for. It reads and writes the very
memory that was there when it was recorded (PyTorch's documentation, "CUDA semantics", CUDA Graphs). A drop-in owes more than that, so:

- What is given is copied into the recorded inputs, and what is answered is copied out of the recorded outputs: nothing that a caller holds
  is written again by the next call. The copies are part of a call, and of its time.
- There is a recording for each form of a call: shapes, dtypes, whether a state is given, what wants a gradient, the switches that choose
  kernels. Parameters are read where they lie, so one that is changed in place is used; one that is replaced is recorded anew. Weights
  that follow from others (parametrized, pruned, normed) are worked out by each call and copied in, as its input is.
- A backward pass follows from what its own forward pass left behind. Where another call came between, the forward pass is replayed first.

What cannot be recorded is refused with NotImplementedError, and never run in another way under this name: packed sequences, whose batch
sizes differ from call to call; dropout between layers; anything but CUDA; tensors that are traced or transformed; a second
derivative. Each further form of a call takes a recording, which costs some calls and memory of its own; a module keeps those
of the last :data:`KEPT` forms.
"""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from harness.adapters import loop, native
from harness.implementation import Capabilities, Implementation, switched
from harness.layer import Layer, Mode

#: Recordings that a module keeps, those that were used last.
KEPT = 16

#: Calls before one is recorded, in which libraries set themselves up and choose their algorithms (as torch.cuda.make_graphed_callables).
_WARM_UP_CALLS = 3

#: Where graphs are replayed.
_DEVICE = "cuda"


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
_recorder: Callable[[torch.device], Recorder] = CudaRecorder

#: A recording has one set of inputs and outputs, and CUDA records one graph at a time: one thread after the other.
_LOCK = threading.RLock()


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
        recorder = self._recorder = _recorder(given[0].device)
        with torch.inference_mode(False), torch.set_grad_enabled(grad), _without_autocast_cache():
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

            recorder.warm_up(forward)
            if leaves:
                cotangents = [torch.zeros_like(output) for output in forward()]
                try:
                    recorder.warm_up(lambda: _gradients(forward(), leaves, cotangents))
                except RuntimeError as error:
                    # As cuDNN does of a layer in evaluation. Who never goes back is not to see it.
                    self._refused, leaves = error.with_traceback(None), []
            outputs, self._forward = recorder.record(forward)
            self.differentiable = [output.requires_grad for output in outputs]
            if leaves:
                self._cotangents = cotangents
                found, self._backward = recorder.record(lambda: _gradients(outputs, leaves, cotangents))
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
        with _LOCK, self._recorder.in_order():
            self._replay(given)
            with torch.no_grad():
                return [output.clone() for output in self._outputs], self._turn

    def backward(self, turn: int, given: Sequence[Tensor], cotangents: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
        """The gradients of what is ``needed`` among inputs and weights, of the call that was made in ``turn`` with ``given``."""
        if self._backward is None:
            assert self._refused is not None
            raise self._refused
        with _LOCK, self._recorder.in_order():
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
    with torch.autocast(_DEVICE, torch.get_autocast_dtype(_DEVICE), torch.is_autocast_enabled(_DEVICE), cache_enabled=False):
        yield


class _Replayed(torch.autograd.Function):
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


#: The recordings of each module by form. Not in the module: its copies and pickles have none.
_RECORDINGS: WeakKeyDictionary[nn.Module, OrderedDict[Any, Recording]] = WeakKeyDictionary()


def recordings(module: nn.Module) -> int:
    """How many recordings ``module`` keeps."""
    return len(_RECORDINGS.get(module, ()))


class _Graphed(nn.RNNBase):
    """The forward pass that all share; subclasses also derive from the layer whose forward pass is recorded."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As the layer's, of which it is a replay. Raises NotImplementedError for what cannot be recorded."""
        if (
            torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
            or getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
        ):
            raise NotImplementedError("a CUDA graph is replayed and cannot be traced, exported or differentiated forward")
        given = [input, *(hx if isinstance(hx, (tuple, list)) else [] if hx is None else [hx])]
        if isinstance(input, PackedSequence):
            raise NotImplementedError("a CUDA graph has one batch size at every step: it takes no packed sequences")
        if not all(isinstance(one, Tensor) for one in given) or any(one.is_meta or not one.numel() for one in given):
            # Nothing to be recorded: an error that the layer finds the words for, or no work.
            return super().forward(input, hx)
        names, arguments, is_pair = self._flat_weights_names, len(given), isinstance(hx, (tuple, list))
        weights = [getattr(self, name) for name in names]
        dtype = weights[0].dtype
        if not all(name in self._parameters for name in names):
            # They follow from others, and are new ones at each call.
            given, weights = [*given, *weights], []
        self._refuse([*given, *weights])

        def run(tensors: Sequence[Tensor]) -> Any:
            state = None if hx is None else tuple(tensors[1:arguments]) if is_pair else tensors[1]
            return torch.func.functional_call(self._plain(dtype), dict(zip(names, tensors[arguments:], strict=True)), (tensors[0], state))

        grad = torch.is_grad_enabled() and any(one.requires_grad for one in (*given, *weights))
        with _LOCK:
            recording = self._recording(run, given, weights, grad, is_pair)
        outputs = _Replayed.apply(recording, len(given), *given, *weights) if grad else recording.forward(given)[0]
        return outputs[0], tuple(outputs[1:]) if recording.is_pair else outputs[1]

    def _plain(self, dtype: torch.dtype) -> nn.RNNBase:
        """The layer whose forward pass is recorded, in ``dtype`` and without weights of its own: they are given to each call."""
        classes = type(self).__mro__
        layer: Any = classes[classes.index(_Graphed) + 1]
        options = {"proj_size": self.proj_size} if self.proj_size else {}
        if isinstance(self, nn.RNN):
            options["nonlinearity"] = self.nonlinearity
        with _disable_current_modes():
            plain: Any = layer(
                self.input_size,
                self.hidden_size,
                num_layers=self.num_layers,
                bias=self.bias,
                batch_first=self.batch_first,
                dropout=self.dropout,
                bidirectional=self.bidirectional,
                **options,
                device="meta",
                dtype=dtype,
            )
        # It would lay the weights that it is given elsewhere, in memory that a replay cannot count on.
        plain.flatten_parameters = lambda: None
        return cast("nn.RNNBase", plain.train(self.training))

    def _refuse(self, tensors: Sequence[Tensor]) -> None:
        if self.dropout and self.training and self.num_layers > 1:
            raise NotImplementedError("a CUDA graph replays what it recorded: it takes no dropout between layers in training")
        for one in tensors:
            if type(one) not in (Tensor, nn.Parameter) or torch._C._functorch.is_functorch_wrapped_tensor(one):
                raise NotImplementedError(f"a CUDA graph reads plain tensors and no {type(one).__name__} that is transformed")
            if one.device.type != _DEVICE:
                raise NotImplementedError(f"a CUDA graph runs on {_DEVICE} and not on {one.device}")

    def _recording(
        self, run: Callable[[Sequence[Tensor]], Any], given: Sequence[Tensor], weights: Sequence[Tensor], grad: bool, pair: bool
    ) -> Recording:
        """The recording of this form of a call; it is made where there is none, or where a weight lies elsewhere now."""
        if _get_current_dispatch_mode() is not None:
            # Somebody looks at what is dispatched, which a replay does not show.
            return Recording(run, given, weights, grad)
        form = (
            tuple((t.shape, t.dtype, t.device, grad and t.requires_grad) for t in given),
            tuple(grad and t.requires_grad for t in weights),
            (pair, grad, self.training, *_switches()),
        )
        known = _RECORDINGS.setdefault(self, OrderedDict())
        recording = known.get(form)
        if recording is None or recording.places != places(weights):
            recording = Recording(run, given, weights, grad)
        known[form] = recording
        known.move_to_end(form)
        if len(known) > KEPT:
            known.popitem(last=False)
        return recording


def _switches() -> tuple[Any, ...]:
    """The settings that choose a kernel when it is recorded."""
    cudnn = torch.backends.cudnn
    return (
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled(_DEVICE),
        torch.get_autocast_dtype(_DEVICE),
    )


class GraphRNN(_Graphed, nn.RNN):
    """nn.RNN replayed as a CUDA graph."""


class GraphGRU(_Graphed, nn.GRU):
    """nn.GRU replayed as a CUDA graph."""


class GraphLSTM(_Graphed, nn.LSTM):
    """nn.LSTM replayed as a CUDA graph."""


class GraphLoopRNN(_Graphed, loop.LoopRNN):
    """nn.RNN as a textbook loop, replayed as a CUDA graph."""


class GraphLoopGRU(_Graphed, loop.LoopGRU):
    """nn.GRU as a textbook loop, replayed as a CUDA graph."""


class GraphLoopLSTM(_Graphed, loop.LoopLSTM):
    """nn.LSTM as a textbook loop, replayed as a CUDA graph."""


class GraphHoistedRNN(_Graphed, loop.HoistedRNN):
    """nn.RNN as a loop with the input product hoisted, replayed as a CUDA graph."""


class GraphHoistedGRU(_Graphed, loop.HoistedGRU):
    """nn.GRU as a loop with the input product hoisted, replayed as a CUDA graph."""


class GraphHoistedLSTM(_Graphed, loop.HoistedLSTM):
    """nn.LSTM as a loop with the input product hoisted, replayed as a CUDA graph."""


NATIVE: dict[str, type[nn.Module]] = {"RNN": GraphRNN, "GRU": GraphGRU, "LSTM": GraphLSTM}
TEXTBOOK: dict[str, type[nn.Module]] = {"RNN": GraphLoopRNN, "GRU": GraphLoopGRU, "LSTM": GraphLoopLSTM}
HOISTED: dict[str, type[nn.Module]] = {"RNN": GraphHoistedRNN, "GRU": GraphHoistedGRU, "LSTM": GraphHoistedLSTM}


@cache
def unavailable(device: str) -> str | None:
    """Why graphs cannot be replayed on ``device``; None where they can, which is tried on a small LSTM."""
    if torch.device(device).type != _DEVICE:
        return f"CUDA graphs do not run on {device}"
    if not torch.cuda.is_available():
        return "no CUDA device"
    module = loop.build(HOISTED, Layer(Mode.LSTM, 3, 4)).to(device)
    try:
        for _ in range(2):
            output, _ = module(torch.zeros(2, 1, 3, device=device))
            output.sum().backward()
    except Exception as error:  # whatever torch, the driver or the device has against it
        return f"recording a small LSTM raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


def _cudnn_unavailable(device: str) -> str | None:
    return unavailable(device) or native.unavailable("cudnn", True, device)


#: What cuDNN does not do when it is replayed either. The states that it is given then are contiguous copies.
_OF_CUDNN = tuple(
    known
    for known in native.OF_CUDNN
    if known.contract in ("execution.autocast", "values.beyond_65535_steps", "gradients.in_eval", "module.strided_weights")
)


def _implementation(id: str, description: str, classes: dict[str, type[nn.Module]]) -> Implementation:
    return replace(
        loop.implementation(id, f"{description}, recorded as a CUDA graph and replayed", classes),
        capabilities=Capabilities(packed=False),
        unavailable=unavailable,
    )


IMPLEMENTATIONS = (
    replace(
        _implementation("graph:cudnn", "torch.nn with cuDNN on", NATIVE),
        switches=partial(switched, "cudnn", True),
        unavailable=_cudnn_unavailable,
        promised_kernel=partial(native.promised, "cudnn"),
        expected_failures=_OF_CUDNN,
    ),
    _implementation("graph:textbook", "the textbook loop", TEXTBOOK),
    _implementation("graph:hoisted", "the hoisted loop", HOISTED),
)

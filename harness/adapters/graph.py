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

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from harness.adapters import loop, native, recorded
from harness.implementation import Capabilities, Implementation
from harness.layer import Layer, Mode
from harness.switches import switched

#: Recordings that a module keeps, those that were used last.
KEPT = 16

#: The recordings of each module by form. Not in the module: its copies and pickles have none.
_RECORDINGS: WeakKeyDictionary[nn.Module, OrderedDict[Any, recorded.Recording]] = WeakKeyDictionary()


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
        with recorded.LOCK:
            recording = self._recording(run, given, weights, grad, is_pair)
        outputs = recorded.Replayed.apply(recording, len(given), *given, *weights) if grad else recording.forward(given)[0]
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
            if one.device.type != recorded.DEVICE:
                raise NotImplementedError(f"a CUDA graph runs on {recorded.DEVICE} and not on {one.device}")

    def _recording(
        self, run: Callable[[Sequence[Tensor]], Any], given: Sequence[Tensor], weights: Sequence[Tensor], grad: bool, pair: bool
    ) -> recorded.Recording:
        """The recording of this form of a call; it is made where there is none, or where a weight lies elsewhere now."""
        if _get_current_dispatch_mode() is not None:
            # Somebody looks at what is dispatched, which a replay does not show.
            return recorded.Recording(run, given, weights, grad)
        form = (
            tuple((t.shape, t.dtype, t.device, grad and t.requires_grad) for t in given),
            tuple(grad and t.requires_grad for t in weights),
            (pair, grad, self.training, *_switches()),
        )
        known = _RECORDINGS.setdefault(self, OrderedDict())
        recording = known.get(form)
        if recording is None or recording.places != recorded.places(weights):
            recording = recorded.Recording(run, given, weights, grad)
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
        torch.is_autocast_enabled(recorded.DEVICE),
        torch.get_autocast_dtype(recorded.DEVICE),
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
    if torch.device(device).type != recorded.DEVICE:
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
    return unavailable(device) or native.unavailable("cudnn", device)


#: What cuDNN does not do when it is replayed either. The states that it is given then are contiguous copies.
_OF_CUDNN = tuple(
    known
    for known in native.OF_CUDNN
    if known.contract.startswith("numerics.")
    or known.contract in ("execution.autocast", "values.beyond_65535_steps", "gradients.in_eval", "module.strided_weights")
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

"""torch's own nn.RNN, nn.GRU and nn.LSTM, with cuDNN and oneDNN switched on and off."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import nn

from harness.case import Case
from harness.dispatch import kernels_of
from harness.implementation import ExpectedFailure, Implementation
from harness.layer import Layer, Mode
from harness.switches import switched
from harness.trial import ContractError


def constructor(mode: Mode) -> type[nn.Module]:
    """``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``."""
    cls: type[nn.Module] = getattr(nn, mode.class_name)
    return cls


def build(layer: Layer) -> nn.Module:
    """``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` with the layer's options."""
    return constructor(layer.mode)(layer.input_size, layer.hidden_size, **layer.options())


#: The device on which a backend works, and how the kernels that it brings are named.
_BACKENDS = {"cudnn": ("cuda", "_cudnn_rnn"), "mkldnn": ("cpu", "mkldnn_rnn_layer")}


def _nothing(case: Case) -> str | None:
    return None


@cache
def unavailable(backend: str, device: str) -> str | None:
    """Why the backend cannot be switched on and off on ``device``, seen from the kernels of a small float32 LSTM; None where it can."""
    home, kernel = _BACKENDS[backend]
    label = {"cudnn": "cuDNN", "mkldnn": "oneDNN"}[backend]
    if torch.device(device).type != home:
        return f"{label} does not run on {device}"
    if home == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if not getattr(torch.backends, backend).is_available():
        return f"this torch was built without {label}"
    module = nn.LSTM(3, 4).to(device)
    ran = {}
    for switch in (True, False):
        with switched(backend, switch), torch.no_grad():
            ran[switch] = kernels_of(lambda: module(torch.zeros(2, 1, 3, device=device)))
    if not any(kernel in name for name in ran[True]):
        return f"switching {label} on dispatched {', '.join(ran[True])}: it has no kernel for this machine"
    if any(kernel in name for name in ran[False]):
        return f"switching {label} off dispatched {', '.join(ran[False])} all the same"
    return None


def promised(backend: str, case: Case) -> str | None:
    """The backend's kernel where it has one: cuDNN for every layer, oneDNN for a padded LSTM in float32 without projection."""
    served = backend == "cudnn" or (
        case.layer.has_cell_state and case.dtype == "float32" and case.lengths is None and not case.layer.proj_size
    )
    return _BACKENDS[backend][1] if served else None


def _rounded_share(case: Case) -> bool:
    """Whether the case is in float64, and the share that dropout drops no float32 number."""
    return case.dtype == "float64" and float(np.float32(case.layer.dropout)) != case.layer.dropout


def _wrong_in_float16(case: Case) -> bool:
    """Whether cuDNN 9.19 on an H100 computes ``case`` wrongly: 10 to 65 % of the outputs' size off, in three batch items of every four.

    Of an LSTM it was every hidden size of that kind, of a GRU all but 48 and 72, from batch sizes 8 to 128, with every input size, one and
    two layers, one and two directions, in training and in inference; not of an RNN, and not in bfloat16.
    """
    size = case.layer.hidden_size
    kind = case.dtype == "float16" and len(case.layer.mode.gates) > 1 and case.lengths is None and case.batch % 8 == 0
    return kind and size % 8 == 0 and size % 32 != 0 and 32 < size < 192 and _is_cudnn_919_on_hopper()


@cache
def _is_cudnn_919_on_hopper() -> bool:
    return torch.backends.cudnn.version() == 91900 and torch.cuda.get_device_capability() == (9, 0)


#: What cuDNN refuses or does otherwise, as seen on an H100 and an H200 with cuDNN 9.19.
OF_CUDNN = (
    ExpectedFailure(
        "execution.autocast",
        "upstream",
        "under autocast cuDNN's layers compute in float16, whichever dtype was asked for",
        ContractError,
        "https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/cudnn/AutocastRNN.cpp",
        lambda case: case.dtype != "float16",
    ),
    ExpectedFailure(
        "values.beyond_65535_steps",
        "upstream",
        "cuDNN takes no sequence of more than 65,535 steps",
        RuntimeError,
        "https://github.com/pytorch/pytorch/issues/133751",
    ),
    *(
        ExpectedFailure(
            contract,
            "upstream",
            "cuDNN takes the share that is dropped as a float32 number",
            ContractError,
            "https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-ops-library.html#cudnnsetdropoutdescriptor",
            _rounded_share,
        )
        for contract in ("dropout.between_layers_only", "dropout.same_mask_in_backward")
    ),
    ExpectedFailure(
        "gradients.in_eval",
        "upstream",
        "cuDNN keeps nothing for a backward pass in eval mode",
        RuntimeError,
        "https://github.com/pytorch/pytorch/issues/5878",
    ),
    # Nobody is known to have written of it.
    *(
        ExpectedFailure(
            contract,
            "upstream",
            "cuDNN 9.19 on an H100 computes a GRU and an LSTM in float16 wrongly at some hidden sizes, where the batch is a multiple of 8",
            ContractError,
            "",
            _wrong_in_float16,
        )
        for contract in ("numerics.typical_error", "numerics.float16")
    ),
    # Nobody is known to have written of it; what other gradients of weights it gives was seen.
    ExpectedFailure(
        "dropout.one_mask_for_both_directions",
        "upstream",
        "cuDNN drops the input of each direction apart",
        ContractError,
        "",
    ),
    *(
        ExpectedFailure(
            contract,
            "upstream",
            "cuDNN takes contiguous states and weights alone",
            RuntimeError,
            "https://github.com/pytorch/pytorch/issues/345",
            # Of packed sequences the states are sorted first, which lays them out anew.
            lambda case: case.batch > 1 and case.lengths is None,
        )
        for contract in ("layout.strided_state", "layout.expanded_state", "gradients.learned_initial_state", "module.strided_weights")
    ),
)


def _implementation(id: str, description: str, backend: str, enabled: bool) -> Implementation:
    return Implementation(
        id=id,
        description=description,
        build=build,
        constructor=constructor,
        switches=partial(switched, backend, enabled),
        unavailable=partial(unavailable, backend),
        promised_kernel=partial(promised, backend) if enabled else _nothing,
        forbidden_kernel="" if enabled else _BACKENDS[backend][1],
        expected_failures=OF_CUDNN if enabled and backend == "cudnn" else (),
    )


IMPLEMENTATIONS = (
    _implementation("torch:onednn", "torch.nn with oneDNN on, torch's default on a CPU", "mkldnn", True),
    _implementation("torch:onednn-off", "torch.nn with oneDNN off: torch's own CPU kernels", "mkldnn", False),
    _implementation("torch:cudnn", "torch.nn with cuDNN on, torch's default on CUDA", "cudnn", True),
    _implementation("torch:cudnn-off", "torch.nn with cuDNN off: torch's own CUDA kernels", "cudnn", False),
)

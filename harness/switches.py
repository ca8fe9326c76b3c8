"""The switches that belong to a whole process, torch's and Python's: on equal terms for everybody, and put back."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch


def equal_terms() -> AbstractContextManager[None]:
    """Every implementation and every reference computes float32 in float32: no TF32 and no bfloat16, for products and for recurrences.

    cuDNN's recurrent kernels use TF32 by default and matrix products do not; left alone, they would not be compared
    like for like, and no float32 noise floor would hold.
    """
    return tf32(allowed=False)


#: Where torch keeps how float32 may be rounded: for all backends, for each of them (cuDNN and cuBLAS are "cuda", oneDNN is "mkldnn"), and
#: for each of their operations. One that says "none" is as the one above it.
_BACKENDS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))
_OPERATIONS = tuple(itertools.product(("cuda", "mkldnn"), ("matmul", "conv", "rnn")))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether the factors of a float32 product on CUDA may be rounded to TF32's 11 bits, in matrix products as in cuDNN.

    Whatever somebody has set besides, by torch's older names (``allow_tf32``, ``torch.set_float32_matmul_precision``) or by its newer ones
    (``fp32_precision``), has no effect meanwhile, and is there again afterwards.
    """
    places, products, cudnn = _cleared()
    _round_products("high" if allowed else "highest", allowed)
    for backend, operation in _OPERATIONS:
        # By the newer names too: to the older ones "no" is "as all other operations", which somebody may set to TF32.
        torch._C._set_fp32_precision_setter(backend, operation, "tf32" if allowed and backend == "cuda" else "ieee")
    try:
        yield
    finally:
        _round_products(products, cudnn)
        for (backend, operation), precision in places.items():
            torch._C._set_fp32_precision_setter(backend, operation, precision)


def _cleared() -> tuple[dict[tuple[str, str], str], str, bool]:
    """Takes out of every place what it says of float32's precision, and tells: by place, and for products and for cuDNN by the older names.

    From above to below, because each answers for the one above it where it has nothing to say. Only then are the older names to be read:
    torch refuses where they and the newer ones disagree, as they do where somebody has set the newer ones alone.
    """
    places = {}
    for place in (*_BACKENDS, *_OPERATIONS):
        places[place] = torch._C._get_fp32_precision_getter(*place)
        torch._C._set_fp32_precision_setter(*place, "none")
    try:
        cudnn = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # what has been cleared disagrees with it
        cudnn = True
    return places, torch.get_float32_matmul_precision(), cudnn


def _round_products(precision: str, cudnn: bool) -> None:
    """Sets float32's precision by the older names."""
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = cudnn


#: Parts of the names of environment variables in which torch itself notes things as it goes.
_NOTES_OF_TORCH = ("TORCHINDUCTOR", "TRITON", "CUDA_MODULE_LOADING", "KINETO", "CUPTI")


def variables() -> dict[str, str]:
    """The environment variables, without torch's own notes."""
    return {name: value for name, value in os.environ.items() if not any(part in name for part in _NOTES_OF_TORCH)}


def cores() -> Any:
    """The cores that this process may run on, where the system says so."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def compiler() -> dict[str, Any]:
    """How torch.compile is set for everybody; as it will be once it is loaded, where it is not, which takes seconds."""
    config = sys.modules.get("torch._dynamo.config")
    if config is None:
        environment = os.environ.get
        return {"suppress_errors": bool(environment("TORCHDYNAMO_SUPPRESS_ERRORS")), "disable": environment("TORCH_COMPILE_DISABLE") == "1"}
    names = ("suppress_errors", "disable", "recompile_limit", "automatic_dynamic_shapes", "capture_scalar_outputs", "allow_rnn")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


@contextmanager
def _same_process() -> Iterator[None]:
    """Puts back what belongs to the process and not to torch."""
    thresholds, collects, own, environment, compiles = gc.get_threshold(), gc.isenabled(), cores(), dict(os.environ), compiler()
    depth, interval, level = sys.getrecursionlimit(), sys.getswitchinterval(), logging.getLogger().level
    silenced = logging.root.manager.disable
    # As torch.compile leaves it, unless it finds in its cache what it is to compile: its doing, and not the layer's.
    sys.setrecursionlimit(max(depth, 2000))
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        (gc.enable if collects else gc.disable)()
        sys.setrecursionlimit(depth)
        sys.setswitchinterval(interval)
        # Only then: each forgets what every logger of the process has found out, and there are hundreds of them.
        if logging.getLogger().level != level:
            logging.getLogger().setLevel(level)
        if logging.root.manager.disable != silenced:
            logging.disable(silenced)
        if cores() != own:
            os.sched_setaffinity(0, own)
        if dict(os.environ) != environment:
            for name in variables().keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
        now = compiler()
        for name, value in compiles.items():
            if now.get(name, value) != value:
                setattr(sys.modules["torch._dynamo.config"], name, value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts the global switches of torch and of the process back: what one implementation leaves turned must not reach the next."""
    backends = [(getattr(torch.backends, name), name) for name in ("cudnn", "mkldnn")]
    before = [(module, switch, getattr(module, switch)) for module, _ in backends for switch in ("enabled", "deterministic")]
    before.append((torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark))
    grad, dtype, threads, random = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    deterministic, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    anomaly, checks_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    casts_kept, errors, threaded = torch.is_autocast_cache_enabled(), np.geterr(), torch._C._is_multithreading_enabled()
    default = torch.get_default_device()
    printed, printed_by_numpy = vars(torch._tensor_str.PRINT_OPTS).copy(), np.get_printoptions()
    try:
        with _same_process():
            yield
    finally:
        vars(torch._tensor_str.PRINT_OPTS).update(printed)
        if np.get_printoptions() != printed_by_numpy:
            np.set_printoptions(**printed_by_numpy)
        torch._C._set_multithreading_enabled(threaded)
        torch.set_autocast_cache_enabled(casts_kept)
        np.seterr(**errors)
        if torch.get_default_device() != default:
            torch.set_default_device(default)
        if (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()) != (deterministic, warns):
            # Not otherwise: the call loads the compiler, which takes seconds.
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.set_anomaly_enabled(anomaly, checks_nan)
        # Torch does not say whether it is set; nothing here wants it.
        torch.set_flush_denormal(False)
        for module, switch, value in before:
            if getattr(module, switch) != value:
                setattr(module, switch, value)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.set_rng_state(random)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def unusable(device: str) -> str:
    """Why this process cannot use ``device`` ever again, in torch's words; empty where it can.

    What goes wrong in a CUDA kernel, as a read beyond its memory does, is seen when somebody waits for it. From then on every call of this
    process gets the same answer, whoever makes it (CUDA C++ Programming Guide, "Error Checking"). Recording a CUDA graph that ends in an
    error leaves torch's generator of random numbers as if it were still recorded: whoever draws is refused.
    """
    if torch.device(device).type != "cuda":
        return ""
    try:
        torch.rand(1, device=device)
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


@cache
def make_dropout_state(device: str) -> None:
    """Has torch make the random state by which all of cuDNN's layers on ``device`` drop, as it does once in a process.

    It is made by the first call that drops something. Where that is one under ``torch.inference_mode``, no layer of the process can be
    trained under cuDNN from then on, because each keeps it for its backward pass (torch 2.11; "Inference tensors cannot be saved for
    backward"). Which implementation kept a contract would depend on what another had done before it.
    """
    if torch.device(device).type == "cuda" and torch.backends.cudnn.is_available():
        with switched("cudnn", True), torch.inference_mode(False), torch.no_grad():
            torch.nn.LSTM(1, 1, num_layers=2, dropout=0.5, device=device)(torch.zeros(1, 1, 1, device=device))


@contextmanager
def switched(backend: str, enabled: bool) -> Iterator[None]:
    """Sets ``torch.backends.<backend>.enabled``, and puts it back.

    ``torch.backends.mkldnn.flags`` would do, but sets the TF32 switches besides.
    """
    switches: Any = getattr(torch.backends, backend)
    before = switches.enabled
    switches.enabled = enabled
    try:
        yield
    finally:
        switches.enabled = before

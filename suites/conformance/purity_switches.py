"""What a call leaves of the process's switches, and what it prints."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as for_all

from harness.switches import compiler, cores, switched, undisturbed, variables
from harness.trial import ContractError, Raised, Trial, where
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.purity import backward_from


def switches() -> dict[str, Any]:
    """The global switches that a call might leave turned."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
        "torch.backends.cudnn.enabled": torch.backends.cudnn.enabled,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch.backends.cudnn.allow_tf32": _told(lambda: torch.backends.cudnn.allow_tf32),
        "float32 matmul precision": _told(torch.get_float32_matmul_precision),
        "denormal numbers": bool((torch.full((1,), 1e-40) * 1.0).any()),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "warnings alone for what is not deterministic": torch.is_deterministic_algorithms_warn_only_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "Python's garbage collector": gc.isenabled(),
        "autocast's cache": torch.is_autocast_cache_enabled(),
        "torch's default device": torch.get_default_device(),
        "NumPy's treatment of errors": np.geterr(),
        **{f"autocast on {kind}": (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")},
        "torch.backends.opt_einsum.enabled": torch.backends.opt_einsum.enabled,
        "sums in half types of products on CUDA": (
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        ),
        "whether torch warns each time": torch.is_warn_always_enabled(),
        "threads of the backward pass": torch._C._is_multithreading_enabled(),
        "torch's print options": vars(torch._tensor_str.PRINT_OPTS).copy(),
        "NumPy's print options": np.get_printoptions(),
        "Python's recursion limit": sys.getrecursionlimit(),
        "the level of the root logger": logging.getLogger().level,
        "the level up to which logging is disabled": logging.root.manager.disable,
        # Of one message, one module or one category of its own a library silences its own; the first call may import it.
        "the number of filters for warnings of any message and module": sum(
            f[1] is f[3] is None and f[2].__module__ == "builtins" for f in warnings.filters
        ),
        "the thresholds of Python's garbage collector": gc.get_threshold(),
        "Python's switch interval": sys.getswitchinterval(),
        "the working directory": os.getcwd(),
        "Python's hooks": (sys.excepthook, sys.displayhook, sys.gettrace(), sys.getprofile()),
        "the handlers of signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "the hooks for all modules": [len(hooks) for hooks in (for_all._global_forward_hooks, for_all._global_forward_pre_hooks)],
        "environment variables": variables(),
        "the cores to run on": cores(),
        **{f"torch.compile's {name}": value for name, value in compiler().items()},
    }


@contextmanager
def _otherwise() -> Iterator[None]:
    """Within, switches stand as they seldom do: a call that turns one to what is usual is seen to turn it."""
    with undisturbed():
        torch.set_default_dtype(torch.float64)
        torch.set_anomaly_enabled(True)
        torch.set_autocast_cache_enabled(False)
        torch.set_flush_denormal(True)
        torch._C._set_multithreading_enabled(False)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = True
        torch.set_printoptions(precision=5)
        np.set_printoptions(precision=5)
        np.seterr(all="ignore")
        gc.disable()
        with switched("mkldnn", False), switched("cudnn", False):
            yield


def _told(precision: Callable[[], Any]) -> Any:
    try:
        return precision()
    except RuntimeError:
        # torch refuses to say where somebody has set it by the older and by the newer names.
        return "set in two ways"


@contract(
    "purity.switches_restored",
    "Grad mode, default dtype, threads, warning filters, print options, the root logger, the garbage collector, the environment, the cores "
    "to run on and the switches of torch's backends and compilers are after building, calling and backward what they were before, "
    "whichever way they stood.",
    MUST,
    "torch.backends; torch.set_grad_enabled; torch.set_num_threads",
    [
        *every(num_layers=2),
        *every(num_layers=2, dropout=0.5, bidirectional=True),
        *every(dtype="float64", steps=65),
        *every(dtype="bfloat16"),
        *every(steps=5, batch=3, lengths=(2, 5, 3)),
    ],
    demonstration="""
        flags = lambda: [torch.is_grad_enabled(), torch.get_num_threads(), gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(),
            {**os.environ}, os.sched_getaffinity(0), torch.are_deterministic_algorithms_enabled(), (torch.full((1,), 1e-40) * 1).item(),
            {**vars(torch._tensor_str.PRINT_OPTS)}, __import__("numpy").geterr(), sum(f[1] is f[3] is None for f in warnings.filters),
            torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark, torch._dynamo.config.suppress_errors, torch.is_anomaly_enabled()]
        for on, few in ((True, len(x) < 10), (False, False)):
            torch.set_grad_enabled(on), torch.set_anomaly_enabled(few), torch.backends.mkldnn.set_flags(on), warnings.resetwarnings()
            assert flags() == [NEW and layer.train(on)(x, hx), flags()][1] and torch.is_autocast_cache_enabled(), "turned"
    """,
)
def switches_restored(trial: Trial) -> None:
    # Without the filter under which contracts run: who adds the same finds it there.
    with warnings.catch_warnings(record=True):
        warnings.resetwarnings()
        _leaves_switches(trial)
        if trial.case.dtype == "float32":
            # It may be refused.
            cast = torch.autocast(torch.device(trial.case.device).type, torch.bfloat16)
            with suppress(Raised, NotImplementedError), cast, where("under autocast"):
                _leaves_switches(trial)
        if trial.case.steps > 10:
            # Anomaly detection remembers where in the program each node of the graph was made, which takes longer than the call.
            return
        with _otherwise(), trial.implementation.switches(), where("with switches turned to what is not usual"):
            _leaves_switches(trial)


def _leaves_switches(trial: Trial) -> None:
    before = switches()
    module = trial.module()
    require_unturned(before, "building the layer")
    for train in (True, False):
        module.train(train)
        with torch.set_grad_enabled(train):
            before = switches()
            reply = trial.call(module, *trial.form(trial.leaves()))
            if train:
                backward_from(trial, list(reply.tensors.values()))
            require_unturned(before, "a call")


def require_unturned(before: dict[str, Any], by: str) -> None:
    """Raises :class:`ContractError` where a switch is not what it was ``before``."""
    turned, after = [], switches()
    for name, then in before.items():
        now = after[name]
        if isinstance(then, dict):
            # What is the same is nobody's business, least of all the environment.
            changed = {key for key in {*then, *now} if then.get(key) != now.get(key)}
            then, now = ({key: value for key, value in one.items() if key in changed} or "none" for one in (then, now))
        if now != then:
            turned.append(f"{name} from {then} to {now}")
    if turned:
        raise ContractError(f"Expected no global switch to be turned by {by}, but these were: {'; '.join(turned)}")


@contract(
    "purity.nothing_printed",
    "Building, calling and backward print nothing, neither to standard output nor to standard error.",
    SHOULD,
    "torch.nn.LSTM prints nothing; what a program writes to standard output is read by others",
    [*every(num_layers=2, dropout=0.5), *every(steps=5, batch=3, lengths=(2, 5, 3))],
    demonstration="""
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
            for train in (True, False):
                NEW.to(dtype), layer.train(train)(x, hx)
            layer.train()(x, hx)[0][0].sum().backward()
        assert not printed.getvalue(), printed.getvalue()
    """,
)
def nothing_printed(trial: Trial) -> None:
    printed = {"standard output": io.StringIO(), "standard error": io.StringIO()}
    beside: list[str] = []
    # A log's record is no print: who wants none sets its level.
    logging.disable()
    try:
        with (
            _descriptors(beside),
            contextlib.redirect_stdout(printed["standard output"]),
            contextlib.redirect_stderr(printed["standard error"]),
        ):
            module = trial.module()
            for train in (True, False):
                reply = trial.call(module.train(train), *trial.form(trial.leaves()))
                # In eval mode a backward pass may be refused, which gradients.in_eval is about.
                if train:
                    backward_from(trial, list(reply.tensors.values()))
                trial.answer(module)
    finally:
        logging.disable(logging.NOTSET)
    told = {stream: text.getvalue() for stream, text in printed.items()} | {"the process's own standard streams": "".join(beside)}
    for stream, text in told.items():
        if text:
            raise ContractError(f"Expected nothing on {stream} from building, a call and backward, but there is {text[:200]!r}")


@contextmanager
def _descriptors(found: list[str]) -> Iterator[None]:
    """Adds to ``found`` what is written past Python's streams, as a kernel's printf is, where the process has such streams."""
    sys.stdout.flush(), sys.stderr.flush()
    _flush()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as after:
        for descriptor in (1, 2):
            # Who closed them has none to write to.
            with suppress(OSError):
                kept = os.dup(descriptor)
                after.callback(os.close, kept)
                os.dup2(file.fileno(), descriptor)
                after.callback(os.dup2, kept, descriptor)
        after.callback(_flush)
        yield
        _flush()
        file.seek(0)
        found.append(file.read().decode(errors="replace"))


def _flush() -> None:
    """Has C's streams write what they hold back, where C's library can be asked."""
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)

"""The switches of a process are on equal terms for everybody, and put back as they stood."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from harness.environment import describe
from harness.switches import equal_terms, tf32

#: Torch's stubs do not know what it has of each operation.
BACKENDS: Any = torch.backends

PLACES = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), *itertools.product(("cuda", "mkldnn"), ("matmul", "conv", "rnn")))


def _by_newer_names() -> dict[tuple[str, str], str]:
    return {place: torch._C._get_fp32_precision_getter(*place) for place in PLACES}


def _by_older_names() -> tuple[str, bool, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _as_torch_begins() -> Iterator[None]:
    before = _by_newer_names()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for place, precision in before.items():
        torch._C._set_fp32_precision_setter(*place, precision)


def _set(owner: Any, precision: str) -> Callable[[], None]:
    return lambda: setattr(owner, "fp32_precision", precision)


SETTINGS = {
    "nothing": lambda: None,
    "products on CUDA": _set(BACKENDS.cuda.matmul, "tf32"),
    "everything": _set(BACKENDS, "tf32"),
    "everything in IEEE": _set(BACKENDS, "ieee"),
    "cuDNN": _set(BACKENDS.cudnn, "tf32"),
    "cuDNN's recurrences": _set(BACKENDS.cudnn.rnn, "ieee"),
    "oneDNN's products": _set(BACKENDS.mkldnn.matmul, "bf16"),
    "oneDNN's recurrences": _set(BACKENDS.mkldnn.rnn, "bf16"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cuDNN by the older name": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "products by the older name": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}


def _told(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
def test_float32_is_rounded_as_it_is_asked_for_whatever_somebody_set(setting: str, allowed: bool) -> None:
    SETTINGS[setting]()
    with tf32(allowed):
        precision = _by_newer_names()
        assert {precision["cuda", operation] for operation in ("matmul", "conv", "rnn")} == {"tf32" if allowed else "ieee"}
        assert {precision["mkldnn", operation] for operation in ("matmul", "conv", "rnn")} == {"ieee"}
        # Neither kernels nor torch.compile may be refused the older names, nor a contract that sets them.
        assert _by_older_names() == ("high" if allowed else "highest", allowed, allowed)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not allowed
        assert _by_older_names()[1:] == (not allowed, not allowed)


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_somebody_set_of_float32_is_there_again_afterwards(setting: str) -> None:
    SETTINGS[setting]()
    readers = (_by_newer_names, torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32)
    before = [_told(read) for read in readers]
    with equal_terms():
        SETTINGS["everything"]()
        SETTINGS["medium"]()
    assert [_told(read) for read in readers] == before


def test_an_operation_that_was_as_all_others_still_is_afterwards() -> None:
    SETTINGS["everything"]()
    with equal_terms():
        pass
    SETTINGS["everything in IEEE"]()
    assert BACKENDS.mkldnn.rnn.fp32_precision == BACKENDS.cuda.matmul.fp32_precision == "ieee"


def test_terms_within_terms_are_put_back_one_after_the_other() -> None:
    SETTINGS["oneDNN's products"]()
    with tf32(allowed=True):
        with equal_terms():
            assert _by_older_names() == ("highest", False, False)
        assert _by_older_names() == ("high", True, True)
    assert BACKENDS.mkldnn.matmul.fp32_precision == "bf16"


def test_a_machine_is_described_where_precision_was_set_by_the_newer_names() -> None:
    assert describe().settings["float32_matmul_precision"] == "highest"
    SETTINGS["products on CUDA"]()
    assert describe().settings["float32_matmul_precision"] == "tf32 for products, none for oneDNN's"

"""What an implementation raises is told from what it answers wrongly."""

from __future__ import annotations

import pytest
import torch

from harness.tests.samples import CASE, implementation
from harness.trial import ContractError, Mismatch, Raised, Trial, may_refuse, said


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no gradients here"), NotImplementedError, "jvp: no gradients here"),
        (AssertionError(), NotImplementedError, "jvp: "),
        (NotImplementedError("not for me"), NotImplementedError, "jvp: not for me"),
        # What trial.call() makes of an exception of the implementation's.
        (Raised("calling it raised ValueError: no"), NotImplementedError, "jvp: calling it raised ValueError: no"),
        (ContractError("Expected a tensor"), ContractError, "Expected a tensor"),
        (Mismatch("output is off"), Mismatch, "output is off"),
        (MemoryError("too little"), MemoryError, "too little"),
        (torch.OutOfMemoryError("too little"), MemoryError, "too little"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), MemoryError, "allocate memory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_capability_may_be_refused_but_not_answered_wrongly(error: Exception, kind: type[Exception], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught, may_refuse("jvp"):
        raise error
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "error",
    [
        TypeError("Got unsupported ScalarType BFloat16"),
        RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'"),
    ],
    ids=lambda error: str(error)[:16],
)
def test_what_torch_has_no_code_for_is_refused_and_not_wrong(error: Exception) -> None:
    trial = Trial(implementation(torch.nn.GRU), CASE)
    with pytest.raises(NotImplementedError, match="calling it raised") as caught, trial.blamed("calling it"):
        raise error
    assert caught.value.__cause__ is error
    with pytest.raises(Raised, match="calling it raised RuntimeError: no"), trial.blamed("calling it"):
        raise RuntimeError("no")


def test_an_error_of_torchscript_begins_with_what_happened_and_keeps_where_it_did() -> None:
    @torch.jit.script
    def halves(x: torch.Tensor) -> list[torch.Tensor]:
        parts: list[torch.Tensor] = x.split([1, 1])
        return parts

    with pytest.raises(NotImplementedError) as caught, may_refuse("torch.jit.trace"):
        halves(torch.zeros(3))
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("torch.jit.trace: RuntimeError: split_with_sizes expects split_sizes to sum exactly to 3")
    assert any("x.split([1, 1])" in line for line in rest)


def test_what_refuses_within_torchscript_refuses() -> None:
    @torch.jit.script
    def refuses(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 1:
            raise NotImplementedError("a batch\nis needed")
        return x

    trial = Trial(implementation(torch.nn.GRU), CASE)
    with pytest.raises(NotImplementedError) as caught, trial.blamed("calling it"):
        refuses(torch.zeros(3))
    assert str(caught.value) == "a batch\nis needed"


def test_a_message_has_no_colours() -> None:
    assert said(ValueError("\x1b[96mno\x1b[0m \x1b[1;31mgood")) == "no good"


def test_a_scripted_layer_refuses_a_pack_that_it_cannot_take() -> None:
    class Takes(torch.nn.Module):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    pack = torch.nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])
    trial = Trial(implementation(torch.nn.GRU), CASE)
    with pytest.raises(NotImplementedError, match="PackedSequence"), trial.blamed("calling it"):
        torch.jit.script(Takes())(pack)
    with pytest.raises(NotImplementedError, match="ScriptModules"), trial.blamed("register_forward_hook"):
        torch.jit.script(Takes()).register_forward_pre_hook(lambda *given: None, with_kwargs=True)

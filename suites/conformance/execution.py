"""Ways of running: grad mode, inference mode, the kernel that the row's name promises, autocast, compiled."""

from __future__ import annotations

from typing import Any

import torch

from harness.dispatch import kernels_of
from harness.implementation import switched
from harness.reference import answer, gradients
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MAY, MUST, contract

_CASES = [
    *every(num_layers=2),
    *every(bidirectional=True, batch_first=True, given_state=False),
    *every(steps=5, batch=3, lengths=(2, 5, 3)),
    *every(LSTM, proj_size=2, batch=1, batched=False),
]


@contract(
    "execution.grad_modes_agree",
    "The answer is the same with gradients recorded, under no_grad and under inference_mode, in training and in eval mode.",
    MUST,
    "torch: Locally disabling gradient computation",
    _CASES,
)
def grad_modes_agree(trial: Trial) -> None:
    for train in (True, False):
        module = trial.module().train(train)
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                reply = trial.call(module, *trial.form(trial.leaves()))
                arrays = reply.arrays()
            trial.agree(arrays, answer(trial.case))
            if mode is not torch.enable_grad and any(value.requires_grad for value in reply.tensors.values()):
                raise ContractError(f"Expected an answer without gradient under {mode.__name__}, but it requires grad")


@contract(
    "execution.after_inference_mode",
    "A module that was first called under inference_mode can be trained afterwards.",
    MUST,
    "torch.inference_mode: inference tensors cannot be saved for backward",
    [*every(num_layers=2), *every(bidirectional=True, given_state=False)],
)
def after_inference_mode(trial: Trial) -> None:
    module = trial.module()
    with torch.inference_mode():
        trial.call(module, *trial.form(trial.leaves()))
    reply = trial.call(module, *trial.form(trial.leaves()))
    with trial.blamed("backward after a call under inference_mode"):
        reply.tensors["output"].sum().backward()
    trial.agree(reply.arrays(), answer(trial.case))


@contract(
    "execution.kernel_recorded",
    "The kernels that torch dispatched for a call are recorded, and give the right answer while they are watched.",
    MUST,
    "torch.utils._python_dispatch; pytorch#141184, pytorch#149909: another kernel ran than the one named",
    [*every(), *every(dtype="float64"), *every(bidirectional=True, num_layers=2)],
)
def kernel_recorded(trial: Trial) -> None:
    module = trial.module()
    input, hx = trial.form(trial.leaves())
    replies: list[Any] = []
    with torch.no_grad(), trial.blamed("a call under a dispatch log"):
        trial.kernels.extend(kernels_of(lambda: replies.append(module(input) if hx is None else module(input, hx))))
    trial.agree(trial.structured(replies[0], input).arrays(), answer(trial.case))
    promised = trial.implementation.promised_kernel(trial.case)
    if promised is not None and not any(promised in kernel for kernel in trial.kernels):
        raise ContractError(f"Expected the kernel {promised} that the name promises, but torch ran {', '.join(trial.kernels)}")
    forbidden = trial.implementation.forbidden_kernel
    if forbidden and any(forbidden in kernel for kernel in trial.kernels):
        raise ContractError(f"Expected no kernel {forbidden}, which the name rules out, but torch ran {', '.join(trial.kernels)}")


@contract(
    "execution.switches_agree",
    "The answer and the gradients are right with cuDNN and oneDNN switched on and off, and with one intra-op thread and two.",
    MUST,
    "torch.backends.mkldnn, torch.backends.cudnn, torch.set_num_threads",
    [*every(num_layers=2, batch=8), *every(bidirectional=True, batch_first=True, given_state=False)],
)
def switches_agree(trial: Trial) -> None:
    through = ("output",)
    names = [name for name in gradients(trial.case, through).tensors if name not in ("h0", "c0")]
    for on, threads in ((True, 1), (False, 1), (True, 2)):
        torch.set_num_threads(threads)
        # What an implementation sets for itself it keeps: rows named after a switch are not asked to give it up.
        with switched("mkldnn", on), switched("cudnn", on), trial.implementation.switches():
            trial.agree(trial.answer().arrays(), answer(trial.case))
            trial.agree(trial.gradients(through), gradients(trial.case, through), only=names)


@contract(
    "execution.vmap",
    "torch.vmap over inputs is right or refused with an error.",
    MAY,
    "torch.vmap",
    [*every(steps=3, batch=2)],
)
def vmap(trial: Trial) -> None:
    module = trial.module()
    leaves = trial.leaves()
    input, hx = trial.form(leaves)

    def one(x: Any) -> Any:
        return module(x, hx)[0]

    with torch.no_grad(), trial.blamed("an ordinary call"):
        module(input, hx)
    try:
        with torch.no_grad():
            found = torch.vmap(one)(torch.stack([input, 2 * input]))
    except Exception as error:  # a refusal, whichever exception it comes as
        raise NotImplementedError(f"vmap: {error}") from error
    trial.agree({"output": found[0].double().cpu().numpy()}, answer(trial.case), only=["output"])

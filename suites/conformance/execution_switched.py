"""Ways of running, continued: under torch's global switches."""

from __future__ import annotations

import torch

from harness.reference import answer, gradients
from harness.switches import switched
from harness.trial import ContractError, Trial, may_refuse, where
from suites.conformance.cases import every
from suites.conformance.declare import MAY, MUST, SHOULD, contract


@contract(
    "execution.switches_agree",
    "The answer and the gradients are right with cuDNN and oneDNN switched on and off, and with one intra-op thread, two and four.",
    MUST,
    "torch.backends.mkldnn, torch.backends.cudnn, torch.set_num_threads",
    # Seven sequences cannot be dealt out evenly.
    [
        *every(num_layers=2, batch=7, hidden_size=65),
        *every(bidirectional=True, batch_first=True, given_state=False),
        *every(steps=4, batch=3, lengths=(2, 4, 3)),
    ],
    demonstration="""
        found = []
        for on, threads in ((True, 1), (False, 1), (True, 2), (True, 4)):
            torch.backends.mkldnn.enabled = on
            torch.set_num_threads(threads)
            found.append(layer(x, hx))
        torch.backends.mkldnn.enabled = True
        return found
    """,
)
def switches_agree(trial: Trial) -> None:
    through = ("output",)
    for on, threads in ((True, 1), (False, 1), (True, 2), (True, 4)):
        torch.set_num_threads(threads)
        # What an implementation sets for itself it keeps: rows named after a switch are not asked to give it up.
        how = where(f"with oneDNN and cuDNN {'on' if on else 'off'}, and threads set to {threads}")
        with switched("mkldnn", on), switched("cudnn", on), trial.implementation.switches(), how:
            trial.agree(trial.answer().arrays(), answer(trial.case))
            trial.agree(trial.gradients(through), gradients(trial.case, through))


@contract(
    "execution.deterministic",
    "Where deterministic algorithms are demanded, and new memory is filled with NaN, the answer and the gradients are right.",
    SHOULD,
    "torch.use_deterministic_algorithms; torch.utils.deterministic.fill_uninitialized_memory",
    [*every(given_state=False), *every(num_layers=2, bidirectional=True), *every(steps=5, batch=3, lengths=(2, 5, 3), given_state=False)],
    demonstration="""
        torch.use_deterministic_algorithms(True, warn_only=True)
        output = layer(x, hx)[0]
        output = output[0] if isinstance(output, tuple) else output
        output.square().sum().backward()
        torch.use_deterministic_algorithms(False)
        return output, [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def deterministic(trial: Trial) -> None:
    right, slopes = answer(trial.case), gradients(trial.case, ("output",))
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # On a GPU cuBLAS refuses unless a variable of the environment was set before the process began; with warnings alone it does not.
    torch.use_deterministic_algorithms(True, warn_only=trial.case.device != "cpu")
    try:
        found, back = trial.answer().arrays(), trial.gradients(("output",))
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    trial.agree(found, right)
    trial.agree(back, slopes)


@contract(
    "execution.autocast_spares_float64",
    "Under autocast a layer of float64 answers in float64, with its precision, and so do its gradients, or it refuses.",
    MAY,
    "torch.amp: ops in float64 are not eligible for autocast, and run in it whether or not autocast is enabled",
    [*every(num_layers=2, dtype="float64"), *every(bidirectional=True, batch_first=True, given_state=False, dtype="float64")],
    demonstration="""
        with torch.autocast(x.device.type, torch.bfloat16):
            output, state = layer(x, hx)
        output.square().sum().backward()
        return output, state, [p.grad for _, p in sorted(layer.named_parameters())]
    """,
)
def autocast_spares_float64(trial: Trial) -> None:
    module, leaves = trial.module(), trial.leaves(requires_grad=True)
    input, hx = trial.form(leaves)
    with may_refuse("autocast of float64"), torch.autocast(torch.device(trial.case.device).type, torch.bfloat16):
        raw = module(input) if hx is None else module(input, hx)
    reply = trial.structured(raw, input)
    for name, value in reply.tensors.items():
        if value.dtype != torch.float64:
            raise ContractError(f"Expected {name} of a layer of float64 in float64 under autocast, but it is {value.dtype}")
    trial.agree(reply.arrays(), answer(trial.case))
    trial.backward(reply, ("output",))
    wanted = {"x": leaves["x"], **trial.parameters(module)}
    trial.agree(trial.collect(wanted), gradients(trial.case, ("output",)), only=list(wanted))

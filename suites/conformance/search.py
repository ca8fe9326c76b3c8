"""Search: layers and calls that nobody thought of, drawn at random over all options and shrunk to the smallest that fails.

Hypothesis draws and shrinks. It is derandomised: the same release of it draws the same cases on every machine.
"""

from __future__ import annotations

import time

import torch

from harness.case import Case
from harness.reference import answer, gradients
from harness.reproduction import BACKWARD
from harness.tolerance import Comparison
from harness.trial import ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, contract

#: How many cases are drawn for one mode.
EXAMPLES = 30

#: Seconds that shrinking may take; a smaller failure is worth a short wait, not a long one.
_PATIENCE = 8.0


@contract(
    "search.values_and_gradients",
    f"Values and gradients are right on {EXAMPLES} cases drawn at random over sizes, layers, directions, biases, projections, forms of the "
    "call, lengths, states and dtypes.",
    MUST,
    "MacIver et al. 2019, Hypothesis: a new approach to property-based testing",
    every(name="search"),
    time_limit_factor=4,
    demonstration=BACKWARD,
)
def values_and_gradients(trial: Trial) -> None:
    implementation, worst = trial.implementation, dict[str, Comparison]()
    refused: list[str] = []
    failed: dict[str, ContractError] = {}
    since, asked = [0.0], [0]

    def agrees(case: Case) -> None:
        if implementation.capabilities.lacks(case):
            return
        # When the time is up, what is not known to fail counts as passing, and shrinking comes to its end.
        if failed and case.id not in failed and time.monotonic() - since[0] > _PATIENCE:
            return
        asked[0] += 1
        inner = Trial(implementation, case, diagnose=False)
        through = ("output",) if case.seed % 2 else tuple(case.arrays.cotangents)
        try:
            with torch.inference_mode(case.seed % 3 == 0):
                inner.agree(inner.answer().arrays(), answer(case))
            inner.agree(inner.gradients(through), gradients(case, through))
        except NotImplementedError as error:
            refused.append(str(error))
        except ContractError as error:
            since[0] = since[0] or time.monotonic()
            failed[case.id] = error
            # The smallest one is what is reported, and reproduced.
            trial.case = case
            error.args = (f"on {case.id}, the smallest found: {error}",)
            raise
        trial.answered |= inner.answered
        for comparison in inner.comparisons:
            if comparison.quantity not in worst or comparison.ratio > worst[comparison.quantity].ratio:
                worst[comparison.quantity] = comparison

    # Here, because Hypothesis takes most of a second to load, and one process of several draws.
    from suites.conformance.drawn import draw

    case = trial.case
    draw(EXAMPLES, agrees, case.layer.mode, case.device, case.seed)
    trial.comparisons += worst.values()
    if not worst:
        raise NotImplementedError(refused[0] if refused else "every case that was drawn is declared as not supported")
    if len(refused) > asked[0] // 2:
        raise NotImplementedError(f"{len(refused)} of the {asked[0]} cases that were drawn; the first: {refused[0]}")

"""Search: layers and calls that nobody thought of, drawn at random over all options and shrunk to the smallest that fails.

Hypothesis draws and shrinks. It is derandomised: the same release of it draws the same cases on every machine.
"""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.case import Case
from harness.layer import Layer, Mode
from harness.reference import answer, gradients
from harness.reproduction import BACKWARD
from harness.tolerance import Comparison
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every
from suites.conformance.declare import MUST, contract

#: How many cases are drawn for one mode.
EXAMPLES = 30

#: Seconds that shrinking may take; a smaller failure is worth a short wait, not a long one.
_PATIENCE = 8.0


@st.composite
def cases(draw: st.DrawFn, mode: Mode, device: str, seed: int) -> Case:
    """A case of ``mode`` with every option drawn and numbers from ``seed`` on; simpler ones are drawn when a failure is shrunk."""
    hidden = draw(st.integers(1, 70))
    proj = draw(st.integers(0, min(hidden - 1, 40))) if mode is LSTM and draw(st.booleans()) else 0
    layer = Layer(
        mode,
        input_size=draw(st.integers(1, 70)),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, 4)),
        bias=draw(st.sampled_from([True, True, False])),
        batch_first=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=proj,
    )
    form = draw(st.sampled_from(["padded", "packed", "sorted", "unbatched"]))
    batch = 1 if form == "unbatched" else draw(st.integers(1, 10))
    lengths = None
    if form in ("packed", "sorted"):
        drawn = draw(st.lists(st.integers(1, 24), min_size=batch, max_size=batch))
        lengths = tuple(sorted(drawn, reverse=True) if form == "sorted" else drawn)
    return Case(
        layer,
        steps=max(lengths) if lengths else draw(st.integers(1, 24)),
        batch=batch,
        lengths=lengths,
        enforce_sorted=form == "sorted",
        batched=form != "unbatched",
        given_state=draw(st.sampled_from([True, True, False])),
        weights=draw(st.sampled_from(["plain", "remembering"])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        device=device,
        seed=seed + draw(st.integers(1, 9)),
    )


@contract(
    "search.values_and_gradients",
    f"Values and gradients are right on {EXAMPLES} cases drawn at random over sizes, layers, directions, biases, projections, forms of the "
    "call, lengths, states and dtypes.",
    MUST,
    "MacIver et al. 2019, Hypothesis: a new approach to property-based testing",
    every(name="search"),
    time_limits=4,
    demonstration=BACKWARD,
)
def values_and_gradients(trial: Trial) -> None:
    implementation, worst = trial.implementation, dict[str, Comparison]()
    refused: list[str] = []
    failed: dict[str, ContractError] = {}
    since = [0.0]

    def agrees(case: Case) -> None:
        if implementation.capabilities.lacks(case):
            return
        # When the time is up, what is not known to fail counts as passing, and shrinking comes to its end.
        if failed and case.id not in failed and time.monotonic() - since[0] > _PATIENCE:
            return
        inner = Trial(implementation, case, diagnose=False)
        through = ("output",) if case.seed % 2 else tuple(case.arrays.cotangents)
        names = [n for n in gradients(case, through).tensors if case.given_state or n not in ("h0", "c0")]
        try:
            inner.agree(inner.answer().arrays(), answer(case))
            inner.agree(inner.gradients(through), gradients(case, through), only=names)
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

    draws: Any = settings(
        derandomize=True,
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    draws(given(cases(trial.case.layer.mode, trial.case.device, trial.case.seed))(agrees))()
    trial.comparisons += worst.values()
    if not worst:
        raise NotImplementedError(refused[0] if refused else "every case that was drawn is declared as not supported")

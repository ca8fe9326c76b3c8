"""A workload: a case to be timed, with the pass, and what its work amounts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from harness.case import Case
from harness.layer import Layer


class WorkloadError(ValueError):
    """A workload set that there is not; the message names those that there are."""


class Pass(StrEnum):
    """What one timed call does."""

    INFERENCE = "inference"
    TRAINING = "training"

    @property
    def meaning(self) -> str:
        return {"inference": "forward without gradients", "training": "forward with gradients, then backward to input and weights"}[
            self.value
        ]


@dataclass(frozen=True)
class Workload:
    """A named cell of a benchmark: a case on a device, with the pass."""

    set: str
    case: Case
    timed: Pass

    def __post_init__(self) -> None:
        case = self.case
        if case.lengths is not None or not case.batched or case.layer.batch_first:
            # The timed inputs are overwritten in place to check the timed calls, and these forms hold copies of them.
            raise ValueError(f"Expected a padded, batched and time-major case to be timed but got case={case.id}")

    @property
    def id(self) -> str:
        """Unique within a run: the set, the case, the device, the pass: ``quick/lstm-I64-H64-T128-B8-float32-cpu-training``."""
        device = "-cpu" if self.case.device == "cpu" else ""
        return f"{self.set}/{self.case.id}{device}-{self.timed.value}"

    def on(self, device: str) -> Workload:
        """The same on another device."""
        return replace(self, case=replace(self.case, device=device))

    def as_json(self) -> dict[str, Any]:
        return {"set": self.set, "pass": self.timed.value, **asdict(self.case)}


def chosen(sets: Mapping[str, Sequence[Workload]], names: Sequence[str]) -> list[Workload]:
    """The workloads of the named sets. Raises :class:`WorkloadError` for a name that is not among ``sets``."""
    for name in names:
        if name not in sets:
            raise WorkloadError(f"Cannot use --workloads {name}: there is no set of this name. Known sets: {', '.join(sets)}")
    return [workload for name in dict.fromkeys(names) for workload in sets[name]]


def forward_flops(layer: Layer, tokens: int) -> int:
    """Floating-point operations of the products in one forward pass over ``tokens`` = T * B time steps.

    2 G H (I + H_out) a step, layer and direction, and 2 H P for a projection; a multiplication and an addition count as two,
    what is done element by element is left out. Torch's own counter would do, but sees nothing of fused kernels.
    """
    per_token = 0
    for _, level, _, _ in layer.slots():
        inputs = layer.input_size if level == 0 else layer.output_size
        per_token += 2 * len(layer.mode.gates) * layer.hidden_size * (inputs + layer.state_size)
        per_token += 2 * layer.hidden_size * layer.proj_size
    return per_token * tokens


def flops(workload: Workload) -> int:
    """Operations of one timed call: a backward pass has two products for each one of the forward pass."""
    forward = forward_flops(workload.case.layer, workload.case.steps * workload.case.batch)
    return forward * (3 if workload.timed is Pass.TRAINING else 1)

"""A timed cell, and a comparison of environments, as rows: what a record says, each fact in a column of its own."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from harness.outcome import Outcome
from harness.record import Throughput, Versus
from reports.fields import mapping, number, text, texts, whole

_SAMPLED = ("samples", "rounds", "issued", "device_samples")
_UNFOLDED = ("agreement", "kernels", "fits", "memory", "limit")


def cell_row(result: Throughput) -> dict[str, Any]:
    """The columns of the frame ``throughput`` that the record itself fills."""
    own = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in _SAMPLED + _UNFOLDED}
    limit, memory, evidence = result.limit, result.memory, result.evidence
    gpu = mapping(evidence.get("gpu"))
    return {
        **own,
        "agreement_before": _worst(result.agreement.get("before")),
        "agreement_after": _worst(result.agreement.get("after")),
        "kernels": ", ".join(map(str, result.kernels)),
        "caches": text(result.settings.get("caches")),
        "fits_batch": whole(result.fits.get("batch")),
        "memory_bytes": number(memory.get("bytes")),
        "memory_resolution": number(memory.get("resolution")),
        "memory_method": text(memory.get("method")),
        "memory_unavailable": text(memory.get("unavailable")),
        "limit_seconds": number(limit.get("seconds")),
        "limit_bound": text(limit.get("bound")),
        "limit_bytes": number(limit.get("bytes")),
        "limit_flops_per_second": number(limit.get("matmul_flops_per_second")),
        "limit_bytes_per_second": number(limit.get("memory_bytes_per_second")),
        "limit_matmul": text(limit.get("matmul")),
        "limit_memory": text(limit.get("memory")),
        "others": number(evidence.get("others")),
        "stolen": number(evidence.get("stolen")),
        "waited": number(evidence.get("waited")),
        "frequency_before": number(evidence.get("frequency_before")),
        "frequency_after": number(evidence.get("frequency_after")),
        "gpu_clock": number(gpu.get("sm_clock")),
        "gpu_most_clock": number(gpu.get("most_sm_clock")),
        "gpu_others": number(gpu.get("others_utilisation")),
        "told": texts(evidence.get("told")),
    }


def versus_row(result: Versus) -> dict[str, Any]:
    """The columns of the frame ``versus`` that the record itself fills."""
    own = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in ("agreement", "evidence")}
    return {**own, "pairs": len(result.ratios), "told": [texts(mapping(pair).get("told")) for pair in result.evidence]}


def no_times(result: Throughput) -> list[float]:
    """The samples of a cell that can be no times of a call: not positive, or not finite."""
    return [seconds for seconds in result.samples if not 0 < seconds < math.inf]


def samples(result: Throughput) -> dict[str, list[Any]]:
    """The columns of the frame ``samples``; empty of a cell that did not pass, because the time of a wrong answer is no time, and of one
    with a sample that is no time: what made that one may have made the others."""
    taken = result.samples if result.outcome == Outcome.PASSED and not no_times(result) else []
    count = len(taken)
    rounds = result.rounds if len(result.rounds) == len(result.samples) else [-1] * count
    # A clock knows these of every sample, or of none; where their numbers differ, nobody can tell which belongs to which.
    issued, device = (s if len(s) == len(result.samples) else [None] * count for s in (result.issued, result.device_samples))
    columns: dict[str, list[Any]] = {"round": rounds, "seconds": taken, "issued": issued, "device_seconds": device}
    return {"sample": list(range(count)), **{name: values[:count] for name, values in columns.items()}}


def _worst(errors: Any) -> float | None:
    """The largest error over floor in a list of comparisons; infinite where one was not finite, None where there is none."""
    if not isinstance(errors, list) or not errors:
        return None
    ratios = [number(mapping(error).get("ratio")) for error in errors]
    return max(float("inf") if ratio is None else ratio for ratio in ratios)

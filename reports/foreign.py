"""The JSON of pytest-benchmark: what its files say of a timed cell, as far as they say it."""

from __future__ import annotations

from typing import Any

from harness.outcome import Outcome
from harness.record import Throughput
from reports.fields import count, mapping, number, numbers


def has_samples(benchmark: Any) -> bool:
    """Whether the file has every time of a benchmark, and not what was made of them alone, as without ``--benchmark-save-data``."""
    return isinstance(mapping(mapping(benchmark).get("stats")).get("data"), list)


def from_benchmark(benchmark: Any) -> Throughput:
    """One benchmark of a pytest-benchmark file as a cell; what the file does not say is empty or 0."""
    if not isinstance(benchmark, dict) or not isinstance(benchmark.get("stats"), dict):
        raise ValueError("Expected an object with 'stats'")
    extra, stats = mapping(benchmark.get("extra_info")), benchmark["stats"]
    name = str(benchmark.get("fullname") or benchmark.get("name") or "unnamed")
    texts = ("mode", "device", "dtype", "timed_pass", "workload_set", "message", "stopped")
    counts = ("sequence_length", "batch_size", "input_size", "hidden_size", "tokens", "flops", "num_layers", "proj_size", "threads")
    described: dict[str, Any] = {key: str(extra.get(key) or "") for key in texts}
    described |= {key: count(extra.get(key)) for key in counts}
    described |= {key: dict(mapping(extra.get(key))) for key in ("agreement", "settings", "fits", "memory", "limit", "evidence")}
    described |= {key: numbers(extra.get(key)) for key in ("issued", "device_samples", "warm_up")}
    data = stats.get("data")
    samples = data if isinstance(data, list) else [stats["median"]] if "median" in stats else []
    rounds = extra.get("rounds")
    outcome = str(extra.get("outcome") or Outcome.PASSED)
    measured = [float(value) for value in samples] if outcome == Outcome.PASSED else []
    return Throughput(
        workload=str(extra.get("workload") or benchmark.get("group") or name),
        implementation=str(extra.get("implementation") or benchmark.get("name") or name),
        outcome=outcome,
        samples=measured,
        rounds=[count(value) for value in rounds] if isinstance(rounds, list) else [],
        calls=count(stats.get("iterations")) or 1,
        bidirectional=bool(extra.get("bidirectional", False)),
        bias=bool(extra.get("bias", True)),
        first_call=number(extra.get("first_call")),
        tokens_per_second=number(extra.get("tokens_per_second")),
        flops_per_second=number(extra.get("flops_per_second")),
        kernels=list(extra.get("kernels") or []),
        **described,
    )

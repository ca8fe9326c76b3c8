"""A made-up run with one of everything: every outcome, hostile names, missing numbers, cells that went wrong."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.outcome import Outcome
from harness.record import Calibration, Conformance, Header, Mutation, Throughput, Versus
from harness.store import RunWriter
from harness.watch import Seen, sentences

HOSTILE = "evil:<script>alert(1)</script> \"q\" 'a' & $x_1$ 名前"
IMPLEMENTATIONS = ("torch:onednn", "torch:native", "loop:textbook", "loop:hoisted", "script:hoisted", HOSTILE)
MODES = ("rnn_tanh", "gru", "lstm")
PASSES = ("inference", "training")
LENGTHS = tuple(2**k for k in range(11))
TOPICS = {"values": 18, "state": 6, "shapes": 7, "gradients": 8, "packed": 7, "errors": 3}
MESSAGE = """Expected y to agree with the float64 oracle, but 37 of 480 elements do not.
    worst absolute  3.1e-02 at (t=4, b=1, h=7), allowance 9.5e-07 (4 floors)
    worst relative  5.2e-01
    first bad step  t=3, layer 1, reverse direction
Reproduce:
    import torch
    layer = build("<b>evil</b>", mode="gru", input_size=3, hidden_size=8)
    layer(torch.randn(5, 3, 3))"""

HINT = "this is the answer with <b>h_0</b> taken for zero"

_STEP = {"torch:onednn": 6e-6, "torch:native": 9e-6, "loop:textbook": 4e-5, "loop:hoisted": 9.3e-6, "script:hoisted": 1.9e-5, HOSTILE: 3e-6}
_MODE_COST = {"rnn_tanh": 0.45, "gru": 1.3, "lstm": 1.0}


def header(run: str = "5eed5eed0001", **changes: Any) -> Header:
    """The header of a specimen; ``changes`` replace its fields."""
    environment = {
        "machine": "specimen",
        "system": "Linux 6.1 x86_64",
        "cpu": "An Imaginary CPU @ 2.50GHz",
        "cores": 2,
        "memory": 25_000_000_000,
        "gpus": [],
        "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6", "cuda": None, "onednn": "3.10"},
        "settings": {"threads": 1, "float32_matmul_precision": "highest", "variables": {"OMP_NUM_THREADS": "1"}},
        "load": 0.42,
    }
    implementations = {
        name: {
            "description": f"What {name} does, in one sentence",
            "modes": list(MODES),
            "source": "harness.adapters",
            "availability": {"cpu": None, "cuda": "torch sees no CUDA device"},
        }
        for name in (*IMPLEMENTATIONS, "vendor:untested")
    }
    implementations["torch:cudnn"] = {
        "description": "nn's own modules on cuDNN",
        "modes": list(MODES),
        "source": "harness.adapters",
        "availability": {"cpu": "cuDNN serves CUDA devices only", "cuda": "torch sees no CUDA device"},
    }
    values: dict[str, Any] = {
        "run": run,
        "created": "2026-01-02T03:04:05Z",
        "command": ["pytest", "--results", "some where"],
        "environment": environment,
        "implementations": implementations,
        "contracts": contracts(),
        "workloads": {"lstm-T64": {"sequence_length": 64}},
        "policy": {"allowance": "4 floors", "rounds": 11},
    }
    return Header(**{**values, **changes})


def contracts() -> dict[str, Any]:
    """The catalogue of the specimen: id -> facts."""
    answer = {}
    for topic, count in TOPICS.items():
        for k in range(count):
            severity = "MUST" if k % 5 else "SHOULD"
            source = "https://github.com/pytorch/pytorch/issues/95118" if k % 2 else "torch.nn.LSTM: Outputs"
            statement = f"The {topic} of a layer are what its equation number {k + 1} says, for every t, b and layer"
            facts = {"statement": statement, "severity": severity, "source": source, "topic": topic, "mutants": [f"mutant_{k}"]}
            answer[f"{topic}.property_{k + 1}"] = facts
    return answer


def conformance(cases: int = 4) -> list[Conformance]:
    """Results of every outcome: ``script:hoisted`` breaks contracts in four ways, the hostile one gives wrong values."""
    odd = {
        ("script:hoisted", "packed.property_2"): Outcome.CRASHED,
        ("script:hoisted", "packed.property_3"): Outcome.TIMED_OUT,
        ("script:hoisted", "gradients.property_8"): Outcome.OUT_OF_MEMORY,
        ("loop:textbook", "packed.property_7"): Outcome.EXPECTED_FAILURE,
        ("loop:hoisted", "packed.property_7"): Outcome.UNSUPPORTED,
        ("torch:native", "errors.property_3"): Outcome.DOES_NOT_APPLY,
        ("torch:native", "shapes.property_7"): Outcome.UNAVAILABLE,
    }
    generator = np.random.default_rng(7)
    answer = []
    for contract, facts in contracts().items():
        answer.append(
            Conformance(contract, "torch:cudnn", "unavailable", "unavailable", facts["severity"], "", "", "", "torch sees no CUDA device")
        )
        for implementation in IMPLEMENTATIONS:
            for case in range(cases):
                outcome = odd.get((implementation, contract), Outcome.PASSED) if case % 2 == 0 else Outcome.PASSED
                if outcome in (Outcome.UNSUPPORTED, Outcome.DOES_NOT_APPLY) or (
                    (implementation, contract) in odd and outcome != Outcome.PASSED
                ):
                    outcome = odd[implementation, contract]
                if implementation == HOSTILE and facts["topic"] in ("values", "gradients") and case == 1:
                    outcome = Outcome.FAILED
                dtype = ("float32", "bfloat16")[case % 2]
                floor = {"float32": 1.2e-7, "bfloat16": 4e-3}[dtype]
                errors = []
                if facts["topic"] in ("values", "state", "gradients", "packed") and outcome in (Outcome.PASSED, Outcome.FAILED):
                    for quantity in ("y", "h_n"):
                        ratio = float(np.exp(generator.normal(0.1, 0.45))) * (400 if outcome == Outcome.FAILED else 1)
                        lost = implementation == HOSTILE and quantity == "h_n" and outcome == Outcome.FAILED
                        exact = implementation == "torch:onednn" and case == 0 and quantity == "h_n"
                        errors.append(
                            {
                                "quantity": quantity,
                                "error": None if lost else 0.0 if exact else ratio * floor,
                                "floor": floor,
                                "ratio": float("nan")
                                if lost
                                else 0.0
                                if exact
                                else min(ratio, 3.9)
                                if outcome == Outcome.PASSED
                                else ratio,
                                "allowance": 4.0,
                                "elements": 480,
                            }
                        )
                answer.append(
                    Conformance(
                        contract=contract,
                        implementation=implementation,
                        case=f"{MODES[case % 3]}-T5-B3-I3-H8-{dtype}-cpu-{case}",
                        outcome=str(outcome),
                        severity=facts["severity"],
                        mode=MODES[case % 3],
                        device="cpu",
                        dtype=dtype,
                        message="" if outcome == Outcome.PASSED else MESSAGE,
                        hint=HINT if outcome == Outcome.FAILED and facts["topic"] == "values" else "",
                        parameters={"input_size": 3, "hidden_size": 8, "bidirectional": bool(case % 2)},
                        errors=errors,
                        kernels=["aten::mkldnn_rnn_layer"] if implementation == "torch:onednn" else [],
                        seconds=0.01,
                    )
                )
    return answer


def throughput(device: str = "cpu", rounds: int = 11) -> list[Throughput]:
    """A sweep over T in which one cell disagrees, some run out of memory, and one row cannot run."""
    generator = np.random.default_rng(11)
    answer = []
    batch, size = 16, 128
    for mode in MODES:
        gates = {"rnn_tanh": 1, "gru": 3, "lstm": 4}[mode]
        for timed_pass in PASSES:
            for length in LENGTHS:
                drift = np.exp(generator.normal(0, 0.12, rounds))
                for implementation in IMPLEMENTATIONS:
                    outcome = Outcome.PASSED
                    if implementation == "loop:textbook" and timed_pass == "training" and length == 1024:
                        outcome = Outcome.OUT_OF_MEMORY
                    if implementation == "script:hoisted" and mode == "gru" and length == 128:
                        outcome = Outcome.FAILED
                    if implementation == "torch:onednn" and mode != "lstm":
                        outcome = Outcome.UNAVAILABLE
                    step = _STEP[implementation] * _MODE_COST[mode] * batch * (3.1 if timed_pass == "training" else 1.0)
                    seconds = (6e-5 + length * step) * drift * np.exp(generator.normal(0, 0.03, rounds))
                    tokens, flops = length * batch, 2 * length * batch * gates * size * 2 * size
                    passed = outcome == Outcome.PASSED
                    answer.append(
                        Throughput(
                            workload=f"{mode}-{timed_pass}-T{length}",
                            workload_set="sweep",
                            implementation=implementation,
                            outcome=str(outcome),
                            mode=mode,
                            device=device,
                            dtype="float32",
                            timed_pass=timed_pass,
                            sequence_length=length,
                            batch_size=batch,
                            input_size=size,
                            hidden_size=size,
                            tokens=tokens,
                            flops=flops,
                            message="" if passed else MESSAGE,
                            samples=[float(value) for value in seconds] if passed else [],
                            rounds=list(range(rounds)) if passed else [],
                            calls=max(1, 1024 // length),
                            first_call=float(seconds[0]) * 9 if passed else None,
                            tokens_per_second=tokens / float(np.median(seconds)) if passed else None,
                            flops_per_second=flops / float(np.median(seconds)) if passed else None,
                            agreement={
                                when: [{"quantity": "y", "ratio": 1.2}, {"quantity": "h_n", "ratio": 0.8}] for when in ("before", "after")
                            },
                            kernels=["aten::mkldnn_rnn_layer"] if implementation == "torch:onednn" else ["aten::lstm_cell"],
                            threads=1,
                            settings={"tf32": False, "caches": "hot"},
                            stopped="decided" if passed else "",
                            fits={"batch": 4} if outcome == Outcome.OUT_OF_MEMORY else {},
                            warm_up=_warm_up(implementation, float(seconds[0])) if passed else [],
                            memory=_memory(implementation, device, tokens * size * 4 * gates) if passed else {},
                            limit=_limit(device, flops, 4 * (gates * 2 * size * size + 2 * tokens * size)) if passed else {},
                            evidence=_evidence(length, timed_pass) if passed else {},
                        )
                    )
    return answer


def _warm_up(implementation: str, seconds: float) -> list[float]:
    """The script is compiled in its first two calls, the rest only takes longer at first."""
    return [0.4, 0.2, *[seconds] * 3] if implementation.startswith("script:") else [seconds * 9, *[seconds] * 4]


def _memory(implementation: str, device: str, bytes: int) -> dict[str, Any]:
    if implementation == HOSTILE:
        return {"unavailable": "there was not enough memory for <b>several</b> calls"}
    kind = ("allocator", 512) if device == "cuda" else ("resident", 262144)
    return {"bytes": bytes * (3 if implementation.startswith("loop:") else 2), "method": kind[0], "resolution": kind[1]}


def _limit(device: str, flops: int, bytes: int) -> dict[str, Any]:
    matmul, memory = (2e13, 2e12) if device == "cuda" else (6e10, 1e10)
    bound = "arithmetic" if flops / matmul > bytes / memory else "memory"
    rates = {"matmul_flops_per_second": matmul, "memory_bytes_per_second": memory, "matmul": "8192x8192x8192 float32"}
    return {"seconds": max(flops / matmul, bytes / memory), "bound": bound, "bytes": bytes, **rates, "memory": "copy of 268435456 bytes"}


def _evidence(length: int, timed_pass: str) -> dict[str, Any]:
    """Others were busy while the long ones were sampled, and the thread had to wait once."""
    seen = Seen(seconds=1.5, others=0.58 if length > 64 else 0.25 if length == 64 else 0.02, stolen=0.0,
                waited=0.15 if (length, timed_pass) == (2, "training") else 0.0)  # fmt: skip
    return {**asdict(seen), "told": sentences(seen)}


def gpu_throughput() -> list[Throughput]:
    """The same as a GPU would have it: torch's own are quick and the others wait for their launches."""
    answer = []
    for cell in throughput("cuda"):
        fused = cell.implementation.startswith("torch:")
        samples = [seconds / 40 for seconds in cell.samples] if fused else cell.samples
        issued = [min(4e-5, 0.95 * seconds) for seconds in samples] if fused else [0.97 * seconds for seconds in samples]
        times: dict[str, Any] = {"issued": issued, "device_samples": [0.98 * seconds for seconds in samples]}
        if samples:
            median = float(np.median(samples))
            times["warm_up"] = [median * 200 if fused else 0.9, *[median] * 4]
        if cell.implementation == "loop:hoisted" and cell.timed_pass == "training" and cell.sequence_length > 256:
            answer.append(replace(cell, outcome=str(Outcome.OUT_OF_MEMORY), samples=[], rounds=[], message="CUDA out of memory",
                                  fits={"batch": 8 if cell.sequence_length == 512 else 0}))  # fmt: skip
            continue
        answer.append(replace(cell, samples=samples, **times))
    return answer


def versus() -> list[Versus]:
    """Two environments, on two workloads of which one could not be compared."""
    shared: dict[str, Any] = {"mode": "lstm", "device": "cpu", "dtype": "float32", "timed_pass": "inference"}
    ends: dict[str, Any] = {"verdict": "slower", "ratio": 1.02, "low": 1.01, "high": 1.03, "ratios": [1.02] * 5}
    return [
        Versus("release/lstm", "release", "torch:onednn", "torch==1", "torch==2", "passed", **shared, **ends),
        Versus("release/gru", "release", "torch:onednn", "torch==1", "torch==2", "crashed", **shared),
    ]


SIDES = {
    "base": ({"python": "3.11.9", "onednn": "3.9"}, {"torch": "2.11.0", "numpy": "2.4.6", "sympy": "1.13"}),
    "head": ({"python": "3.11.9", "onednn": "3.10"}, {"torch": "2.13.0", "numpy": "2.4.6", "<b>mypkg</b>": "1.0"}),
}
"""What two environments have: versions that they say of themselves, and what is installed."""


def versus_run(directory: Path, complete: bool = True, what: str = "versus", **changes: Any) -> Path:
    """The run file of two environments side by side: one of every verdict and outcome, hostile names, a workload that was never begun."""
    generator = np.random.default_rng(13)
    names = {"base": "torch==2.11.0", "head": "torch==2.13.0 <script>alert(2)</script>"}
    python = {side: f"/venvs/{side}/bin/python" for side in SIDES}
    records = []
    for workload, implementation, outcome, verdict, effect in (
        ("release/lstm-T64", "torch:onednn", "passed", "slower", 1.08),
        ("release/gru-T64", "torch:onednn", "passed", "faster", 0.91),
        ("release/rnn_tanh-T64", "torch:onednn", "passed", "same", 1.001),
        ("release/lstm-T1024", "torch:onednn", "passed", "undecided", 1.02),
        ("release/lstm-T64", HOSTILE, "passed", "undecided", 1.03),
        ("release/gru-T64", HOSTILE, "failed", "", math.nan),
        ("release/rnn_tanh-T64", HOSTILE, "unavailable", "", math.nan),
    ):
        mode = workload.split("/")[1].rpartition("-")[0]
        shared: dict[str, Any] = {"mode": mode, "device": "cpu", "dtype": "float32", "timed_pass": "inference", "threads": 1}
        shared |= {"environments": {side: {"python": python[side], "origin": f"/venvs/{side}/{implementation}.py"} for side in SIDES}}
        empty = Versus(workload, "release", implementation, names["base"], names["head"], outcome, **shared)
        if outcome != "passed":
            told = "head: " + (
                "h_n: 37 of 480 elements are off\n  <i>worst</i>" if outcome == "failed" else "<b>no module</b> of this name"
            )
            records.append(replace(empty, message=told))
            continue
        found = [effect * float(np.exp(generator.normal(0, 0.03 if verdict == "undecided" else 0.004))) for _ in range(6)]
        kernels = {"base": ["aten::mkldnn_rnn_layer"], "head": ["aten::lstm_cell" if verdict == "slower" else "aten::mkldnn_rnn_layer"]}
        for pairs in (1, 6):
            # One record after each pair; the last counts.
            own = found[:pairs]
            width = 0.05 if verdict == "undecided" else 0.008
            whole = pairs == len(found)
            evidence = [asdict(Seen(2.0, others=0.4 if k == 2 else 0.01, stolen=0.0, waited=0.0)) for k in range(pairs)]
            records.append(
                replace(
                    empty, verdict=verdict if whole else "undecided", ratio=float(np.exp(np.mean(np.log(own)))), kernels=kernels,
                    low=effect * (1 - width) if whole else None, high=effect * (1 + width) if whole else None, ratios=own,
                    base_seconds=[0.0012] * pairs, head_seconds=[0.0012 * ratio for ratio in own], rounds=[60] * pairs, seconds=9.0 * pairs,
                    stopped=("pairs" if verdict == "undecided" else "decided") if whole else "",
                    evidence=[{**seen, "told": sentences(Seen(**seen))} for seen in evidence],
                )
            )  # fmt: skip
    policy = {
        **names, "pairs": 8, "builds": 3, "environments": {side: {"versions": own} for side, (own, _) in SIDES.items()},
        "installed": {side: installed for side, (_, installed) in SIDES.items()},
    }  # fmt: skip
    workloads: dict[str, Any] = {name: {} for name in [*(record.workload for record in records), "release/never-T1"]}
    given: dict[str, Any] = {"contracts": {}, "implementations": {}, "workloads": workloads, "policy": policy, **changes}
    return write(directory, complete=complete, what=what, results=records, **given)


def calibrations() -> list[Calibration]:
    """Ten comparisons of equal things, one of which was called slower, and ten with a slowdown of 2 %, of which nine found it."""
    return [
        Calibration(0.0, "passed", 10, {"faster": 0, "slower": 1, "same": 8, "undecided": 1}, [1.0] * 10, [1.0, 2.0] * 5, 6.0),
        Calibration(0.02, "passed", 10, {"faster": 0, "slower": 9, "same": 0, "undecided": 1}, [1.02] * 10, [0.5, 0.75] * 5, 6.0),
    ]


def write(
    directory: Path,
    *,
    complete: bool = True,
    what: str = "all",
    results: list[Any] | None = None,
    coverage: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A specimen run file in ``directory``; without its footer if it is not ``complete``."""
    writer = RunWriter(directory, what, header(**changes))
    everything: list[Any] = [*conformance(), *throughput()]
    for result in everything if results is None else results:
        writer.append(result)
    path = writer.close(1, coverage)
    if not complete:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:-1]), encoding="utf-8")
    return path


def benchmark_json(path: Path, cells: list[Throughput]) -> Path:
    """The pytest-benchmark file that a session with these cells would leave beside its run file."""
    names = ("workload", "workload_set", "implementation", "outcome", "mode", "device", "dtype", "timed_pass", "sequence_length",
             "batch_size", "input_size", "hidden_size", "tokens", "flops", "tokens_per_second", "flops_per_second", "agreement",
             "kernels", "threads", "rounds", "warm_up", "stopped", "settings", "fits", "memory", "limit", "evidence", "issued",
             "device_samples")  # fmt: skip
    benchmarks = [
        {
            "group": cell.workload,
            "name": f"test_throughput[{cell.implementation}]",
            "fullname": f"suites/test_throughput.py::test_throughput[{cell.implementation}]",
            "extra_info": {**{name: getattr(cell, name) for name in names}, "environment": header().environment},
            "stats": {"data": cell.samples, "median": float(np.median(cell.samples)), "iterations": 1},
        }
        for cell in cells
        if cell.samples
    ]
    path.write_text(json.dumps({"machine_info": {"node": "specimen"}, "benchmarks": benchmarks, "datetime": "2026-01-02", "version": "5"}))
    return path


def small(path: Path) -> Path:
    """A run file of a few lines at ``path``, with every kind of record and every key that is written today."""
    checked = [next(result for result in conformance(2) if result.outcome == outcome) for outcome in (Outcome.PASSED, Outcome.FAILED)]
    timed = [next(cell for cell in throughput() if cell.outcome == outcome) for outcome in (Outcome.PASSED, Outcome.OUT_OF_MEMORY)]
    mutant = Mutation(checked[0].contract, "mutant:one", "passed", "wrong in one place", {"lstm": "killed"})
    contract = {checked[0].contract: contracts()[checked[0].contract]}
    results = [*checked, *timed, mutant, *calibrations()[:1], *versus()[:1]]
    written = write(path.parent, what=path.stem, results=results, coverage={}, contracts=contract)
    return written.replace(path)


if __name__ == "__main__":
    print(small(Path(sys.argv[1])))

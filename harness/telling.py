"""What the terminal says at the end of a run: how strong the suite is, and how each implementation fared."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.layer import Mode
from harness.outcome import Outcome
from harness.record import Conformance, Mutation, Throughput


def kill_matrix(mutations: Sequence[Mutation]) -> list[str]:
    """For each contract and each mutant, in which modes the contract rejects it, and the score; nothing where no mutant was run."""
    if not mutations:
        return []
    modes = [mode.value for mode in Mode]
    width = max(len(m.mutant) for m in mutations)
    lines = [f"{'':{width}}  {' '.join(modes)}"]
    cell = {"killed": "x", "survived": "-"}
    for contract, group in itertools.groupby(sorted(mutations, key=lambda m: m.contract), key=lambda m: m.contract):
        lines.append(contract)
        for m in group:
            row = " ".join(f"{cell.get(m.modes.get(mode, ''), ''):^{len(mode)}}" for mode in modes)
            lines.append(f"{m.mutant:{width}}  {row}{'' if m.outcome == Outcome.PASSED else '  SURVIVED'}".rstrip())
    killed = sum(m.outcome == Outcome.PASSED for m in mutations)
    lines.append("x: rejected in this mode; -: seen in another mode only; blank: the mutant or the contract does not exist in it")
    lines.append(f"mutant score: {killed} of {len(mutations)} rejected by the contract that names them ({killed / len(mutations):.1%})")
    return lines


def summary(results: Sequence[Conformance | Throughput]) -> list[str]:
    """One line for each implementation: how many of its results ended how, and which contracts it broke."""
    if not results:
        return []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    broken: dict[str, list[str]] = defaultdict(list)
    for result in results:
        counts[result.implementation][result.outcome] += 1
        if isinstance(result, Conformance) and Outcome(result.outcome).fails_run and result.contract not in broken[result.implementation]:
            broken[result.implementation].append(result.contract)
    width = max(len(name) for name in counts)
    lines = []
    for name, found in counts.items():
        lines.append(f"{name:{width}}  " + ", ".join(f"{found[o]} {o.value}" for o in Outcome if found[o]))
        if broken[name]:
            lines.append(f"{'':{width}}  breaks {len(broken[name])}: {', '.join(broken[name])}")
    return lines


def nothing_checked(results: Sequence[Conformance]) -> list[str]:
    """One line where not one of the contracts that were asked for says anything about the implementations, which is no success."""
    said_nothing = (Outcome.DOES_NOT_APPLY, Outcome.UNAVAILABLE)
    return (
        ["nothing was checked: no contract that was asked for applies here"]
        if results and all(result.outcome in said_nothing for result in results)
        else []
    )


def timed_alone(results: Sequence[Throughput]) -> list[str]:
    """One line where one implementation was timed and no other, so that nothing can be compared."""
    names = sorted({result.implementation for result in results})
    return [f"{names[0]} was timed alone: --baseline ID times another one beside it, to be compared with"] if len(names) == 1 else []


def replaced_baseline(asked: str, results: Sequence[Throughput]) -> list[str]:
    """One line where the baseline that was ``asked`` for has no times on some workload, so that others are compared with another one."""
    lost = [result for result in results if result.implementation == asked and result.outcome != Outcome.PASSED]
    if not lost:
        return []
    timed = {(result.workload, result.device) for result in results}
    why = lost[0].message.partition("\n")[0] or lost[0].outcome
    return [f"--baseline {asked} has no times on {len(lost)} of {len(timed)} workloads ({why}): the others are not compared with it there"]

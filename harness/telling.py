"""What the terminal says at the end of a run: how strong the suite is, and how each implementation fared."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.layer import Mode
from harness.outcome import NOT_RUN, Outcome
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


#: How many failures of one implementation the terminal tells whole.
WHOLE = 12

#: How many likely causes are named.
NAMED = 3

#: How wide a list of contracts is set.
_WIDTH = 140


def told_whole(failures: Sequence[Conformance]) -> set[int]:
    """Which of ``failures``, by their place, the terminal tells whole: of each implementation the first :data:`WHOLE` that are unlike.

    Alike are those that have one likely cause; and of one contract, those that ended in one way, or gave wrong values where the cause of
    other wrong values was recognised.
    """
    explained = {(failure.implementation, failure.contract) for failure in failures if failure.hint}
    unlike: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    answer = set()
    for place, failure in enumerate(failures):
        # Where nothing was compared it raised, or crashed: that is another thing than a wrong value.
        compared, seen = bool(failure.errors), unlike[failure.implementation]
        kind = (failure.hint,) if failure.hint else (failure.contract, failure.outcome, compared)
        known = not failure.hint and compared and (failure.implementation, failure.contract) in explained
        if not known and kind not in seen and len(seen) < WHOLE:
            seen.add(kind)
            answer.add(place)
    return answer


def left_untold(failures: Sequence[Conformance]) -> list[str]:
    """One line where not every failure is told whole: how many are, and where the rest is."""
    whole, count = len(told_whole(failures)), len(failures)
    told = f"told whole: {whole} of {count} failures, each unlike the others; -v tells all, and so does the run file"
    return [told] if whole < count else []


def likely_causes(hints: Sequence[str]) -> list[str]:
    """The commonest likely causes, and how many of the failures each explains. ``hints``: of every failure, empty where none is known."""
    total = f"{len(hints)} failure{'s' if len(hints) != 1 else ''}"
    return [f"{hint}: {count} of {total}" for hint, count in Counter(filter(None, hints)).most_common(NAMED)]


def summary(results: Sequence[Conformance | Throughput]) -> list[str]:
    """For each implementation, how many of its results ended how, which contracts it broke, and the likely causes."""
    if not results:
        return []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failures: dict[str, list[Conformance]] = defaultdict(list)
    for result in results:
        counts[result.implementation][result.outcome] += 1
        if isinstance(result, Conformance) and Outcome(result.outcome).fails_run:
            failures[result.implementation].append(result)
    width = max(len(name) for name in counts)
    lines = []
    for name, found in counts.items():
        lines.append(f"{name:{width}}  " + ", ".join(f"{found[o]} {o.value}" for o in Outcome if found[o]))
        if own := failures[name]:
            broken = dict.fromkeys(failure.contract for failure in own if not failure.message.startswith(NOT_RUN))
            left = len({failure.contract for failure in own}) - len(broken)
            indent = " " * (width + 2)
            told = f"breaks {len(broken)}: {', '.join(broken)}" + (
                f"; {left} more were not run, as these were not answered" if left else ""
            )
            lines += textwrap.wrap(told, max(_WIDTH, 2 * width), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            lines += [f"{indent}likely: {cause}" for cause in likely_causes([failure.hint for failure in own])]
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

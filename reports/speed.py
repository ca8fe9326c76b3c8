"""What the timed cells say: rates, speed relative to the baseline, and the fastest implementation for each use."""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import pandas as pd

from harness.outcome import Outcome
from harness.statistics import LEVEL, Effect, Verdict, mean, verdicts
from harness.workload import baseline_of
from reports import metrics
from reports.fields import mapping, text
from reports.load import Frames
from reports.rounds import Rounds
from reports.tables import rows

IDENTITY = ["mode", "timed_pass", "place", "configuration", "sequence_length"]
"""What two cells must share for their times to be compared."""

LENGTHS = (("one step", 1, 1), ("short", 2, 63), ("long", 64, 10**9))
"""Uses by sequence length T: name, first T, last T."""


def cells(frames: Frames, named: bool = False) -> pd.DataFrame:
    """One row per cell: the throughput frame with what follows from the samples, the columns of :data:`reports.columns.CELLS`.

    ``named``: the place names the machine although there is but one.
    """
    answer = frames.throughput.copy()
    several = named or answer["machine"].nunique() > 1
    answer["place"] = [_device(row.device) + (f" · {row.machine}" if several else "") for row in rows(answer)]
    answer["sizes"] = [_sizes(row) for row in rows(answer)]
    answer["rest"] = [_rest(row) for row in rows(answer)]
    answer["configuration"] = [_configuration(row) for row in rows(answer)]
    by_cell = frames.samples.groupby("cell")
    answer["samples"] = by_cell.size().reindex(answer["cell"], fill_value=0).to_numpy()
    for column, share in (("seconds", 0.5), ("seconds_low", 0.25), ("seconds_high", 0.75)):
        answer[column] = by_cell["seconds"].quantile(share).reindex(answer["cell"]).to_numpy(dtype=float)
    for column, seconds in (("rate", "seconds"), ("rate_low", "seconds_high"), ("rate_high", "seconds_low")):
        answer[column] = _each(metrics.per_second, answer["tokens"], answer[seconds])
    answer["gflops"] = [rate / 1e9 for rate in _each(metrics.per_second, answer["flops"], answer["seconds"])]
    for column in ("issued", "device_seconds"):
        answer[column] = by_cell[column].median().reindex(answer["cell"]).to_numpy(dtype=float)
    answer["host_share"] = _each(metrics.share, answer["issued"], answer["seconds"])
    answer["limit_rate"] = _each(metrics.per_second, answer["tokens"], answer["limit_seconds"])
    answer["limit_share"] = _each(metrics.share, answer["limit_seconds"], answer["seconds"])
    return answer


def _each(function: Callable[[float, float], float], left: pd.Series[Any], right: pd.Series[Any]) -> list[float]:
    return [function(a, b) for a, b in zip(left, right, strict=True)]


def _device(name: str) -> str:
    return name.upper() if name in ("cpu", "cuda") else name


def _sizes(row: Any) -> str:
    if not row.hidden_size:
        return ""
    return f"B={row.batch_size}, " + (
        f"I=H={row.hidden_size}" if row.input_size == row.hidden_size else f"I={row.input_size}, H={row.hidden_size}"
    )


def _rest(row: Any) -> str:
    if not row.hidden_size:
        return ""
    parts = []
    if row.num_layers > 1:
        parts.append(f"L={row.num_layers}")
    if row.proj_size:
        parts.append(f"P={row.proj_size}")
    if row.bidirectional:
        parts.append("bidirectional")
    if not row.bias:
        parts.append("no biases")
    parts.append(row.dtype)
    if row.threads and row.device == "cpu":
        parts.append(f"{row.threads} thread{'' if row.threads == 1 else 's'}")
    if row.caches == "cold":
        parts.append("cold caches")
    return ", ".join(parts)


def _configuration(row: Any) -> str:
    # Of a file that says nothing of sizes, the workload's name is all that tells its cells apart.
    return ", ".join(filter(None, (row.sizes, row.rest))) or ("" if row.sequence_length else row.workload)


def newest(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The most recent cell of each implementation for each identity: what became of it there, whoever was timed since."""
    return _ordered(cells, runs).drop_duplicates([*IDENTITY, "implementation"], keep="last").sort_values("cell")


def _ordered(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The cells, those of the oldest run first."""
    created = cells["run"].map(runs.set_index("run")["created"])
    return cells.assign(created=created).sort_values(["created", "cell"], kind="stable").drop(columns="created")


def latest(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the most recent run for each identity, so that one figure never mixes two runs of one workload."""
    if cells.empty:
        return cells
    ordered = _ordered(cells, runs)
    last = ordered.groupby(IDENTITY)["run"].transform("last")
    # Within the newest run of an identity a cell may still be there twice: the last one taken counts.
    return ordered[ordered["run"] == last].drop_duplicates([*IDENTITY, "implementation"], keep="last").sort_values("cell")


def without_a_rate(cells: pd.DataFrame) -> pd.Series[bool]:
    """Which of the cells have times, and nothing that says how many tokens these are of."""
    return (cells["samples"] > 0) & ~cells["rate"].between(0, math.inf, inclusive="neither")


Baselines = dict[tuple[str, str, str], str]
"""(run, mode, place) -> the implementation that the others are compared with."""


def baselines(cells: pd.DataFrame, frames: Frames, implementations: list[str], asked: str = "") -> Baselines:
    """Of each run: what was ``asked`` for, else what its policy names under ``baseline``, else the first of the family ``torch`` that was
    timed there, else the first that was.
    """
    policies = {row.run: text(mapping(row.policy).get("baseline")) for row in rows(frames.runs)}
    there: dict[tuple[str, str, str], set[str]] = {}
    for row in rows(cells[cells["samples"] > 0]):
        there.setdefault((row.run, row.mode, row.place), set()).add(row.implementation)
    answer = {}
    for key, names in there.items():
        named = next((name for name in (asked, policies.get(key[0], "")) if name in names), "")
        answer[key] = baseline_of([name for name in implementations if name in names], named)
    return answer


def relative(frames: Frames, cells: pd.DataFrame, implementations: list[str], rounds: Rounds) -> pd.DataFrame:
    """One row per timed cell beside its baseline: speedup (above 1 is faster), low, high (99 % interval), rounds, verdict, baseline.

    The verdicts hold for all rows together, as those of :func:`reports.comparison.compared` do.
    """
    current = latest(cells, frames.runs)
    reference = baselines(current, frames, implementations)
    # In lists and not in frames: a small frame for each workload takes a hundred times as long as its rows.
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows(current[(current["samples"] > 0) & (current["sequence_length"] > 0)]):
        groups.setdefault(tuple(getattr(row, name) for name in IDENTITY), []).append(row)
    answer: list[dict[str, Any]] = []
    effects: dict[str, Effect] = {}
    for identity in sorted(groups):
        keys, group = dict(zip(IDENTITY, identity, strict=True)), groups[identity]
        baseline = reference[group[0].run, group[0].mode, group[0].place]
        base = next((row for row in group if row.implementation == baseline), None)
        if base is None:
            continue
        for row in group:
            if row.implementation == baseline:
                continue
            effects[str(len(answer))] = beside = rounds.beside(row.cell, base.cell)
            found = metrics.speed(beside)
            speedup = found.speedup if found.rounds else base.seconds / row.seconds
            answer.append(
                {
                    **keys,
                    "implementation": row.implementation,
                    "baseline": baseline,
                    "speedup": speedup,
                    "low": found.low,
                    "high": found.high,
                    "rounds": found.rounds,
                }
            )
    judged = verdicts(effects)
    answer = [{**row, "verdict": str(judged[str(number)])} for number, row in enumerate(answer)]
    return pd.DataFrame(answer, columns=[*IDENTITY, "implementation", "baseline", "speedup", "low", "high", "rounds", "verdict"])


class Lead(StrEnum):
    """What may be said of a use: one wins, one is there alone, the best two are the same or not decided, nobody conforms."""

    WON = "won"
    ALONE = "alone"
    SAME = "same"
    UNDECIDED = "undecided"
    NONE = "none"


def lead(use: Any) -> Lead:
    """What may be said of a row of :func:`fastest`."""
    if not use.leader:
        return Lead.NONE
    if not use.runner_up:
        return Lead.ALONE
    if use.winner:
        return Lead.WON
    return Lead.SAME if use.verdict == Verdict.SAME else Lead.UNDECIDED


def fastest(
    frames: Frames,
    cells: pd.DataFrame,
    implementations: list[str],
    conforming: list[str],
    untested: list[str],
    rounds: Rounds,
    each: bool = False,
) -> pd.DataFrame:
    """One row per use: the fastest conforming implementation, or why there is none.

    A use is a mode, pass, place and configuration with the lengths of one of :data:`LENGTHS`, or, of ``each``, with one T. Only an
    implementation that was timed on all its workloads can win; it wins if it is faster than every other at a level of 99 % for the use
    as a whole (each comparison gets its share of the 1 %).

    Columns: mode, timed_pass, place, configuration, sizes and rest (its parts), batch_size, hidden_size, size (the work of a step, up to
    a factor), length, lengths (list of T), winner (empty if undecided), leader, runner_up (the next, or the one that it cannot be set
    apart from), speedup, low, high (leader over runner-up), verdict, outcomes (implementation -> what became of it, where it has not all
    the times), passed_over (list of sentences).
    """
    answer = []
    for keys, length, use in _uses(latest(cells, frames.runs), each):
        workloads = sorted({row.sequence_length for row in use})
        timed: dict[str, dict[int, Any]] = {}
        for row in use:
            if row.samples > 0:
                timed.setdefault(row.implementation, {})[row.sequence_length] = row
        logs = {name: stdlib.fmean(math.log(row.seconds) for row in own.values()) for name, own in timed.items()}
        whole = [name for name in implementations if len(timed.get(name, ())) == len(workloads)]
        ranked = sorted((name for name in whole if name in conforming), key=logs.__getitem__)
        found = {**keys, "length": length, "lengths": workloads, "winner": "", "leader": "", "runner_up": "", "speedup": math.nan}
        found |= {"low": math.nan, "high": math.nan, "verdict": ""}
        found["passed_over"] = _passed_over(use, whole, ranked, conforming, untested, logs)
        found["outcomes"] = {str(row.implementation): str(row.outcome) for row in use if row.samples == 0}
        if ranked:
            found |= _contest(ranked, workloads, timed, rounds)
        answer.append(found)
    return pd.DataFrame(answer, columns=list(_FASTEST_COLUMNS))


_FASTEST_COLUMNS = (
    "mode", "timed_pass", "place", "configuration", "sizes", "rest", "batch_size", "hidden_size", "size", "length", "lengths", "winner",
    "leader", "runner_up", "speedup", "low", "high", "verdict", "outcomes", "passed_over",
)  # fmt: skip


def _contest(ranked: list[str], workloads: list[int], timed: dict[str, dict[int, Any]], rounds: Rounds) -> dict[str, Any]:
    """The fields of a use that follow from comparing ``ranked``, quickest median first, with each other."""
    level = 1 - (1 - LEVEL) / max(len(ranked) - 1, 1)

    def contest(name: str, other: str) -> metrics.Speed:
        pairs = [(timed[name][length].cell, timed[other][length].cell) for length in workloads]
        return metrics.speed(mean([rounds.beside(*pair) for pair in pairs]), level)

    leader = ranked[0]
    for other in ranked[1:]:
        # Medians of whole samples can mislead where the machine drifted; the paired rounds have the last word.
        if contest(leader, other).verdict == Verdict.SLOWER:
            leader = other
    found = {other: contest(leader, other) for other in ranked if other != leader}
    if not found:
        return {"winner": leader, "leader": leader}
    doubt = (Verdict.UNDECIDED, Verdict.SLOWER, Verdict.SAME)
    rival = next((other for kind in doubt for other, speed in found.items() if speed.verdict == kind), next(iter(found)))
    closest = found[rival]
    # Leader and rival may each beat a third that beats the other; nothing is decided then.
    verdict = Verdict.UNDECIDED if closest.verdict == Verdict.SLOWER else closest.verdict
    speedup = closest.speedup
    if not closest.rounds:
        speedup = math.exp(stdlib.fmean(math.log(timed[rival][length].seconds / timed[leader][length].seconds) for length in workloads))
    winner = leader if verdict == Verdict.FASTER else ""
    return {
        "winner": winner,
        "leader": leader,
        "runner_up": rival,
        "speedup": speedup,
        "low": closest.low,
        "high": closest.high,
        "verdict": str(verdict),
    }


def _uses(cells: pd.DataFrame, each: bool) -> Iterator[tuple[dict[str, Any], str, list[Any]]]:
    """What a use is, its length in words, and its cells."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in rows(cells[cells["sequence_length"] > 0]):
        groups.setdefault((row.place, row.configuration, row.timed_pass, row.mode), []).append(row)
    for values, group in groups.items():
        first = group[0]
        of_use = dict(zip(("place", "configuration", "timed_pass", "mode"), values, strict=True))
        of_use |= {name: getattr(first, name) for name in ("sizes", "rest", "batch_size", "hidden_size")}
        of_use |= {"size": first.batch_size * first.hidden_size * (first.hidden_size + first.input_size)}
        spans = [(str(length), length, length) for length in sorted({row.sequence_length for row in group})] if each else LENGTHS
        for name, low, high in spans:
            use = [row for row in group if low <= row.sequence_length <= high]
            if use:
                yield of_use, name, use


def _passed_over(
    use: list[Any], whole: list[str], ranked: list[str], conforming: list[str], untested: list[str], logs: Mapping[str, float]
) -> list[str]:
    """Who was not considered although it may be of interest: faster but not conforming, or without a time for every T."""
    answer = []
    for name in whole:
        if name not in conforming and (not ranked or logs[name] < logs[ranked[0]]):
            why = "no contract was run on it" if name in untested else "it does not conform"
            answer.append(f"{name} {'took less time' if ranked else 'was timed'}, but {why}")
    lost: dict[str, list[Any]] = {}
    for row in use:
        if row.outcome != Outcome.PASSED:
            lost.setdefault(row.implementation, []).append(row)
    for name, own in lost.items():
        if name in conforming and name not in whole and not all(row.outcome == Outcome.UNAVAILABLE for row in own):
            answer.append(f"{name}: {', '.join(f'{row.outcome} at T={row.sequence_length}' for row in own)}")
    return answer

"""What the records say: who conforms, contract by contract, and every number that the page prints about conformance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import pandas as pd

from harness.outcome import NOT_RUN, Outcome, Severity
from harness.telling import likely_causes
from reports import costs, speed
from reports.load import Frames
from reports.machines import only
from reports.rounds import Rounds
from reports.side_by_side import SideBySide, side_by_side
from reports.tables import counted, rows

WORST_FIRST = (
    Outcome.CRASHED,
    Outcome.TIMED_OUT,
    Outcome.OUT_OF_MEMORY,
    Outcome.FAILED,
    Outcome.EXPECTED_FAILURE,
    Outcome.UNSUPPORTED,
    Outcome.PASSED,
    Outcome.UNAVAILABLE,
    Outcome.DOES_NOT_APPLY,
)
"""Which outcome of many cases a cell shows. What could not run stands below 'passed': it says nothing about the rest."""


BREAKING = tuple(outcome for outcome in Outcome if outcome.fails_run)

NO_RIGHT_ANSWER = tuple(outcome for outcome in BREAKING if outcome is not Outcome.OUT_OF_MEMORY)
"""What costs a timed implementation the name of a drop-in: too little memory for one size is no wrong answer."""


def gravity(severity: str) -> int:
    """By what contracts are sorted: MUST before SHOULD before MAY, and last what a file calls otherwise."""
    return _GRAVITY.get(severity, len(_GRAVITY))


_GRAVITY = {str(severity): place for place, severity in enumerate(Severity)}


class Suitability(StrEnum):
    """Whether an implementation can take the place of torch's own."""

    DROP_IN = "drop-in"
    PARTIAL = "in part"
    SO_FAR = "no failure so far"
    NOT_DROP_IN = "not a drop-in"
    NOT_TESTED = "not tested"
    UNAVAILABLE = "unavailable"

    @property
    def meaning(self) -> str:
        return {
            "drop-in": "every contract of the catalogue was run and none that applies was broken",
            "in part": "what it answers is right, but it refuses something that users of torch's own rely on",
            "no failure so far": "nothing was broken, but the run is not complete or did not cover the catalogue",
            "not a drop-in": "a contract was broken, or a timed workload gave a wrong answer or none",
            "not tested": "no contract was run on it",
            "unavailable": "cannot run on this machine",
        }[self.value]

    @property
    def conforms(self) -> bool:
        """Whether it may be called the fastest."""
        return self in (Suitability.DROP_IN, Suitability.PARTIAL, Suitability.SO_FAR)


@dataclass(frozen=True)
class Findings:
    """Frames and what follows from them, each computed once, when it is first asked for.

    ``whole``: the findings of all machines, where these are those of one among several. What is said of conformance holds for one machine:
    ask the :attr:`parts`.
    """

    frames: Frames
    whole: Findings | None = None

    @cached_property
    def machines(self) -> list[str]:
        """Every machine, in the order of the runs."""
        return list(dict.fromkeys(self.frames.runs["machine"]))

    @cached_property
    def parts(self) -> list[Findings]:
        """The findings of each machine: nothing that was found on one is mixed with what was found on another."""
        return [self] if len(self.machines) < 2 else [Findings(only(self.frames, machine), self) for machine in self.machines]

    @property
    def machine(self) -> str:
        """The machine's name where it has to be told from others, else empty."""
        return self.machines[0] if self.whole else ""

    @cached_property
    def implementations(self) -> list[str]:
        """Every id, in the order of the first header that names it."""
        named = [self.frames.implementations, self.frames.conformance, self.frames.throughput]
        return list(dict.fromkeys(str(name) for frame in named for name in frame["implementation"].unique()))

    @cached_property
    def timed(self) -> list[str]:
        """Those that were timed on any machine, in the same order: what figures of speed need colours for."""
        if self.whole:
            return self.whole.timed
        known = set(self.frames.throughput["implementation"])
        return [name for name in self.implementations if name in known]

    @property
    def drawn(self) -> list[str]:
        """Every implementation, those that were timed first: the order that gives each its colour and mark in every figure."""
        everyone = self.whole.implementations if self.whole else self.implementations
        return list(dict.fromkeys([*self.timed, *everyone]))

    @cached_property
    def side_by_side(self) -> list[SideBySide]:
        """Environments that were compared, machine by machine."""
        return [found for part in self.parts for found in side_by_side(part.frames, part.machine)]

    @cached_property
    def current(self) -> Frames:
        return current(self.frames)

    @cached_property
    def superseded(self) -> int:
        """How many results of contracts do not count because a later run checked the same thing."""
        return len(self.frames.conformance) - len(self.current.conformance)

    @cached_property
    def superseded_cells(self) -> int:
        """How many timed cells do not count because a later run timed the same workload."""
        return len(self.cells) - len(self.latest_cells)

    @cached_property
    def matrix(self) -> pd.DataFrame:
        return matrix(self.current)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        return verdicts(self.current, self.implementations, self.matrix, self.newest_cells)

    @cached_property
    def cells(self) -> pd.DataFrame:
        return speed.cells(self.frames, named=self.whole is not None)

    @cached_property
    def latest_cells(self) -> pd.DataFrame:
        """The cells of the last run of each timed workload."""
        return speed.latest(self.cells, self.frames.runs)

    @cached_property
    def newest_cells(self) -> pd.DataFrame:
        """What became of each implementation on each timed workload, the last time that it was timed."""
        return speed.newest(self.cells, self.frames.runs)

    @cached_property
    def rounds(self) -> Rounds:
        return Rounds(self.frames)

    @cached_property
    def relative(self) -> pd.DataFrame:
        return speed.relative(self.frames, self.cells, self.implementations, self.rounds)

    @cached_property
    def costs(self) -> pd.DataFrame:
        return costs.costs(self.frames, self.cells, self.relative, self.implementations)

    @cached_property
    def conforming(self) -> list[str]:
        """Those that may be called the fastest."""
        return [row.implementation for row in rows(self.verdicts) if Suitability(row.suitability).conforms]

    @property
    def tested(self) -> bool:
        """Whether a contract was run on one of them: that one gave a wrong answer when it was timed says nothing of the others."""
        return bool((self.verdicts["contracts"] > 0).any())

    @cached_property
    def fastest(self) -> pd.DataFrame:
        """One row per use; none where nothing was tested."""
        return self._fastest(each=False)

    @cached_property
    def fastest_of_each(self) -> pd.DataFrame:
        """The same with every T a use of its own."""
        return self._fastest(each=True)

    def _fastest(self, each: bool) -> pd.DataFrame:
        untested = [row.implementation for row in rows(self.verdicts) if row.suitability == Suitability.NOT_TESTED]
        found = speed.fastest(self.frames, self.cells, self.implementations, self.conforming, untested, self.rounds, each=each)
        return found if self.tested else found.iloc[:0]


def current(frames: Frames) -> Frames:
    """The frames without the results that a later run on the same machine has replaced.

    A run that follows a repair would otherwise be judged by the failures before it.
    """
    check = ["machine", "implementation", "contract", "case", "mode", "device", "dtype"]
    created = frames.conformance["run"].map(frames.runs.set_index("run")["created"])
    newest = created.groupby([frames.conformance[name] for name in check]).transform("max")
    if (created == newest).all():
        return frames
    conformance = frames.conformance[created == newest]
    return replace(frames, conformance=conformance, errors=frames.errors[frames.errors["line"].isin(conformance["line"])])


def undeclared(frames: Frames) -> pd.DataFrame:
    """The errors, less those of checks that failed as declared: these are known to be far off, and say nothing of how exact the rest is."""
    known = frames.conformance.loc[frames.conformance["outcome"] == Outcome.EXPECTED_FAILURE, "line"]
    return frames.errors[~frames.errors["line"].isin(known)]


def matrix(frames: Frames) -> pd.DataFrame:
    """One row per contract and implementation that has a result: the worst outcome of its cases, and how many had which.

    Columns: topic, contract, severity, implementation, outcome, cases, one count per :class:`Outcome`, worst_ratio (the
    largest error over floor of checks that did not fail as declared; infinite if an error was not finite).
    """
    counts = (
        frames.conformance.groupby(["contract", "implementation", "outcome"])
        .size()
        .unstack("outcome", fill_value=0)
        .reindex(columns=[str(outcome) for outcome in WORST_FIRST], fill_value=0)
    )
    answer = counts.copy()
    answer.insert(0, "outcome", [next((o for o in counts.columns if row[o]), "") for _, row in counts.iterrows()])
    answer.insert(1, "cases", counts.sum(axis=1))
    errors = undeclared(frames)
    ratios = errors.assign(ratio=errors["ratio"].where(errors["finite"], float("inf")))
    answer["worst_ratio"] = ratios.groupby(["contract", "implementation"])["ratio"].max().reindex(answer.index)
    about = frames.contracts.set_index("contract")[["topic", "severity"]]
    answer = answer.reset_index().join(about, on="contract")
    answer.columns.name = None
    order = {contract: place for place, contract in enumerate(frames.contracts["contract"])}
    return answer.sort_values("contract", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def verdicts(frames: Frames, implementations: list[str], matrix: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """One row per implementation: what it is, and why. ``cells``: those that count, of what was timed.

    Columns: implementation, suitability, reason, contracts (how many were run and apply), passed (how many of these passed in
    every case), broken (list of ids), causes (sentences: what many of the failures may come of), expected (ids that failed as declared),
    unsupported (ids), cases, worst_ratio.
    """
    answer = []
    for name in implementations:
        own = matrix[matrix["implementation"] == name]
        asked = own[~own["outcome"].isin([Outcome.DOES_NOT_APPLY, Outcome.UNAVAILABLE])]
        lines = frames.conformance[frames.conformance["implementation"] == name]
        begun = lines[lines["outcome"].isin(BREAKING) & ~lines["message"].str.startswith(NOT_RUN)]
        broken = asked[asked["outcome"].isin(BREAKING) & asked["contract"].isin(begun["contract"])]
        timed = cells[cells["implementation"] == name]
        wrong = timed[timed["outcome"].isin(NO_RIGHT_ANSWER)]
        suitability, reason = _judge(frames, name, lines, asked, broken, wrong)
        if left := int(asked["outcome"].isin(BREAKING).sum()) - len(broken):
            reason += f"; {counted(left, 'more contract')} not run, because it had not answered in time"
        answer.append(
            {
                "implementation": name,
                "suitability": str(suitability),
                "reason": reason,
                "contracts": len(asked),
                "passed": int((asked["outcome"] == Outcome.PASSED).sum()),
                "broken": list(broken["contract"]),
                "causes": likely_causes(list(lines.loc[lines["outcome"].isin(BREAKING), "hint"])),
                "expected": list(asked.loc[asked[str(Outcome.EXPECTED_FAILURE)] > 0, "contract"]),
                "unsupported": list(asked.loc[asked[str(Outcome.UNSUPPORTED)] > 0, "contract"]),
                "cases": int(asked["cases"].sum()),
                "worst_ratio": float(asked["worst_ratio"].max()) if len(asked) else float("nan"),
            }
        )
    return pd.DataFrame(answer, columns=list(_VERDICT_COLUMNS))


_VERDICT_COLUMNS = (
    "implementation",
    "suitability",
    "reason",
    "contracts",
    "passed",
    "broken",
    "causes",
    "expected",
    "unsupported",
    "cases",
    "worst_ratio",
)


def _judge(
    frames: Frames, name: str, lines: pd.DataFrame, asked: pd.DataFrame, broken: pd.DataFrame, wrong: pd.DataFrame
) -> tuple[Suitability, str]:
    if len(broken) or len(wrong):
        reasons = []
        if len(broken):
            levels = broken["severity"].value_counts()
            split = ", ".join(f"{levels[level]} {level}" for level in sorted(levels.index, key=gravity) if level)
            reasons.append(f"breaks {counted(len(broken), 'contract')} of {len(asked)}" + (f" ({split})" if split else ""))
        if len(wrong):
            reasons.append(f"wrong or no answer on {counted(len(wrong), 'timed workload')}")
        return Suitability.NOT_DROP_IN, "; ".join(reasons)
    if asked.empty:
        places = frames.implementations[frames.implementations["implementation"] == name]
        reasons = [f"{row.device or 'any device'}: {row.reason}" for row in rows(places) if row.reason]
        if len(places) and not places["available"].any():
            return Suitability.UNAVAILABLE, "; ".join(dict.fromkeys(reasons))
        return Suitability.NOT_TESTED, "no contract was run on it"
    gaps = _gaps(frames, lines)
    summary = f"{counted(int(asked['cases'].sum()), 'case')} of {counted(len(asked), 'contract')}"
    if gaps:
        return Suitability.SO_FAR, f"{gaps}; nothing broken in {summary}"
    # What only MAY be supported costs nobody the name.
    refused = asked[(asked[str(Outcome.UNSUPPORTED)] > 0) & asked["severity"].isin(["MUST", "SHOULD"])]
    if len(refused):
        some = ", ".join(refused["contract"].astype(str)[:3]) + (", ..." if len(refused) > 3 else "")
        return Suitability.PARTIAL, f"refuses cases of {counted(len(refused), 'contract')} of {len(asked)} ({some}); nothing broken"
    return Suitability.DROP_IN, f"nothing broken in {summary}"


def _gaps(frames: Frames, lines: pd.DataFrame) -> str:
    """Why the results of one implementation are not all that there should be; empty if they are."""
    runs = frames.runs[frames.runs["run"].isin(lines["run"].unique())]
    catalogues = [set(catalogue) for catalogue in frames.runs["catalogue"] if catalogue]
    # The newest: what is no contract any more is owed by nobody.
    catalogue = catalogues[-1] if catalogues else set()

    def missing(of: pd.DataFrame) -> int:
        # A contract that no implementation was given in a run was left out of that run; one that others were given and this one was not
        # did not concern it. In a run that was cut short its turn may not have come.
        return len(catalogue.difference(frames.conformance.loc[frames.conformance["run"].isin(of["run"]), "contract"]))

    reasons = []
    if missing(runs[runs["complete"]]) or not runs["complete"].any():
        if not runs["complete"].all():
            reasons.append("the run was cut short" if len(runs) == 1 else "a run was cut short")
        if left := missing(runs):
            reasons.append(f"only {len(catalogue) - left} of {counted(len(catalogue), 'contract')} were run")
    return "; ".join(reasons)

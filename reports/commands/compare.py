"""``compare``: what became faster and slower from one run to another."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from reports import comparison
from reports.commands.shared import RUN, Commands, distinct, known, read, timed
from reports.load import LoadError
from reports.words import interval


def add(commands: Commands) -> None:
    """Adds ``compare`` to the commands."""
    command = commands.add_parser(
        "compare",
        help="say what became faster and slower from one run to another; exit status 1 for a confirmed slowdown",
        description="Compares the ratios to the control, which both runs sampled beside the rest: absolute times do not travel. "
        "The exit status is 1 too for what had a time in BASE and has no right answer in HEAD, and 2 where nothing can be compared.",
    )
    command.add_argument("base", type=Path, metavar="BASE", help=RUN)
    command.add_argument("head", type=Path, metavar="HEAD", help="the same, of the run to be judged")
    command.add_argument("--control", default="", metavar="ID", help="what is taken not to have changed; default: the baseline")
    command.add_argument("--force", action="store_true", help="judge although the environments of the runs do not match")
    command.add_argument("--json", action="store_true", help="one JSON object per change and line")
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    base, head = read(chosen.base), read(chosen.head)
    timed(base, "BASE")
    timed(head, "HEAD")
    distinct(base, head)
    known(base, chosen.control)
    known(head, chosen.control)
    found = comparison.difference(base, head, chosen.control)
    judged = chosen.force or not found.mismatches
    for sentence in found.mismatches:
        print(f"warning: the environments differ: {sentence}", file=sys.stderr)
    if not judged:
        print(
            "warning: without verdicts, because the environments differ, and that is no change of an implementation; --force gives them",
            file=sys.stderr,
        )
    for change, where in zip(found.changes, comparison.wheres(found.changes), strict=True):
        verdict = change.verdict if judged else "not judged"
        if chosen.json:
            print(json.dumps({**change.as_json(), "verdict": verdict}))
        else:
            told = f"{change.base:.4f} -> {change.head:.4f} of the time of {change.control}"
            ratio = f"{change.ratio:.4f} ({interval(change.low, change.high, 4)})"
            print(f"{verdict:10}  {change.implementation} on {change.workload}{where}: {told}, {ratio}")
    for word, names in (("new", found.appeared), ("vanished", found.vanished)):
        for name in names:
            print(json.dumps({"verdict": word, "comparison": name}) if chosen.json else f"{word:10}  {name}")
    for sentence in found.broke:
        print(json.dumps({"verdict": "broke", "cell": sentence}) if chosen.json else f"{'broke':10}  {sentence}")
    if not found.changes and not found.broke:
        # A gate that compares nothing must not pass for one that found nothing.
        raise LoadError("Nothing to compare: BASE and HEAD have no implementation beside the same control on the same workload.")
    return 1 if found.broke or (judged and found.slower) else 0

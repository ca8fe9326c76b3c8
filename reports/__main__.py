"""The command line: ``python -m reports page | verdicts | compare``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import comparison, page
from reports.load import Frames, LoadError, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 for a confirmed slowdown, 2 for what cannot be read or written."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Turns run files into something to read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    runs = "a run file, a directory of run files (*.jsonl), or the JSON of pytest-benchmark"
    command = commands.add_parser("page", help="write a self-contained HTML page, and its figures as PNG and SVG")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where index.html and figures/ go; created if need be")
    command.set_defaults(run=_page)
    command = commands.add_parser("verdicts", help="print what may be said of each timed implementation beside its baseline")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    command.add_argument("--baseline", default="", metavar="ID", help="compare with this implementation; default: with the one of the run")
    command.add_argument("--json", action="store_true", help="one JSON object per comparison and line")
    command.set_defaults(run=_verdicts)
    command = commands.add_parser(
        "compare",
        help="say what became faster and slower from one run to another; exit status 1 for a confirmed slowdown",
        description="Compares the ratios to the control, which both runs sampled beside the rest: absolute times do not travel.",
    )
    command.add_argument("base", type=Path, metavar="BASE", help=runs)
    command.add_argument("head", type=Path, metavar="HEAD", help="the same, of the run to be judged")
    command.add_argument("--control", default="", metavar="ID", help="what is taken not to have changed; default: the baseline")
    command.add_argument("--force", action="store_true", help="judge although the environments of the runs do not match")
    command.add_argument("--json", action="store_true", help="one JSON object per change and line")
    command.set_defaults(run=_compare)
    chosen = parser.parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _read(*paths: Path) -> Frames:
    frames = load(paths)
    for problem in frames.problems:
        print(f"warning: {problem}", file=sys.stderr)
    return frames


def _page(chosen: argparse.Namespace) -> int:
    print(page.write(_read(*chosen.runs), chosen.out))
    return 0


def _known(frames: Frames, id: str) -> None:
    """Raises :class:`LoadError` for an implementation that was not timed."""
    timed = sorted(set(frames.throughput["implementation"]))
    if id and id not in timed:
        raise LoadError(f"Expected an implementation that was timed but got {id}: the runs have {', '.join(timed) or 'none'}.")


def _verdicts(chosen: argparse.Namespace) -> int:
    frames = _read(*chosen.runs)
    _known(frames, chosen.baseline)
    found = comparison.compared(frames, chosen.baseline)
    for one in found:
        print(json.dumps(one.as_json()) if chosen.json else _line(one))
    if not found:
        print("Nothing to compare: no two implementations were timed in the same rounds of a workload.", file=sys.stderr)
    return 0


def _interval(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _line(one: comparison.Comparison) -> str:
    told = f"{one.ratio:.4f} ({_interval(one.low, one.high)}) of the time of {one.baseline}"
    where = one.workload + comparison.told(one.caches)
    return f"{one.verdict:9}  {one.implementation} on {where}: {told}, {one.rounds} rounds in {one.seconds:.1f} s"


def _compare(chosen: argparse.Namespace) -> int:
    base, head = _read(chosen.base), _read(chosen.head)
    _known(base, chosen.control)
    _known(head, chosen.control)
    found = comparison.difference(base, head, chosen.control)
    judged = chosen.force or not found.mismatches
    for sentence in found.mismatches:
        print(f"warning: the environments differ: {sentence}", file=sys.stderr)
    if not judged:
        print("warning: without verdicts, because two machines are no change of one implementation; --force gives them", file=sys.stderr)
    for change in found.changes:
        verdict = change.verdict if judged else "not judged"
        if chosen.json:
            print(json.dumps({**change.as_json(), "verdict": verdict}))
        else:
            told = f"{change.base:.4f} -> {change.head:.4f} of the time of {change.control}"
            ratio = f"{change.ratio:.4f} ({_interval(change.low, change.high)})"
            print(f"{verdict:10}  {change.implementation} on {change.workload}{comparison.told(change.caches)}: {told}, {ratio}")
    for word, names in (("new", found.appeared), ("vanished", found.vanished)):
        for name in names:
            print(json.dumps({"verdict": word, "comparison": name}) if chosen.json else f"{word:10}  {name}")
    return 1 if judged and found.slower else 0


if __name__ == "__main__":
    sys.exit(main())

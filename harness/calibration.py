"""What the instrument can see on this machine: comparisons of equal things, and of things with a known difference.

``python -m harness.calibration`` (``nox -s calibrate``) builds nn.LSTM twice for each trial and compares the two as any two
implementations are compared, the second with a wait of a known share of its time after each call, or without. How often equal things
are called different, how often a planted slowdown is found, and which is the smallest that is, are printed and written to a run file.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics as stdlib
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import environment, statistics
from harness.arguments import at_least
from harness.clock import Clock, HostClock
from harness.planted import Occupying, waiting
from harness.proportions import wilson
from harness.record import Calibration, Header
from harness.sampling import INTERRUPTED, Budget, Subject, interleave, paced, paired, require_whole
from harness.statistics import Verdict, effect
from harness.store import RunWriter, StoreError, now

#: The planted slowdowns, and the seconds that a comparison may take to find each.
PLANTED = ((0.0, 6.0), (0.01, 20.0), (0.02, 6.0), (0.05, 2.0))

#: Seconds of a call that is about as short as any that is timed: one step of a small layer.
_SHORT_CALL = 2e-5

#: T, B and I = H on each kind of device: a forward pass of about a millisecond, on one core and on an H100.
SHAPES = {"cpu": (64, 8, 64), "cuda": (64, 32, 256)}

#: A slowdown is resolved where so large a share of the comparisons finds it.
_RESOLVED = 0.95


@contextmanager
def inference() -> Iterator[None]:
    """What the layers are called in."""
    with torch.no_grad():
        yield


def layers(shape: tuple[int, int, int], device: str = "cpu") -> Callable[[], Callable[[], Any]]:
    """Makes calls of new layers nn.LSTM, each at a place in memory that is its own, on one input. ``shape``: T, B and I = H."""
    steps, batch, hidden = shape

    def elsewhere() -> list[torch.Tensor]:
        # What other programs allocate in between, so that each trial finds its tensors at other places.
        return [torch.empty(random.randrange(1, 200_000), device=device) for _ in range(random.randrange(1, 20))]

    kept, x = elsewhere(), torch.randn(steps, batch, hidden, device=device)

    def layer() -> Callable[[], Any]:
        kept.extend(elsewhere())
        module = nn.LSTM(hidden, hidden, device=device)
        return lambda: module(x) if kept else None

    return layer


#: Makes a call slower by a share of its time.
Slowed = Callable[[Callable[[], Any], float], Callable[[], Any]]


def trial(
    share: float, budget: Budget, clock: Clock, make: Callable[[], Callable[[], Any]], slowed: Slowed
) -> tuple[Verdict, float, float]:
    """One comparison of two equal things, one of them slowed down: its verdict, the ratio, and the seconds of sampling."""
    subjects = {"baseline": Subject(make(), inference), "candidate": Subject(slowed(make(), share), inference)}
    taken = interleave(subjects, clock, budget, seed=random.randrange(2**31), baseline="baseline")
    require_whole(taken)
    own, base = taken["candidate"], taken["baseline"]
    series = paired(own, base)
    found = effect(*series)
    spent = sum(sum(seconds) * (one.calls + one.untimed) for seconds, one in zip(series, (own, base), strict=True))
    return found.verdict(), found.ratio, spent


@dataclasses.dataclass(frozen=True)
class Overhead:
    """What taking samples adds. ``share``: by which a sample of a 20 us call is longer than a bare loop around the same call, per call.
    ``timed``, ``untimed``: seconds that each sample takes besides its calls, within what is timed and around it."""

    share: float
    timed: float
    untimed: float


def overhead(clock: Clock, budget: Budget, pairs: int = 200) -> Overhead:
    """The overhead of the instrument: medians of samples as ``budget`` has them, each in turn with the bare loop."""

    def call() -> None:
        until = clock.now() + _SHORT_CALL
        while clock.now() < until:
            pass

    subject, nothing = Subject(call, inference), Subject(_nothing, inference)
    pace = paced({"it": subject}, {"it": _SHORT_CALL}, budget)["it"]
    ratios, timed, whole = [], [], []
    for _ in range(pairs):
        start = clock.now()
        for _ in range(pace.calls):
            call()
        bare = (clock.now() - start) / pace.calls
        ratios.append(subject.sample(clock, pace.calls, pace.untimed).seconds / bare)
        start = clock.now()
        timed.append(nothing.sample(clock, 1).seconds)
        whole.append(clock.now() - start)
    inside = stdlib.median(timed)
    return Overhead(stdlib.median(ratios) - 1, inside, stdlib.median(whole) - inside)


def _nothing() -> None:
    """A call that takes no time."""


def calibrate(trials: int, shape: tuple[int, int, int], device: str) -> Iterator[Calibration]:
    """Trials for every planted slowdown, each as it is done. ``shape``: T, B and I = H of the layers.

    After an interrupt it gives the trials of the slowdown in which it came that were done, and raises KeyboardInterrupt only then.
    """
    steps, batch, hidden = shape
    clock = HostClock(device)
    slowed: Slowed = Occupying(clock, inference) if device == "cuda" else partial(waiting, clock=clock.now)
    for share, seconds in PLANTED:
        budget = Budget(seconds=seconds).on(device)
        found: list[tuple[Verdict, float, float]] = []
        interrupted = None
        try:
            while len(found) < trials:
                found.append(trial(share, budget, clock, layers(shape, device), slowed))
        except KeyboardInterrupt as interrupt:
            if not found:
                raise
            interrupted = interrupt
        counts = Counter(verdict.value for verdict, _, _ in found)
        yield Calibration(
            planted=share,
            outcome="passed",
            trials=len(found),
            verdicts={verdict.value: counts[verdict.value] for verdict in Verdict},
            ratios=[ratio for _, ratio, _ in found],
            seconds=[spent for _, _, spent in found],
            most_seconds=seconds,
            device=device,
            workload=f"nn.LSTM inference T={steps} B={batch} I=H={hidden}",
        )
        if interrupted is not None:
            raise interrupted


def told(record: Calibration) -> str:
    """One line on the trials with one planted slowdown."""
    if record.planted:
        found, what = record.verdicts["slower"], f"a slowdown of {record.planted:.0%} found in"
    else:
        found, what = record.verdicts["slower"] + record.verdicts["faster"], "equal things called different in"
    low, high = wilson(found, record.trials)
    spent = f"{stdlib.median(record.seconds):.1f} s each, at most {record.most_seconds:g} s"
    return f"{what} {found} of {record.trials} comparisons ({low:.1%} to {high:.1%} at 95 %), {spent}"


def resolved(records: Sequence[Calibration]) -> str:
    """One line on the smallest of the planted slowdowns that is found in nearly all of its comparisons."""
    seen = [one for one in records if one.planted and one.verdicts["slower"] >= _RESOLVED * one.trials]
    if not seen:
        return f"none of these slowdowns was found in {_RESOLVED:.0%} of its comparisons"
    least = min(seen, key=lambda one: one.planted)
    return f"the smallest slowdown found in at least {_RESOLVED:.0%} of its comparisons: {least.planted:.0%}"


def _shape(text: str) -> tuple[int, int, int]:
    """T, B and H, as the command line has them."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"expected three whole numbers above 0, as in 64,8,64, but got {text!r}")
    steps, batch, hidden = map(int, sizes)
    return steps, batch, hidden


def _spelled(shapes: Mapping[str, tuple[int, int, int]]) -> str:
    return ", ".join(f"{','.join(map(str, shape))} on {device}" for device, shape in shapes.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 2 where the run file cannot be written, or 130 after an interrupt."""
    parser = argparse.ArgumentParser(prog="python -m harness.calibration", description="Measures what comparisons can see on this machine.")
    parser.add_argument("--trials", type=at_least(1), default=25, metavar="N", help="comparisons for each planted slowdown; default: 25")
    parser.add_argument("--device", choices=tuple(SHAPES), default="cpu", help="default: cpu")
    parser.add_argument(
        "--shape", type=_shape, metavar="T,B,H", help=f"what the layers are called with, I = H; default: {_spelled(SHAPES)}"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="folder for the run file; default: results")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: torch finds no CUDA device on this machine; leave the option out to calibrate on the CPU")
    try:
        return _run(chosen, ["python", "-m", "harness.calibration", *(arguments if arguments is not None else sys.argv[1:])])
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted before anything was compared", file=sys.stderr)
        return INTERRUPTED


def _run(chosen: argparse.Namespace, command: list[str]) -> int:
    """Calibrates, and writes the run file."""
    torch.set_num_threads(1)
    adds = overhead(HostClock(chosen.device), Budget().on(chosen.device))
    header = Header(
        uuid.uuid4().hex,
        now(),
        command,
        dataclasses.asdict(environment.describe()),
        {},
        policy={
            **statistics.policy(),
            "instrument_overhead": adds.share,
            "sample_overhead": {"timed": adds.timed, "untimed": adds.untimed},
        },
    )
    print(
        f"a sample of a 20 us call is {adds.share:+.2%} longer than a bare loop around it; "
        f"{1e6 * adds.timed:.2f} us of each sample are its own, and {1e6 * adds.untimed:.1f} us around it"
    )
    writer, records = RunWriter(chosen.results, "calibration", header), list[Calibration]()
    try:
        for record in calibrate(chosen.trials, chosen.shape or SHAPES[chosen.device], chosen.device):
            writer.append(record)
            records.append(record)
            print(told(record), flush=True)
    except KeyboardInterrupt:
        print(f"error: interrupted; what was done is in {writer.close(INTERRUPTED)}", file=sys.stderr)
        return INTERRUPTED
    print(resolved(records))
    print(writer.close(0))
    return 0


if __name__ == "__main__":
    sys.exit(main())

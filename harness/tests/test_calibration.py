"""The calibration of the instrument, mostly with a clock that goes on only as it is told."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import calibration
from harness.calibration import main, resolved, told
from harness.clock import FakeClock, Timing
from harness.planted import waiting
from harness.record import Calibration
from harness.sampling import Budget
from harness.statistics import LEVEL, Verdict
from harness.store import read


class Ticking(FakeClock):
    """A clock on which every look takes a tenth of a microsecond, so that waiting for it ends."""

    def now(self) -> float:
        self.advance(1e-7)
        return super().now()


class Costly(Ticking):
    """A clock of which a sample takes a microsecond besides its calls, and five more around it."""

    def time(self, run: Callable[[], Any]) -> Timing:
        self.advance(5e-6)
        start = self._now
        run()
        self.advance(1e-6)
        return Timing(self._now - start)


def _making(clock: FakeClock, *seconds: float) -> Callable[[], Callable[[], Any]]:
    """Makes calls of which the n-th takes ``seconds[n]``, the last for ever."""
    made: list[float] = []

    def make() -> Callable[[], Any]:
        own = seconds[min(len(made), len(seconds) - 1)]
        made.append(own)
        return lambda: clock.advance(own)

    return make


def trial(share: float, seconds: float, clock: FakeClock, make: Callable[[], Callable[[], Any]]) -> tuple[Verdict, float, float]:
    return calibration.trial(share, Budget(seconds=seconds), clock, make, partial(waiting, clock=clock.now))


def test_a_planted_slowdown_is_found_and_equal_things_are_the_same() -> None:
    clock = Ticking()
    verdict, ratio, spent = trial(0.05, 2.0, clock, _making(clock, 1e-3))
    assert verdict is Verdict.SLOWER and ratio == pytest.approx(1.05, abs=1e-3)
    assert 0.25 <= spent < 2.0, "it was decided before its time was spent"
    verdict, ratio, _ = trial(0.0, 2.0, clock, _making(clock, 1e-3))
    assert verdict is Verdict.SAME and ratio == pytest.approx(1.0, abs=1e-3)


def test_what_is_slowed_down_is_the_candidate_and_two_layers_are_made() -> None:
    clock = Ticking()
    # The first is the baseline: a candidate that is quicker by itself is called faster.
    assert trial(0.0, 2.0, clock, _making(clock, 1e-3, 0.8e-3))[0] is Verdict.FASTER


def test_what_a_layer_raises_is_not_taken_for_a_measurement() -> None:
    def broken() -> Any:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        trial(0.0, 1.0, FakeClock(), lambda: broken)


def test_the_overhead_is_told_apart_from_the_calls() -> None:
    found = calibration.overhead(Costly(), Budget(), pairs=3)
    # Fifteen calls of 20 us fill a sample of 0.3 ms. A look at the clock takes 0.1 us: one is in each call, one in the bare loop's time.
    assert found.share == pytest.approx((1e-6 - 1e-7) / (15 * 20.1e-6), rel=0.01)
    assert found.timed == pytest.approx(1e-6) and found.untimed == pytest.approx(5e-6, abs=2e-7)
    without = calibration.overhead(Ticking(), Budget(), pairs=3)
    assert abs(without.share) < 1e-3 and without.timed < 2e-7


def test_the_layers_that_are_compared_give_answers() -> None:
    with torch.no_grad():
        output, (h_n, _) = calibration.layers((5, 3, 7))()()
    assert output.shape == (5, 3, 7) and h_n.shape == (1, 3, 7)


@pytest.mark.parametrize("shape", ["64,8", "64,8,0", "64,8,64,1", "64,8,-1", "64,8,x", "", "64,8,²"])
def test_a_shape_that_is_none_is_refused(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--shape", shape])
    assert f"expected three whole numbers above 0, as in 64,8,64, but got {shape!r}" in capsys.readouterr().err


def _record(planted: float, **verdicts: int) -> Calibration:
    counts = {verdict.value: verdicts.get(verdict.value, 0) for verdict in Verdict}
    return Calibration(planted, "passed", sum(verdicts.values()), counts, [], [0.5, 1.0, 6.0], 6.0)


def test_a_line_tells_how_many_were_found_how_sure_that_is_and_what_it_took() -> None:
    assert told(_record(0.02, slower=5, same=2, faster=2, undecided=1)) == (
        "a slowdown of 2% found in 5 of 10 comparisons (23.7% to 76.3% at 95 %), 1.0 s each, at most 6 s"
    )
    assert told(_record(0.0, same=9, undecided=1)) == (
        "equal things called different in 0 of 10 comparisons (0.0% to 27.8% at 95 %), 1.0 s each, at most 6 s"
    )
    assert told(_record(0.0, same=5, slower=2, faster=3)).startswith("equal things called different in 5 of 10 ")


def test_the_smallest_slowdown_that_is_nearly_always_found_is_named() -> None:
    equal, one, two, five = (
        _record(0.0, slower=20),
        _record(0.01, slower=18, same=2),
        _record(0.02, slower=19, faster=1),
        _record(0.05, slower=20),
    )
    assert resolved([equal, one, five, two]) == "the smallest slowdown found in at least 95% of its comparisons: 2%"
    assert resolved([equal, one]) == "none of these slowdowns was found in 95% of its comparisons"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration of a moment, which leaves the threads of this process alone."""
    monkeypatch.setattr(calibration, "PLANTED", ((0.0, 0.02), (0.05, 0.03)))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


@pytest.mark.usefixtures("quick")
def test_the_command_tells_what_it_found_and_writes_a_run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trials", "1", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "than a bare loop around it" in lines[0]
    assert lines[1].startswith("equal things called different in ") and lines[2].startswith("a slowdown of 5% found in ")
    (path,) = tmp_path.glob("*-calibration-*.jsonl")
    assert "95% of its comparisons" in lines[3] and lines[4] == str(path)
    run = read(path)
    assert run.complete and run.footer is not None and run.footer.exit_status == 0
    assert run.header.implementations == {} and run.header.command[:3] == ["python", "-m", "harness.calibration"]
    assert run.header.policy["level"] == LEVEL and abs(run.header.policy["instrument_overhead"]) < 10
    found = [result for result in run.results if isinstance(result, Calibration)]
    assert [(r.planted, r.trials, r.most_seconds, r.device) for r in found] == [(0.0, 1, 0.02, "cpu"), (0.05, 1, 0.03, "cpu")]
    for record in found:
        assert sum(record.verdicts.values()) == len(record.ratios) == len(record.seconds) == 1
        assert set(record.verdicts) == set(Verdict)


@pytest.mark.usefixtures("quick", "interrupts")
def test_an_interrupt_ends_it_and_keeps_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def third(shape: tuple[int, int, int], device: str) -> Callable[[], Any]:
        layer = make(shape, device)

        def counted() -> Callable[[], Any]:
            made.append(1)
            # Two layers make a trial: this is the baseline of the second slowdown, and is interrupted while it is sampled.
            return (lambda: signal.raise_signal(signal.SIGINT)) if len(made) == 3 else layer()

        return counted

    make = calibration.layers
    monkeypatch.setattr(calibration, "layers", third)
    assert main(["--trials", "1", "--results", str(tmp_path)]) == 130
    run = read(next(iter(tmp_path.iterdir())))
    assert run.complete and run.footer is not None and run.footer.exit_status == 130
    assert [result.planted for result in run.results if isinstance(result, Calibration)] == [0.0]
    assert capsys.readouterr().err == f"error: interrupted; what was done is in {run.path}\n"


@pytest.mark.usefixtures("quick")
def test_the_trials_that_were_done_before_an_interrupt_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []

    def played(share: float, *arguments: Any) -> tuple[Verdict, float, float]:
        done.append(share)
        if len(done) == 6:
            raise KeyboardInterrupt
        return Verdict.SAME, 1.0, 0.5

    monkeypatch.setattr(calibration, "trial", played)
    assert main(["--trials", "3", "--results", str(tmp_path)]) == 130
    run = read(next(iter(tmp_path.iterdir())))
    found = [result for result in run.results if isinstance(result, Calibration)]
    assert [(record.planted, record.trials, sum(record.verdicts.values()), len(record.ratios)) for record in found] == [
        (0.0, 3, 3, 3),
        (0.05, 2, 2, 2),
    ]
    said = capsys.readouterr()
    assert (
        "a slowdown of 5% found in 0 of 2 comparisons" in said.out and said.err == f"error: interrupted; what was done is in {run.path}\n"
    )


@pytest.mark.parametrize("trials", ["0", "-3", "many"])
def test_trials_that_cannot_be_are_a_usage_error(trials: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--trials", trials, "--results", str(tmp_path)])
    assert caught.value.code == 2
    assert "--trials" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        main(["--device", "cuda", "--results", str(tmp_path)])
    assert caught.value.code == 2
    assert "argument --device: torch finds no CUDA device" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_made_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--trials", "1", "--results", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Cannot write the run file ")

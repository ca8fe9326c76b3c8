"""What is seen of a machine: the parsers on what kernels write, the arithmetic on readings with a known answer."""

from __future__ import annotations

import builtins
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import watch
from harness.nvml import Gpu
from harness.watch import (
    LEAST,
    Core,
    Disturbance,
    Reading,
    Seen,
    Watch,
    between,
    core_of,
    core_times,
    megahertz,
    read,
    run_delay,
    sentences,
    stalled,
)

STAT = """\
cpu  300 30 120 4000 60 5 15 40 7 0
cpu0 200 20 100 1000 50 4 6 30 7 0
cpu11 100 10 20 3000 10 1 9 10 0 0
intr 1234 0 9
ctxt 99
"""

CPUINFO = """\
processor\t: 0
model name\t: One
cpu MHz\t\t: 2445.428
flags\t\t: fpu vme

processor\t: 1
model name\t: Two
cpu MHz\t\t: 3100
"""


def test_a_core_is_busy_in_all_but_idle_waiting_and_stolen_time() -> None:
    times = core_times(STAT, tick=0.01)
    assert times is not None and set(times) == {0, 11}
    assert times[0].busy == pytest.approx(3.30) and times[0].stolen == pytest.approx(0.30) and times[0].counted == pytest.approx(14.10)
    assert times[11].busy == pytest.approx(1.40) and times[11].stolen == pytest.approx(0.10) and times[11].counted == pytest.approx(31.60)


@pytest.mark.parametrize(
    "text", ["", "cpu  1 2 3 4 5 6 7 8 9 10\n", "cpu0 1 2 3 4 5 6 7\n", "cpu0 a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8\n"]
)
def test_no_times_of_cores_are_none(text: str) -> None:
    assert core_times(text, tick=0.01) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("616652 4500000000 2\n", 4.5), ("1 0 1", 0.0), ("0 0 0\n", None), ("", None), ("1 2\n", None), ("1 x 3\n", None), ("-1 2 3", None)],
)
def test_reads_how_long_a_thread_waited(text: str, seconds: float | None) -> None:
    assert run_delay(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("some avg10=3.52 avg60=1.07 avg300=2.29 total=3457135\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", 3.457135),
        ("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", None),
        ("some avg10=3.52 total=many\n", None),
        ("", None),
    ],
)
def test_reads_how_long_any_thread_waited(text: str, seconds: float | None) -> None:
    assert stalled(text) == (None if seconds is None else pytest.approx(seconds))


def _thread(name: str, core: str, fields: int = 52) -> str:
    """A line of ``stat``: thread 17 called ``name`` on ``core``."""
    return " ".join(["17", f"({name})", "R", *(core if i == 39 else str(1000 + i) for i in range(4, fields + 1))]) + "\n"


@pytest.mark.parametrize(
    ("text", "core"),
    [
        (_thread("python", "5"), 5),
        (_thread("a name) 1 2 (with) all of it", "63"), 63),
        (_thread("python", "5", fields=38), None),
        (_thread("python", "x"), None),
        ("", None),
    ],
)
def test_reads_the_core_that_a_thread_is_on(text: str, core: int | None) -> None:
    assert core_of(text) == core


@pytest.mark.parametrize(
    ("text", "core", "clock"),
    [
        (CPUINFO, 0, 2445.428),
        (CPUINFO, 1, 3100.0),
        (CPUINFO, 2, None),
        (CPUINFO, None, None),
        (CPUINFO.replace("cpu MHz", "BogoMIPS", 1), 0, None),
        ("", 0, None),
    ],
)
def test_reads_the_clock_of_a_core(text: str, core: int | None, clock: float | None) -> None:
    assert megahertz(text, core) == clock


BEGIN = Reading(
    at=100.0,
    own=10.0,
    cores={0: Core(50.0, 1.0, 200.0), 1: Core(60.0, 2.0, 200.0), 2: Core(0.0, 0.0, 200.0)},
    waited=3.0,
    stalled=7.0,
    frequency=3900.0,
    switches=(100, 20),
    load=0.5,
    affinity=(0, 1),
)
#: Two seconds later: this process used 1.8 of the 4 seconds of its cores, others 1.0, the hypervisor 0.2. Core 2 is none of its own.
END = Reading(
    at=102.0,
    own=11.8,
    cores={0: Core(52.0, 1.0, 202.0), 1: Core(60.8, 2.2, 202.0), 2: Core(2.0, 0.0, 202.0)},
    waited=3.1,
    stalled=8.5,
    frequency=2800.0,
    switches=(105, 45),
    load=1.5,
    affinity=(0, 1),
)


def test_shares_are_of_the_time_of_the_cores_that_the_process_may_use() -> None:
    gpu = Gpu(sm_clock=1410)
    seen = between(BEGIN, END, gpu)
    assert [seen.seconds, seen.others, seen.stolen, seen.waited, seen.pressure] == pytest.approx([2.0, 0.25, 0.05, 0.05, 0.75])
    assert (seen.frequency_before, seen.frequency_after) == (3900.0, 2800.0)
    assert (seen.voluntary_switches, seen.involuntary_switches) == (5, 25)
    assert (seen.load, seen.affinity, seen.gpu) == (1.5, (0, 1), gpu)


def test_where_the_cores_are_numbered_anew_all_that_are_listed_count() -> None:
    begin, end = replace(BEGIN, affinity=(40, 41)), replace(END, affinity=(40, 41))
    # 4.8 busy seconds of six, of which 1.8 are its own.
    assert between(begin, end).others == pytest.approx(0.5)


def test_what_was_not_read_is_not_told() -> None:
    nothing = Reading(at=1.0, own=0.0), Reading(at=5.0, own=1.0)
    assert between(*nothing) == Seen(seconds=4.0)
    for name in ("waited", "stalled", "switches", "cores"):
        assert getattr(END, name) is not None
    half = between(replace(BEGIN, waited=None, cores=None), replace(END, stalled=None, switches=None))
    assert half == Seen(2.0, frequency_before=3900.0, frequency_after=2800.0, load=1.5, affinity=(0, 1))


def test_a_stretch_too_short_for_the_ticks_has_no_shares() -> None:
    seen = between(BEGIN, replace(END, at=BEGIN.at + LEAST * 0.99))
    assert seen.others is None and seen.stolen is None and seen.waited is not None


def test_counters_that_stand_still_are_not_taken_for_a_quiet_machine() -> None:
    assert BEGIN.cores is not None
    seen = between(BEGIN, replace(END, cores=BEGIN.cores))
    assert seen.others is None and seen.stolen is None


def test_counting_in_ticks_never_makes_a_share_negative_or_more_than_all() -> None:
    assert between(BEGIN, replace(END, own=BEGIN.own + 3.0)).others == 0.0
    assert between(BEGIN, replace(END, own=BEGIN.own - 3.0)).others == 1.0
    assert between(BEGIN, replace(END, waited=50.0)).waited == 1.0


def _files(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_reads_the_files_of_the_kernel(tmp_path: Path) -> None:
    texts = {
        "stat": STAT,
        "cpuinfo": CPUINFO,
        "pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
        "thread-self/stat": _thread("python", "1"),
        "thread-self/schedstat": "5 7000000000 1\n",
    }
    _files(tmp_path, texts)
    reading = read(tmp_path, tmp_path / "nowhere")
    assert reading.cores is not None and set(reading.cores) == {0, 11}
    assert [reading.waited, reading.stalled, reading.frequency] == pytest.approx([7.0, 2.0, 3100.0])
    _files(tmp_path, {"system/cpu1/cpufreq/scaling_cur_freq": "1234567\n"})
    assert read(tmp_path, tmp_path / "system").frequency == 1234.567


@pytest.mark.parametrize("text", ["", "<unknown>\n", "-1", "²"])
def test_a_clock_that_the_driver_does_not_know_is_looked_up_elsewhere(text: str, tmp_path: Path) -> None:
    _files(tmp_path, {"cpuinfo": CPUINFO, "thread-self/stat": _thread("python", "0"), "system/cpu0/cpufreq/scaling_cur_freq": text})
    assert read(tmp_path, tmp_path / "system").frequency == 2445.428


def test_a_system_without_any_of_it_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_resource(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "resource":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_resource)
    for name in ("sched_getaffinity", "getloadavg", "sysconf"):
        monkeypatch.delattr(os, name, raising=False)
    reading = read(tmp_path, tmp_path)
    assert reading == Reading(at=reading.at, own=reading.own)


def test_this_machine_can_be_read() -> None:
    reading = read()
    assert reading.own > 0
    if sys.platform.startswith("linux"):
        assert reading.cores and reading.switches and reading.affinity


class FakeMachine:
    """Readings that come one after the other, and a GPU that counts how often it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *readings: Reading, gpu: Gpu | None = None) -> None:
        self.log: list[str] = []
        self._readings = iter(readings)
        probe = None if gpu is None else SimpleNamespace(read=lambda since: self._noted("gpu", gpu), close=lambda: self.log.append("close"))
        monkeypatch.setattr(watch, "read", lambda: self._noted("machine", next(self._readings)))
        monkeypatch.setattr(watch, "connect", lambda device: self._noted(f"connect {device}", probe))

    def _noted(self, name: str, value: Any) -> Any:
        self.log.append(name)
        return value


def test_a_watch_compares_its_end_with_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(temperature=50)
    machine = FakeMachine(monkeypatch, BEGIN, END, gpu=gpu)
    with Watch("cuda:1") as watching:
        machine.log.append("work")
    assert machine.log == ["connect cuda:1", "machine", "work", "gpu", "machine", "close"]
    assert watching.seen() == watching.seen() == between(BEGIN, END, gpu)
    assert len(machine.log) == 6


def test_a_watch_may_be_asked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    later = replace(END, at=104.0)
    FakeMachine(monkeypatch, BEGIN, END, later)
    with Watch("cpu") as watching:
        assert watching.seen() == between(BEGIN, END)
    assert watching.seen() == between(BEGIN, later)


def test_a_watch_can_be_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    later = replace(END, at=104.0)
    FakeMachine(monkeypatch, BEGIN, END, END, later)
    watching = Watch("cpu")
    with watching:
        pass
    with watching:
        pass
    assert watching.seen() == between(END, later)


def test_a_watch_is_left_when_the_work_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(monkeypatch, BEGIN, END, gpu=Gpu())
    watching = Watch("cuda")
    with pytest.raises(ValueError, match="no"), watching:
        raise ValueError("no")
    assert machine.log[-1] == "close" and watching.seen().seconds == 2.0


def test_a_watch_that_never_was_entered_has_seen_nothing() -> None:
    with pytest.raises(RuntimeError, match="Expected the watch to be entered"):
        Watch("cpu").seen()


QUIET = Seen(
    seconds=2.0,
    others=0.02,
    stolen=0.0,
    waited=0.001,
    pressure=0.9,
    frequency_before=3900.0,
    frequency_after=3850.0,
    voluntary_switches=3,
    involuntary_switches=9,
    load=1.0,
    affinity=(0,),
    gpu=Gpu(sm_clock=1980, limits=("idle", "clocks set by the user"), others_utilisation=0.0, others_memory=10**9),
)


@pytest.mark.parametrize("seen", [QUIET, Seen(seconds=2.0), Seen(seconds=2.0, gpu=Gpu())])
def test_nothing_is_said_of_a_quiet_or_an_unknown_machine(seen: Seen) -> None:
    assert sentences(seen) == []


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (replace(QUIET, others=0.38), "other processes used 38 % of the time of the cores; end them, or measure when the machine is quiet"),
        (
            replace(QUIET, stolen=0.07),
            "the hypervisor gave 7 % of the time of the cores to somebody else; measure where nobody else has these cores",
        ),
        (
            replace(QUIET, waited=0.2),
            "the measuring thread waited for a core 20 % of the time; end other processes, or use fewer threads",
        ),
        (
            replace(QUIET, frequency_after=2800.0),
            "the clock of the core changed from 3900 to 2800 MHz; let the machine cool, and have it keep one clock "
            "(cpupower frequency-set --governor performance)",
        ),
        (
            replace(QUIET, gpu=Gpu(limits=("idle", "power cap", "hardware thermal slowdown"))),
            "the GPU was throttled: power cap, hardware thermal slowdown; let it cool, or hold its clocks where it can keep them "
            "(nvidia-smi --lock-gpu-clocks)",
        ),
        (
            replace(QUIET, gpu=Gpu(others_utilisation=0.12)),
            "other processes used 12 % of the time of the GPU; end them, or take another device (CUDA_VISIBLE_DEVICES)",
        ),
    ],
)
def test_a_disturbance_is_told_with_its_remedy(seen: Seen, sentence: str) -> None:
    assert sentences(seen) == [sentence]


def test_each_disturbance_has_its_own_sentence() -> None:
    seen = Seen(2.0, 0.5, 0.5, 0.5, None, 1000.0, 2000.0, gpu=Gpu(limits=("power cap",), others_utilisation=0.5))
    assert len(set(sentences(seen))) == len(Disturbance) == 6


def test_a_share_is_told_above_its_threshold() -> None:
    for factor, told in ((1.0, False), (1.01, True)):
        seen = Seen(
            seconds=2.0,
            others=Disturbance.OTHERS.threshold * factor,
            stolen=Disturbance.STOLEN.threshold * factor,
            waited=Disturbance.WAITED.threshold * factor,
            gpu=Gpu(others_utilisation=Disturbance.GPU_SHARED.threshold * factor),
        )
        assert len(sentences(seen)) == (4 if told else 0)


@pytest.mark.parametrize(
    ("before", "after", "told"), [(3000.0, 2710.0, False), (3000.0, 2690.0, True), (2690.0, 3000.0, True), (0.0, 3000.0, False)]
)
def test_a_clock_that_moves_by_more_than_a_tenth_is_told(before: float, after: float, told: bool) -> None:
    seen = replace(QUIET, frequency_before=before, frequency_after=after)
    assert (Disturbance.CLOCK.statement(seen) is not None) is told

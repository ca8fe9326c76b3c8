"""What else the machine did while something was measured: who had the cores, how long it waited for one, what held the clocks down.

A number that was disturbed looks like any other. This is the evidence that it was, or was not; each fact is None where the system does
not tell it, and reading never raises. Most of it comes from Linux's /proc, see proc(5).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.environment import load_average, text_of
from harness.nvml import HARMLESS, Gpu, Probe, connect
from harness.statistics import MARGIN

#: Seconds below which the shares of the cores are not told: the kernel counts them in hundredths of a second.
LEAST = 0.25


@dataclass(frozen=True)
class Seen:
    """What was seen between two moments.

    ``seconds`` lay between them. ``others``: share of the time of the cores that this process may use which other processes used
    (child processes of this one among them). ``stolen``: share of it that the hypervisor gave to somebody else. ``waited``: share of
    the time in which the thread that watches could have run and had no core. ``pressure``: share in which any thread of the machine
    waited so. ``frequency_before``, ``frequency_after``: MHz of the core that the thread was on. ``voluntary_switches``,
    ``involuntary_switches``: how often the threads of this process gave their core up, and had it taken away. ``load``: the machine's
    one-minute load average at the end. ``affinity``: the cores that this process may use. ``gpu``: the GPU at the end, before its
    clocks fall back.
    """

    seconds: float
    others: float | None = None
    stolen: float | None = None
    waited: float | None = None
    pressure: float | None = None
    frequency_before: float | None = None
    frequency_after: float | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    load: float | None = None
    affinity: tuple[int, ...] | None = None
    gpu: Gpu | None = None


class Disturbance(StrEnum):
    """Something that a reader of the times should know of."""

    OTHERS = "others"
    STOLEN = "stolen"
    WAITED = "waited"
    CLOCK = "clock"
    GPU_LIMITED = "gpu-limited"
    GPU_SHARED = "gpu-shared"

    @property
    def remedy(self) -> str:
        return {
            "others": "end them, or measure when the machine is quiet",
            "stolen": "measure where nobody else has these cores",
            "waited": "end other processes, or use fewer threads",
            "clock": "let the machine cool, and have it keep one clock (cpupower frequency-set --governor performance)",
            "gpu-limited": "let it cool, or hold its clocks where it can keep them (nvidia-smi --lock-gpu-clocks)",
            "gpu-shared": "end them, or take another device (CUDA_VISIBLE_DEVICES)",
        }[self.value]

    @property
    def threshold(self) -> float:
        """The share above which it is told.

        ``others``: with half of the time of two cores used by others, and no waiting, calls of an nn.LSTM took 28 % longer than the
        fastest, because cores share caches and memory; a tenth makes that some 5 %. ``stolen``: one tick of the kernel's count is
        4 % of the shortest stretch that is told. ``waited`` and ``gpu-shared``: a mean time is longer by as much, and times within
        this margin are called the same. ``clock``: times follow it, and it never stands quite still. ``gpu-limited``: any limit.
        """
        return {"others": 0.1, "stolen": 0.05, "waited": MARGIN, "clock": 0.1, "gpu-limited": 0.0, "gpu-shared": MARGIN}[self.value]

    def statement(self, seen: Seen) -> str | None:
        """What was seen of it; None where that is too little to tell, or not known."""
        gpu = seen.gpu or Gpu()
        if self is Disturbance.CLOCK:
            before, after = seen.frequency_before, seen.frequency_after
            if not before or not after or abs(after - before) <= self.threshold * max(before, after):
                return None
            return f"the clock of the core changed from {before:.0f} to {after:.0f} MHz"
        if self is Disturbance.GPU_LIMITED:
            limits = [limit for limit in gpu.limits or () if limit not in HARMLESS]
            return f"the GPU was throttled: {', '.join(limits)}" if limits else None
        share, says = {
            Disturbance.OTHERS: (seen.others, "other processes used {} of the time of the cores"),
            Disturbance.STOLEN: (seen.stolen, "the hypervisor gave {} of the time of the cores to somebody else"),
            Disturbance.WAITED: (seen.waited, "the measuring thread waited for a core {} of the time"),
            Disturbance.GPU_SHARED: (gpu.others_utilisation, "other processes used {} of the time of the GPU"),
        }[self]
        return says.format(f"{100 * share:.0f} %") if share is not None and share > self.threshold else None


def sentences(seen: Seen) -> list[str]:
    """What a reader of times taken meanwhile should know, each with its remedy; empty where nothing disturbed them, or nothing is known."""
    told = [(disturbance.statement(seen), disturbance.remedy) for disturbance in Disturbance]
    return [f"{statement}; {remedy}" for statement, remedy in told if statement is not None]


class Watch:
    """Watches the machine while it is entered: ``with Watch("cpu") as watch: ...``, then ``watch.seen()``.

    It must be entered and left by the thread that does the work. It takes a reading at either end and does nothing in between.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._probe: Probe | None = None
        self._begin: Reading | None = None
        self._seen: Seen | None = None

    def __enter__(self) -> Watch:
        self._seen = None
        self._probe = connect(self._device)
        self._since = time.time()
        self._begin = read()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._seen = self.seen()
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def seen(self) -> Seen:
        """What was seen until the watch was left or, while it is entered, until now. Raises RuntimeError where it never was entered."""
        if self._seen is not None:
            return self._seen
        if self._begin is None:
            raise RuntimeError("Expected the watch to be entered before it is asked what it saw: with Watch(device) as watch: ...")
        # The GPU first: its clocks fall within milliseconds of the last kernel.
        gpu = None if self._probe is None else self._probe.read(self._since)
        return between(self._begin, read(), gpu)


@dataclass(frozen=True)
class Core:
    """Seconds of a core since the machine was started: ``busy`` running anything, ``stolen`` by the hypervisor, ``counted`` in all."""

    busy: float
    stolen: float
    counted: float


@dataclass(frozen=True)
class Reading:
    """The counters of the system at one moment. ``at``: seconds on the performance counter. ``own``: CPU seconds of this process, all
    of its threads. ``waited``: seconds that this thread has waited for a core, ``stalled``: that any thread has, ever. ``frequency``
    in MHz. ``switches``: voluntary and involuntary."""

    at: float
    own: float
    cores: dict[int, Core] | None = None
    waited: float | None = None
    stalled: float | None = None
    frequency: float | None = None
    switches: tuple[int, int] | None = None
    load: float | None = None
    affinity: tuple[int, ...] | None = None


def read(proc: Path = Path("/proc"), system: Path = Path("/sys/devices/system/cpu")) -> Reading:
    """The counters now; None for what this system does not have."""
    core = core_of(text_of(proc / "thread-self/stat"))
    kilohertz = text_of(system / f"cpu{core}/cpufreq/scaling_cur_freq")
    return Reading(
        at=time.perf_counter(),
        own=time.process_time(),
        cores=core_times(text_of(proc / "stat"), _tick()),
        waited=run_delay(text_of(proc / "thread-self/schedstat")),
        stalled=stalled(text_of(proc / "pressure/cpu")),
        frequency=int(kilohertz) / 1000 if kilohertz.strip().isdecimal() else megahertz(text_of(proc / "cpuinfo"), core),
        switches=_switches(),
        load=load_average(),
        affinity=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None,
    )


def joined(mine: Reading, others: Iterable[Mapping[str, Any]]) -> Reading:
    """``mine`` as if the processes of ``others``, which work for this one, were part of it.

    Of each of them it takes ``own``, ``waited`` and ``switches``: what they do is not done by somebody else, and this process itself only
    waits for them.
    """
    several = list(others)
    waits = [one["waited"] for one in several]
    switches = [one["switches"] for one in several]
    return replace(
        mine,
        own=mine.own + sum(one["own"] for one in several),
        waited=None if None in waits else sum(waits),
        switches=None if None in switches else (sum(one[0] for one in switches), sum(one[1] for one in switches)),
    )


def between(begin: Reading, end: Reading, gpu: Gpu | None = None) -> Seen:
    """What two readings say of the time between them."""
    seconds = end.at - begin.at
    others, stolen = _shares(begin, end)

    def share(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None or seconds <= 0 else min(1.0, max(0.0, (after - before) / seconds))

    switches = None
    if begin.switches is not None and end.switches is not None:
        switches = (end.switches[0] - begin.switches[0], end.switches[1] - begin.switches[1])
    return Seen(
        seconds=seconds,
        others=others,
        stolen=stolen,
        waited=share(begin.waited, end.waited),
        pressure=share(begin.stalled, end.stalled),
        frequency_before=begin.frequency,
        frequency_after=end.frequency,
        voluntary_switches=None if switches is None else switches[0],
        involuntary_switches=None if switches is None else switches[1],
        load=end.load,
        affinity=end.affinity,
        gpu=gpu,
    )


def _shares(begin: Reading, end: Reading) -> tuple[float | None, float | None]:
    """The shares of the cores' time that other processes and the hypervisor used."""
    if begin.cores is None or end.cores is None or end.at - begin.at < LEAST:
        return None, None
    names = begin.cores.keys() & end.cores.keys()
    # In a container the cores may be numbered anew, but then only those that it may use are listed.
    names = names & set(end.affinity) if end.affinity is not None and names >= set(end.affinity) else names
    busy, stolen, counted = (
        sum(getattr(end.cores[name], kind) - getattr(begin.cores[name], kind) for name in names) for kind in ("busy", "stolen", "counted")
    )
    there_was = (end.at - begin.at) * len(names)
    # Some sandboxes show counters that stand still, and nobody's use would be read out of them.
    if counted < there_was / 2:
        return None, None
    own = end.own - begin.own
    return min(1.0, max(0.0, (busy - own) / there_was)), min(1.0, max(0.0, stolen / there_was))


def core_times(stat: str, tick: float) -> dict[int, Core] | None:
    """The times of each core from the text of ``/proc/stat``, in which they are counted in ``tick`` seconds; None if there are none."""
    cores = {}
    # user nice system idle iowait irq softirq steal; what follows, a guest's time, is part of user and nice.
    for name, numbers in re.findall(r"^cpu(\d+)((?: \d+){8,})", stat, re.M):
        user, nice, system, idle, waiting, interrupts, soft_interrupts, steal = map(int, numbers.split()[:8])
        busy = user + nice + system + interrupts + soft_interrupts
        cores[int(name)] = Core(busy * tick, steal * tick, (busy + steal + idle + waiting) * tick)
    return cores or None


def run_delay(schedstat: str) -> float | None:
    """Seconds that a thread has waited for a core, from the text of its ``schedstat``; None if the kernel does not count them."""
    match = re.fullmatch(r"(\d+) (\d+) \d+\s*", schedstat)
    # A thread that reads its own has run: where that is zero, nothing is counted.
    return int(match[2]) * 1e-9 if match and int(match[1]) else None


def stalled(pressure: str) -> float | None:
    """Seconds in which any thread waited for a core, from the text of ``/proc/pressure/cpu``; None if it does not say."""
    match = re.search(r"^some .*\btotal=(\d+)$", pressure, re.M)
    return int(match[1]) * 1e-6 if match else None


def core_of(stat: str) -> int | None:
    """The core that a thread is on, from the text of its ``stat``; None if it does not say."""
    # The second field is the thread's name, in parentheses; it may hold spaces and parentheses. The core is the 39th field.
    fields = stat.rpartition(")")[2].split()
    return int(fields[36]) if len(fields) > 36 and fields[36].isdecimal() else None


def megahertz(cpuinfo: str, core: int | None) -> float | None:
    """The clock of a core in MHz, from the text of ``/proc/cpuinfo``; None if it does not say."""
    match = re.search(rf"^processor\s*: {core}$(?:\n.+)*?\ncpu MHz\s*: ([0-9.]+)$", cpuinfo, re.M)
    return float(match[1]) if match else None


def _tick() -> float:
    try:
        return 1 / os.sysconf("SC_CLK_TCK")
    except (AttributeError, ValueError, OSError):
        return 0.01


def _switches() -> tuple[int, int] | None:
    try:
        import resource
    except ImportError:
        # Windows has no such module.
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw, usage.ru_nivcsw

"""How long a run file of 100,000 results takes to load and to render, and how much memory: ``python -m reports.tests.scale``."""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.record import Conformance, Footer, to_json
from harness.store import encode
from reports.tests import specimen

RECORDS = 100_000
MOST_SECONDS, MOST_BYTES = 20.0, 1.5e9
"""What one command may take on two cores."""

TIMED = 0.06
"""The share of results that are timed cells; a cell has :data:`SAMPLES` samples. A result of a contract has :data:`ERRORS` errors, and
:data:`BROKEN` of them are failures with a message and a script: what the results of a full run of this project have on average."""

SAMPLES, ERRORS, BROKEN = 46, 7, 0.01

QUANTITIES = ("output", "h_n", "c_n", "grad:input", "grad:weight_ih_l0", "grad:weight_hh_l0", "grad:h_0")
NAMES = tuple(f"family{k // 2}:variant{k}" for k in range(8))
PASSES = ("inference", "forward", "backward", "training")


def write(path: Path, records: int = RECORDS) -> Path:
    """A run file of ``records`` results at ``path``, the same for the same number."""
    digest, counts = hashlib.sha256(), Counter[str]()
    facts = {"description": "", "modes": list(specimen.MODES), "source": "", "availability": {"cpu": None}}
    with path.open("wb") as file:

        def put(text: str) -> None:
            line = text.encode() + b"\n"
            digest.update(line)
            file.write(line)

        put(encode(specimen.header(implementations=dict.fromkeys(NAMES, facts))))
        timed = int(records * TIMED)
        for result in (*_conformance(records - timed), *_throughput(timed)):
            counts[result["outcome"]] += 1
            put(json.dumps(result))
        put(encode(Footer("2026-01-02T05:00:00Z", 1, records, dict(counts), digest.hexdigest())))
    return path


def _conformance(number: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(3)
    found = list(specimen.contracts().items())
    parameters = {"input_size": 3, "hidden_size": 8, "num_layers": 2, "bias": True, "batch_first": False, "dropout": 0.0, "seed": 0,
                  "bidirectional": True, "proj_size": 0, "steps": 5, "batch": 3, "lengths": None, "weights": "plain"}  # fmt: skip
    line = to_json(Conformance("", "", "", "", "", "", "cpu", "", parameters=parameters, kernels=["aten::addmm"], seconds=0.0144))
    for k in range(number):
        contract, about = found[k // len(NAMES) % len(found)]
        mode, dtype = specimen.MODES[k % 3], ("float32", "float64")[k % 2]
        broken = k % len(NAMES) > 2 and generator.random() < BROKEN * len(NAMES) / (len(NAMES) - 3)
        ratios = np.exp(generator.normal(0.1, 0.4, ERRORS)) * (100 if broken else 1)
        errors = [
            {"quantity": quantity, "error": 1.2e-7 * ratio, "floor": 1.2e-7, "elements": 495, "allowance": 4.0, "ratio": ratio}
            for quantity, ratio in zip(QUANTITIES, ratios.tolist(), strict=True)
        ]
        yield {
            **line, "contract": contract, "implementation": NAMES[k % len(NAMES)], "case": f"{mode}-L2-I3-H8-T5-B3-{dtype}-{k}",
            "outcome": "failed" if broken else "passed", "severity": about["severity"], "mode": mode, "dtype": dtype, "errors": errors,
            "message": specimen.MESSAGE.replace("37", str(k)) if broken else "", "reproduction": "import torch\n" * 60 if broken else "",
        }  # fmt: skip


def _throughput(number: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(5)
    errors = [{"quantity": name, "error": 1e-7, "floor": 1e-7, "elements": 512, "allowance": 4.0, "ratio": 1.0} for name in ("y", "h_n")]
    cell: dict[str, Any] = to_json(next(found for found in specimen.throughput(rounds=1) if found.samples))
    cell |= {"agreement": {"before": errors, "after": errors}, "rounds": list(range(SAMPLES))}
    for k in range(number):
        workload = k // len(NAMES)
        mode, timed_pass = specimen.MODES[workload % 3], PASSES[workload // 3 % 4]
        length, size = 2 ** (workload // 12 % 12), 32 * (1 + workload // 144)
        seconds = 1e-5 * length * size / 32 * (1 + k % len(NAMES) / 10)
        shape = {"sequence_length": length, "batch_size": 16, "input_size": size, "hidden_size": size, "tokens": 16 * length}
        yield {
            **cell, **shape, "workload": f"{mode}-{timed_pass}-H{size}-T{length}", "implementation": NAMES[k % len(NAMES)], "mode": mode,
            "timed_pass": timed_pass, "samples": (seconds * np.exp(generator.normal(0, 0.05, SAMPLES))).tolist(),
        }  # fmt: skip


def measure(*arguments: str) -> tuple[float, float, float]:
    """Wall seconds, seconds of processors and peak resident bytes of a fresh Python with ``arguments``, and of what it starts.

    Where there is no /proc these are of the one process alone.
    """
    _adopt()
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    over, peak = threading.Event(), [0]
    watch = threading.Thread(target=_watch, args=(process.pid, over, peak))
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds, busy = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    over.set()
    watch.join()
    with suppress(ChildProcessError):
        while True:
            _, _, of_others = os.wait4(-1, 0)
            busy += of_others.ru_utime + of_others.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    # In KiB, but on a Mac in bytes.
    return seconds, busy, max(peak[0], usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _adopt() -> None:
    """Makes the processes whose parent ends first children of this one, which waits for them: those that figures are drawn in are such."""
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _watch(pid: int, over: threading.Event, peak: list[int]) -> None:
    """Notes the most bytes that a process and its descendants have at once."""
    while not over.wait(0.1):
        peak[0] = max(peak[0], _resident(pid))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):  # it has just ended, or there is no /proc
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every command on a run file of its own making; returns 1 if one took more than it may."""
    parser = argparse.ArgumentParser(prog="python -m reports.tests.scale", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, help="results in the run file (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        run, out = write(Path(folder, "run.jsonl"), chosen.records), Path(folder, "out")
        print(f"{chosen.records} results, {run.stat().st_size / 1e6:.0f} MB; at most {MOST_SECONDS:.0f} s and {MOST_BYTES / 1e9} GB each")
        commands = {
            "load": ("-c", f"import reports; reports.load({str(run)!r})"),
            "page": ("-m", "reports", "page", str(run), "--out", str(out)),
            "verdicts": ("-m", "reports", "verdicts", str(run)),
        }
        exceeded = False
        for name, command in commands.items():
            seconds, busy, bytes = measure(*command)
            exceeded |= seconds > MOST_SECONDS or bytes > MOST_BYTES
            print(f"{name:9} {seconds:6.1f} s {busy:6.1f} s of cores {bytes / 1e9:6.2f} GB", flush=True)
        print(f"the page has {(out / 'index.html').stat().st_size / 1e6:.1f} MB")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())

"""The options of the command line, and what follows from them alone."""

from __future__ import annotations

from typing import Any

import pytest

from harness.arguments import above_zero, at_least
from harness.implementation import Implementation
from harness.registry import builtin
from harness.sampling import Budget
from harness.workers import AT_MOST

#: The options, and what pytest is to make of each.
_OPTIONS: dict[str, dict[str, Any]] = {
    "--implementation": {
        "action": "append",
        "default": [],
        "metavar": "REF",
        "help": "test this implementation, and only those named; repeatable. REF is a registry id, path/to/file.py:Name or "
        "package.module:Name; rnn=REF, gru=REF or lstm=REF where the class subclasses none of nn's. Without it, all built-in ones.",
    },
    "--device": {
        "action": "append",
        "default": [],
        "metavar": "DEVICE",
        "help": "run on this device: cpu, cuda or all; default: all, but with --benchmark-only the GPU alone where there is one",
    },
    "--reseed": {
        "type": at_least(0),
        "default": 0,
        "metavar": "N",
        "help": "draw other numbers for the same cases: N is added to the seed of each; default: 0",
    },
    "--large": {"action": "store_true", "help": "also check what takes gibibytes of memory"},
    "--results": {"default": "results", "metavar": "DIR", "help": "folder for the run file; default: results"},
    "--workloads": {
        "action": "append",
        "default": [],
        "metavar": "NAME_OR_FILE",
        "help": "what to measure with --benchmark-only: a set by name, or a TOML file with tables [[workload]]; repeatable; default: quick",
    },
    "--threads": {
        "type": at_least(1),
        "default": 1,
        "metavar": "N",
        "help": "torch's intra-op threads; default: 1, because two threads on two busy cores wait for each other a hundred times longer "
        "than they work",
    },
    "--sampling-time": {
        "type": above_zero,
        "default": Budget.seconds,
        "metavar": "SECONDS",
        "help": f"how long to sample each comparison with the baseline at most; one that is decided before takes less; default: "
        f"{Budget.seconds:g}",
    },
    "--baseline": {
        "default": "",
        "metavar": "ID",
        "help": "the implementation that the others are compared with; default: the first of torch's own that is timed, else the first",
    },
    "--resume": {
        "metavar": "RUN",
        "help": "with --benchmark-only: go on from this run file, which was interrupted or cut short; what it has is not measured again",
    },
    "--cold": {
        "action": "store_true",
        "help": "with --benchmark-only: overwrite the caches before every timed call (on a GPU its L2), which is then timed alone",
    },
    "--isolate": {
        "choices": ("auto", "always", "never"),
        "default": "auto",
        "help": "check implementations, and measure workloads, in processes of their own, where a crash or a hang is an outcome: 'auto' "
        "does so for those that are not built in; 'never' lets a debugger in. Checks are made in as many processes as there are cores for, "
        f"up to {AT_MOST}; measurements in one",
    },
    "--time-limit": {
        "type": above_zero,
        "default": 30.0,
        "metavar": "SECONDS",
        "help": "what one isolated check, or one isolated call that is timed, may take; default: 30",
    },
}

#: The options that mean nothing where nothing is timed, and those that mean nothing where nothing is checked.
_OF_TIMES = ("--workloads", "--sampling-time", "--baseline", "--cold")
_OF_CHECKS = ("--reseed", "--large")


def add_options(parser: pytest.Parser) -> None:
    """Adds the options to pytest's."""
    group = parser.getgroup("recurrent layers")
    for name, settings in _OPTIONS.items():
        group.addoption(name, **settings)


def measuring(config: pytest.Config) -> bool:
    """Whether throughput is measured, and contracts are not checked."""
    return bool(config.getoption("benchmark_only", False))


def left_out(config: pytest.Config) -> dict[str, str]:
    """The implementations whose contracts are not checked because nobody named them, and why."""
    if measuring(config) or config.getoption("implementation"):
        return {}
    return {i.id: i.long_to_check for i in builtin().values() if i.long_to_check}


def isolated(config: pytest.Config, implementation: Implementation) -> bool:
    """Whether checks of ``implementation`` run in another process than this one."""
    isolate = config.getoption("isolate")
    return bool(isolate == "always" or (isolate == "auto" and implementation.reference not in builtin()))


def idle(config: pytest.Config) -> list[str]:
    """The options that were given and have no effect, because nothing is timed, or nothing but timed."""
    of_no_use = _OF_CHECKS if measuring(config) else _OF_TIMES
    return [name for name in of_no_use if config.getoption(name) != _OPTIONS[name].get("default", False)]

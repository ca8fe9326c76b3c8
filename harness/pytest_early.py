"""A pytest plugin for what must be done before this checkout's conftest.py is loaded, and torch with it.

A folder given to ``--results`` must not be taken for where the tests are. Before it knows anybody's options, pytest looks for its
configuration beside whatever argument is an existing path, so that ``pytest --results DIR`` is rooted in DIR and finds neither this
checkout's conftest.py nor its options (pytest's documentation, "Initialization: determining rootdir and configfile"; pytest#1435). Written
as ``--results=DIR`` it is not. The same holds of what PYTEST_ADDOPTS says. This plugin is installed as an entry point, is loaded just after
that decision, and starts the same command again with the two words joined: also where the folder does not exist yet, because by the time
that pytest-xdist starts its processes, which decide for themselves, it does.

And where somebody's class is to be checked, which is done in other processes, these load torch while this one does.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Sequence

import pytest

from harness import forking

#: The options that take a value, which may be the name of something that exists.
_OPTIONS = ("--results", "--implementation", "--workloads", "--resume")


def joined(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with each of the options and its value in one word."""
    answer: list[str] = []
    for argument in arguments:
        if answer and answer[-1] in _OPTIONS:
            answer[-1] += f"={argument}"
        else:
            answer.append(argument)
    return answer


def checks_elsewhere(arguments: Sequence[str]) -> bool:
    """Whether a run with ``arguments`` checks somebody's class in processes of its own: a guess, on which nothing but time depends."""
    words = [word for argument in joined(arguments) for word in argument.split("=", 1)]
    named = [value for option, value in itertools.pairwise(words) if option == "--implementation"]
    otherwise = {"--benchmark-only", "--collect-only", "--co", "--help", "-h", "--version", "never"}
    # pytest-xdist's processes have one of their own each.
    distributed = any(word.startswith(("-n", "--numprocesses")) for word in words)
    return any("." in value for value in named) and not distributed and not otherwise.intersection(words)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """In a checkout: starts again where an option's value decides the root, here or in a process of pytest-xdist, and begins to load."""
    given = list(early_config.invocation_params.args)
    added = shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    again, added_again = joined(given), joined(added)
    here = early_config.invocation_params.dir
    in_checkout = (here / "harness" / "pytest_early.py").is_file() and (here / "conftest.py").is_file()
    # Not where pytest.main() was called by another program, which this would end.
    if (again, added_again) != (given, added) and in_checkout and sys.argv[1:] == given:
        capture = early_config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            # The output is already caught, in files that would be gone with this process.
            capture.stop_global_capturing()
        if added:
            os.environ["PYTEST_ADDOPTS"] = shlex.join(added_again)
        os.execv(sys.executable, [*sys.orig_argv[: len(sys.orig_argv) - len(given)], *again])
    if in_checkout and checks_elsewhere([*added, *given]) and forking.method() == "forkserver":
        forking.begin()

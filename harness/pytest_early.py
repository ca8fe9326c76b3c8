"""A pytest plugin for one thing: a folder given to ``--results`` must not be taken for where the tests are.

Before it knows anybody's options, pytest looks for its configuration beside whatever argument is an existing path, so that
``pytest --results DIR`` is rooted in DIR and finds neither this checkout's conftest.py nor its options (pytest's documentation,
"Initialization: determining rootdir and configfile"; pytest#1435). Written as ``--results=DIR`` it is not. This plugin is installed as an
entry point, is loaded just after that decision, and starts the same command again with the two words joined: also where the folder does
not exist yet, because by the time that pytest-xdist starts its processes, which decide for themselves, it does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pytest

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


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Starts again where an option's value decides the root, here or in a process of pytest-xdist, and this is a checkout."""
    given = list(early_config.invocation_params.args)
    again = joined(given)
    here = early_config.invocation_params.dir
    in_checkout = (here / "harness" / "pytest_early.py").is_file() and (here / "conftest.py").is_file()
    # Not where pytest.main() was called by another program, which this would end.
    if again != given and in_checkout and sys.argv[1:] == given:
        capture = early_config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            # The output is already caught, in files that would be gone with this process.
            capture.stop_global_capturing()
        os.execv(sys.executable, [*sys.orig_argv[: len(sys.orig_argv) - len(given)], *again])

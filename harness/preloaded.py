"""Imported by the process that others are forked from, before it forks any, and by nobody else."""

from __future__ import annotations

import gc
import signal
from contextlib import suppress
from importlib import import_module

from harness.forking import NEEDED

# The one who started this process decides what an interrupt from the keyboard ends.
signal.signal(signal.SIGINT, signal.SIG_IGN)

for _name in NEEDED:
    # Whoever needs it will see what is wrong with it; here nobody would.
    with suppress(Exception):
        import_module(_name)

# Whoever is forked need not look through all this for garbage, and copy the memory that it looks at.
gc.collect()
gc.freeze()

"""The commands of ``python -m reports``, one file each: ``add`` gives the command its parser, and the parser what to run."""

from __future__ import annotations

from reports.commands import compare, export, page, summary, verdicts

COMMANDS = (page, summary, verdicts, compare, export)
"""In the order in which --help lists them."""

"""``python -m suites.conformance`` writes CATALOGUE.md anew: every contract with its statement, severity, source and mutants."""

from __future__ import annotations

import itertools
from pathlib import Path

from harness.outcome import Severity
from suites.conformance import mutants
from suites.conformance.catalogue import CATALOGUE, FILES

PAGE = Path(__file__).with_name("CATALOGUE.md")


def page() -> str:
    """The catalogue as Markdown."""
    descriptions = {mutant.id: mutant.description for found in mutants.registered().values() for mutant in found}
    about = {file.__name__.rpartition(".")[2]: (file.__doc__ or "").strip().splitlines()[0] for file in FILES}
    lines = [
        "# The catalogue of contracts",
        "",
        "Written by `python -m suites.conformance`, not by hand.",
        "",
        f"{len(CATALOGUE)} contracts, {sum(len(c.cases) for c in CATALOGUE)} cases, {len(descriptions)} mutants. "
        + " ".join(f"{severity}: {severity.meaning}." for severity in Severity)
        + " The mutants below a contract are layers with one fault, which it is shown to reject.",
    ]
    for topic, contracts in itertools.groupby(CATALOGUE, key=lambda contract: contract.topic):
        lines += ["", f"## {topic}", "", about[topic]]
        for contract in contracts:
            lines += ["", f"### `{contract.id}` ({contract.severity})", "", contract.statement, "", f"Source: {contract.source}.", ""]
            lines += [f"- `{id.removeprefix('mutant:')}`: {descriptions[id]}" for id in contract.mutants]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)

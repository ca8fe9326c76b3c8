"""What machine this is: plain data, whatever the system does not tell."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness import environment


def test_this_machine_is_described_in_plain_data() -> None:
    found = environment.describe()
    assert json.loads(json.dumps(asdict(found)))["versions"]["torch"] == found.versions["torch"]
    assert found.cores >= 1 and found.cpu and found.machine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast One @ 3 GHz \n\nprocessor\t: 1\nmodel name\t: Fast One @ 3 GHz\n", "Fast One @ 3 GHz"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "aarch64, CPU implementer 0x41, CPU part 0xd0c"),
        ("processor\t: 0\n", "aarch64"),
    ],
)
def test_a_processor_has_a_name_that_tells_it_from_others(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "text_of", lambda path: text if path == Path("/proc/cpuinfo") else "")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment.describe().cpu == name


def test_a_system_that_tells_nothing_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError("not for you")

    def without_proc(path: Path, *arguments: Any, **options: Any) -> str:
        # The other files tell what is installed.
        return (refuse if path.is_relative_to("/proc") else read)(path, *arguments, **options)

    # As a container may have it: no /proc, and no load.
    monkeypatch.setattr(Path, "read_text", without_proc)
    monkeypatch.setattr(os, "getloadavg", refuse)
    monkeypatch.setattr(platform, "processor", lambda: "")
    found = environment.describe()
    assert found.cpu == platform.machine() and found.load is None and found.versions["driver"] is None
    assert environment.available_memory() is None

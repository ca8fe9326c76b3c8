"""What the sessions run, and the environments that the session versus makes, with uv and without it."""

from __future__ import annotations

import runpy
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness

ROOT = Path(harness.__file__).parents[1]


class _Failed(Exception):
    """What nox raises where a command fails."""


def _session(function: Any = None, **options: Any) -> Any:
    return function if function is not None else lambda one: one


#: As much of nox as the file uses when it is read: nox itself runs elsewhere.
NOX = SimpleNamespace(
    project=SimpleNamespace(
        load_toml=lambda path: tomllib.loads((ROOT / path).read_text()),
        dependency_groups=lambda project, *names: [one for name in names for one in project["dependency-groups"][name]],
    ),
    options=SimpleNamespace(),
    session=_session,
    command=SimpleNamespace(CommandFailed=_Failed),
)


class Session:
    """Notes the commands, and makes the Python of an environment where one is made; ``fails`` is told each command."""

    def __init__(self, folder: Path, fails: Callable[[tuple[str, ...]], bool] = lambda command: False) -> None:
        self.cache_dir, self.commands, self._fails = folder, list[tuple[str, ...]](), fails
        self.name, self.posargs = "report", list[str]()

    def install(self, *requirements: str, env: dict[str, str]) -> None:
        """Nothing is needed here."""

    def run(self, *command: str, external: bool = False, success_codes: Sequence[int] = (0,)) -> None:
        self.commands.append(command)
        if self._fails(command):
            raise _Failed
        if "venv" in command:
            python = Path(command[-1]) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
            python.parent.mkdir(parents=True)
            python.touch()

    def error(self, message: str) -> None:
        raise SystemExit(message)


@pytest.fixture
def noxfile(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "nox", NOX)
    monkeypatch.delenv("TORCH", raising=False)
    return runpy.run_path(str(ROOT / "noxfile.py"))


@pytest.fixture
def environment(noxfile: dict[str, Any]) -> Callable[..., str]:
    made: Callable[..., str] = noxfile["_environment"]
    return made


def test_a_report_runs_the_mutants_whatever_is_selected_and_takes_times_in_one_process(
    noxfile: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = Session(tmp_path)
    session.posargs = ["-n", "4", "-k", "gru"]
    noxfile["report"](session)
    _, mutants, timed, page = session.commands
    # Of an option that is given twice the last counts; pytest-benchmark refuses --benchmark-only beside several processes.
    assert mutants[-2:] == ("-k", "rejects_mutant") and "-n" in mutants
    assert "--benchmark-only" in timed and timed[-2:] == ("-n", "0") and page[2:4] == ("reports", "page")


@pytest.fixture
def torch_pin() -> str:
    (pin,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["torch"]
    return str(pin)


def test_without_uv_venv_and_pip_make_an_environment_once_and_install_each_time(
    environment: Callable[..., str], torch_pin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    session = Session(tmp_path)
    python = environment(session, "base", "mypkg==1.0")
    folder = Path(python).parents[1]
    assert folder.parent == tmp_path / "versus" and folder.name.startswith("mypkg-1.0-")
    install = (python, "-m", "pip", "install", "mypkg==1.0", torch_pin, "-e", ".")
    assert session.commands == [(sys.executable, "-m", "venv", str(folder)), install]
    assert environment(session, "base", "mypkg==1.0") == python and session.commands[2:] == [install]


def test_with_uv_it_makes_both(environment: Callable[..., str], torch_pin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv")
    session = Session(tmp_path)
    python = environment(session, "head", "mypkg==1.0")
    assert session.commands == [
        ("/bin/uv", "venv", "--python", sys.executable, str(Path(python).parents[1])),
        ("/bin/uv", "pip", "install", "--python", python, "mypkg==1.0", torch_pin, "-e", "."),
    ]


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_a_checkout_is_installed_anew_and_a_torch_takes_the_place_of_the_pinned_one(
    uv: str | None, environment: Callable[..., str], torch_pin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: uv)
    session = Session(tmp_path)
    environment(session, "base", "./checkout-of-mypkg")
    fresh = ("--reinstall", "--refresh") if uv else ("--force-reinstall",)
    assert session.commands[-1][-2 - len(fresh) :] == ("--no-deps", *fresh, "./checkout-of-mypkg")
    others = [environment(session, "head", requirement) for requirement in ("torch==2.11.0", "./torch-2.11.0-cp311.whl", "torchmypkg==1")]
    assert len(set(others)) == 3
    installs = [command for command in session.commands if "install" in command and "-e" in command]
    assert [torch_pin in command for command in installs] == [True, False, False, True]


def test_what_cannot_be_installed_is_one_line(environment: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    session = Session(tmp_path, fails=lambda command: "pip" in command)
    with pytest.raises(SystemExit, match="Cannot install --head mypkg==9; what the installer says stands above"):
        environment(session, "head", "mypkg==9")

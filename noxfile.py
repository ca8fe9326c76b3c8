"""The sessions of this project; ``nox --list`` is its table of contents. What follows ``--`` is passed to pytest."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["conformance"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "uv|virtualenv"

# uv knows wheels that lie on the machine only by its own variable.
if "PIP_FIND_LINKS" in os.environ:
    os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])


def _torch() -> list[str]:
    """Torch as pinned, or as TORCH in the environment says."""
    return [f"torch=={os.environ['TORCH']}"] if "TORCH" in os.environ else list(nox.project.dependency_groups(PROJECT, "torch"))


def _install(session: nox.Session, *groups: str, project: str = ".") -> None:
    """Installs torch, the project and the named dependency groups.

    ``project``: the project with the extras that are wanted, as ``.[onnx]``.
    """
    # Where Python keeps no bytecode, each process would compile torch anew: 1.6 of the 3.0 s that loading it takes.
    kept = {"UV_COMPILE_BYTECODE": "1"} if "PYTHONDONTWRITEBYTECODE" in os.environ else {}
    # Together and with the pin, so that nothing draws in another torch.
    session.install(*_torch(), "-e", project, *(nox.project.dependency_groups(PROJECT, *groups) if groups else ()), env=kept)


def _parallel(session: nox.Session) -> list[str]:
    """One process for each core, unless the caller says otherwise: conformance uses one thread."""
    return [] if any(argument.startswith(("-n", "--numprocesses", "--pdb")) for argument in session.posargs) else ["-n", "auto"]


@nox.session
def report(session: nox.Session) -> None:
    """Conformance of every implementation, the mutants, a quick throughput sweep, then the report: report/index.html."""
    _install(session, "tests")
    results = Path("results", session.name)
    for old in results.glob("*.jsonl"):
        old.unlink()
    common = [f"--results={results}", "--device=all", *session.posargs]
    # What conformance and throughput found is in the report, failures included: they must not keep it from being written, and neither
    # must a -k that leaves one of them nothing to do.
    verdicts = [0, 1, 5]
    pytest = ["python", "-m", "pytest"]
    session.run(*pytest, *_parallel(session), *common, success_codes=verdicts)
    mutants = ["suites/conformance/test_mutants.py", "-q", *common, "-k", "rejects_mutant"]
    session.run(*pytest, *_parallel(session), *mutants, success_codes=verdicts)
    # Times are taken in one process, however many the caller wants for the rest.
    timed = ["--benchmark-only", "--benchmark-quiet", "--sampling-time=0.5", *common, "-n", "0"]
    session.run(*pytest, *timed, success_codes=verdicts)
    session.run("python", "-m", "reports", "page", str(results), "--out", "report")


@nox.session
def conformance(session: nox.Session) -> None:
    """The contracts on every implementation, or on those that --implementation names."""
    _install(session, "tests")
    # For other people's implementations pytest starts processes itself: more than those would only load torch once more each.
    named = any(argument.startswith("--implementation") for argument in session.posargs)
    session.run("python", "-m", "pytest", *([] if named else _parallel(session)), *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Throughput of every implementation over sequence length; on a machine with a GPU, of the GPU."""
    _install(session)
    session.run("python", "-m", "pytest", "--benchmark-only", *session.posargs)


@nox.session
def calibrate(session: nox.Session) -> None:
    """What comparisons of times can see on this machine: false alarms, and planted slowdowns found."""
    _install(session)
    session.run("python", "-m", "harness.calibration", *session.posargs)


@nox.session(venv_backend="none")
def versus(session: nox.Session) -> None:
    """Two environments side by side: -- --base torch==2.12.0 --head torch==2.13.0, and what python -m harness.versus --help has."""
    parser = argparse.ArgumentParser(prog="nox -s versus --", add_help=False, allow_abbrev=False)
    for side in ("base", "head"):
        parser.add_argument(f"--{side}", metavar="REQUIREMENT")
    chosen, rest = parser.parse_known_args(session.posargs)
    requirements = {"base": chosen.base, "head": chosen.head}
    missing = [f"--{side}" for side, requirement in requirements.items() if not requirement]
    if missing:
        session.error(
            f"Expected {' and '.join(missing)} after --: a requirement such as torch==2.12.0, a checkout or a URL. For example: "
            "nox -s versus -- --base mypkg==1.0 --head ./checkout-of-mypkg --implementation lstm=mypkg:MyLSTM"
        )
    pythons = {side: _environment(session, side, requirement) for side, requirement in requirements.items()}
    options = [option for side, python in pythons.items() for option in (f"--{side}-python", python, f"--{side}", requirements[side])]
    session.run(pythons["head"], "-m", "harness.versus", *options, *rest, external=True)


def _environment(session: nox.Session, side: str, requirement: str) -> str:
    """The Python of a virtual environment with ``requirement``, the project and, unless the requirement is a torch itself, the pinned one.

    It is kept beside the environments of the sessions: another session with the same requirement finds everything installed.
    """
    named = Path(requirement).name
    # A wheel's name ends at its first hyphen, that of a project may have some.
    found = re.match(r"[A-Za-z0-9]*" if named.endswith(".whl") else r"[A-Za-z0-9._-]*", named)
    is_torch = found is not None and found[0].lower() == "torch"
    wanted = [requirement, *([] if is_torch else _torch()), "-e", "."]
    key = hashlib.sha256(" ".join([sys.version, *wanted]).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", named).strip("-")
    folder = session.cache_dir / "versus" / f"{name}-{key}"
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    try:
        if not Path(python).exists():
            session.run(*([uv, "venv", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]), str(folder), external=True)
        # Together, so that the requirement draws in no other torch.
        session.run(*install, *wanted, external=True)
        if re.search(r"[/\\@]", requirement):
            # A checkout or a branch is another one today, under the same version.
            fresh = ["--reinstall", "--refresh"] if uv else ["--force-reinstall"]
            session.run(*install, "--no-deps", *fresh, requirement, external=True)
    except nox.command.CommandFailed:
        session.error(f"Cannot install --{side} {requirement}; what the installer says stands above")
    return python


@nox.session
def mutants(session: nox.Session) -> None:
    """Every contract against the wrong layers that it must reject: how strong the suite is."""
    _install(session, "tests")
    session.run("python", "-m", "pytest", *_parallel(session), "suites/conformance/test_mutants.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The project's own tests, the mutants included, of the contracts that need optional packages too."""
    _install(session, "tests", project=".[onnx,parquet]")
    own = ["harness/tests", "reports/tests", "suites"]
    session.run("python", "-m", "pytest", *_parallel(session), *own, "--ignore=suites/conformance/test_contracts.py", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """How long a run file of 100,000 results takes to load and to render, and how much memory."""
    _install(session, "tests")
    session.run("python", "-m", "reports.tests.scale", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lints, types, and the direction of imports between the rooms."""
    _install(session, "tests", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")

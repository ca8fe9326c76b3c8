"""The sessions of this project; ``nox --list`` is its table of contents. What follows ``--`` is passed to pytest."""

from __future__ import annotations

import os
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


def _install(session: nox.Session, *groups: str, project: str = ".") -> None:
    """Installs torch as pinned (or as TORCH in the environment says), then the project and the named dependency groups.

    ``project``: the project with the extras that are wanted, as ``.[onnx]``.
    """
    pinned = nox.project.dependency_groups(PROJECT, "torch")
    torch = f"torch=={os.environ['TORCH']}" if "TORCH" in os.environ else pinned[0]
    # Together and with the pin, so that nothing draws in another torch.
    session.install(torch, "-e", project, *(nox.project.dependency_groups(PROJECT, *groups) if groups else ()))


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
    # What conformance and throughput found is in the report, failures included: they must not keep it from being written.
    verdicts = [0, 1]
    session.run("python", "-m", "pytest", *_parallel(session), *common, success_codes=verdicts)
    session.run(
        "python",
        "-m",
        "pytest",
        *_parallel(session),
        "suites/conformance/test_mutants.py",
        "-k",
        "rejects_mutant",
        "-q",
        *common,
        success_codes=verdicts,
    )
    session.run("python", "-m", "pytest", "--benchmark-only", "--benchmark-quiet", "--sampling-time=0.5", *common, success_codes=verdicts)
    session.run("python", "-m", "reports", "page", str(results), "--out", "report")


@nox.session
def conformance(session: nox.Session) -> None:
    """The contracts on every implementation, or on those that --implementation names."""
    _install(session, "tests")
    session.run("python", "-m", "pytest", *_parallel(session), *session.posargs)


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


@nox.session
def mutants(session: nox.Session) -> None:
    """Every contract against the wrong layers that it must reject: how strong the suite is."""
    _install(session, "tests")
    session.run("python", "-m", "pytest", *_parallel(session), "suites/conformance/test_mutants.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The project's own tests, the mutants included, of the contracts that need optional packages too."""
    _install(session, "tests", project=".[onnx]")
    own = ["harness/tests", "reports/tests", "suites"]
    session.run("python", "-m", "pytest", *_parallel(session), *own, "--ignore=suites/conformance/test_contracts.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lints, types, and the direction of imports between the rooms."""
    _install(session, "tests", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")

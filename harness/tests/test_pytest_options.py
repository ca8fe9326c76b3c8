"""The options of the command line: what is asked for, what cannot be, and the run file that is begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import pytest_options, pytest_session, statistics
from harness.apart import Apart
from harness.environment import describe
from harness.registry import builtin
from harness.store import read
from harness.tests import samples
from harness.tests.samples import CASE
from harness.workers import Workers
from harness.workload import Pass, Workload


def stand_in(**options: Any) -> Any:
    """As much of pytest's configuration as the plugin asks for."""
    defaults = {name: settings.get("default", False) for name, settings in pytest_options._OPTIONS.items()}
    given: dict[str, Any] = {_destination(name): value for name, value in defaults.items()}
    given |= {"benchmark_only": False, "resume": None, **options}
    given |= {"threads": torch.get_num_threads(), "time_limit": 1.0}
    hook = SimpleNamespace(
        pytest_harness_workloads=lambda: {"quick": (Workload("quick", CASE, Pass.INFERENCE),)},
        pytest_harness_contracts=lambda: (samples.agrees,),
    )
    return SimpleNamespace(getoption=lambda name, default=None: given.get(_destination(name), default), stash={}, hook=hook)


def _destination(option: str) -> str:
    """Under which name argparse keeps an option."""
    return option.lstrip("-").replace("-", "_")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"device": ["tpu"]}, "Cannot use --device tpu: this machine has cpu"),
        ({"workloads": ["huge"]}, "Cannot use --workloads huge: there is no set of this name. Known sets: quick"),
        ({"implementation": ["loop:fastest"]}, "Cannot use --implementation loop:fastest"),
        ({"baseline": "loop:fastest"}, "Cannot use --baseline loop:fastest"),
        ({"resume": "run.jsonl"}, "Cannot use --resume run.jsonl: it goes on from a benchmark, and needs --benchmark-only"),
    ],
    ids=["device", "workloads", "implementation", "baseline", "resume"],
)
def test_an_option_that_cannot_be_met_is_a_usage_error(options: dict[str, Any], line: str) -> None:
    config = stand_in(**options)
    with pytest.raises(pytest.UsageError, match=line) as caught:
        pytest_session.make_session(config)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--threads=0", "a whole number of at least 1 but got 0"),
        ("--threads=two", "a whole number of at least 1 but got two"),
        ("--reseed=-5", "a whole number of at least 0 but got -5"),
        ("--sampling-time=nan", "a number above 0 but got nan"),
        ("--sampling-time=inf", "a number above 0 but got inf"),
        ("--time-limit=0", "a number above 0 but got 0"),
    ],
)
def test_a_number_that_cannot_be_is_a_usage_error_that_says_what_was_expected(option: str, expected: str) -> None:
    # A sampling time of nan is never spent: a comparison that is not decided would be sampled for ever.
    parser = pytest.Parser(_ispytest=True)
    pytest_options.add_options(parser)
    with pytest.raises(pytest.UsageError, match=f"argument {option.partition('=')[0]}: expected {expected}"):
        parser.parse([option])


def test_a_run_file_is_opened_when_a_session_starts_and_not_to_print_the_options(tmp_path: Path) -> None:
    config = stand_in(results=str(tmp_path / "results"), implementation=["loop:textbook"])
    config.option = SimpleNamespace(collectonly=False)
    pytest_session.make_session(config)
    session = pytest_session.session_of(config)
    assert session.writer is None and not (tmp_path / "results").exists()
    session.writer = pytest_session.open_run(config, session)
    assert session.writer is not None
    run = read(session.writer.close(0))
    assert run.complete and list(run.header.implementations) == ["loop:textbook"] and list(run.header.contracts) == ["sample.agrees"]
    assert run.header.implementations["loop:textbook"]["availability"]["cpu"] is None


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_processes_check_as_the_description_of_the_machine_has_cores_for(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # It knows what a container may use, which may be less than the cores that it sees.
    machine = dataclasses.replace(describe(), cores=count * torch.get_num_threads())
    monkeypatch.setattr("harness.environment.describe", lambda: machine)
    monkeypatch.setattr(pytest_session, "Workers", lambda references, limit, count: count)
    config = stand_in(implementation=["loop:textbook"])
    pytest_session.make_session(config)
    workers: Any = pytest_session.session_of(config).workers
    assert workers == count


@pytest.mark.parametrize(("asked", "named"), [("", None), ("loop:hoisted", "loop:hoisted")])
def test_the_policy_of_a_benchmark_names_the_baseline_only_where_one_was_asked_for(asked: str, named: str | None, tmp_path: Path) -> None:
    config = stand_in(results=str(tmp_path), benchmark_only=True, baseline=asked, sampling_time=1.5, implementation=["loop:textbook"])
    pytest_session.make_session(config)
    session = pytest_session.session_of(config)
    # A baseline that was not to be tested is measured beside the rest.
    assert [i.id for i in session.implementations] == [*([asked] if asked else []), "loop:textbook"]
    writer = pytest_session.open_run(config, session)
    assert writer is not None
    policy = read(writer.close(0)).header.policy
    assert policy.get("baseline") == named and ("baseline" in policy) == bool(asked)
    assert policy["sampling_time"] == 1.5 and policy["systematic"] == statistics.SYSTEMATIC and policy["level"] == statistics.LEVEL


def test_a_baseline_of_the_same_name_in_another_file_is_another_implementation(tmp_path: Path) -> None:
    files = [tmp_path / folder / "named_alike.py" for folder in ("old", "new")]
    for file in files:
        file.parent.mkdir()
        file.write_text("from torch import nn\n\n\nclass Mine(nn.LSTM):\n    pass\n")
    old, new = (f"{file}:Mine" for file in files)
    config = stand_in(benchmark_only=True, baseline=old, implementation=[new])
    pytest_session.make_session(config)
    session = pytest_session.session_of(config)
    assert [i.reference for i in session.implementations] == [old, new]
    assert session.implementations[0].id == session.baseline != session.implementations[1].id


def test_the_policy_of_a_conformance_run_says_nothing_of_samples(tmp_path: Path) -> None:
    config = stand_in(results=str(tmp_path), implementation=["loop:textbook"])
    pytest_session.make_session(config)
    writer = pytest_session.open_run(config, pytest_session.session_of(config))
    assert writer is not None
    assert set(read(writer.close(0)).header.policy) == {"floors", "approximate_floors", "least_floor_eps", "sum_floor_eps", "tf32"}


def test_what_takes_long_to_check_is_timed_with_the_rest_and_checked_where_it_is_named() -> None:
    slow = {i.id for i in builtin().values() if i.long_to_check}
    assert slow == {"compile:step", "compile:chunks"}
    for options, expected in (
        ({}, set(builtin()) - slow),
        ({"benchmark_only": True}, set(builtin())),
        ({"implementation": ["compile:step", "loop:textbook"]}, {"compile:step", "loop:textbook"}),
    ):
        config = stand_in(**options)
        pytest_session.make_session(config)
        assert {i.id for i in pytest_session.session_of(config).implementations} == expected
        assert bool(pytest_options.left_out(config)) == (not options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, []),
        ({"workloads": ["quick"], "cold": True}, ["--workloads", "--cold"]),
        ({"baseline": "loop:textbook", "benchmark_only": True}, []),
        ({"reseed": 0, "sampling_time": 6.0, "large": True}, []),
        ({"sampling_time": 2.0}, ["--sampling-time"]),
        ({"reseed": 3, "large": True, "threads": 2, "benchmark_only": True}, ["--reseed", "--large"]),
    ],
)
def test_what_is_about_times_or_checks_alone_has_no_effect_where_there_are_none(options: dict[str, Any], named: list[str]) -> None:
    assert pytest_options.idle(stand_in(**options)) == named


def test_a_results_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = stand_in(results=str(tmp_path / "file" / "results"))
    give_session(config, [builtin()["loop:textbook"]])
    with pytest.raises(pytest.UsageError, match=r"^Cannot write the run file .* Name another folder\.$"):
        pytest_session.open_run(config, pytest_session.session_of(config))


@pytest.mark.parametrize(
    ("machine", "asked", "measuring", "devices"),
    [
        (["cpu"], [], False, ["cpu"]),
        (["cpu"], [], True, ["cpu"]),
        (["cpu", "cuda"], [], False, ["cpu", "cuda"]),
        (["cpu", "cuda"], [], True, ["cuda"]),
        (["cpu", "cuda"], ["all"], True, ["cpu", "cuda"]),
        (["cpu", "cuda"], ["cpu"], True, ["cpu"]),
        (["cpu", "cuda"], ["cuda", "cpu", "cuda"], True, ["cuda", "cpu"]),
    ],
)
def test_a_benchmark_takes_the_gpu_alone_unless_it_is_told(
    machine: list[str], asked: list[str], measuring: bool, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_session, "devices", lambda: machine)
    assert pytest_session._devices(stand_in(device=asked, benchmark_only=measuring)) == devices


def give_session(config: Any, implementations: Sequence[Any], *more: Workload) -> None:
    """Puts a session with these implementations where the plugin looks for it, to be timed on two workloads of a GRU and on ``more``."""
    workloads = [Workload("quick", CASE, Pass.INFERENCE), Workload("quick", CASE, Pass.TRAINING), *more]
    config.stash[pytest_session.SESSION] = pytest_session.Session(
        list(implementations), ["cpu"], workloads, Workers([], 1.0, 1), Apart([], 1.0), {}, ""
    )

"""Runs of several machines: told apart, and never mixed in a verdict, a fit, a comparison or a figure."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from reports import load, page
from reports.analysis import Findings
from reports.figures import FIGURES
from reports.tests import specimen
from reports.tests.test_analysis import ROUNDS, cell, check, slower

CONTRACTS: dict[str, dict[str, object]] = {
    name: {"statement": name, "severity": "MUST", "source": "", "topic": "a", "mutants": []} for name in ("a.one", "a.two")
}


def run(directory: Path, machine: str, *results: Any, what: str = "", **environment: Any) -> Path:
    """A run file of a machine whose ``environment`` differs from the specimen's."""
    own = {**specimen.header().environment, "machine": machine, **environment}
    session = hashlib.sha256((what or machine).encode()).hexdigest()[:12]
    header: dict[str, Any] = {"run": session, "implementations": {}, "contracts": CONTRACTS, "environment": own}
    return specimen.write(directory, results=list(results), what=what or machine, **header)


def named(*paths: Path) -> list[str]:
    frames = load(paths)
    machines = dict(zip(frames.runs["run"], frames.runs["machine"], strict=True))
    assert dict(zip(frames.throughput["run"], frames.throughput["machine"], strict=True)) == machines
    return [machines[path.stem] for path in paths]


@pytest.mark.parametrize("other", [{"cpu": "Another CPU"}, {"cores": 4}, {"gpus": [{"name": "A GPU", "memory": 1}]}])
def test_two_machines_of_one_name_are_told_apart_by_what_they_consist_of(other: dict[str, Any], tmp_path: Path) -> None:
    paths = [run(tmp_path, "vm", cell("torch:a", ROUNDS), what="x"), run(tmp_path, "vm", cell("torch:a", slower(2)), what="y", **other)]
    assert named(*paths) == ["vm", "vm (2)"]


def test_runs_of_one_machine_are_of_one_machine_whatever_its_load_and_whatever_a_file_does_not_say(tmp_path: Path) -> None:
    paths = [
        run(tmp_path, "vm", cell("torch:a", ROUNDS), what="x"),
        run(tmp_path, "vm", cell("torch:a", slower(2)), what="y", load=7.0, memory=1),
        run(tmp_path, "vm", cell("torch:a", slower(3)), what="z", cpu="", cores=None),
    ]
    assert named(*paths) == ["vm", "vm", "vm"]
    assert Findings(load(paths)).parts[0].machine == "", "one machine need not be named"


@pytest.fixture
def two(tmp_path: Path) -> Findings:
    """x:b breaks a contract on the second machine alone, where it takes half the time of the baseline; on the first, twice as much."""
    lengths = (1, 2, 4)
    paths = []
    for machine, by, outcome in (("one", 2.0, Outcome.PASSED), ("two", 0.5, Outcome.FAILED)):
        cells = [cell(name, slower(length * factor), length) for length in lengths for name, factor in (("torch:a", 1.0), ("x:b", by))]
        checks = [check("torch:a", "a.one"), check("torch:a", "a.two"), check("x:b", "a.one"), check("x:b", "a.two", outcome)]
        paths.append(run(tmp_path, machine, *checks, *cells))
    return Findings(load(paths))


def test_a_verdict_is_of_one_machine(two: Findings) -> None:
    found = [dict(zip(part.verdicts["implementation"], part.verdicts["suitability"], strict=True)) for part in two.parts]
    assert [part.machine for part in two.parts] == ["one", "two"]
    assert found == [{"torch:a": "drop-in", "x:b": "drop-in"}, {"torch:a": "drop-in", "x:b": "not a drop-in"}]


def test_who_breaks_a_contract_on_one_machine_may_be_the_fastest_on_another(two: Findings) -> None:
    winners = [part.fastest["winner"].tolist() for part in two.parts]
    assert winners == [["torch:a"] * 2, ["torch:a"] * 2]
    assert [sum("does not conform" in note for notes in part.fastest["passed_over"] for note in notes) for part in two.parts] == [0, 2]


def test_ratios_and_fits_are_of_one_machine(two: Findings) -> None:
    assert [part.relative["speedup"].tolist() for part in two.parts] == [pytest.approx([0.5] * 3), pytest.approx([2.0] * 3)]
    for part, by in zip(two.parts, (2.0, 0.5), strict=True):
        steps = part.costs.set_index("implementation")["step"]
        assert steps["x:b"] / steps["torch:a"] == pytest.approx(by)
        assert part.costs["misfit"].max() == pytest.approx(0.0, abs=1e-9)


def test_no_figure_mixes_two_machines_and_each_says_of_which_it_is(two: Findings) -> None:
    names = []
    for part in two.parts:
        for _, plans in FIGURES:
            for drawing in (plan() for plan in plans(part)):
                names.append(drawing.name)
                assert part.machine in drawing.title
                for column in ("place", "machine"):
                    if column in drawing.data:
                        assert drawing.data[column].str.endswith(part.machine).all()
    assert len(names) == len(set(names)) > 4


def test_the_page_of_two_machines_says_of_which_each_table_and_figure_speaks(two: Findings, tmp_path: Path) -> None:
    html = page.write(two.frames, tmp_path / "out").read_text()
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "2 machines, 2 verdicts" in text
    assert "one: all 2 tested implementations are drop-ins." in text and "two: 1 of 2 tested implementations is a drop-in." in text
    verdicts = re.findall(r'<td data-label="On ">(\w+)</td>\s*<td><span class="badge ([a-z-]+)"', html)
    assert verdicts == [("one", "drop-in"), ("one", "drop-in"), ("two", "drop-in"), ("two", "not-a-drop-in")]
    assert "CPU · one, B=2" in text and "CPU · two, B=2" in text
    matrix = html[html.index('id="matrix"') :]
    assert re.findall(r"<small>(one|two)</small>", matrix[: matrix.index("</thead>")]) == ["one", "one", "two", "two"]
    names = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert len(names) == html.count("<figure ")


def test_figures_of_machines_whose_names_make_one_file_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    cells = [cell("torch:a", ROUNDS, length) for length in (1, 2)]
    paths = [run(tmp_path, name, *cells, what=what) for name, what in (("a b", "x"), ("a-b", "y"))]
    html = page.write(load(paths), tmp_path / "out").read_text()
    assert len({path.stem for path in (tmp_path / "out" / "figures").iterdir()}) == html.count("<figure ") > 1

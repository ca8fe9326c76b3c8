"""Figures that are drawn in other processes: the same bytes, in the same order, and a page also where a process dies."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports import load, page
from reports.drawers import MOST, cores, drawers
from reports.figures import Drawing
from reports.tests import specimen


def _written(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_page_is_the_same_to_the_byte_however_many_processes_draw_it(tmp_path: Path) -> None:
    frames = load(specimen.write(tmp_path, results=[*specimen.conformance(1), *specimen.throughput()[:132]]))
    pages = [_written(page.write(frames, tmp_path / f"{number}", frames, number).parent) for number in (1, 2)]
    assert pages[0] == pages[1]
    assert len([name for name in pages[0] if name.endswith(".svg")]) > 5


def _here(name: str, dies: bool = False) -> Drawing:
    if dies and multiprocessing.parent_process():
        os._exit(3)
    return Drawing(name, f"drawn by {os.getpid()}", "", "", Figure(), pd.DataFrame())


def _drawn_by(processes: int, dies: bool) -> list[int]:
    """The processes that drew four figures, of which the second may end its own."""
    with drawers(processes) as drawing:
        results = [drawing.draw(partial(_here, f"{k}", dies and k == 1), f"f{k}") for k in range(4)]
        drawn = [result() for result in results]
    assert [one.name for one in drawn] == ["0", "1", "2", "3"], "in the order in which they were planned"
    return [int(one.entry["title"].removeprefix("drawn by ")) for one in drawn]


def test_with_one_process_everything_is_drawn_in_this_one_and_with_more_nothing_is() -> None:
    assert set(_drawn_by(1, dies=False)) == {os.getpid()}
    assert os.getpid() not in _drawn_by(2, dies=False)


def test_what_a_process_had_when_it_died_is_drawn_in_this_one() -> None:
    assert os.getpid() in _drawn_by(2, dies=True)


def _wrong() -> Drawing:
    raise ZeroDivisionError("a figure that cannot be drawn")


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_figure_is_raised_and_not_left_out(processes: int) -> None:
    with drawers(processes) as drawing:
        result = drawing.draw(_wrong, "f0")
        with pytest.raises(ZeroDivisionError, match="cannot be drawn"):
            result()


def test_there_are_as_many_processes_as_this_one_may_use_cores_up_to_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, expected in ((1, 1), (2, 2), (64, MOST)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, usable=usable: set(range(usable)), raising=False)
        assert cores() == expected

"""Environments side by side: what is read of them, and what the page, the summary and the commands say."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.record import Versus
from reports import load, page, view_versus
from reports.__main__ import main
from reports.analysis import Findings
from reports.figures import style, versus
from reports.side_by_side import SideBySide
from reports.summary import MOST, summary
from reports.tests import specimen
from reports.tests.gfm import seen
from reports.tests.specimen import HOSTILE

HERE = Path(__file__).parent / "specimens" / "versus"
HEAD = "torch==2.13.0 <script>alert(2)</script>"


def _one(*paths: Path) -> SideBySide:
    (found,) = Findings(load(paths)).side_by_side
    return found


def _versus(workload: str, ratio: float | None = 1.0, **changes: Any) -> Versus:
    """A comparison of torch:a with an interval of 1 %."""
    shared: dict[str, Any] = {"mode": "lstm", "device": "cpu", "dtype": "float32", "timed_pass": "inference"}
    known: dict[str, Any] = {"ratio": ratio, "ratios": [ratio] * 5, "stopped": "decided"}
    if ratio is not None:
        known |= {"low": ratio * 0.99, "high": ratio * 1.01}
    verdict = "" if ratio is None else "slower" if ratio > 1.02 else "same"
    record = Versus(workload, "release", "torch:a", "one", "two", "passed", verdict=verdict, **shared, **(known if ratio else {}))
    return replace(record, **changes)


def _run(directory: Path, *records: Versus, **changes: Any) -> Path:
    number = len(list(directory.glob("*.jsonl")))
    header: dict[str, Any] = {"contracts": {}, "implementations": {}, "workloads": {}, "run": f"run{number:05}", **changes}
    return specimen.write(directory, what=f"versus{number}", results=list(records), **header)


def test_of_several_records_of_one_comparison_the_last_counts(tmp_path: Path) -> None:
    frames = load(specimen.versus_run(tmp_path))
    assert frames.problems == () and len(frames.versus) == 7
    passed = frames.versus[frames.versus["outcome"] == "passed"]
    assert passed["pairs"].tolist() == [6] * 5 and passed["verdict"].tolist() == ["slower", "faster", "same", "undecided", "undecided"]


def test_what_is_slower_comes_first_and_what_has_no_time_apart(tmp_path: Path) -> None:
    found = _one(specimen.versus_run(tmp_path))
    assert [row.verdict for row in found.compared] == ["slower", "faster", "undecided", "undecided", "same"]
    assert [(row.workload, row.outcome) for row in found.failed] == [("release/gru-T64", "failed"), ("release/rnn_tanh-T64", "unavailable")]
    assert found.never == ["release/never-T1"] and not found.incomplete and found.most == 8
    assert found.told == "of 5 comparisons 1 slower, 1 faster, 2 undecided and 1 same; 2 comparisons without a time"


def test_what_differs_is_told_with_what_is_in_one_alone(tmp_path: Path) -> None:
    found = _one(specimen.versus_run(tmp_path))
    assert found.differences == [
        ("onednn", "3.9", "3.10"), ("torch", "2.11.0", "2.13.0"), ("sympy", "1.13", ""), ("<b>mypkg</b>", "", "1.0"),
    ]  # fmt: skip
    assert found.common == {"python": "3.11.9", "numpy": "2.4.6"}


def test_a_run_that_was_cut_short_says_so_and_one_that_went_on_from_it_replaces_it(tmp_path: Path) -> None:
    first = _run(tmp_path, _versus("w", 1.1), _versus("v", 1.1, stopped=""), created="2026-01-02T03:04:05Z")
    assert _one(first).incomplete
    second = _run(tmp_path, _versus("w", 1.0), _versus("v", 1.0), created="2026-01-03T03:04:05Z")
    assert not _one(first, second).incomplete
    assert [row.ratio for row in _one(second, first).compared] == [1.0, 1.0]
    assert _one(specimen.versus_run(tmp_path, complete=False, what="cut")).incomplete


def test_environments_of_one_name_with_other_versions_are_others(tmp_path: Path) -> None:
    policies = [{"installed": {"base": {"torch": "1"}, "head": {"torch": version}}} for version in ("2", "3")]
    paths = [_run(tmp_path, _versus("w", ratio), policy=policy) for ratio, policy in zip((1.0, 1.1), policies, strict=True)]
    found = Findings(load(paths)).side_by_side
    assert [(one.differences, [row.ratio for row in one.compared]) for one in found] == [
        ([("torch", "1", "2")], [1.0]),
        ([("torch", "1", "3")], [1.1]),
    ]


def test_nothing_of_one_machine_is_told_of_another(tmp_path: Path) -> None:
    environment = specimen.header().environment
    paths = [_run(tmp_path, _versus("w", r), environment={**environment, "machine": name}) for name, r in (("here", 1.0), ("there", 1.1))]
    found = Findings(load(paths)).side_by_side
    assert [(one.machine, [row.ratio for row in one.compared]) for one in found] == [("here", [1.0]), ("there", [1.1])]
    assert "two beside one on there" in page.write(load(paths), tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("records", "title"),
    [
        ([_versus("w", 1.1), _versus("v")], "two is slower than one in 1 of 2 comparisons"),
        ([_versus("w"), _versus("v")], "two is not seen to be slower than one"),
        ([_versus("w", None, outcome="crashed", message="head: gone")], "Environments side by side: nothing could be compared"),
        (
            [_versus("w", verdict="undecided"), *(_versus(f"v{k}", None, outcome="crashed") for k in range(5))],
            "two is not seen to be slower than one; 1 undecided and 5 without a time",
        ),
        (
            [_versus("w", 1.1), _versus("v", None, outcome="failed")],
            "two is slower than one in 1 of 1 comparison; 1 without a time",
        ),
    ],
)
def test_the_title_is_the_verdict_where_nothing_else_was_done(records: list[Versus], title: str, tmp_path: Path) -> None:
    frames = load(_run(tmp_path, *records))
    text = page.write(frames, tmp_path / "out").read_text(encoding="utf-8")
    assert f"<h1>{title}</h1>" in text
    assert 'id="verdict"' not in text and 'href="#verdict"' not in text, "no table without a line"
    assert summary(frames).text.startswith(f"## {title}\n")


def test_of_several_environments_the_title_counts_what_is_left_open_in_all_of_them(tmp_path: Path) -> None:
    runs = [_run(tmp_path, *(replace(one, head=head) for one in (_versus("w"), _versus("v", None, outcome="crashed")))) for head in "ab"]
    title, _ = view_versus.headline(Findings(load(runs)).side_by_side)
    assert title == "None of 2 environments is seen to be slower than the one beside it; 2 without a time"


def test_beside_implementations_it_is_one_sentence_of_the_lead_and_a_section(tmp_path: Path) -> None:
    paths = [specimen.versus_run(tmp_path), specimen.write(tmp_path, results=specimen.conformance(1))]
    text = page.write(load(paths), tmp_path / "out").read_text(encoding="utf-8")
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', text.partition("</header>")[0])
    assert "beside torch==2.11.0: of 5 comparisons 1 slower" in lead
    assert text.index('id="verdict"') < text.index('id="versus"') < text.index('id="tested"')


def test_the_page_has_every_comparison_and_escapes_every_name(tmp_path: Path) -> None:
    text = page.write(load(specimen.versus_run(tmp_path)), tmp_path / "out").read_text(encoding="utf-8")
    section = text[text.index('<section id="versus"') : text.index('<section id="tested"')]
    for told in ("1.071 to 1.089", "6 of 8", "decided", "pairs used up", "aten::mkldnn_rnn_layer → aten::lstm_cell", "release/never-T1",
                 "37 of 480 elements are off", "other processes used 40 %", "5 of 30 pairs", "/venvs/head/bin/python",
                 "absent"):  # fmt: skip
        assert told in section, told
    assert section.count("<tr>") == 1 + 5 + 1 + 4
    (folded,) = re.findall(r"<details><summary[^>]*>([^<]*)</summary><pre[^>]*>(.*?)</pre>", section, re.DOTALL)
    assert folded[0] == "head: h_n: 37 of 480 elements are off" and "worst" in folded[1], "a long text says its first line and is folded"
    assert '<div class="id">head: &lt;b&gt;no module' in section, "a line is no text to fold"
    for foreign in ("<script>alert", "<b>", "<i>worst"):
        assert foreign not in text.replace("<title>", ""), foreign
    assert (tmp_path / "out" / "figures" / "versus-torch-2-13-0-script-alert-2-script-torch-2-11-0.png").stat().st_size > 0


def test_the_figure_has_every_pair_and_every_ratio(tmp_path: Path) -> None:
    (drawing,) = (plan() for plan in versus.plans(_one(specimen.versus_run(tmp_path))))
    (panel,) = drawing.figure.axes
    points = {line.get_gid(): len(np.asarray(line.get_xdata())) for line in panel.lines if line.get_marker() not in ("None", "")}
    assert points == {None: 5 * 6, "versus-slower": 1, "versus-faster": 1, "versus-same": 1, "versus-undecided": 2}
    assert {gid: len(texts) for gid, texts in drawing.hover.items()} == {gid: n for gid, n in points.items() if gid}
    assert "torch:onednn · release/lstm-T64: 1.081× (1.071 to 1.089), slower, 6 pairs" in drawing.alternative


def test_names_that_are_too_long_for_a_file_are_cut_and_stay_apart(tmp_path: Path) -> None:
    wheels = [f"torch @ https://download.pytorch.org/whl/{'nightly/' * 12}torch-2.{minor}.0-cp311-linux.whl" for minor in (11, 12, 13)]
    runs = [_run(tmp_path, replace(_versus("w"), base=base, head=head)) for base, head in pairwise(wheels)]
    page.write(load(runs), tmp_path / "out")
    names = sorted(path.stem for path in (tmp_path / "out" / "figures").glob("*.png"))
    assert len(names) == 2 and all(len(name) <= style.LONGEST and name.endswith("-cp311-linux-whl") for name in names)


@pytest.mark.parametrize("implementations", [["torch:onednn"], ["torch:onednn", "lstm=a/long/way/to/the/file/of/layers.py:Mine"]])
def test_every_row_of_the_figure_is_named_apart(implementations: list[str], tmp_path: Path) -> None:
    names = [f"release/rnn_tanh-I1024-H1024-T1024-B128-float32-cpu-{timed}" for timed in ("inference", "training")]
    records = [replace(_versus(name), implementation=implementation) for name in names for implementation in implementations]
    (drawing,) = (plan() for plan in versus.plans(_one(_run(tmp_path, *records))))
    labels = {label.get_text() for label in drawing.figure.axes[0].get_yticklabels()}
    assert len(labels) == len(records) and all(len(label) <= 60 for label in labels)
    assert ("of torch:onednn" in drawing.title) == (len(implementations) == 1)


def test_a_page_draws_some_comparisons_and_counts_the_rest(tmp_path: Path) -> None:
    (drawing,) = (plan() for plan in versus.plans(_one(_run(tmp_path, *(_versus(f"w{k}") for k in range(versus.ROWS + 3))))))
    assert "3 more comparisons, not drawn here" in drawing.caption and len(drawing.data) == versus.ROWS


def test_the_summary_has_every_comparison_and_no_foreign_markup_and_fits(tmp_path: Path) -> None:
    found = seen(summary(load(specimen.versus_run(tmp_path))).text)
    tables = {table[0][0]: table[1:] for table in found.tables}
    assert next(line[:1] + line[3:] for line in tables["verdict"]) == ["slower", "1.081 (1.071 to 1.089)", "6 of 8"]
    assert len(tables["verdict"]) == 5 and len(tables["what differs"]) == 4
    assert [line[2] for line in tables["implementation"]] == ["failed", "unavailable"]
    assert HOSTILE in [line[1] for line in tables["verdict"]] and HEAD in found.text
    assert not found.tags & {"script", "b", "i"}
    many = load(_run(tmp_path, *(_versus(f"workload/{k:05}", 1.1) for k in range(3000))))
    text = summary(many).text
    assert len(text.encode()) <= MOST and "**3000 of 3\u202f000 comparisons slower in HEAD**" in text and "more comparisons" in text


def test_verdicts_prints_what_became_of_environments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(specimen.versus_run(tmp_path))
    assert main(["verdicts", path]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith(f"slower     torch:onednn on release/lstm-T64: {HEAD} takes 1.0811 (1.0714 to 1.0886)")
    assert len(told.out.splitlines()) == 5 and told.err == ""
    assert main(["verdicts", path, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next((line["verdict"], line["base"], line["pairs"]) for line in lines) == ("slower", "torch==2.11.0", 6)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_file_that_was_written_before_is_read_whole(path: Path, tmp_path: Path) -> None:
    frames = load(path)
    assert frames.problems == () and len(frames.versus) == 7
    assert "is slower than torch==2.11.0 in 1 of 5 comparisons" in page.write(frames, tmp_path).read_text(encoding="utf-8")
    assert "1 of 5 comparisons slower in HEAD**; 2 undecided, 2 without a time and 1 never begun." in summary(frames).text


def test_records_of_odd_content_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    odd = _versus("w", 1.1, verdict="splendid", low=None, high=None, kernels={"base": []}, environments={"base": 3}, evidence=[{"told": 3}])
    frames = load(_run(tmp_path, odd, _versus("v", None), policy={"pairs": "many", "environments": [], "installed": {"base": 7}}))
    text = page.write(frames, tmp_path / "out").read_text(encoding="utf-8")
    assert "splendid" in text and "no interval" in text
    assert "1 comparison without a time" in summary(frames).text or "1 without a time" in summary(frames).text


@pytest.mark.parametrize("ratio", [math.inf, 0.0, -1.0])
def test_a_ratio_that_is_none_is_no_comparison(ratio: float, tmp_path: Path) -> None:
    path = _run(tmp_path, _versus("w"), _versus("v", 1.25))
    path.write_text(path.read_text().replace("1.25", str(ratio).replace("inf", "Infinity")))
    found = _one(path)
    assert ([row.workload for row in found.compared], [row.workload for row in found.failed]) == (["w"], ["v"])
    page.write(load(path), tmp_path / "out")


def test_the_time_of_a_side_is_the_median_of_its_pairs() -> None:
    assert view_versus._typical([4e-3, 1e-3, 2e-3, 3e-3]) == ("0.0025", "2.5 ms")
    assert view_versus._typical([]) == ("", "")

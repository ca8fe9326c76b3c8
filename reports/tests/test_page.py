"""The page as HTML and on the command line; how it behaves in a browser is in test_browser.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.case import Case
from harness.coverage import covered
from harness.layer import Layer, Mode
from harness.outcome import Outcome
from harness.record import Mutation, Throughput
from harness.statistics import LEVEL, MARGIN
from harness.workload import Pass
from reports import page, view_conformance, view_runs, view_speed, view_verdict
from reports.__main__ import main
from reports.analysis import Findings
from reports.load import load
from reports.metrics import HOST_BOUND
from reports.tests import specimen
from reports.tests.specimen import HOSTILE
from reports.tests.test_analysis import cell, check, findings_of

PARAMETERS = vars(Layer(Mode.GRU, 3, 5)) | {k: v for k, v in vars(Case(Layer(Mode.GRU, 3, 5), steps=4, batch=2)).items() if k != "layer"}


@pytest.fixture(scope="module")
def html(built_page: Path) -> str:
    return built_page.read_text(encoding="utf-8")


class _Reader(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.texts.append(data)


def test_the_page_leads_with_the_verdict(html: str) -> None:
    text = " ".join(_Reader(html).texts)
    assert text.index("3 of 6 tested implementations are drop-ins") < text.index("Who was tested") < text.index("Every contract")


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    for tag, attributes in _Reader(html).tags:
        for name in ("src", "srcset", "action", "data", "poster"):
            assert name not in attributes, (tag, attributes)
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag == "use":
            assert (attributes["href"] or "").startswith("#")
    assert "@import" not in html
    assert "xlink:href" not in html
    assert not re.search(r"url\((?!#)", html)


def test_every_name_from_a_user_is_escaped(html: str) -> None:
    reader = _Reader(html)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert not any(tag == "b" for tag, _ in reader.tags)
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert any(HOSTILE in text for text in reader.texts)


@pytest.mark.parametrize(("contracts", "folded"), [(6, False), (7, True)])
def test_a_long_list_of_contracts_is_counted_in_the_verdict_and_open_to_its_names(contracts: int, folded: bool, tmp_path: Path) -> None:
    results = [check("x:a", f"a.number_{number}", Outcome.UNSUPPORTED) for number in range(contracts)]
    text = page.write(load(specimen.write(tmp_path, results=results)), tmp_path / "out").read_text()
    verdict = text[text.index('id="verdict"') : text.index("</section>")]
    assert (f'<summary class="note">does not support, wholly or in part: {contracts} contracts</summary>' in verdict) == folded
    assert all(f"a.number_{number}" in verdict for number in range(contracts))


def test_a_source_is_a_link_only_where_it_is_an_address_of_the_web(tmp_path: Path) -> None:
    facts = {"statement": "s", "severity": "MUST", "topic": "a", "mutants": []}
    contracts = {"a.one": {**facts, "source": "javascript:alert(1)"}, "a.two": {**facts, "source": "https://example.org/x"}}
    results = [specimen.conformance(1)[1]]
    text = page.write(load(specimen.write(tmp_path, results=results, contracts=contracts)), tmp_path / "out").read_text()
    links = [attributes.get("href") for tag, attributes in _Reader(text).tags if tag == "a"]
    assert "https://example.org/x" in links
    assert not any((link or "").startswith("javascript") for link in links)


def test_every_outcome_and_its_meaning_is_explained(html: str) -> None:
    text = " ".join(_Reader(html).texts)
    for outcome in Outcome:
        assert outcome.meaning in text


def test_the_unavailable_are_listed_with_the_reason_and_messages_keep_their_lines(html: str) -> None:
    text = "\n".join(_Reader(html).texts)
    assert "cuDNN serves CUDA devices only" in text
    assert specimen.MESSAGE in text


def test_every_internal_link_leads_somewhere_and_no_id_is_used_twice(html: str) -> None:
    tags = _Reader(html).tags
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids, attributes


def test_every_figure_has_its_text_and_its_data_in_the_page_and_its_files_beside_it(html: str, built_page: Path) -> None:
    reader = _Reader(html)
    assert sum(tag == "figure" for tag, _ in reader.tags) == sum(tag == "textarea" for tag, _ in reader.tags) == 10
    names = {path.name for path in (built_page.parent / "figures").iterdir()}
    assert {Path(name).suffix for name in names} == {".png", ".svg"}
    assert len(names) == 20


def test_cases_that_are_only_named_are_counted_one_by_one(tmp_path: Path) -> None:
    messages = [*"abcde", *(f"message {k % 3}" for k in range(15))]
    failed = [check("x:a", "a.one", Outcome.FAILED, case=f"c{k}", message=message) for k, message in enumerate(messages)]
    _, _, (detail,) = view_conformance.matrix_topics(findings_of(tmp_path, *failed))
    assert len(detail.cases) == 5 and detail.others == "15 further cases: c5, c6, c7, …"


def test_a_cell_of_the_matrix_says_how_many_of_its_cases_had_what_it_shows(tmp_path: Path) -> None:
    outcomes = {"a.one": [Outcome.PASSED] * 2 + [Outcome.UNAVAILABLE] * 4, "a.two": [Outcome.PASSED] * 3}
    results = [check("x:a", name, outcome, case=f"{k}") for name, found in outcomes.items() for k, outcome in enumerate(found)]
    _, (topic,), _ = view_conformance.matrix_topics(findings_of(tmp_path, *results))
    assert [contract["cells"][0]["text"] for contract in topic["contracts"]] == ["2/6", "3"]


def test_of_two_runs_of_one_workload_the_table_of_cells_says_which_does_not_count(tmp_path: Path) -> None:
    def run(what: str, day: int, *cells: Throughput) -> Path:
        return specimen.write(tmp_path, results=list(cells), created=f"2026-01-0{day}T00:00:00Z", run=what * 12, what=what)

    one, two = run("a", 1, cell("x:a", [1.0]), cell("x:a", [1.0], 16)), run("b", 2, cell("x:a", [2.0]))
    found, _ = view_speed.cell_rows(Findings(load([one, two])))
    assert [(row["run"], row["length"]) for row in found] == [
        (f"{one.stem}, superseded", 8),
        (one.stem, 16),
        (two.stem, 8),
    ]
    assert 'data-facet="run">Run</th>' in page.write(load([one, two]), tmp_path / "both").read_text()
    assert 'data-facet="run"' not in page.write(load(one), tmp_path / "alone").read_text()


def test_where_the_runs_of_a_machine_have_other_versions_all_of_them_are_told(tmp_path: Path) -> None:
    def run(what: str, torch: str) -> Path:
        environment = {**specimen.header().environment, "versions": {"torch": torch}}
        return specimen.write(tmp_path, results=[check("x:a", "a.one")], run=what * 12, what=what, environment=environment)

    paths = [run("a", "2.11.0"), run("b", "2.13.0"), run("c", "2.11.0")]
    (facts,) = view_runs.machine_facts(Findings(load(paths)))
    assert facts["CPU"] == ["An Imaginary CPU @ 2.50GHz · 2 cores"]
    assert facts["Versions"] == [f"torch 2.11.0 ({paths[0].stem}, {paths[2].stem})", f"torch 2.13.0 ({paths[1].stem})"]
    assert "torch 2.13.0 (" in page.write(load(paths), tmp_path / "out").read_text()


def test_every_number_with_words_around_it_has_a_value_to_sort_by(tmp_path: Path) -> None:
    good = {"quantity": "y", "error": 1e-7, "floor": 1e-7, "ratio": 3.9, "allowance": 4.0, "elements": 3}
    errors = {"x:a": [good], "x:b": [{**good, "ratio": 1.7e6}], "x:c": [{**good, "ratio": None, "error": None}], "x:d": []}
    found = findings_of(tmp_path, *(check(name, "a.one", errors=own) for name, own in errors.items()))
    assert {row["implementation"]: row["worst"] for row in view_verdict.verdict_rows(found)} == {
        "x:a": ("3.9", "3.9×"),
        "x:b": ("1.7e+06", "1.7e+06×"),
        "x:c": ("Infinity", "not finite"),
        "x:d": ("", "not measured"),
    }
    text = page.write(found.frames, tmp_path / "out").read_text()
    assert '<td class="n" data-v="1.7e+06" data-label="Worst error over floor: ">1.7e+06×</td>' in text
    agreement = {"before": [{"quantity": "y", "ratio": 1.5}], "after": [{"quantity": "y", "ratio": 2.5}]}
    (row,), _ = view_speed.cell_rows(findings_of(tmp_path / "cells", cell("x:a", [0.5, 1.0, 2.0], agreement=agreement)))
    assert (row["spread"], row["agreement"]) == (("0.75", "750 to 1500"), ("2.5", "1.5× / 2.5×"))


def test_figures_of_an_earlier_report_are_removed_and_nothing_else(tmp_path: Path) -> None:
    cells = [cell(name, [1.0] * 6, length) for name in ("torch:a", "x:b") for length in (1, 8)]
    figures = tmp_path / "figures"
    page.write(load(specimen.write(tmp_path / "runs", results=cells)), tmp_path)
    before = {path.name for path in figures.iterdir()}
    for own in ("mine.png", "throughput-notes.svg"):
        (figures / own).write_text("of the user")
    page.write(load(specimen.write(tmp_path / "other", results=[check("x:a", "a.one")])), tmp_path)
    after = {path.name for path in figures.iterdir()}
    assert "throughput-inference-cpu-b-2-i-h-4-float32-1-thread.png" in before - after
    assert after == {"conformance.png", "conformance.svg", "mine.png", "throughput-notes.svg"}
    (tmp_path / "index.html").write_bytes(b"\xff is no page of ours")
    page.write(load(specimen.write(tmp_path / "third", results=cells)), tmp_path)
    assert {path.name for path in figures.iterdir()} == before | after


def _mutations() -> list[Mutation]:
    killed = Mutation("values.property_1", "mutant:one", "passed", "One bias is lost.", {"gru": "killed", "lstm": "survived"}, "gru-I3")
    return [killed, Mutation("values.property_2", "mutant:two", "failed", f"Lost {HOSTILE}.", {"gru": "survived"})]


def test_the_mutant_score_names_who_is_alive(tmp_path: Path) -> None:
    frames = load([specimen.write(tmp_path, results=_mutations()), specimen.write(tmp_path, what="two", results=specimen.conformance(1))])
    assert list(frames.mutations["killed"]) == [True, False]
    text = " ".join(_Reader(page.write(frames, tmp_path / "out").read_text()).texts)
    assert "1 of 2 (50.0%)" in text
    assert f"mutant:two (Lost {HOSTILE}.), which values.property_2 must reject" in text
    assert "rejected" in text and "not seen" in text


def test_without_mutants_the_page_says_that_nothing_shows_how_strong_the_suite_is(html: str) -> None:
    assert "none was run in these files" in " ".join(" ".join(_Reader(html).texts).split())


def test_a_run_of_mutants_alone_says_of_no_implementation_that_it_was_not_tested(tmp_path: Path) -> None:
    assert load(specimen.write(tmp_path, results=_mutations())).implementations.empty


def test_the_page_says_what_the_cases_covered(tmp_path: Path) -> None:
    results = [
        replace(r, case=f"case-{k}", mode="gru", parameters=PARAMETERS | {"steps": k})
        for k, r in enumerate(specimen.conformance(1)[1:9], start=1)
    ]
    run = specimen.write(tmp_path, results=results, coverage=covered(results))
    frames = load(run)
    assert set(frames.coverage["implementation"]) == {r.implementation for r in results if r.outcome in ("passed", "failed")}
    text = " ".join(" ".join(_Reader(page.write(frames, tmp_path / "out").read_text()).texts).split())
    assert "T 2 values, 1 to" in text or "T 1 values" in text
    assert "form=unbatched" in text


def _told(directory: Path, *runs: Path) -> str:
    """The text of the page of ``runs``, its words set apart by single blanks."""
    return " ".join(" ".join(_Reader(page.write(load(runs), directory / "out").read_text()).texts).split())


def test_the_page_says_what_the_instrument_can_see_on_the_machine(tmp_path: Path) -> None:
    timed = specimen.write(tmp_path, results=specimen.throughput()[:12])
    calibrated = specimen.write(tmp_path, what="eye", results=specimen.calibrations(), policy={"instrument_overhead": 0.0123})
    text = _told(tmp_path, timed, calibrated)
    assert "What the instrument can see on this machine" in text
    # Wilson's interval of 1 of 10 and of 9 of 10.
    assert (
        "On specimen comparisons 95 % interval s each, median at most, s equal things, called different 1 of 10 1.8% to 40.4% 1.5 6" in text
    )
    assert "a slowdown of 2 %, found 9 of 10 59.6% to 98.2% 0.62 6" in text
    assert "a sample of a call of 20 µs differs by +1.23% from a bare loop" in text
    assert "nox -s calibrate" not in text


def test_equal_things_that_were_called_faster_are_false_alarms_too(tmp_path: Path) -> None:
    equal = replace(specimen.calibrations()[0], verdicts={"faster": 2, "slower": 1, "same": 7, "undecided": 0})
    missed = replace(specimen.calibrations()[1], planted=0.005, verdicts={"faster": 2, "slower": 1, "same": 7, "undecided": 0})
    text = _told(tmp_path, specimen.write(tmp_path, results=[missed, equal]))
    assert "equal things, called different 3 of 10" in text and "a slowdown of 0.5 %, found 1 of 10" in text
    assert text.index("equal things, called") < text.index("a slowdown of"), "by what was planted"


def test_of_two_calibrations_of_a_machine_the_later_one_counts(tmp_path: Path) -> None:
    equal = specimen.calibrations()[0]
    late = replace(equal, verdicts={"faster": 0, "slower": 0, "same": 10, "undecided": 0})
    runs = [
        specimen.write(tmp_path, results=[late], created="2026-01-02T00:00:00Z", what="late"),
        specimen.write(tmp_path, results=specimen.calibrations(), created="2026-01-01T00:00:00Z", what="early"),
    ]
    text = _told(tmp_path, *runs)
    assert "called different 0 of 10 0.0% to 27.8%" in text
    assert "1 of 10" not in text and "a slowdown of" not in text


def test_each_workload_has_a_calibration_of_its_own(tmp_path: Path) -> None:
    equal = replace(specimen.calibrations()[0], workload="nn.LSTM T=64")
    larger = replace(equal, workload="nn.LSTM T=25", verdicts={"faster": 0, "slower": 0, "same": 10, "undecided": 0})
    early = specimen.write(tmp_path, results=[equal], created="2026-01-01T00:00:00Z", what="early")
    late = specimen.write(tmp_path, results=[larger], created="2026-01-02T00:00:00Z", what="late")
    text = _told(tmp_path, early, late)
    for workload, found in (("nn.LSTM T=64", 1), ("nn.LSTM T=25", 0)):
        told = text.partition(f"On specimen, {workload} comparisons")[2]
        assert told.partition("called different ")[2].startswith(f"{found} of 10")


def test_each_device_of_a_machine_has_a_calibration_of_its_own(tmp_path: Path) -> None:
    equal = specimen.calibrations()[0]
    early = specimen.write(tmp_path, results=specimen.calibrations(), created="2026-01-01T00:00:00Z", what="early")
    # What older run files say of no device was calibrated on the CPU.
    early.write_text(early.read_text().replace(', "device": "cpu"', ""))
    on_gpu = replace(equal, device="cuda", verdicts={"faster": 0, "slower": 0, "same": 10, "undecided": 0})
    late = specimen.write(tmp_path, results=[on_gpu], created="2026-01-02T00:00:00Z", what="late")
    text = _told(tmp_path, early, late)
    assert "On specimen comparisons" in text and "1 of 10" in text
    assert "On CUDA · specimen comparisons" in text and "called different 0 of 10" in text
    timed = specimen.write(tmp_path, results=[replace(one, device="cuda") for one in specimen.throughput()[:3]], what="timed")
    assert "Not measured on CUDA · specimen, or not in these files: nox -s calibrate -- --device cuda measures it." in _told(
        tmp_path, timed
    )


def test_the_page_says_what_disturbed_the_times_and_how_many_workloads_it_concerns(html: str, tmp_path: Path) -> None:
    text = " ".join(" ".join(_Reader(html).texts).split())
    # Of 11 lengths times 3 modes times 2 passes, 5 lengths have busy others; one length of training had to wait.
    assert (
        "other processes used 25–58 % of the time of the cores; end them, or measure when the machine is quiet (30 of 66 workloads)" in text
    )
    assert "the measuring thread waited for a core 15 % of the time; end other processes, or use fewer threads (3 of 66 workloads)" in text
    hostile = [replace(one, evidence={"told": [f"{HOSTILE} took 7 cores"]}) for one in specimen.throughput()[:12] if one.samples]
    page_ = page.write(load(specimen.write(tmp_path, results=hostile)), tmp_path / "out").read_text()
    assert f"{HOSTILE} took 7 cores" in " ".join(_Reader(page_).texts)


def test_a_machine_that_was_quiet_one_that_nobody_watched_and_an_interruption_are_told_apart(tmp_path: Path) -> None:
    quiet = specimen.throughput()[:12]
    unwatched = [replace(one, evidence={}) for one in quiet]
    cut = [replace(one, stopped="interrupted") for one in quiet]
    told = [_told(tmp_path, specimen.write(tmp_path, what=f"r{k}", results=results)) for k, results in enumerate((quiet, unwatched, cut))]
    nothing, silent = "nothing was seen of the machine that would have disturbed them", "Of 2 workloads these files do not say"
    assert [nothing in text for text in told] == [True, False, False]
    assert [silent in text for text in told] == [False, True, False]
    assert ["sampling was interrupted (2 of 2 workloads)" in text for text in told] == [False, False, True]
    assert "11 × 1024, interrupted" in told[2]


def _costs(html: str) -> dict[tuple[str, str], list[str]]:
    """(implementation, recurrence and pass) -> the texts of its row in the table of costs."""
    body = html[html.index('id="costs"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    answer = {}
    for row in body.split("<tr>")[1:]:
        cells = [" ".join(" ".join(_Reader(cell).texts).split()) for cell in row.split("<td")[1:]]
        texts = [text.split(">", 1)[1].strip() for text in cells]
        answer[texts[0], texts[1]] = texts[2:]
    return answer


def test_the_page_says_what_each_implementation_costs(tmp_path: Path) -> None:
    def timed(name: str, setup: float, step: float, **changes: Any) -> list[Throughput]:
        lengths = (1, 2, 4)
        changes = {"memory": {"bytes": 3 * 2**20, "resolution": 2**18, "method": "resident"}, **changes}
        return [
            cell(name, [setup + step * length] * 6, length, limit={"seconds": 1e-4, "bound": "memory"}, **changes) for length in lengths
        ]

    cells = [
        *timed("torch:a", 2e-4, 2e-4, warm_up=[1e-3]),
        *timed("x:b", 1e-4, 1e-4, warm_up=[1.0], memory={"bytes": 100, "resolution": 2**18, "method": "resident"}),
        *timed("x:c", 4e-4, 4e-4, warm_up=[1.0], memory={"unavailable": "no <b>count</b>"}),
        cell("x:d", [], 8, Outcome.OUT_OF_MEMORY, fits={"batch": 1}),
    ]
    found = _costs(page.write(load(specimen.write(tmp_path, results=cells)), tmp_path / "out").read_text())
    where = "CPU, B=2, I=H=4, float32, 1 thread"
    # At T = 4 the baseline takes 1 ms, and the others 0.5 and 2; 0.9995 seconds more of warm-up make 1999 gains.
    assert found["torch:a", "GRU inference"] == [where, "4", "10 % memory", "200 µs 200 to 200", "200 µs 200 to 200", "0 s", "baseline",
                                                 "3 MiB ± 256 KiB"]  # fmt: skip
    assert found["x:b", "GRU inference"][2:] == [
        "20 % memory",
        "100 µs 100 to 100",
        "100 µs 100 to 100",
        "1 s",
        "1 999 calls",
        "at most 256 KiB",
    ]
    assert found["x:c", "GRU inference"][2:] == ["5 % memory", "400 µs 400 to 400", "400 µs 400 to 400", "998 ms", "never",
                                                 "not measured no <b>count</b>"]  # fmt: skip
    assert found["x:d", "GRU inference"] == [f"{where} out of memory at T=8 (B=1 fits)", "", "", "", "", "", "", ""]


def test_what_is_bound_by_the_host_is_said_in_the_table_of_costs_and_explained(tmp_path: Path) -> None:
    html = page.write(load(specimen.write(tmp_path, results=specimen.gpu_throughput())), tmp_path / "out").read_text()
    found = _costs(html)
    assert found["loop:textbook", "LSTM inference"][2].endswith("arithmetic host-bound")
    assert found["torch:onednn", "LSTM inference"][2].endswith("arithmetic")
    assert found["loop:hoisted", "GRU training"][0].endswith("out of memory at T=512 (B=8 fits), 1024 (no smaller B fits)")
    text = " ".join(" ".join(_Reader(html).texts).split())
    assert f"handing work over at least {HOST_BOUND:.0%} of the time: launches decide, or a long loop filled their queue" in text
    assert "handed over / on the device, ms" in text


def test_the_page_says_what_its_passes_are(tmp_path: Path) -> None:
    cells = [replace(one, timed_pass="streaming") for one in specimen.throughput()[:12]]
    text = _told(tmp_path, specimen.write(tmp_path, results=cells))
    assert f"streaming {Pass.STREAMING.meaning}" in text and Pass.TRAINING.meaning not in text


def test_a_machine_that_was_not_calibrated_says_how_to(html: str, tmp_path: Path) -> None:
    assert "Not measured on specimen, or not in these files: nox -s calibrate measures it." in " ".join(
        " ".join(_Reader(html).texts).split()
    )
    environment = {**specimen.header().environment, "machine": "other"}
    other = specimen.write(tmp_path, what="eye", results=specimen.calibrations(), environment=environment)
    text = _told(tmp_path, specimen.write(tmp_path, results=specimen.throughput()[:12]), other)
    assert "Not measured on specimen" in text and "On other comparisons" in text and "Not measured on other" not in text


def test_the_page_states_the_level_and_the_margin_of_its_verdicts(html: str) -> None:
    text = " ".join(" ".join(_Reader(html).texts).split())
    assert f"at {LEVEL:.0%} for the use as a whole" in text and f"Two within {MARGIN:.0%} of each other are the same" in text


def test_a_failure_shows_its_reproduction(tmp_path: Path) -> None:
    failed = next(r for r in specimen.conformance(2) if r.outcome == Outcome.FAILED)
    run = specimen.write(tmp_path, results=[replace(failed, reproduction="import torch\nassert 1 < 0 < 2")])
    assert "assert 1 &lt; 0 &lt; 2" in page.write(load(run), tmp_path / "out").read_text()


def test_a_run_that_was_cut_short_is_shown_as_incomplete(tmp_path: Path) -> None:
    run = specimen.write(tmp_path, complete=False, results=specimen.conformance(1)[:60])
    text = " ".join(_Reader(page.write(load(run), tmp_path / "out").read_text()).texts)
    assert "This report is not complete" in text
    assert "no footer" in text
    assert "never: the run was cut short" in text


def test_times_alone_make_a_page_that_claims_no_conformance(tmp_path: Path) -> None:
    cells = specimen.throughput()[:66]
    out = page.write(load(specimen.benchmark_json(tmp_path / "b.json", cells)), tmp_path / "out")
    text = " ".join(_Reader(out.read_text()).texts)
    assert "Speed only: no contract was run" in text and "Nobody is named the fastest" in text
    assert "none known to conform" not in text and "by use" not in text


def test_a_foreign_benchmark_file_makes_a_page(tmp_path: Path) -> None:
    benchmark = {"group": None, "name": "test_sort", "stats": {"data": [0.1, 0.2]}}
    (tmp_path / "f.json").write_text(json.dumps({"benchmarks": [benchmark]}))
    text = page.write(load(tmp_path / "f.json"), tmp_path / "out").read_text()
    assert "test_sort" in text


def test_a_large_run_makes_a_page_of_bearable_size(tmp_path: Path) -> None:
    results = [*specimen.conformance(68), *specimen.throughput()]
    assert len(results) > 20_000
    out = page.write(load(specimen.write(tmp_path, results=results)), tmp_path / "out")
    assert out.stat().st_size < 3_000_000


def test_the_command_writes_the_page_and_prints_its_path_last(run_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reports", "page", str(run_file.parent), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize("name", ["missing.jsonl", "broken.jsonl", "empty"])
def test_what_cannot_be_read_is_one_line_and_status_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "empty").mkdir()
    assert main(["page", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert name in told.err
    assert told.err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line_and_status_2(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    assert main(["page", str(run_file), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_reports_do_not_load_torch(run_file: Path) -> None:
    code = f"import sys, reports.__main__; from reports import load; load({str(run_file)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

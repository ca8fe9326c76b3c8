"""Workloads of one's own from TOML files, and the published sets that come with this checkout."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.layer import Mode
from harness.tests.samples import CASE
from harness.workload import Pass, Workload, WorkloadError, baseline_of, chosen, read, work_of

LEAST = 'mode = "gru"\nT = 4\nB = 2\nH = 8\n'


def _file(directory: Path, *tables: str, name: str = "own.toml") -> Path:
    path = directory / name
    path.write_text("".join(f"[[workload]]\n{table}\n" for table in tables), encoding="utf-8")
    return path


def test_what_a_table_does_not_say_has_its_default(tmp_path: Path) -> None:
    found = read(_file(tmp_path, LEAST))
    assert [workload.timed for workload in found] == [Pass.INFERENCE, Pass.TRAINING]
    for workload in found:
        case, layer = workload.case, workload.case.layer
        assert (workload.set, layer.mode, case.steps, case.batch, case.dtype, case.device) == ("own", Mode.GRU, 4, 2, "float32", "cpu")
        assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.proj_size) == (8, 8, 1, 0)
        assert (layer.bias, layer.bidirectional, layer.batch_first, layer.dropout) == (True, False, False, 0.0)


def test_everything_that_a_table_says_is_in_the_workload(tmp_path: Path) -> None:
    table = """
        mode = "lstm"
        pass = "training"
        T = 5
        B = 3
        I = 7
        H = 8
        num_layers = 2
        bidirectional = true
        proj_size = 4
        bias = false
        dtype = "bfloat16"
    """
    (workload,) = read(_file(tmp_path, table))
    assert workload.id == "own/lstm-L2-bi-I7-H8-P4-nobias-T5-B3-bfloat16-cpu-training"


def test_lists_make_every_combination_and_tables_are_added_up(tmp_path: Path) -> None:
    lists = 'mode = ["rnn_tanh", "lstm"]\npass = "inference"\nT = [1, 16, 256]\nB = [1, 8]\nH = 32\nbidirectional = [false, true]'
    found = read(_file(tmp_path, lists, LEAST))
    assert len(found) == 2 * 3 * 2 * 2 + 2 and len({workload.id for workload in found}) == 26
    combinations = {(w.case.layer.mode.value, w.case.steps, w.case.batch, w.case.layer.bidirectional) for w in found[:24]}
    assert combinations == set(itertools.product(("rnn_tanh", "lstm"), (1, 16, 256), (1, 8), (False, True)))
    assert {workload.case.layer.mode for workload in found[24:]} == {Mode.GRU}


def test_a_mark_of_the_order_of_bytes_at_the_beginning_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = _file(tmp_path, LEAST)
    found = read(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path) == found


def test_what_is_there_twice_is_timed_once(tmp_path: Path) -> None:
    found = read(_file(tmp_path, LEAST, LEAST + "I = 8", LEAST.replace("T = 4", "T = [4, 4, 5]")))
    assert [(w.case.steps, w.timed.value) for w in found] == [(4, "inference"), (4, "training"), (5, "inference"), (5, "training")]


def test_a_file_stands_beside_named_sets_and_is_read_once(tmp_path: Path) -> None:
    path = str(_file(tmp_path, LEAST))
    own = read(Path(path))
    sets: dict[str, list[Workload]] = {"known": own[:1]}
    assert chosen(sets, ["known", path, path]) == own


def test_an_unknown_set_is_answered_with_the_known_ones_and_the_way_to_a_file() -> None:
    with pytest.raises(WorkloadError) as caught:
        chosen({"quick": [], "core": []}, ["quik"])
    assert str(caught.value) == (
        "Cannot use --workloads quik: there is no set of this name. Known sets: quick, core; a set of your own is a file that ends in .toml"
    )


def _replaced(key: str, line: str = "") -> str:
    """The least table with another line for ``key``, or none."""
    return "\n".join([*(kept for kept in LEAST.splitlines() if not kept.startswith(f"{key} ")), line])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_replaced("mode"), "expected the key mode but it is missing"),
        (_replaced("T"), "expected the key T but it is missing"),
        (_replaced("B"), "expected the key B but it is missing"),
        (_replaced("H"), "expected the key H but it is missing"),
        (LEAST + "hidden = 3\nsteps = 2", "there is no key hidden, steps. Known keys: mode, pass, T, B, H, I, num_layers, bidirectional, "),
        (_replaced("mode", 'mode = "rnn"'), "expected mode to be one of rnn_tanh, rnn_relu, gru, lstm but got mode='rnn'"),
        (_replaced("mode", "mode = 3"), "expected mode to be one of rnn_tanh, rnn_relu, gru, lstm but got mode=3"),
        (LEAST + 'pass = "back"', "one of inference, forward, backward, training, streaming but got pass='back'"),
        (LEAST + 'pass = "streaming"\nbidirectional = true', "cannot be streamed: its reverse direction begins at the end"),
        (LEAST + 'dtype = "float8"', "but got dtype='float8'"),
        (_replaced("T", 'T = "long"'), "expected T to be int but got T='long'"),
        (_replaced("T", "T = 4.0"), "expected T to be int but got T=4.0"),
        (_replaced("T", "T = true"), "expected T to be int but got T=True"),
        (_replaced("T", "T = [4, [5]]"), "expected T to be int but got T=[5]"),
        (_replaced("T", "T = {least = 1}"), "expected T to be int but got T={'least': 1}"),
        (LEAST + "bidirectional = 1", "expected bidirectional to be bool but got bidirectional=1"),
        (_replaced("T", "T = []"), "expected T to have at least one value but got T=[]"),
        (_replaced("T", "T = 0"), "expected T of at least 1 but got T=0"),
        (_replaced("T", "T = [4, -1]"), "expected T of at least 1 but got T=-1"),
        (_replaced("B", "B = 0"), "expected B of at least 1 but got B=0"),
        (_replaced("H", "H = 0"), "expected H of at least 1 but got H=0"),
        (LEAST + "I = -1", "expected I of at least 0 but got I=-1"),
        (LEAST + "num_layers = 0", "expected num_layers of at least 1 but got num_layers=0"),
        (_replaced("mode", 'mode = "lstm"\nproj_size = 8'), "but got proj_size=8"),
        (_replaced("mode", 'mode = "lstm"\nproj_size = [4, 9]'), "but got proj_size=9"),
        (LEAST + "proj_size = 4", "but got proj_size=4"),
        (
            "mode = 'lstm'\nT = 65536\nB = 1024\nH = 65536",
            "Expected a call of less than 2**63 operations and bytes but got case=lstm-I65536-",
        ),
        (_replaced("T", f"T = {2**70}"), "Expected a call of less than 2**63 operations and bytes"),
    ],
)
def test_a_table_that_cannot_be_is_named_with_its_key_in_one_line(table: str, message: str, tmp_path: Path) -> None:
    path = _file(tmp_path, LEAST, table)
    with pytest.raises(WorkloadError) as caught:
        read(path)
    assert str(caught.value).startswith(f"Cannot use --workloads {path}: [[workload]] number 2: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"[[workload]", "line 1"),
        (b"\xff\xfe", "can't decode"),
        (b"", "expected at least one table [[workload]]"),
        (b"[[workloads]]\nT = 1", "expected tables [[workload]] and nothing else but got workloads"),
        (b"[[workload]]\nT = 1\n[[worload]]\nT = 1", "expected tables [[workload]] and nothing else but got worload"),
        (b"[workload]\nT = 1", "expected at least one table [[workload]]"),
        (b"workload = 3", "expected at least one table [[workload]]"),
        (b"workload = [1]", "expected at least one table [[workload]]"),
    ],
    ids=[
        "missing",
        "not TOML",
        "not text",
        "empty",
        "another name",
        "one of two misspelt",
        "a table and no list",
        "a number",
        "a list of numbers",
    ],
)
def test_a_file_without_workloads_is_named_with_what_was_expected_in_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WorkloadError) as caught:
        chosen({}, [str(path)])
    assert str(caught.value).startswith(f"Cannot use --workloads {path}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_baseline_is_the_one_asked_for_else_the_first_of_torchs_own_else_the_first() -> None:
    ids = ["x:a", "torch:b", "torch:c"]
    assert baseline_of(ids, "x:a") == "x:a" and baseline_of(ids, "torch:c") == "torch:c"
    assert baseline_of(ids) == baseline_of(ids, "x:elsewhere") == "torch:b"
    assert baseline_of(["x:a", "x:torch"]) == "x:a"
    assert baseline_of([]) == baseline_of([], "x:a") == ""


Sets = Mapping[str, Sequence[Workload]]


@pytest.fixture
def sets(pytestconfig: pytest.Config) -> Sets:
    """The sets that this checkout tells the plugin."""
    found: Sets = pytestconfig.hook.pytest_harness_workloads()
    return found


def _sizes(workloads: Sequence[Workload]) -> Counter[tuple[int, int, int]]:
    """(T, B, H) -> how many workloads have them."""
    return Counter((w.case.steps, w.case.batch, w.case.layer.hidden_size) for w in workloads)


def test_every_set_is_named_in_its_workloads_and_has_none_twice(sets: Sets) -> None:
    assert set(sets) >= {"quick", "sweep", "core", "fastrnns", "flashrnn", "deepbench"}
    for name, workloads in sets.items():
        assert workloads and {workload.set for workload in workloads} == {name}
        assert len({workload.id for workload in workloads}) == len(workloads)


def test_published_sets_have_as_many_features_as_units_and_one_plain_layer(sets: Sets) -> None:
    for name in ("core", "fastrnns", "flashrnn", "deepbench"):
        for layer in (workload.case.layer for workload in sets[name]):
            assert (layer.input_size, layer.num_layers, layer.bidirectional, layer.proj_size) == (layer.hidden_size, 1, False, 0)


def test_core_has_every_length_with_every_batch_and_every_size(sets: Sets) -> None:
    lengths, batches, widths = (25, 50, 100, 150, 187, 375, 750, 1500), (1, 4, 16, 32, 64, 128), (128, 256, 512, 1024, 1536, 2048)
    sizes = _sizes(sets["core"])
    assert len(sizes) == 48 and set(sizes.values()) == {3 * 2}, "three recurrences, two passes"
    assert {(steps, batch) for steps, batch, _ in sizes} == set(itertools.product(lengths, batches))
    assert {(steps, hidden) for steps, _, hidden in sizes} == set(itertools.product(lengths, widths))
    assert {(batch, hidden) for _, batch, hidden in sizes} == set(itertools.product(batches, widths))


def test_fastrnns_is_its_one_cell(sets: Sets) -> None:
    assert _sizes(sets["fastrnns"]) == {(100, 64, 512): 2} and {w.case.layer.mode for w in sets["fastrnns"]} == {Mode.LSTM}


def test_flashrnn_varies_one_size_at_a_time_around_its_own_figure(sets: Sets) -> None:
    sizes = _sizes(sets["flashrnn"])
    assert {(w.case.layer.mode, w.case.dtype) for w in sets["flashrnn"]} == {(Mode.LSTM, "bfloat16")}
    assert (1024, 16, 768) in sizes and set(sizes.values()) == {2} and len(sizes) == 1 + 3 + 5 + 5
    assert all(sum((steps != 1024, batch != 16, hidden != 768)) <= 1 for steps, batch, hidden in sizes)


def test_deepbench_has_the_published_problems(sets: Sets) -> None:
    relu, gru, lstm = Mode.RNN_RELU, Mode.GRU, Mode.LSTM
    found = {
        timed: Counter((w.case.layer.mode, w.case.layer.hidden_size, w.case.steps) for w in sets["deepbench"] if w.timed is timed)
        for timed in (Pass.INFERENCE, Pass.TRAINING)
    }
    # (H, T) -> how many B.
    training = {(relu, hidden, 50): 4 for hidden in (1760, 2048, 2560)}
    training |= {(lstm, hidden, 25): 4 for hidden in (512, 1024, 2048, 4096)}
    training |= {(lstm, 1536, 50): 3, (lstm, 256, 150): 3, (gru, 512, 1): 1, (gru, 1024, 1500): 2}
    training |= {(gru, hidden, steps): 1 for hidden in (2816, 2048, 1536, 2560) for steps in (1500, 750, 375, 187)}
    inference = {(lstm, hidden, 25): 3 for hidden in (512, 1024, 2048)}
    inference |= {(lstm, 1536, 50): 3, (lstm, 256, 150): 3, (gru, 512, 1): 3, (gru, 1024, 1500): 3}
    inference |= {(gru, hidden, steps): 3 for hidden in (2816, 2048, 1536, 2560) for steps in (1500, 750, 375, 187)}
    # Those of the device; its LSTM of 256 units is one of the server's.
    inference |= {(relu, 32, 672): 1, (relu, 64, 96): 1}
    assert found == {Pass.TRAINING: training, Pass.INFERENCE: inference}
    assert [sum(found[timed].values()) for timed in (Pass.TRAINING, Pass.INFERENCE)] == [53, 71]
    assert {w.case.dtype for w in sets["deepbench"]} == {"float32"}


def test_deepbench_has_the_published_batches(sets: Sets) -> None:
    batches = {
        timed: {
            (w.case.layer.mode.value, w.case.layer.hidden_size, w.case.batch)
            for w in sets["deepbench"]
            if w.timed is timed and w.case.layer.hidden_size in (256, 1024, 1536, 1760)
        }
        for timed in Pass
    }
    assert batches[Pass.TRAINING] == {
        *(("rnn_relu", 1760, batch) for batch in (16, 32, 64, 128)), *(("lstm", 1024, batch) for batch in (16, 32, 64, 128)),
        *(("lstm", 1536, batch) for batch in (8, 16, 32)), *(("lstm", 256, batch) for batch in (16, 32, 64)),
        *(("gru", 1024, batch) for batch in (32, 64)), ("gru", 1536, 32),
    }  # fmt: skip
    lstms = itertools.product(("lstm",), (256, 1024, 1536), (1, 2, 4))
    assert batches[Pass.INFERENCE] == {*lstms, *itertools.product(("gru",), (1024, 1536), (1, 2, 4))}


def test_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    table = LEAST.replace("gru", "lstm") + 'proj_size = 3\nnum_layers = 2\nbias = false\ndtype = "bfloat16"\n'
    for workload in read(_file(tmp_path, LEAST, table)):
        on = workload.on("cuda")
        assert Workload.from_json(json.loads(json.dumps(on.as_json()))) == on


def test_flops_are_those_of_the_formula() -> None:
    # 2 * T * B * gates * H * (I + H): 2 * 4 * 2 * 3 * 4 * (3 + 4), and twice as much again to go back.
    of_pass = {timed: work_of(Workload("tests", CASE, timed)).flops for timed in Pass}
    assert of_pass == {timed: share * 1344 for timed, share in zip(Pass, (1, 1, 2, 3, 1), strict=True)}
    lstm = replace(CASE.layer, mode=Mode.LSTM, num_layers=2, bidirectional=True, proj_size=2)
    first, second = 2 * 4 * 4 * (3 + 2) + 2 * 4 * 2, 2 * 4 * 4 * (4 + 2) + 2 * 4 * 2
    assert work_of(Workload("tests", replace(CASE, layer=lstm), Pass.INFERENCE)).flops == 8 * 2 * (first + second)


INFERENCE, TRAINING = (Workload("tests", CASE, timed) for timed in (Pass.INFERENCE, Pass.TRAINING))


def test_workloads_are_chosen_by_name_each_once() -> None:
    sets = {"a": (INFERENCE, TRAINING), "b": (INFERENCE,)}
    assert chosen(sets, ["b", "a", "b"]) == [INFERENCE, TRAINING]
    with pytest.raises(WorkloadError, match=r"no set of this name\. Known sets: a, b"):
        chosen(sets, ["c"])


@pytest.mark.parametrize(
    "change", [{"lengths": (2, 4)}, {"batch": 1, "batched": False}, {"layer": replace(CASE.layer, batch_first=True)}], ids=str
)
def test_a_form_that_cannot_be_checked_while_it_is_timed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="padded, batched and time-major"):
        Workload("tests", replace(CASE, **change), Pass.INFERENCE)


def test_a_layer_that_begins_at_the_end_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="cannot be streamed"):
        Workload("tests", replace(CASE, layer=replace(CASE.layer, bidirectional=True)), Pass.STREAMING)


def test_workloads_that_differ_have_different_ids() -> None:
    both = [INFERENCE, TRAINING, INFERENCE.on("cuda"), replace(INFERENCE, set="other"), replace(INFERENCE, case=replace(CASE, steps=9))]
    assert len({workload.id for workload in both}) == 5
    assert INFERENCE.id == "tests/gru-I3-H4-T4-B2-float32-cpu-inference"

"""Every reference leads to an implementation or to one line that says why not."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from harness import registry
from harness.layer import Layer, Mode
from harness.registry import UnknownImplementation, builtin, resolve, resolve_all, source_digest, source_file

GRU = Layer(Mode.GRU, 3, 4)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What loading files leaves behind in the interpreter is taken away."""
    path, modules, folders = list(sys.path), set(sys.modules), list(registry.FOLDERS)
    yield
    sys.path[:], registry.FOLDERS[:] = path, folders
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def _file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("from torch import nn\n" + text)
    return path


def _line(reference: str) -> str:
    """The message of a reference that leads nowhere; it is one line and names the reference."""
    with pytest.raises(UnknownImplementation) as caught:
        resolve(reference)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.startswith(f"Cannot use --implementation {reference}: ")
    return message


def test_all_built_in_implementations_come_without_references() -> None:
    everyone = resolve_all([])
    assert [i.id for i in everyone] == list(builtin())
    assert {"torch:onednn", "torch:onednn-off", "torch:cudnn", "torch:cudnn-off"} <= set(builtin())
    assert {"loop:textbook", "loop:hoisted", "script:textbook", "script:hoisted"} <= set(builtin())
    assert {"compile:step", "compile:chunks"} <= set(builtin())
    assert {"graph:cudnn", "graph:textbook", "graph:hoisted"} <= set(builtin())
    assert all(i.id == i.reference and i.description for i in everyone)


def test_an_id_is_found_and_named_twice_is_there_once() -> None:
    assert [i.id for i in resolve_all(["loop:hoisted", "loop:textbook", "loop:hoisted"])] == ["loop:hoisted", "loop:textbook"]


@pytest.mark.parametrize("base", ["RNN", "GRU", "LSTM"])
def test_a_class_in_a_file_is_recognised_by_its_base(tmp_path: Path, base: str) -> None:
    path = _file(tmp_path, "mine_a.py", f"class Mine(nn.{base}):\n    '''What it is.\n\n    And more.'''\n")
    found = resolve(f"{path}:Mine")
    assert (found.id, found.description, found.reference) == ("mine_a:Mine", "What it is.", f"{path}:Mine")
    assert {mode.class_name for mode in found.capabilities.modes} == {base}
    assert len(found.capabilities.modes) == (2 if base == "RNN" else 1)
    module = found.build(Layer(next(iter(found.capabilities.modes)), 3, 4, num_layers=2))
    assert type(module).__name__ == "Mine" and module.num_layers == 2


def test_an_undocumented_class_is_described_by_its_name(tmp_path: Path) -> None:
    assert resolve(f"{_file(tmp_path, 'mine_b.py', 'class Mine(nn.GRU): pass')}:Mine").description == "Mine of mine_b"


def test_a_class_in_a_module_is_found() -> None:
    found = resolve("torch.nn:GRU")
    assert found.id == "torch.nn:GRU" and isinstance(found.build(GRU), nn.GRU)


def test_a_relative_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(tmp_path / "deep", "mine_c.py", "class Mine(nn.GRU): pass")
    monkeypatch.chdir(tmp_path)
    assert resolve("deep/mine_c.py:Mine").id == "mine_c:Mine"


@pytest.mark.parametrize(("kind", "modes"), [("rnn", {Mode.RNN_TANH, Mode.RNN_RELU}), ("gru", {Mode.GRU}), ("lstm", {Mode.LSTM})])
def test_a_class_of_another_base_is_named_by_its_kind(tmp_path: Path, kind: str, modes: set[Mode]) -> None:
    # With an equals sign in the path.
    path = _file(tmp_path / "a=b", "mine_d.py", "class Mine(nn.Module): pass")
    found = resolve(f"{kind}={path}:Mine")
    assert found.capabilities.modes == modes and found.reference == f"{kind}={path}:Mine"
    assert f"rnn={path}:Mine, gru={path}:Mine or lstm={path}:Mine" in _line(f"{path}:Mine")


@pytest.mark.parametrize(
    "made",
    [
        "def Mine(*args, **options):\n    'What it is.'\n    return nn.LSTM(*args, **options)\n",
        "class Any(nn.RNNBase):\n    'What it is.'\n    def __init__(self, mode, *args, **options):\n"
        "        super().__init__(mode, *args, **options)\nMine = functools.partial(Any, 'LSTM')\n",
    ],
)
def test_what_makes_a_layer_is_called_as_a_class_is(tmp_path: Path, made: str) -> None:
    path = _file(tmp_path, f"mine_{len(made)}.py", f"import functools\n{made}")
    found = resolve(f"lstm={path}:Mine")
    assert (found.id, found.description) == (f"mine_{len(made)}:Mine", "What it is.")
    module = found.build(Layer(Mode.LSTM, 3, 4, num_layers=2))
    assert isinstance(module, nn.RNNBase) and (module.mode, module.num_layers) == ("LSTM", 2)


def test_a_partial_of_a_known_class_says_itself_what_it_is_and_an_option_that_a_function_lacks_is_refused(tmp_path: Path) -> None:
    small = "def small(input_size, hidden_size):\n    return nn.GRU(input_size, hidden_size)\n"
    text = f"import functools\nMine = functools.partial(nn.GRU, device='cpu')\n{small}"
    path = _file(tmp_path, "mine_p.py", text)
    assert resolve(f"{path}:Mine").capabilities.modes == {Mode.GRU}
    with pytest.raises(NotImplementedError, match="the constructor of small takes no num_layers"):
        resolve(f"gru={path}:small").build(Layer(Mode.GRU, 3, 4, num_layers=2))


def test_a_class_that_stands_in_a_class_is_named_with_a_dot(tmp_path: Path) -> None:
    path = _file(tmp_path, "mine_n.py", "class Outer:\n    class Inner(nn.GRU): pass\n")
    found = resolve(f"{path}:Outer.Inner")
    assert found.id == "mine_n:Outer.Inner" and type(found.build(GRU)).__qualname__ == "Outer.Inner"
    assert "mine_n.py has no Outer.Other" in _line(f"{path}:Outer.Other")


def test_an_implementation_in_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "from harness.implementation import Implementation\nMINE = Implementation('mine:fast', 'mine', lambda layer: nn.GRU(1, 1))\n"
    path = _file(tmp_path, "mine_e.py", text)
    found = resolve(f"{path}:MINE")
    assert (found.id, found.description, found.reference) == ("mine:fast", "mine", f"{path}:MINE")


def test_a_file_is_loaded_as_python_loads_a_program(tmp_path: Path) -> None:
    _file(tmp_path, "beside_it.py", "NAME = 'beside'\n")
    text = "import dataclasses, beside_it\n@dataclasses.dataclass\nclass Options:\n    a: 'int' = 1\n"
    path = _file(tmp_path, "mine_f.py", text + "class Mine(nn.GRU):\n    beside = beside_it.NAME\n    options = Options()\n")
    module = resolve(f"{path}:Mine").build(GRU)
    assert type(module).beside == "beside" and type(module).options.a == 1  # type: ignore[attr-defined]
    assert sys.modules[type(module).__module__].Mine is type(module)
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize("stem", ["torch", "random", "harness", "string"])
def test_a_file_called_like_a_known_module_does_not_replace_it(tmp_path: Path, stem: str) -> None:
    __import__(stem)
    known = sys.modules[stem]
    found = resolve(f"{_file(tmp_path, f'{stem}.py', 'class Mine(nn.GRU): pass')}:Mine")
    assert found.id == f"{stem}:Mine" and type(found.build(GRU)).__name__ == "Mine"
    assert sys.modules[stem] is known


def test_a_file_that_is_named_twice_is_loaded_once(tmp_path: Path) -> None:
    path = _file(tmp_path, "mine_g.py", "class Mine(nn.GRU): pass\nclass Other(nn.LSTM): pass\n")
    first, second, again = (resolve(f"{path}:{name}") for name in ("Mine", "Other", "Mine"))
    assert type(first.build(GRU)) is type(again.build(GRU))
    assert {first.id, second.id} == {"mine_g:Mine", "mine_g:Other"}


def test_two_files_with_one_name_and_class_stay_apart(tmp_path: Path) -> None:
    paths = [_file(tmp_path / folder, "mine_h.py", f"class Mine(nn.GRU):\n    folder = '{folder}'\n") for folder in "ab"]
    found = resolve_all([f"{path}:Mine" for path in paths])
    assert [i.id for i in found] == ["mine_h:Mine", f"{paths[1]}:Mine"]
    assert [type(i.build(GRU)).folder for i in found] == ["a", "b"]  # type: ignore[attr-defined]
    # A worker process is told the references, and must come to the same ids.
    assert [i.id for i in resolve_all([i.reference for i in found])] == [i.id for i in found]


def test_the_digest_of_a_class_is_that_of_its_file_and_what_is_built_in_has_none(tmp_path: Path) -> None:
    path = _file(tmp_path, "mine_j.py", "class Mine(nn.GRU): pass\n")
    digests = [source_digest(resolve(reference)) for reference in (f"{path}:Mine", f"gru={path}:Mine", "torch.nn:GRU", "torch:onednn")]
    assert digests[0] == digests[1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(digests[2]) == 64 and digests[3] == ""


def test_the_file_of_what_has_no_class_is_that_of_what_builds_it(tmp_path: Path) -> None:
    text = "from harness.implementation import Implementation\nMINE = Implementation('mine:it', 'mine', lambda layer: nn.GRU(1, 1))\n"
    path = _file(tmp_path, "mine_k.py", text + "def make(*given, **options):\n    return nn.GRU(*given, **options)\n")
    assert source_file(resolve(f"{path}:MINE")) == source_file(resolve(f"gru={path}:make")) == str(path)


@pytest.mark.parametrize("reference", ["loop:fastest", "nothing", "", ":Mine", "mine.py:"])
def test_an_unknown_name_lists_those_that_are_known(reference: str) -> None:
    assert "Known ids: torch:onednn, torch:onednn-off" in _line(reference)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module\n", "importing it raised ModuleNotFoundError at bad_a.py:2: No module named 'no_such_module'"),
        ("x = (\n", "importing it raised SyntaxError at bad_a.py:2: '(' was never closed"),
        ("import sys\nsys.exit('good\\nbye')\n", "importing it raised SystemExit at bad_a.py:3: good bye"),
        ("def f():\n    raise ValueError()\nf()\n", "importing it raised ValueError at bad_a.py:3: no message"),
        ("class Yours(nn.GRU): pass\nOTHER = 1\n", "bad_a.py has no Mine; it has Yours"),
        ("", "bad_a.py has no Mine."),
        ("Mine = 3\n", "Mine is of type int, not an nn.Module class, a function that makes one, or an Implementation"),
        ("class Mine: pass\n", "Mine is the class Mine, not an nn.Module class"),
        ("def Mine(): pass\n", "Mine is a function, which does not say what it makes; say which of them it is: rnn="),
        ("Mine = nn.GRU(1, 1)\n", "Mine is of type GRU"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_says_why(tmp_path: Path, text: str, why: str) -> None:
    line = _line(f"{_file(tmp_path, 'bad_a.py', text)}:Mine")
    assert why in line and "Known ids" not in line
    assert not any(name.startswith("bad_a") for name in sys.modules if text.startswith(("import", "x = (", "def f")))


@pytest.mark.parametrize("rest", ["layers.py:Mine", "package.layers:Mine"])
def test_a_mistyped_kind_is_not_taken_for_a_part_of_the_path(rest: str) -> None:
    with pytest.raises(UnknownImplementation, match=r"expected rnn=, gru= or lstm= before it but got lsmt=\."):
        resolve(f"lsmt={rest}")


def test_a_file_that_failed_can_be_loaded_when_it_is_mended(tmp_path: Path) -> None:
    path = _file(tmp_path, "mine_i.py", "import no_such_module\n")
    _line(f"{path}:Mine")
    _file(tmp_path, "mine_i.py", "class Mine(nn.GRU): pass  # mended, and longer than before\n")
    assert resolve(f"{path}:Mine").id == "mine_i:Mine"


@pytest.mark.parametrize("name", ["missing.py", "folder/", "data.txt"])
def test_a_path_that_is_no_python_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "data.txt").write_text("")
    why = "is not a Python file" if name == "data.txt" else "there is no file"
    assert why in _line(f"{tmp_path}/{name}:Mine")


@pytest.mark.parametrize("name", ["no_such_package.inner", "harness.no_such_module", "..harness", "this is none"])
def test_a_module_that_cannot_be_imported_is_one_line(name: str) -> None:
    assert "importing it raised" in _line(f"{name}:Mine")

"""Every implementation by name: the built-in families, and other people's by module or file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from harness.implementation import Capabilities, Implementation
from harness.layer import Layer, Mode

#: The modules that hold the built-in families, in the order in which reports show them. The first of a device is its baseline.
FAMILIES = (
    "harness.adapters.native",
    "harness.adapters.loop",
    "harness.adapters.script",
    "harness.adapters.compiled",
    "harness.adapters.graph",
)

_MODES = {"rnn": frozenset({Mode.RNN_TANH, Mode.RNN_RELU}), "gru": frozenset({Mode.GRU}), "lstm": frozenset({Mode.LSTM})}
_BASES: tuple[tuple[str, type[nn.Module]], ...] = (("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM))

#: What makes a layer when it is called with the arguments of nn's class: a class, a function, or either with some arguments filled in.
Maker = Callable[..., nn.Module]

#: The folders that files were loaded from: on sys.path, as if each file were the program.
FOLDERS: list[str] = []


class UnknownImplementation(ValueError):
    """A reference that leads to no implementation; the message is one line that says why, and what is known."""


@cache
def builtin() -> dict[str, Implementation]:
    """The built-in implementations by id."""
    found = [i for family in FAMILIES for i in importlib.import_module(family).IMPLEMENTATIONS]
    return {i.id: replace(i, reference=i.id) for i in found}


def resolve_all(references: Sequence[str]) -> list[Implementation]:
    """The implementations that ``references`` name, each once; all built-in ones where there are none."""
    if not references:
        return list(builtin().values())
    found: dict[str, Implementation] = {}
    for reference in references:
        implementation = resolve(reference)
        other = found.get(implementation.id)
        if other is not None and other.reference != implementation.reference:
            # Two files may hold a class of one name; their references tell them apart.
            implementation = replace(implementation, id=reference)
        found[implementation.id] = implementation
    return list(found.values())


def resolve(reference: str) -> Implementation:
    """The implementation that ``reference`` names: a registry id, ``path/to/file.py:Name`` or ``package.module:Name``, the
    latter two with ``rnn=``, ``gru=`` or ``lstm=`` before them where ``Name`` does not say itself which it is.

    Raises :class:`UnknownImplementation` where it leads to none.
    """
    if reference in builtin():
        return builtin()[reference]
    kind, _, target = reference.partition("=") if reference.partition("=")[0] in _MODES else ("", "", reference)
    place, separator, name = target.rpartition(":")
    if not separator or not place or not name:
        raise UnknownImplementation(_unknown(reference, "it is neither a registry id nor FILE.py:NAME nor MODULE:NAME"))
    slip, equals, _ = place.partition("=")
    if equals and slip.isidentifier() and not Path(place).exists():
        raise UnknownImplementation(_unknown(reference, f"expected rnn=, gru= or lstm= before it but got {slip}="))
    is_file = place.endswith(".py") or "/" in place
    module = _load_file(reference, Path(place)) if is_file else _load_module(reference, place)
    found = _named(module, name)
    if found is None:
        public = [n for n, value in vars(module).items() if _is_candidate(value, module)]
        offers = f"; it has {', '.join(sorted(public))}" if public else ""
        raise UnknownImplementation(_unknown(reference, f"{place} has no {name}{offers}"))
    return _wrap(reference, kind, Path(place).stem if is_file else place, name, found, target)


def _named(module: ModuleType, name: str) -> Any:
    """What stands in ``module`` under ``name``, which has dots where it stands in a class; None where nothing does."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def source_file(implementation: Implementation) -> str:
    """The file that holds the class of ``implementation``, or what builds it where no class is known; empty where there is none."""
    constructor = implementation.constructor
    try:
        made = implementation.build if constructor is None else constructor(min(implementation.capabilities.modes))
        return inspect.getsourcefile(innermost(made)) or ""
    except Exception:  # no file of Python's, or whatever somebody else's constructor raises
        return ""


def source_digest(implementation: Implementation) -> str:
    """The SHA-256 of the file that holds the class of ``implementation``; empty for what is built in or in no file of Python's."""
    if implementation.reference in builtin():
        return ""
    path = Path(source_file(implementation))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _wrap(reference: str, kind: str, place: str, name: str, found: Any, target: str) -> Implementation:
    if isinstance(found, Implementation):
        return replace(found, reference=reference)
    if not (issubclass(found, nn.Module) if isinstance(found, type) else callable(found) and not isinstance(found, nn.Module)):
        wanted = "not an nn.Module class, a function that makes one, or an Implementation"
        raise UnknownImplementation(_unknown(reference, f"{name} is {_kind_of(found)}, {wanted}"))
    kind = kind or _kind(found)
    if not kind:
        why = (
            "subclasses none of nn.RNN, nn.GRU and nn.LSTM"
            if isinstance(found, type)
            else "is a function, which does not say what it makes"
        )
        hint = f"say which of them it is: rnn={reference}, gru={reference} or lstm={reference}"
        raise UnknownImplementation(f"Cannot use --implementation {reference}: {name} {why}; {hint}")
    return _implementation(f"{place}:{name}", reference, kind, found, target)


def wrapped(make: Maker, kind: str = "") -> Implementation:
    """The implementation that a class is, or what else makes a layer: with the arguments and the call of nn's class ``kind`` ('rnn',
    'gru' or 'lstm'; a subclass of nn's says it itself). Raises ValueError where that is not known."""
    kind = kind or _kind(make)
    name = _name(make)
    if kind not in _MODES:
        raise ValueError(f"Expected kind to be one of {', '.join(_MODES)} for {name}, which subclasses none of them, but got {kind=}")
    module = innermost(make).__module__
    id = f"{module}:{name}"
    # What stands there may be another, as the class itself is where a functools.partial of it was given.
    stands = module in sys.modules and _named(sys.modules[module], name) is make and _is_importable(module)
    return _implementation(id, f"{kind}={id}" if stands else "", kind, make, id if stands else "")


def _is_importable(module: str) -> bool:
    """Whether another process finds ``module`` under its name: not the program itself, nor a file that is loaded under another name."""
    file = Path(getattr(sys.modules[module], "__file__", None) or f"{module}.py")
    return module != "__main__" and module.rpartition(".")[2] in (file.stem, file.parent.name)


def innermost(make: Maker) -> Any:
    """The class or the function behind every functools.partial."""
    while isinstance(make, partial):
        make = make.func
    return make


def _name(make: Maker) -> str:
    return getattr(innermost(make), "__qualname__", type(make).__qualname__)


def _kind(make: Maker) -> str:
    made = innermost(make)
    return next((kind for kind, base in _BASES if isinstance(made, type) and issubclass(made, base)), "")


def _implementation(id: str, reference: str, kind: str, make: Maker, imported_from: str) -> Implementation:
    said = innermost(make).__doc__
    summary = (said or "").strip().splitlines()
    return Implementation(
        id=id,
        description=summary[0] if summary and said not in {base.__doc__ for _, base in _BASES} else " of ".join(reversed(id.split(":"))),
        build=partial(_construct, make),
        constructor=partial(_maker, make),
        capabilities=Capabilities(modes=_MODES[kind]),
        reference=reference,
        imported_from=imported_from,
    )


def _maker(make: Maker, mode: Mode) -> Maker:
    return make


def _construct(make: Maker, layer: Layer) -> nn.Module:
    """``make`` called as nn's class is. Raises NotImplementedError for an option that its signature does not have: that is a refusal
    too."""
    options = layer.options()
    try:
        taken = inspect.signature(make).parameters
    except (TypeError, ValueError):  # a class that cannot say what it takes is simply asked
        return make(layer.input_size, layer.hidden_size, **options)
    missing = [] if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else [name for name in options if name not in taken]
    if missing:
        raise NotImplementedError(f"the constructor of {_name(make)} takes no {', '.join(missing)}")
    return make(layer.input_size, layer.hidden_size, **options)


def _load_file(reference: str, path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UnknownImplementation(_unknown(reference, f"there is no file {path}"))
    # As `python file.py` does: the file's own folder comes first on the path.
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        FOLDERS.append(folder)
    name = path.stem.replace(".", "_")  # a dot would make pickle look for a package
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownImplementation(_unknown(reference, f"{path} is not a Python file"))
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses and pickle look a class's module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UnknownImplementation(_unknown(reference, _why(error, path))) from error
    return module


def _load_module(reference: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UnknownImplementation(_unknown(reference, _why(error, None))) from error


def _why(error: BaseException, path: Path | None) -> str:
    """One line on an exception that importing raised, with the line of the user's file where it began."""
    where = ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if path is not None and f.filename == str(path)]
    if frames:
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    elif isinstance(error, SyntaxError) and error.lineno:
        where = f" at {Path(error.filename or '').name}:{error.lineno}"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"importing it raised {type(error).__name__}{where}: {' '.join(message.split()) or 'no message'}"


def _is_candidate(value: Any, module: ModuleType) -> bool:
    if isinstance(value, Implementation):
        return True
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__


def _kind_of(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _unknown(reference: str, why: str) -> str:
    told = f"Cannot use --implementation {reference}: {why}."
    if re.search(r"\.py:\w", reference):
        # Nobody who names a file means an id.
        return told
    near = difflib.get_close_matches(reference, builtin(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{told}{hint} Known ids: {', '.join(builtin())}"

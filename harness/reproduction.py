"""A failed check as a script of at most 20 lines: it imports torch and the implementation, runs as pasted, and ends with an exception.

A script has two parts. The scene is the same for every contract: nn's layer in float64 as the reference, the implementation's layer
with the same options and weights, inputs in the case's form. The demonstration is what is done to a layer. It is done to both, and what
comes of it must be close. A contract says its own, as lines of plain Python that stand in a function; they may use these names:

- ``layer``: nn's or the implementation's; ``dtype``: float64 for the one, the case's for the other
- ``x`` and ``hx``: what the layer is called with, in the case's form; ``hx`` is None where the case gives no state
- ``leaves``: the tensors behind them, x, h0 and c0. Where the lines name it, these require grad.
- ``reference``: nn's layer; ``NEW`` stands for the expression that builds one of the implementation's

The lines ``return`` what is compared: tensors, numbers and None in tuples and lists, or nothing. They may assert besides.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import harness
from harness.case import Case
from harness.implementation import Implementation
from harness.layer import Layer, Mode

#: No script is longer.
LINES = 20

#: A call in training mode and one in eval mode, without gradients, and one under inference_mode.
FORWARD = """
with torch.no_grad():
    return layer(x, hx), layer.eval()(x, hx), torch.inference_mode()(layer.__call__)(x, hx)
"""

#: What a demonstration of gradients returns, after going back.
GRADIENTS = "[leaf.grad for leaf in leaves], [p.grad for _, p in sorted(layer.named_parameters())]"

#: A call, and back from everything that it answered, with random cotangents.
BACKWARD = f"""
output, state = layer(x, hx)
values = [output[0] if isinstance(output, tuple) else output, *state]
torch.autograd.backward(values, [torch.randn(value.shape).to(value) for value in values])
return values, {GRADIENTS}
"""

#: How far apart two right layers may be, of numbers of order one. Wider than the harness itself allows: a demonstration shall be short
#: and never wrong about a right layer. Half types round by 5e-4 (float16) and 4e-3 (bfloat16) at every step.
_CLOSE = {"float64": 1e-10, "float32": 1e-5, "float16": 4e-3, "bfloat16": 2e-2}

#: What stands in place of a script where nothing could import the implementation: a comment, which can be pasted too.
NO_SCRIPT = "# No script shows this: what was tested is nowhere under a name by which it could be imported.\n"

#: What demonstrations use of the standard library.
_MODULES = ("contextlib", "copy", "gc", "io", "os", "pickle", "random", "threading", "warnings")


def script(implementation: Implementation, case: Case, demonstration: str = FORWARD, title: str = "") -> str:
    """The script that shows on ``case`` what is wrong with ``implementation``; empty where nothing could import the implementation.

    ``title`` becomes a comment in the first line where there is room for it.
    """
    found = _imported(implementation, case.layer)
    if found is None:
        return ""
    imports, construction = found
    layer, body = case.layer, textwrap.dedent(demonstration).strip().replace("NEW", construction)
    modules = [name for name in _MODULES if re.search(rf"\b{name}\.", body)]
    modules += [name for name in ("runpy", "sys") if re.search(rf"\b{name}\.", "\n".join([*imports, body]))]
    place = f'"{case.device}", ' if case.device != "cpu" else ""
    close = _CLOSE[case.dtype]
    if "leaves" in body or ".grad" in body:
        close *= max(1, case.steps * case.batch) ** 0.5  # a gradient is a sum over steps and sequences
    rounding = "" if case.dtype in ("float32", "float64") and not place else f".to({place}torch.{case.dtype})"
    options = f"rtol={close:.0e}, atol={close:.0e}, check_dtype=False"
    right = f"run(reference{rounding}.double(), torch.float64)"
    compared = f"torch.testing.assert_close(run(layer, torch.{case.dtype}), {right}, {options})"
    lines = [
        f"import {', '.join([*modules, 'torch'])}",
        *imports,
        *(["torch.backends.cudnn.allow_tf32 = False"] if case.device != "cpu" else []),
        "torch.manual_seed(0)",
        f"reference = torch.nn.{layer.expression()}",
        *_weights(case),
        f"layer = {construction}.to({place}torch.{case.dtype})",
        "layer.load_state_dict(reference.state_dict())",
        "def run(layer, dtype):",
        "    torch.manual_seed(1)",
        *(f"    {line}" for line in _inputs(case, rounding, "leaves" in body)),
        *(f"    {line}" for line in body.splitlines()),
        *_switched(implementation, compared),
    ]
    if title and len(lines) < LINES:
        lines.insert(0, f"# {title}")
    return "\n".join(lines) + "\n"


def _inputs(case: Case, rounding: str, wanted: bool) -> list[str]:
    """Lines that make x, hx and leaves in the case's form."""
    layer, batch = case.layer, (case.batch,) if case.batched else ()
    leading = (case.steps, *batch)
    if layer.batch_first and case.batched and case.lengths is None:
        leading = leading[::-1]
    names, shapes = ["x"], [(*leading, layer.input_size)]
    if case.given_state:
        slots = layer.num_layers * layer.directions
        names += ["h0", "c0"][: 1 + layer.has_cell_state]
        shapes += [(slots, *batch, layer.state_size), (slots, *batch, layer.hidden_size)][: 1 + layer.has_cell_state]
    listed = ", ".join(map(str, shapes))
    grad = ".requires_grad_()" if wanted else ""
    made = f"[torch.randn(shape){rounding}.to(dtype){grad} for shape in ({listed},)]"
    x = "x"
    if case.lengths is not None:
        order = "" if case.enforce_sorted else ", enforce_sorted=False"
        x = f"torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor({list(case.lengths)}){order})"
    hx = {1: "None", 2: "h0", 3: "(h0, c0)"}[len(names)]
    unpacked = ", ".join(names) if len(names) > 1 else "(x,)"
    return [f"{unpacked} = {'leaves = ' if wanted else ''}{made}", f"x, hx = {x}, {hx}"]


def _weights(case: Case) -> list[str]:
    """Lines that turn torch's own weights into ones of the case's kind: not those of :func:`harness.case.draw`, but of the same effect."""
    layer, size, mode = case.layer, case.layer.hidden_size, case.layer.mode
    each = "for name, p in reference.named_parameters(): "
    if case.weights == "remembering" and mode in (Mode.LSTM, Mode.GRU):
        kept = "[-1.5, 2.5, 0, 0]" if mode is Mode.LSTM else "[0, 2.5, 0]"
        return [f'{each}p.data += torch.tensor({kept}).repeat_interleave({size}) if "bias" in name else 0'] if layer.bias else []
    if case.weights == "remembering":
        own, read = (1.0, 0.1) if mode is Mode.RNN_TANH else (0.96, 0.3)
        matrix = f'{own} * torch.eye({size}).roll(1, 0) + 0.02 * p.data if "weight_hh" in name else {read} * p.data'
        return [f"{each}p.data = {matrix}"]
    if case.weights == "steady" and mode is Mode.RNN_RELU and layer.bias:
        # As far from its kink as this, no rounding decides whether a unit is open.
        return [f'{each}p.data = p.data / 8 + (1.5 * (-1.0) ** torch.arange({size}) if "bias_ih" in name else 0)']
    if case.weights == "readable":
        # The second layer answers with an invertible function of its input alone, of that of the first H features: what is zero was
        # dropped. A relu's first layer is lifted, so that nothing else is zero.
        def of(kind: str) -> str:
            names = [f"reference.{kind}" + ("_reverse" if reverse else "") for reverse in range(layer.directions)]
            return f"for p in ({', '.join(names)},): p.data"

        start, width = 2 * size if mode in (Mode.LSTM, Mode.GRU) else 0, layer.state_size
        open_ = {Mode.LSTM: "[40.0, -40, 0, 40]", Mode.GRU: "[0.0, -40, 0]"}.get(mode)
        kept = f'torch.eye({size})[:{width}] if "hr_l1" in name else p.data * ("_l0" in name)'
        return [
            f"{each}p.data = {kept}"
            if layer.proj_size
            else f'{each}p.data *= "_l0" in name' + (' and "hh" not in name' if mode is Mode.RNN_RELU else ""),
            f"{of('weight_ih_l1')}[{start}:{start + size}, :{width}] = torch.eye({size})[:, :{width}] / 4",
            *([f"{of('bias_ih_l1')} += torch.tensor({open_}).repeat_interleave({size})"] if open_ and layer.bias else []),
            *([f"{of('bias_ih_l0')} += 2"] if mode is Mode.RNN_RELU and layer.bias else []),
        ]
    return []


def _imported(implementation: Implementation, layer: Layer) -> tuple[list[str], str] | None:
    """The lines that import an implementation and the expression that builds the layer, or None where nothing could import it."""
    options = "".join(f", {name}={value!r}" for name, value in layer.options().items() if name != "nonlinearity")
    described = f"Layer(Mode.{layer.mode.name}, {layer.input_size}, {layer.hidden_size}{options})"
    if implementation.imported_from and implementation.switches is nullcontext:
        place, _, name = implementation.imported_from.rpartition(":")
        outer, construction = name.partition(".")[0], f"{name}({layer.expression().partition('(')[2]}"
        if place.endswith(".py") or "/" in place:
            path = Path(place).expanduser().resolve()
            if path.stem.isidentifier():
                taken = f"from {path.stem} import {outer}"
            elif "." in path.stem:  # by no name
                taken = f"{outer} = runpy.run_path({str(path)!r})[{outer!r}]"
            else:
                taken = f"{outer} = __import__({path.stem!r}).{outer}"
            return [*_on_path(path.parent), taken], construction
        return [*_on_path(_root(place)), f"from {place} import {outer}"], construction
    target, build = implementation.reference, implementation.build
    root, described_by = _on_path(Path(harness.__file__).parents[1]), "from harness.layer import Layer, Mode"
    if target:
        return [*root, described_by, "from harness.registry import resolve"], f"resolve({_absolute(target)!r}).build({described})"
    # One that was made in Python: its build function or class, if it can be found by name.
    module, name = getattr(build, "__module__", ""), getattr(build, "__qualname__", "")
    if not name.isidentifier() or getattr(sys.modules.get(module), name, None) is not build or module == "__main__":
        return None
    return [*_on_path(_root(module)), described_by, f"from {module} import {name}"], f"{name}({described})"


def _absolute(reference: str) -> str:
    """A reference to an Implementation, which says itself what it is, that means the same in every folder."""
    kind, _, target = reference.partition("=")
    if kind in ("rnn", "gru", "lstm"):
        reference = target
    place, _, name = reference.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{name}" if place.endswith(".py") or "/" in place else reference


def _root(module: str) -> Path | None:
    """The folder that must be on the path for ``module`` to be imported."""
    try:
        file = Path(inspect.getfile(sys.modules[module])).resolve()
    except (KeyError, TypeError):
        return None
    return file.parents[module.count(".") + (file.name == "__init__.py")]


def _on_path(folder: Path | None) -> list[str]:
    """The line that puts ``folder`` on the path, where it is not there for everybody."""
    if folder is None or "site-packages" in folder.parts or "lib-dynload" in folder.parts:
        return []
    return [f"sys.path.insert(0, {str(folder)!r})"]


def _switched(implementation: Implementation, line: str) -> list[str]:
    """``line`` under the switches of the implementation, where it has any and can be found by its reference."""
    if not implementation.reference or implementation.switches is nullcontext:
        return [line]
    return [f"with resolve({_absolute(implementation.reference)!r}).switches():", f"    {line}"]

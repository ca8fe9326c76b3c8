"""The module contract: parameters, state_dict, copies, and weights that are changed from outside.

Here stands what a module holds and hands on: its names, its weights when new and when loaded. Copies are in ``module_copied.py``,
checkpoints of models in ``module_checkpoints.py``, weights that are changed from outside in ``module_changed.py`` and
``module_replaced.py``; how a module is built and shown is in ``module_interface.py``, how it is called in ``module_called.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature

import numpy as np
import torch
from torch import Tensor, nn

from harness.case import Array
from harness.reference import altered, answer, tensor, to_array
from harness.trial import ContractError, Trial
from suites.conformance.cases import LSTM, every, make
from suites.conformance.declare import MUST, SHOULD, contract, in_docs

#: What most contracts of the topic are checked on.
CASES = [*every(num_layers=2), *every(bidirectional=True, batch_first=True, steps=4), *every(LSTM, proj_size=2, bias=False)]


def doubled_weights(trial: Trial, *kinds: str) -> dict[str, Array]:
    """The case's weights, those of the named kinds (all if none) times two: exact in every dtype."""
    return {name: 2 * value if name.startswith(kinds or ("",)) else value for name, value in trial.case.arrays.weights.items()}


@contract(
    "module.state_dict_names",
    "state_dict() has nn's names and shapes, and nothing else.",
    MUST,
    in_docs("LSTM: Variables"),
    [*CASES, *every(num_layers=3, bidirectional=True, bias=False), *every(LSTM, num_layers=2, bidirectional=True, proj_size=3)],
    demonstration="""
        return {name: list(value.shape) for name, value in layer.state_dict().items()}
    """,
)
def state_dict_names(trial: Trial) -> None:
    found = {name: tuple(value.shape) for name, value in trial.module().state_dict().items()}
    wanted = trial.case.layer.parameter_shapes()
    if found != wanted:
        missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        shapes = [f"{name} is {found[name]} instead of {wanted[name]}" for name in wanted if name in found and found[name] != wanted[name]]
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"surplus {', '.join(surplus)}"] * bool(surplus) + shapes
        raise ContractError(f"Expected the state_dict of nn.{trial.case.layer.expression()}, but: {'; '.join(parts)}")


@contract(
    "module.state_dict_values",
    "state_dict() gives back the weights that load_state_dict() was given, and loading them anew changes the answer accordingly.",
    MUST,
    "torch.nn.Module.state_dict, load_state_dict",
    CASES,
    demonstration="""
        kept = {name: 2 * p.detach() for name, p in layer.named_parameters()}
        turned, last, upper, refused = {n: p.t() for n, p in kept.items()}, list(kept)[-1], f"_l{reference.num_layers - 1}", 0
        for given in ({n: p for n, p in kept.items() if upper not in n}, turned, {**kept, last: kept[last].flatten()[:1]}, kept):
            try: layer.load_state_dict(given)
            except Exception: refused += 1
        found = dict(layer.state_dict()), layer(x, hx), refused
        return found, layer.load_state_dict({n: p / 4 for n, p in kept.items()}, assign=True) and None, layer(x, hx)
    """,
)
def state_dict_values(trial: Trial) -> None:
    module = trial.module()
    for name, value in module.state_dict().items():
        if name in trial.case.arrays.weights and not torch.equal(value, tensor(trial.case.arrays.weights[name], trial.case)):
            raise ContractError(f"Expected state_dict() to hold the {name} that was loaded, but it holds something else")
    given = {name: tensor(value, trial.case) for name, value in trial.case.arrays.weights.items()}
    last = list(given)[-1]
    wrongs = {
        "a weight missing": dict(list(given.items())[1:]),
        f"{last} missing": dict(list(given.items())[:-1]),
        "no weight of the last layer": {name: value for name, value in given.items() if f"_l{trial.case.layer.num_layers - 1}" not in name},
        "weights of a module.": {f"module.{name}": value for name, value in given.items()},
        "the weights turned round": {name: value.t().contiguous() if value.dim() == 2 else value for name, value in given.items()},
        "a surplus weight": {**given, "extra": torch.zeros(1)},
        "the weight of a layer more": {**given, f"weight_ih_l{trial.case.layer.num_layers}": given["weight_ih_l0"]},
        f"a {last} of one element": {**given, last: given[last].flatten()[:1]},
    }
    for what, wrong in wrongs.items():
        try:
            module.load_state_dict(wrong)
        except Exception:  # any exception is a refusal
            continue
        raise ContractError(f"Expected load_state_dict() to refuse {what}, but it did not")
    doubled = altered(trial.case, weights=doubled_weights(trial))
    for train in (True, False):
        module.train(train)
        trial.agree(trial.answer(module).arrays(), answer(trial.case))
        load(trial, module, doubled_weights(trial))
        trial.agree(trial.answer(module).arrays(), doubled)
        load(trial, module, trial.case.arrays.weights)
    # A load_state_dict of its own may not know assign, and refuses it then by its signature.
    if "assign" in signature(module.load_state_dict).parameters:
        with trial.blamed("load_state_dict(assign=True)"):
            module.load_state_dict({name: 2 * value for name, value in given.items()}, assign=True)
        trial.agree(trial.answer(module).arrays(), doubled)
        other = torch.float64 if next(iter(given.values())).dtype is not torch.float64 else torch.float32
        with trial.blamed("load_state_dict(assign=True)"):
            module.load_state_dict({name: value.to(other) for name, value in given.items()}, assign=True)
        kept = [name for name, parameter in trial.parameters(module).items() if parameter.dtype != other]
        if kept:
            raise ContractError(
                f"Expected load_state_dict(assign=True) to take the weights that it is given, {other}, but it copied {kept[0]}"
            )


def load(trial: Trial, module: nn.Module, weights: dict[str, Array]) -> None:
    """Loads ``weights``; what is raised on the way is the implementation's failure."""
    with trial.blamed("load_state_dict"):
        module.load_state_dict({name: tensor(value, trial.case) for name, value in weights.items()})


@contract(
    "module.parameters_complete",
    "parameters() and named_parameters() list every weight under nn's name, trainable, and requires_grad_(False) freezes all.",
    MUST,
    "torch.nn.Module.named_parameters",
    CASES,
    demonstration="""
        trained = {name: p.requires_grad for name, p in layer.named_parameters()}
        return trained, [p.requires_grad for p in layer.requires_grad_(False).parameters()]
    """,
)
def parameters_complete(trial: Trial) -> None:
    with trial.blamed("building"):
        module = trial.implementation.build(trial.case.layer)
    named = dict(module.named_parameters())
    wanted = trial.case.layer.parameter_shapes()
    if set(named) != set(wanted):
        raise ContractError(f"Expected named_parameters() to list {', '.join(wanted)} but it lists {', '.join(named) or 'none'}")
    if len(list(module.parameters())) != len(wanted):
        raise ContractError(f"Expected {len(wanted)} parameters() but there are {len(list(module.parameters()))}")
    frozen = [name for name, parameter in named.items() if not parameter.requires_grad or not isinstance(parameter, nn.Parameter)]
    if frozen:
        raise ContractError(f"Expected every parameter to be trainable, but {', '.join(frozen)} is not")
    with trial.blamed("requires_grad_(False)"):
        module.requires_grad_(False)
    trained = [name for name, parameter in named.items() if parameter.requires_grad]
    if trained:
        raise ContractError(f"Expected requires_grad_(False) to freeze every parameter, but {', '.join(trained)} is still trained")


@contract(
    "module.parameters_in_order",
    "parameters() lists the weights in nn's order, by which optimisers keep their state and load it.",
    SHOULD,
    "torch.optim.Optimizer.load_state_dict: parameters are matched by their order",
    [*every(num_layers=2, bidirectional=True), make(LSTM, num_layers=2, proj_size=2)],
    demonstration="""
        wanted = [name for name, _ in reference.named_parameters()]
        assert [name for name, _ in layer.named_parameters()] == wanted, wanted
    """,
)
def parameters_in_order(trial: Trial) -> None:
    wanted, found = list(trial.case.layer.parameter_shapes()), [name for name, _ in trial.module().named_parameters()]
    if found != wanted:
        raise ContractError(f"Expected named_parameters() in the order {', '.join(wanted)} but it is {', '.join(found)}")


@contract(
    "module.parameters_as_vector",
    "parameters_to_vector() takes the parameters, and vector_to_parameters() gives them new values that the next call uses.",
    SHOULD,
    "torch.nn.utils.parameters_to_vector: a view of each parameter, which must be contiguous",
    [*every(num_layers=2), *every(bidirectional=True)],
    demonstration="""
        weights = torch.nn.utils.parameters_to_vector(layer.parameters()).detach()
        torch.nn.utils.vector_to_parameters(2 * weights, layer.parameters())
        with torch.no_grad():
            return layer(x, hx)
    """,
)
def parameters_as_vector(trial: Trial) -> None:
    module = trial.module()
    trial.answer(module)
    with trial.blamed("parameters_to_vector and vector_to_parameters"):
        weights = nn.utils.parameters_to_vector(module.parameters()).detach()
        nn.utils.vector_to_parameters(2 * weights, module.parameters())
    trial.agree(trial.answer(module).arrays(), altered(trial.case, weights=doubled_weights(trial)))


def require_law(name: str, drawn: Iterable[Tensor], bound: float) -> None:
    """Raises unless all that was ``drawn`` together is of the uniform law between -``bound`` and ``bound``."""
    flat = np.sort(np.concatenate([to_array(value).ravel() for value in drawn])) / bound
    # Rounding to a half type can carry a value past it.
    if not (abs(flat) <= 1.01).all():
        raise ContractError(f"Expected {name} within ±1/√H = ±{bound:.4g} but it reaches {abs(flat).max() * bound:.4g}")
    # Kolmogorov-Smirnov distance from the law; 2.6 / sqrt(n) is exceeded once in 700,000 draws by chance.
    ideal = (flat + 1) / 2
    steps = np.arange(1, len(flat) + 1) / len(flat)
    distance = float(max((steps - ideal).max(), (ideal - steps + 1 / len(flat)).max()))
    if distance > 2.6 / len(flat) ** 0.5:
        raise ContractError(f"Expected {name} to be uniform between ±{bound:.4g}, but its Kolmogorov-Smirnov distance is {distance:.3f}")


@contract(
    "module.initial_weights",
    "Every weight and bias of a new layer is drawn from U(-1/√H, 1/√H), and from torch's random state.",
    SHOULD,
    in_docs("LSTM: note: weights and biases are initialized from U(-√k, √k)"),
    # Four times as many features as units: 1/√I is no 1/√H.
    [*every(input_size=150, hidden_size=36, num_layers=3, bidirectional=True), make(LSTM, 150, 36, proj_size=20)],
    demonstration="""
        if layer is reference:
            return
        drawn = dict(NEW.named_parameters())
        for name, p in drawn.items():
            assert not any(torch.equal(p, other) for other in drawn.values() if other is not p), f"{name} is another one's copy"
            spread = p.std() * (3 * reference.hidden_size) ** 0.5
            assert p.abs().max() <= reference.hidden_size**-0.5 and abs(spread - 1) < 1.8 / p.numel() ** 0.5, (name, spread)
    """,
)
def initial_weights(trial: Trial) -> None:
    layer = trial.case.layer
    bound = layer.hidden_size**-0.5
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with trial.blamed("building"):
            drawn.append({name: value.detach().double().numpy() for name, value in trial.implementation.build(layer).named_parameters()})
    for name, value in drawn[0].items():
        require_law(name, [torch.as_tensor(value)], bound)
        twin = next((other for other in drawn[0] if other < name and np.array_equal(drawn[0][other], value)), None)
        if twin is not None:
            raise ContractError(f"Expected {name} to be drawn by itself, but it is equal to {twin}")
        if not np.array_equal(value, drawn[1][name]):
            raise ContractError(f"Expected the same torch.manual_seed to give the same {name}, but it differs")
        if np.array_equal(value, drawn[2][name]):
            raise ContractError(f"Expected another torch.manual_seed to give another {name}, but it is the same")

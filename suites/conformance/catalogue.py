"""All contracts, in the order in which a reader meets them: the list that pytest, the plain driver and the README share."""

from __future__ import annotations

from types import ModuleType

from harness.contract import Contract
from suites.conformance import (
    composition,
    dropout,
    dropout_masks,
    dropout_training,
    errors,
    execution,
    execution_compiled,
    execution_exported,
    execution_switched,
    gradients,
    gradients_autograd,
    gradients_graph,
    gradients_higher,
    gradients_wanted,
    invariance,
    layout,
    module,
    module_called,
    module_changed,
    module_checkpoints,
    module_copied,
    module_interface,
    module_replaced,
    numerics,
    packed,
    purity,
    purity_process,
    purity_switches,
    purity_threads,
    search,
    shapes,
    state,
    values,
    values_large,
)

#: A topic's contracts stand in the file named after it, whose docstring begins with the topic's sentence. Where they are many, they go
#: on in files whose names begin with the topic's.
FILES: tuple[ModuleType, ...] = (
    shapes,
    values,
    values_large,
    state,
    gradients,
    gradients_wanted,
    gradients_higher,
    gradients_autograd,
    gradients_graph,
    packed,
    errors,
    invariance,
    layout,
    dropout,
    dropout_masks,
    dropout_training,
    module,
    module_copied,
    module_checkpoints,
    module_changed,
    module_interface,
    module_called,
    module_replaced,
    purity,
    purity_switches,
    purity_process,
    purity_threads,
    numerics,
    execution,
    execution_switched,
    execution_compiled,
    execution_exported,
    composition,
    search,
)

CATALOGUE: tuple[Contract, ...] = tuple(value for file in FILES for value in vars(file).values() if isinstance(value, Contract))

"""Layers that take options for what they are not, and do not tell what is inside them of their mode."""

from __future__ import annotations

from typing import Any

from harness.layer import Mode
from suites.conformance.mutants.base import Sound, mutant


@mutant("module.meaningless_options")
class NegativeDropoutIsNone(Sound):
    """A dropout below zero is quietly made none."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, dropout: float = 0.0, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, dropout=dropout if isinstance(dropout, bool) else max(dropout, 0.0), **options)


@mutant("module.meaningless_options")
class HalfALayerCutOff(Sound):
    """A number of layers is rounded down."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, num_layers: int = 1, **options: Any) -> Sound:
        return super().constructed(mode, *arguments, num_layers=int(num_layers), **options)


@mutant("module.positional_arguments")
class IntegerIsNoDropout(Sound):
    """A dropout that is the integer 1 is refused."""

    @classmethod
    def constructed(cls, mode: Mode, *arguments: Any, **options: Any) -> Sound:
        if any(type(given) is int for given in arguments[3:-1] if given == 1):
            raise ValueError("dropout should be a float")
        return super().constructed(mode, *arguments, **options)


@mutant("module.printable")
class ReprWantsBiases(Sound):
    """repr() raises where there are no biases."""

    def extra_repr(self) -> str:
        bias: Any = self.bias_ih_l0
        return f"{self.hidden_size}, biases={len(bias)}"


@mutant("module.train_and_eval")
class ModulesInsideNotTold(Sound):
    """train() and eval() set the layer's own flag, and not those of the modules inside it."""

    def train(self, mode: bool = True) -> Any:
        self.training = mode
        return self


@mutant("module.parameters_complete", Mode.LSTM)
class ProjectionNeverFrozen(Sound):
    """requires_grad_() passes over the projection."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        for name, parameter in self.named_parameters():
            if not name.startswith("weight_hr"):
                parameter.requires_grad_(requires_grad)
        return self

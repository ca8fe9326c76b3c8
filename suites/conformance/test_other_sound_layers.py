"""No contract asks more than nn's documentation: layers that are right in a way of their own, and were once rejected for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from harness.contract import check
from harness.implementation import Capabilities
from harness.layer import Mode
from suites.conformance.catalogue import CATALOGUE
from suites.conformance.drop_in import findings
from suites.conformance.mutants import SOUND
from suites.conformance.mutants.base import Sound, Weights, present
from suites.conformance.search import EXAMPLES


def _outcomes(implementation: Any, contract: str) -> set[str]:
    """The outcomes of one contract on a class of its own."""
    return {str(result.outcome) for result in findings(implementation, contracts=[c for c in CATALOGUE if c.id == contract], on=["cpu"])}


class WithoutDropout(nn.LSTM):
    """It refuses dropout when it is built, and looks at the attribute no more."""

    def __init__(self, *args: Any, dropout: float = 0.0, **options: Any) -> None:
        if dropout:
            raise NotImplementedError("dropout is not supported")
        super().__init__(*args, **options)

    def forward(self, input: Any, hx: Any = None) -> Any:
        self.dropout = 0.0
        return super().forward(input, hx)


def test_a_layer_that_refuses_dropout_when_it_is_built_need_not_take_it_from_an_attribute() -> None:
    assert _outcomes(WithoutDropout, "dropout.attribute_is_live") == {"unsupported"}


class ReluByClamp(Sound):
    """Its relu passes a gradient on at zero, as clamp does."""

    def activation(self, a: torch.Tensor) -> torch.Tensor:
        return a.clamp_min(0) if self.layer.mode is Mode.RNN_RELU else super().activation(a)


def test_a_relu_may_have_any_of_its_slopes_at_zero() -> None:
    layer = replace(SOUND, id="sample:relu-by-clamp", build=ReluByClamp, capabilities=Capabilities(modes=frozenset({Mode.RNN_RELU})))
    for contract in CATALOGUE:
        if contract.topic in ("dropout", "gradients") and not contract.needs_constructor:
            found = check(layer, [contract], on=["cpu"])
            assert {result.outcome for result in found} <= {"passed", "unsupported", "does-not-apply"}, contract.id


class ReluOfAnotherOrder(Sound):
    """It adds up its pre-activations in an order of its own."""

    def step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, w: Weights, t: int, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.nn.functional.linear(x, present(w["weight_ih"]), w["bias_ih"]) + h @ present(w["weight_hh"]).t()
        return self.activation(a if w["bias_hh"] is None else a + w["bias_hh"]), c


class ReluStateFirst(Sound):
    """It begins with what the state adds, and rounds after each of four terms."""

    def step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, w: Weights, t: int, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        a = h @ present(w["weight_hh"]).t() + x @ present(w["weight_ih"]).t()
        for bias in (w["bias_ih"], w["bias_hh"]):
            a = a if bias is None else a + bias
        return self.activation(a), c


@pytest.mark.parametrize("order", [ReluOfAnotherOrder, ReluStateFirst])
def test_in_half_types_a_relu_may_add_up_in_any_order(order: type[Sound]) -> None:
    layer = replace(SOUND, id="sample:relu-of-another-order", build=order, capabilities=Capabilities(modes=frozenset({Mode.RNN_RELU})))
    found = check(layer, [contract for contract in CATALOGUE if contract.id in ("numerics.float16", "numerics.bfloat16")], on=["cpu"])
    assert {result.outcome for result in found} == {"passed"}


class MaskOfItsOwnInTraining(Sound):
    """With gradients it draws the mask itself, to keep it, and without it has torch's dropout draw it: two ways from one seed."""

    def between(self, x: torch.Tensor, level: int) -> torch.Tensor:
        if not self.training or not torch.is_grad_enabled() or not 0 < self.dropout < 1:
            return super().between(x, level)
        return x * (torch.rand_like(x) >= self.dropout) / (1 - self.dropout)


def test_a_mask_may_be_drawn_in_another_way_where_gradients_are_recorded() -> None:
    layer = replace(SOUND, id="sample:mask-of-its-own", build=MaskOfItsOwnInTraining)
    found = check(layer, [contract for contract in CATALOGUE if contract.topic == "dropout" and not contract.needs_constructor], on=["cpu"])
    assert {result.outcome for result in found} <= {"passed", "does-not-apply"}


class DropoutAsAModule(nn.LSTM):
    """Its attribute dropout is a module."""

    def __init__(self, *args: Any, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(*args, dropout=dropout, **options)
        del self.dropout
        self.add_module("dropout", nn.Dropout(dropout))

    def forward(self, input: Any, hx: Any = None) -> Any:
        share: Any = self.dropout
        del self._modules["dropout"]
        self.__dict__["dropout"] = share.p
        try:
            return super().forward(input, hx)
        finally:
            del self.__dict__["dropout"]
            self.add_module("dropout", share)


@pytest.mark.parametrize("contract", ["dropout.same_mask_in_backward", "module.deepcopy", "module.pickle"])
def test_dropout_may_be_a_module(contract: str) -> None:
    assert _outcomes(DropoutAsAModule, contract) == {"passed"}


class SortsAndCallsItself(nn.GRU):
    """A pack that is not sorted it sorts, and hands to itself."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, PackedSequence) or input.sorted_indices is None:
            return super().forward(input, hx)
        states = None if hx is None else hx.index_select(1, input.sorted_indices)
        output, state = self(PackedSequence(input.data, input.batch_sizes), states)
        placed = PackedSequence(output.data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return placed, state.index_select(1, input.unsorted_indices)


@pytest.mark.parametrize("contract", ["module.hooks_called", "module.deepcopy", "module.pickle"])
def test_the_hooks_of_a_copy_are_called_as_those_of_the_original_are(contract: str) -> None:
    assert _outcomes(SortsAndCallsItself, contract) == {"passed"}


class CallsItself(nn.GRU):
    """An input without a batch axis, or packed, it hands to itself in another form, and its hooks are called at both calls."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence) or input.dim() != 2:
            return super().forward(input, hx)
        axis = 0 if self.batch_first else 1
        output, state = self(input.unsqueeze(axis), None if hx is None else hx.unsqueeze(1))
        return output.squeeze(axis), state.squeeze(1)


def test_a_layer_may_call_itself_with_an_input_in_another_form() -> None:
    assert _outcomes(CallsItself, "module.hooks_called") == {"passed"}


class OfFewOptions(nn.Module):
    """It has one layer and one direction, and no attribute that says so."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, batch_first: bool = False) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias, self.batch_first, self.num_layers = input_size, hidden_size, bias, batch_first, 1
        self.inner = [nn.GRU(input_size, hidden_size, bias=bias, batch_first=batch_first)]
        for name, parameter in self.inner[0].named_parameters():
            self.register_parameter(name, parameter)


def test_the_attribute_of_an_option_that_a_layer_does_not_have_may_be_missing() -> None:
    (contract,) = [c for c in CATALOGUE if c.id == "module.attributes"]
    found = {result.outcome for result in findings(OfFewOptions, "gru", contracts=[contract], on=["cpu"])}
    assert found == {"passed", "unsupported"}


class WithReadOnlyDropout(nn.GRU):
    """Its options are fixed when it is built, and say so to whoever sets them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dropout" and name in self.__dict__:
            raise AttributeError("dropout cannot be set")
        super().__setattr__(name, value)


def test_an_attribute_that_cannot_be_set_is_no_attribute_that_has_no_effect() -> None:
    assert _outcomes(WithReadOnlyDropout, "dropout.attribute_is_live") == {"unsupported"}
    assert _outcomes(WithReadOnlyDropout, "module.deepcopy") == _outcomes(WithReadOnlyDropout, "module.pickle") == {"passed"}


def test_a_layer_that_takes_seconds_for_each_new_length_is_given_them() -> None:
    seconds, time_limit = 4, 30
    # Pieces of 130 steps have the lengths 1 to 15 and 127.
    for name, lengths in (("purity.no_leak", 30), ("state.carried_between_calls", 16), ("search.values_and_gradients", EXAMPLES)):
        (contract,) = [c for c in CATALOGUE if c.id == name]
        assert contract.time_limit_factor * time_limit >= lengths * seconds, name


def test_a_layer_that_takes_a_millisecond_for_each_step_is_given_them() -> None:
    (contract,) = [c for c in CATALOGUE if c.id == "values.beyond_65535_steps"]
    seconds, time_limit = 0.001, 30
    assert contract.time_limit_factor * time_limit >= max(case.steps for case in contract.cases) * seconds


class _Product(torch.autograd.Function):
    """A product with a weight, written for operands of one dtype."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(context: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = context.saved_tensors
        return cotangents[0] @ weight, cotangents[0].flatten(0, -2).t() @ x.flatten(0, -2)


class OfItsOwnFunction(nn.GRU):
    """Its gradients come from a function of its own, which raises where autocast mixes dtypes."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        if isinstance(output, torch.Tensor):
            output = _Product.apply(output, torch.eye(output.shape[-1], dtype=output.dtype))
        return output, state


def test_an_error_in_the_backward_pass_under_autocast_is_a_refusal() -> None:
    assert _outcomes(OfItsOwnFunction, "execution.autocast") <= {"unsupported", "passed"}


class OfBareAssertions(nn.RNN):
    """What it expects of an input it asserts, as hand-written layers do it, and adds no words."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        # Not an assert statement, which pytest would give words here.
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise AssertionError
        return super().forward(input, hx)


def test_an_assertion_without_words_is_a_refusal() -> None:
    assert _outcomes(OfBareAssertions, "errors.input_shape") == {"passed"}


class OfEinsum(nn.GRU):
    """Whether all is on one device it leaves to torch, whose batched products on a CPU take an operand on meta for numbers."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(torch.einsum("tbi,ji->tbj", input, torch.eye(self.input_size)), hx)


def test_what_torch_alone_lets_pass_from_the_meta_device_is_not_the_layers_doing() -> None:
    assert _outcomes(OfEinsum, "errors.device") == {"passed"}


class OfJoinedOperands(nn.RNN):
    """Input and state are joined for one product, as in [x, h] W: torch.cat promotes the narrower of them."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(hx, torch.Tensor) and isinstance(input, torch.Tensor):
            hx = hx.to(torch.promote_types(hx.dtype, input.dtype))
        return super().forward(input, hx)


def test_a_state_that_is_promoted_exactly_is_not_converted_in_silence() -> None:
    assert _outcomes(OfJoinedOperands, "errors.dtype") == {"passed"}


class ReadByNumpy(nn.GRU):
    """It hands its input to NumPy, which refuses what torch negates lazily."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        data = input.data if isinstance(input, PackedSequence) else input
        data.detach().numpy()
        return super().forward(input, hx)


def test_a_tensor_that_numpy_refuses_may_be_refused() -> None:
    assert _outcomes(ReadByNumpy, "layout.negated") == {"unsupported"}


class AnsweredByNumpy(ReadByNumpy):
    """Its answer has been in NumPy's hands: a trace keeps the numbers, and torch warns of that."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        output, state = super().forward(input, hx)
        return torch.from_numpy(output.detach().numpy().copy()), state


def test_a_trace_that_torch_warned_of_as_keeping_the_numbers_is_unsupported() -> None:
    assert _outcomes(AnsweredByNumpy, "execution.traced") == {"unsupported"}


def test_a_type_that_numpy_does_not_have_may_be_refused_by_its_own_exception() -> None:
    assert _outcomes(AnsweredByNumpy, "numerics.bfloat16") == {"unsupported"}


class CountsByTensor(nn.LSTM):
    """It counts its steps with a tensor, which is made where torch's default device is."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        for _ in range(int(torch.tensor(1).item())):
            answer = super().forward(input, hx)
        return answer


def test_a_counter_without_a_number_on_the_meta_device_is_no_fault_of_the_default_state() -> None:
    assert _outcomes(CountsByTensor, "state.default_is_zero") == {"passed"}


class _OfArrays(torch.autograd.Function):
    """A call whose backward pass makes it again from NumPy's copies of what was given."""

    @staticmethod
    def forward(context: Any, run: Any, *given: torch.Tensor) -> Any:
        context.run, context.arrays = run, [one.numpy().copy() for one in given]
        return run(*given)

    @staticmethod
    def backward(context: Any, *cotangents: torch.Tensor) -> Any:
        given = [torch.from_numpy(array).requires_grad_() for array in context.arrays]
        with torch.enable_grad():
            answers = context.run(*given)
        return None, *torch.autograd.grad(answers, given, cotangents)


class KeptAsArrays(nn.RNN):
    """What its backward pass needs is in NumPy's hands."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        form = {"batch_first": self.batch_first, "bidirectional": self.bidirectional, "nonlinearity": self.nonlinearity}
        plain = nn.RNN(self.input_size, self.hidden_size, self.num_layers, **form)
        names = [name for name, _ in self.named_parameters()]

        def run(x: torch.Tensor, h0: torch.Tensor, *weights: torch.Tensor) -> Any:
            return torch.func.functional_call(plain, dict(zip(names, weights, strict=True)), (x, h0))

        return _OfArrays.apply(run, input, hx, *self.parameters())


def test_what_is_kept_for_the_backward_pass_may_be_no_tensor() -> None:
    assert _outcomes(KeptAsArrays, "gradients.saved_tensors_hooks") == {"unsupported"}

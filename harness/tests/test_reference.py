"""Expected answers and the floors around them."""

from __future__ import annotations

import numpy as np
import pytest

from harness import oracle, reference
from harness.case import Case
from harness.layer import Layer, Mode
from harness.reference import Question, altered, answer, gradients

CASE = Case(Layer(Mode.LSTM, 3, 4, num_layers=2, bidirectional=True, proj_size=2), steps=5, batch=2, lengths=(5, 3))


@pytest.mark.parametrize("through", [None, ("output", "c_n")], ids=["answer", "gradients"])
def test_copies_side_by_side_are_what_one_is_alone(through: tuple[str, ...] | None) -> None:
    weights = CASE.arrays.weights
    reply = oracle.evaluate(CASE)
    alone = reply.tensors()
    if through is not None:
        cotangents = {name: CASE.arrays.cotangents[name] for name in through}
        alone |= oracle.backward(CASE.layer, weights, reply, CASE.valid, cotangents)
    copies = Question(CASE, through, weights).answered(oracle.exact, copies=3)
    for copy in ({name: array[k] for name, array in copies.items()} for k in range(3)):
        assert set(copy) == set(alone)
        for name, array in copy.items():
            np.testing.assert_allclose(array, alone[name], rtol=1e-12, atol=1e-15)


def test_each_copy_has_errors_of_its_own_and_the_first_has_none() -> None:
    for expected in (answer(CASE), gradients(CASE, ("output",))):
        assert all(1e-8 < floor < 1e-5 for floor in expected.floors.values())
    np.testing.assert_array_equal(
        answer(CASE).tensors["output"], Question(CASE, None, CASE.arrays.weights).answered(oracle.exact, 1)["output"][0]
    )


def test_gradients_bring_the_answer_that_they_are_of() -> None:
    forward, alone = gradients(CASE, ("output",)).forward, answer(CASE)
    assert forward is not None and set(forward.tensors) == set(alone.tensors)
    for name, array in alone.tensors.items():
        np.testing.assert_allclose(forward.tensors[name], array, rtol=1e-12, atol=1e-15)
    assert forward.floors == alone.floors


def test_a_state_of_one_number_is_not_judged_by_a_lucky_draw() -> None:
    # The second step's sum cancels all but 3 % of a tanh that lies between two floats: rounded the other way, it is off by 2.4e-6.
    cancelled = Case(Layer(Mode.RNN_TANH, 1, 1), steps=2, batch=1, seed=3)
    assert answer(cancelled).floors["h_n"] > 1e-6


def test_a_gradient_of_one_number_is_not_judged_by_a_lucky_draw_however_wide_the_layer_is() -> None:
    # A sum of 288 terms: nn.LSTM is off by 3.9e-6 of it, and three draws had a floor of 9e-7.
    one_number = Case(Layer(Mode.LSTM, 1, 72), steps=1, batch=1, weights="remembering", seed=141)
    assert gradients(one_number, ("output",)).floors["x"] > 2e-6


@pytest.mark.parametrize("through", [None, ("output",)], ids=["answer", "gradients"])
def test_the_floor_of_a_case_does_not_depend_on_how_its_weights_were_given(through: tuple[str, ...] | None) -> None:
    # Here the loop errs more than any of the jittered answers: h_n, or the gradient of x.
    case = Case(Layer(Mode.RNN_TANH, 33, 65), steps=20, batch=8, seed=3 if through else 9)
    given = altered(case, weights=dict(case.arrays.weights), inputs=case.arrays.inputs(), through=through)
    assert given.floors == (answer(case) if through is None else gradients(case, through)).floors


@pytest.mark.parametrize("through", [None, ("output", "h_n")], ids=["answer", "gradients"])
def test_the_plain_loop_answers_the_question_that_was_asked(through: tuple[str, ...] | None) -> None:
    arrays = CASE.arrays
    question = Question(
        CASE,
        through,
        weights={name: 1.25 * array for name, array in arrays.weights.items()},
        masks=[np.arange(CASE.steps * CASE.batch * 4).reshape(CASE.steps, CASE.batch, 4) % 3 / 2.0],
        cotangents={name: -array for name, array in arrays.cotangents.items()},
        inputs={"x": arrays.x + 0.5},
    )
    expected = {name: array[0] for name, array in question.answered(oracle.exact, copies=1).items()}
    found = reference._plain_loop(question)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6 * np.abs(array).max())


@pytest.mark.parametrize(("bias", "open_question"), [(-1 + 3 * 2**-11, True), (-0.5, False)])
def test_either_slope_of_a_relu_passes_where_rounding_decides_its_sign(bias: float, open_question: bool) -> None:
    layer = Layer(Mode.RNN_RELU, 1, 1)
    one, none = np.ones((1, 1)), np.zeros((1, 1))
    weights = {"weight_ih_l0": one, "weight_hh_l0": none, "bias_ih_l0": np.full(1, bias), "bias_hh_l0": np.zeros(1)}
    case = Case(layer, steps=1, batch=1, given_state=False, dtype="float16")
    expected = altered(case, weights=weights, through=("output",), inputs={"x": np.ones((1, 1, 1))})
    assert (expected.floors["x"] >= 1) == open_question, "all of the gradient, or nothing, is right"

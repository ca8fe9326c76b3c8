"""Answers made wrong on purpose, by torch or by a loop of their own, and the hint that each of them gets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

from harness import diagnosis, oracle
from harness.case import Array, Case
from harness.diagnosis import hint
from harness.hypotheses.base import Evidence
from harness.hypotheses.gradients import GRADIENTS
from harness.hypotheses.values import VALUES
from harness.layer import Layer, Mode
from harness.reference import altered, answer, gradients
from harness.tests.samples import implementation
from harness.trial import Mismatch, Trial

LSTM = Case(Layer(Mode.LSTM, 3, 5), dtype="float64")
GRU = Case(Layer(Mode.GRU, 3, 5), dtype="float64")
RNN = Case(Layer(Mode.RNN_TANH, 3, 5), dtype="float64")
STACK = Case(Layer(Mode.LSTM, 3, 5, num_layers=2, bidirectional=True), steps=4, dtype="float64")
PACKED = Case(Layer(Mode.LSTM, 3, 5, bidirectional=True), steps=6, batch=4, lengths=(3, 6, 1, 4), dtype="float64")
EVERY = (LSTM, GRU, RNN, replace(RNN, layer=replace(RNN.layer, mode=Mode.RNN_RELU)), STACK, PACKED)


def by_torch(case: Case, weights: Mapping[str, Array] | None = None, **inputs: Array) -> dict[str, Array]:
    """What torch's own module answers to ``case`` with other weights or other inputs, padded and time-major."""
    trial = Trial(implementation(getattr(nn, case.layer.mode.class_name)), case)
    module = getattr(nn, case.layer.mode.class_name)(case.layer.input_size, case.layer.hidden_size, **case.layer.options()).double()
    module.load_state_dict({name: torch.tensor(weight.copy()) for name, weight in (weights or case.arrays.weights).items()})
    leaves = {name: torch.tensor(inputs.get(name, array).copy()) for name, array in case.arrays.inputs().items()}
    with torch.no_grad():
        output, state = module(*trial.form(leaves))
    output = output if case.lengths is None else pad_packed_sequence(output)[0]
    states = zip(("h_n", "c_n"), state if case.layer.has_cell_state else (state,), strict=False)
    return {"output": output.numpy(), **{name: value.numpy() for name, value in states}}


def hinted(case: Case, wrong: Mapping[str, Array]) -> str:
    return hint(wrong, answer(case), list(answer(case).tensors))


@pytest.mark.parametrize(
    ("case", "letters"),
    [(case, "".join(order)) for case in (LSTM, GRU) for order in itertools.permutations(case.layer.mode.gates)],
    ids=lambda value: value if isinstance(value, str) else value.layer.mode.value,
)
@pytest.mark.parametrize("alone", [False, True], ids=["everywhere", "in the biases alone"])
def test_names_every_order_of_the_gates(case: Case, letters: str, alone: bool) -> None:
    gates, weights = case.layer.mode.gates, dict(case.arrays.weights)
    for name, weight in weights.items():
        if name.startswith("bias") or not alone:
            blocks = dict(zip(letters, np.split(weight, len(gates)), strict=True))
            weights[name] = np.concatenate([blocks[gate] for gate in gates])
    found = hinted(case, by_torch(case, weights))
    moved = [gate for gate, letter in zip(gates, letters, strict=True) if gate != letter]
    where = " in the biases alone" if alone else ""
    if not moved:
        assert found == ""
    elif len(moved) == 2:
        assert found == f"this is the answer with gates {moved[0]} and {moved[1]} exchanged{where}"
    else:
        assert found == f"this is the answer with gate rows read in the order {', '.join(letters)}{where}"


def _with(case: Case, kind: str, change: Callable[[Array], Array]) -> dict[str, Array]:
    return {name: change(weight) if name.startswith(kind) else weight for name, weight in case.arrays.weights.items()}


@pytest.mark.parametrize("case", [LSTM, GRU, RNN, STACK], ids=lambda case: case.id)
def test_names_a_bias_dropped_and_a_matrix_transposed(case: Case) -> None:
    size = case.layer.hidden_size

    def transposed(weight: Array) -> Array:
        return np.concatenate([block.T for block in np.split(weight, len(weight) // size)])

    assert "b_ih dropped" in hinted(case, by_torch(case, _with(case, "bias_ih", np.zeros_like)))
    if case.layer.mode is not Mode.GRU:
        assert "with both biases dropped" in hinted(case, by_torch(case, _with(case, "bias", np.zeros_like)))
    assert "with W_hh transposed" in hinted(case, by_torch(case, _with(case, "weight_hh", transposed)))


def test_names_states_ignored_and_exchanged() -> None:
    h0, c0 = LSTM.arrays.h0, LSTM.arrays.c0
    assert c0 is not None
    zero = np.zeros_like
    assert hinted(LSTM, by_torch(LSTM, h0=zero(h0), c0=zero(c0))) == "this is the answer with h_0 and c_0 taken for zero"
    assert hinted(LSTM, by_torch(LSTM, h0=zero(h0))) == "this is the answer with h_0 taken for zero"
    assert hinted(LSTM, by_torch(LSTM, c0=zero(c0))) == "this is the answer with c_0 taken for zero"
    assert hinted(LSTM, by_torch(LSTM, h0=c0, c0=h0)) == "this is the answer with h_0 and c_0 exchanged"
    right = by_torch(LSTM)
    assert hinted(LSTM, {**right, "h_n": right["c_n"], "c_n": right["h_n"]}) == "this is the answer with h_n and c_n exchanged"


def test_names_directions_and_layers_exchanged() -> None:
    h0, c0 = STACK.arrays.h0, STACK.arrays.c0
    assert c0 is not None
    assert "wrong order: the directions exchanged" in hinted(STACK, by_torch(STACK, h0=h0[[1, 0, 3, 2]], c0=c0[[1, 0, 3, 2]]))
    assert "wrong order: directions before layers" in hinted(STACK, by_torch(STACK, h0=h0[[0, 2, 1, 3]], c0=c0[[0, 2, 1, 3]]))
    other = {name: STACK.arrays.weights[name.removesuffix("_reverse")] for name in STACK.arrays.weights}
    assert "the forward direction's weights in both directions" in hinted(STACK, by_torch(STACK, other))
    right = by_torch(STACK)
    exchanged = np.concatenate([right["output"][:, :, 5:], right["output"][:, :, :5]], axis=2)
    assert hinted(STACK, {**right, "output": exchanged}) == "this is the answer with the directions exchanged in output"
    assert "reversed time" in hinted(LSTM, by_torch(LSTM, x=LSTM.arrays.x[::-1]))


def test_names_padding_read_as_data() -> None:
    whole = replace(PACKED, lengths=None)
    padded = by_torch(whole, x=PACKED.arrays.x * PACKED.valid[:, :, None])
    padded["output"] = padded["output"] * PACKED.valid[:, :, None]
    assert hinted(PACKED, padded) == "this is the answer with the padding read as data"


def test_names_states_left_in_the_order_of_the_packed_data() -> None:
    right = by_torch(PACKED)
    # The lengths 3, 6, 1, 4 from the longest to the shortest.
    left = {name: value if name == "output" else value[:, [1, 3, 0, 2]] for name, value in right.items()}
    assert hinted(PACKED, left) == "this is the answer with h_n and c_n left in the packed order"


def _gru_loop(case: Case, step: Callable[..., Array]) -> dict[str, Array]:
    """A GRU in NumPy whose step is given the products and the weights."""
    w, h = case.arrays.weights, case.arrays.h0[0]
    outputs: list[Array] = []
    for x in case.arrays.x:
        h = step(x, h, w["weight_ih_l0"], w["weight_hh_l0"], w["bias_ih_l0"], w["bias_hh_l0"])
        outputs.append(h)
    return {"output": np.stack(outputs), "h_n": h[None]}


def _sigmoid(a: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-a))
    return result


def test_names_the_reset_gate_before_the_product() -> None:
    def step(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> Array:
        r = _sigmoid(x @ w_ih[:5].T + b_ih[:5] + h @ w_hh[:5].T + b_hh[:5])
        z = _sigmoid(x @ w_ih[5:10].T + b_ih[5:10] + h @ w_hh[5:10].T + b_hh[5:10])
        n = np.tanh(x @ w_ih[10:].T + b_ih[10:] + (r * h) @ w_hh[10:].T + b_hh[10:])
        return (1 - z) * n + z * h

    assert hinted(GRU, _gru_loop(GRU, step)) == "this is the answer with the reset gate applied to h before the product with W_hn"


@pytest.mark.parametrize("complemented", [False, True])
def test_names_a_bias_outside_the_reset_gate_and_a_complemented_update_gate(complemented: bool) -> None:
    def step(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> Array:
        r = _sigmoid(x @ w_ih[:5].T + b_ih[:5] + h @ w_hh[:5].T + b_hh[:5])
        z = _sigmoid(x @ w_ih[5:10].T + b_ih[5:10] + h @ w_hh[5:10].T + b_hh[5:10])
        inside, outside = (b_hh[10:], 0.0) if complemented else (0.0, b_hh[10:])
        n = np.tanh(x @ w_ih[10:].T + b_ih[10:] + r * (h @ w_hh[10:].T + inside) + outside)
        return z * n + (1 - z) * h if complemented else (1 - z) * n + z * h

    expected = "the update gate complemented: h' = z n + (1 - z) h" if complemented else "b_hn added outside the reset gate"
    assert hinted(GRU, _gru_loop(GRU, step)) == f"this is the answer with {expected}"


def test_names_another_activation() -> None:
    relu = replace(RNN, layer=replace(RNN.layer, mode=Mode.RNN_RELU))
    assert hinted(relu, by_torch(RNN)) == "this is the answer with a tanh in place of relu"
    assert hinted(RNN, by_torch(relu)) == "this is the answer with a relu in place of tanh"


def test_names_what_is_done_to_a_known_dropout_mask() -> None:
    case = replace(STACK, layer=replace(STACK.layer, dropout=0.5))
    kept = np.random.default_rng(0).random((case.steps, case.batch, case.layer.output_size)) < 0.5
    mask = 2.0 * kept.astype(np.float64)
    expected, names = altered(case, masks=[mask]), ["output", "h_n", "c_n"]
    assert hint(altered(case, masks=[mask / 2]).tensors, expected, names).endswith("what dropout keeps not scaled up")
    same = np.repeat(mask[:1], case.steps, axis=0)
    assert hint(altered(case, masks=[same]).tensors, expected, names).endswith("the dropout mask of the first step at every step")
    too = {**expected.tensors, "output": expected.tensors["output"] * mask}
    assert hint(too, expected, names).endswith("dropout on the last layer's output too")


def _gradients_by_cells(case: Case, detach: Callable[[int, str], bool], lost: str = "", factor: float = 0.0) -> dict[str, Array]:
    """Gradients through a loop over nn.LSTMCell that detaches h or c where it is told to, one cotangent being multiplied."""
    cell = nn.LSTMCell(case.layer.input_size, case.layer.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): torch.tensor(w.copy()) for name, w in case.arrays.weights.items()})
    leaves = {name: torch.tensor(array.copy(), requires_grad=True) for name, array in case.arrays.inputs().items()}
    h, c, outputs = leaves["h0"][0], leaves["c0"][0], []
    for t in range(case.steps):
        h, c = (value.detach() if detach(t, name) else value for name, value in (("h", h), ("c", c)))
        h, c = cell(leaves["x"][t], (h, c))
        outputs.append(h)
    named = {"output": torch.stack(outputs), "h_n": h[None], "c_n": c[None]}
    scales = {name: factor if name == lost else 1.0 for name in named}
    loss = torch.stack(
        [(scales[name] * value * torch.tensor(case.arrays.cotangents[name].copy())).sum() for name, value in named.items()]
    ).sum()
    loss.backward()
    found: dict[str, Any] = {**leaves, **{f"{name}_l0": parameter for name, parameter in cell.named_parameters()}}
    return {name: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for name, leaf in found.items()}


THROUGH = ("output", "h_n", "c_n")


def _hinted_gradients(wrong: Mapping[str, Array], case: Case = LSTM) -> str:
    expected = gradients(case, THROUGH)
    return hint(wrong, expected, list(expected.tensors))


def test_a_right_gradient_gets_no_hint() -> None:
    assert _hinted_gradients(_gradients_by_cells(LSTM, lambda t, name: False)) == ""


@pytest.mark.parametrize(("what", "names"), [("h and c", "hc"), ("h", "h"), ("c", "c")])
def test_names_what_is_cut_through_time(what: str, names: str) -> None:
    found = _hinted_gradients(_gradients_by_cells(LSTM, lambda t, name: name in names))
    assert found == f"these are the gradients with {what} detached at every step"
    found = _hinted_gradients(_gradients_by_cells(LSTM, lambda t, name: name in names and t > 0))
    assert found == f"these are the gradients with {what} detached at every step but the first"


@pytest.mark.parametrize("name", THROUGH)
@pytest.mark.parametrize(("factor", "words"), [(0.0, "ignored"), (2.0, "counted twice"), (-1.0, "negated"), (0.5, "halved")])
def test_names_a_cotangent_that_is_lost_or_scaled(name: str, factor: float, words: str) -> None:
    found = _hinted_gradients(_gradients_by_cells(LSTM, lambda t, at: False, name, factor))
    assert found == f"these are the gradients with the cotangent of {name} {words}"


def test_names_gradients_that_are_scaled_exchanged_transposed_or_zero() -> None:
    right = dict(gradients(LSTM, THROUGH).tensors)
    hh = right["weight_hh_l0"]
    assert _hinted_gradients({**right, "weight_hh_l0": 0 * hh}).endswith("that of weight_hh_l0 zero")
    assert _hinted_gradients({**right, "weight_hh_l0": 1.25 * hh}).endswith("that of weight_hh_l0 multiplied by 1.25")
    assert "that of weight_hh_l0 divided by the batch size" in _hinted_gradients({**right, "weight_hh_l0": hh / LSTM.batch})
    assert _hinted_gradients({**right, "h0": right["c0"], "c0": right["h0"]}).endswith("those of h0 and c0 exchanged")
    turned = np.concatenate([block.T for block in np.split(hh, 4)])
    assert _hinted_gradients({**right, "weight_hh_l0": turned}).endswith("that of weight_hh_l0 transposed in each gate")
    first = right["x"].copy()
    first[0] = 0
    assert _hinted_gradients({**right, "x": first}).endswith("that of x zero at time step 0")


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.id)
def test_a_right_answer_gets_no_hint(case: Case) -> None:
    assert hinted(case, by_torch(case)) == ""


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.id)
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-2, 1.0])
def test_random_noise_gets_no_hint(case: Case, size: float) -> None:
    generator = np.random.default_rng(0)
    right = answer(case).tensors
    assert hinted(case, {name: value + size * generator.standard_normal(value.shape) for name, value in right.items()}) == ""
    through = tuple(right)
    expected = gradients(case, through)
    noisy = {name: value + size * generator.standard_normal(value.shape) for name, value in expected.tensors.items()}
    assert hint(noisy, expected, list(noisy)) == ""


def test_two_faults_at_once_get_no_hint() -> None:
    weights = _with(LSTM, "bias_ih", np.zeros_like)
    wrong = by_torch(LSTM, weights, h0=np.zeros_like(LSTM.arrays.h0))
    assert hinted(LSTM, wrong) == ""


def test_what_was_given_besides_counts_as_evidence() -> None:
    right = by_torch(LSTM)
    squashed = {**right, "c_n": np.tanh(right["c_n"])}
    assert hint(squashed, answer(LSTM), ["c_n"]).endswith("tanh(c_n) in place of c_n")
    assert hint({**squashed, "output": right["output"] + 1}, answer(LSTM), ["c_n"]) == ""


def test_faults_that_a_case_cannot_tell_apart_are_named_together() -> None:
    # Of one unit the reset gate is a number, which may as well be applied after the product; the bias is then what is outside.
    single = Case(Layer(Mode.GRU, 3, 1), dtype="float64")
    w = single.arrays.weights
    moved = np.concatenate([np.zeros(2), w["bias_hh_l0"][2:]])
    wrong = by_torch(single, {**w, "bias_ih_l0": w["bias_ih_l0"] + moved, "bias_hh_l0": w["bias_hh_l0"] - moved})
    found = hinted(single, wrong)
    assert "the reset gate applied to h before the product with W_hn or b_hn added outside the reset gate" in found


def test_what_is_not_finite_or_not_the_oracles_own_answer_gets_no_hint() -> None:
    zeros = {name: 0 * value for name, value in answer(LSTM).tensors.items()}
    assert hinted(LSTM, zeros) != ""
    assert hinted(LSTM, {**zeros, "output": zeros["output"] + np.nan}) == ""
    assert hint(zeros, replace(answer(LSTM), question=None), ["output"]) == ""
    doubled = {name: 2 * value for name, value in answer(LSTM).tensors.items()}
    assert hint(zeros, replace(answer(LSTM), tensors=doubled), ["output"]) == ""


def test_a_long_case_is_searched_without_asking_the_oracle_again(monkeypatch: pytest.MonkeyPatch) -> None:
    long = replace(LSTM, steps=diagnosis.CELL_STEPS + 1)
    expected = answer(long)
    right, forward = dict(expected.tensors), oracle.forward
    asked: list[bool] = []

    def counted(**inputs: Any) -> oracle.Answer:
        asked.append(True)
        return forward(**inputs)

    monkeypatch.setattr(oracle, "forward", counted)
    assert hint({**right, "c_n": np.tanh(right["c_n"])}, expected, ["c_n"]).endswith("tanh(c_n) in place of c_n")
    assert len(asked) == 1


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.id)
def test_every_hypothesis_has_a_name_of_its_own_and_they_are_few(case: Case) -> None:
    for through, families in ((None, VALUES), (tuple(answer(case).tensors), GRADIENTS)):
        expected = answer(case) if through is None else gradients(case, through)
        assert expected.question is not None
        asking, right = diagnosis._asking(expected.question)
        wrong = {name: value + 1 for name, value in right.items()}
        evidence = Evidence(case, asking.inputs, right, wrong, tuple(right))
        hypotheses = [hypothesis for family in families for hypothesis in family(evidence)]
        names = [hypothesis.name for hypothesis in hypotheses if hypothesis.name != "output one step late"]
        assert len(names) == len(set(names))
        assert sum(bool(hypothesis.changes) for hypothesis in hypotheses) <= 120


def test_the_message_ends_with_the_hint_and_only_the_first_mismatch_is_searched() -> None:
    trial = Trial(implementation(nn.LSTM), LSTM)
    zeros = {name: np.zeros_like(value) for name, value in answer(LSTM).tensors.items()}
    with pytest.raises(Mismatch) as first:
        trial.agree(zeros, answer(LSTM))
    assert str(first.value).splitlines()[-1] == "  hint: this is the answer with output, h_n, c_n zero"
    with pytest.raises(Mismatch) as second:
        trial.agree(zeros, answer(LSTM))
    assert "hint" not in str(second.value)

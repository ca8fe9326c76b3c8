"""The hint under a failure names the fault that the mutant has, and no mutant is given another's."""

from __future__ import annotations

from itertools import islice

import pytest

from harness.contract import Contract, checks, run
from harness.implementation import Implementation
from harness.outcome import Outcome
from suites.conformance import mutants
from suites.conformance.catalogue import CATALOGUE

#: What every hint given for a mutant says, by the name of its class: one of several where cases differ in what they can tell.
HINTS: dict[str, str | tuple[str, ...]] = {
    # values
    "GatesInKerasOrder": "gates g and o exchanged",
    "GatesInOnnxOrder": "gate rows read in the order i, o, f, g",
    "InputAndForgetExchanged": "gates i and f exchanged in the biases alone",
    "ForgetBiasPlusOne": "one added to the forget gate",
    "SigmoidCandidate": "a sigmoid in place of tanh for g",
    "OutputWithoutTanh": "h' = sigmoid(o) c' without the tanh",
    "HardSigmoid": "piecewise linear gates in place of the sigmoid",
    "ResetBeforeProduct": "the reset gate applied to h before the product with W_hn",
    "UpdateGateComplemented": "the update gate complemented",
    "ResetAndUpdateExchanged": "gates r and z exchanged",
    "HiddenBiasOutsideReset": "b_hn added outside the reset gate",
    "RecurrentWeightTransposed": "W_hh transposed",
    "HiddenBiasDropped": "b_hh dropped",
    "InputBiasTwice": "b_ih in place of b_hh too",
    "LeakyRelu": "a leaky relu of slope 0.01",
    "TanhForRelu": "a tanh in place of relu",
    "NoActivation": "no activation",
    "OutputOneStepLate": "output one step late",
    "OutputOfTheFirstLayer": "the output of the first layer in place of the last one's",
    "CellStateDroppedBesideZeros": "c_0 taken for zero",
    "CellStateIsHiddenState": "in place of c_n",
    "CellStateSquashed": "tanh(c_n) in place of c_n",
    "CellStateOfLastLayerForAll": "c_n in the wrong order: the",
    "UpperLayersShareWeights": "layer 1's weights in every layer above it",
    "SkipConnection": "the output of the first layer added to what layers above the second read",
    "ThirdLayerStartsFromSecond": "read in the wrong order: layer 1's for every layer above it",
    "ReverseOutputNotFlipped": "the reverse direction's outputs not turned back",
    "ReverseRunsForward": "the reverse direction running forward",
    "ReverseUsesForwardRecurrentWeights": "the forward direction's W_hh in both directions",
    "DirectionsAdded": "the next layer reading the sum of the directions",
    "ReverseBesideForward": "the directions exchanged in what the next layer reads",
    "DirectionsKeptApart": "layer 2 reading the reverse direction alone",
    "ProjectedBeforeOutputGate": "the output gate left out",
    "ReverseProjectedByForward": "the forward direction's W_hr in both directions",
    "WrongWithoutBiasBothWays": "the forward direction's W_ih in both directions",
    "WrongBatchFirstInThreeLayers": "layer 1 reading in reversed time what the one below answers",
    "FifthLayerUsesTheFourth": "layer 3's weights in every layer above it",
    "StreamedStackSharesAState": "read in the wrong order: the first layer's for all layers",
    "ReverseStartsWithTheForwardState": "read in the wrong order: the forward direction's for both directions",
    "StateOfWidePacksIgnored": "taken for zero",
    "WideUnbatchedWithoutHiddenBias": "b_hh dropped",
    "ZerosGetNoGradient": "that of x zero in part",
    # state
    "ListOfStatesIgnored": "taken for zero",
    "DefaultStateIsOne": "an initial state of ones",
    "StatefulBetweenCalls": "the final state of an equal call before as the initial one",
    "InitialStateIgnored": "taken for zero",
    "InitialCellStateIgnored": "c_0 taken for zero",
    "OnlyFirstLayersState": "of the layers above the first taken for zero",
    "ReverseStartsFromForwardState": "read in the wrong order: the forward direction's for both directions",
    "FirstItemsStateForAll": "the first batch item's h_0",
    "StatesExchangedAtEntry": "h_0 and c_0 exchanged",
    "StatesExchangedAtExit": "h_n and c_n exchanged",
    "StatesLeaveDirectionMajor": "in the wrong order: directions before layers",
    "StatesEnterDirectionMajor": "read in the wrong order: directions before layers",
    "LastLayersStateFirst": "in the wrong order: the last layer first",
    "SingleStepIgnoresState": "every step starting from a zero state",
    # packed
    "PackedDataReadAsOneSequence": "the packed batch taken for sorted",
    "StatesNotPermutedIn": "not permuted into the packed order",
    "StatesNotPermutedBack": "left in the packed order",
    "StatesPermutedTwice": ("left permuted the wrong way", "left in the packed order"),
    "OrderTakenForIdleByItsEnds": "left in the packed order",
    "FinalStateAfterPadding": "the states running on through the padding",
    "FinalStateFromLastRow": "h_n of the last layer read off the last row of output",
    "ReverseStartsInThePadding": "the reverse direction starting in the padding",
    "ReverseStateOnlyForTheLongest": "of the reverse direction taken for zero in all sequences but the longest",
    # gradients
    "InputGradientOfFirstStepCut": "that of x zero at time step 0",
    "InputGradientOfReverseCut": "nothing passed from the reverse direction of",
    "FrozenInputWeightCutsPacks": "that of weight_hh_l0 zero",
    "BiasesAloneCutTheInput": "that of x zero",
    "OneDirectionsFinalStateHalved": "the cotangent of h_n halved",
    "FrozenReverseCutsTheInput": "nothing passed from the reverse direction of",
    "InputWeightGradientMissesLastStep": "that of weight_ih without",
    "InputWeightGradientMeanOverBatch": "divided by the batch size",
    "SecondLayerInputWeightFrozen": "that of weight_ih_l1",
    "RecurrentWeightGradientMissesFirstStep": "that of weight_hh without",
    "ReverseRecurrentWeightFrozen": "that of weight_hh_l0_reverse",
    "HiddenBiasGradientHalved": "halved",
    "HiddenBiasNeverLearns": ("that of bias_hh_l0 zero", "that of every bias_hh zero"),
    "CandidateBiasGradientWithoutReset": "that of b_in in place of that of b_hn",
    "ProjectionFrozen": ("that of weight_hr_l0 zero", "that of every weight_hr zero"),
    "InitialStateGradientOfFirstLayerOnly": "that of h0 zero at layer and direction",
    "InitialCellStateGradientZero": "that of c0 zero",
    "FinalStateCotangentReplacesOutput": "the cotangent of the last step of output ignored",
    "FinalCellStateGradientLost": "the cotangent of c_n ignored",
    "GradientWrongInThirdLayer": "twice the gradient passed from layer 2 to layer 1",
    "GradientWrongWithoutBias": "multiplied by 1.1",
    "GradientOfColumnsPast64Lost": "that of weight_ih_l0 zero in part",
    "GradientOfOddBatchLost": "that of x zero at batch item",
    "FrozenBiasStopsAll": "that of every weight_ih zero",
    "BiasesAloneCutTime": "h detached at every step but the first",
    "HiddenBiasConstantUnderGrad": "that of every bias_hh zero",
    "FrozenRecurrentWeightCutsTime": "h detached at every step but the first",
    "WeightsFrozenWithTheInput": ("that of weight_ih_l0 zero", "that of every weight_ih zero"),
    "StateGradientOnlyWithTheInput": "that of h0 zero",
    "CellGradientOnlyWithHidden": "that of c0 zero",
    "PackedStateGradientOnlyWithTheInput": "that of h0 zero",
    "ParameterStateNeverLearns": ("that of h0 zero", "that of c0 zero"),
    "RecurrentWeightAloneNeverLearns": ("that of weight_hh_l0 zero", "that of every weight_hh zero", "every one zero"),
    "FinalCellStateLeftOutWithAGraph": "the cotangent of c_n ignored",
    "BackwardReadsTheInputOfNow": ("that of weight_ih_l0 doubled", "that of every weight_ih doubled"),
    "FrozenUpperLayerStopsAll": "nothing passed from layer 1 to layer 0",
    "FrozenReverseAlonePassesNothing": "nothing passed from the reverse direction of",
    "NoGradientInEvalOfAPack": "that of weight_hh_l0 zero",
    "NoGradientInEvalWithoutState": "that of every weight_hh zero",
    "ThirdLayerUntrainedInEval": "that of weight_hh_l2 zero",
    "LastCallAloneLearnsInEval": "that of every weight_hh halved",
    "EvalWithoutBiasForgets": "every step starting from a zero state",
    "HiddenBiasConstantPerSample": "that of every bias_hh zero",
    "StateConstantPerSample": "h detached at every step",
    "BiasesAloneNeverLearn": ("that of bias_ih_l0 zero", "that of every bias_ih zero"),
    "FirstDerivativeWrongWithAGraph": "the cotangent of output counted twice",
    "PackedWeightsFrozenWithTheInput": "that of weight_ih_l0 zero",
    "FirstLayerOfAPackFrozenWithTheInput": "nothing passed from layer 1 to layer 0",
    "StateOfTheInputsStorageCut": "that of h0 zero",
    "StateConstantUnderGrad": "that of h0 zero",
    "SparseCotangentIgnored": "the cotangent of output ignored",
    # dropout
    "ProjectedNotDropped": "dropout left out",
    "ScaledInEval": "what passes between the layers multiplied by 1 - p",
    "ThirdLayerNotDropped": "dropout above the first layer only",
    "BackwardWithoutMask": "no dropout mask in the backward pass",
    "BackwardWithoutMaskInHalf": "no dropout mask in the backward pass",
    "BackwardWithoutMaskWithoutBias": "no dropout mask in the backward pass",
    "BackwardInTheModeOfNow": "no dropout mask in the backward pass",
    "SecondBackwardUnmasked": "no dropout mask in the backward pass",
    "BackwardScaledByDropoutOfNow": "what dropout keeps not scaled up in the backward pass",
    "BackwardNotScaled": "what dropout keeps not scaled up in the backward pass",
    "NothingDroppedWithoutBias": "dropout left out",
    "DropoutOfPacksFixedAtConstruction": "dropout left out",
    "DropoutFixedAtConstruction": ("dropout left out", "everything between the layers dropped"),
}

_TOPICS = ("values", "state", "packed", "gradients", "dropout")
_PAIRS = [(contract, mutant) for contract in CATALOGUE if contract.topic in _TOPICS for mutant in mutants.registered()[contract.id]]


def _hints(contract: Contract, mutant: Implementation) -> list[str]:
    """The hints of the first failures, empty where there was none."""
    failed = (finding for check in checks([contract], [mutant], ["cpu"]) if (finding := run(check)).outcome == Outcome.FAILED)
    found = list(islice(failed, 3))
    assert all(finding.message.partition("\n  hint: ")[2] == finding.hint for finding in found), "the message ends with it"
    return [finding.hint for finding in found]


def _name(mutant: Implementation) -> str:
    return str(getattr(mutant.build, "__name__", mutant.id))


@pytest.mark.parametrize(("contract", "mutant"), _PAIRS, ids=[f"{contract.id}-{mutant.id}" for contract, mutant in _PAIRS])
def test_a_mutant_gets_the_hint_that_is_its_own_or_none(contract: Contract, mutant: Implementation) -> None:
    hints = [hint for hint in _hints(contract, mutant) if hint]
    expected = HINTS.get(_name(mutant), ())
    expected = (expected,) if isinstance(expected, str) else expected
    if not expected:
        assert hints == [], f"{mutant.id} ({mutant.description}) is not in the table"
    else:
        assert hints, f"{mutant.id} got no hint"
        assert all(any(words in hint for words in expected) for hint in hints), f"{mutant.id} ({mutant.description})"


def test_the_table_names_mutants_that_exist() -> None:
    assert set(HINTS) <= {_name(mutant) for _, mutant in _PAIRS}

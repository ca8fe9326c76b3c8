"""Dropout's masks: seeded, and another for each call, step, sequence, feature and layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from harness.case import Array, read_back
from harness.reference import answer, to_array
from harness.trial import ContractError, Trial
from suites.conformance.cases import every
from suites.conformance.declare import MUST, SHOULD, contract
from suites.conformance.dropout import CASES, READABLE, SOURCE, below, in_training, mask_given, mask_of_other_direction
from suites.conformance.shapes import same


@contract(
    "dropout.seeded",
    "The same torch.manual_seed gives the same output, without gradients and with them.",
    MUST,
    "torch.manual_seed; Reproducibility",
    CASES,
    demonstration="""
        for grad in (False, True):
            torch.set_grad_enabled(grad)
            first, second = ([torch.manual_seed(2), layer(x, hx)[0].data][1] for _ in range(2))
            assert torch.equal(first, second), (first - second).abs().max()
    """,
)
def seeded(trial: Trial) -> None:
    module = trial.module()
    for recorded in (False, True):
        first, again = (in_training(trial, 5, module, recorded).arrays() for _ in range(2))
        for name, value in first.items():
            if not np.array_equal(value, again[name]):
                how, off = "with" if recorded else "without", abs(value - again[name]).max()
                raise ContractError(
                    f"Expected the same {name} after the same torch.manual_seed {how} gradients, but it differs by {off:.3g}"
                )


@contract(
    "dropout.fresh_mask",
    "The mask is drawn anew at each call, with and without gradients and whatever the form of the input, and for each step, sequence and "
    "feature: no part of it is another part, shifted.",
    MUST,
    "torch.nn.Dropout; pytorch#190056: a mask reused across steps",
    [
        *CASES,
        *every(dropout=0.5, **{**READABLE, "steps": 1, "batch": 70, "hidden_size": 40, "dtype": "float16"}),
        *every(dropout=0.5, **{**READABLE, "steps": 70, "batch": 1, "hidden_size": 40, "dtype": "bfloat16"}, batched=False),
        *every(dropout=0.5, **{**READABLE, "steps": 3, "batch": 4, "hidden_size": 140, "dtype": "float32"}),
        # So much that sequences of one step can be compared.
        *every(dropout=0.5, lengths=(12, 11, 12, 10, 12, 9, 12, 12), **{**READABLE, "hidden_size": 9}),
        # More elements, and more rows of them, than a block of random numbers has.
        *every(dropout=0.5, **{**READABLE, "steps": 40, "batch": 16, "hidden_size": 16}),
    ],
    demonstration="""
        drawn = [layer(x, hx)[0].data[..., : reference.proj_size or reference.hidden_size].abs() <= 1e-9 for _ in range(2)]
        one, a, b = (torch.fft.fftn(m, [2 * n for n in m.shape]) for m in (drawn[0] * 0 + 1.0, *(m * 1 - reference.dropout for m in drawn)))
        alike = [torch.fft.ifftn(f * a.conj()).real / torch.fft.ifftn(one * one.conj()).real.clamp(200) for f in (a, b)]
        assert torch.stack(alike).flatten()[1:].max() < 0.15, "at some shift the mask is itself, or the one before"
    """,
)
def fresh_mask(trial: Trial) -> None:
    module, p = trial.module().train(), trial.case.layer.dropout
    torch.manual_seed(3)
    masks: list[Array] = []
    for recorded in (False, True, True):
        with torch.set_grad_enabled(recorded):
            masks.append(mask_given(trial, trial.call(module, *trial.form(trial.leaves()))))
    # Padding has no mask.
    known = np.broadcast_to(trial.case.valid[:, :, None], masks[0].shape)
    plain, earlier, later = (_Spectrum.of(np.where(mask > 0, p, p - 1), known) for mask in masks)
    pairs = _Spectrum.of(np.ones(known.shape), known).against()
    for what, products in (
        ("within a call", plain.against()),
        ("within a call that records gradients", later.against()),
        ("from call to call", earlier.against(plain)),
        ("from call to call that records gradients", later.against(earlier)),
    ):
        _require_chance(what, products / (p * (1 - p)), pairs, p)


@dataclass(frozen=True)
class _Spectrum:
    """The Fourier transform of an array (T, B, F) beside as many zeros on each axis, so that no shift of it comes round."""

    values: NDArray[np.complex128]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, known: NDArray[np.bool_]) -> _Spectrum:
        """Of ``values`` where they are ``known``."""
        shape = tuple(2 * size for size in values.shape)
        return cls(np.fft.rfftn(np.where(known, values, 0.0), shape, axes=(0, 1, 2)), shape)

    def against(self, other: _Spectrum | None = None) -> Array:
        """The sum of products with ``other`` (with itself) for each shift (time steps, batch items, features), negative ones last."""
        return np.fft.irfftn(self.values * np.conj((other or self).values), self.shape, axes=(0, 1, 2))


#: From how many pairs of elements a correlation is read, and how many standard deviations, and how much more, chance makes of it: there
#: are ten thousand shifts.
_PAIRS, _DEVIATIONS, _SLACK = 200, 7.0, 0.04


def _require_chance(what: str, products: Array, pairs: Array, p: float) -> None:
    """Raises if a mask is another, or itself, shifted by some time steps, batch items and features: if more of it agrees than by chance."""
    counts = np.maximum(pairs.round(), 1)
    correlation = products / counts
    # Masks that are one another's opposites are not independent either.
    off = (counts >= _PAIRS) & (np.abs(correlation) > _DEVIATIONS / np.sqrt(counts) + _SLACK)
    if what.startswith("within"):
        off[0, 0, 0] = False
    if not off.any():
        return
    shifts = np.argwhere(off)
    signed = np.where(shifts > np.array(off.shape) // 2, shifts - off.shape, shifts)
    # The nearest.
    nearest = int(np.abs(signed).sum(1).argmin())
    steps, items, features = (int(shift) for shift in signed[nearest])
    chance = p**2 + (1 - p) ** 2
    same = min(1.0, max(0.0, chance + 2 * p * (1 - p) * float(correlation[tuple(shifts[nearest])])))
    where = f", {steps:+d} time steps, {items:+d} batch items and {features:+d} features on," if signed[nearest].any() else ""
    raise ContractError(
        f"Expected the mask to be drawn anew for each element, but {what}{where} {same:.0%} of it is the same: by chance {chance:.0%} are"
    )


@contract(
    "dropout.no_mask_again",
    "Of two hundred calls in a row, no two draw the same mask.",
    MUST,
    "torch.nn.Dropout: independently on every forward call",
    [*every(dropout=0.5, **{**READABLE, "steps": 2, "batch": 4})],
    demonstration="""
        with torch.no_grad():
            outputs = torch.stack([layer(x, hx)[0].flatten() for _ in range(200)])
        assert len(outputs.unique(dim=0)) == 200, "a mask came again"
    """,
)
def no_mask_again(trial: Trial) -> None:
    module = trial.module().train()
    input, hx = trial.form(trial.leaves())
    torch.manual_seed(11)
    calls: dict[bytes, int] = {}
    modes = (torch.no_grad, torch.enable_grad, torch.inference_mode)
    for number in range(200):
        with modes[number % 3]():
            output = trial.call(module, input, hx).tensors["output"]
        mask = np.abs(read_back(trial.case.layer, to_array(output))) > 1e-9
        if (earlier := calls.setdefault(mask.tobytes(), number)) != number:
            raise ContractError(f"Expected a new mask at each call, but call {number + 1} has that of call {earlier + 1}")


@contract(
    "dropout.own_mask_between_layers",
    "With three layers or more there is a mask above each but the last, and no part of it is a part of the one below it, shifted.",
    MUST,
    SOURCE,
    [
        *every(dropout=0.5, **{**READABLE, "num_layers": 3, "batch": 40}),
        *every(dropout=0.3, bidirectional=True, **{**READABLE, "num_layers": 3}),
        *every(dropout=0.2, **{**READABLE, "num_layers": 6, "steps": 24}),
    ],
    demonstration="""
        state = layer(x, hx)[1]
        first = (state[0] if isinstance(state, tuple) else state)[0]
        layer.eval()
        return first, layer(x, hx)
    """,
)
def own_mask_between_layers(trial: Trial) -> None:
    layer, p = trial.case.layer, trial.case.layer.dropout
    reply = in_training(trial, seed=5)
    values = reply.arrays()
    # What the first layer ends with no mask has touched.
    right = answer(trial.case)
    first = {name: value[: layer.directions] for name, value in right.tensors.items() if name != "output"}
    trial.agree({name: values[name][: layer.directions] for name in first}, replace(right, tensors=first))
    if layer.directions == 1:
        same(trial, "the last layer's h_n in training", reply.tensors["h_n"][-1], reply.tensors["output"][-1])
    answered, masks = values["output"], layer.num_layers - 1
    dropped = np.zeros(answered.shape, dtype=bool)
    # What a layer answered, where it was kept, says in turn what it was given.
    for _ in range(masks):
        with np.errstate(invalid="ignore"):
            given = read_back(layer, np.where(dropped, np.nan, answered))
        # A zero that is read through several layers has the errors of all of them: some 1e-8 where the scale is a float32 number.
        dropped |= np.abs(given) < 1e-6
        answered = given * (1 - p)
    known = np.abs(below(trial.case)) > 1e-4
    gone = dropped[known]
    expected, share = 1 - (1 - p) ** masks, float(gone.mean())
    if abs(share - expected) > 6 * (expected * (1 - expected) / gone.size) ** 0.5 + 0.02:
        raise ContractError(
            f"Expected {masks} masks to drop {expected:.0%} of the features, but {share:.0%} are gone: one mask drops {p:.0%}"
        )
    # A zero stays a zero on its way up, so that each mask cannot be read by itself; but where one is another, shifted, what they leave
    # together is in part itself, shifted.
    left = _Spectrum.of(np.where(dropped, expected - 1, expected), known).against() / (expected * (1 - expected))
    _require_chance("within what all masks drop together", left, _Spectrum.of(np.ones(known.shape), known).against(), expected)


@contract(
    "dropout.one_mask_for_both_directions",
    "Both directions of a layer are given the same dropped output of the layer below.",
    SHOULD,
    SOURCE,
    [case for case in CASES if case.layer.bidirectional],
    demonstration="""
        # Here both read the same features.
        first, second = layer(x, hx)[0].data.chunk(2, -1)
        assert torch.allclose(first, second), "each direction has a mask of its own"
    """,
)
def one_mask_for_both_directions(trial: Trial) -> None:
    own, other = mask_given(trial, in_training(trial, 7)), mask_of_other_direction(trial, 7)
    # What is too small to be read counts as kept in both.
    if (differing := float((own != other)[np.abs(below(trial.case)) > 1e-4].mean())) > 0:
        raise ContractError(f"Expected both directions to be given the same, but {differing:.0%} of it is dropped for one alone")

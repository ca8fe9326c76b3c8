"""The limit of a workload: the shortest time that it could take on this machine, from its work and from rates measured in the same run.

Time is at least the operations over the rate of arithmetic, and at least the bytes over the rate of memory: the roofline model (Williams,
Waterman, Patterson: Roofline, an insightful visual performance model for multicore architectures, CACM 52(4), 2009). Both rates are
measured with torch's own matrix product, copy and sum, not read from a data sheet: what is asked of a layer is what this torch can do here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from harness.case import Case, stored
from harness.clock import Clock, HostClock
from harness.sampling import Subject
from harness.switches import tf32
from harness.trial import lacks_memory
from harness.work import Work

Shape = tuple[int, int, int]

#: Seconds of sampling for each series of products, or of copies and reads; preparing and finding how far it goes come on top.
_SECONDS = 0.01

#: How many samples at least are taken of each size, and the seconds of calls that make a sample: on a GPU so many are queued in it that
#: neither their launches nor the wait at its end decide.
_LEAST_ROUNDS, _SAMPLE_SECONDS = 3, 5e-4

#: The first clamp on the sizes of a product and the bytes of the first copy: a few milliseconds on the slowest machine and dtype.
_LEAST_SIZE, _LEAST_BYTES = 64, 2**19

#: What every workload is held against besides its own sizes, or as much of it as there is time for: a GPU needs such sizes to be busy.
_LARGE_PRODUCT, _LARGE_MOVE = (8192, 8192, 8192), 2**28


class Bound(StrEnum):
    """Which of the two a limit comes from."""

    ARITHMETIC = "arithmetic"
    MEMORY = "memory"


@dataclass(frozen=True)
class Rates:
    """The best that the machine did: operations per second of a matrix product, bytes per second of a copy or a read.

    ``matmul`` and ``memory`` say what did it: ``512x512x512 float32``, ``copy of 65536 bytes``.
    """

    matmul_flops_per_second: float
    memory_bytes_per_second: float
    matmul: str = ""
    memory: str = ""


@dataclass(frozen=True)
class Limit:
    """The shortest time of some work at some rates, and which of them it comes from.

    A time of the same work can be shorter: because the rates were measured while other programs ran or the clock was low, and the time
    was not; because what the layer touches was in a nearer cache than what was copied, such as weights from the last call; because the
    layer's own product is better than torch's; or, at T = 1, because the gradient of h_0 is counted and not computed. A few per cent are
    noise, half the limit is a fault.
    """

    seconds: float
    bound: Bound
    work: Work
    rates: Rates


def limit(work: Work, rates: Rates) -> Limit:
    """The limit of ``work`` at ``rates``: the longer of the times of its operations and of its bytes (the roofline model)."""
    arithmetic, memory = work.flops / rates.matmul_flops_per_second, work.bytes / rates.memory_bytes_per_second
    return Limit(max(arithmetic, memory), Bound.ARITHMETIC if arithmetic >= memory else Bound.MEMORY, work, rates)


def _random(dtype: str, device: str, *shape: int) -> Tensor:
    """Random numbers, one block of them over and over: zeros draw less power, and new ones for each place take longer than the product."""
    size = math.prod(shape)
    block = torch.rand(min(size, 2**16), generator=torch.Generator().manual_seed(0)).to(device=device, dtype=getattr(torch, stored(dtype)))
    return block.repeat(-(-size // block.numel()))[:size].view(shape)


def product(shape: Shape, dtype: str, device: str) -> Callable[[], Tensor]:
    """A call that multiplies (M, K) by the transpose of (N, K), as a layer does its input by its weights, into an array that is there."""
    rows, inner, columns = shape
    x, weight = _random(dtype, device, rows, inner), _random(dtype, device, columns, inner)
    return partial(torch.mm, x, weight.t(), out=_random(dtype, device, rows, columns))


def moves(bytes: int, device: str) -> dict[str, Callable[[], Tensor]]:
    """What can be done with an array of ``bytes`` bytes: *copy* reads one half of it and writes the other, *read* keeps only the sum.

    A step with large weights and one sequence does little else than to read.
    """
    array = _random("float32", device, max(2, bytes // 8 * 2))
    source, target = array.view(2, -1)
    return {"copy": partial(target.copy_, source), "read": partial(torch.sum, array)}


@dataclass(frozen=True)
class _Step:
    """One call of a series: what it is, a shape or (kind, bytes), how much it does, how it is made, and in which arithmetic."""

    what: Any
    amount: int
    prepare: Callable[[], Callable[[], Any]]
    dtype: str = "float32"


class Limits:
    """Measures rates for workloads, each of them once unless it is asked again, and keeps them as long as it lives: one for a run.

    Whatever it has measured counts for all workloads of the same device, dtype and number of threads. So what a moment of other work on
    the machine did to one measurement is mended by the next, and the limits of a run get shorter and never longer.
    """

    def __init__(
        self,
        clock: Callable[[str], Clock] = HostClock,
        product: Callable[[Shape, str, str], Callable[[], Any]] = product,
        moves: Callable[[int, str], Mapping[str, Callable[[], Any]]] = moves,
    ) -> None:
        self._clock, self._product, self._moves = clock, product, moves
        self._measured: set[tuple[Any, ...]] = set()
        self._products: dict[tuple[str, str, int], dict[Shape, float]] = {}
        self._memory: dict[tuple[str, int], dict[tuple[str, int], float]] = {}

    def of(self, case: Case, work: Work, again: bool = False) -> Limit:
        """The limit of ``work`` on a case of this layer, dtype and device; ``again`` as in :meth:`rates`."""
        return limit(work, self.rates(case, work.working_set, again))

    def rates(self, case: Case, working_set: int, again: bool = False) -> Rates:
        """The rates for a case of which a call touches ``working_set`` bytes, with as many threads as torch has now.

        Products: that of the whole input by the weights of the first layer, (T*B, I) by (I, G*H), and a large one. Both also in
        float32 where the dtype is narrower: a CPU may multiply floats faster, and a layer may turn its numbers into floats. Copies and
        reads: of ``working_set`` bytes, so that what fits a cache is measured there, and of larger ones, because the call itself takes
        longer than a small copy; reads besides copies because a machine can be better at either. Of all these the best counts: a limit is
        not to be beaten by a choice of shape.

        Each goes from small to large and ends where the next size would take too long: what is too large is measured at the size
        reached. With four of these, six for a half, a slow core takes about 0.15 seconds for the first workload, and less than 0.1 for the
        next, which finds the large ones known. ``again`` measures all of it once more, and the best of all times counts: before and after
        what is timed are two moments of the machine.
        """
        layer, device, threads = case.layer, case.device, torch.get_num_threads()
        dtypes = [case.dtype] if case.dtype in ("float64", "float32") else [case.dtype, "float32"]
        hoisted = (case.steps * case.batch, layer.input_size, len(layer.mode.gates) * layer.hidden_size)
        products: dict[str, float] = {}
        for dtype in dtypes:
            known = self._products.setdefault((dtype, device, threads), {})
            for shape in (hoisted, _LARGE_PRODUCT):
                steps = [_Step(s, 2 * math.prod(s), partial(self._product, s, dtype, device), dtype) for s in _shapes(shape)]
                self._measure((shape, dtype, device, threads), device, steps, known, again)
            products |= {f"{'x'.join(map(str, shape))} {dtype}": rate for shape, rate in known.items()}
        memory = self._memory.setdefault((device, threads), {})
        for largest in (working_set, _LARGE_MOVE):
            # Both at once, because it takes longer to make a large array than to copy it.
            arrays = {size: cache(partial(self._moves, size, device)) for size in _sizes(largest)}
            steps = [_Step((k, size), size, partial(_one, made, k)) for size, made in arrays.items() for k in ("copy", "read")]
            self._measure((largest, device, threads), device, steps, memory, again)
        # What is smaller than the workload may be in a cache where the workload is not, and counts only where nothing larger was reached.
        least = max(size for _, size in memory if size <= working_set)
        fitting = {f"{kind} of {size} bytes": rate for (kind, size), rate in memory.items() if size >= least}
        matmul, moved = max(products, key=products.__getitem__), max(fitting, key=fitting.__getitem__)
        return Rates(products[matmul], fitting[moved], matmul, moved)

    def _measure(self, series: tuple[Any, ...], device: str, steps: Sequence[_Step], known: dict[Any, float], again: bool) -> None:
        """Adds the rates of a series to those that are known, the higher of two of the same thing; nothing if it was measured before."""
        if again or series not in self._measured:
            for what, rate in _climb(steps, self._clock(device)).items():
                known[what] = max(rate, known.get(what, 0.0))
            self._measured.add(series)


def _one(made: Callable[[], Mapping[str, Callable[[], Any]]], kind: str) -> Callable[[], Any]:
    return made()[kind]


def _sizes(bytes: int) -> list[int]:
    """Sizes of copies and reads in bytes, each eight times the one before, up to ``bytes``."""
    sizes = [_LEAST_BYTES]
    while sizes[-1] < bytes:
        sizes.append(8 * sizes[-1])
    return [*(size for size in sizes if size < bytes), bytes]


def _shapes(shape: Shape) -> list[Shape]:
    """``shape`` with its sizes clamped at 64, 128, 256, ... up to the whole of it."""
    shapes: list[Shape] = []
    clamp = _LEAST_SIZE
    while shape not in shapes:
        shapes.append((min(shape[0], clamp), min(shape[1], clamp), min(shape[2], clamp)))
        clamp *= 2
    return shapes


@contextmanager
def _terms(dtype: str) -> Iterator[None]:
    """What the timed cells of ``dtype`` run under, without gradients."""
    with tf32(allowed=dtype == "tf32"), torch.no_grad():
        yield


def _climb(steps: Sequence[_Step], clock: Clock) -> dict[Any, float]:
    """The amount per second of each of ``steps``, by what it is, from the first up to the last for which there are time and memory.

    They are sampled in turn, and of several samples the fastest counts: what else runs on a machine makes things slower, never faster.
    """
    reached: list[tuple[_Step, Subject, int]] = []
    seconds = 0.0
    for step in steps:
        if reached and _LEAST_ROUNDS * seconds * step.amount / reached[-1][0].amount > _SECONDS:
            break
        try:
            subject = Subject(step.prepare(), partial(_terms, step.dtype))
            # Warms up: on a GPU the first call of a size loads its kernel.
            subject.sample(clock, 1)
        except Exception as error:  # torch says in several ways that memory is short; anything else goes on
            if not reached or not lacks_memory(error):
                raise
            break
        # The better of two, or a moment of other work could end the series.
        seconds = min(subject.sample(clock, 1).seconds for _ in range(2))
        reached.append((step, subject, max(1, int(_SAMPLE_SECONDS / max(seconds, 1e-9)))))
    fastest = {step.what: math.inf for step in steps[: len(reached)]}
    spent, rounds = 0.0, 0
    while rounds < _LEAST_ROUNDS or spent < _SECONDS:
        for step, subject, calls in reached:
            seconds = subject.sample(clock, calls).seconds
            fastest[step.what] = min(fastest[step.what], max(seconds, 1e-9))
            spent += seconds * calls
        rounds += 1
    return {step.what: step.amount / fastest[step.what] for step, _, _ in reached}

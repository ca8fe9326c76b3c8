"""The limit of a workload, on machines whose rates are known: a clock that goes on as much as they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.case import Case
from harness.clock import FakeClock
from harness.layer import Layer, Mode
from harness.limit import Bound, Limit, Limits, Rates, Shape, limit, moves, product
from harness.work import Work, work

#: The hoisted input product is (8192, 512) by (512, 2048).
CASE = Case(Layer(Mode.LSTM, 512, 512), steps=128, batch=64)
HOISTED, LARGE = (8192, 512, 2048), (8192, 8192, 8192)
MIB = 2**20


class Machine(FakeClock):
    """Multiplies, copies and reads (half as fast, if nothing is said) at given rates; a call takes 2 us at least.

    It notes what it was asked to do, and counts how often its clock is looked at.
    """

    least = 2e-6

    def __init__(
        self,
        flops: Callable[[Shape, str], float] = lambda shape, dtype: 1e15,
        bytes: Callable[[int], float] = lambda size: 1e15,
        slowdown: Callable[[float], float] = lambda now: 1.0,
        reads: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.looks, self.calls = 0, 0
        self._flops, self._bytes, self._slowdown = flops, bytes, slowdown
        self._reads = reads or (lambda size: bytes(size) / 2)

    def now(self) -> float:
        self.looks += 1
        return super().now()

    def limits(self) -> Limits:
        return Limits(lambda device: self, self.product, self.moves)

    def product(self, shape: Shape, dtype: str, device: str) -> Callable[[], None]:
        self.asked.append((shape, dtype, device))
        return self._taking(2 * math.prod(shape) / self._flops(shape, dtype))

    def moves(self, size: int, device: str) -> dict[str, Callable[[], None]]:
        self.asked.append((size, device))
        return {"copy": self._taking(size / self._bytes(size)), "read": self._taking(size / self._reads(size))}

    def _taking(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.calls += 1
            self.advance(max(seconds, self.least) * self._slowdown(FakeClock.now(self)))

        return call


def test_the_limit_is_the_longer_of_two_times() -> None:
    rates = Rates(100.0, 10.0)
    assert limit(Work(1000, 50, 50), rates) == Limit(10.0, Bound.ARITHMETIC, Work(1000, 50, 50), rates)
    assert limit(Work(1000, 200, 50), rates) == Limit(20.0, Bound.MEMORY, Work(1000, 200, 50), rates)
    assert [bound.value for bound in Bound] == ["arithmetic", "memory"]


@pytest.mark.parametrize(("best", "label"), [(HOISTED, "8192x512x2048 float32"), (LARGE, "8192x8192x8192 float32")])
def test_the_better_of_the_own_product_and_a_large_one_counts(best: Shape, label: str) -> None:
    rates = Machine(lambda shape, dtype: 4e15 if shape == best else 1e15).limits().rates(CASE, MIB)
    assert rates.matmul_flops_per_second == pytest.approx(4e15) and rates.matmul == label


@pytest.mark.parametrize(
    ("dtype", "faster", "counts", "measured"),
    [
        ("bfloat16", "float32", "float32", {"bfloat16", "float32"}),
        ("float16", "float16", "float16", {"float16", "float32"}),
        # What is computed in fewer digits than were asked for is another workload.
        ("float64", "float32", "float64", {"float64"}),
        ("float32", "bfloat16", "float32", {"float32"}),
    ],
)
def test_halves_may_be_multiplied_as_floats_and_nothing_in_fewer_digits(dtype: Any, faster: str, counts: str, measured: set[str]) -> None:
    machine = Machine(lambda shape, dtype: 8e15 if dtype == faster else 2e15)
    rates = machine.limits().rates(replace(CASE, dtype=dtype), MIB)
    assert rates.matmul.endswith(f" {counts}") and rates.matmul_flops_per_second == pytest.approx(8e15 if counts == faster else 2e15)
    assert {asked[1] for asked in machine.asked if len(asked) == 3} == measured


def _size(rates: Rates) -> int:
    """The bytes of what was fastest."""
    return int(rates.memory.removeprefix("copy of ").removesuffix(" bytes"))


def _cached(size: int) -> float:
    return 64e9 if size <= MIB else 8e9


@pytest.mark.parametrize(("working_set", "rate"), [(MIB // 2, 64e9), (MIB, 64e9), (MIB + 8, 8e9), (1000 * MIB, 8e9)])
def test_what_fits_a_cache_is_measured_in_it_and_nothing_else_is(working_set: int, rate: float) -> None:
    rates = Machine(bytes=_cached).limits().rates(CASE, working_set)
    assert rates.memory_bytes_per_second == pytest.approx(rate)
    # For the largest there is no time, and it is measured at what there is time for.
    assert _size(rates) >= min(working_set, 2 * MIB)


@pytest.mark.parametrize(("reads", "best"), [(4e9, "copy of 4194304 bytes"), (16e9, "read of 4194304 bytes")])
def test_the_better_of_copying_and_reading_counts(reads: float, best: str) -> None:
    # There is no time for the next size, which is 2**25 bytes.
    rates = Machine(bytes=lambda size: 8e9, reads=lambda size: reads).limits().rates(CASE, 4 * MIB)
    assert rates.memory_bytes_per_second == pytest.approx(max(8e9, reads)) and rates.memory == best


def test_a_cache_that_was_not_reached_is_not_taken_for_memory() -> None:
    busy: list[bool] = []
    machine = Machine(bytes=lambda size: 64e9 if size <= 8 * MIB else 8e9, slowdown=lambda now: 100.0 if busy else 1.0)
    limits = machine.limits()
    assert limits.rates(CASE, 9 * MIB).memory_bytes_per_second == pytest.approx(8e9)
    busy.append(True)
    # The series ends at 4 MiB, and the known 9 MiB are slower than 8 MiB would be.
    rates = limits.rates(CASE, 8 * MIB)
    assert rates.memory_bytes_per_second == pytest.approx(64e9) and rates.memory == "copy of 4194304 bytes"


def test_a_call_that_takes_longer_than_its_copy_does_not_decide() -> None:
    # A microsecond a call, and 1e12 bytes a second: 1000 bytes are at less than 1e9 a second, 2**28 at nearly all.
    rates = Machine(bytes=lambda size: size / (1e-6 + size / 1e12)).limits().rates(CASE, 1000)
    assert rates.memory_bytes_per_second == pytest.approx(2**28 / (1e-6 + 2**28 / 1e12)) and rates.memory == "copy of 268435456 bytes"


def test_a_slow_machine_is_measured_at_small_sizes_in_little_time() -> None:
    # Half a gigaflop and half a gigabyte per second: the large product would take 37 minutes, the copy half a second.
    machine = Machine(lambda shape, dtype: 5e8, lambda size: 5e8)
    rates = machine.limits().rates(replace(CASE, dtype="bfloat16"), 1000 * MIB)
    assert rates.matmul_flops_per_second == pytest.approx(5e8) and rates.memory_bytes_per_second == pytest.approx(5e8)
    assert machine.now() < 0.15
    assert max(2 * math.prod(asked[0]) for asked in machine.asked if len(asked) == 3) < 0.02 * 5e8
    assert _size(rates) < 0.02 * 5e8, "the largest that there was time for"


def test_a_fast_machine_is_measured_at_the_whole_sizes() -> None:
    machine = Machine()
    machine.limits().rates(CASE, 3 * MIB)
    assert {(HOISTED, "float32", "cpu"), (LARGE, "float32", "cpu"), (3 * MIB, "cpu"), (2**28, "cpu")} <= set(machine.asked)
    assert machine.now() < 0.15


def test_an_array_is_made_once_for_its_copy_and_its_read() -> None:
    machine = Machine()
    machine.limits().rates(CASE, MIB)
    sizes = [asked[0] for asked in machine.asked if len(asked) == 2]
    assert sizes == [MIB // 2, MIB, MIB // 2, 4 * MIB, 32 * MIB, 256 * MIB]


def test_many_calls_make_a_sample_of_a_short_one() -> None:
    # A clock that waits for a GPU when it is looked at, as long as twenty of the calls take.
    class Waiting(Machine):
        least = 0.0

        def now(self) -> float:
            self.advance(1e-5)
            return super().now()

    machine = Waiting(lambda shape, dtype: 2 * math.prod(shape) / 5e-7, lambda size: size / 5e-7)
    machine.limits().rates(CASE, MIB)
    assert machine.calls > 10 * machine.looks
    # 10 us to look and 0.5 us to call: as many as make half a millisecond by the first call are 47.
    rates = machine.limits().rates(CASE, 2**28)
    assert rates.memory_bytes_per_second == pytest.approx(2**28 / 5e-7, rel=0.5)


@pytest.mark.parametrize(
    ("flops", "begin", "end"),
    # The smallest product takes 1.05 ms, and the fourth sample is not disturbed; it takes 2.62 ms, and that is the third of three.
    [(5e8, 0.0120, 0.0135), (2e8, 0.0260, 0.0270)],
    ids=["as-many-as-fill-the-time", "three-at-least"],
)
def test_the_fastest_of_several_samples_counts(flops: float, begin: float, end: float) -> None:
    # Other work takes half of the machine all the time but for a moment in the first series.
    machine = Machine(lambda shape, dtype: flops, lambda size: 1e10, lambda now: 1.0 if begin < now < end else 2.0)
    rates = machine.limits().rates(CASE, MIB)
    assert rates.matmul_flops_per_second == pytest.approx(flops) and rates.matmul == "64x64x64 float32"
    assert rates.memory_bytes_per_second == pytest.approx(5e9)


def test_one_call_that_was_disturbed_does_not_end_a_series() -> None:
    disturbed: list[float] = []

    def slowdown(now: float) -> float:
        disturbed.append(now)
        # The first call warms up, the second is the first that is timed.
        return 1e5 if len(disturbed) == 2 else 1.0

    machine = Machine(slowdown=slowdown)
    machine.limits().rates(CASE, MIB)
    assert (HOISTED, "float32", "cpu") in machine.asked


def test_what_is_known_is_not_measured_again() -> None:
    machine = Machine()
    limits = machine.limits()
    first, asked = limits.rates(CASE, MIB), len(machine.asked)
    assert limits.rates(CASE, MIB) == first and len(machine.asked) == asked
    limits.rates(replace(CASE, seed=1), MIB)
    assert len(machine.asked) == asked, "the numbers in it are not part of a size"
    limits.of(CASE, Work(1, MIB, MIB), again=True)
    assert machine.asked == 2 * machine.asked[:asked], "unless one asks for it"
    asked = len(machine.asked)
    limits.rates(replace(CASE, steps=2 * CASE.steps), MIB)
    again = machine.asked[asked:]
    assert again and {(16384, 512, 2048)} <= {one[0] for one in again} and LARGE not in {one[0] for one in again}
    assert all(len(one) == 3 for one in again), "the copies are known"


@pytest.mark.parametrize("other", ["dtype", "device", "threads"])
def test_other_dtypes_devices_and_threads_have_rates_of_their_own(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, machine = [True], Machine(lambda shape, dtype: 4e15 if fast else 1e15)
    limits = machine.limits()
    assert limits.rates(CASE, MIB).matmul_flops_per_second == pytest.approx(4e15)
    fast.clear()
    case = CASE
    if other == "threads":
        more = torch.get_num_threads() + 1
        monkeypatch.setattr(torch, "get_num_threads", lambda: more)
    else:
        case = replace(CASE, dtype="float64") if other == "dtype" else replace(CASE, device="cuda")
    assert limits.rates(case, MIB).matmul_flops_per_second == pytest.approx(1e15)


def test_a_later_measurement_mends_one_that_was_disturbed() -> None:
    busy, machine = [True], Machine(lambda shape, dtype: 5e8 if busy else 1e9)
    limits, some = machine.limits(), work(CASE.layer, 128, 64, "float32", forward=True, backward=False)
    disturbed = limits.of(CASE, some)
    busy.clear()
    limits.of(replace(CASE, steps=64), some)
    mended = limits.of(CASE, some)
    assert disturbed.seconds == pytest.approx(some.flops / 5e8) and mended.seconds == pytest.approx(some.flops / 1e9)
    busy.append(True)
    limits.of(replace(CASE, steps=32), some)
    assert limits.of(CASE, some, again=True) == mended and mended.rates.matmul == disturbed.rates.matmul == "64x64x64 float32"


def test_the_limit_of_a_stream_reads_from_where_one_step_fits() -> None:
    layer = Layer(Mode.LSTM, 64, 64)
    case = Case(layer, steps=4096, batch=8)
    whole = work(layer, 4096, 8, "float32", forward=True, backward=False)
    stream = work(layer, 1, 8, "float32", forward=True, backward=False, calls=4096)
    assert stream.working_set < MIB < whole.working_set and stream.bytes > whole.bytes
    limits = Machine(bytes=_cached).limits()
    assert limits.of(case, whole) == limit(whole, limits.rates(case, whole.working_set))
    assert limits.of(case, whole).rates.memory_bytes_per_second == pytest.approx(8e9)
    assert limits.of(case, stream).rates.memory_bytes_per_second == pytest.approx(64e9)
    assert limits.of(case, stream).bound is Bound.MEMORY and limits.of(case, stream).seconds == pytest.approx(stream.bytes / 64e9)


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 on for products."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("dtype", ["float32", "tf32"])
def test_rates_are_measured_on_the_terms_of_the_timed_cells(dtype: Any) -> None:
    seen, machine = set(), Machine()

    def watched(shape: Shape, dtype: str, device: str) -> Callable[[], None]:
        call = machine.product(shape, dtype, device)

        def looking() -> None:
            seen.add((dtype, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()))
            call()

        return looking

    Limits(lambda device: machine, watched, machine.moves).rates(replace(CASE, dtype=dtype), MIB)
    # A layer may leave float32 as it is.
    assert seen == {("float32", False, False, False)} | ({("tf32", True, True, False)} if dtype == "tf32" else set())
    assert torch.backends.cuda.matmul.allow_tf32 and torch.is_grad_enabled()


def _raising(machine: Machine, error: Exception, above: int) -> Limits:
    def product(shape: Shape, dtype: str, device: str) -> Callable[[], None]:
        if max(shape) > above:
            raise error
        return machine.product(shape, dtype, device)

    return Limits(lambda device: machine, product, machine.moves)


def test_a_size_for_which_memory_is_short_ends_the_series() -> None:
    machine = Machine(lambda shape, dtype: 1e12 * max(shape))
    rates = _raising(machine, torch.OutOfMemoryError("no more"), above=1024).rates(CASE, MIB)
    assert rates.matmul_flops_per_second == pytest.approx(1024e12) and max(max(one[0]) for one in machine.asked if len(one) == 3) == 1024


@pytest.mark.parametrize(("error", "above"), [(torch.OutOfMemoryError("no more"), 0), (ValueError("no good"), 1024)])
def test_what_else_goes_wrong_is_told(error: Exception, above: int) -> None:
    with pytest.raises(type(error), match=r"no (more|good)"):
        _raising(Machine(), error, above).rates(CASE, MIB)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_product_is_that_of_an_input_by_weights_that_are_not_zero(dtype: str) -> None:
    call = product((300, 400, 500), dtype, "cpu")
    x, weight = call.args  # type: ignore[attr-defined]
    assert x.shape == (300, 400) and weight.shape == (400, 500) and x.dtype == weight.dtype == getattr(torch, dtype)
    assert x.ne(0).double().mean() > 0.9 and x.unique().numel() > 50
    answer = call()
    assert answer.shape == (300, 500) and answer.dtype == x.dtype
    assert torch.allclose(answer.double(), x.double() @ weight.double(), rtol=2e-2)
    assert call() is answer, "the place of the answer is made once"


@pytest.mark.parametrize("size", [1, 8, 1003, 2**20])
def test_copy_and_read_touch_the_bytes_that_they_are_named_for(size: int) -> None:
    calls = moves(size, "cpu")
    (source,), (array,) = calls["copy"].args, calls["read"].args  # type: ignore[attr-defined]
    assert array.nbytes == 2 * source.nbytes == max(8, size // 8 * 8)
    assert calls["read"]().item() == pytest.approx(array.double().sum().item(), rel=1e-4)
    source.add_(1)
    target = calls["copy"]()
    assert target.data_ptr() == source.data_ptr() + source.nbytes and torch.equal(target, source)


def test_this_machine_has_a_limit() -> None:
    case = Case(Layer(Mode.GRU, 8, 16), steps=10, batch=4, dtype="bfloat16")
    some = work(case.layer, 10, 4, "bfloat16", forward=True, backward=True)
    found = Limits().of(case, some)
    assert 0 < found.seconds < 1 and found == limit(some, found.rates)
    assert found.rates.matmul_flops_per_second > 1e6 and found.rates.memory_bytes_per_second > 1e6
    assert found.rates.matmul.endswith("float16") or found.rates.matmul.endswith("float32")

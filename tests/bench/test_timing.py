"""The timing core, driven by a clock that the test winds."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from edgekd.bench.timing import Timing, describe, measure, median_interval


class Clock:
    """Nanoseconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def work(self, milliseconds: float) -> None:
        self.now += round(milliseconds * 1e6)


def timed(costs_ms: list[float], **settings: float) -> tuple[Timing, int]:
    """Measure a call that costs these times in turn (the last one from then on)."""
    clock = Clock()
    calls = 0

    def call() -> None:
        nonlocal calls
        clock.work(costs_ms[min(calls, len(costs_ms) - 1)])
        calls += 1

    options = {"warmup_runs": 0, "warmup_s": 0.0, "repeats": 10, "seconds": 0.0, **settings}
    return measure(call, clock=clock, **options), calls  # type: ignore[arg-type]


def test_the_first_run_is_told_apart_and_never_counted() -> None:
    timing, calls = timed([50, 2])
    assert timing.first_ms == 50
    assert timing.samples_ms.tolist() == [2] * 10
    assert calls == 11


def test_warm_up_goes_by_count() -> None:
    timing, calls = timed([1], warmup_runs=7)
    assert timing.warmup_runs == 7
    assert calls == 17


def test_warm_up_goes_by_time_too() -> None:
    timing, _ = timed([1], warmup_runs=7, warmup_s=0.1)
    assert timing.warmup_runs == 100
    assert timing.warmup_s == pytest.approx(0.1)


def test_at_least_so_many_repeats_however_long() -> None:
    timing, _ = timed([500], repeats=20, seconds=1.0)
    assert len(timing.samples_ms) == 20
    assert timing.seconds == pytest.approx(10.0)


def test_at_least_so_long_however_many() -> None:
    timing, _ = timed([1], repeats=20, seconds=1.0)
    assert len(timing.samples_ms) == 1000


def test_the_watch_looks_before_and_after_the_repeats_and_not_during_them() -> None:
    seen: list[str] = []
    measure(lambda: seen.append("run"), warmup_runs=3, warmup_s=0, repeats=10, seconds=0,
            watch=lambda: seen.append("look"))  # fmt: skip
    assert seen == ["run"] * 3 + ["look"] + ["run"] * (1 + 10) + ["look"]


def test_throughput_counts_images() -> None:
    timing, _ = timed([4])
    assert timing.throughput(8) == pytest.approx(2000)


def test_garbage_is_not_collected_meanwhile() -> None:
    seen: list[bool] = []
    measure(lambda: seen.append(gc.isenabled()), warmup_runs=2, warmup_s=0, repeats=3, seconds=0)
    assert seen == [True, True, False, False, False]
    assert gc.isenabled()


def test_collection_is_on_again_after_an_error() -> None:
    def call() -> None:
        if not gc.isenabled():
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure(call, warmup_runs=1, warmup_s=0, repeats=3, seconds=0)
    assert gc.isenabled()


def test_percentiles() -> None:
    found = describe(np.arange(1, 102, dtype=np.float64))
    assert (found.p50, found.p90, found.p95, found.p99) == (51, 91, 96, 100)
    assert (found.min, found.max, found.mean) == (1, 101, 51)


def test_the_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = median_interval(random.exponential(1.0, 101))
        hits += low <= np.log(2) <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_drift_widens_the_interval() -> None:
    """The same values, once mixed and once in spells: only the order differs."""
    values = np.where(np.arange(400) < 200, 1.0, 1.2) + np.linspace(0, 0.01, 400)
    mixed = np.random.default_rng(0).permutation(values)
    mixed_low, mixed_high = median_interval(mixed)
    low, high = median_interval(values)
    assert high - low >= mixed_high - mixed_low
    assert low <= np.median(values) <= high


def test_the_interval_of_few_runs_is_their_range() -> None:
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)


def test_the_picture_keeps_the_order_and_at_most_500_samples() -> None:
    timing, _ = timed([1], repeats=2000)
    assert len(timing.picture()) == 500
    rising = Timing(np.arange(1000.0), 0.0, 1, 0.0, 1.0).picture()
    assert rising == sorted(rising)
    assert (rising[0], rising[-1]) == (0, 999)

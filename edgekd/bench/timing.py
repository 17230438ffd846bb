"""The one timing core: how long a call takes, and how sure that is.

The first runs of a model are slower (memory is laid out, caches fill), so warm-up goes by count
and by time; then the call is repeated so often and so long, with garbage collection off. The
median leads, since stray interruptions only ever make a run slower.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.results import Latency

NORMAL_95 = 1.959964  # quantile of the normal distribution
MOST_SAMPLES = 500
BLOCKS, LEAST_IN_BLOCK = 20, 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """The repeats of one call, in order, and what preceded them."""

    samples_ms: Floats  # (repeats,)
    first_ms: float  # the very first run
    warmup_runs: int  # the first included
    warmup_s: float
    seconds: float  # from the first repeat to the last

    @property
    def latency(self) -> Latency:
        return describe(self.samples_ms)

    @property
    def median_interval(self) -> tuple[float, float]:
        return median_interval(self.samples_ms)

    def throughput(self, batch: int) -> float:
        """Images per second, one call after another."""
        return batch * len(self.samples_ms) / max(float(self.samples_ms.sum()) / 1e3, 1e-12)

    def picture(self) -> list[float]:
        """At most 500 samples, evenly taken, rounded to a tenth of a microsecond."""
        count = len(self.samples_ms)
        take = np.linspace(0, count - 1, min(count, MOST_SAMPLES)).round().astype(int)
        return [round(float(value), 4) for value in self.samples_ms[take]]


def measure(
    call: Callable[[], object],
    *,
    warmup_runs: int = 50,
    warmup_s: float = 0.5,
    repeats: int = 200,
    seconds: float = 1.0,
    clock: Callable[[], int] = time.perf_counter_ns,
    watch: Callable[[], object] | None = None,
) -> Timing:
    """Time `call`: at least `repeats` runs and at least `seconds`, after a warm-up.

    The warm-up takes at least one run, `warmup_runs` runs and `warmup_s` seconds. `clock` gives
    nanoseconds. `watch` is called after the warm-up, with one more run behind it so that the first
    repeat is as warm as the others, and after the last repeat.
    """
    begin = clock()
    call()
    now = clock()
    first_ms = (now - begin) / 1e6
    runs = 1
    while runs < warmup_runs or (now - begin) / 1e9 < warmup_s:
        call()
        now = clock()
        runs += 1
    if watch is not None:
        watch()
        call()
        runs += 1
    samples, total = _repeat(call, max(1, repeats), seconds, clock)
    if watch is not None:
        watch()
    return Timing(np.array(samples, dtype=np.float64) / 1e6, first_ms, runs,
                  (now - begin) / 1e9, total / 1e9)  # fmt: skip


def _repeat(
    call: Callable[[], object], repeats: int, seconds: float, clock: Callable[[], int]
) -> tuple[list[int], int]:
    samples: list[int] = []
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = end = clock()
        while len(samples) < repeats or end - begin < seconds * 1e9:
            start = clock()
            call()
            end = clock()
            samples.append(end - start)
    finally:
        if was_on:
            gc.enable()
    return samples, end - begin


def describe(samples_ms: Floats) -> Latency:
    """Percentiles (interpolated), mean, standard deviation, extremes."""
    p50, p90, p95, p99 = np.percentile(samples_ms, [50, 90, 95, 99])
    return Latency(p50=float(p50), p90=float(p90), p95=float(p95), p99=float(p99),
                   mean=float(samples_ms.mean()), std=float(samples_ms.std()),
                   min=float(samples_ms.min()), max=float(samples_ms.max()))  # fmt: skip


def median_interval(samples_ms: Floats) -> tuple[float, float]:
    """95 % interval of the median, without assumptions about the distribution.

    Order statistics of the runs would take them as independent, but a machine drifts between
    faster and slower spells, and thousands of runs would look far too sure. So the medians of 20
    consecutive blocks are looked at as well, and the wider of both intervals counts. It says how
    well this measurement knows its own median, not what tomorrow's will be.
    """
    low, high = _order_interval(samples_ms)
    if len(samples_ms) >= BLOCKS * LEAST_IN_BLOCK:
        medians = np.array([np.median(block) for block in np.array_split(samples_ms, BLOCKS)])
        block_low, block_high = _order_interval(medians)
        low, high = min(low, block_low), max(high, block_high)
    return low, high


def _order_interval(values: Floats) -> tuple[float, float]:
    """The two values whose ranks bound the median (the binomial's normal approximation)."""
    ordered = np.sort(values)
    count = len(ordered)
    reach = NORMAL_95 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return float(ordered[low]), float(ordered[high])

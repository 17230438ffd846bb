"""Energy per image: the power under load less the power at rest, over a pass of its own.

Reading power takes time of a core, so the pass comes after the latency has been measured. First
the model, loaded, does nothing: that is the power at rest. Then it runs back to back for as long.
`(load_w - idle_w) * seconds / images` is what one more image costs a machine that is on anyway;
`load_w * seconds / images` is what it costs one that is on for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekd.bench.meter import Meter
from edgekd.bench.power import find_meter
from edgekd.errors import MissingOnHost
from edgekd.host import ROOT
from edgekd.results import MEASURED, NOT_MEASURED

BLOCKS = 10
STUDENT_95 = 2.262157  # quantile of Student's t with BLOCKS - 1 degrees of freedom
LEAST_READINGS = 5
LEAST_S = 5.0  # what `--energy` takes at least
NOT_TOLD_APART = "not told apart from rest: measure longer"
SETTLE_S = 1.0  # threads that spin for the next call go to sleep; clocks and averages catch up


@dataclass(frozen=True)
class Power:
    """Mean power over a stretch of time, in watts."""

    watts: float
    half_w: float | None  # half of its 95 % interval; None with too few readings for one
    readings: int


@dataclass(frozen=True)
class Energy:
    """What a measurement says about energy: the fields of `Measurement` of the same names."""

    energy_status: str = NOT_MEASURED
    energy_mj: float | None = None
    energy_mj_low: float | None = None
    energy_mj_high: float | None = None
    energy_gross_mj: float | None = None
    idle_w: float | None = None
    load_w: float | None = None
    energy_s: float | None = None
    energy_images: int | None = None
    power_readings: int | None = None
    power_source: str | None = None


def mean_power(times_s: Sequence[float], values: Sequence[float], *, is_counter: bool) -> Power:
    """Mean power of readings: joules of a counter, or watts of a gauge (trapezoids in between).

    Neighbouring readings resemble each other, more so behind a chip that averages, and as
    independent ones they would look far too sure. So the interval is that of the means of ten
    consecutive blocks (Student's t), as for the latency's median. It knows nothing of how well
    the sensor is calibrated. Raises ValueError with fewer than five readings.
    """
    if len(times_s) < LEAST_READINGS:
        raise ValueError(f"only {len(times_s)} readings of the power: measure longer")
    steps = np.diff(np.asarray(times_s, dtype=np.float64))
    read = np.asarray(values, dtype=np.float64)
    joules = np.diff(read) if is_counter else (read[1:] + read[:-1]) / 2 * steps
    half = None
    if len(steps) >= BLOCKS:
        parts = zip(np.array_split(joules, BLOCKS), np.array_split(steps, BLOCKS), strict=True)
        blocks = [block.sum() / lasted.sum() for block, lasted in parts]
        half = STUDENT_95 * float(np.std(blocks, ddof=1)) / math.sqrt(BLOCKS)
    return Power(float(joules.sum() / steps.sum()), half, len(read))


def energy(idle: Power, load: Power, *, seconds: float, images: int, source: str) -> Energy:
    """Millijoules per image from both powers, the seconds of load and the images in them.

    None of them without an interval, of which nobody knows how sure it is, nor where the machine
    drew no more at work than at rest; the powers are told all the same.
    """
    to_mj = seconds * 1e3 / images
    net = (load.watts - idle.watts) * to_mj
    readings = min(idle.readings, load.readings)
    powers = Energy(idle_w=idle.watts, load_w=load.watts, energy_s=seconds, energy_images=images,
                    power_readings=readings, power_source=source)  # fmt: skip
    if idle.half_w is None or load.half_w is None:
        why = f"only {readings} readings of the power, an interval takes {BLOCKS + 1}"
        return replace(powers, energy_status=f"{NOT_MEASURED}: {why}: measure longer")
    gross = load.watts * to_mj
    if not net > 0:
        return replace(powers, energy_status=NOT_TOLD_APART, energy_gross_mj=gross)
    half = math.hypot(idle.half_w, load.half_w) * to_mj
    low, high = net - half, net + half
    status = MEASURED if low > 0 else f"{MEASURED}, but {NOT_TOLD_APART}"
    return replace(powers, energy_status=status, energy_mj=net, energy_mj_low=low,
                   energy_mj_high=high, energy_gross_mj=gross)  # fmt: skip


class Sampler:
    """Reads a meter inside the `with`, in a thread; readings that fail are left out."""

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.perf_counter) -> None:
        self.meter, self.clock = meter, clock
        self.times_s: list[float] = []
        self.values: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def take(self) -> None:
        """One reading."""
        try:
            value = self.meter.read()
        except (OSError, ValueError):
            return
        self.times_s.append(self.clock())
        self.values.append(value)

    def _follow(self) -> None:
        while not self._stop.wait(self.meter.period_s):
            self.take()

    def __enter__(self) -> Sampler:
        self.meter.start()
        self.take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.take()
        self.meter.stop()

    def power(self) -> Power:
        """Raises ValueError with too few readings."""
        return mean_power(self.times_s, self.values, is_counter=self.meter.is_counter)


def measure_energy(
    call: Callable[[], object],
    meter: Meter,
    *,
    images: int,
    seconds: float,
    settle_s: float = SETTLE_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    sampler: Callable[[Meter, Callable[[], float]], Sampler] = Sampler,
) -> Energy:
    """`seconds` at rest, then at least as long of `call`, which takes `images` images."""
    sleep(settle_s)
    with sampler(meter, clock) as rest:
        sleep(seconds)
    begin = clock()
    while clock() - begin < settle_s:
        call()
    calls = 0
    with sampler(meter, clock) as load:
        begin = end = clock()
        while not calls or end - begin < seconds:
            call()
            end = clock()
            calls += 1
    try:
        return energy(rest.power(), load.power(), seconds=end - begin, images=calls * images,
                      source=meter.label)  # fmt: skip
    except ValueError as error:
        return Energy(f"{NOT_MEASURED}: {error}", power_source=meter.label)


def energy_here(
    call: Callable[[], object],
    *,
    device: str,
    images: int,
    seconds: float,
    root: Path = ROOT,
) -> Energy:
    """Measure with this machine's own meter; not at all for 0 seconds, or where there is none."""
    if not seconds:
        return Energy()
    try:
        meter = find_meter(device, root)
    except MissingOnHost as error:
        return Energy(f"{NOT_MEASURED}: {error.message}")
    try:
        return measure_energy(call, meter, images=images, seconds=seconds)
    except OSError as error:  # a meter that does not start again
        return Energy(f"{NOT_MEASURED}: {error}", power_source=meter.label)

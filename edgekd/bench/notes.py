"""What makes a measurement doubtful, in words."""

from __future__ import annotations

import time
from types import TracebackType

from edgekd.bench.timing import Timing
from edgekd.host import throttled, usable_cores
from edgekd.results import Measurement

MOST_SPREAD = 1.25  # 95th percentile by median; a quiet machine stays below 1.1
MOST_FIRST = 3.0  # first run by median
LEAST_FIRST_MS = 5.0  # nobody waits for less
MOST_OTHERS = 0.1  # of the usable cores


class Neighbours:
    """How many cores other processes kept busy inside the `with`, and whether cores throttled."""

    def __init__(self) -> None:
        self.others: float | None = None
        self.has_throttled = False

    def __enter__(self) -> Neighbours:
        self._begin = _busy_seconds()
        self._throttled = throttled()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = _busy_seconds()
        now = throttled()
        self.has_throttled = None not in (now, self._throttled) and now != self._throttled
        if self._begin is None or end is None:
            return
        wall, everybody, own = (after - before for after, before in zip(end, self._begin,
                                                                        strict=True))  # fmt: skip
        self.others = max(0.0, (everybody - own) / max(wall, 1e-9))


def notes(timing: Timing, neighbours: Neighbours) -> list[str]:
    """One line for each thing that a reader of the latency should know."""
    found = []
    median = max(timing.latency.p50, 1e-9)
    if timing.latency.p95 / median > MOST_SPREAD:
        found.append(f"unsteady: the slowest 5 % took over {timing.latency.p95 / median:.1f} times "
                     "the median")  # fmt: skip
    ratio = timing.first_ms / median
    if ratio > MOST_FIRST and timing.first_ms - median > LEAST_FIRST_MS:
        found.append(f"the first run took {ratio:.1f} times the median: warm up before serving")
    cores = usable_cores() or 1
    if neighbours.others is not None and neighbours.others > MOST_OTHERS * cores:
        found.append(f"other processes kept {neighbours.others:.1f} of {cores} cores busy "
                     "meanwhile: measure on an idle machine")  # fmt: skip
    if neighbours.has_throttled:
        found.append("cores were throttled for heat or power meanwhile")
    return found


def slower_than_float(row: Measurement, earlier: list[Measurement]) -> list[str]:
    """Say so when a reduced precision is slower than fp32 in the same runtime and setting."""
    for other in earlier:
        same = all(getattr(row, key) == getattr(other, key)
                   for key in ("model", "runtime", "device", "threads", "batch"))  # fmt: skip
        if same and row.precision_asked != "fp32" and other.precision_asked == "fp32":
            ratio = row.latency_ms.p50 / max(other.latency_ms.p50, 1e-9)
            if row.latency_p50_low > other.latency_p50_high:
                return [f"{row.precision_asked} is {ratio:.1f} times as slow as {other.artifact} "
                        "here: it saves space, not time"]  # fmt: skip
    return []


def _busy_seconds() -> tuple[float, float, float] | None:
    """Wall clock, busy seconds of all cores, busy seconds of this process."""
    import psutil

    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError):
        return None
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts guests within user and nice already
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return time.monotonic(), sum(times) - idle - guests, time.process_time()

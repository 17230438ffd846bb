"""What is said about doubtful measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.bench.notes import Neighbours, notes, slower_than_float
from edgekd.bench.timing import Timing
from tests.bench.measurements import measurement
from tests.tiny_bundle import write_bundle


def timing(samples: list[float], first: float = 1.0) -> Timing:
    return Timing(np.array(samples), first, 1, 0.0, 1.0)


def neighbours(others: float | None = 0.0, throttled: bool = False) -> Neighbours:
    found = Neighbours()
    found.others, found.has_throttled = others, throttled
    return found


def test_a_quiet_measurement_needs_no_words() -> None:
    assert notes(timing([1.0] * 100), neighbours()) == []


@pytest.mark.parametrize(
    ("measured", "around", "word"),
    [
        (timing([1.0] * 90 + [2.0] * 10), neighbours(), "unsteady"),
        (timing([5.0] * 100, first=40.0), neighbours(), "first run took 8.0 times"),
        (timing([1.0] * 100), neighbours(others=64.0), "other processes kept 64.0"),
        (timing([1.0] * 100), neighbours(throttled=True), "throttled"),
    ],
)
def test_what_disturbs_is_named(measured: Timing, around: Neighbours, word: str) -> None:
    (note,) = notes(measured, around)
    assert word in note


def test_a_slow_first_run_of_microseconds_is_nobodys_trouble() -> None:
    assert notes(timing([0.01] * 100, first=0.5), neighbours()) == []


def test_the_machine_is_watched_for_real() -> None:
    with Neighbours() as found:
        sum(range(1000))
    assert found.others is None or found.others >= 0


def test_int8_that_is_slower_than_fp32_says_so(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    fp32 = measurement(manifest, "onnx-fp32", 2.0)
    slower, faster = (measurement(manifest, "onnx-int8", p50) for p50 in (3.2, 1.0))
    assert slower_than_float(slower, [fp32]) == [
        "int8 is 1.6 times as slow as onnx-fp32 here: it saves space, not time"
    ]
    assert slower_than_float(faster, [fp32]) == []
    assert slower_than_float(slower.model_copy(update={"threads": 1}), [fp32]) == []

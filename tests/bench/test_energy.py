"""Energy per image against arithmetic by hand, with a clock and a meter that the test winds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.bench.energy import (
    Energy,
    Power,
    Sampler,
    energy,
    energy_here,
    mean_power,
    measure_energy,
)
from edgekd.bench.meter import Meter
from edgekd.results import MEASURED, NOT_MEASURED
from tests.bench.fake_machine import ORIN_NANO, write


class Bench:
    """A machine that draws 5 W at rest and 8 W at work; its readers read every 40 ms."""

    def __init__(self, *, is_counter: bool, idle_w: float = 5.0, load_w: float = 8.0) -> None:
        self.now, self.joules, self.calls = 0.0, 1000.0, 0
        self.idle_w, self.load_w, self.watts = idle_w, load_w, idle_w
        self.reader: Sampler | None = None
        self.meter = Meter("test", self.read, is_counter=is_counter, period_s=0.04)

    def read(self) -> float:
        return self.joules if self.meter.is_counter else self.watts

    def pass_time(self, seconds: float, watts: float) -> None:
        self.watts = watts
        for _ in range(round(seconds / 0.04)):
            self.now += 0.04
            self.joules += 0.04 * watts
            if self.reader is not None:
                self.reader.take()

    def sleep(self, seconds: float) -> None:
        self.pass_time(seconds, self.idle_w)

    def call(self) -> None:
        """One inference of 80 ms."""
        self.calls += 1
        self.pass_time(0.08, self.load_w)

    def sampler(self, meter: Meter, clock: Callable[[], float]) -> Sampler:
        bench = self

        class Stepped(Sampler):
            def __enter__(self) -> Sampler:
                bench.reader = self
                if not bench.meter.is_counter and bench.calls:
                    bench.watts = bench.load_w
                self.take()
                return self

            def __exit__(self, *error: object) -> None:
                bench.reader = None

        return Stepped(meter, clock)

    def measure(self, *, images: int, seconds: float) -> Energy:
        return measure_energy(
            self.call,
            self.meter,
            images=images,
            seconds=seconds,
            settle_s=0.4,
            clock=lambda: self.now,
            sleep=self.sleep,
            sampler=self.sampler,
        )


@pytest.mark.parametrize("is_counter", [True, False])
def test_energy_per_image(is_counter: bool) -> None:
    """(8 W - 5 W) x 0.08 s / 4 images = 60 mJ; 8 W x 0.08 s / 4 = 160 mJ with the rest in it."""
    bench = Bench(is_counter=is_counter)
    found = bench.measure(images=4, seconds=2.0)
    assert found.energy_status == MEASURED
    assert found.energy_mj == pytest.approx(60.0)
    assert found.energy_gross_mj == pytest.approx(160.0)
    assert (found.idle_w, found.load_w) == (pytest.approx(5.0), pytest.approx(8.0))
    assert found.energy_images == 4 * 25
    assert found.energy_s == pytest.approx(2.0)
    assert found.power_readings == 51
    assert (found.energy_mj_low, found.energy_mj_high) == (pytest.approx(60.0), pytest.approx(60.0))
    assert bench.calls == 25 + 5  # some before, to be warm


def test_a_model_slower_than_the_time_given_runs_once() -> None:
    found = Bench(is_counter=True).measure(images=1, seconds=0.05)
    assert found.energy_images is None
    assert found.energy_status == f"{NOT_MEASURED}: only 2 readings of the power: measure longer"
    assert found.power_source == "test"


def test_power_between_readings_of_a_gauge_is_a_straight_line() -> None:
    """1 s from 2 to 4 W and 3 s from 4 to 4 W: (3 + 12) J / 4 s, uneven steps or not."""
    found = mean_power([0, 1, 2, 2.5, 4], [2, 4, 4, 4, 4], is_counter=False)
    assert found.watts == pytest.approx(15 / 4)
    assert found.half_w is None  # too few for blocks


def test_power_of_a_counter_is_its_rise_over_the_time() -> None:
    found = mean_power([10, 11, 12, 13, 20], [5, 6, 6, 6, 25], is_counter=True)
    assert found.watts == pytest.approx(2.0)


def test_the_interval_is_students_over_ten_blocks() -> None:
    """Twenty steps of 1 s, in pairs of the same power: the blocks' means are 1 W to 10 W."""
    joules = np.concatenate([[0.0], np.cumsum(np.repeat(np.arange(1.0, 11.0), 2))])
    found = mean_power(list(range(21)), list(joules), is_counter=True)
    assert found.watts == pytest.approx(5.5)
    deviation = (sum((k - 5.5) ** 2 for k in range(1, 11)) / 9) ** 0.5
    assert found.half_w == pytest.approx(2.262157 * deviation / 10**0.5)


def test_uncertainty_of_rest_and_work_adds_up() -> None:
    """Half widths of 3 and 4 W make one of 5 W; 2 s for 10 images make it 1000 mJ."""
    found = energy(Power(5.0, 3.0, 60), Power(25.0, 4.0, 50), seconds=2.0, images=10, source="m")
    assert found.energy_mj == pytest.approx(4000.0)
    assert found.energy_mj_low == pytest.approx(3000.0)
    assert found.energy_mj_high == pytest.approx(5000.0)
    assert (found.energy_status, found.power_readings) == (MEASURED, 50)


def test_what_cannot_be_told_from_rest_is_called_so() -> None:
    found = energy(Power(5.0, 0.3, 60), Power(5.1, 0.4, 60), seconds=2.0, images=10, source="m")
    assert found.energy_mj == pytest.approx(20.0)
    assert "not told apart from rest" in found.energy_status


def test_no_more_power_at_work_than_at_rest_is_no_energy() -> None:
    for work in (5.0, 4.5):
        found = energy(
            Power(5.0, 0.1, 60), Power(work, 0.1, 60), seconds=2.0, images=10, source="m"
        )
        assert found.energy_status == "not told apart from rest: measure longer"
        assert (found.energy_mj, found.energy_mj_low, found.energy_mj_high) == (None, None, None)
        assert (found.idle_w, found.load_w) == (5.0, work)


def test_too_few_readings_for_an_interval_are_not_called_measured() -> None:
    found = energy(Power(5.0, None, 7), Power(8.0, 0.1, 60), seconds=2.0, images=10, source="m")
    why = "only 7 readings of the power, an interval takes 11: measure longer"
    assert found.energy_status == f"{NOT_MEASURED}: {why}"
    assert found.energy_mj is None
    assert found.energy_gross_mj is None
    assert (found.load_w, found.power_readings) == (8.0, 7)


def test_readings_that_fail_are_left_out() -> None:
    answers = iter([1.0, OSError("busy"), ValueError("empty"), 2.0])

    def read() -> float:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sampler = Sampler(Meter("m", read, is_counter=False, period_s=1.0), clock=lambda: 0.0)
    for _ in range(4):
        sampler.take()
    assert sampler.values == [1.0, 2.0]


def test_the_thread_reads_meanwhile_and_ends() -> None:
    seen = threading.Event()
    order: list[str] = []
    count = iter(range(10**6))

    def read() -> float:
        number = next(count)
        if number == 3:
            seen.set()
        return float(number)

    meter = Meter("m", read, is_counter=True, period_s=0.0005, start=lambda: order.append("start"),
                  stop=lambda: order.append("stop"))  # fmt: skip
    before = threading.active_count()
    with Sampler(meter) as sampler:
        assert seen.wait(10)
    assert threading.active_count() == before
    assert order == ["start", "stop"]
    assert len(sampler.values) >= 5
    assert sampler.times_s == sorted(sampler.times_s)


def test_without_the_option_nothing_is_looked_for(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError

    write(tmp_path, ORIN_NANO)
    found = energy_here(never, device="CPU", images=1, seconds=0.0, root=tmp_path)
    assert found == Energy()
    assert found.energy_status == NOT_MEASURED


def test_without_a_meter_the_reason_is_kept(tmp_path: Path) -> None:
    found = energy_here(lambda: None, device="CPU", images=1, seconds=5.0, root=tmp_path)
    assert found.energy_status.startswith(f"{NOT_MEASURED}: no INA3221 power rails; ")
    assert found.energy_mj is None


def test_a_meter_that_does_not_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise OSError("gone")

    meter = Meter("m", lambda: 1.0, is_counter=False, period_s=1.0, start=start)
    monkeypatch.setattr("edgekd.bench.energy.find_meter", lambda device, root: meter)
    assert measure_energy.__kwdefaults__ is not None
    monkeypatch.setitem(measure_energy.__kwdefaults__, "settle_s", 0.0)
    found = energy_here(lambda: None, device="CPU", images=1, seconds=5.0, root=tmp_path)
    assert found == Energy(f"{NOT_MEASURED}: gone", power_source="m")

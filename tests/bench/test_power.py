"""Each meter on files and lines drawn up after the sources that its module names."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edgekd.bench.jetson import (
    Tegrastats,
    ina3221_meter,
    ina3221_rails,
    rails_of_line,
    tegrastats_meter,
    total,
)
from edgekd.bench.meter import FORMAT_UNVERIFIED, SUM_UNVERIFIED, Meter
from edgekd.bench.nvml import nvml_meter
from edgekd.bench.power import READERS, find_meter, survey
from edgekd.bench.rapl import rapl_meter, read_text
from edgekd.errors import MissingOnHost
from tests.bench.fake_machine import AGX_ORIN, NANO, ORIN_NANO, SERVER, rapl, write

ORIN_LINE = (
    "11-30-2025 13:26:01 RAM 2461/7620MB (lfb 3x2MB) SWAP 1243/3810MB (cached 5MB) "
    "CPU [19%@729,14%@729,off,off] EMC_FREQ 4%@2133 GR3D_FREQ 0%@[305] NVDEC off VIC off APE 200 "
    "cpu@46.531C tj@48.843C VDD_IN 5704mW/5600mW VDD_CPU_GPU_CV 831mW/831mW VDD_SOC 1624mW/1624mW"
)
NANO_LINE = (
    "RAM 2000/3964MB (lfb 4x2MB) IRAM 0/252kB(lfb 252kB) CPU [10%@1400,9%@1400] GR3D_FREQ 0%@76 "
    "PLL@25C thermal@26.5C POM_5V_IN 4096/3500 POM_5V_GPU 1000/900 POM_5V_CPU 800/700"
)


class TestIna3221:
    def test_vdd_in_is_the_whole_module_and_its_parts_are_not_added(self, tmp_path: Path) -> None:
        meter = ina3221_meter(write(tmp_path, ORIN_NANO))
        assert (meter.label, meter.is_counter) == ("ina3221 VDD_IN", False)
        assert meter.read() == pytest.approx(5.0)

    def test_an_agx_orin_has_no_such_rail(self, tmp_path: Path) -> None:
        """3 W + 1 W + 3 W; memory lies behind the 5 V rail, and `NC` is no rail."""
        write(tmp_path, AGX_ORIN)
        meter = ina3221_meter(tmp_path)
        assert meter.read() == pytest.approx(7.0)
        assert meter.label == f"ina3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0, {SUM_UNVERIFIED}"
        assert [rail.label for rail in ina3221_rails(tmp_path)][-1] == "VDDQ_VDD2_1V8AO"

    def test_the_older_driver_says_milliwatts_itself(self, tmp_path: Path) -> None:
        meter = ina3221_meter(write(tmp_path, NANO))
        assert meter.label == "ina3221 POM_5V_IN"
        assert meter.read() == pytest.approx(2.875)

    def test_rails_of_an_unknown_board_are_not_guessed_at(self) -> None:
        with pytest.raises(MissingOnHost, match="VDD_GPU, VDD_X it is not known which are"):
            total(["VDD_X", "VDD_GPU"])

    def test_a_driver_names_its_chips_by_links(self, tmp_path: Path) -> None:
        """As sysfs does: the files lie with the device."""
        write(tmp_path, ORIN_NANO)
        drivers = tmp_path / "sys/bus/i2c/drivers/ina3221"
        device = tmp_path / "sys/devices/platform/1-0040"
        device.parent.mkdir(parents=True)
        (drivers / "1-0040").rename(device)
        (drivers / "1-0040").symlink_to(device)
        assert ina3221_meter(tmp_path).read() == pytest.approx(5.0)

    def test_absent_rails_are_said(self, tmp_path: Path) -> None:
        with pytest.raises(MissingOnHost, match="no INA3221"):
            ina3221_meter(tmp_path)

    def test_a_rail_that_says_nothing_is_no_meter(self, tmp_path: Path) -> None:
        write(tmp_path, ORIN_NANO)
        next(tmp_path.rglob("curr1_input")).unlink()
        with pytest.raises(MissingOnHost, match="cannot be read"):
            ina3221_meter(tmp_path)


def tool_of(meter: Meter) -> Tegrastats:
    tool = getattr(meter.start, "__self__", None)
    assert isinstance(tool, Tegrastats)
    return tool


class TestTegrastats:
    def test_lines_of_two_releases(self) -> None:
        """Memory and clocks look alike and are no power; the first figure is now."""
        assert rails_of_line(ORIN_LINE) == {"VDD_IN": 5.704, "VDD_CPU_GPU_CV": 0.831,
                                            "VDD_SOC": 1.624}  # fmt: skip
        assert rails_of_line(NANO_LINE) == {"POM_5V_IN": 4.096, "POM_5V_GPU": 1.0,
                                            "POM_5V_CPU": 0.8}  # fmt: skip

    def test_a_line_without_averages_or_without_rails(self) -> None:
        assert rails_of_line("EMC_FREQ 0%@3199 VDD_IN 6848mW VDD_SOC 2637mW")["VDD_IN"] == 6.848
        assert rails_of_line("RAM 2461/7620MB CPU [0%@729]") == {}

    @pytest.fixture
    def tool(self, tmp_path: Path) -> Path:
        """A tegrastats that says one line, and waits to be ended."""
        program = tmp_path / "usr/bin/tegrastats"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho '{ORIN_LINE}'\nexec sleep 30\n")
        program.chmod(0o755)
        return tmp_path

    def test_it_is_followed_and_ended(self, tool: Path) -> None:
        meter = tegrastats_meter(tool)
        assert meter.label == f"tegrastats VDD_IN, {FORMAT_UNVERIFIED}"
        meter.start()
        tool_of(meter).rails()  # waits for the first line
        assert meter.read() == 5.704
        meter.stop()
        assert tool_of(meter)._process is None

    def test_before_its_first_line_it_has_no_reading(self) -> None:
        with pytest.raises(ValueError, match="has not named"):
            Tegrastats(Path("none")).watts(("VDD_IN",))

    def test_what_says_nothing_about_power_is_no_meter(self, tool: Path) -> None:
        (tool / "usr/bin/tegrastats").write_text("#!/bin/sh\necho RAM 1/2MB\n")
        with pytest.raises(MissingOnHost, match="nothing about power"):
            tegrastats_meter(tool)

    def test_without_it(self, tmp_path: Path) -> None:
        with pytest.raises(MissingOnHost, match="no tegrastats"):
            tegrastats_meter(tmp_path)


class TestRapl:
    def test_packages_are_added_without_their_parts_twins_and_the_platform(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, SERVER)
        meter = rapl_meter(tmp_path)
        assert (meter.label, meter.is_counter) == ("rapl package-0 + package-1", True)
        assert meter.read() == 0.0
        write(tmp_path, {**rapl("intel-rapl:0", "package-0", 3_500_000),
                         **rapl("intel-rapl:1", "package-1", 7_250_000)})  # fmt: skip
        assert meter.read() == pytest.approx(2.75)

    def test_a_counter_that_starts_again_goes_on(self, tmp_path: Path) -> None:
        meter = rapl_meter(write(tmp_path, rapl("intel-rapl:0", "package-0", 9_500_000, 10**7)))
        for now, expected in ((9_900_000, 0.4), (100_000, 0.6), (5_100_000, 5.6), (0, 10.5)):
            write(tmp_path, rapl("intel-rapl:0", "package-0", now, 10**7))
            assert meter.read() == pytest.approx(expected)

    def test_for_root_only(self, tmp_path: Path) -> None:
        def forbidden(path: Path) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied")
            return read_text(path)

        with pytest.raises(MissingOnHost, match="root only since CVE-2020-8694") as caught:
            rapl_meter(write(tmp_path, SERVER), forbidden)
        assert "run as root" in (caught.value.hint or "")

    def test_without_counters(self, tmp_path: Path) -> None:
        with pytest.raises(MissingOnHost, match="no RAPL"):
            rapl_meter(tmp_path)


class Library:
    """The driver's library with so many cards, whose counter grows by 1.5 J per reading."""

    def __init__(self, cards: int = 1, status: int = 0) -> None:
        self.cards, self.status, self.millijoules = cards, status, 0

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = self.cards
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, card: Any) -> int:
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Any, energy: Any) -> int:
        self.millijoules += 1500
        ctypes.cast(energy, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.status


class TestNvml:
    def test_a_card_counts_millijoules(self, tmp_path: Path) -> None:
        meter = nvml_meter(tmp_path, Library())
        assert meter.read() == pytest.approx(3.0)
        assert meter.is_counter

    @pytest.mark.parametrize(
        ("library", "why"), [(Library(2), "2 NVIDIA cards"), (Library(status=3), "error 3")]
    )
    def test_which_card_or_none(self, library: Library, why: str, tmp_path: Path) -> None:
        with pytest.raises(MissingOnHost, match=why):
            nvml_meter(tmp_path, library)


def test_the_rails_of_a_jetson_cover_its_graphics_unit_too(tmp_path: Path) -> None:
    write(tmp_path, {**ORIN_NANO, **SERVER})
    assert find_meter("CUDA", tmp_path).label == "ina3221 VDD_IN"
    assert find_meter("CPU", tmp_path).label == "ina3221 VDD_IN"


def test_a_processors_counter_says_nothing_about_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Any:
        raise OSError("no such library")

    monkeypatch.setattr("edgekd.bench.nvml.load_library", absent)
    write(tmp_path, SERVER)
    assert find_meter("CPU", tmp_path).label == "rapl package-0 + package-1"
    with pytest.raises(MissingOnHost, match="no NVIDIA driver library"):
        find_meter("CUDA:0", tmp_path)


def test_a_machine_without_meters_names_all_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingOnHost) as caught:
        find_meter("CPU", tmp_path)
    assert caught.value.message == ("no INA3221 power rails; no tegrastats; no RAPL counters "
                                    "(/sys/class/powercap)")  # fmt: skip


def test_the_survey_says_what_is_read_and_what_is_not(tmp_path: Path) -> None:
    found = survey(write(tmp_path, {**AGX_ORIN, **SERVER}))
    assert found["ina3221"].endswith("VIN_SYS_5V0, sum unverified, watts")
    assert found["rapl"] == "rapl package-0 + package-1, a counter of joules"
    assert found["tegrastats"] == "no: no tegrastats"


def test_the_way_out_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(root: Path) -> NoReturn:
        raise MissingOnHost("for root only", hint="run as root")

    monkeypatch.setitem(READERS, "rapl", forbidden)
    assert survey(tmp_path)["rapl"] == "no: for root only (run as root)"
    with pytest.raises(MissingOnHost, match=r"for root only \(run as root\)"):
        find_meter("CPU", tmp_path)


def test_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path, {**ORIN_NANO, **SERVER})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, ns=(1, 1))
    for device in ("CPU", "CUDA"):
        find_meter(device, tmp_path).read()
    assert {path.stat().st_mtime_ns for path in files} == {1}
    assert len(files) > 20

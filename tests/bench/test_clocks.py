"""Clocks, temperature and power mode of machines that are described here."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.bench.clocks import State, Watch, drift, nvpmodel, power_mode, state
from tests.bench.fake_machine import CPU0, write

CONF = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=0 >
"""
ORIN = {
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": CONF,
    f"{CPU0}/scaling_governor": "schedutil",
    f"{CPU0}/scaling_driver": "tegra194",
    f"{CPU0}/scaling_cur_freq": "729600",
    "sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq": "1510400",
    "sys/devices/system/cpu/cpuidle/current_driver": "none",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    "sys/class/devfreq/15340000.vic/cur_freq": "998400000",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000",
    "sys/class/thermal/thermal_zone0/temp": "47000",
    "sys/class/thermal/thermal_zone1/temp": "51500",
    "sys/class/thermal/thermal_zone2/temp": "-256000",  # a zone that is switched off
}
DESK = {
    f"{CPU0}/scaling_governor": "powersave",
    f"{CPU0}/scaling_driver": "intel_pstate",
    f"{CPU0}/energy_performance_preference": "balance_performance",
    f"{CPU0}/scaling_cur_freq": "3400000",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    "sys/class/hwmon/hwmon2/name": "coretemp",
    "sys/class/hwmon/hwmon2/temp1_input": "62000",
    "sys/class/hwmon/hwmon2/temp2_input": "64000",
    "sys/class/hwmon/hwmon3/name": "nvme",
    "sys/class/hwmon/hwmon3/temp1_input": "80000",
}


def test_a_jetson(tmp_path: Path) -> None:
    found = state(write(tmp_path, ORIN))
    assert found == State(cpu_mhz=1510.4, gpu_mhz=306.0, emc_mhz=2133.0, temperature_c=51.5,
                          throttled=None)  # fmt: skip
    assert power_mode(tmp_path) == ("MAXN_SUPER (2), schedutil", True)


def test_a_desk_whose_only_thermometer_is_the_processors(tmp_path: Path) -> None:
    found = state(write(tmp_path, DESK))
    assert found == State(3400.0, None, None, 64.0, 3)
    mode = "powersave, preference balance_performance, no turbo"
    assert power_mode(tmp_path) == (mode, False)


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert state(tmp_path) == State(None, None, None, None, None)
    assert power_mode(tmp_path) == (None, False)
    watch = Watch(tmp_path)
    assert (watch.fields(), watch.notes()) == ({}, [])
    watch.read()
    assert {value for key, value in watch.fields().items() if key != "format_unverified"} == {None}
    assert watch.notes() == []


@pytest.mark.parametrize(
    ("status", "conf", "expected"),
    [
        ("pmode:0000\n", CONF, "15W (0)"),
        ("pmode:0002 fmode:fanNull", CONF, "MAXN_SUPER (2)"),
        ("pmode:0010", CONF, "mode 10"),
        ("pmode:0000", "", "mode 0"),
        ("", CONF, None),
        ("garbage", CONF, None),
    ],
)
def test_the_power_mode_of_a_jetson(status: str, conf: str, expected: str | None) -> None:
    assert nvpmodel(status, conf) == expected


def test_clocks_held_at_one_frequency_and_boost_switched_off(tmp_path: Path) -> None:
    write(tmp_path, {f"{CPU0}/scaling_governor": "schedutil", f"{CPU0}/scaling_min_freq": "1510400",
                     f"{CPU0}/scaling_max_freq": "1510400",
                     "sys/devices/system/cpu/cpufreq/boost": "0"})  # fmt: skip
    assert power_mode(tmp_path) == ("schedutil, no turbo, clocks pinned", False)


def test_what_is_recorded_is_before_and_after_with_its_doubts(tmp_path: Path) -> None:
    watch = Watch(write(tmp_path, {**DESK, **ORIN}))
    watch.read()
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "71000"})
    write(tmp_path, {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5"})
    watch.read()
    found = watch.fields()
    assert (found["temperature_before_c"], found["temperature_c"]) == (64.0, 71.0)
    assert (found["cpu_mhz_before"], found["cpu_mhz"]) == (1510.4, 1510.4)
    assert found["throttle_events"] == 2
    assert found["format_unverified"] == ["power_mode", "gpu_mhz", "emc_mhz"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (State(1500, 600, None, 50, 0), State(1490, 590, None, 55, 0), []),
        (State(1500, 600, None, 45, 0), State(1500, 600, None, 62, 0), ["from 45 to 62 °C"]),
        (State(1500, 600, None, 45, 0), State(1190, 600, None, 45, 0), ["cores' clock went"]),
        (State(1500, 306, None, 45, 0), State(1500, 612, None, 45, 0), ["graphics unit's clock"]),
        (State(None, None, None, None, 0), State(1500, 612, None, 95, 0), []),
    ],
)
def test_a_large_change_is_a_note(before: State, after: State, words: list[str]) -> None:
    found = drift(before, after)
    assert len(found) == len(words)
    for note, word in zip(found, words, strict=True):
        assert word in note


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({f"{CPU0}/scaling_driver": "acpi-cpufreq"}, "governor is powersave"),
        ({f"{CPU0}/energy_performance_preference": "power"}, "set to save power"),
        ({}, ""),  # what intel_pstate calls powersave goes up with the load
    ],
)
def test_a_machine_set_to_save_power_is_a_note(
    changes: dict[str, str], word: str, tmp_path: Path
) -> None:
    notes = Watch(write(tmp_path, {**DESK, **changes})).notes()
    assert len(notes) == bool(word)
    assert all(word in note for note in notes)

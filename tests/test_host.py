"""Facts about machines, most of which are described here and not present."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from edgekd.host import host_facts, host_name, isa, temperature, throttled, usable_cores, version

ORIN = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes asimdhp asimddp\nCPU part\t: 0xd42\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1510400\n",
    "sys/class/thermal/thermal_zone0/temp": "47000\n",
    "sys/class/thermal/thermal_zone1/temp": "51500\n",
}
DESK = {
    "proc/cpuinfo": "model name\t: Some Desk CPU\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n"
                    "cpu MHz\t\t: 2600.123\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
}  # fmt: skip


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_can_be_described_as_json() -> None:
    facts = json.loads(json.dumps(host_facts()))
    assert facts["name"] == host_name()
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["numpy"]
    assert facts["cores_usable"] >= 1


def test_a_jetson(tmp_path: Path) -> None:
    facts = host_facts(machine(tmp_path, ORIN))
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["jetpack"] == "R36.4.3"
    assert facts["format_unverified"] == ["jetpack"]
    assert facts["os"] == "Ubuntu 22.04.5 LTS"
    assert facts["isa"] == ["dotprod", "fp16", "neon"]
    assert facts["governor"] == "schedutil"
    assert (facts["frequency_mhz"], facts["frequency_max_mhz"]) == (729.6, 1510.4)
    assert facts["temperature_c"] == 51.5


def test_a_desk(tmp_path: Path) -> None:
    facts = host_facts(machine(tmp_path, DESK))
    assert facts["cpu"] == "Some Desk CPU"
    assert facts["isa"] == ["amx_int8", "avx2", "avx512_vnni"]
    assert facts["has_turbo"] is True
    assert facts["frequency_mhz"] == 2600.1
    assert facts["is_virtual"] is False
    assert throttled(tmp_path) == 7


def test_the_hottest_sensor_of_the_processor_counts_where_there_is_no_zone(tmp_path: Path) -> None:
    machine(tmp_path, {
        "sys/class/hwmon/hwmon0/name": "nvme\n", "sys/class/hwmon/hwmon0/temp1_input": "90000\n",
        "sys/class/hwmon/hwmon1/name": "k10temp\n", "sys/class/hwmon/hwmon1/temp1_input": "61250\n",
        "sys/class/thermal/thermal_zone0/temp": "-256000\n",
    })  # fmt: skip
    assert temperature(tmp_path) == 61.25


def test_the_release_of_a_jetson_without_its_own_file(tmp_path: Path) -> None:
    entry = "Package: {}\nStatus: install ok installed\nVersion: {}\n\n"
    packages = [("libc6", "2.35-0"), ("nvidia-l4t-core", "36.4.3-20250107174145"), ("zip", "3.0")]
    text = "".join(entry.format(*package) for package in packages)
    machine(tmp_path, {"var/lib/dpkg/status": text})
    assert host_facts(tmp_path)["jetpack"] == "R36.4.3"
    machine(tmp_path, {"var/lib/dpkg/status": text.replace("nvidia-l4t-core", "other")})
    assert host_facts(tmp_path)["jetpack"] is None


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    unknown = {key for key, value in facts.items() if value is None}
    assert {
        "board",
        "jetpack",
        "isa",
        "governor",
        "temperature_c",
        "throttled",
        "has_turbo",
    } <= unknown


@pytest.mark.parametrize("text", ["", "garbage", "max 100000", "-1 100000", "0 0"])
def test_without_a_quota_all_cores_count(tmp_path: Path, text: str) -> None:
    machine(tmp_path, {"sys/fs/cgroup/cpu.max": text})
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nothing")


def test_a_containers_quota_counts(tmp_path: Path) -> None:
    assert usable_cores(machine(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000"})) == 1


def test_an_empty_cpuinfo_says_nothing_about_instructions() -> None:
    assert isa("") is None


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("Orin-Nano.lab", "orin-nano.lab"),
        ("../../etc", "etc"),
        ("Zoë's Mac", "zo-s-mac"),
        ("--", "host"),
    ],
)
def test_the_name_is_safe_as_a_file_name(
    given: str, safe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_HOST", given)
    assert host_name() == safe


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert version("no-such-package-anywhere") is None

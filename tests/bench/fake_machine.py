"""Folders that look like the `/` of machines which are not here."""

from __future__ import annotations

from pathlib import Path

CPU0 = "sys/devices/system/cpu/cpu0/cpufreq"


def write(root: Path, files: dict[str, str]) -> Path:
    """Each file with a line end, as sysfs gives them."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def ina3221(chip: str, hwmon: int, *channels: tuple[str, int, int]) -> dict[str, str]:
    """One chip on a current kernel: label, millivolts and milliamperes of each channel."""
    folder = f"sys/bus/i2c/drivers/ina3221/{chip}/hwmon/hwmon{hwmon}"
    files = {f"{folder}/name": "ina3221"}
    for number, (label, millivolts, milliamperes) in enumerate(channels, 1):
        if label:
            files[f"{folder}/in{number}_label"] = label
        files[f"{folder}/in{number}_input"] = str(millivolts)
        files[f"{folder}/curr{number}_input"] = str(milliamperes)
    return files


ORIN_NANO = ina3221("1-0040", 1, ("VDD_IN", 5000, 1000), ("VDD_CPU_GPU_CV", 5000, 160),
                    ("VDD_SOC", 5000, 320))  # fmt: skip
AGX_ORIN = {
    **ina3221("1-0040", 3, ("VDD_GPU_SOC", 20000, 150), ("VDD_CPU_CV", 20000, 50),
              ("VIN_SYS_5V0", 5000, 600)),
    **ina3221("1-0041", 4, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("", 0, 0)),
}  # fmt: skip
NANO = {
    f"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{name}": text
    for name, text in {
        "rail_name_0": "POM_5V_IN", "in_power0_input": "2875",
        "rail_name_1": "POM_5V_GPU", "in_power1_input": "40",
        "rail_name_2": "POM_5V_CPU", "in_power2_input": "800",
    }.items()
}  # fmt: skip


def rapl(zone: str, name: str, energy_uj: int, range_uj: int = 262143328850) -> dict[str, str]:
    """One zone of the powercap tree."""
    folder = f"sys/class/powercap/{zone}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": str(energy_uj),
            f"{folder}/max_energy_range_uj": str(range_uj)}  # fmt: skip


SERVER = {
    **rapl("intel-rapl:0", "package-0", 1_000_000),
    **rapl("intel-rapl:0:0", "core", 500_000),
    **rapl("intel-rapl:1", "package-1", 7_000_000),
    **rapl("intel-rapl:2", "psys", 99_000_000),
    **rapl("intel-rapl-mmio:0", "package-0", 1_000_000),
}

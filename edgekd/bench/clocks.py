"""Clocks, temperature and power mode while an artifact is timed: what a latency depends on.

Everything is read, nothing is changed, and what cannot be read is None. The sources are the
kernel's documents (admin-guide/pm/cpufreq, admin-guide/pm/intel_pstate, ABI/testing/
sysfs-class-thermal, ABI/testing/sysfs-class-devfreq, hwmon/sysfs-interface) unless another is
named. A graphics card's own clock is not read: asking its driver would disturb the timing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.host import ROOT, read_number, read_text, temperature, throttled

CPU = "sys/devices/system/cpu"
POLICY = f"{CPU}/cpu0/cpufreq"
# Rates of a Jetson's graphics unit and memory. Format unverified: of `cur_freq` the kernel's
# document gives no unit, and of debugfs (for root only) there is no document; both are in Hz as
# people show them, and jetson_clocks reads the latter.
GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gpc", re.IGNORECASE)
EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
NVPMODEL_STATUS, NVPMODEL_CONF = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"
OWN_POWERSAVE = ("intel_pstate", "amd-pstate-epp")  # of these drivers it is the usual governor

MOST_WARMING_C = 10.0
MOST_CLOCK_CHANGE = 0.1


@dataclass(frozen=True)
class State:
    """One moment. Frequencies in MHz, temperature in degrees Celsius."""

    cpu_mhz: float | None  # of the fastest core: the one at work
    gpu_mhz: float | None
    emc_mhz: float | None
    temperature_c: float | None  # of the hottest sensor
    throttled: int | None  # events since the machine started


def state(root: Path = ROOT) -> State:
    """How it is now."""
    cores = [read_number(root, f"{CPU}/{path.parts[-3]}/cpufreq/scaling_cur_freq")
             for path in root.glob(f"{CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq")]  # fmt: skip
    units = [read_number(root, f"sys/class/devfreq/{path.name}/cur_freq")
             for path in root.glob("sys/class/devfreq/*") if GPU.search(path.name)]  # fmt: skip
    return State(_highest(cores, 1e3), _highest(units, 1e6),
                 _highest([read_number(root, EMC)], 1e6), temperature(root),
                 throttled(root))  # fmt: skip


def _highest(values: list[float | None], unit: float) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known) / unit, 1) if known else None


def power_mode(root: Path = ROOT) -> tuple[str | None, bool]:
    """How the machine is set, e.g. `MAXN (0), schedutil, clocks pinned`; and is that a guess?

    A Jetson's mode is the number in nvpmodel's status file, named by nvpmodel.conf (whose form
    NVIDIA's own files show: `< POWER_MODEL ID=0 NAME=MAXN >`). Format unverified: of the status
    file (`pmode:0000`) there is no public document. Then the cpufreq governor and the energy
    preference, `no turbo`, and `clocks pinned` where the lowest clock is the highest, as
    jetson_clocks sets it.
    """
    mode = nvpmodel(read_text(root, NVPMODEL_STATUS) or "", read_text(root, NVPMODEL_CONF) or "")
    parts = [mode, read_text(root, f"{POLICY}/scaling_governor")]
    preference = read_text(root, f"{POLICY}/energy_performance_preference")
    if preference:
        parts.append(f"preference {preference}")
    boost = read_number(root, f"{CPU}/cpufreq/boost")
    if read_number(root, f"{CPU}/intel_pstate/no_turbo") == 1 or boost == 0:
        parts.append("no turbo")
    least = read_number(root, f"{POLICY}/scaling_min_freq")
    if least is not None and least == read_number(root, f"{POLICY}/scaling_max_freq"):
        parts.append("clocks pinned")
    return ", ".join(part for part in parts if part) or None, mode is not None


def nvpmodel(status: str, conf: str) -> str | None:
    """`15W (0)` from both files' texts, `mode 0` without the name, None without a status."""
    found = re.search(r"pmode:0*(\d+)", status)
    if not found:
        return None
    number = int(found.group(1))
    named = re.search(rf"^<\s*POWER_MODEL\s+ID={number}\s+NAME=([^\s>]+)", conf, re.MULTILINE)
    return f"{named.group(1)} ({number})" if named else f"mode {number}"


@dataclass
class Watch:
    """Reads the state when asked: after the warm-up, and after the last repeat."""

    root: Path = ROOT
    seen: list[State] = field(default_factory=list)

    def read(self) -> None:
        """Once more."""
        self.seen.append(state(self.root))

    def fields(self) -> dict[str, Any]:
        """The fields of `Measurement` of the same names."""
        if not self.seen:
            return {}
        before, after = self.seen[0], self.seen[-1]
        mode, is_guess = power_mode(self.root)
        guesses = {"power_mode": is_guess, "gpu_mhz": after.gpu_mhz is not None,
                   "emc_mhz": after.emc_mhz is not None}  # fmt: skip
        return {
            "power_mode": mode,
            "cpu_mhz_before": before.cpu_mhz,
            "cpu_mhz": after.cpu_mhz,
            "gpu_mhz_before": before.gpu_mhz,
            "gpu_mhz": after.gpu_mhz,
            "emc_mhz": after.emc_mhz,
            "temperature_before_c": before.temperature_c,
            "temperature_c": after.temperature_c,
            "throttle_events": _since(before.throttled, after.throttled),
            "format_unverified": [name for name, guess in guesses.items() if guess],
        }

    def notes(self) -> list[str]:
        """One line for each change, or setting, that makes the latency another one."""
        found = []
        if self.seen:
            found += drift(self.seen[0], self.seen[-1])
        governor = read_text(self.root, f"{POLICY}/scaling_governor")
        driver = read_text(self.root, f"{POLICY}/scaling_driver")
        preference = read_text(self.root, f"{POLICY}/energy_performance_preference")
        if governor == "powersave" and driver not in OWN_POWERSAVE:
            found.append("the governor is powersave: cores stay at their lowest clock")
        elif preference == "power":
            found.append("the cores are set to save power (energy_performance_preference: power)")
        return found


def _since(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def drift(before: State, after: State) -> list[str]:
    """What changed a lot between two moments."""
    found = []
    first, last = before.temperature_c, after.temperature_c
    if first is not None and last is not None and last - first >= MOST_WARMING_C:
        found.append(f"the hottest sensor went from {first:.0f} to {last:.0f} °C meanwhile: a "
                     "longer run may be slower")  # fmt: skip
    for what, first, last in (("cores'", before.cpu_mhz, after.cpu_mhz),
                              ("graphics unit's", before.gpu_mhz, after.gpu_mhz)):  # fmt: skip
        if first and last and abs(last / first - 1) >= MOST_CLOCK_CHANGE:
            found.append(f"the {what} clock went from {first:.0f} to {last:.0f} MHz meanwhile")
    return found

"""What machine this is: the facts without which a latency means nothing.

Everything is read, nothing is changed, and what cannot be read is None. `root` stands for `/`, so
that the tests can describe other machines.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

ROOT = Path("/")
PACKAGES = ("edgekd", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
# As /proc/cpuinfo spells them (x86 flags, then ARM features), and as people do.
ISA = {
    "avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16", "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16", "neon": "neon", "asimd": "neon", "asimddp": "dotprod",
    "asimdhp": "fp16", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2",
}  # fmt: skip
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


def host_name() -> str:
    """This host's name, safe as a file name. EDGEKD_HOST overrides it (in a container, say)."""
    name = os.environ.get("EDGEKD_HOST") or platform.node()
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "host"


def host_facts(root: Path = ROOT) -> dict[str, Any]:
    """Name, processor, cores, memory, clocks, load and versions of this machine.

    Sizes are in MiB, frequencies in MHz, temperatures in degrees Celsius; `load` is the average
    number of running processes over one minute.
    """
    info = read_text(root, "proc/cpuinfo") or ""
    jetpack = _jetpack(root)
    return {
        "name": host_name(),
        "os": _os_name(root),
        "kernel": platform.release() or None,
        "machine": platform.machine() or None,
        "board": _board(root),
        "jetpack": jetpack,
        "format_unverified": ["jetpack"] if jetpack else [],
        "cpu": _cpu(info),
        "cores_physical": _cores(logical=False),
        "cores_logical": _cores(logical=True),
        "cores_usable": usable_cores(root),
        "memory_mb": _memory_mb(),
        "isa": isa(info),
        "is_virtual": "hypervisor" in _flags(info) if info else None,
        "governor": read_text(root, f"{CPUFREQ}/scaling_governor"),
        "frequency_mhz": _khz(root, f"{CPUFREQ}/scaling_cur_freq") or _info_mhz(info),
        "frequency_max_mhz": _khz(root, f"{CPUFREQ}/cpuinfo_max_freq"),
        "has_turbo": _has_turbo(root),
        "load": load(),
        "temperature_c": temperature(root),
        "throttled": throttled(root),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """The installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores(root: Path = ROOT) -> int | None:
    """Cores that this process may use: its affinity, cut by a container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        count = os.cpu_count() or 0
    quota = _quota(root)
    if quota is not None:
        count = min(count, max(1, math.ceil(quota)))
    return count or None


def load() -> float | None:
    """One-minute load average, where the system has one."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def throttled(root: Path = ROOT) -> int | None:
    """How often the cores have slowed down for heat or power since the machine started."""
    counts = [
        read_number(root, path.relative_to(root).as_posix())
        for path in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    ]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def temperature(root: Path = ROOT) -> float | None:
    """The hottest thermal zone or processor sensor, in degrees Celsius.

    Both are in thousandths (kernel: ABI/testing/sysfs-class-thermal, hwmon/coretemp, k10temp). A
    zone that is switched off says something impossible, or nothing.
    """
    zones = [f"sys/class/thermal/{path.parent.name}/temp"
             for path in root.glob("sys/class/thermal/thermal_zone*/temp")]  # fmt: skip
    for path in root.glob("sys/class/hwmon/hwmon*/temp*_input"):
        folder = f"sys/class/hwmon/{path.parent.name}"
        if read_text(root, f"{folder}/name") in CPU_SENSORS:
            zones.append(f"{folder}/{path.name}")
    known = [value / 1000 for zone in zones if (value := read_number(root, zone)) is not None]
    return max((value for value in known if -40 <= value <= 150), default=None)


def isa(info: str) -> list[str] | None:
    """Instruction sets that matter for inference, from the text of /proc/cpuinfo."""
    return sorted({name for flag, name in ISA.items() if flag in _flags(info)}) if info else None


def _flags(info: str) -> set[str]:
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    return set(match.group(1).split()) if match else set()


def _cpu(info: str) -> str | None:
    match = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    return match.group(1).strip() if match else (platform.processor() or None)


def _info_mhz(info: str) -> float | None:
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", info, re.MULTILINE)
    return round(float(match.group(1)), 1) if match else None


def _cores(*, logical: bool) -> int | None:
    import psutil

    try:
        return psutil.cpu_count(logical=logical)
    except (OSError, RuntimeError):
        return None


def _memory_mb() -> int | None:
    import psutil

    try:
        return int(psutil.virtual_memory().total) >> 20
    except (OSError, RuntimeError):
        return None


def _quota(root: Path) -> float | None:
    """CPU quota of a container in cores (cgroup 2, then 1); None without one."""
    both = (read_text(root, "sys/fs/cgroup/cpu.max") or "").split()
    if len(both) != 2:
        both = [read_text(root, f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "max"
                for name in ("quota", "period")]  # fmt: skip
    try:
        quota, period = (float(part) for part in both)
    except ValueError:  # `max`: no limit
        return None
    return quota / period if quota > 0 and period > 0 else None


def _has_turbo(root: Path) -> bool | None:
    off = read_number(root, "sys/devices/system/cpu/intel_pstate/no_turbo")
    if off is not None:
        return off == 0
    boost = read_number(root, "sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost == 1


def _os_name(root: Path) -> str:
    match = re.search(
        r'^PRETTY_NAME="?([^"\n]+)', read_text(root, "etc/os-release") or "", re.MULTILINE
    )
    return match.group(1) if match else f"{platform.system()} {platform.release()}".strip()


def _board(root: Path) -> str | None:
    """A board's own name (Jetson, Raspberry Pi): `model` of its device tree (its specification)."""
    name = read_text(root, "proc/device-tree/model")
    return name.strip("\0 ") if name else None


def _jetpack(root: Path) -> str | None:
    """The L4T release of a Jetson, e.g. `R36.4.3`.

    From /etc/nv_tegra_release, else (containers, trimmed images) the version of the package
    nvidia-l4t-core in dpkg's status file (deb-control: `Package:`, `Version:`). Format unverified:
    of neither text does NVIDIA publish a description.
    """
    text = read_text(root, "etc/nv_tegra_release") or ""
    match = re.search(r"(R\d+).*?REVISION:\s*([\d.]+)", text)
    if match:
        return f"{match.group(1)}.{match.group(2)}"
    packages = read_text(root, "var/lib/dpkg/status") or ""
    entry = re.search(r"^Package: nvidia-l4t-core\n(?:.+\n)*?Version: ([\d.]+)", packages, re.M)
    return f"R{entry.group(1)}" if entry else None


def _khz(root: Path, name: str) -> float | None:
    value = read_number(root, name)
    return None if value is None else value / 1000


def read_number(root: Path, name: str) -> float | None:
    """The number in a file under `root`; None if there is no such file, or no number in it."""
    try:
        return float(read_text(root, name) or "")
    except ValueError:
        return None


def read_text(root: Path, name: str) -> str | None:
    """The text of a file under `root`; None if it cannot be read."""
    try:
        return (root / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

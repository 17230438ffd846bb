"""The energy counters of x86 processors (RAPL), through the kernel's powercap files.

Zones and units: kernel.org/doc/html/latest/power/powercap/powercap.html. A zone `intel-rapl:<n>`
is a package (`name` begins with `package`) or `psys`; AMD processors since family 17h appear under
the same name. Packages are added up: cores and what else is on the chip, without memory modules,
discs and power supply. `psys` is not used, though it would cover more: it needs a board that wires
it (the kernel's commit "powercap, perf/x86/intel/rapl: Add PSys support"), and on some servers it
counts in whole joules ("powercap: intel_rapl: add support for Sapphire Rapids"). Its figures would
look like those of a package and not be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.bench.meter import Meter
from edgekd.errors import MissingOnHost

PERIOD_S = 0.1  # the counters move about every millisecond
POWERCAP = "sys/class/powercap"
# sub-zones (intel-rapl:0:0) are parts of a package; intel-rapl-mmio:0 is package 0 once more
PACKAGE = re.compile(r"intel-rapl:\d+")


def read_text(path: Path) -> str:
    """A file of one line."""
    return path.read_text(encoding="ascii").strip()


@dataclass
class Package:
    """One processor's counter, made to grow for ever."""

    name: str
    file: Path
    range_uj: int  # of the counter, which then starts again
    read: Callable[[Path], str] = read_text
    _last: int = 0
    _sum: int = 0

    def __post_init__(self) -> None:
        self._last = int(self.read(self.file))

    def microjoules(self) -> int:
        """Since this object was made. Must be read at least once per turn of the counter."""
        now = int(self.read(self.file))
        step = now - self._last
        self._sum += step if step >= 0 else step + self.range_uj
        self._last = now
        return self._sum


@dataclass
class Rapl:
    """All packages of a machine."""

    packages: list[Package] = field(default_factory=list)

    def joules(self) -> float:
        """Of all packages together, since the beginning."""
        return sum(package.microjoules() for package in self.packages) / 1e6


def rapl_meter(root: Path, read: Callable[[Path], str] = read_text) -> Meter:
    """Joules of all packages. Raises MissingOnHost where there are none, or they are forbidden."""
    rapl = Rapl()
    try:
        for zone in sorted((root / POWERCAP).glob("intel-rapl:*")):
            name = read(zone / "name") if PACKAGE.fullmatch(zone.name) else ""
            if name.startswith("package"):
                range_uj = int(read(zone / "max_energy_range_uj"))
                rapl.packages.append(Package(name, zone / "energy_uj", range_uj, read))
    except PermissionError:
        raise MissingOnHost("RAPL's energy_uj is for root only since CVE-2020-8694",
                            hint="run as root, or let root make the energy_uj files readable"
                            ) from None  # fmt: skip
    except (OSError, ValueError) as error:
        raise MissingOnHost(f"RAPL cannot be read: {error}") from None
    if not rapl.packages:
        raise MissingOnHost("no RAPL counters (/sys/class/powercap)")
    names = " + ".join(package.name for package in rapl.packages)
    return Meter(f"rapl {names}", rapl.joules, is_counter=True, period_s=PERIOD_S)

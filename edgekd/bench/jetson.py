"""The power rails of a Jetson: the INA3221 chips through sysfs, else the lines of tegrastats.

Never run on a Jetson so far: written from the sources named below, and tested on files and lines
drawn up after them.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekd.bench.meter import FORMAT_UNVERIFIED, SUM_UNVERIFIED, Meter
from edgekd.errors import MissingOnHost

PERIOD_S = 0.04
TEGRASTATS = "usr/bin/tegrastats"
TEGRASTATS_MS = 100
FIRST_LINE_S = 3.0
# What a module draws in all, as its rails are named (labels: the kernel's device trees
# tegra234-p3767.dtsi and tegra234-p3701.dtsi). The rails overlap, so that adding them up counts
# some twice: VDD_IN (Orin Nano, Orin NX, Xavier NX) is the total of the module (NVIDIA in
# forums.developer.nvidia.com/t/200883), POM_5V_IN (Nano) the whole 5 V input (t/73608, as quoted by
# others). AGX Orin has no such rail. Its VDDQ_VDD2_1V8AO is left out because it lies behind
# VIN_SYS_5V0, which others say and we have not seen in a document of NVIDIA: hence the doubt.
TOTALS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("VDD_IN",), ""),
    (("POM_5V_IN",), ""),
    (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), SUM_UNVERIFIED),
)
# Rails stand as `VDD_IN 5704mW/5704mW` (now/average), on L4T 32 without the unit
LINE_RAIL = re.compile(r"\b([A-Z]\w*) (?:(\d+)mW(?:/\d+mW)?|(\d+)/\d+)(?=\s|$)")


@dataclass(frozen=True)
class Rail:
    """One channel: files whose product, times `scale`, is watts."""

    label: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float:
        """Power now. Raises OSError where a file cannot be read, ValueError if it is no number."""
        product = self.scale
        for file in self.files:
            product *= float(file.read_text(encoding="ascii"))
        return product


def ina3221_rails(root: Path) -> list[Rail]:
    """The named channels of all INA3221 chips; unconnected ones (`NC`) are left out.

    Current kernels: `in<n>_label`, `in<n>_input` in mV, `curr<n>_input` in mA, n from 1 to 3
    (kernel.org/doc/html/latest/hwmon/ina3221.html; the paths as in NVIDIA's Jetson Linux Developer
    Guide r36, "Software-Based Power Consumption Modeling"). L4T 32 and before: `rail_name_<n>` and
    `in_power<n>_input` in mW, n from 0 to 2 (the same chapter of that release's guide).
    """
    drivers = root / "sys/bus/i2c/drivers"
    found: list[tuple[Path, tuple[Path, ...], float]] = []
    for folder in sorted(drivers.glob("ina3221/*/hwmon/hwmon*")):
        for n in (1, 2, 3):
            files = (folder / f"in{n}_input", folder / f"curr{n}_input")
            found.append((folder / f"in{n}_label", files, 1e-6))
    for folder in sorted(drivers.glob("ina3221x/*/iio*device*")):
        for n in (0, 1, 2):
            found.append((folder / f"rail_name_{n}", (folder / f"in_power{n}_input",), 1e-3))
    rails = []
    for name, inputs, scale in found:
        try:
            label = name.read_text(encoding="ascii", errors="replace").strip()
        except OSError:  # a channel that the device tree switches off has no label
            continue
        if label and label != "NC":
            rails.append(Rail(label, inputs, scale))
    return rails


def total(labels: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """The rails that make up the whole module, and a doubt. Raises MissingOnHost for others."""
    known = set(labels)
    for rails, doubt in TOTALS:
        if known.issuperset(rails):
            return rails, doubt
    raise MissingOnHost(f"of the rails {', '.join(sorted(known))} it is not known which are the "
                        "whole module")  # fmt: skip


def ina3221_meter(root: Path) -> Meter:
    """Watts of the module. Raises MissingOnHost where no chip can be read."""
    rails = {rail.label: rail for rail in ina3221_rails(root)}
    if not rails:
        raise MissingOnHost("no INA3221 power rails")
    labels, doubt = total(rails)
    chosen = [rails[label] for label in labels]
    try:
        sum(rail.watts() for rail in chosen)
    except (OSError, ValueError) as error:
        raise MissingOnHost(f"the INA3221 rails cannot be read: {error}") from None
    return Meter(f"ina3221 {' + '.join(labels)}", lambda: sum(rail.watts() for rail in chosen),
                 is_counter=False, period_s=PERIOD_S, doubt=doubt)  # fmt: skip


def rails_of_line(line: str) -> dict[str, float]:
    """Watts now by rail, from one line of tegrastats.

    Format unverified: NVIDIA's guides list the statistics, but the lines that this was written
    after (L4T 32 to 36) come from what people posted.
    """
    return {name: int(new or old) / 1e3 for name, new, old in LINE_RAIL.findall(line)}


class Tegrastats:
    """The newest line of a running `tegrastats`, which only reads."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._line = ""
        self._has_line = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run it. Raises OSError if that fails."""
        command = [str(self.program), "--interval", str(TEGRASTATS_MS)]
        self._line = ""
        self._has_line.clear()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
        self._thread = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
        self._thread.start()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._line = line
            self._has_line.set()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self._process is not None and self._thread is not None:
            self._process.terminate()
            self._process.wait()
            self._thread.join()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process = self._thread = None

    def rails(self) -> tuple[str, ...]:
        """Those that are the whole module. Raises MissingOnHost, also when nothing is said."""
        self._has_line.wait(FIRST_LINE_S)
        found = rails_of_line(self._line)
        if not found:
            raise MissingOnHost("tegrastats says nothing about power")
        return total(found)[0]

    def watts(self, rails: tuple[str, ...]) -> float:
        """Of these rails together. Raises ValueError before the first line, and where one lacks."""
        found = rails_of_line(self._line)
        if not found.keys() >= set(rails):
            raise ValueError("tegrastats has not named the rails")
        return sum(found[name] for name in rails)


def tegrastats_meter(root: Path) -> Meter:
    """For where the chips cannot be read but NVIDIA's own tool can. Raises MissingOnHost."""
    program = root / TEGRASTATS
    if not program.is_file():
        raise MissingOnHost("no tegrastats")
    tool = Tegrastats(program)
    try:
        tool.start()
        rails = tool.rails()
    except OSError as error:
        raise MissingOnHost(f"tegrastats does not run: {error}") from None
    finally:
        tool.stop()
    return Meter(f"tegrastats {' + '.join(rails)}", lambda: tool.watts(rails), is_counter=False,
                 period_s=TEGRASTATS_MS / 1e3, doubt=FORMAT_UNVERIFIED, start=tool.start,
                 stop=tool.stop)  # fmt: skip

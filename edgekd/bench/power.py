"""Which meter of this machine says what an artifact costs.

Just one is used and named with the figure: a Jetson's rails cover the whole module, RAPL the
processor, NVML the graphics card. They are different quantities and never added up.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.bench.jetson import ina3221_meter, tegrastats_meter
from edgekd.bench.meter import Meter
from edgekd.bench.nvml import nvml_meter
from edgekd.bench.rapl import rapl_meter
from edgekd.errors import MissingOnHost
from edgekd.host import ROOT

NVIDIA = ("CUDA", "TENSORRT")  # as runtimes name the device on which they ran
READERS = {"ina3221": ina3221_meter, "tegrastats": tegrastats_meter, "rapl": rapl_meter,
           "nvml": nvml_meter}  # fmt: skip


def find_meter(device: str = "", root: Path = ROOT) -> Meter:
    """The meter for what runs on `device`. Raises MissingOnHost with every reader's reason."""
    is_card = any(name in device.upper() for name in NVIDIA)
    names = ("ina3221", "tegrastats", "nvml" if is_card else "rapl")
    reasons = []
    for name in names:
        try:
            return READERS[name](root)
        except MissingOnHost as error:
            reasons.append(_why(error))
    raise MissingOnHost("; ".join(reasons))


def _why(error: MissingOnHost) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def survey(root: Path = ROOT) -> dict[str, str]:
    """What each reader finds here, in words: for `edgekd doctor`."""
    found = {}
    for name, reader in READERS.items():
        try:
            meter = reader(root)
        except MissingOnHost as error:
            found[name] = f"no: {_why(error)}"
            continue
        found[name] = f"{meter.label}, a counter of joules"
        if not meter.is_counter:
            found[name] = f"{meter.label}, watts"
    return found

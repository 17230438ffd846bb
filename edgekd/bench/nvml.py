"""The energy counter of an NVIDIA graphics card, through the driver's own library.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules of the whole card since the driver was
loaded, from Volta on (docs.nvidia.com/deploy/nvml-api, "Device Queries"). The library is asked, not
nvidia-smi, whose manual does not promise that its output stays as it is. Never run on a card so
far.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.bench.meter import Meter
from edgekd.errors import MissingOnHost

LIBRARY = "libnvidia-ml.so.1"
PERIOD_S = 0.1


def load_library() -> Any:
    """The driver's library. Raises OSError where there is none."""
    import ctypes

    return ctypes.CDLL(LIBRARY)


def nvml_meter(root: Path, library: Any = None) -> Meter:
    """Joules of the only NVIDIA card here. Raises MissingOnHost without exactly one."""
    import ctypes

    del root  # libraries are not files to describe in a test
    try:
        nvml = load_library() if library is None else library
    except OSError:
        raise MissingOnHost(f"no NVIDIA driver library ({LIBRARY})") from None

    def check(status: int, what: str) -> None:
        if status != 0:
            raise MissingOnHost(f"NVML cannot {what}: error {status}")

    count, card = ctypes.c_uint(), ctypes.c_void_p()
    check(nvml.nvmlInit_v2(), "start")
    check(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), "count cards")
    if count.value != 1:
        raise MissingOnHost(f"{count.value} NVIDIA cards: which one ran is not known")
    check(nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(card)), "open the card")

    def joules() -> float:
        energy = ctypes.c_ulonglong()
        status = nvml.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(energy))
        if status != 0:
            raise OSError(f"NVML error {status}")
        return energy.value / 1e3

    try:
        joules()
    except (OSError, AttributeError) as error:  # the latter: a driver before Volta's
        raise MissingOnHost(f"the NVIDIA card has no energy counter: {error}") from None
    return Meter("nvml card 0", joules, is_counter=True, period_s=PERIOD_S)

"""Where an engine was built, kept beside it as JSON, and whether that is here.

An engine is code for one version of TensorRT on one kind of GPU, with the fastest kernels of that
machine as it was clocked (docs.nvidia.com/deeplearning/tensorrt, "Engine Compatibility"). The gate
judged it there too. So it is bound to its host, and on another one it is built again.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from edgekd.errors import BundleError, EdgekdError
from edgekd.host import host_name
from edgekd.runtimes import _cuda
from edgekd.runtimes._tensorrt_library import import_tensorrt

MUST_FIT = ("host", "gpu", "compute_capability", "tensorrt")
NVPMODEL = "var/lib/nvpmodel/status"
DRIVER = "proc/driver/nvidia/version"
ROOT = Path("/")


def facts_here(trt: Any, cuda: _cuda.Cuda, index: int = 0) -> dict[str, Any]:
    """What ties an engine to this machine, and what its speed depends on besides."""
    runtime, driver = cuda.versions()
    return {
        "host": host_name(),
        "gpu": cuda.device_name(index),
        "compute_capability": cuda.compute_capability(index),
        "tensorrt": str(trt.__version__),
        "is_integrated": bool(cuda.attribute("cudaDevAttrIntegrated", index)),
        "cuda": runtime,
        "driver": driver_version() or f"CUDA {driver}",
        "power_mode": power_mode(),
    }


def power_mode(root: Path | None = None) -> str | None:
    """The number of a Jetson's power mode (its tool `nvpmodel` names it); None elsewhere."""
    root = root or ROOT
    try:
        text = (root / NVPMODEL).read_text(encoding="utf-8", errors="replace")
        match = re.search(r"pmode:0*(\d+)", text)
        if match:
            return match.group(1)
    except OSError:
        pass
    if root != Path("/"):
        return None
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"^(\d+)\s*$", done.stdout, re.MULTILINE)
    return match.group(1) if match else None


def driver_version(root: Path | None = None) -> str | None:
    """The kernel driver's release, e.g. `580.65.06`; None where it does not say."""
    try:
        text = ((root or ROOT) / DRIVER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module[^\n]*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match.group(1) if match else None


def facts_file(engine: Path) -> Path:
    """`model.int8.plan` to `model.int8.json`."""
    return engine.with_suffix(".json")


def read_facts(engine: Path) -> dict[str, Any]:
    """What was kept when the engine was built. Raises BundleError without it."""
    path = facts_file(engine)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), str) for key in MUST_FIT):
        raise BundleError(f"{engine}: where this engine was built is not known: {path.name} beside "
                          "it is missing or damaged",
                          hint=f"build it here: {rebuild_command(engine)}")  # fmt: skip
    return facts


def misfit(
    engine: Path, built: dict[str, Any], trt: Any = None, cuda: _cuda.Cuda | None = None,
    index: int = 0,
) -> str:  # fmt: skip
    """Why an engine that was `built` so does not run here, in one line that names both; or "".

    Without `trt` and `cuda` only the host's name is compared.
    """
    here = facts_here(trt, cuda, index) if cuda else {**built, "host": host_name()}
    if all(built[key] == here[key] for key in MUST_FIT):
        return ""
    this = here["host"] if cuda is None else _place(here)
    return f"{engine.name} was built on {_place(built)}, this is {this}"


def why_not(engine: Path) -> str:
    """Why this engine does not run on this machine; "" if nothing is known against it."""
    try:
        built = read_facts(engine)
    except BundleError as error:
        return error.message
    reason = misfit(engine, built)
    if reason:
        return reason
    try:
        trt, cuda = import_tensorrt("runtime 'tensorrt'"), _cuda.load()
    except EdgekdError:  # what `probe` tells
        return ""
    return misfit(engine, built, trt, cuda)


def rebuild_command(engine: Path) -> str:
    """The command that builds an engine on this machine, from where it lies in its bundle."""
    folder = engine.parent.parent.parent  # bundle/tensorrt/<host>/model.<precision>.plan
    precision = engine.name.removeprefix("model.").removesuffix(".plan")
    return f"edgekd export {folder} --make tensorrt-{precision}"


def _place(facts: dict[str, Any]) -> str:
    return f"{facts['host']} ({facts['gpu']}, TensorRT {facts['tensorrt']})"

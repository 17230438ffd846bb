"""The package `tensorrt`, from 10.3 (JetPack 6) to 11.x, and what it writes to its log.

Between these versions flags and enum members went away and numbers of enums were given anew
(docs.nvidia.com/deeplearning/tensorrt, "Migrating from TensorRT 10.x to 11.x"). So everything here
and in the modules beside it is taken by name, and nothing is named that 11 no longer has.
"""

from __future__ import annotations

import platform
import re
from typing import Any

from edgekd.errors import MissingOnHost

OLDEST, TOO_NEW = (10, 3), (12,)
ON_JETSON = ("it comes with JetPack: sudo apt install python3-libnvinfer, and make the environment "
             "with `python3 -m venv --system-site-packages`")  # fmt: skip
ELSEWHERE = "pip install 'edgekd[tensorrt]'"


def install_hint() -> str:
    """How TensorRT gets onto a machine like this one."""
    return ON_JETSON if platform.machine() == "aarch64" else ELSEWHERE


def import_tensorrt(needed_by: str) -> Any:
    """The package `tensorrt`. Raises MissingOnHost without it, or for a version we do not know."""
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise MissingOnHost(f"{needed_by} needs the package '{error.name or 'tensorrt'}'",
                            hint=install_hint()) from None  # fmt: skip
    except Exception as error:  # a library of another version, a missing one, half an installation
        raise MissingOnHost(f"{needed_by}: TensorRT is installed but cannot be loaded: "
                            f"{first_line(error)}", hint=install_hint()) from None  # fmt: skip
    version = tuple(int(part) for part in re.findall(r"\d+", tensorrt.__version__)[:2])
    if not OLDEST <= version < TOO_NEW:
        raise MissingOnHost(f"{needed_by} works with TensorRT 10.3 to 11.x, here is "
                            f"{tensorrt.__version__}", hint=install_hint())  # fmt: skip
    return tensorrt


def make_log(trt: Any) -> Any:
    """A logger that writes nothing and keeps warnings and errors in its list `lines`.

    TensorRT tells the cause of a failure only to its logger; the calls return None or False. The
    logger must outlive whatever was made with it.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants it called by name
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                self.lines.append((severity.name, " ".join(msg.split())))

    return Log()


def why(log: Any) -> str:
    """The first error that a log holds: the others follow from it."""
    errors = [text for severity, text in log.lines if severity.endswith("ERROR")]
    return errors[0] if errors else "TensorRT gives no reason"


def start(factory: Any, log: Any) -> Any:
    """`trt.Builder(log)` or `trt.Runtime(log)`. Raises MissingOnHost where CUDA does not let it."""
    try:
        made = factory(log)
    except TypeError:  # pybind11's word for a null pointer
        made = None
    if made is None:
        raise MissingOnHost(f"TensorRT cannot start: {why(log)}", hint="edgekd doctor")
    return made


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

"""Keep OpenVINO from reporting usage over the network.

`import openvino` already sends an event, through the package `openvino_telemetry`; where that
cannot be imported OpenVINO falls back to a silent stub of its own. No environment variable turns
it off without changing other things, so it is made unimportable in this process.
"""

from __future__ import annotations

import sys
from typing import Any

from edgekd.plugins import missing_package

PACKAGE = "openvino_telemetry"


def telemetry_off() -> None:
    """Stop OpenVINO (and NNCF) from reporting usage. Call it before importing either."""
    loaded = sys.modules.get(PACKAGE)
    if loaded is None:
        sys.modules[PACKAGE] = None  # type: ignore[assignment]  # makes `import` fail
        return
    # Somebody imported it before us: silence the one class that sends.
    for name in ("start_session", "end_session", "send_event", "send_error", "send_stack_trace"):
        setattr(loaded.Telemetry, name, _silent)


def import_openvino() -> Any:
    """The package `openvino`, silenced. Raises MissingOnHost where it is not installed."""
    telemetry_off()
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "openvino", "runtime 'openvino'") from None
    return openvino


def _silent(*_: object, **__: object) -> None:
    """Stands in for every method that would send."""

"""The package `openvino`, which must not report usage over the network."""

from __future__ import annotations

from typing import Any

from edgekd.plugins import missing_package
from edgekd.quiet import telemetry_off


def import_openvino() -> Any:
    """The package `openvino`, silenced. Raises MissingOnHost where it is not installed."""
    telemetry_off()
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "openvino", "runtime 'openvino'") from None
    return openvino

"""ONNX to OpenVINO IR: translation only, the precision was decided in the ONNX file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekd.errors import BundleError
from edgekd.export.quiet import quiet
from edgekd.plugins import missing_package

RUNTIME = "openvino"  # the runtime plug-in that runs what is made here


def lower(source: Path, folder: Path, precision: str) -> list[Path]:
    """Write `folder`/openvino/model.<precision>.xml and .bin; returns both, the .xml first.

    Weights of an fp32 or int8 model are stored as they are, never rounded to fp16. Raises
    BundleError if OpenVINO cannot read `source` or lost a quantizer on the way, MissingOnHost
    without OpenVINO.
    """
    with quiet():
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "openvino", f"openvino-{precision}") from None
        try:
            model = openvino.convert_model(source)
        except Exception as error:
            raise BundleError(f"OpenVINO cannot read {source}: {error}") from error
        expected = _quantizers(source)
        found = sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
        if found != expected:
            raise BundleError(
                f"OpenVINO kept {found} of the {expected} activation quantizers of {source}; "
                "it would run partly in float"
            )
        target = folder / RUNTIME / f"model.{precision}.xml"
        target.parent.mkdir(parents=True, exist_ok=True)
        # Both files are written beside their place first: a full disk leaves no half pair.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".lower.") as scratch:
            draft = Path(scratch) / target.name
            try:
                openvino.save_model(model, draft, compress_to_fp16=precision == "fp16")
            except RuntimeError as error:  # OpenVINO's only error, also for a full disk
                raise OSError(f"{target} cannot be written: {error}") from error
            pair = [draft, draft.with_suffix(".bin")]
            return [_move(path, target.parent) for path in pair]


def _move(path: Path, folder: Path) -> Path:
    return path.replace(folder / path.name)


def _quantizers(source: Path) -> int:
    """How many activations the Q/DQ file quantizes (weights have a DequantizeLinear only)."""
    import onnx

    model: Any = onnx.load(source, load_external_data=False)
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)

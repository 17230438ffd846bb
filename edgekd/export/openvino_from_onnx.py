"""ONNX to OpenVINO IR: translation only, the precision was decided in the ONNX file."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from edgekd.errors import BundleError
from edgekd.plugins import missing_package
from edgekd.quiet import quiet

RUNTIME = "openvino"  # the runtime plug-in that runs what is made here
BOUNDARIES = {"Parameter", "Const", "Convert", "Result"}  # they compute nothing


def lower(source: Path, folder: Path, precision: str) -> list[Path]:
    """Write `folder`/openvino/model.<precision>.xml and .bin; returns both, the .xml first.

    Weights are stored as they are, never rounded to fp16: those of an fp16 model are halves
    already, and those that it keeps in fp32 it needs. Raises BundleError if OpenVINO cannot read
    `source` or lost a quantizer on the way, MissingOnHost without OpenVINO.
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
                openvino.save_model(model, draft, compress_to_fp16=False)
            except RuntimeError as error:  # OpenVINO's only error, also for a full disk
                raise OSError(f"{target} cannot be written: {error}") from error
            if precision == "fp16":
                mark_float(draft)
            pair = [draft, draft.with_suffix(".bin")]
            return [_move(path, target.parent) for path in pair]


def mark_float(path: Path) -> None:
    """Mark the operators of an .xml that compute in fp32, so that they do so under any hint.

    Asked for f16 arithmetic, OpenVINO runs every operator in it, whatever the casts in the file
    say, except those with the attribute `precise` (its own mark for what fp16 would ruin).
    """
    tree = xml.parse(path)
    for layer in tree.getroot().iterfind("layers/layer"):
        ports = layer.findall("output/port")
        if layer.get("type") in BOUNDARIES or not ports or ports[0].get("precision") != "FP32":
            continue
        facts = layer.find("rt_info")
        if facts is None:
            facts = xml.SubElement(layer, "rt_info")
        xml.SubElement(facts, "attribute", {"name": "precise", "version": "0"})
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _move(path: Path, folder: Path) -> Path:
    return path.replace(folder / path.name)


def _quantizers(source: Path) -> int:
    """How many activations the Q/DQ file quantizes (weights have a DequantizeLinear only)."""
    import onnx

    model: Any = onnx.load(source, load_external_data=False)
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)

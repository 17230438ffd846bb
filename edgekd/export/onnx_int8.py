"""ONNX fp32 to ONNX int8: every layer, one Q/DQ file for all runtimes."""

from __future__ import annotations

from pathlib import Path

from edgekd.export.given import Given, Made
from edgekd.export.quantize import finish, notes, quantize, read_float, save

NEEDS = frozenset({"training"})


def convert(source: Path, target: Path, given: Given) -> Made:
    """Quantize the model in `source` to `target`, with ranges seen on training images.

    Raises BundleError for a model that cannot be quantized, or if the result would not be legal,
    MissingOnHost without NNCF.
    """
    fp32 = read_float(source)
    squares = given.calibration()
    model = quantize(fp32, squares, artifact="onnx-int8")
    widened = finish(model, fp32)
    save(model, target)
    return Made(notes(model, len(squares), widened))

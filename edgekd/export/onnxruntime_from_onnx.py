"""Q/DQ ONNX to the form that ONNX Runtime is fast in: unsigned where nothing is negative.

ONNX Runtime fuses a convolution with the ReLU behind it into one integer operator only where the
quantizer itself cuts off below 0: uint8 with zero point 0. Behind a signed quantizer the
convolution stays in float, which made int8 slower than fp32. TensorRT reads no uint8, so this is
a file of its own, for this runtime alone.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import BundleError
from edgekd.export.signed import make_unsigned
from edgekd.rundir import replace_file

RUNTIME = "onnxruntime"
PRECISIONS = frozenset({"int8", "int8-aware", "mixed"})  # the others run as they are


def lower(source: Path, folder: Path, precision: str) -> list[Path]:
    """Write `folder`/onnxruntime/model.<precision>.onnx.

    Raises BundleError if the result is no valid model.
    """
    import onnx

    model = onnx.load(source)
    make_unsigned(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's errors share no base class
        raise BundleError(f"{source} has no form for ONNX Runtime: {error}") from error
    target = folder / RUNTIME / f"model.{precision}.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(target, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
    return [target]

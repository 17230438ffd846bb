"""Is this ONNX file legal for ONNX Runtime, OpenVINO and TensorRT alike?

The rules are those of TensorRT's Q/DQ parser, the strictest of the three (as documented in
NvInfer.h and for the ONNX parser, 10.3 to 11.x), and the bundle's own promises about the input and
the file. A float model has no quantizers, so only the latter concern it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError
from edgekd.export.half import HALF_TYPE, opset_of, slots, types_of
from edgekd.export.lint_quantizers import Quantizers

MIN_OPSET, MAX_OPSET = 13, 20  # per-channel Q/DQ came with 13; TensorRT 10.3 reads up to 20
MAX_IR = 10  # onnxruntime 1.23 and TensorRT 10.3
INTEGER_OPERATORS = frozenset({
    "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul",
})  # fmt: skip
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
REQUANTIZE = "quantize it again: edgekd import FLOAT.onnx --make onnx-int8"
HINTS = {  # rule -> what to do
    "opset": f"export it with opset_version=18, or convert it to one of {MIN_OPSET} to {MAX_OPSET}",
    "ir-version": f"save it with ir_version {MAX_IR}: onnx.save after model.ir_version = {MAX_IR}",
    "foreign-operator": "export it without that runtime's own operators or custom layers",
    "control-flow": "export it by tracing one path: the branch must not depend on the image",
    "not-qdq": "quantize in Q/DQ format (quant_format=QDQ in onnxruntime.quantization)",
    "external-data": "save it in one file: onnx.save(model, FILE, save_as_external_data=False)",
    "not-finite": "the training diverged or a cast overflowed: export it from a sound checkpoint",
    "float-types": "cast between fp16 and fp32: export the fp32 model and make onnx-fp16 of it",
    "static-batch": "export it with a dynamic batch axis; edgekd import makes it one where it can",
    "dynamic-axis": "export it for one image size; only the batch may be dynamic",
    "scale-constant": "fold constants before quantizing, so that Q and DQ read constants",
    "scale-positive": "quantize it again with calibration images that move every layer",
    "blocked": "quantize with one scale per tensor (activations) or per channel (weights)",
    "activation-per-channel": "quantize activations per tensor",
    "weight-axis": "quantize weights along their output channels",
    "zero-point-constant": "fold constants before quantizing, so that Q and DQ read constants",
    "zero-point": "quantize symmetrically, with all zero points 0",
    "signed-int8": "quantize to signed int8, activations too",
    "quantized-output": "leave the outputs of the network in float",
    "unpaired": "put a DequantizeLinear behind every QuantizeLinear",
    "pair-differs": REQUANTIZE,
    "residual-input": "quantize both inputs of a residual sum",
}


@dataclass(frozen=True)
class Problem:
    """One broken rule: `rule` is a stable name, `where` the node or tensor."""

    rule: str
    where: str
    message: str
    is_legal: bool = False  # it runs everywhere, but slower than it could

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"

    @property
    def hint(self) -> str:
        """What to do about it."""
        return HINTS[self.rule]


def check_qdq(path: Path) -> list[Problem]:
    """What makes one ONNX file illegal, in the order of the graph; empty when it is legal.

    Raises BundleError if the file is not a readable ONNX model.
    """
    return [problem for problem in lint(path) if not problem.is_legal]


def lint(path: Path) -> list[Problem]:
    """`check_qdq`, and after it what is legal but slow."""
    import onnx

    try:
        # External weights are a finding, so a missing weights file must not stop the check.
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise BundleError(f"no such model: {path}") from None
    except Exception as error:  # protobuf's DecodeError has no import path that is public
        raise BundleError(f"{path} is not a readable ONNX file: {error}") from None
    if not model.graph.node:
        raise BundleError(f"{path} is not an ONNX model: its graph is empty")
    quantizers = Quantizers(model)
    return [
        *_file_rules(model),
        *_type_rules(model),
        *(Problem(*found) for found in quantizers.problems()),
        *(Problem(*found, is_legal=True) for found in quantizers.slow()),
    ]


def _file_rules(model: Any) -> Iterator[Problem]:
    """Rules on the file as a whole: versions, self-containedness, the dynamic axis."""
    from onnx import TensorProto

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
                 0)  # fmt: skip
    if not MIN_OPSET <= opset <= MAX_OPSET:
        yield Problem("opset", "model", f"opset {opset}, must be {MIN_OPSET} to {MAX_OPSET}")
    if model.ir_version > MAX_IR:
        yield Problem("ir-version", "model", f"IR version {model.ir_version}, at most {MAX_IR}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            name = f"{node.domain}:{node.op_type}"
            yield Problem("foreign-operator", node.name or name, f"{name} is not standard ONNX")
        if node.op_type in CONTROL_FLOW:
            yield Problem("control-flow", node.name or node.op_type,
                          f"{node.op_type} decides at run time what is computed")  # fmt: skip
        if node.op_type in INTEGER_OPERATORS:
            yield Problem("not-qdq", node.name or node.op_type,
                          f"{node.op_type} computes in integers by itself; int8 is written as "
                          "QuantizeLinear and DequantizeLinear around float operators")  # fmt: skip
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield Problem("external-data", tensor.name, "the weights lie in another file")
        elif not _is_finite(tensor):
            yield Problem("not-finite", tensor.name, "some of these weights are NaN or infinite")
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            fixed = dimension.HasField("dim_value")
            if axis == 0 and fixed:
                yield Problem("static-batch", value.name,
                              f"the batch is fixed to {dimension.dim_value}")  # fmt: skip
            elif axis > 0 and not fixed:
                yield Problem("dynamic-axis", value.name,
                              f"axis {axis} is dynamic, only axis 0 may be")  # fmt: skip


def _type_rules(model: Any) -> Iterator[Problem]:
    """fp16 where an operator takes none, and fp16 beside fp32 where it takes one type.

    ONNX Runtime refuses to load either ("bound to different types", "type ... is invalid"), and
    so do OpenVINO and TensorRT's strongly typed networks, which insert no cast by themselves.
    """
    from onnx import TensorProto, shape_inference

    try:
        types = types_of(model)
    except shape_inference.InferenceError:  # then other rules say why
        return
    floats = {TensorProto.FLOAT: "tensor(float)", TensorProto.FLOAT16: HALF_TYPE}
    for node in model.graph.node if TensorProto.FLOAT16 in types.values() else ():
        where = node.name or node.op_type
        found: dict[str, set[str]] = {}
        for name, formal in zip(node.input, slots(node, opset_of(model))[0], strict=False):
            kind = floats.get(types.get(name, 0))
            if kind == HALF_TYPE and kind not in formal.types:
                yield Problem("float-types", where, f"{formal.name} of {node.op_type} must not be "
                              f"fp16 in opset {opset_of(model)}")  # fmt: skip
            elif kind is not None:
                found.setdefault(formal.type_str, set()).add(kind)
        if any(len(kinds) > 1 for kinds in found.values()):
            yield Problem("float-types", where, f"{node.op_type} reads fp16 and fp32")


def _is_finite(tensor: Any) -> bool:
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
    return tensor.data_type not in floats or bool(np.isfinite(numpy_helper.to_array(tensor)).all())

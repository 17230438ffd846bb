"""Is this ONNX file legal for ONNX Runtime, OpenVINO and TensorRT alike?

The rules are those of TensorRT's Q/DQ parser, the strictest of the three (as
documented in NvInfer.h and for the ONNX parser), and the bundle's own promises about the input
and the file. A float model has no quantizers, so only the latter concern it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError

MIN_OPSET, MAX_OPSET = 13, 20  # per-channel Q/DQ came with 13; TensorRT 10.3 reads up to 20
MAX_IR = 10  # onnxruntime 1.23 and TensorRT 10.3
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
INTEGER_OPERATORS = frozenset({
    "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul",
})  # fmt: skip
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}  # of a weight: where its output channels are


@dataclass(frozen=True)
class Problem:
    """One broken rule: `rule` is a stable name, `where` the node or tensor."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


def check_qdq(path: Path) -> list[Problem]:
    """All problems of one ONNX file, in the order of the graph; empty when it is legal.

    Raises BundleError if the file is not a readable ONNX model.
    """
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
    return [*_file_rules(model), *_Quantizers(model).problems()]


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
        if node.op_type in INTEGER_OPERATORS:
            yield Problem("not-qdq", node.name or node.op_type,
                          f"{node.op_type} computes in integers by itself; int8 is written as "
                          "QuantizeLinear and DequantizeLinear around float operators")  # fmt: skip
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield Problem("external-data", tensor.name, "the weights lie in another file")
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            fixed = dimension.HasField("dim_value")
            if axis == 0 and fixed:
                yield Problem("static-batch", value.name,
                              f"the batch is fixed to {dimension.dim_value}")  # fmt: skip
            elif axis > 0 and not fixed:
                yield Problem("dynamic-axis", value.name,
                              f"axis {axis} is dynamic, only axis 0 may be")  # fmt: skip


class _Quantizers:
    """The Q/DQ nodes of one graph, and where their scales and zero points come from."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        graph = model.graph
        self.nodes = [node for node in graph.node if node.op_type in QUANTIZERS]
        self.outputs = {value.name for value in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.tensors[node.output[0]] = attribute.t
        self.read = numpy_helper.to_array

    def problems(self) -> Iterator[Problem]:
        for node in self.nodes:
            where = node.name or node.output[0]
            for rule, message in (
                *self._scale(node), *self._zero_point(node), *self._place(node), *self._pair(node),
            ):  # fmt: skip
                yield Problem(rule, where, message)

    def _constant(self, name: str) -> Any | None:
        tensor = self.tensors.get(name)
        return None if tensor is None else self.read(tensor)

    def _is_weight(self, node: Any) -> bool:
        """A weight is a constant, quantized before (int8 -> DQ) or in the graph (Q -> DQ)."""
        return self._weight_name(node) in self.tensors

    def _scale(self, node: Any) -> Iterator[tuple[str, str]]:
        scale = self._constant(node.input[1])
        if scale is None:
            yield "scale-constant", "the scale is computed, it must be a constant"
            return
        if not (np.all(np.isfinite(scale)) and np.all(scale > 0)):
            yield "scale-positive", f"the scale must be above 0, found {float(np.min(scale)):g}"
        if scale.ndim > 1:
            yield "blocked", f"the scale has {scale.ndim} axes: blocked quantization"
        elif scale.size > 1:
            if not self._is_weight(node):
                found = f"an activation with {scale.size} scales"
                yield "activation-per-channel", f"{found}; activations are quantized per tensor"
            else:
                yield from self._axis(node)

    def _axis(self, node: Any) -> Iterator[tuple[str, str]]:
        found = next((a.i for a in node.attribute if a.name == "axis"), 1)
        rank = len(self.tensors[self._weight_name(node)].dims)
        found += rank if found < 0 else 0
        if node.op_type == "QuantizeLinear":
            return  # its DequantizeLinear is what an operator reads
        for user in self.users.get(node.output[0], []):
            expected = _channel_axis(user, node.output[0], rank)
            if expected is None:
                where = f"{user.op_type} reads a weight with a scale per channel"
                yield "weight-axis", f"{where}; only a convolution or matrix product may"
            elif expected != found:
                yield (
                    "weight-axis",
                    (
                        f"the weight of a {user.op_type} is quantized along axis {found}, "
                        f"its output channels are axis {expected}"
                    ),
                )

    def _pair(self, node: Any) -> Iterator[tuple[str, str]]:
        """A DequantizeLinear undoes the QuantizeLinear before it: the same scale, zero point."""
        maker = self.makers.get(node.input[0])
        if maker is None or (maker.op_type, node.op_type) != QUANTIZERS:
            return
        for index, what in ((1, "scale"), (2, "zero point")):
            ours, theirs = (
                self._constant(one.input[index]) if len(one.input) > index else None
                for one in (node, maker)
            )
            if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
                yield "pair-differs", f"its {what} is not that of the QuantizeLinear before it"

    def _weight_name(self, node: Any) -> str:
        """The float or int8 tensor behind `node`, past its QuantizeLinear if it is a DQ."""
        maker = self.makers.get(node.input[0])
        if maker is not None and (maker.op_type, node.op_type) == QUANTIZERS:
            node = maker
        return str(node.input[0])

    def _zero_point(self, node: Any) -> Iterator[tuple[str, str]]:
        from onnx import TensorProto

        if len(node.input) > 2 and node.input[2]:
            tensor = self.tensors.get(node.input[2])
            if tensor is None:
                yield "zero-point-constant", "the zero point is computed, it must be a constant"
                return
            kind = tensor.data_type
            if np.any(self.read(tensor)):
                yield "zero-point", "the zero point must be 0 (symmetric quantization)"
        elif node.op_type == "QuantizeLinear":
            # Without a zero point the type is the attribute `output_dtype`, by default uint8.
            kind = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i),
                        TensorProto.UINT8)  # fmt: skip
        else:
            tensor = self.tensors.get(node.input[0])
            if tensor is None:
                return  # its QuantizeLinear is checked on its own
            kind = tensor.data_type
        if kind != TensorProto.INT8:
            # int32 is how a bias is stored; TensorRT has no such type for it
            yield "signed-int8", f"quantized as {TensorProto.DataType.Name(kind)}, must be INT8"

    def _place(self, node: Any) -> Iterator[tuple[str, str]]:
        for name in node.output:
            if name in self.outputs:
                yield "quantized-output", f"the output '{name}' comes out of a {node.op_type}"
        if node.op_type == "QuantizeLinear":
            others = [u for u in self.users.get(node.output[0], [])
                      if u.op_type != "DequantizeLinear"]  # fmt: skip
            if others:
                yield "unpaired", f"{others[0].op_type} reads int8 without a DequantizeLinear"


def _channel_axis(user: Any, name: str, rank: int) -> int | None:
    """The axis of a weight along which `user` puts its output channels; None: not its weight."""
    if len(user.input) < 2 or user.input[1] != name:
        return None
    if user.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in user.attribute)
        return 0 if transposed else 1
    if user.op_type == "MatMul":
        return rank - 1
    return CHANNEL_AXIS.get(user.op_type)

"""The rules of lint.py on QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}  # of a weight: where its output channels are
# int8 passes through them unchanged, so a runtime moves quantizers across
TRANSPARENT = frozenset({
    "Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip


class Quantizers:
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
        # of activations: a bias is a constant
        self.sums = [
            node for node in graph.node
            if node.op_type == "Add" and not any(name in self.tensors for name in node.input)
        ]  # fmt: skip

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """(rule, node, message) of what is not legal."""
        for node in self.nodes:
            where = node.name or node.output[0]
            for rule, message in (
                *self._scale(node), *self._zero_point(node), *self._place(node), *self._pair(node),
            ):  # fmt: skip
                yield rule, where, message

    def slow(self) -> Iterator[tuple[str, str, str]]:
        """(rule, node, message) of what is legal but costs time: half-quantized residual sums."""
        for node in self.sums:
            is_int8 = [self._comes_from_int8(name) for name in node.input]
            if any(is_int8) and not all(is_int8):
                name = node.input[is_int8.index(False)]
                where = node.name or node.output[0]
                message = f"its input '{name}' is not quantized, the other is: it runs in float"
                yield "residual-input", where, message

    def _comes_from_int8(self, name: str) -> bool:
        maker = self.makers.get(name)
        while maker is not None and maker.op_type in TRANSPARENT:
            maker = self.makers.get(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

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

"""Parameters and multiply-accumulates of an ONNX graph, for a model that did not come from torch.

A network that edgekd trains is counted by fvcore's rules (docs/adr/0010), which papers use. An
imported file has no torch network, so its graph is counted: convolutions and matrix products
only. fvcore adds BatchNorm (which exporters fold into the convolutions) and pooling, so its figure
for the same network is a little larger, by about 1 to 5 %.
"""

from __future__ import annotations

import math
from typing import Any

from edgekd.export.adapt import OWN
from edgekd.export.foreign import constants

Shape = tuple[int, ...]


def count_params(model: Any) -> int:
    """Numbers in the float weights of an onnx.ModelProto, without mean and deviation of pixels.

    BatchNorm that is not folded counts with its running averages.
    """
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE)
    return sum(
        math.prod(tensor.dims)
        for name, tensor in constants(model.graph).items()
        if tensor.data_type in floats and not name.startswith(OWN)
    )


def count_macs(model: Any) -> int | None:
    """Multiply-accumulates of one image in Conv, ConvTranspose, Gemm and MatMul.

    `model` is an onnx.ModelProto whose inputs have a free axis 0 only. None where the shape of
    one of these cannot be inferred.
    """
    import onnx

    one = onnx.ModelProto()
    one.CopyFrom(model)
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del one.graph.value_info[:]
    for value in one.graph.output:
        value.type.tensor_type.ClearField("shape")  # the free axis would contradict the 1
    try:
        graph = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    except Exception:  # an InferenceError: then there is nothing to count by
        return None
    shapes = {name: tuple(tensor.dims) for name, tensor in constants(graph).items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _shape(value)
        if shape is not None:
            shapes[value.name] = shape
    total = 0
    for node in graph.node:
        counter = COUNTERS.get(node.op_type)
        if counter is None:
            continue
        left, right, result = (shapes.get(n) for n in (*node.input[:2], node.output[0]))
        if left is None or right is None or result is None:
            return None
        total += counter(node, left, right, result)
    return total


def _shape(value: Any) -> Shape | None:
    """The shape of a value, None unless every axis is known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)


def _conv(node: Any, image: Shape, weight: Shape, result: Shape) -> int:
    return math.prod(result) * math.prod(weight[1:])  # weight (out, in / groups, k, k)


def _deconv(node: Any, image: Shape, weight: Shape, result: Shape) -> int:
    return math.prod(image) * math.prod(weight[1:])  # weight (in, out / groups, k, k)


def _gemm(node: Any, left: Shape, right: Shape, result: Shape) -> int:
    is_transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(result) * left[0 if is_transposed else 1]


def _matmul(node: Any, left: Shape, right: Shape, result: Shape) -> int:
    return math.prod(result) * left[-1]


COUNTERS = {"Conv": _conv, "ConvTranspose": _deconv, "Gemm": _gemm, "MatMul": _matmul}

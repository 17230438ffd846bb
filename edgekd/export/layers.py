"""The layers of an ONNX graph that carry weights, and which of them a pass left in float."""

from __future__ import annotations

from typing import Any

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def weighted_layers(model: Any) -> list[Any]:
    """The convolutions and matrix products of a float model with constant weights, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in constants
    ]


def float_layers(quantized: Any, fp32: Any) -> list[str]:
    """Names of the weighted layers of `fp32` whose weights `quantized` keeps in float."""
    dequantized = {
        node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"
    }
    weights = {node.name: node.input[1] for node in quantized.graph.node if len(node.input) > 1}
    return [layer.name for layer in weighted_layers(fp32) if weights[layer.name] not in dequantized]


def in_float(quantized: Any, fp32: Any, name: str) -> Any:
    """A copy of `quantized` whose layer `name` has its float weights and an unquantized input.

    Its input stays quantized where another operator (a pooling, a reshape) lies between the
    quantizer and it.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    makers = {output: node for node in model.graph.node for output in node.output}
    node = next(entry for entry in model.graph.node if entry.name == name)
    origin = next(entry for entry in fp32.graph.node if entry.name == name)
    tensors = {tensor.name: tensor for tensor in fp32.graph.initializer}
    for index, value in enumerate(origin.input[1:], 1):
        if value not in tensors:
            continue
        copy = model.graph.initializer.add()  # bias correction has changed the one that is there
        copy.CopyFrom(tensors[value])
        copy.name = node.input[index] = f"{value}.float"
    back = makers.get(node.input[0])
    if back is not None and back.op_type == "DequantizeLinear":
        there = makers.get(back.input[0])
        if there is not None and there.op_type == "QuantizeLinear":
            node.input[0] = there.input[0]
    return model

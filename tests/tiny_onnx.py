"""Tiny ONNX models with fixed weights, in the form in which edgekd exports real ones.

`input` float32 (N, 3, S, S) in [0, 1] -> `logits` float32 (N, C), dynamic batch, opset 18, IR 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 18, 10
CHANNELS = 4


def write_classifier(path: Path, size: int = 16, classes: int = 3, *, seed: int = 0) -> Path:
    """A convolution, ReLU, average pooling and a linear layer."""
    return _write(path, size, classes, seed, is_quantized=False)


def write_int8_classifier(
    path: Path, size: int = 16, classes: int = 3, *, seed: int = 0, unsigned: bool = False
) -> Path:
    """The same network with symmetric Q/DQ around its convolution and its linear layer.

    Signed as edgekd exports it, or `unsigned` after the ReLU: TensorRT refuses that, and it is
    the only form in which ONNX Runtime runs a convolution before a ReLU in int8.
    """
    return _write(path, size, classes, seed, is_quantized=True, unsigned=unsigned)


def _write(
    path: Path, size: int, classes: int, seed: int, *, is_quantized: bool, unsigned: bool = False
) -> Path:
    random = np.random.default_rng(seed)
    conv = random.normal(0, 0.5, (CHANNELS, 3, 3, 3)).astype(np.float32)
    linear = random.normal(0, 1.0, (classes, CHANNELS)).astype(np.float32)
    weights = [numpy_helper.from_array(random.normal(0, 0.1, classes).astype(np.float32), "bias")]
    nodes = []

    def quantized(name: str, scale: float, kind: type[np.generic] = np.int8) -> str:
        """Append Q/DQ after the activation `name`."""
        if not is_quantized:
            return name
        weights.append(numpy_helper.from_array(np.float32(scale), f"{name}_scale"))
        weights.append(numpy_helper.from_array(kind(0), f"{name}_zero"))
        parameters = [f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_dq"])
        )
        return f"{name}_dq"

    def weight(name: str, values: np.ndarray) -> str:
        """Store a weight, as int8 per channel where the network is quantized."""
        if not is_quantized:
            weights.append(numpy_helper.from_array(values, name))
            return name
        scale = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
        shape = (-1,) + (1,) * (values.ndim - 1)
        levels = np.round(values / scale.reshape(shape)).astype(np.int8)
        weights.append(numpy_helper.from_array(levels, f"{name}_q"))
        weights.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        weights.append(numpy_helper.from_array(np.zeros(len(values), np.int8), f"{name}_zero"))
        names = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", names, [name], axis=0))
        return name

    image = quantized("input", 1 / 127)
    nodes.append(helper.make_node("Conv", [image, weight("conv", conv)], ["feature"],
                                  kernel_shape=[3, 3], pads=[1, 1, 1, 1]))  # fmt: skip
    nodes.append(helper.make_node("Relu", ["feature"], ["active"]))
    active = quantized("active", 6 / 127, np.uint8 if unsigned else np.int8)
    nodes.append(helper.make_node("GlobalAveragePool", [active], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    flat = quantized("flat", 4 / 127)
    nodes.append(helper.make_node("Gemm", [flat, weight("linear", linear), "bias"], ["logits"],
                                  transB=1))  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def write_identity(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """A model whose one input `x` has any shape and type: not one of ours."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path

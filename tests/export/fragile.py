"""A small network with one layer that int8 destroys."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16
CLASSES = 5
FRAGILE = "wide"  # the name of that layer


def write_fragile(path, *, spread=3000.0):
    """Three convolutions, pooling, a linear layer; `wide` writes one channel `spread` times larger.

    Its own activations go through one scale, so the small channels, which decide, are lost; the
    layer behind it takes the large channel out again.
    """
    random = np.random.default_rng(0)
    scale = np.ones(8)
    scale[0] = spread
    wide = random.normal(0, 0.4, (8, 8, 3, 3)) * scale[:, None, None, None]
    narrow = random.normal(0, 0.4, (8, 8, 1, 1)) / scale[None, :, None, None]
    constants = {
        "mean": np.full((1, 3, 1, 1), 0.5), "std": np.full((1, 3, 1, 1), 0.25),
        "w1": random.normal(0, 0.3, (8, 3, 3, 3)), "b1": random.normal(0, 0.1, 8),
        "w2": wide, "b2": np.zeros(8), "w3": narrow, "b3": random.normal(0, 0.1, 8),
        "w4": random.normal(0, 1.0, (CLASSES, 8)), "b4": np.zeros(CLASSES),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Sub", ["input", "mean"], ["centred"], name="centre"),
        make("Div", ["centred", "std"], ["normal"], name="scale"),
        make("Conv", ["normal", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name=FRAGILE, pads=[1] * 4),
        make("Conv", ["c2", "w3", "b3"], ["c3"], name="narrow"),
        make("Relu", ["c3"], ["r3"], name="relu3"),
        make("GlobalAveragePool", ["r3"], ["pooled"], name="pool"),
        make("Flatten", ["pooled"], ["flat"], name="flatten"),
        make("Gemm", ["flat", "w4", "b4"], ["logits"], name="linear", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def write_masks(path):
    """Two convolutions that answer per pixel: float32 (N, 3, H, W) to (N, 1, H, W)."""
    random = np.random.default_rng(0)
    constants = {
        "w1": random.normal(0, 0.4, (8, 3, 3, 3)), "b1": random.normal(0, 0.1, 8),
        "w2": random.normal(0, 0.4, (1, 8, 3, 3)), "b2": np.zeros(1),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Conv", ["input", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"], name="relu"),
        make("Conv", ["r1", "w2", "b2"], ["logits"], name="last", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes, "masks",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def squares(count, *, seed=0):
    """Pictures with some structure: random colours, four by four, enlarged."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)

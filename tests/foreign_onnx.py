"""ONNX classifiers as other people's exporters write them: what `edgekd import` has to adapt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES, WIDTH = 16, 3, 8


def write(
    path: Path,
    *,
    size: int | str = SIZE,
    classes: int = CLASSES,
    channels: int = 3,
    batch: int | str = "N",
    is_nhwc: bool = False,
    ending: Sequence[str] = (),
    extra: Sequence[str] = (),
    is_flattened: bool = True,
    opset: int = 18,
    ir: int = 10,
    weights_are_inputs: bool = False,
) -> Path:
    """Conv, BatchNorm, Relu, depthwise Conv, average pool, Reshape, Gemm.

    `ending` are operators after the logits, `extra` tensors that are outputs too (`values` is
    the name of the logits, `feature` of a map before). A fixed `batch` is written into the
    Reshape, as tracing does. Without `is_flattened` the head is a convolution: (N, C, 1, 1).
    With `weights_are_inputs` they are listed as such too, as before IR version 4.
    """
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> str:
        values = random.normal(0, 0.4, shape).astype(np.float32)
        values = np.abs(values) + 0.5 if name == "var" else values
        weights.append(numpy_helper.from_array(values, name))
        return name

    weights: list[Any] = []
    nodes = []

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    here = "picture"
    if is_nhwc:
        here = add("Transpose", [here], "planes", perm=[0, 3, 1, 2])
    here = add("Conv", [here, weight("first", WIDTH, channels, 3, 3)], "one", strides=[2, 2],
               pads=[1, 1, 1, 1])  # fmt: skip
    norm = [weight(name, WIDTH) for name in ("gain", "shift", "mean", "var")]
    here = add("Relu", [add("BatchNormalization", [here, *norm], "two")], "three")
    here = add("Conv", [here, weight("second", WIDTH, 1, 3, 3)], "feature", group=WIDTH,
               pads=[1, 1, 1, 1])  # fmt: skip
    here = add("GlobalAveragePool", [here], "pooled")
    if is_flattened:
        first = batch if isinstance(batch, int) else 0
        weights.append(numpy_helper.from_array(np.array([first, -1], dtype=np.int64), "shape"))
        here = add("Reshape", [here, "shape"], "flat")
        inputs = [here, weight("linear", classes, WIDTH), weight("bias", classes)]
        here = add("Gemm", inputs, "values", transB=1)
    else:
        here = add("Conv", [here, weight("linear", classes, WIDTH, 1, 1)], "values")
    for number, operator in enumerate(ending):
        axis = {"axis": 1} if operator in ("Softmax", "LogSoftmax", "Flatten") else {}
        here = add(operator, [here], f"end{number}", **axis)
    is_flat = is_flattened or "Flatten" in ending
    outputs = {here: 2 if is_flat else 4} | {n: 4 if n == "feature" else 2 for n in extra}
    sides: list[int | str] = [size, size] if isinstance(size, int) else [size, f"{size}2"]
    listed = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
              for tensor in weights if weights_are_inputs]  # fmt: skip
    shape = [batch, *sides, channels] if is_nhwc else [batch, channels, *sides]
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape), *listed],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
         for name, rank in outputs.items()],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir,
                              producer_name="somebody")  # fmt: skip
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def change(path: Path, edit: Any) -> Path:
    """Load, edit in place, save."""
    model = onnx.load(path)
    edit(model)
    onnx.save(model, str(path))
    return path


def run(path: Path, images: np.ndarray, name: str | None = None) -> np.ndarray:
    """Output `name` (the first) of the file for images as it wants them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [name] if name else None
    return session.run(names, {session.get_inputs()[0].name: images})[0]

"""How large the tensors inside a float model become."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.export.half import types_of
from edgekd.image import UInt8, to_input

BATCH = 8


def magnitudes(model: Any, squares: UInt8) -> dict[str, float]:
    """The largest |x| of every fp32 tensor that a node computes, over images (N, S, S, 3).

    Runs the onnx.ModelProto in ONNX Runtime. The maxima are taken inside the graph, so that no
    feature map leaves it: all of them at once would not fit into memory. Raises onnxruntime's
    own errors for a model that it cannot run.
    """
    import onnxruntime
    from onnx import ModelProto, TensorProto, helper

    probe = ModelProto()
    probe.CopyFrom(model)
    graph, types = probe.graph, types_of(model)
    names = [output for node in model.graph.node for output in node.output
             if types.get(output) == TensorProto.FLOAT]  # fmt: skip
    del graph.output[:]
    for index, name in enumerate(names):
        size, largest = f"edgekd.abs.{index}", f"edgekd.max.{index}"
        graph.node.append(helper.make_node("Abs", [name], [size], name=size))
        graph.node.append(helper.make_node("ReduceMax", [size], [largest], name=largest,
                                           keepdims=0))  # fmt: skip
        graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns of what it cannot fold
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = np.zeros(len(names), dtype=np.float32)
    for start in range(0, len(squares), BATCH):
        images = to_input(squares[start : start + BATCH])
        seen = session.run(None, {model.graph.input[0].name: images})
        found = np.maximum(found, np.array(seen, dtype=np.float32))  # passes NaN on
    return {name: float(value) for name, value in zip(names, found, strict=True)}

"""Make every quantizer of an ONNX model signed int8 with zero point 0.

NNCF quantizes what follows a ReLU as uint8, and offers no working public switch against it
(`signedness_to_force` contradicts its own table of what the hardware can do). TensorRT takes
signed symmetric int8 only.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edgekd.errors import BundleError

# uint8 with zero point 0 covers [0, 255 s]; int8 covers [0, 127 s'] of it: s' = s * 255 / 127
WIDEN = np.float32(255.0 / 127.0)
WIDENED = "edgekd.widened"  # metadata: the names of the scales that were made so


def make_signed(model: Any) -> int:
    """Rewrite uint8 Q/DQ (zero point 0) of an onnx.ModelProto in place; returns how many Q.

    Costs one bit of resolution on those tensors. Raises BundleError for a zero point that is not
    0: such a quantizer has no symmetric equivalent.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[tuple[str, str], tuple[str, str]] = {}
    rewritten = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = node.input[1], node.input[2]
        if zero not in constants or constants[zero].data_type != TensorProto.UINT8:
            continue
        if np.any(numpy_helper.to_array(constants[zero])):
            raise BundleError(f"{node.name}: a uint8 quantizer with a zero point other than 0")
        if (scale, zero) not in renamed:
            # New names: one scale may be shared with a quantizer that is signed already.
            names = f"{scale}_int8", f"{zero}_int8"
            wide = numpy_helper.to_array(constants[scale]) * WIDEN
            zeros = np.zeros(numpy_helper.to_array(constants[zero]).shape, dtype=np.int8)
            graph.initializer.append(numpy_helper.from_array(wide.astype(np.float32), names[0]))
            graph.initializer.append(numpy_helper.from_array(zeros, names[1]))
            renamed[scale, zero] = names
        node.input[1], node.input[2] = renamed[scale, zero]
        rewritten += node.op_type == "QuantizeLinear"
    # The recorded types of the rewritten tensors still say uint8; ONNX Runtime refuses that.
    del graph.value_info[:]
    _drop_unused(graph)
    if renamed:
        scales = sorted(scale for scale, _ in renamed.values())
        model.metadata_props.add(key=WIDENED, value=json.dumps(scales))
    return rewritten


def make_unsigned(model: Any) -> int:
    """Undo `make_signed` in place, with the bit that it cost; returns how many Q it rewrote."""
    from onnx import numpy_helper

    graph = model.graph
    noted = next((entry.value for entry in model.metadata_props if entry.key == WIDENED), "[]")
    widened = set(json.loads(noted))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, tuple[str, str]] = {}
    rewritten = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if scale not in widened:
            continue
        if scale not in renamed:
            names = f"{scale}_uint8", f"{zero}_{scale}_uint8"
            fine = numpy_helper.to_array(constants[scale]) / WIDEN
            zeros = np.zeros(numpy_helper.to_array(constants[zero]).shape, dtype=np.uint8)
            graph.initializer.append(numpy_helper.from_array(fine.astype(np.float32), names[0]))
            graph.initializer.append(numpy_helper.from_array(zeros, names[1]))
            renamed[scale] = names
        node.input[1], node.input[2] = renamed[scale]
        rewritten += node.op_type == "QuantizeLinear"
    del graph.value_info[:]
    _drop_unused(graph)
    return rewritten


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)

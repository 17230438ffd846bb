"""Rewrite an fp32 ONNX graph so that its nodes compute in fp16, but for those that are named.

ONNX Runtime's own converter (`onnxruntime.transformers.float16`, 1.31) is not used: it casts
between two nodes that stay in fp32 down to fp16 and up again, which overflows just where a guard
stands; names the casts of two such nodes that read one tensor alike, so that ONNX Runtime refuses
the file; rounds a constant for both where an fp16 and an fp32 node share it; leaves the nodes
unsorted; clips weights silently; and puts its folder on `sys.path`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgekd.errors import BundleError

HALF_TYPE = "tensor(float16)"
LARGEST = float(np.finfo(np.float16).max)  # 65504


def name_nodes(model: Any) -> None:
    """Give every node of an onnx.ModelProto a name of its own, in place; good ones are kept."""
    seen = {node.name for node in model.graph.node}
    had: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in had:
            node.name = _unused(next(output for output in node.output if output), seen)
            seen.add(node.name)
        had.add(node.name)


def to_half(model: Any, kept: Collection[str]) -> Any:
    """An fp16 copy of an fp32 onnx.ModelProto; the nodes named in `kept` stay in fp32.

    Inputs and outputs keep their names and types, weights that only fp16 nodes read are stored as
    fp16, and each tensor is cast at most once. Whatever ONNX's schemas do not allow in fp16 (the
    scales of a Resize) and whatever declares its own type (a Cast) stays as it is. Raises
    BundleError for a weight beyond 65504 in a node that is not kept.
    """
    import onnx

    half = onnx.ModelProto()
    half.CopyFrom(model)
    name_nodes(half)
    lift_constants(half.graph)
    _Converter(half, kept).convert()
    name_nodes(half)  # the casts
    return half


def types_of(model: Any) -> dict[str, int]:
    """The element type of every tensor of an onnx.ModelProto, as far as ONNX can infer it."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def slots(node: Any, opset: int) -> tuple[list[Any], list[Any]]:
    """The formal parameter (of onnx.defs) of each input and of each output of a node.

    Empty lists for an operator that ONNX does not know.
    """
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return [], []
    return (_stretched(list(schema.inputs), len(node.input)),
            _stretched(list(schema.outputs), len(node.output)))  # fmt: skip


def opset_of(model: Any) -> int:
    """The version of the standard operators."""
    return next((int(e.version) for e in model.opset_import if e.domain in ("", "ai.onnx")), 1)


def _stretched(formal: list[Any], count: int) -> list[Any]:
    """The last parameter of a variadic operator stands for all that follow."""
    return (formal + formal[-1:] * count)[:count]


def lift_constants(graph: Any) -> None:
    """Turn Constant nodes into initializers, which can be stored as fp16."""
    from onnx import numpy_helper

    left = []
    for node in graph.node:
        attribute = node.attribute[0] if node.op_type == "Constant" else None
        if attribute is not None and attribute.name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
        elif attribute is not None and attribute.name in ("value_float", "value_floats"):
            value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            values = np.array(value, dtype=np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            left.append(node)
    del graph.node[:]
    graph.node.extend(left)


class _Converter:
    """One conversion in place: which tensors are fp16, and the casts where types meet."""

    def __init__(self, model: Any, kept: Collection[str]) -> None:
        from onnx import TensorProto

        self._graph = model.graph
        self._opset = opset_of(model)
        self._kept = kept
        self._float, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        self._types = types_of(model)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inner: dict[str, str] = {}  # outputs of the graph that are computed in fp16
        self._copies: dict[tuple[str, int], str] = {}  # (tensor, wanted type) -> its other name
        self._nodes: list[Any] = []

    def convert(self) -> None:
        graph = self._graph
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            inputs, results = self._half_slots(node)
            for index, name in enumerate(node.input):
                if self._types.get(name) in (self._float, self._half):
                    wanted = self._half if index in inputs else self._float
                    node.input[index] = self._as(self._inner.get(name, name), wanted)
            self._nodes.append(node)
            for index in results:
                name = node.output[index]
                if name in outputs:
                    self._inner[name] = self._new_name(name, self._half)
                    self._types[self._inner[name]] = self._half
                    node.output[index] = self._inner[name]
                else:
                    self._types[name] = self._half
        for name, inner in self._inner.items():
            self._nodes.append(self._cast(inner, name, self._float))
        nodes = list(self._nodes)
        del graph.node[:], graph.value_info[:]  # the types recorded there are fp32
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input} | outputs
        weights = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(weights)

    def _half_slots(self, node: Any) -> tuple[set[int], set[int]]:
        """Which inputs and outputs of a node become fp16, by the type variables of its schema."""
        if node.name in self._kept:
            return set(), set()
        formal_inputs, formal_outputs = slots(node, self._opset)
        inputs, bound = set(), set()
        for index, formal in enumerate(formal_inputs):
            is_float = self._types.get(node.input[index]) in (self._float, self._half)
            # a parameter of one fixed type has that for its type_str, others have a variable
            if is_float and HALF_TYPE in formal.types and len(formal.types) > 1:
                inputs.add(index)
                bound.add(formal.type_str)
        results = {index for index, formal in enumerate(formal_outputs)
                   if formal.type_str in bound and node.output[index]}  # fmt: skip
        declares = any(self._types.get(name) == self._float for name in node.output)
        if declares and not results:  # a Cast to fp32, say
            return set(), set()
        return inputs, results

    def _as(self, name: str, wanted: int) -> str:
        """The tensor `name` in the type `wanted`: itself, another copy of a weight, or a cast."""
        if self._types[name] == wanted:
            return name
        if (name, wanted) not in self._copies:
            other = self._copies[name, wanted] = self._new_name(name, wanted)
            self._types[other] = wanted
            if name in self._weights:
                self._graph.initializer.append(_as_half(self._weights[name], other))
            else:
                self._nodes.append(self._cast(name, other, wanted))
        return self._copies[name, wanted]

    def _cast(self, name: str, other: str, wanted: int) -> Any:
        from onnx import helper

        return helper.make_node("Cast", [name], [other], to=wanted)

    def _new_name(self, name: str, wanted: int) -> str:
        """A name that no tensor has yet."""
        return _unused(f"{name}_fp16" if wanted == self._half else f"{name}_fp32", self._types)


def _unused(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _as_half(tensor: Any, name: str) -> Any:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    if values.size and np.abs(values).max() > LARGEST:
        raise BundleError(f"{tensor.name}: {np.abs(values).max():.3g} is beyond what fp16 holds, "
                          f"{LARGEST:.0f}")  # fmt: skip
    return numpy_helper.from_array(values.astype(np.float16), name)

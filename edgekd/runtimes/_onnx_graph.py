"""What an ONNX file holds, read from its bytes.

A device has ONNX Runtime but not the package `onnx`, and ONNX Runtime does not say which
operators a model has. The few fields needed are walked in protobuf's wire format; weights are
passed over, never copied.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.errors import BundleError

Bytes = mmap.mmap | bytes

# Field numbers of onnx.proto.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT = 1, 5, 11
NODE_INPUT, NODE_OUTPUT, NODE_OP_TYPE, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT = 1, 3
TENSOR_TYPE, TENSOR_NAME = 2, 8
INFO_NAME, INFO_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_ELEMENT = 1
SHAPE_OF_TENSOR = 2
SHAPE_DIM = 1
DIM_VALUE, DIM_PARAM = 1, 2

FLOAT, FLOAT16 = 1, 10  # of TensorProto.DataType
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


@dataclass
class OnnxGraph:
    """Operators, inputs (a symbolic dimension by its name) and bytes of weights by type."""

    ops: Counter[str] = field(default_factory=Counter)
    half_ops: Counter[str] = field(default_factory=Counter)  # those that read float16
    inputs: dict[str, list[int | str]] = field(default_factory=dict)
    weight_bytes: Counter[int] = field(default_factory=Counter)

    @property
    def is_quantized(self) -> bool:
        return bool(self.ops["QuantizeLinear"] or self.ops["DequantizeLinear"])

    @property
    def is_half(self) -> bool:
        """Most of the weights are float16."""
        return 2 * self.weight_bytes[FLOAT16] > self.weight_bytes.total()


def read_graph(path: Path) -> OnnxGraph:
    """Read one ONNX file. Raises BundleError if it is missing, truncated or not ONNX."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _graph(data)
    except FileNotFoundError:
        raise BundleError(f"no such model file: {path}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, IndexError):  # an empty file cannot be mapped: ValueError too
        raise BundleError(f"{path} is not an ONNX model, or it is truncated",
                          hint="copy or export the file again") from None  # fmt: skip


def _graph(data: Bytes) -> OnnxGraph:
    found = OnnxGraph()
    graphs = [value for number, value in _fields(data, 0, len(data)) if number == MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError("not one graph")
    weights = set()
    inputs = {}
    types: dict[str, int] = {}
    nodes = []
    for number, value in _fields(data, *_span(graphs[0])):
        if number == GRAPH_NODE:
            nodes.append(_span(value))
        elif number == GRAPH_INITIALIZER:
            start, end = _span(value)
            kind = _one(data, (start, end), TENSOR_TYPE)
            name = _text(data, _one(data, (start, end), TENSOR_NAME))
            types[name] = kind if isinstance(kind, int) else 0
            found.weight_bytes[types[name]] += end - start
            weights.add(name)
        elif number == GRAPH_INPUT:
            name, dims, kind = _input(data, _span(value))
            inputs[name], types[name] = dims, kind
    for span in nodes:
        _read_node(data, span, found, types)
    # old files list their weights among the inputs
    found.inputs = {name: dims for name, dims in inputs.items() if name not in weights}
    if not found.ops:
        raise ValueError("no operators")
    return found


def _read_node(data: Bytes, span: tuple[int, int], found: OnnxGraph, types: dict[str, int]) -> None:
    """Count one node, and pass on in `types` whether it computes in float32 or float16.

    No float operator that matters mixes the two, so that its inputs tell the type of its outputs.
    """
    texts: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: []}
    kind, to = "", 0
    for number, value in _fields(data, *span):
        if number in texts:
            texts[number].append(_text(data, value))
        elif number == NODE_OP_TYPE:
            kind = _text(data, value)
        elif number == NODE_ATTRIBUTE:
            integer = _one(data, _span(value), ATTRIBUTE_INT)
            name = _text(data, _one(data, _span(value), ATTRIBUTE_NAME))
            to = integer if name == "to" and isinstance(integer, int) else to
    read = {types.get(name) for name in texts[NODE_INPUT]}
    computes_in = FLOAT16 if FLOAT16 in read else FLOAT if FLOAT in read else 0
    for name in texts[NODE_OUTPUT]:
        types[name] = to if kind == "Cast" else computes_in
    found.ops[kind] += 1
    if computes_in == FLOAT16:
        found.half_ops[kind] += 1


def _input(data: Bytes, span: tuple[int, int]) -> tuple[str, list[int | str], int]:
    """Name, shape and element type of an input; an empty shape where none is given."""
    name = _text(data, _one(data, span, INFO_NAME))
    place: int | tuple[int, int] | None = span
    element = 0
    for number in (INFO_TYPE, TYPE_TENSOR, SHAPE_OF_TENSOR):
        if number == SHAPE_OF_TENSOR:
            found = _one(data, _span(place), TENSOR_ELEMENT)
            element = found if isinstance(found, int) else 0
        place = _one(data, _span(place), number)
        if place is None:  # no shape is given
            return name, [], element
    dims: list[int | str] = []
    for number, value in _fields(data, *_span(place)):
        if number == SHAPE_DIM:
            size = _one(data, _span(value), DIM_VALUE)
            dims.append(size if isinstance(size, int)
                        else _text(data, _one(data, _span(value), DIM_PARAM)))  # fmt: skip
    return name, dims, element


def _one(data: Bytes, span: tuple[int, int], wanted: int) -> int | tuple[int, int] | None:
    for number, value in _fields(data, *span):
        if number == wanted:
            return value
    return None


def _span(value: int | tuple[int, int] | None) -> tuple[int, int]:
    if not isinstance(value, tuple):
        raise ValueError("a message was expected")
    return value


def _text(data: Bytes, value: int | tuple[int, int] | None) -> str:
    return "" if value is None else bytes(data[slice(*_span(value))]).decode()


def _fields(data: Bytes, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield (field number, number or span of bytes) of one message."""
    place = start
    while place < end:
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == LENGTH:
            size, place = _varint(data, place)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or place + size > end:
            raise ValueError("a field runs over its end")
        yield number, (place, place + size)
        place += size
    if place != end:
        raise ValueError("a field runs over its end")


def _varint(data: Bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a number without an end")

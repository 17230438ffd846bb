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
NODE_OP_TYPE = 4
TENSOR_TYPE, TENSOR_NAME = 2, 8
INFO_NAME, INFO_TYPE = 1, 2
TYPE_TENSOR = 1
SHAPE_OF_TENSOR = 2
SHAPE_DIM = 1
DIM_VALUE, DIM_PARAM = 1, 2

FLOAT16 = 10  # TensorProto.FLOAT16
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


@dataclass
class OnnxGraph:
    """Operators, inputs (a symbolic dimension by its name) and bytes of weights by type."""

    ops: Counter[str] = field(default_factory=Counter)
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
    for number, value in _fields(data, *_span(graphs[0])):
        if number == GRAPH_NODE:
            found.ops[_text(data, _one(data, _span(value), NODE_OP_TYPE))] += 1
        elif number == GRAPH_INITIALIZER:
            start, end = _span(value)
            kind = _one(data, (start, end), TENSOR_TYPE)
            found.weight_bytes[kind if isinstance(kind, int) else 0] += end - start
            weights.add(_text(data, _one(data, (start, end), TENSOR_NAME)))
        elif number == GRAPH_INPUT:
            name, dims = _input(data, _span(value))
            inputs[name] = dims
    # old files list their weights among the inputs
    found.inputs = {name: dims for name, dims in inputs.items() if name not in weights}
    if not found.ops:
        raise ValueError("no operators")
    return found


def _input(data: Bytes, span: tuple[int, int]) -> tuple[str, list[int | str]]:
    name = _text(data, _one(data, span, INFO_NAME))
    place: int | tuple[int, int] | None = span
    for number in (INFO_TYPE, TYPE_TENSOR, SHAPE_OF_TENSOR):
        place = _one(data, _span(place), number)
        if place is None:  # no shape is given
            return name, []
    dims: list[int | str] = []
    for number, value in _fields(data, *_span(place)):
        if number == SHAPE_DIM:
            size = _one(data, _span(value), DIM_VALUE)
            dims.append(size if isinstance(size, int)
                        else _text(data, _one(data, _span(value), DIM_PARAM)))  # fmt: skip
    return name, dims


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

"""Somebody's ONNX file: read whole, and refused with a reason where no bundle can be made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from edgekd.errors import BundleError, EdgekdError
from edgekd.export.lint import INTEGER_OPERATORS
from edgekd.export.lint_quantizers import QUANTIZERS
from edgekd.plugins import missing_package
from edgekd.rundir import sha256
from edgekd.runtimes._onnx_graph import OnnxGraph, read_graph

Layout = Literal["NCHW", "NHWC"]
STANDARD = ("", "ai.onnx")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
OTHERS = (".h5", ".keras", ".tflite", ".pb", ".xml", ".engine", ".mlmodel")
TO_ONNX = ("torch.onnx.export(model.eval(), (images,), 'model.onnx', dynamo=True, "
           "dynamic_shapes=({0: 'batch'},)) writes one")  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """An ONNX file with one image input and float32 arithmetic."""

    path: Path
    model: Any  # onnx.ModelProto; its weights are in it, functions are written out
    sha256: dict[str, str]  # of the file, and of those beside it that hold its weights, by name
    input: str
    dims: tuple[int, ...]  # (N, ., ., .) of the input, -1 where open
    notes: list[str] = field(default_factory=list)  # what reading it in changed

    @property
    def opset(self) -> int:
        return next(int(e.version) for e in self.model.opset_import if e.domain in STANDARD)


def read_foreign(path: Path) -> Foreign:
    """Read and check an ONNX file with the weights beside it.

    Raises BundleError for what is no whole ONNX file, weights outside its folder, operators
    outside the standard, quantized or half-precision models, and inputs other than one float32
    (N, ., ., .); MissingOnHost without the package onnx.
    """
    _whole(path)
    onnx = import_onnx()
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no import path that is public
        raise BundleError(f"{path} is not a readable ONNX file: {first_line(error)}") from None
    notes = []
    if model.functions:
        model = _inlined(model, path)
        notes.append("its local functions are written out")
    _refuse(model, path)
    beside = _embed(model, path)
    if beside:
        notes.append(f"the weights in {', '.join(beside)} are inside the file now")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # a ValidationError, or ValueError beyond 2 GiB
        raise BundleError(f"{path} is not a valid ONNX model: {first_line(error)}",
                          hint="export it again") from None  # fmt: skip
    name, dims = _input(model, path)
    files = {path.name: sha256(path), **{n: sha256(path.parent / n) for n in beside}}
    return Foreign(path, model, files, name, dims, notes)


def import_onnx() -> Any:
    """The package onnx; raises MissingOnHost without it."""
    try:
        import onnx
        import onnx.checker
        import onnx.external_data_helper
        import onnx.inliner
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "onnx", "edgekd import") from None
    return onnx


def orient(file: Foreign, size: int) -> list[Layout]:
    """Where the channels can be, the likely place first; the file is open about it where two.

    Raises BundleError for pictures that are not RGB, not square or not of `size`.
    """
    _, *rest = file.dims
    found: list[Layout] = []
    if rest[0] in (3, -1) and (rest[0] == 3 or rest[2] != 3):
        found.append("NCHW")
    if rest[2] in (3, -1) and rest[0] != 3:
        found.append("NHWC")
    shape = f"'{file.input}' {shown(file.dims)}"
    if not found:
        grey = "1-channel pictures" if 1 in (rest[0], rest[2]) else "something else"
        raise BundleError(
            f"{file.path}: its input {shape} takes {grey}; a bundle's pictures are RGB, "
            "(N, 3, S, S)",
            hint="put a layer in front that makes its input of RGB, and export it again",
        )
    sides = [side for side in (rest[1:] if found[0] == "NCHW" else rest[:2]) if side > 0]
    if len(set(sides)) > 1:
        raise BundleError(f"{file.path}: its input {shape} is not square; edgekd's pictures are")
    if sides and sides[0] != size:
        raise BundleError(f"{file.path}: its input {shape} takes pictures of {sides[0]} pixels, "
                          f"asked was {size}", hint=f"--input-size {sides[0]}")  # fmt: skip
    return found


def fixed_size(path: Path) -> int | None:
    """The side of the square pictures that an ONNX file takes; None where it leaves that open.

    Raises BundleError for what is no whole ONNX file.
    """
    for dims in _whole(path).inputs.values():
        sides = dims[1:3] if len(dims) == 4 and dims[3] == 3 else dims[2:4]
        side = sides[0] if len(dims) == 4 and sides[0] == sides[1] else None
        if isinstance(side, int) and 0 < side < 1 << 16:
            return side
    return None


def graphs(graph: Any) -> Iterator[Any]:
    """The graph and every graph inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def tensors(model: Any) -> Iterator[Any]:
    """Every tensor that is stored in the file: initializers, and constants in nodes."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def constants(graph: Any) -> dict[str, Any]:
    """What is constant in a graph, by name: initializers, and the values of Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def printable(text: str) -> str:
    """With escapes for control characters: a stranger's file must not steer the terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_line(error: Exception) -> str:
    """The first line of somebody's error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shown(dims: tuple[int, ...]) -> str:
    """`(1, 3, 64, 64)`; an open axis is N in front and ? elsewhere."""
    names = [str(dim) if dim >= 0 else "?" if axis else "N" for axis, dim in enumerate(dims)]
    return f"({', '.join(names)})"


def _whole(path: Path) -> OnnxGraph:
    """What the file's bytes say; tells a missing, torn or other file apart without any package."""
    try:
        return read_graph(path)
    except BundleError as error:
        raise BundleError(error.message, hint=_instead(path) or error.hint) from None


def _instead(path: Path) -> str | None:
    """What to do with a file that is no ONNX file, by what it looks like."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # what torch.save writes
    if path.suffix.lower() in CHECKPOINTS or (is_zip and path.suffix.lower() not in OTHERS):
        return f"it looks like a checkpoint; an ONNX file is needed: {TO_ONNX}"
    if path.suffix.lower() in OTHERS:
        return "an ONNX file is needed: export the model to ONNX where it was made"
    return None


def _inlined(model: Any, path: Path) -> Any:
    onnx = import_onnx()
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # a C++ exception
        raise BundleError(f"{path}: its local functions cannot be written out: "
                          f"{first_line(error)}") from None  # fmt: skip


def _refuse(model: Any, path: Path) -> None:
    """Foreign operators, quantized models and half precision, by name."""
    from onnx import TensorProto

    as_it_is = f"`edgekd bench {path}` measures it as it is"
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    foreign = {f"{n.domain}:{n.op_type}" for n in nodes if n.domain not in STANDARD}
    if foreign:
        names = ", ".join(map(printable, sorted(foreign)))
        raise BundleError(
            f"{path} has operators outside standard ONNX: {names}",
            hint="export it without optimizations for one runtime, in standard operators",
        )
    quantized = {n.op_type for n in nodes} & {*QUANTIZERS, *INTEGER_OPERATORS}
    if quantized:
        raise BundleError(
            f"{path} is quantized already ({', '.join(sorted(quantized))}): quantization and its "
            "gate start from the fp32 model",
            hint=f"import the fp32 model; {as_it_is}",
        )
    half = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    kinds = [t.data_type for t in tensors(model)]
    kinds += [i.type.tensor_type.elem_type for i in model.graph.input]
    found = next((half[kind] for kind in kinds if kind in half), None)
    if found:
        raise BundleError(
            f"{path} is in {found}: a bundle starts from the fp32 model",
            hint=f"export it in float32; {as_it_is}",
        )


def _embed(model: Any, path: Path) -> list[str]:
    """Load weights that lie in other files of the same folder; their names."""
    from onnx.external_data_helper import load_external_data_for_tensor

    folder = path.parent
    beside: list[str] = []
    for tensor in tensors(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        name = next((e.value for e in tensor.external_data if e.key == "location"), "")
        place = PurePosixPath(name)
        file = folder / place
        escapes = place.is_absolute() or ".." in place.parts or "\\" in name
        if not name or escapes or not file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{path}: its weights are said to lie in '{name}', outside its "
                              "folder")  # fmt: skip
        if not file.is_file():
            raise BundleError(f"{path}: its weights lie in {name}, which is not beside it",
                              hint="copy both files")  # fmt: skip
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # what it raises differs between versions of onnx
            raise BundleError(
                f"{path}: its weights in {name} cannot be read: {first_line(error)}",
                hint="copy both files again",
            ) from None
        tensor.data_location = tensor.DEFAULT  # not every version of onnx does these two
        del tensor.external_data[:]
        if name not in beside:
            beside.append(name)
    return beside


def _input(model: Any, path: Path) -> tuple[str, tuple[int, ...]]:
    from onnx import TensorProto

    stored = {tensor.name for tensor in model.graph.initializer}  # listed as inputs in old files
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(f"'{value.name}'" for value in inputs) or "none"
        raise BundleError(f"{path} has {len(inputs)} inputs ({names}); a bundle's model has one, "
                          "the picture", hint="export the image network alone")  # fmt: skip
    kind = inputs[0].type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1
                 for d in kind.shape.dim)  # fmt: skip
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise BundleError(f"{path}: its input '{inputs[0].name}' is {name}, expected float32",
                          hint="export it with a float input")  # fmt: skip
    if len(dims) != 4:
        raise BundleError(f"{path}: its input '{inputs[0].name}' has the shape {shown(dims)}, "
                          "expected pictures (N, 3, S, S)")  # fmt: skip
    return inputs[0].name, dims


def check_packages() -> None:
    """Raise MissingOnHost unless onnx and onnxruntime are here, before anything is read."""
    import_onnx()
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        missing: EdgekdError = missing_package(error.name or "onnxruntime", "edgekd import")
        raise missing from None

"""Model files that are in no bundle: what their input is, and how they are described."""

from __future__ import annotations

from pathlib import Path

from edgekd.bundle import Artifact
from edgekd.errors import BundleError
from edgekd.runtimes._onnx_graph import read_graph
from edgekd.runtimes.base import Facts


def image_input(path: Path, facts: Facts) -> tuple[str, tuple[int, int, int]]:
    """Name and (channels, height, width) of a model's one image input, or a BundleError."""
    found = "; ".join(f"'{name}' {facts.types.get(name, '?')} {shape}"
                      for name, shape in facts.inputs.items()) or "no input"  # fmt: skip
    shapes = list(facts.inputs.values())
    fits = (
        len(shapes) == 1
        and len(shapes[0]) == 4
        and shapes[0][1] in (1, 3, 4)
        and min(shapes[0][1:]) > 0
        and next(iter(facts.types.values()), "").startswith("float")
    )
    if not fits:
        raise BundleError(f"{path}: found {found}; `edgekd bench` times models with one float "
                          "input of 4 dimensions (N, channels, height, width)")  # fmt: skip
    _, channels, height, width = shapes[0]
    return next(iter(facts.inputs)), (channels, height, width)


def describe(path: Path) -> Artifact:
    """Describe a model file that is in no bundle."""
    if path.suffix == ".onnx":
        graph = read_graph(path)
        precision = "int8" if graph.is_quantized else "fp16" if graph.is_half else "fp32"
        return Artifact(name=f"onnx-{precision}", file=path.name, files=[path.name],
                        runtime="onnxruntime", precision=precision)  # fmt: skip
    text = path.read_text(encoding="utf-8", errors="replace")
    precision = "int8" if "FakeQuantize" in text else "fp32"
    if 'element_type="f16"' in text and precision == "fp32":
        precision = "fp16"  # weights; the arithmetic is the device's choice
    files = [path.name, path.with_suffix(".bin").name]
    return Artifact(name=f"openvino-{precision}", file=path.name, files=files,
                    runtime="openvino", precision=precision)  # fmt: skip

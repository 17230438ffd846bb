"""The form in which every ONNX file of a bundle is written: ours, without anybody's paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.bundle import INPUT_NAME
from edgekd.rundir import replace_file

IR_VERSION = 10  # what onnx 1.16 wrote; the oldest runtimes we serve refuse files from their future


def tidy(model: Any, size: int) -> None:
    """Name the producer, the IR version and the input; drop what the exporter noted for itself.

    Exporters' per-node notes hold stack traces: paths of the workstation, and half of a small
    file. `model` is an onnx.ModelProto and is changed in place.
    """
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output,
                 *graph.initializer, *model.functions):  # fmt: skip
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
        part.doc_string = ""
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "edgekd", __version__
    model.ir_version = IR_VERSION
    shape = {"name": INPUT_NAME, "layout": "NCHW", "color": "RGB", "range": [0, 1], "size": size}
    for key, value in (("edgekd.version", __version__), ("edgekd.input", json.dumps(shape))):
        model.metadata_props.add(key=key, value=value)


def write(model: Any, path: Path) -> None:
    """Check the model in full and write it atomically, the same bytes for the same model."""
    import onnx

    onnx.checker.check_model(model, full_check=True)
    with replace_file(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))

"""A bundle made by hand, without torch: drawn lesions, a network with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.bundle import Artifact, Gate, Manifest, ModelFacts, Verdict, close_bundle
from edgekd.data.origin import digests
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.export.golden import FOLDER, write_golden
from edgekd.image import Float32
from edgekd.recipe_data import DataSpec, InputSpec
from tests.tiny_onnx import write_classifier, write_int8_classifier

CLASSES = ["none", "mild", "moderate", "severe"]  # those of the built-in data set
SIZE = 16
RECIPE = {"data": {"name": "synthetic", "params": {"images": 120, "size": 32}, "split": "official"}}


def gate(verdict: Verdict, accepted: str | None = None) -> Gate:
    return Gate(verdict=verdict, checks=[], images=24, groups=12, accepted_because=accepted)


def write_bundle(folder: Path, *, int8: Gate | None = None, openvino: bool = False) -> Manifest:
    """onnx-fp32, onnx-int8 and perhaps openvino-fp32; all gates passed, unless `int8` is given."""
    write_classifier(folder / "model.fp32.onnx", SIZE, len(CLASSES))
    write_int8_classifier(folder / "model.int8.onnx", SIZE, len(CLASSES))
    made = {
        "onnx-fp32": _artifact("onnx-fp32", "onnxruntime", "fp32", ["model.fp32.onnx"],
                               gate=gate("passed")),
        "onnx-int8": _artifact("onnx-int8", "onnxruntime", "int8", ["model.int8.onnx"],
                               made_from="onnx-fp32", gate=int8 or gate("passed")),
    }  # fmt: skip
    if openvino:
        files = write_ir(folder / "model.fp32.onnx", folder / "openvino" / "model.fp32.xml")
        names = [path.relative_to(folder).as_posix() for path in files]
        made["openvino-fp32"] = _artifact("openvino-fp32", "openvino", "fp32", names,
                                          made_from="onnx-fp32", gate=gate("passed"))  # fmt: skip
    spec = InputSpec(size=SIZE)
    write_golden(folder / FOLDER, spec, _network(folder / "model.fp32.onnx"))
    data = DataSpec.model_validate(RECIPE["data"])
    source = open_source(data)
    split = make_split(source, data.split, seed=0)
    manifest = Manifest(
        name="tiny", task="grading", primary="qwk", classes=CLASSES, input=spec,
        model=ModelFacts(name="student", arch="tiny", params=100, macs=1000, role="student"),
        opset=18, artifacts=made, recipe=RECIPE, provenance=digests(source, split),
    )  # fmt: skip
    return close_bundle(folder, manifest)


def write_ir(source: Path, target: Path) -> list[Path]:
    """Translate an ONNX file to OpenVINO's .xml and .bin."""
    from edgekd.runtimes._telemetry import import_openvino

    openvino = import_openvino()
    target.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)
    return [target, target.with_suffix(".bin")]


def _artifact(
    name: str, runtime: str, precision: str, files: list[str],
    made_from: str | None = None, gate: Gate | None = None,
) -> Artifact:  # fmt: skip
    return Artifact(name=name, file=files[0], files=files, runtime=runtime, precision=precision,
                    made_from=made_from, gate=gate)  # fmt: skip


def _network(path: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Float32) -> Float32:
        return np.asarray(session.run(None, {"input": inputs})[0], dtype=np.float32)

    return run

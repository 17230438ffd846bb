"""Model files for every runtime, made once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgekd.export.half import to_half
from tests.tiny_bundle import write_ir
from tests.tiny_onnx import write_classifier, write_int8_classifier

SIZE, CLASSES = 16, 3


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same network as fp32, int8 and fp16, each .onnx and .xml; and a .fake."""
    folder = tmp_path_factory.mktemp("models")
    write_ir(write_classifier(folder / "fp32.onnx", SIZE, CLASSES), folder / "fp32.xml")
    write_ir(write_int8_classifier(folder / "int8.onnx", SIZE, CLASSES), folder / "int8.xml")
    onnx.save(to_half(onnx.load(folder / "fp32.onnx"), ()), folder / "fp16.onnx")
    write_ir(folder / "fp16.onnx", folder / "fp16.xml")
    (folder / "fp32.fake").write_text("{}")
    return folder

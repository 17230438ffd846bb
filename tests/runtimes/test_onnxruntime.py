"""What is special about ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import BundleError
from edgekd.runtimes._onnx_graph import read_graph
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.onnxruntime import OnnxRuntime
from tests.tiny_onnx import write_classifier, write_identity, write_int8_classifier


def test_int8_is_what_ran_and_not_what_the_file_asks_for(tmp_path: Path) -> None:
    """A signed Q/DQ pair after a ReLU keeps ONNX Runtime from fusing the convolution."""
    signed = write_int8_classifier(tmp_path / "signed.onnx")
    unsigned = write_int8_classifier(tmp_path / "unsigned.onnx", unsigned=True)
    options = RunOptions(batch=1, precision="int8")
    with OnnxRuntime(signed, options) as runtime:
        assert runtime.facts.precision == "f32"
        assert runtime.facts.notes == [
            "ONNX Runtime runs 0 of 2 convolutions and matrix products in int8, 2 in float"
        ]
    with OnnxRuntime(unsigned, options) as runtime:
        assert runtime.facts.precision == "i8"


def test_a_fixed_batch_cannot_be_changed(tmp_path: Path) -> None:
    path = write_identity(tmp_path / "fixed.onnx", [4, 3, 8, 8])
    runtime = OnnxRuntime(path, RunOptions(batch=1))
    with pytest.raises(BundleError, match="fixed batch of 4, asked was 1") as caught, runtime:
        pass
    assert caught.value.hint == "--batch 4"


def test_a_truncated_model_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = write_classifier(tmp_path / "whole.onnx").read_bytes()
    for share in np.linspace(0.05, 0.98, 12):
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BundleError), OnnxRuntime(cut):
            pass


def test_the_graph_is_read_without_the_onnx_package(tmp_path: Path) -> None:
    path = write_int8_classifier(tmp_path / "model.onnx")
    code = ("import sys; sys.modules['onnx'] = None; from pathlib import Path; "
            "from edgekd.runtimes._onnx_graph import read_graph; "
            f"graph = read_graph(Path({str(path)!r})); "
            "print(graph.ops['Conv'], graph.inputs)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 {'input': ['N', 3, 16, 16]}\n"


def test_what_is_read_is_what_the_onnx_package_reads(tmp_path: Path) -> None:
    import onnx

    path = write_int8_classifier(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    graph = read_graph(path)
    assert graph.ops.total() == len(model.graph.node)
    assert set(graph.ops) == {node.op_type for node in model.graph.node}
    assert graph.is_quantized
    assert not graph.is_half
    assert set(graph.weight_bytes) == {tensor.data_type for tensor in model.graph.initializer}

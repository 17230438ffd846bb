"""What is special about OpenVINO: the precision it runs in, and what it must not do."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError
from edgekd.runtimes import openvino as module
from edgekd.runtimes._telemetry import import_openvino
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.onnxruntime import OnnxRuntime
from edgekd.runtimes.openvino import OpenVino


def test_fp32_means_f32(models: Path) -> None:
    """On processors with bfloat16 OpenVINO's own choice would be that."""
    images = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)
    with OpenVino(models / "fp32.xml", RunOptions(batch=1, precision="fp32")) as runtime:
        assert runtime.inspect().precision == "f32"
        assert runtime.facts.notes == []
        found = runtime.run({INPUT_NAME: images})[OUTPUT_NAME]
    with OnnxRuntime(models / "fp32.onnx") as runtime:
        expected = runtime.run({INPUT_NAME: images})[OUTPUT_NAME]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_int8_is_read_from_what_was_compiled(models: Path, suffix: str) -> None:
    with OpenVino(models / f"int8{suffix}", RunOptions(batch=1, precision="int8")) as runtime:
        assert runtime.inspect().precision == "i8"
        assert "layers that are not int8 run in f32" in runtime.facts.notes


def test_an_int8_artifact_that_runs_in_float_says_so(models: Path) -> None:
    with OpenVino(models / "fp32.xml", RunOptions(batch=1, precision="int8")) as runtime:
        assert runtime.inspect().precision == "f32"
        assert any("0 of 2" in note for note in runtime.facts.notes)


@pytest.mark.parametrize("precision", ["int8-aware", "mixed"])
def test_every_quantized_precision_is_told_like_int8(models: Path, precision: str) -> None:
    with OpenVino(models / "int8.xml", RunOptions(batch=1, precision=precision)) as runtime:
        assert runtime.inspect().precision == "i8"
        assert runtime.facts.notes == ["layers that are not int8 run in f32"]
    with OpenVino(models / "fp32.xml", RunOptions(batch=1, precision=precision)) as runtime:
        assert runtime.inspect().precision == "f32"
        assert any("0 of 2" in note for note in runtime.facts.notes)


def test_fp16_is_f16_where_the_processor_has_it(models: Path) -> None:
    able = "FP16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with OpenVino(models / "fp16.xml", RunOptions(batch=1, precision="fp16")) as runtime:
        assert runtime.inspect().precision == ("f16" if able else "f32")
        assert (runtime.facts.notes == []) is able


def test_an_fp16_onnx_file_runs_in_f32_because_its_casts_would_be_dropped(models: Path) -> None:
    with OpenVino(models / "fp16.onnx", RunOptions(batch=1, precision="fp16")) as runtime:
        assert runtime.inspect().precision == "f32"
        assert runtime.facts.notes == ["asked for f16 arithmetic, CPU uses f32"]


def test_an_fp16_artifact_that_runs_partly_in_float_says_so(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_arithmetic", lambda _: Counter(f16=3, f32=1, bf16=1))
    with OpenVino(models / "fp16.xml", RunOptions(batch=1, precision="fp16")) as runtime:
        monkeypatch.setattr(module, "_property", lambda *_: "f16")
        assert runtime.inspect().precision == "f16"
        assert runtime.facts.notes == [
            "OpenVINO runs 3 of 5 convolutions and matrix products in f16, 2 in bf16 and f32"
        ]


def test_weights_that_are_missing_or_cut_are_one_line(models: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.xml"
    model.write_bytes((models / "fp32.xml").read_bytes())
    with pytest.raises(BundleError, match=r"model\.xml: OpenVINO cannot load it"), OpenVino(model):
        pass
    model.with_suffix(".bin").write_bytes((models / "fp32.bin").read_bytes()[:40])
    with pytest.raises(BundleError) as caught, OpenVino(model):
        pass
    assert "\n" not in caught.value.message


def test_importing_openvino_sends_nothing() -> None:
    """Its telemetry package cannot be imported; any attempt at a connection would end this."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("tried to reach the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from edgekd.runtimes.openvino import OpenVino
assert OpenVino.probe().available
assert sys.modules["openvino_telemetry"] is None
print("silent")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "silent\n"
    assert done.stderr == ""


def test_a_probe_that_fails_says_why_in_the_words_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    reason = OpenVino.probe().reason
    assert "openvino" in reason
    assert "MissingOnHost" not in reason

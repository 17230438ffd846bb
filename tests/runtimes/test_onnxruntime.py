"""What is special about ONNX Runtime."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekd.errors import BundleError
from edgekd.runtimes import onnxruntime as module
from edgekd.runtimes._onnx_graph import OnnxGraph, read_graph
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.onnxruntime import OnnxRuntime
from tests.tiny_onnx import write_classifier, write_identity, write_int8_classifier


def test_int8_is_what_ran_and_not_what_the_file_asks_for(tmp_path: Path) -> None:
    """A signed Q/DQ pair after a ReLU keeps ONNX Runtime from fusing the convolution."""
    signed = write_int8_classifier(tmp_path / "signed.onnx")
    unsigned = write_int8_classifier(tmp_path / "unsigned.onnx", unsigned=True)
    options = RunOptions(batch=1, precision="int8")
    with OnnxRuntime(signed, options) as runtime:
        assert runtime.inspect().precision == "f32"
        assert runtime.facts.notes == [
            "ONNX Runtime runs 0 of 2 convolutions and matrix products in int8, 2 in float"
        ]
    with OnnxRuntime(unsigned, options) as runtime:
        assert runtime.inspect().precision == "i8"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="others have fp16 kernels")
def test_fp16_that_is_cast_to_float_is_told(models: Path) -> None:
    with OnnxRuntime(models / "fp16.onnx", RunOptions(batch=1, precision="fp16")) as runtime:
        assert runtime.inspect().precision == "f32"
        assert runtime.facts.notes == [
            "ONNX Runtime runs 2 of 2 convolutions and matrix products in float32"
        ]


@pytest.mark.parametrize(("half", "precision"), [(3, "f16"), (2, "f16"), (1, "f32")])
def test_what_most_of_an_fp16_model_runs_in(half: int, precision: str, models: Path) -> None:
    graph = OnnxGraph(ops=Counter(Conv=3), half_ops=Counter(Conv=half))
    runtime = OnnxRuntime(models / "fp16.onnx")
    runtime._say_precision(graph, "f16")
    assert runtime.facts.precision == precision
    full = f"ONNX Runtime runs {3 - half} of 3 convolutions and matrix products in float32"
    assert runtime.facts.notes == ([full] if half < 3 else [])


def test_which_operators_read_halves_is_read_from_the_file(models: Path) -> None:
    assert read_graph(models / "fp32.onnx").half_ops == Counter()
    assert read_graph(models / "fp16.onnx").half_ops == Counter(
        ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Cast"]
    )


def test_loading_an_int8_model_opens_one_session_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load time and peak memory are those of the model, not of edgekd's own inspection."""
    import onnxruntime

    opened: list[str] = []

    class Counted(onnxruntime.InferenceSession):
        def __init__(self, path: str, settings: Any, **options: Any) -> None:
            opened.append(settings.optimized_model_filepath)
            super().__init__(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    path = write_int8_classifier(tmp_path / "model.onnx")
    with OnnxRuntime(path, RunOptions(batch=1, precision="int8")) as runtime:
        assert opened == [""]
        runtime.inspect()
        runtime.inspect()
    assert len(opened) == 2
    assert opened[1].endswith(".onnx")


class Elsewhere:
    """ONNX Runtime as it is on a machine with another provider; remembers what it was told."""

    ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)
    __version__ = "1"

    def __init__(self, provider: str) -> None:
        self.told: list[Any] = []
        self._providers = [f"{provider}ExecutionProvider", "CPUExecutionProvider"]

    def get_available_providers(self) -> list[str]:
        return self._providers

    def SessionOptions(self) -> Any:
        return SimpleNamespace(add_free_dimension_override_by_name=lambda name, size: None)

    def InferenceSession(self, path: str, settings: Any, providers: list[Any]) -> Any:
        self.told.append(providers)
        return SimpleNamespace(get_providers=lambda: self._providers, get_inputs=list,
                               get_outputs=list)  # fmt: skip


def elsewhere(monkeypatch: pytest.MonkeyPatch, provider: str) -> Elsewhere:
    double = Elsewhere(provider)
    monkeypatch.setattr(module, "_import", lambda: double)
    return double


@pytest.mark.parametrize(
    ("device", "index"), [("cuda", {}), ("gpu", {}), ("cuda:1", {"device_id": "1"})]
)
def test_fp32_means_f32_on_cuda_and_not_tf32(
    device: str, index: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = elsewhere(monkeypatch, "CUDA")
    path = write_classifier(tmp_path / "model.onnx")
    with OnnxRuntime(path, RunOptions(device=device, batch=1)) as runtime:
        assert runtime.inspect().precision == "f32"
        assert runtime.facts.notes == []
    asked = ("CUDAExecutionProvider", {**index, "use_tf32": "0"})
    assert double.told == [[asked, "CPUExecutionProvider"]]


@pytest.mark.parametrize(
    ("provider", "is_int8"),
    [("Tensorrt", False), ("OpenVINO", False), ("CoreML", True), ("CUDA", True)],
)
def test_what_a_provider_does_not_say_is_not_known(
    provider: str, is_int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, provider)
    write = write_int8_classifier if is_int8 else write_classifier
    path = write(tmp_path / "model.onnx")
    with OnnxRuntime(path, RunOptions(device=provider, batch=1)) as runtime:
        assert runtime.inspect().precision == ""
        assert runtime.facts.notes == [
            f"the provider '{provider.lower()}' does not say in what precision it ran; the file "
            f"asks for {'i8' if is_int8 else 'f32'}"
        ]


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

"""The TensorRT runtime on doubles that are made of the real bindings, of 10.3 and the newest 11.x.

What a double cannot show (that the real library computes the right thing, how fast) is asked of
hardware: tests/hardware.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError, MissingOnHost
from edgekd.export.half import to_half
from edgekd.export.tensorrt_from_onnx import lower
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.onnxruntime import OnnxRuntime
from edgekd.runtimes.tensorrt import TensorRT
from tests.runtimes import test_contract as contract
from tests.runtimes.test_contract import images
from tests.runtimes.trt import api
from tests.runtimes.trt.here import machine
from tests.tiny_onnx import write_classifier, write_int8_classifier

NOTE = "CUDA graph {}; host memory page-locked and {}"
COPIED, IN_PLACE = "copied, inside the timed run", "read in place by the GPU"


@pytest.fixture(params=api.VERSIONS)
def world(request, tmp_path):
    with machine(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def engine(world, tmp_path) -> Path:
    return build(tmp_path / "bundle", "fp32")


def build(bundle: Path, precision: str) -> Path:
    bundle.mkdir(exist_ok=True)
    source = write_classifier(bundle / "model.fp32.onnx")
    if precision == "int8":
        source = write_int8_classifier(bundle / "model.int8.onnx")
    if precision == "fp16":
        onnx.save(to_half(onnx.load(source), ()), bundle / "model.fp16.onnx")
        source = bundle / "model.fp16.onnx"
    return lower(source, bundle, precision)[0]


def expected(engine: Path, batch: np.ndarray) -> np.ndarray:
    precision = engine.name.split(".")[1]
    with OnnxRuntime(engine.parents[2] / f"model.{precision}.onnx") as runtime:
        return runtime.run({INPUT_NAME: batch})[OUTPUT_NAME]


class TestContract:
    """What holds for every runtime, on an engine in the place of a model file."""

    @pytest.fixture
    def models(self, engine):
        for path in (engine, engine.with_suffix(".json")):
            path.rename(path.with_name(f"fp32{path.suffix}"))
        return engine.parent

    def test_all_of_it(self, models):
        for test in (
            contract.test_logits_for_images,
            contract.test_what_arithmetic_runs_is_told_when_asked,
            contract.test_outputs_own_their_memory,
            contract.test_inputs_are_left_alone,
            contract.test_the_batch_is_open_without_a_fixed_one,
            contract.test_nothing_is_written_beside_the_model,
        ):
            test("tensorrt", ".plan", models)

    def test_what_is_no_engine_is_one_line(self, world, tmp_path, capfd):
        contract.test_a_file_that_is_no_model_is_one_line(
            "tensorrt", ".plan", b"hello", tmp_path, capfd
        )
        contract.test_a_missing_file_is_named("tensorrt", ".plan", tmp_path)
        contract.test_probe_says_version_and_devices_or_why_not("tensorrt")


@pytest.mark.parametrize(("precision", "ran"), [("fp32", "f32"), ("fp16", "f16"), ("int8", "i8")])
def test_it_computes_the_file_and_says_in_what(world, tmp_path, precision, ran):
    engine = build(tmp_path / "bundle", precision)
    with TensorRT(engine, RunOptions(batch=2, precision=precision)) as runtime:
        logits = runtime.run({INPUT_NAME: images(2)})[OUTPUT_NAME]
        facts = runtime.inspect()
    np.testing.assert_allclose(logits, expected(engine, images(2)), rtol=1e-5, atol=1e-5)
    assert facts.precision == ran
    assert facts.device == "CUDA:0"
    assert facts.threads == 0


@pytest.mark.parametrize(
    ("device", "told", "graph", "memory", "copies"),
    [
        ("", "CUDA:0", "on", COPIED, True),
        ("cuda:0", "CUDA:0", "on", COPIED, True),
        ("gpu+nograph", "CUDA:0+nograph", "off", COPIED, True),
        ("cuda+mapped", "CUDA:0+mapped", "on", IN_PLACE, False),
        ("cuda+nograph+mapped", "CUDA:0+mapped+nograph", "off", IN_PLACE, False),
    ],
)
def test_the_switches_work_and_are_recorded(world, engine, device, told, graph, memory, copies):
    with TensorRT(engine, RunOptions(device=device, batch=1)) as runtime:
        world.cuda.calls.clear()
        for seed in (1, 2):
            given = images(1, seed=seed)
            logits = runtime.run({INPUT_NAME: given})[OUTPUT_NAME]
            np.testing.assert_allclose(logits, expected(engine, given), rtol=1e-5, atol=1e-6)
        assert runtime.facts.device == told
        assert runtime.facts.notes == [NOTE.format(graph, memory)]
    runs = world.cuda.calls[: world.cuda.calls.index("cudaStreamSynchronize") + 1]
    if graph == "on":
        assert runs == ["cudaGraphLaunch", "cudaStreamSynchronize"]
    else:
        assert runs == ["cudaMemcpyAsync"] * 2 * copies + ["cudaStreamSynchronize"]


def test_an_open_batch_has_no_graph_and_follows_the_pictures(world, engine):
    with TensorRT(engine) as runtime:
        assert runtime.facts.notes == [NOTE.format("off", COPIED)]
        for count in (3, 32, 1):
            logits = runtime.run({INPUT_NAME: images(count)})[OUTPUT_NAME]
            np.testing.assert_allclose(
                logits, expected(engine, images(count)), rtol=1e-5, atol=1e-6
            )
        with pytest.raises(BundleError, match="takes 1 to 32 pictures at once, asked was 33"):
            runtime.run({INPUT_NAME: images(33)})


def test_a_batch_that_the_engine_was_not_built_for(world, engine):
    with pytest.raises(BundleError, match="takes 1 to 32") as caught:
        TensorRT(engine, RunOptions(batch=64)).__enter__()
    assert caught.value.hint == "--batch 32"


def test_pictures_of_another_shape_are_not_computed(world, engine):
    with TensorRT(engine, RunOptions(batch=1)) as runtime:
        with pytest.raises(ValueError, match="expected"):
            runtime.run({INPUT_NAME: images(1)[:, :, :8]})
        with pytest.raises(ValueError, match="got 2 pictures, loaded for 1"):
            runtime.run({INPUT_NAME: images(2)})


def test_what_cannot_be_captured_runs_without_a_graph_and_says_so(world, engine):
    world.captures = False
    with TensorRT(engine, RunOptions(batch=1)) as runtime:
        (note,) = runtime.facts.notes
        assert "CUDA graph off (" in note
        assert "not permitted when stream is capturing" in note
        logits = runtime.run({INPUT_NAME: images(1)})[OUTPUT_NAME]
    np.testing.assert_allclose(logits, expected(engine, images(1)), rtol=1e-5, atol=1e-6)


def test_float_layers_of_an_int8_engine_are_told(world, tmp_path):
    engine = build(tmp_path / "bundle", "int8")
    world.builds_in = "f32"
    header, _, rest = engine.read_bytes().partition(b"\n")[2].partition(b"\n")
    forged = json.dumps({**json.loads(header), "builds_in": "f32"}).encode()
    engine.write_bytes(b"double of an engine\n" + forged + b"\n" + rest)
    with TensorRT(engine, RunOptions(batch=1, precision="int8")) as runtime:
        assert runtime.inspect().precision == "f32"


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(
    ("call", "code"),
    [("cudaMalloc", 2), ("cudaHostAlloc", 2), ("cudaStreamCreateWithFlags", 400),
     ("cudaSetDevice", 101)],
)  # fmt: skip
def test_what_was_taken_is_given_back_when_loading_fails(world, engine, call, code, batch):
    """`machine` looks for what is left when the test ends."""
    world.cuda.fails[call] = code
    with pytest.raises((MissingOnHost, RuntimeError), match=call):
        TensorRT(engine, RunOptions(batch=batch)).__enter__()


def test_a_failing_run_is_named(world, engine):
    with TensorRT(engine, RunOptions(batch=1, device="cuda+nograph")) as runtime:
        world.fails["IExecutionContext.execute_async_v3"] = "Cask convolution execution"
        with pytest.raises(RuntimeError, match="Cask convolution execution"):
            runtime.run({INPUT_NAME: images(1)})
        world.cuda.streams = {stream: [] for stream in world.cuda.streams}


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "cuda:x", "cuda+turbo"])
def test_a_device_that_is_not_here_lists_those_that_are(world, engine, device):
    with pytest.raises(MissingOnHost, match=r"no device.*it has: cuda:0") as caught:
        TensorRT(engine, RunOptions(device=device)).__enter__()
    assert caught.value.exit_code == 4


def test_the_power_mode_it_was_built_in_is_held_against_this_one(world, engine, tmp_path):
    status = tmp_path / "var/lib/nvpmodel/status"
    status.parent.mkdir(parents=True)
    status.write_text("pmode:0002\n")
    with TensorRT(engine, RunOptions(batch=1)) as runtime:
        assert runtime.facts.notes[1] == (
            "built in power mode None, runs in 2: other kernels may be faster"
        )


class TestElsewhere:
    """An engine is bound to the machine that built it."""

    @pytest.mark.parametrize(
        ("version", "host", "gpu", "words"),
        [
            ("cu12", "orin-2", "Orin", "built on orin-1 (Orin, TensorRT 10.3.0), this is orin-2"),
            ("cu13", "orin-1", "Orin", "TensorRT 10.3.0), this is orin-1 (Orin, TensorRT 11."),
            ("cu12", "orin-1", "Thor", "this is orin-1 (Thor, TensorRT 10.3.0)"),
        ],
    )  # fmt: skip
    def test_it_says_where_it_was_built_and_how_to_build_it_here(
        self, tmp_path, version, host, gpu, words
    ):
        with machine("cu12", tmp_path):
            engine = build(tmp_path / "bundle", "int8")
        with machine(version, tmp_path, host=host, name=gpu) as world:
            assert words in TensorRT.why_not(engine)
            with pytest.raises(MissingOnHost) as caught:
                TensorRT(engine).__enter__()
        assert words in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint == (
            f"build it here: edgekd export {tmp_path / 'bundle'} --make tensorrt-int8"
        )
        assert "Runtime" not in world.calls  # nothing of it was deserialized

    def test_here_nothing_is_said(self, world, engine):
        assert TensorRT.why_not(engine) == ""

    def test_without_tensorrt_the_name_of_the_host_is_compared(self, engine, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        assert TensorRT.why_not(engine) == ""  # `probe` tells what is missing
        monkeypatch.setenv("EDGEKD_HOST", "nano")
        assert TensorRT.why_not(engine).endswith("this is nano")

    @pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"host": 3}'])
    def test_without_its_facts_it_is_not_loaded(self, world, engine, content):
        facts = engine.with_suffix(".json")
        facts.unlink()
        if content is not None:
            facts.write_text(content)
        with pytest.raises(BundleError, match="where this engine was built is not known") as caught:
            TensorRT(engine).__enter__()
        assert caught.value.hint.startswith("build it here: edgekd export")
        assert "Runtime" not in world.calls[-1:]


class TestProbe:
    def test_version_and_devices(self, world):
        probe = TensorRT.probe()
        assert probe.available
        assert probe.version == world.facts["version"]
        assert probe.devices == ("cuda:0",)

    def test_why_not_is_one_line(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        probe = TensorRT.probe()
        assert not probe.available
        assert probe.reason == "runtime 'tensorrt' needs the package 'tensorrt'"

    def test_without_a_gpu(self, world, monkeypatch):
        def absent() -> None:
            raise MissingOnHost("no CUDA device can be used: ...")

        monkeypatch.setattr("edgekd.runtimes._cuda.load", absent)
        assert TensorRT.probe().reason.startswith("no CUDA device")

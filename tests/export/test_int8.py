"""NNCF's result, made legal: signed, symmetric, deterministic, close to the fp32 model."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BundleError
from edgekd.export import onnx_int8
from edgekd.export.lint import check_qdq
from edgekd.export.onnxruntime_from_onnx import lower as lower_for_onnxruntime
from edgekd.export.openvino_from_onnx import lower
from edgekd.export.signed import make_signed
from edgekd.image import to_input
from tests.export.passes import given
from tests.tiny_onnx import write_int8_classifier

SIZE = 16


def squares(count, *, seed=0):
    """Pictures with some structure: random colours, four by four, enlarged."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def write_normalized(path, *, first=("Sub", "Div")):
    """(x - mean) / std, Conv, Relu, depthwise Conv, Relu, residual Add, pool, Gemm."""
    random = np.random.default_rng(0)
    constants = {
        "mean": np.full((1, 3, 1, 1), 0.5), "std": np.full((1, 3, 1, 1), 0.25),
        "w1": random.normal(0, 0.3, (8, 3, 3, 3)), "b1": random.normal(0, 0.1, 8),
        "w2": random.normal(0, 0.4, (8, 1, 3, 3)), "b2": random.normal(0, 0.1, 8),
        "w3": random.normal(0, 1.0, (5, 8)), "b3": random.normal(0, 0.1, 5),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make(first[0], ["input", "mean"], ["centred"], name="centre"),
        make(first[1], ["centred", "std"], ["normal"], name="scale"),
        make("Conv", ["normal", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"], name="relu1"),
        make("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1] * 4, group=8),
        make("Relu", ["c2"], ["r2"], name="relu2"),
        make("Add", ["r1", "r2"], ["sum"], name="add"),
        make("GlobalAveragePool", ["sum"], ["pooled"], name="pool"),
        make("Flatten", ["pooled"], ["flat"], name="flatten"),
        make("Gemm", ["flat", "w3", "b3"], ["logits"], name="linear", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The fp32 file, the int8 file and the notes."""
    folder = tmp_path_factory.mktemp("int8")
    source = write_normalized(folder / "model.fp32.onnx")
    made = onnx_int8.convert(source, folder / "model.int8.onnx", given(squares(24)))
    return source, folder / "model.int8.onnx", made


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": images})[0]


def test_the_result_is_legal_everywhere(pair):
    assert check_qdq(pair[1]) == []


def test_every_quantizer_is_int8_with_zero_point_zero(pair):
    model = onnx.load(pair[1])
    zeros = {entry.input[2] for entry in model.graph.node if "Quantize" in entry.op_type}
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert {tensors[name].dtype.name for name in zeros} == {"int8"}
    assert not any(tensors[name].any() for name in zeros)


def test_it_computes_nearly_the_same_at_every_batch_size(pair):
    for count in (1, 2, 5, 24):
        images = to_input(squares(24)[:count])  # others may exceed the ranges that were seen
        expected, found = run(pair[0], images), run(pair[1], images)
        assert found.shape == (count, 5)
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_pixels_are_quantized_after_normalization(pair):
    """[0, 1] would leave the negative half of int8 unused."""
    first = [entry.op_type for entry in onnx.load(pair[1]).graph.node][:3]
    assert first == ["Sub", "Div", "QuantizeLinear"]


def test_normalization_stays_in_float_however_it_is_written(tmp_path):
    source = write_normalized(tmp_path / "model.onnx", first=("Add", "Mul"))
    onnx_int8.convert(source, tmp_path / "int8.onnx", given(squares(8)))
    first = [entry.op_type for entry in onnx.load(tmp_path / "int8.onnx").graph.node][:3]
    assert first == ["Add", "Mul", "QuantizeLinear"]


def test_weights_use_the_whole_range_of_int8(pair):
    """NNCF's default would halve the first layer's for old CPUs."""
    tensors = [numpy_helper.to_array(t) for t in onnx.load(pair[1]).graph.initializer]
    conv = next(t for t in tensors if t.dtype == np.int8 and t.shape == (8, 3, 3, 3))
    assert np.abs(conv.astype(int)).max() == 127


def test_the_same_images_give_the_same_bytes(pair, tmp_path):
    onnx_int8.convert(pair[0], tmp_path / "again.onnx", given(squares(24)))
    assert (tmp_path / "again.onnx").read_bytes() == pair[1].read_bytes()


def test_the_notes_say_what_was_done(pair):
    assert "ranges from 24 training images" in pair[2].notes[0]
    assert "made signed" in pair[2].notes[1]


def test_openvino_keeps_every_quantizer_and_agrees_with_onnx_runtime(pair, tmp_path):
    import openvino

    images = to_input(squares(16))
    quantizers = sum(n.op_type == "QuantizeLinear" for n in onnx.load(pair[1]).graph.node)
    for path, precision, limit in ((pair[0], "fp32", 1e-5), (pair[1], "int8", 0.05)):
        files = lower(path, tmp_path, precision)
        names = [f"openvino/model.{precision}{suffix}" for suffix in (".xml", ".bin")]
        assert [file.relative_to(tmp_path).as_posix() for file in files] == names
        model = openvino.Core().read_model(files[0])
        found = sum(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
        assert found == (quantizers if precision == "int8" else 0)
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        expected = run(path, images)
        gap = np.abs(compiled({"input": images})["logits"] - expected).max()
        assert gap <= limit * np.abs(expected).max()
    assert sorted(path.name for path in (tmp_path / "openvino").iterdir()) == [
        "model.fp32.bin", "model.fp32.xml", "model.int8.bin", "model.int8.xml",
    ]  # fmt: skip


def test_fp32_weights_are_not_rounded_to_fp16(pair, tmp_path):
    lower(pair[0], tmp_path, "fp32")
    stored = (tmp_path / "openvino" / "model.fp32.bin").read_bytes()
    weight = next(t for t in onnx.load(pair[0]).graph.initializer if t.name == "w3")
    assert numpy_helper.to_array(weight).tobytes() in stored


def test_what_openvino_cannot_read_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"OpenVINO cannot read .*broken\.onnx"):
        lower(path, tmp_path, "fp32")


class TestForOnnxRuntime:
    """uint8 where nothing is negative, which is what ONNX Runtime fuses."""

    @pytest.fixture
    def unsigned(self, pair, tmp_path):
        return lower_for_onnxruntime(pair[1], tmp_path, "int8")[0]

    def test_what_was_made_signed_is_unsigned_again(self, pair, unsigned):
        kinds = {
            tensor.data_type
            for tensor in onnx.load(unsigned).graph.initializer
            if tensor.name.endswith("_uint8") and "zero" in tensor.name
        }
        assert kinds == {TensorProto.UINT8}
        assert unsigned.parent.name == "onnxruntime"

    def test_it_is_no_further_from_fp32_than_the_signed_file(self, pair, unsigned):
        images = to_input(squares(24))
        exact = run(pair[0], images)
        signed, ours = (np.abs(run(path, images) - exact).max() for path in (pair[1], unsigned))
        assert ours <= 1.2 * signed

    def test_every_convolution_becomes_an_integer_one(self, pair, unsigned, tmp_path):
        counts = {}
        for name, path in (("signed", pair[1]), ("unsigned", unsigned)):
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
            options.log_severity_level = 3
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            nodes = onnx.load(options.optimized_model_filepath).graph.node
            counts[name] = sum(node.op_type == "QLinearConv" for node in nodes)
        assert counts == {"signed": 0, "unsigned": 2}

    def test_a_file_without_such_quantizers_stays_as_it_is(self, tmp_path):
        source = write_int8_classifier(tmp_path / "model.onnx")
        target = lower_for_onnxruntime(source, tmp_path, "int8")[0]
        ours, theirs = onnx.load(target).graph, onnx.load(source).graph
        assert ours.node == theirs.node
        assert ours.initializer == theirs.initializer


class TestMakeSigned:
    def test_unsigned_quantizers_keep_their_range(self, tmp_path):
        model = onnx.load(write_int8_classifier(tmp_path / "model.onnx"))
        for tensor in model.graph.initializer:
            if tensor.name == "flat_zero":
                tensor.CopyFrom(numpy_helper.from_array(np.uint8(0), "flat_zero"))
        assert make_signed(model) == 1
        tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert tensors["flat_scale_int8"] * 127 == pytest.approx(4 / 127 * 255)
        assert tensors["flat_zero_int8"].dtype == np.int8
        assert "flat_zero" not in tensors
        path = tmp_path / "signed.onnx"
        path.write_bytes(model.SerializeToString())
        assert check_qdq(path) == []

    def test_a_signed_model_stays_as_it_is(self, tmp_path):
        model = onnx.load(write_int8_classifier(tmp_path / "model.onnx"))
        before = model.SerializeToString(deterministic=True)
        assert make_signed(model) == 0
        assert model.SerializeToString(deterministic=True) == before

    def test_an_asymmetric_quantizer_has_no_signed_form(self, tmp_path):
        model = onnx.load(write_int8_classifier(tmp_path / "model.onnx"))
        for tensor in model.graph.initializer:
            if tensor.name == "flat_zero":
                tensor.CopyFrom(numpy_helper.from_array(np.uint8(7), "flat_zero"))
        with pytest.raises(BundleError, match="zero point other than 0"):
            make_signed(model)


SCRIPT = """
import socket, sys
def refuse(*_, **__): raise SystemExit("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from pathlib import Path
import numpy as np
from edgekd.export import onnx_int8
from edgekd.export.given import Given
from edgekd.export.openvino_from_onnx import lower
folder = Path(sys.argv[1])
squares = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
given = Given(lambda: squares, None, None, None, None)
onnx_int8.convert(folder / "model.onnx", folder / "int8.onnx", given)
lower(folder / "int8.onnx", folder, "int8")
assert sys.modules["openvino_telemetry"] is None, "telemetry was loaded"
"""


def test_no_telemetry_and_nothing_on_stdout(tmp_path):
    """In a fresh process, as a user runs it: no consent file, no CI variable, network refused."""
    write_normalized(tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True,
        check=False, env={**keep, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not (home / "intel").exists()  # where the sender would keep its client id

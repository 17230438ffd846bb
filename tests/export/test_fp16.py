"""fp16 that is legal, half as large, and does not overflow where the model would."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError
from edgekd.export import onnx_fp16
from edgekd.export.half import types_of
from edgekd.export.lint import check_qdq
from edgekd.export.magnitudes import magnitudes
from edgekd.export.onnx_fp16 import SAFE, check_finite, guarded, out_of_range, stored_in_half
from edgekd.export.openvino_from_onnx import lower
from edgekd.image import to_input
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.openvino import OpenVino
from tests.export.fragile import FRAGILE, squares, write_fragile
from tests.export.passes import given

HUGE = 3e4  # what `wide` writes then reaches 1e5; its weights still fit


def convert(source, target, images):
    return onnx_fp16.convert(source, target, given(images))


def pair_of(folder, **options):
    """The fp32 file, the fp16 file, and what was made."""
    source = write_fragile(folder / "model.fp32.onnx", **options)
    target = folder / "model.fp16.onnx"
    return source, target, convert(source, target, squares(24))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return pair_of(tmp_path_factory.mktemp("fp16"), spread=1.0)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    return pair_of(tmp_path_factory.mktemp("huge"), spread=HUGE)


def run(path, images):
    """Logits as a processor with fp16 arithmetic would store them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = stored_in_half(onnx.load(path)).SerializeToString()
    return onnxruntime.InferenceSession(content, options).run(["logits"], {"input": images})[0]


def type_of_operators(path):
    """{node name: element type of its output}."""
    model = onnx.load(path)
    types = types_of(model)
    return {node.name: types[node.output[0]] for node in model.graph.node}


def is_near(path, images, reference, *, limit):
    expected, found = run(reference, images), run(path, images)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < limit * np.abs(expected).max()
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_the_result_is_legal_everywhere(pair):
    onnx.checker.check_model(onnx.load(pair[1]), full_check=True)
    assert check_qdq(pair[1]) == []
    onnxruntime.InferenceSession(pair[1], providers=["CPUExecutionProvider"])


def test_input_and_output_stay_as_they_were(pair):
    before, after = onnx.load(pair[0]), onnx.load(pair[1])
    assert after.graph.input == before.graph.input  # names, float32, a free batch
    assert after.graph.output == before.graph.output
    assert after.metadata_props == before.metadata_props
    assert (after.ir_version, after.opset_import) == (before.ir_version, before.opset_import)


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    source = write_fragile(tmp_path / "model.onnx", spread=1.0)
    model = onnx.load(source)
    model.metadata_props.add(key="edgekd.version", value="1")
    onnx.save(model, source)
    convert(source, tmp_path / "fp16.onnx", squares(2))
    assert onnx.load(tmp_path / "fp16.onnx").metadata_props == model.metadata_props


def test_weights_are_halves(pair):
    kinds = {t.name: t.data_type for t in onnx.load(pair[1]).graph.initializer}
    full = {name for name, kind in kinds.items() if kind != TensorProto.FLOAT16}
    assert full == {"mean", "std"}
    assert len(kinds) == 10


def test_the_file_is_half_as_large(tmp_path):
    source = write_fragile(tmp_path / "model.onnx", spread=1.0)
    model = onnx.load(source)
    for tensor in model.graph.initializer:  # a linear layer large enough for weights to count
        if tensor.name in ("w4", "b4"):
            wide = np.resize(numpy_helper.to_array(tensor), (4000, 8)[: len(tensor.dims)])
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4000
    onnx.save(model, source)
    convert(source, tmp_path / "fp16.onnx", squares(2))
    share = (tmp_path / "fp16.onnx").stat().st_size / source.stat().st_size
    assert 0.48 < share < 0.53


def test_pixels_are_normalised_in_float(pair):
    kinds = type_of_operators(pair[1])
    assert kinds["centre"] == kinds["scale"] == TensorProto.FLOAT
    assert [node.op_type for node in onnx.load(pair[1]).graph.node][:3] == ["Sub", "Div", "Cast"]


def test_sums_stay_in_float_and_layers_do_not(pair):
    kinds = type_of_operators(pair[1])
    assert kinds["pool"] == TensorProto.FLOAT
    assert {kinds[name] for name in ("first", FRAGILE, "narrow", "linear")} == {TensorProto.FLOAT16}


def test_it_computes_nearly_the_same_at_every_batch_size(pair):
    for count in (1, 2, 5, 24):
        is_near(pair[1], to_input(squares(count, seed=1)), pair[0], limit=3e-3)


def test_the_same_images_give_the_same_bytes(pair, tmp_path):
    convert(pair[0], tmp_path / "again.onnx", squares(24))
    assert (tmp_path / "again.onnx").read_bytes() == pair[1].read_bytes()


def test_the_notes_say_what_was_done(pair, huge):
    assert pair[2].notes == [
        "fp16 in 7 of 10 operators; normalisation, sums over many elements, exponentials and "
        "positions stay in fp32 (3)"
    ]
    assert huge[2].notes[1].startswith("2 operators more in fp32: on 24 training images")


def test_a_layer_that_would_overflow_is_kept_and_named(huge):
    assert magnitudes(onnx.load(huge[0]), squares(24))["c2"] > 65504
    assert huge[2].float_layers == [FRAGILE, "narrow"]
    kinds = type_of_operators(huge[1])
    assert kinds[FRAGILE] == kinds["narrow"] == TensorProto.FLOAT
    assert kinds["first"] == TensorProto.FLOAT16
    is_near(huge[1], to_input(squares(24, seed=1)), huge[0], limit=3e-3)


def test_without_its_guard_it_overflows_and_that_is_found(tmp_path, monkeypatch):
    """On processors whose ONNX Runtime has no fp16 kernels, too: it would not overflow there."""
    monkeypatch.setattr(onnx_fp16, "out_of_range", lambda *_: set())
    with pytest.raises(BundleError, match="in fp16 the logits of 24 of 24 training") as caught:
        pair_of(tmp_path, spread=HUGE)
    assert "leave onnx-fp16 and openvino-fp16 out of export.make" in caught.value.hint
    assert not (tmp_path / "model.fp16.onnx").exists()


def test_a_model_that_is_not_finite_itself_is_not_blamed_on_fp16(pair):
    with pytest.raises(BundleError, match="the fp32 model gives logits that are not finite"):
        check_finite(onnx.load(pair[0]), {"logits": float("nan")})


class TestWhatStaysInFloat:
    def small(self, *nodes, **constants):
        graph = helper.make_graph(
            list(nodes), "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [("ReduceMean", {}), ("GlobalAveragePool", {}), ("Softmax", {}), ("Exp", {}), ("Sqrt", {}),
         ("AveragePool", {"kernel_shape": [7, 7]}), ("Reciprocal", {})],
    )  # fmt: skip
    def test_by_its_operator(self, kind, options):
        node = helper.make_node(kind, ["input"], ["logits"], name="it", **options)
        assert guarded(self.small(node)) == {"it"}

    def test_a_small_window_may_be_summed_in_half(self):
        node = helper.make_node("AveragePool", ["input"], ["logits"], kernel_shape=[2, 2])
        assert guarded(self.small(node)) == set()

    def test_a_normalisation_that_is_written_out(self):
        make = helper.make_node
        model = self.small(
            make("Relu", ["input"], ["a"], name="relu"),
            make("Mul", ["a", "a"], ["square"], name="square"),
            make("ReduceMean", ["square"], ["mean"], name="mean"),
            make("Add", ["mean", "eps"], ["more"], name="add"),
            make("Sqrt", ["more"], ["root"], name="root"),
            make("Div", ["a", "root"], ["b"], name="divide"),
            make("Mul", ["b", "gain"], ["logits"], name="gain"),
            eps=1e-5, gain=0.5,
        )  # fmt: skip
        assert guarded(model) == {"square", "mean", "root", "divide"}
        assert out_of_range(model, {}) == {"add"}

    @pytest.mark.parametrize(
        ("weight", "is_kept"),
        [([1.0, 7e4], True), ([1e-6, -1e-6], True), ([0.0, 0.0], False), ([1.0, 1e-6], False)],
    )
    def test_by_its_weights(self, weight, is_kept):
        node = helper.make_node("Mul", ["input", "w"], ["logits"], name="it")
        found = out_of_range(self.small(node, w=weight), {})
        assert found == ({"it"} if is_kept else set())

    def test_not_by_a_small_bias(self):
        """It is added to what is larger; untrained networks have them in every layer."""
        node = helper.make_node("Conv", ["input", "w", "b"], ["logits"], name="it")
        assert out_of_range(self.small(node, w=np.ones((1, 3, 1, 1)), b=[1e-7]), {}) == set()

    @pytest.mark.parametrize(
        ("value", "is_kept"),
        [(1.0, False), (SAFE, False), (SAFE * 1.01, True), (float("inf"), True),
         (float("nan"), True), (0.0, False), (1e-6, True)],
    )  # fmt: skip
    def test_by_what_it_reads_and_writes(self, value, is_kept):
        make = helper.make_node
        model = self.small(
            make("Relu", ["input"], ["a"], name="writes"),
            make("Relu", ["a"], ["b"], name="reads"),
            make("Relu", ["b"], ["logits"], name="behind"),
        )
        found = out_of_range(model, {"a": value, "b": 1.0, "logits": 1.0})
        assert found == ({"writes", "reads"} if is_kept else set())


class TestOpenVino:
    def test_what_overflows_stays_in_float_in_f16_arithmetic(self, huge, tmp_path):
        """Its own f16 drops casts; where a processor has none, f32 runs and nothing can happen."""
        lowered = lower(huge[1], tmp_path, "fp16")[0]
        images = to_input(squares(8))
        with OpenVino(lowered, RunOptions(precision="fp16")) as runtime:
            found = runtime.run({INPUT_NAME: images})[OUTPUT_NAME]
            facts = runtime.inspect()
        expected = run(huge[0], images)
        assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()
        if facts.precision == "f16":
            note = "OpenVINO runs 2 of 4 convolutions and matrix products in f16, 2 in f32"
            assert facts.notes == [note]
        else:
            assert facts.precision == "f32"
            assert "asked for f16 arithmetic" in facts.notes[0]

    def test_weights_are_stored_as_the_onnx_file_has_them(self, pair, huge, tmp_path):
        for source, name in ((pair[1], "w2_fp16"), (huge[1], "w2")):
            stored = lower(source, tmp_path, "fp16")[1].read_bytes()
            tensors = {
                t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer
            }
            assert tensors[name].ravel()[:8].tobytes() in stored


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_real_networks_decide_the_same(name, tmp_path):
    import timm
    import torch
    from torch import nn

    from edgekd.export.onnx_from_torch import to_onnx

    class Normalised(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, images):
            return self.net((images - 0.45) / 0.225)

    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=4).train()
    with torch.no_grad():
        for _ in range(5):  # statistics as after training
            net((torch.rand(8, 3, 64, 64) - 0.45) / 0.225)
    images = squares(12).repeat(4, axis=1).repeat(4, axis=2)
    source, target = tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"
    to_onnx(Normalised(net), source, size=64)
    made = convert(source, target, images)
    assert made.float_layers == []
    is_near(target, to_input(images), source, limit=1e-2)
    assert target.stat().st_size < 0.52 * source.stat().st_size

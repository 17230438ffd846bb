"""Each rule of the Q/DQ check, by the smallest change that breaks it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.cli import main
from edgekd.errors import BundleError
from edgekd.export.lint import HINTS, check_qdq, lint
from tests.tiny_onnx import write_classifier, write_int8_classifier


def rules(path):
    return {problem.rule for problem in check_qdq(path)}


def replaced(model, name, values):
    """Put other values into a constant of the model."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    raise AssertionError(name)


def node(model, output):
    return next(entry for entry in model.graph.node if output in entry.output)


def set_axis(entry, axis):
    del entry.attribute[:]
    entry.attribute.append(helper.make_attribute("axis", axis))


def make_unsigned(model):
    replaced(model, "input_zero", np.uint8(0))


def shift_zero_point(model):
    replaced(model, "input_zero", np.int8(3))


def zero_scale(model):
    replaced(model, "input_scale", np.float32(0.0))


def activation_per_channel(model):
    replaced(model, "input_scale", np.full(3, 0.01, np.float32))
    replaced(model, "input_zero", np.zeros(3, np.int8))


def wrong_conv_axis(model):
    replaced(model, "conv_scale", np.full(3, 0.01, np.float32))
    replaced(model, "conv_zero", np.zeros(3, np.int8))
    set_axis(node(model, "conv"), 1)


def wrong_linear_axis(model):
    replaced(model, "linear_scale", np.full(4, 0.01, np.float32))
    replaced(model, "linear_zero", np.zeros(4, np.int8))
    set_axis(node(model, "linear"), -1)


def computed_scale(model):
    model.graph.node.insert(0, helper.make_node("Abs", ["input_scale"], ["found_scale"]))
    node(model, "input_q").input[1] = "found_scale"


def computed_zero_point(model):
    model.graph.node.insert(0, helper.make_node("Identity", ["input_zero"], ["found_zero"]))
    node(model, "input_q").input[2] = "found_zero"


def no_zero_point(model):
    """Without a zero point QuantizeLinear means uint8."""
    del node(model, "input_q").input[2]
    del node(model, "input_dq").input[2]


def quantized_output(model):
    node(model, "logits").output[0] = "inner"
    scale = ["input_scale", "input_zero"]
    model.graph.node.append(helper.make_node("QuantizeLinear", ["inner", *scale], ["inner_q"]))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["inner_q", *scale], ["logits"]))


def lone_quantizer(model):
    node(model, "feature").input[0] = "input_q"


def integer_operator(model):
    node(model, "active").op_type = "QLinearMatMul"


def other_scale_on_the_way_back(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "other_scale"))
    node(model, "input_dq").input[1] = "other_scale"


def weight_through_a_reshape(model):
    replaced(model, "conv_scale", np.full(4, 0.01, np.float32))
    replaced(model, "conv_zero", np.zeros(4, np.int8))
    set_axis(node(model, "conv"), 0)
    model.graph.node.append(helper.make_node("Identity", ["conv"], ["conv_again"]))


def old_opset(model):
    model.opset_import[0].version = 12


def new_opset(model):
    model.opset_import[0].version = 21


def new_ir(model):
    model.ir_version = 11


def foreign_operator(model):
    node(model, "active").domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def external_data(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")


def static_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def dynamic_height(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def control_flow(model):
    """An `If` whose branches give the same constant; nothing reads it."""
    info = helper.make_tensor_value_info("same", TensorProto.FLOAT, [])
    value = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["same"], value=value)], "b", [], [info]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch)
    )


def weights_of_nan(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, np.nan]), "lost"))


def half_weight(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float16([1]), "half"))
    model.graph.node.append(helper.make_node("Mul", ["active", "half"], ["scaled"]))


def half_scale(model):
    replaced(model, "flat_scale", np.float16(0.03))  # allowed from opset 19 on


def scales_in_blocks(model):
    replaced(model, "conv_scale", np.full((4, 3), 0.01, np.float32))
    replaced(model, "conv_zero", np.zeros((4, 3), np.int8))


BROKEN = {
    half_weight: "float-types",
    half_scale: "float-types",
    scales_in_blocks: "blocked",
    control_flow: "control-flow",
    weights_of_nan: "not-finite",
    make_unsigned: "signed-int8",
    no_zero_point: "signed-int8",
    shift_zero_point: "zero-point",
    computed_zero_point: "zero-point-constant",
    zero_scale: "scale-positive",
    computed_scale: "scale-constant",
    activation_per_channel: "activation-per-channel",
    wrong_conv_axis: "weight-axis",
    wrong_linear_axis: "weight-axis",
    quantized_output: "quantized-output",
    lone_quantizer: "unpaired",
    integer_operator: "not-qdq",
    other_scale_on_the_way_back: "pair-differs",
    weight_through_a_reshape: "weight-axis",
    old_opset: "opset",
    new_opset: "opset",
    new_ir: "ir-version",
    foreign_operator: "foreign-operator",
    external_data: "external-data",
    static_batch: "static-batch",
    dynamic_height: "dynamic-axis",
}


@pytest.mark.parametrize("write", [write_classifier, write_int8_classifier])
def test_a_legal_model_has_no_problems(tmp_path, write):
    assert check_qdq(write(tmp_path / "model.onnx")) == []


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_each_rule_finds_what_it_is_for(tmp_path, change):
    path = write_int8_classifier(tmp_path / "model.onnx")
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    assert rules(path) == {BROKEN[change]}


def test_the_channels_of_a_transposed_convolution_are_its_second_axis(tmp_path):
    path = write_int8_classifier(tmp_path / "model.onnx")
    model = onnx.load(path)
    node(model, "feature").op_type = "ConvTranspose"
    path.write_bytes(model.SerializeToString())
    assert [str(problem) for problem in check_qdq(path)] == [
        "conv: the weight of a ConvTranspose is quantized along axis 0, its output channels are "
        "axis 1 [weight-axis]"
    ]


def test_a_weight_may_be_quantized_in_the_graph(tmp_path):
    """Float weight, Q, DQ: the other form that TensorRT accepts."""
    path = write_int8_classifier(tmp_path / "model.onnx")
    model = onnx.load(path)
    replaced(model, "conv_q", np.ones((4, 3, 3, 3), np.float32))
    names = ["conv_q", "conv_scale", "conv_zero"]
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", names, ["conv_int8"], axis=0))
    node(model, "conv").input[0] = "conv_int8"
    path.write_bytes(model.SerializeToString())
    assert check_qdq(path) == []


def test_what_is_not_onnx_is_an_error_and_not_a_list_of_problems(tmp_path):
    with pytest.raises(BundleError, match="no such model"):
        check_qdq(tmp_path / "absent.onnx")
    path = tmp_path / "picture.onnx"
    path.write_bytes(b"\x89PNG not a model")
    with pytest.raises(BundleError, match=r"picture\.onnx is not"):
        check_qdq(path)


def half_quantized_sum(path):
    """A residual sum of a quantized and a float activation: legal, but slow."""
    write_int8_classifier(path)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Abs", ["feature"], ["other"]))
    model.graph.node.append(helper.make_node("Add", ["input_dq", "input"], ["sum"]))
    path.write_bytes(model.SerializeToString())
    return path


def test_a_half_quantized_sum_is_legal_and_named_as_slow(tmp_path):
    path = half_quantized_sum(tmp_path / "model.onnx")
    assert check_qdq(path) == []
    assert [(found.rule, found.is_legal) for found in lint(path)] == [("residual-input", True)]


def test_every_rule_says_what_to_do():
    seen = {*BROKEN.values(), "residual-input"}
    assert seen == set(HINTS)
    assert all(HINTS.values())


def test_the_command_says_what_is_wrong_where_and_what_to_do(tmp_path, capsys):
    good = write_int8_classifier(tmp_path / "good.onnx")
    assert main(["lint", str(good)]) == 0
    assert "good.onnx: legal for ONNX Runtime, OpenVINO and TensorRT" in capsys.readouterr().out
    model = onnx.load(good)
    static_batch(model)
    shift_zero_point(model)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    assert main(["lint", str(good), str(bad)]) == 2
    said = capsys.readouterr()
    assert "input: the batch is fixed to 1 [static-batch]" in said.out
    assert "hint: quantize symmetrically, with all zero points 0" in said.out
    assert "error: 1 of 2 files is not legal for every runtime" in said.err


def test_the_command_as_json(tmp_path, capsys):
    path = half_quantized_sum(tmp_path / "model.onnx")
    assert main(["lint", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["legal"] is True
    assert found["problems"][0]["rule"] == "residual-input"
    assert found["problems"][0]["legal"] is True


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["lint", str(tmp_path / "absent.onnx")]) == 2
    assert "error: no such model" in capsys.readouterr().err

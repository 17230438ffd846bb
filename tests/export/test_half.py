"""Rewriting a graph to fp16: types, casts and names, operator by operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BundleError
from edgekd.export.half import name_nodes, to_half, types_of

make = helper.make_node


def model(nodes, constants=None, *, outputs=("logits",), shape=("N", 3, 4, 4)):
    """`input` float32 (N, 3, 4, 4) through `nodes`; opset 18."""
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def converted(before, *kept):
    """The fp16 model, checked in full, and loaded and run by ONNX Runtime."""
    after = to_half(before, kept)
    onnx.checker.check_model(after, full_check=True)
    assert len({node.name for node in after.graph.node}) == len(after.graph.node)
    images = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"input": images})
        for m in (after, before)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3)
    return after


def operators(changed):
    return [node.op_type for node in changed.graph.node]


def weights(changed):
    return {t.name: numpy_helper.to_array(t).dtype.name for t in changed.graph.initializer}


W = np.float32([[[0.5]], [[2.0]], [[0.25]]])
CHAIN = [
    make("Mul", ["input", "w"], ["a"], name="first"),
    make("Relu", ["a"], ["b"], name="second"),
    make("Mul", ["b", "w"], ["logits"], name="third"),
]


def test_everything_is_half_but_the_ends():
    after = converted(model(CHAIN, {"w": W}))
    assert operators(after) == ["Cast", "Mul", "Relu", "Mul", "Cast"]
    assert weights(after) == {"w_fp16": "float16"}
    types = types_of(after)
    assert {types[name] for name in "ab"} == {TensorProto.FLOAT16}


def test_between_two_nodes_in_float_there_is_no_half():
    """Else what the guard is for would overflow on the way."""
    after = converted(model(CHAIN, {"w": W}), "first", "second")
    assert operators(after) == ["Mul", "Relu", "Cast", "Mul", "Cast"]


def test_a_weight_for_both_is_stored_in_both_types():
    after = converted(model(CHAIN, {"w": W}), "first")
    assert weights(after) == {"w": "float32", "w_fp16": "float16"}


def test_a_tensor_is_cast_once_for_all_who_read_it():
    nodes = [
        make("Relu", ["input"], ["a"], name="half"),
        make("Exp", ["a"], ["b"], name="one"),
        make("Sigmoid", ["a"], ["c"], name="two"),
        make("Add", ["b", "c"], ["logits"], name="sum"),
    ]
    after = converted(model(nodes), "one", "two")
    assert operators(after) == ["Cast", "Relu", "Cast", "Exp", "Sigmoid", "Cast", "Cast", "Add",
                                "Cast"]  # fmt: skip


def test_all_in_float_is_the_same_graph():
    assert operators(converted(model(CHAIN, {"w": W}), "first", "second", "third")) == [
        "Mul", "Relu", "Mul",
    ]  # fmt: skip


def test_the_scales_of_a_resize_stay_in_float():
    """ONNX has no other type for them; TensorRT and ONNX Runtime refuse it."""
    nodes = [make("Resize", ["input", "", "scales"], ["logits"], name="resize", mode="nearest")]
    scales = {"scales": np.float32([1, 1, 2, 2])}
    after = converted(model(nodes, scales, shape=("N", 3, 8, 8)))
    assert weights(after) == {"scales": "float32"}
    assert operators(after) == ["Cast", "Resize", "Cast"]


def test_a_constant_node_becomes_a_weight():
    nodes = [
        make("Constant", [], ["w"], value=numpy_helper.from_array(W)),
        make("Constant", [], ["two"], value_float=2.0),
        make("Mul", ["input", "w"], ["a"]),
        make("Add", ["a", "two"], ["logits"]),
    ]
    assert weights(converted(model(nodes))) == {"w_fp16": "float16", "two_fp16": "float16"}


def test_integers_and_shapes_are_left_alone():
    nodes = [
        make("Relu", ["input"], ["a"]),
        make("Shape", ["a"], ["shape"]),
        make("ConstantOfShape", ["shape"], ["zeros"]),
        make("Add", ["a", "zeros"], ["b"]),
        make("Reshape", ["b", "flat"], ["logits"]),
    ]
    after = converted(model(nodes, {"flat": np.int64([0, -1])}, shape=("N", 48)))
    assert weights(after) == {"flat": "int64"}
    assert operators(after) == [
        "Cast", "Relu", "Shape", "ConstantOfShape", "Cast", "Add", "Reshape", "Cast",
    ]  # fmt: skip


def test_an_output_that_others_read_stays_float_outside():
    nodes = [make("Relu", ["input"], ["a"]), make("Sigmoid", ["a"], ["logits"])]
    after = converted(model(nodes, outputs=("a", "logits")))
    assert [value.name for value in after.graph.output] == ["a", "logits"]


def test_an_operator_that_is_unknown_stays_in_float():
    before = model([make("Relu", ["input"], ["a"]),
                    make("Gelu2", ["a"], ["logits"], domain="com.example")])  # fmt: skip
    before.opset_import.append(helper.make_opsetid("com.example", 1))
    assert operators(to_half(before, ())) == ["Cast", "Relu", "Cast", "Gelu2"]


def test_a_weight_that_does_not_fit_is_an_error_and_not_infinite():
    with pytest.raises(BundleError, match=r"w: 1e\+05 is beyond what fp16 holds, 65504"):
        to_half(model(CHAIN, {"w": W * np.float32(5e4)}), ())


def test_every_node_gets_a_name_of_its_own():
    before = model([
        make("Relu", ["input"], ["a"], name="b"), make("Relu", ["a"], ["b"]),
        make("Relu", ["b"], ["logits"], name="b"),
    ])  # fmt: skip
    name_nodes(before)
    assert [node.name for node in before.graph.node] == ["b", "b_", "logits"]

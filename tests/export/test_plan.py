"""What can be made follows from the files; prerequisites come along."""

from __future__ import annotations

import pytest

from edgekd.errors import RecipeError
from edgekd.export.plan import available, module_of, plan


def names(asked):
    return [step.name for step in plan(asked)]


def test_the_artifacts_are_every_target_in_every_precision():
    precisions = ["fp32", "fp16", "int8", "int8-aware", "mixed"]
    lowered = {"onnxruntime": precisions[2:]}  # float runs there as it is
    assert available() == [
        f"{target}-{precision}"
        for target in ("onnx", "onnxruntime", "openvino", "tensorrt")
        for precision in lowered.get(target, precisions)
    ]


def test_prerequisites_are_made_first_and_once():
    assert names([]) == ["onnx-fp32"]
    assert names(["openvino-int8"]) == ["onnx-fp32", "onnx-int8", "openvino-int8"]
    assert names(["openvino-int8", "onnx-int8", "onnx-fp32"]) == names(["openvino-int8"])


def test_an_unknown_name_is_named_with_a_suggestion():
    with pytest.raises(RecipeError, match="no artifact 'openvino-int9'") as caught:
        plan(["openvino-int9"])
    assert caught.value.hint == "did you mean 'openvino-int8'?"


def test_every_pass_and_lowering_keeps_its_contract():
    seen = 0
    for step in plan(available()):
        if step.name == "onnx-fp32":
            continue
        module = module_of(step)
        seen += 1
        if step.target == "onnx":
            assert callable(module.convert)
            assert {"training", "validation"} >= module.NEEDS
        else:
            assert callable(module.lower)
            assert isinstance(module.RUNTIME, str)
    assert seen == 17

"""What a frozen ONNX teacher must be, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.cli import main
from edgekd.errors import BundleError, RecipeError
from edgekd.models.build import build_network
from edgekd.recipe import ModelSpec
from tests import tiny
from tests.tiny_onnx import write_classifier


def write_mean(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT) -> Path:
    """A graph that takes the mean over the last two axes of an input of any shape."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ["batch", "classes"])],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("shape", "kind", "found"),
    [
        (["batch", 1, 16, 16], TensorProto.FLOAT, r"'x' tensor\(float\) \['batch', 1, 16, 16\]"),
        (["batch", 16, 16, 3], TensorProto.FLOAT, r"\['batch', 16, 16, 3\]"),
        (["batch", 3, 16, 16], TensorProto.FLOAT16, r"tensor\(float16\)"),
    ],
)
def test_another_input_is_refused(tmp_path: Path, shape: list[Any], kind: int, found: str) -> None:
    path = write_mean(tmp_path / "t.onnx", shape, kind)
    with pytest.raises(BundleError, match=rf"one float32 input \(N, 3, S, S\), found .*{found}"):
        build_network(ModelSpec(arch=f"onnx:{path}"), outputs=3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such ONNX file: .*none\.onnx"):
        build_network(ModelSpec(arch=f"onnx:{tmp_path}/none.onnx"), outputs=3)


@pytest.mark.parametrize("key", ["pretrained", "args", "taps"])
def test_what_has_no_meaning_for_a_file_is_refused(tmp_path: Path, key: str) -> None:
    path = write_classifier(tmp_path / "t.onnx")
    value = {"pretrained": "w.pth", "args": {"width": 3}, "taps": {"s1": "x"}}[key]
    spec = ModelSpec.model_validate({"arch": f"onnx:{path}", key: value})
    with pytest.raises(RecipeError, match=f"`{key}` has no meaning for an ONNX file"):
        build_network(spec, outputs=3)


def test_a_teacher_of_other_classes_and_probabilities_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path, params={"images": 60, "size": 32})
    del recipe["stages"]["teacher"], recipe["stages"]["distill"]["losses"]["fitnet"]
    write_classifier(tmp_path / "seven.onnx", size=32, classes=7)
    recipe["models"]["teacher"] = {"arch": f"onnx:{tmp_path}/seven.onnx"}
    assert main(["doctor", str(tiny.write(tmp_path, recipe))]) == 2
    message = capsys.readouterr().err
    assert "'teacher' returns (2, 7) for 2 images, expected logits of shape (2, 4)" in message
    assert "as its first output" in message
    nets = tmp_path / "nets.py"
    ends = tiny.NETS.replace(".flatten(1)))", ".flatten(1))).softmax(1)")
    nets.write_text(ends, encoding="utf-8")
    recipe["models"]["teacher"]["arch"] = f"onnx:{write_classifier(tmp_path / 't.onnx', 32, 4)}"
    assert main(["doctor", str(tiny.write(tmp_path, recipe))]) == 2
    assert "'student' returns probabilities (each row sums to 1)" in capsys.readouterr().err

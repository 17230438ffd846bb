"""On a device a bundle of masks is opened, verified and scored by what its task says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd import plugins
from edgekd.bench.accuracy import TestImages, score
from edgekd.bundle import Artifact, Manifest, ModelFacts, close_bundle, read_manifest
from edgekd.errors import BundleError, DataError
from edgekd.export.golden import FOLDER, write_golden
from edgekd.recipe_data import InputSpec
from edgekd.runtimes.session import open_session
from edgekd.verify import verify
from tests.data.plain import Plain
from tests.tiny_bundle import gate
from tests.tiny_onnx import IR, OPSET
from tests.toy_tasks import Segmentation

SIZE = 8
SPEC = InputSpec(size=SIZE)


@pytest.fixture(autouse=True)
def a_file_in_edgekd_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if tests/toy_tasks.py were edgekd/tasks/segmentation.py."""
    names, load = plugins.names, plugins.load

    def with_toy(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
        is_toy = (kind, name) == ("tasks", "segmentation")
        return Segmentation if is_toy else load(kind, name, *arguments, **options)

    monkeypatch.setattr(plugins, "names", lambda kind, *more: [*names(kind, *more), "segmentation"])
    monkeypatch.setattr(plugins, "load", with_toy)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose network calls every pixel with more red than green a lesion."""
    folder = tmp_path / "bundle"
    write_segmenter(folder / "model.fp32.onnx", [1.0, -1.0, 0.0])
    write_golden(folder / FOLDER, SPEC, lambda x: x[:, :1] - x[:, 1:2])
    artifact = Artifact(name="onnx-fp32", file="model.fp32.onnx", files=["model.fp32.onnx"],
                        runtime="onnxruntime", precision="fp32", gate=gate("passed"))  # fmt: skip
    facts = ModelFacts(name="student", arch="tiny", params=3, macs=192, role="student")
    manifest = Manifest(name="masks", task="segmentation", primary="dice", classes=["lesion"],
                        input=SPEC, opset=OPSET, model=facts,
                        artifacts={"onnx-fp32": artifact})  # fmt: skip
    close_bundle(folder, manifest)
    return folder


def write_segmenter(path: Path, weights: list[float]) -> None:
    """One 1 x 1 convolution: `input` (N, 3, S, S) -> `logits` (N, 1, S, S)."""
    kernel = np.array(weights, dtype=np.float32).reshape(1, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "kernel"], ["logits"])],
        "masks",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def pictures(count: int) -> TestImages:
    """Pictures whose left half is red, with just that as their target."""
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    image[:, : SIZE // 2, 0], image[:, SIZE // 2 :, 1] = 200, 200
    targets = np.zeros((count, SIZE, SIZE), dtype=np.int64)
    targets[:, :, : SIZE // 2] = 1
    source = Plain([0] * count, images=[image] * count)
    return TestImages(source, np.arange(count), targets, SPEC)


def artifact_row(folder: Path) -> dict[str, Any]:
    return next(row for row in verify(folder) if row["check"] == "artifact")


def test_an_intact_bundle_of_masks_is_verified(bundle: Path) -> None:
    row = artifact_row(bundle)
    assert (row["result"], row["flips"]) == ("ok", 0)
    assert row["relative"] < 1e-5


def test_a_picture_with_another_mask_fails_and_is_counted(bundle: Path) -> None:
    write_segmenter(bundle / "model.fp32.onnx", [-1.0, 1.0, 0.0])
    close_bundle(bundle, read_manifest(bundle))
    row = artifact_row(bundle)
    assert row["result"] == "failed"
    assert row["flips"] == 6  # of the two grey ones no pixel lies on either side


@pytest.mark.parametrize("batch", [1, 4])
def test_masks_are_scored_at_any_batch(bundle: Path, batch: int) -> None:
    with open_session(bundle) as session:
        scores, predictions = score(session, pictures(6), batch)
    assert predictions.logits.shape == (6, 1, SIZE, SIZE)
    assert (scores["dice"].value, scores["dice"].images) == (1.0, 6)


def test_pictures_with_a_class_each_are_no_masks(bundle: Path) -> None:
    images = pictures(4)
    images.targets = images.targets[:, 0, 0]
    with open_session(bundle) as session, pytest.raises(DataError, match="not for task"):
        score(session, images)


def test_a_network_of_another_output_shape_is_not_this_tasks(bundle: Path) -> None:
    manifest = read_manifest(bundle).model_copy(update={"classes": ["background", "lesion"]})
    close_bundle(bundle, manifest)
    with (
        pytest.raises(BundleError, match=r"expected .* 'logits' \(N, 2, 8, 8\)"),
        open_session(bundle),
    ):
        pass


def test_a_task_that_is_not_here_is_named(bundle: Path) -> None:
    close_bundle(bundle, read_manifest(bundle).model_copy(update={"task": "their_own"}))
    with pytest.raises(BundleError, match="there is no task 'their_own'"):
        verify(bundle)

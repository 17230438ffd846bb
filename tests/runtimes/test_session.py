"""Opening runs, bundles and foreign files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgekd.bundle import close_bundle, read_manifest
from edgekd.errors import BundleError, MissingOnHost
from edgekd.host import host_name
from edgekd.image import to_input
from edgekd.results import append_jsonl
from edgekd.runtimes.base import Facts, Probe, RunOptions
from edgekd.runtimes.fake import Fake
from edgekd.runtimes.session import logits_of, open_session, resolve
from tests.bench.measurements import measurement
from tests.tiny_bundle import CLASSES, SIZE, gate, write_bundle
from tests.tiny_onnx import write_classifier, write_identity


def squares(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle(folder)
    return folder


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "model.fake"
    path.write_text('{"size": 8}')
    return path


def test_a_run_stands_for_its_bundle(bundle: Path) -> None:
    (bundle.parent / "recipe.yaml").write_text("edgekd: 1\n")
    assert resolve(bundle.parent).folder == bundle


def test_a_run_without_a_bundle_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("edgekd: 1\n")
    with pytest.raises(BundleError) as caught:
        resolve(tmp_path)
    assert caught.value.hint == f"edgekd export {tmp_path}"


@pytest.mark.parametrize("name", ["missing", "notes.txt"])
def test_what_is_neither_bundle_nor_model_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match=name):
        resolve(tmp_path / name)


def test_an_altered_bundle_is_refused_before_anything_is_loaded(bundle: Path) -> None:
    model = bundle / "model.fp32.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match="sha256 differs"), open_session(bundle):
        pass


def test_a_truncated_bundle_is_refused(bundle: Path) -> None:
    model = bundle / "model.int8.onnx"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(BundleError, match="truncated"), open_session(bundle):
        pass


def test_the_first_that_passed_is_the_default(bundle: Path) -> None:
    with open_session(bundle) as session:
        assert session.artifact.name == "onnx-fp32"
        assert session.task is not None
        assert session.task.classes == tuple(CLASSES)
        assert session.shape == (3, SIZE, SIZE)


def test_the_fastest_measured_here_is_the_default(bundle: Path) -> None:
    manifest = resolve(bundle).manifest
    assert manifest is not None
    for artifact, p50 in (("onnx-fp32", 3.0), ("onnx-int8", 2.0)):
        row = measurement(manifest, artifact, p50)
        append_jsonl(bundle / "bench" / f"{host_name()}.jsonl", row)
    with open_session(bundle) as session:
        assert session.artifact.name == "onnx-int8"


def test_a_measured_favourite_whose_runtime_is_gone_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekd.runtimes.openvino import OpenVino

    manifest = write_bundle(tmp_path, openvino=True)
    for artifact, p50 in (("openvino-fp32", 1.0), ("onnx-int8", 2.0)):
        append_jsonl(tmp_path / "bench" / f"{host_name()}.jsonl",
                     measurement(manifest, artifact, p50))  # fmt: skip
    with open_session(tmp_path) as session:
        assert session.artifact.name == "openvino-fp32"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(OpenVino, "probe", classmethod(lambda cls: Probe(False, reason="gone")))
    with open_session(tmp_path) as session:
        assert session.artifact.name == "onnx-int8"
    said = " ".join(capsys.readouterr().err.split())
    assert ("openvino-fp32 was measured here but is passed over: runtime 'openvino' is not here; "
            "taking onnx-int8") in said  # fmt: skip


def test_a_refused_artifact_must_be_named_and_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b", int8=gate("refused"))
    with open_session(tmp_path / "b") as session:
        assert session.artifact.name == "onnx-fp32"
    assert capsys.readouterr().err == ""
    with open_session(tmp_path / "b", artifact="onnx-int8") as session:
        assert session.artifact.name == "onnx-int8"
    assert "onnx-int8 was refused" in capsys.readouterr().err


def test_a_named_artifact_that_may_not_ship_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_bundle(tmp_path, int8=gate("inconclusive"))
    with open_session(tmp_path, artifact="onnx-int8"):
        pass
    said = "onnx-int8 may not ship: its gate was inconclusive and nobody accepted it"
    assert said in capsys.readouterr().err
    unjudged = manifest.artifacts["onnx-int8"].model_copy(update={"gate": None})
    made = {**manifest.artifacts, "onnx-int8": unjudged}
    close_bundle(tmp_path, manifest.model_copy(update={"artifacts": made}))
    with open_session(tmp_path, artifact="onnx-int8"):
        pass
    assert "onnx-int8 may not ship: no gate judged it" in capsys.readouterr().err
    write_bundle(tmp_path, int8=gate("inconclusive", accepted="shown elsewhere"))
    with open_session(tmp_path, artifact="onnx-int8"):
        pass
    assert capsys.readouterr().err == ""


def test_an_unknown_artifact_is_corrected(bundle: Path) -> None:
    with pytest.raises(BundleError) as caught, open_session(bundle, artifact="onnx-int4"):
        pass
    assert caught.value.hint == "did you mean 'onnx-int8'?"


def test_another_runtime_may_read_the_same_file_and_is_warned_about(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_session(bundle, runtime="openvino", batch=1) as session:
        assert session.artifact.name == "onnx-fp32"
        assert session.runtime_name == "openvino"
    assert "onnx-fp32 is proven in onnxruntime, not in openvino" in capsys.readouterr().err


def test_a_runtime_that_cannot_read_the_file_says_what_it_reads(bundle: Path) -> None:
    opened = open_session(bundle, artifact="onnx-fp32", runtime="fake")
    with pytest.raises(BundleError, match=r"'fake' cannot load model\.fp32\.onnx"), opened:
        pass


@pytest.mark.parametrize(
    ("name", "hint"), [("openvinoo", "did you mean 'openvino'?"), ("os:path", None)]
)
def test_an_unknown_runtime_is_refused(bundle: Path, name: str, hint: str | None) -> None:
    with pytest.raises(BundleError) as caught, open_session(bundle, runtime=name):
        pass
    assert caught.value.hint == hint


def test_a_device_that_is_not_here_is_exit_4(bundle: Path) -> None:
    with pytest.raises(MissingOnHost), open_session(bundle, device="hal9000"):
        pass


def test_a_model_of_another_shape_than_its_manifest_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    write_classifier(tmp_path / "model.fp32.onnx", SIZE, classes=7)
    close_bundle(tmp_path, read_manifest(tmp_path))
    with pytest.raises(BundleError, match=r"\(-1, 7\).*expected.*\(N, 4\)"), open_session(tmp_path):
        pass


def test_a_foreign_model_may_be_timed(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "theirs.onnx")
    with open_session(path, batch=2) as session:
        assert session.manifest is None
        assert session.task is None
        assert session.artifact.name == "onnx-fp32"
        assert session.shape == (3, 16, 16)
        assert session.facts.inputs == {"input": (2, 3, 16, 16)}


@pytest.mark.parametrize(
    ("shape", "kind", "found"),
    [
        (["N", 10], TensorProto.FLOAT, r"'x' float32 \(-1, 10\)"),
        (["N", 224, 224, 3], TensorProto.FLOAT, r"'x' float32 \(-1, 224, 224, 3\)"),
        (["N", 3, 8, 8], TensorProto.INT64, r"'x' int64 \(-1, 3, 8, 8\)"),
        (["N", 3, "H", "W"], TensorProto.FLOAT, r"'x' float32 \(-1, 3, -1, -1\)"),
    ],
)
def test_a_model_that_takes_no_image_says_what_it_takes(
    shape: list[int | str], kind: int, found: str, tmp_path: Path
) -> None:
    path = write_identity(tmp_path / "other.onnx", shape, kind)
    words = f"found {found}; `edgekd bench` times models with one float input"
    with pytest.raises(BundleError, match=words), open_session(path):
        pass


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_batches_do_not_change_the_logits(fake: Path, batch: int) -> None:
    images = squares(5, size=8)
    with Fake(fake) as runtime:
        expected = runtime.run({"input": to_input(images)})["logits"]
        assert np.allclose(logits_of(runtime, images, batch), expected)
    with Fake(fake, RunOptions(batch=batch)) as runtime:  # the last batch is filled up
        assert np.allclose(logits_of(runtime, images, 1), expected)


def test_progress_counts_images(fake: Path) -> None:
    seen: list[int] = []
    with Fake(fake) as runtime:
        logits_of(runtime, squares(5, size=8), 2, seen.append)
    assert seen == [2, 2, 1]


def test_no_images_give_no_logits(fake: Path) -> None:
    with Fake(fake) as runtime:
        assert logits_of(runtime, squares(0, size=8), 4).shape == (0, 3)


def test_a_model_with_other_names_has_logits_too() -> None:
    class Theirs:
        facts = Facts(inputs={"x": (-1, 3, 8, 8)}, outputs={"y": (-1, 2)})

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"y": inputs["x"].mean(axis=(2, 3))[:, :2]}

    assert logits_of(Theirs(), squares(3, size=8), 2).shape == (3, 2)

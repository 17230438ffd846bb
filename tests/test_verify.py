"""`verify` finds out whether a bundle is here what it was where it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import Check, Gate, close_bundle, read_manifest
from edgekd.errors import BundleError
from edgekd.verify import verify
from tests.tiny_bundle import gate, write_bundle
from tests.tiny_onnx import write_classifier, write_int8_classifier


def results(folder: Path) -> dict[str, str]:
    """The result of each check, artifacts by name."""
    return {row.get("artifact", row["check"]): row["result"] for row in verify(folder)}


def test_an_intact_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path, openvino=True)
    assert results(tmp_path) == dict.fromkeys(
        ("files", "preprocessing", "onnx-fp32", "onnx-int8", "openvino-fp32"), "ok"
    )


def test_how_far_off_each_artifact_is(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    exact, rounded = (row for row in verify(tmp_path) if row["check"] == "artifact")
    assert exact["relative"] < 1e-5 < rounded["relative"] < 0.2
    assert exact["images"] == 8


def test_an_altered_file_ends_it(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    picture = next((tmp_path / "golden").glob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"!")
    with pytest.raises(BundleError, match="golden/"):
        verify(tmp_path)


def test_another_model_under_the_same_name_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    write_classifier(tmp_path / "model.fp32.onnx", 16, 4, seed=9)
    close_bundle(tmp_path, read_manifest(tmp_path))
    assert results(tmp_path)["onnx-fp32"] == "failed"


def judged(relative: float | None) -> Gate:
    """The gate of the int8 artifact, with the difference that it found at export."""
    parity = Check(name="parity", verdict="reported", value=relative)
    return gate("passed").model_copy(update={"checks": [parity]})


def test_an_int8_artifact_as_far_off_as_at_export_is_ok(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    far = next(r["relative"] for r in verify(tmp_path) if r.get("artifact") == "onnx-int8")
    for at_export, expected in ((far, "ok"), (far - 0.01, "ok"), (None, "ok")):
        write_bundle(tmp_path, int8=judged(at_export))
        assert results(tmp_path)["onnx-int8"] == expected


def test_an_int8_artifact_that_computes_something_else_here_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path, int8=judged(0.05))
    write_int8_classifier(tmp_path / "model.int8.onnx", 16, 4, seed=9)
    close_bundle(tmp_path, read_manifest(tmp_path))
    (row,) = (r for r in verify(tmp_path) if r.get("artifact") == "onnx-int8")
    assert row["result"] == "failed"
    assert row["limit"] == pytest.approx(1.5 * 0.05 + 0.02)
    assert row["relative"] > row["limit"]


def test_another_preprocessing_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    inputs = tmp_path / "golden" / "inputs.npy"
    np.save(inputs, np.load(inputs) * 0.9)
    close_bundle(tmp_path, read_manifest(tmp_path))
    assert results(tmp_path)["preprocessing"] == "failed"


def test_what_was_refused_is_skipped(tmp_path: Path) -> None:
    write_bundle(tmp_path, int8=gate("refused"))
    assert results(tmp_path)["onnx-int8"] == "skipped"


def test_a_bundle_without_golden_pictures_says_so(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    for path in (tmp_path / "golden").iterdir():
        path.unlink()
    close_bundle(tmp_path, manifest)
    assert results(tmp_path) == {"files": "ok", "preprocessing": "skipped"}


def test_a_foreign_model_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="without a bundle"):
        verify(write_classifier(tmp_path / "theirs.onnx"))


def test_golden_inputs_of_another_size_are_one_clear_error(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    inputs = tmp_path / "golden" / "inputs.npy"
    np.save(inputs, np.load(inputs)[:, :, :8, :8])
    close_bundle(tmp_path, read_manifest(tmp_path))
    with pytest.raises(BundleError, match=r"golden: inputs \(8, 3, 8, 8\), but input.size .* 16"):
        verify(tmp_path)

"""Classifying files and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import BundleError, DataError
from edgekd.predict import predict
from tests.tiny_bundle import CLASSES, gate, write_bundle
from tests.tiny_onnx import write_classifier


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """b.png, a.JPG and deeper/c.png, and a file that is no picture."""
    root = tmp_path / "pictures"
    (root / "deeper").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.JPG", "deeper/c.png")):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "notes.txt").write_text("not a picture")
    return root


def test_one_picture(bundle: Path, pictures: Path) -> None:
    (row,) = predict(bundle, [pictures / "b.png"])
    assert row.file == str(pictures / "b.png")
    assert row.label in CLASSES
    assert list(row.probabilities) == CLASSES
    assert sum(row.probabilities.values()) == pytest.approx(1.0)
    assert row.probability == max(row.probabilities.values()) == row.probabilities[row.label]
    assert (row.artifact, row.runtime, row.error) == ("onnx-fp32", "onnxruntime", None)
    assert row.as_dict()["label"] == row.label


def test_folders_are_walked_in_order_and_only_pictures_count(bundle: Path, pictures: Path) -> None:
    names = [Path(row.file).name for row in predict(bundle, [pictures])]
    assert names == ["a.JPG", "b.png", "c.png"]


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batches_give_the_same_answers(bundle: Path, pictures: Path, batch: int) -> None:
    single, batched = (list(predict(bundle, [pictures], batch=size)) for size in (1, batch))
    for one, other in zip(single, batched, strict=True):
        assert one.file == other.file
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)


@pytest.mark.parametrize("batch", [1, 8])
def test_one_bad_file_does_not_stop_the_others(bundle: Path, pictures: Path, batch: int) -> None:
    (pictures / "bad.png").write_bytes(b"\x89PNG, no")
    rows = {Path(row.file).name: row for row in predict(bundle, [pictures], batch=batch)}
    assert list(rows) == ["a.JPG", "b.png", "bad.png", "c.png"]
    assert rows["bad.png"].error is not None
    assert "bad.png" in rows["bad.png"].error
    assert rows["bad.png"].label == ""
    assert rows["c.png"].error is None


def test_a_single_file_that_is_unreadable_is_an_error(bundle: Path, pictures: Path) -> None:
    with pytest.raises(DataError, match=r"notes\.txt"):
        list(predict(bundle, [pictures / "notes.txt"]))


def test_what_is_not_there_is_said_before_any_work(bundle: Path, pictures: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png"):
        predict(bundle, [pictures, pictures / "none.png"])


def test_a_folder_without_pictures(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        predict(bundle, [tmp_path / "empty"])


@pytest.mark.parametrize("verdict", ["inconclusive", "refused"])
def test_a_named_artifact_that_may_not_ship_is_warned_about(
    verdict: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b", int8=gate(verdict))  # type: ignore[arg-type]
    list(predict(tmp_path / "b", [pictures / "b.png"], artifact="onnx-int8"))
    said = {
        "inconclusive": "may not ship: its gate was inconclusive",
        "refused": "was refused by its gate",
    }
    assert f"warning: onnx-int8 {said[verdict]}" in capsys.readouterr().err


def test_what_a_person_accepted_is_not_warned_about(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b", int8=gate("inconclusive", accepted="shown elsewhere"))
    list(predict(tmp_path / "b", [pictures / "b.png"], artifact="onnx-int8"))
    assert capsys.readouterr().err == ""


def test_a_foreign_model_has_no_classes(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="its classes are not known"):
        predict(write_classifier(tmp_path / "theirs.onnx"), [pictures])

"""Classifying files and folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import main
from edgekd.errors import BundleError, DataError, MissingOnHost
from edgekd.image import decode
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_no_answer(
    bundle: Path, pictures: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.full((1, len(CLASSES)), value, dtype=np.float32)
    monkeypatch.setattr("edgekd.predict.logits_of", lambda *_: logits)
    with pytest.raises(
        BundleError, match=r"^onnx-fp32 gives outputs that are not finite$"
    ) as caught:
        list(predict(bundle, [pictures]))
    assert caught.value.hint == "edgekd verify BUNDLE"


@pytest.mark.timeout(30)
def test_a_named_pipe_in_a_folder_is_not_opened(bundle: Path, pictures: Path) -> None:
    for name in ("pipe", "pipe.1", "pipe.png"):
        os.mkfifo(pictures / name)
    assert len(list(predict(bundle, [pictures]))) == 3


def test_too_little_memory_for_one_picture_does_not_stop_the_others(
    bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(path: Path) -> np.ndarray:
        if path.name == "b.png":
            raise MemoryError
        return decode(path)

    monkeypatch.setattr("edgekd.predict.decode", starved)
    rows = {Path(row.file).name: row.error for row in predict(bundle, [pictures])}
    assert (rows["a.JPG"], rows["c.png"]) == (None, None)
    assert rows["b.png"] == (
        f"{pictures / 'b.png'}: this machine has too little memory for this picture"
    )
    with pytest.raises(DataError, match=r"b\.png: .* too little memory"):
        list(predict(bundle, [pictures / "b.png"]))


def test_a_picture_that_cannot_be_resized_is_named(
    bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.image.MAX_PIXELS", 16 * 16 - 1)
    monkeypatch.setattr("edgekd.predict.decode", lambda _: np.zeros((9, 9, 3), np.uint8))
    rows = list(predict(bundle, [pictures]))
    assert all((row.error or "").startswith(f"{row.file}: 9x9 pixels become") for row in rows)


def test_a_missing_package_does_not_discard_the_other_answers(
    bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def lacking(path: Path) -> np.ndarray:
        if path.name == "b.png":
            raise MissingOnHost(f"{path}: needs the package 'x'", hint="pip install x")
        return decode(path)

    monkeypatch.setattr("edgekd.predict.decode", lacking)
    (pictures / "a.png").write_bytes(b"also broken")
    assert main(["predict", str(bundle), str(pictures), "--json"]) == 4
    said = capsys.readouterr()
    rows = {Path(row["file"]).name: row for row in json.loads(said.out)}
    assert list(rows) == ["a.JPG", "a.png", "b.png", "c.png"]
    assert rows["b.png"]["error"] == f"{pictures / 'b.png'}: needs the package 'x'"
    assert "needs" not in rows["b.png"]
    assert rows["c.png"]["label"] in CLASSES
    assert "2 of 4 files could not be read" in said.err
    assert "b.png: needs the package 'x'" in said.err
    assert "pip install x" in said.err
    assert main(["predict", str(bundle), str(pictures)]) == 4
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(MissingOnHost, match="needs the package 'x'"):
        list(predict(bundle, [pictures / "b.png"]))

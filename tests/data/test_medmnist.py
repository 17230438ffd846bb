"""MedMNIST .npz files: the official form, and the forms that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data.medmnist import MedMNIST
from edgekd.errors import DataError


def arrays(
    shape: tuple[int, ...] = (28, 28, 3), classes: int = 5, **other: Any
) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for part, count in (("train", 10), ("val", 5), ("test", 6)):
        made[f"{part}_images"] = random.integers(0, 255, (count, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return {**made, **other}


def save(path: Path, **content: np.ndarray[Any, Any]) -> Path:
    np.savez(path, **content)  # type: ignore[arg-type]
    return path


def test_images_come_with_their_official_parts(tmp_path: Path) -> None:
    content = arrays()
    source = MedMNIST(root=save(tmp_path / "retinamnist.npz", **content))
    assert len(source) == 21
    assert source.classes == ("0", "1", "2", "3", "4")
    assert list(source.parts()) == ["train"] * 10 + ["val"] * 5 + ["test"] * 6
    assert (source[12].id, source[12].group) == ("val-000002", "val-000002")
    assert source[12].target == 2
    np.testing.assert_array_equal(source[12].image, content["val_images"][2])
    np.testing.assert_array_equal(source[20].image, content["test_images"][5])
    with pytest.raises(IndexError):
        source[21]


def test_greyscale_gets_three_equal_channels_and_known_sets_their_names(tmp_path: Path) -> None:
    content = arrays((28, 28), classes=2)
    source = MedMNIST(root=save(tmp_path / "pneumoniamnist_64.npz", **content))
    assert source.classes == ("normal", "pneumonia")
    assert source[0].image.shape == (28, 28, 3)
    np.testing.assert_array_equal(source[0].image[..., 2], content["train_images"][0])


def test_a_flag_chooses_a_file_of_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "retinamnist.npz", **arrays())
    assert len(MedMNIST(root=tmp_path)) == 21
    save(tmp_path / "bloodmnist.npz", **arrays())
    assert MedMNIST(root=tmp_path, flag="retinamnist").path.name == "retinamnist.npz"
    with pytest.raises(DataError, match=r"2 .npz files"):
        MedMNIST(root=tmp_path)
    with pytest.raises(DataError, match=r"no retinmnist.npz") as caught:
        MedMNIST(root=tmp_path, flag="retinmnist")
    assert caught.value.hint == "did you mean 'retinamnist'?"
    with pytest.raises(DataError, match="flag is 'bloodmnist'"):
        MedMNIST(root=tmp_path / "retinamnist.npz", flag="bloodmnist")


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    path = save(tmp_path / "retinamnist.npz", **arrays())
    before = MedMNIST(root=path).fingerprint()
    save(path, **arrays(extra=np.zeros(3)))
    assert MedMNIST(root=path).fingerprint() != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros((10, 14), np.uint8)}, "14 labels per image .a multi-label set"),
        ({"train_labels": np.zeros((9, 1), np.uint8)}, "for 10 images"),
        ({"train_labels": np.zeros((10, 1), np.float32)}, "train_labels is float32"),
        ({"val_labels": np.full((5, 1), -1, np.int64)}, "negative label -1"),
        ({"test_images": np.zeros((6, 28, 28, 28), np.uint8)}, "3-D sets cannot be used"),
        ({"test_images": np.zeros((6, 28, 28), np.float32)}, "test_images is float32"),
        ({"test_images": np.array([{}] * 6)}, "cannot be read"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "retinamnist.npz", **arrays(**change))
    with pytest.raises(DataError, match=message):
        MedMNIST(root=path)


def test_a_missing_array_or_a_torn_file_is_named(tmp_path: Path) -> None:
    content = arrays()
    del content["val_labels"]
    with pytest.raises(DataError, match=r"not a MedMNIST file.*val_labels"):
        MedMNIST(root=save(tmp_path / "a.npz", **content))
    path = save(tmp_path / "b.npz", **arrays())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"b\.npz: cannot be read"):
        MedMNIST(root=path)
    with pytest.raises(DataError, match="no such file or folder"):
        MedMNIST(root=tmp_path / "c.npz")

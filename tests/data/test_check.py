"""What `edgekd data check` finds, and that it does not cry wolf."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from edgekd.data import check as check_module
from edgekd.data.base import Image
from edgekd.data.check import check
from edgekd.data.folder import Folder
from edgekd.data.splits import make_split
from edgekd.data.synthetic import Synthetic
from tests.data.plain import Plain
from tests.dicom_files import encoded

PARTS = ["train", "train", "val", "val", "test", "test"]


def lesions(count: int = 6) -> list[Image]:
    source = Synthetic(images=20, size=128, noise=0.02)
    return [source[index].image for index in range(count)]


def copy_of(image: Image, side: int, quality: int) -> Image:
    """The same picture, resized and stored as JPEG."""
    stream = io.BytesIO()
    Pictures.fromarray(image).resize((side, side)).save(stream, "JPEG", quality=quality)
    return np.asarray(Pictures.open(stream))


def run(images: list[Image], *, targets: tuple[int, ...] = (0, 1) * 3, **other: object):  # type: ignore[no-untyped-def]
    source = Plain(targets, parts=PARTS, images=images, **other)  # type: ignore[arg-type]
    return check(source, make_split(source, "official", seed=0, verify=False))


def test_a_sound_set_is_ok_and_counted() -> None:
    report = run(lesions(), groups=["p1", "p1", "p2", "p3", "p4", "p5"])
    assert report.verdict == "ok"
    assert report.problems == report.notes == []
    assert report.counts["train"] == {"c0": 1, "c1": 1}
    assert report.groups == {"train": 1, "val": 2, "test": 2}
    assert (report.images, report.unused) == (6, 0)
    assert report.sizes == {"128x128": 6}
    assert json.loads(json.dumps(report.as_json()))["verdict"] == "ok"


def test_data_without_groups_is_noted() -> None:
    report = run(lesions())
    assert report.verdict == "ok"
    assert report.notes == ["no groups: images of one patient may be in two parts"]


def test_drawn_lesions_are_not_taken_for_copies() -> None:
    source = Synthetic(images=300, size=32)
    report = check(source, make_split(source, "official", seed=0))
    assert report.near == []
    assert report.verdict == "ok"


def test_equal_images_across_parts_are_a_problem() -> None:
    images = lesions()
    images[4] = images[0]
    report = run(images)
    assert report.duplicates == [["i0", "i4"]]
    assert report.problems == [
        "1 sets of equal images reach across parts; the first: i0 (train), i4 (test)"
    ]


def test_equal_images_inside_a_part_are_noted_and_other_labels_are_a_problem() -> None:
    images = lesions()
    images[1] = images[0]
    report = run(images, groups=["p1", "p1", "p2", "p3", "p4", "p5"])
    assert report.notes == ["1 sets of equal images inside one part"]
    assert report.problems == [
        "1 sets of equal images have different labels; the first: i0 (train), i1 (train)"
    ]


def test_resized_and_recompressed_copies_across_parts_are_noted() -> None:
    images = lesions()
    images[4] = copy_of(images[0], 96, 80)
    images[3] = copy_of(images[1], 128, 70)
    report = run(images)
    assert {(pair.first, pair.second) for pair in report.near} == {("i0", "i4"), ("i1", "i3")}
    assert {pair.second_part for pair in report.near} == {"val", "test"}
    assert report.verdict == "ok"
    assert report.notes[0].startswith("2 pairs of nearly equal images reach across parts")


def test_flat_pictures_are_not_all_alike() -> None:
    random = np.random.default_rng(0)
    flat = [random.normal(128, 1, (32, 32, 3)).astype(np.uint8) for _ in range(6)]
    assert run(flat).near == []


def test_pictures_of_one_colour_are_noted() -> None:
    images = lesions()
    images[1] = np.zeros_like(images[1])
    images[4] = np.full_like(images[4], (255, 250, 240))
    images[5] = images[5].copy()
    images[5][:] = images[5][:1, :1]
    images[5][0, 0] += np.uint8(9)  # one pixel is not
    report = run(images)
    assert report.blank == ["i1", "i4"]
    assert "2 images are blank (one colour all over); the first: i1" in report.notes
    assert report.verdict == "ok"


def test_near_duplicates_can_be_left_out() -> None:
    images = lesions()
    images[4] = copy_of(images[0], 96, 80)
    source = Plain([0, 1] * 3, parts=PARTS, images=images)
    split = make_split(source, "official", seed=0)
    assert check(source, split, near=False).near == []


def test_broken_files_are_all_listed(tmp_path: Path) -> None:
    for number, image in enumerate(lesions()):
        path = tmp_path / PARTS[number] / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pictures.fromarray(image).save(path)
        if number in (2, 5):
            path.write_bytes(path.read_bytes()[:400])
    Pictures.fromarray(lesions()[3]).convert("L").save(tmp_path / "val" / "b" / "3.png")
    source = Folder(root=tmp_path)
    report = check(source, make_split(source, "official", seed=0))
    assert [name for name in ("2.png", "5.png") if any(name in b for b in report.broken)] == [
        "2.png", "5.png",
    ]  # fmt: skip
    assert report.problems[0].startswith("2 images cannot be read; the first: ")
    assert report.modes == {"RGB": 3, "L": 1}
    assert "images of several modes: RGB, L" in report.notes


def test_leaks_and_unseen_classes_are_reported_not_raised() -> None:
    report = run(lesions(), targets=(0, 0, 0, 1, 0, 1), groups=["a", "b", "a", "c", "d", "e"],
                 classes=3)  # fmt: skip
    assert report.problems == [
        "class 'c1' has no training image, but 1 in val and 1 in test",
        "class 'c2' has no training image",
        "1 groups (patients, lesions) are in more than one part; the first is 'a', "
        "in train and val",
    ]


def test_bits_are_counted_alike_with_and_without_numpy_2(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    words = np.random.default_rng(0).integers(0, 2**63, (5, 7), dtype=np.uint64)
    expected = [[bin(int(word)).count("1") for word in row] for row in words]
    assert check_module._bit_counter()(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert check_module._bit_counter()(words).tolist() == expected


def test_a_dicom_file_that_was_exported_twice_is_the_same_image(tmp_path: Path) -> None:
    """The second export has other UIDs, so its bytes differ."""
    pixels = [np.random.default_rng(seed).integers(0, 4096, (40, 40)) for seed in range(3)]
    for part, seeds in (("train", (0, 1)), ("test", (0, 2))):
        for number, seed in enumerate(seeds):
            path = tmp_path / part / ("a", "b")[number] / f"IM{seed}"
            path.parent.mkdir(parents=True)
            path.write_bytes(encoded(pixels[seed].astype(np.uint16), BitsStored=12))
    source = Folder(root=tmp_path)
    report = check(source, make_split(source, "official", seed=0, verify=False), near=False)
    assert report.duplicates == [["test/a/IM0", "train/a/IM0"]]
    assert report.modes == {"DICOM": 4}

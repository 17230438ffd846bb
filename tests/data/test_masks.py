"""Mask files as they come: black and white, numbers, palettes, grey borders, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgekd.data._masks import (
    check_size,
    checked_mask,
    classes_shown,
    image_size,
    read_binary,
    read_classes,
    read_grey,
)
from edgekd.data.read import ImageStore, read_truth
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.recipe_data import InputSpec
from tests.data.plain import Plain

SHAPE = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], dtype=np.uint8)


def save(path: Path, pixels: npt.NDArray[np.generic], **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("high", [1, 7, 255])
def test_a_mask_is_0_and_one_other_value(tmp_path: Path, high: int) -> None:
    mask = read_binary(save(tmp_path / "a.png", SHAPE * np.uint8(high)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, SHAPE)


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_may_be_of_one_value_all_over(tmp_path: Path, value: int) -> None:
    mask = read_binary(save(tmp_path / "a.png", np.full((3, 4), value, dtype=np.uint8)))
    assert mask.tolist() == [[int(value > 0)] * 4] * 3


def test_other_modes_mean_the_same(tmp_path: Path) -> None:
    colours = np.zeros((*SHAPE.shape, 3), dtype=np.uint8)
    colours[SHAPE > 0] = (255, 0, 0)
    palette = Image.fromarray(SHAPE).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=b"\0\xff")  # Pillow would warn of it
    files = [
        save(tmp_path / "bits.png", SHAPE > 0),
        save(tmp_path / "red.png", colours),
        save(tmp_path / "opaque.png", np.dstack([colours, np.full_like(SHAPE, 255)])),
        save(tmp_path / "deep.png", SHAPE.astype(np.uint16) * 65535),
        save(tmp_path / "deep_ones.png", SHAPE.astype(np.uint16)),
        save(tmp_path / "float.tif", SHAPE.astype(np.float32)),
        tmp_path / "palette.png",
    ]
    for path in files:
        np.testing.assert_array_equal(read_binary(path), SHAPE, err_msg=path.name)


def test_grey_borders_are_refused_and_the_hint_says_what_to_type(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.arange(0, 80, 10, dtype=np.uint8).reshape(2, 4))
    with pytest.raises(
        DataError, match=r"a\.png: 8 grey values .0, 10, 20.*\.\.\.., expected"
    ) as got:
        read_binary(path)
    assert "data.params.threshold=128" in (got.value.hint or "")
    assert read_binary(path, threshold=40).tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_jpeg_needs_a_threshold(tmp_path: Path) -> None:
    square = np.zeros((32, 32), dtype=np.uint8)
    square[5:21, 7:20] = 255
    path = save(tmp_path / "a.jpg", square, quality=60)
    with pytest.raises(DataError, match="grey values"):
        read_binary(path)
    np.testing.assert_array_equal(read_binary(path, threshold=128), square > 0)


def test_deep_values_that_mean_no_class_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 300, 900]], dtype=np.uint16))
    with pytest.raises(DataError, match=r"a\.png: values from 0 to 900, expected 0 to 255"):
        read_grey(path)
    path = save(tmp_path / "b.tif", np.array([[0, 0.5, 1]], dtype=np.float32))
    with pytest.raises(DataError, match=r"b\.tif: values from 0\.0 to 1\.0"):
        read_grey(path)


def test_a_mask_painted_on_nothing_is_refused(tmp_path: Path) -> None:
    """Its colour alone would be an empty mask."""
    painted = np.zeros((*SHAPE.shape, 4), dtype=np.uint8)
    painted[..., 3] = SHAPE * 255
    with pytest.raises(DataError, match=r"a\.png: a mask with transparent pixels"):
        read_binary(save(tmp_path / "a.png", painted))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: no such mask"):
        read_grey(tmp_path / "none.png")
    (tmp_path / "text.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"text\.png: cannot be read as a mask: it is no picture"):
        read_grey(tmp_path / "text.png")
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8)
    cut = save(tmp_path / "cut.png", noise)
    cut.write_bytes(cut.read_bytes()[:200])
    for read in (read_grey, read_binary, lambda path: read_classes(path, {0: 0, 1: 1})):
        with pytest.raises(DataError, match=r"cut\.png: cannot be read as a mask"):
            read(cut)


def test_a_bomb_is_refused_like_any_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", SHAPE)
    monkeypatch.setattr("edgekd.data._masks.MAX_PIXELS", 7)
    with pytest.raises(DataError, match=r"a\.png: 4x2 pixels, the limit is"):
        read_grey(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)  # Pillow itself refuses twice that
    with pytest.raises(DataError, match=r"a\.png: cannot be read as a mask: .*bomb"):
        read_grey(path)


def test_several_classes_are_numbers_or_the_values_given(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    path = save(tmp_path / "a.png", numbers)
    assert read_classes(path, {0: 0, 1: 1, 2: 2}).tolist() == [[0, 1, 2, 255]]
    assert read_classes(path, {0: 1, 1: 0, 2: 2}).tolist() == [[1, 0, 2, 255]]
    assert read_classes(path, {0: 0, 1: 1, 2: 2, 255: 3}).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(DataError, match=r"a\.png: the values 2 are of no class, expected 0, 1"):
        read_classes(path, {0: 0, 1: 1})
    grey = np.repeat(numbers[..., None], 3, axis=2)
    assert read_classes(save(tmp_path / "rgb.png", grey), {0: 0, 1: 1, 2: 2}).tolist() == [
        [0, 1, 2, 255]
    ]
    grey[0, 1] = (1, 2, 3)
    with pytest.raises(DataError, match=r"rgb\.png: a picture in colours"):
        read_classes(save(tmp_path / "rgb.png", grey), {0: 0, 1: 1, 2: 2})


def test_of_a_palette_the_indices_are_the_classes(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "a.png")
    assert read_classes(tmp_path / "a.png", {0: 0, 1: 1, 2: 2}).tolist() == [[0, 1, 2]]


def test_the_header_tells_the_size_that_decoding_gives(tmp_path: Path) -> None:
    pixels = np.zeros((6, 10, 3), dtype=np.uint8)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    for path in (save(tmp_path / "plain.png", pixels), tmp_path / "turned.jpg"):
        assert image_size(path) == decode(path).shape[:2]
    assert image_size(tmp_path / "turned.jpg") == (10, 6)
    (tmp_path / "text.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"text\.png: cannot be read as an image"):
        image_size(tmp_path / "text.png")


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ((10, 20), (10, 20)),
        ((450, 600), (150, 200)),  # three times as large
        ((400, 600), (67, 100)),  # reduced: the sides were rounded
        ((60, 100), (301, 500)),
        ((1, 1), (500, 500)),
    ],
)
def test_a_mask_may_be_evenly_larger_or_smaller(
    mask: tuple[int, int], image: tuple[int, int]
) -> None:
    pixels = np.zeros(mask, dtype=np.uint8)
    assert check_size(pixels, image, Path("m.png")) is pixels


@pytest.mark.parametrize(
    ("mask", "image"), [((20, 10), (10, 20)), ((256, 256), (256, 260)), ((450, 600), (160, 200))]
)
def test_a_mask_of_another_shape_is_not_of_this_image(
    mask: tuple[int, int], image: tuple[int, int]
) -> None:
    with pytest.raises(DataError, match=rf"m\.png: {mask[1]}x{mask[0]} pixels, its image has"):
        check_size(np.zeros(mask, dtype=np.uint8), image, Path("m.png"))


class Own(Plain):
    """Somebody's own source: one image, and a mask of the values given."""

    has_masks = True

    def __init__(self, values: list[int], classes: tuple[str, ...], file: Path | None) -> None:
        super().__init__([0])
        self.values, self.classes, self.file = values, classes, file

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        return np.array([self.values], dtype=np.uint8)

    def mask_files(self) -> list[Path] | None:
        return None if self.file is None else [self.file]


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([0, 1, 2], ("lesion",), r"m\.png: value 2 in the mask, expected 0 to 1"),
        ([0, 255, 254, 1], ("lesion",), r"m\.png: value 254 in the mask, expected 0 to 1"),
        ([0, 3, 2, 7], ("a", "b", "c"), r"m\.png: value 3 in the mask, expected 0 to 2"),
    ],
)
def test_a_value_of_no_class_is_refused_whoever_wrote_the_source(
    values: list[int], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        checked_mask(Own(values, classes, Path("m.png")), 0)
    assert caught.value.hint == "255 is for pixels of unknown class"
    with pytest.raises(DataError, match=r"^i0: value"):  # by its id where it has no file
        checked_mask(Own(values, classes, None), 0)


def test_such_a_mask_neither_trains_nor_scores() -> None:
    """As a signed byte 200 would be below 0: a pixel whose class is not known."""
    source, spec = Own([0, 200, 1], ("lesion",), Path("m.png")), InputSpec(size=16)
    for read in (
        lambda: ImageStore(source, spec).mask(0),
        lambda: read_truth(source, [0], spec, masks=True),
    ):
        with pytest.raises(DataError, match=r"m\.png: value 200 in the mask, expected 0 to 1"):
            read()


def test_classes_and_unknown_pixels_are_values_of_a_mask() -> None:
    for values, classes in (([0, 1, 255], ("lesion",)), ([0, 1, 2, 255], ("a", "b", "c"))):
        assert checked_mask(Own(values, classes, None), 0).tolist() == [values]


def test_what_masks_show_is_counted_and_the_broken_are_counted_too() -> None:
    masks = [np.zeros((2, 2), dtype=np.uint8), np.eye(2, dtype=np.uint8)]
    masks.append(np.array([[2, 255]], dtype=np.uint8))
    assert classes_shown(2, masks.__getitem__, 1).tolist() == [[False], [True]]
    assert classes_shown(3, masks.__getitem__, 3).tolist() == [
        [True, False, False], [True, True, False], [False, False, True],
    ]  # fmt: skip

    def mask(index: int) -> npt.NDArray[np.uint8]:
        if index:
            raise DataError(f"{index}.png: damaged", hint="mend it")
        return masks[0]

    with pytest.raises(DataError, match=r"1\.png: damaged .and 2 more masks") as caught:
        classes_shown(4, mask, 1)
    assert caught.value.hint == "mend it"

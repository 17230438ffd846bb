"""One's own images with masks: the usual layouts, and files that do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgekd.data.folder_masks import FolderMasks
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe_data import DataSpec
from tests.dicom_files import encoded


def draw(root: Path, *names: str) -> Path:
    """Images of 6 x 8 pixels, masks (by their names) of 0 and 255 that differ."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "mask" in name:
            mask = np.zeros((6, 8), dtype=np.uint8)
            mask[:2, : 1 + number % 8] = 255
            Image.fromarray(mask).save(path)
        else:
            Image.fromarray(np.full((6, 8, 3), number, dtype=np.uint8)).save(path)
    return root


def both(root: Path, *stems: str, suffix: str = "") -> Path:
    return draw(root, *(f"images/{stem}.png" for stem in stems),
                *(f"masks/{stem}{suffix}.png" for stem in stems))  # fmt: skip


def paint(path: Path, values: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(values).save(path)


def test_two_folders_with_equal_names(tmp_path: Path) -> None:
    root = draw(tmp_path, "images/b.jpg", "images/a.png", "masks/a.tif", "masks/b.png")
    (root / "masks" / "notes.txt").write_text("not a mask")
    (root / "images" / ".b.png").write_bytes(b"hidden")
    source = FolderMasks(root=root)
    assert source.classes == ("foreground",)
    assert source.has_masks
    assert source.ids() == source.groups() == ["a", "b"]
    assert source.parts() is None
    assert [path.name for path in source.files()] == ["a.png", "b.jpg"]
    assert [path.name for path in source.mask_files()] == ["a.tif", "b.png"]
    assert source.mask(0)[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert source[1].image.shape == (6, 8, 3)
    assert (source[1].id, source[1].target) == ("b", 0)


def test_masks_may_be_gif(tmp_path: Path) -> None:
    """As Kaggle hands some out: a palette, black and white, one frame."""
    root = draw(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a_mask.gif", "masks/b_mask.gif")
    source = FolderMasks(root=root, suffix="_mask")
    assert [path.name for path in source.mask_files()] == ["a_mask.gif", "b_mask.gif"]
    assert source.mask(0)[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert source.mask(0)[2:].max() == 0
    numbers = np.array([[0, 1, 2, 2, 1, 0, 0, 0]] * 6, dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(numbers).save(root / "masks" / f"{name}_mask.gif")
    several = FolderMasks(root=root, suffix="_mask", classes=["none", "vein", "artery"])
    np.testing.assert_array_equal(several.mask(1), numbers)


def test_of_several_frames_the_first_is_the_mask(tmp_path: Path) -> None:
    root = both(tmp_path, "a")
    (root / "masks" / "a.png").unlink()
    frames = [Image.fromarray(np.full((6, 8), value, dtype=np.uint8)) for value in (255, 0)]
    frames[0].save(root / "masks" / "a.gif", save_all=True, append_images=frames[1:])
    assert FolderMasks(root=root).mask(0).min() == 1


def test_a_value_of_no_class_is_refused_with_its_file(tmp_path: Path) -> None:
    root = several(tmp_path)
    values = np.zeros((6, 8), dtype=np.uint8)
    values[3, :3] = (3, 200, 255)
    paint(root / "masks" / "b.png", values)
    source = FolderMasks(root=root, classes=["none", "benign", "tumour"])
    with pytest.raises(DataError, match=r"b\.png: the values 3, 200 are of no class") as caught:
        source.mask(1)
    assert "data.params.values" in (caught.value.hint or "")
    with pytest.raises(DataError, match=r"b\.png: the values 3, 200"):
        source.targets()


def test_masks_beside_their_images(tmp_path: Path) -> None:
    root = draw(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png")
    source = FolderMasks(root=root, images=".", masks=".", suffix="_mask", classes=["polyp"])
    assert source.ids() == ["a", "b"]
    assert [path.name for path in source.mask_files()] == ["a_mask.png", "b_mask.png"]
    with pytest.raises(DataError, match="images and masks are in one folder") as caught:
        FolderMasks(root=root, images=".", masks=".")
    assert caught.value.hint == "data.params.suffix=_mask"


def test_masks_in_a_folder_among_the_images(tmp_path: Path) -> None:
    root = draw(tmp_path, "a.png", "b.png", "masks/a.png", "masks/b.png")
    assert FolderMasks(root=root, images=".").ids() == ["a", "b"]


def test_a_suffix_that_is_not_given_is_suggested(tmp_path: Path) -> None:
    root = both(tmp_path, "a", "b", suffix="_segmentation_mask")
    message = r"images/a\.png: there is no mask 'a' in .*masks \(2 of 2 images have none\)"
    with pytest.raises(DataError, match=message) as caught:
        FolderMasks(root=root)
    assert caught.value.hint == "data.params.suffix=_segmentation_mask"
    assert FolderMasks(root=root, suffix="_segmentation_mask").ids() == ["a", "b"]


@pytest.mark.parametrize("around", [True, False])
def test_part_folders_are_the_official_split(tmp_path: Path, around: bool) -> None:
    names = ["{}train{}/a", "{}train{}/b", "{}valid{}/a", "{}test{}/c"]
    for kind in ("images", "masks"):
        place = ("", f"/{kind}") if around else (f"{kind}/", "")
        draw(tmp_path, *(name.format(*place) + ".png" for name in names))
    for mask in tmp_path.rglob("*.png"):
        if "masks" in mask.as_posix():
            paint(mask, np.eye(6, 8, dtype=np.uint8))
    source = FolderMasks(root=tmp_path)
    parts = dict(zip(source.ids(), source.parts() or (), strict=True))
    assert parts == {"train/a": "train", "train/b": "train", "valid/a": "val", "test/c": "test"}
    split = make_split(source, "official", seed=0)
    assert [source.ids()[i] for i in split.test] == ["test/c"]


def test_an_image_beside_the_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images/x\.png: is in no part"):
        FolderMasks(root=both(tmp_path, "train/a", "test/b", "x"))
    (tmp_path / "other" / "test").mkdir(parents=True)
    both(tmp_path / "other" / "train", "a")
    with pytest.raises(DataError, match=r"test: no folder 'images'"):
        FolderMasks(root=tmp_path / "other")


def test_an_image_without_mask_is_named_and_the_others_counted(tmp_path: Path) -> None:
    root = both(tmp_path, "a", "b", "c")
    (root / "masks" / "c.png").unlink()
    (root / "masks" / "b.png").rename(root / "masks" / "bb.png")
    with pytest.raises(DataError, match=r"images/b\.png: there is no mask 'b'.*\(2 of 3") as got:
        FolderMasks(root=root)
    assert got.value.hint is None  # `b` would be no suffix of `c`


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_a_mask_without_image_is_named_and_the_others_counted(tmp_path: Path, suffix: str) -> None:
    root = both(tmp_path, "a", "b", "c", suffix=suffix)
    for name in ("b", "c"):
        (root / "images" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=rf"masks/b{suffix}\.png: there is no image.*\(2 of 3"):
        FolderMasks(root=root, suffix=suffix)


def test_a_mask_without_the_suffix_is_one_without_an_image(tmp_path: Path) -> None:
    root = draw(both(tmp_path, "a", suffix="_mask"), "masks/a.png")
    with pytest.raises(DataError, match=r"masks/a\.png: there is no image"):
        FolderMasks(root=root, suffix="_mask")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    root = draw(both(tmp_path, "a"), "images/a.jpg")
    with pytest.raises(DataError, match=r"a\.png: a\.jpg has the same name"):
        FolderMasks(root=root)


def test_folders_below_are_patients_only_if_the_recipe_says_so(tmp_path: Path) -> None:
    root = both(tmp_path, "p1/v1/a", "p1/v2/a", "p2/b", "c")
    with pytest.raises(DataError, match="is 'p1' a patient") as caught:
        FolderMasks(root=root)
    assert "data.params.group=folder" in (caught.value.hint or "")
    source = FolderMasks(root=root, group="folder")
    assert dict(zip(source.ids(), source.groups(), strict=True)) == {
        "p1/v1/a": "p1", "p1/v2/a": "p1", "p2/b": "p2", "c": "c",
    }  # fmt: skip
    loose = FolderMasks(root=root, group="image")
    assert loose.groups() == loose.ids()


def test_a_table_gives_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = both(tmp_path, "a", "b", "c", "d/e")
    table = root / "groups.csv"
    table.write_text("\ufeffid,group\na.png,p1\nb,p1\nd\\e,p2\nzzz,p9\n")
    source = FolderMasks(root=root, groups="groups.csv")
    assert dict(zip(source.ids(), source.groups(), strict=True)) == {
        "a": "p1", "b": "p1", "c": "c", "d/e": "p2",
    }  # fmt: skip
    said = capsys.readouterr().err.replace("\n", " ")
    assert "1 of 4 images have no group, the first is 'c'" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,patient\na,p\n", "no column group; found id, patient"),
        ("id,group\na,p\nb,\n", "row 3: id or group is empty"),
        ("id,group\na,p\na.png,q\n", "row 3: a is in two groups"),
        ("id,group\nx,p\n", "lists none of the 2 images, the first is 'a'"),
        (None, "no such file"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    root = both(tmp_path, "a", "b")
    if text is not None:
        (root / "t.csv").write_text(text)
    with pytest.raises(DataError, match=rf"t\.csv.*{message}") as caught:
        FolderMasks(root=root, groups="t.csv")
    if "two groups" not in message:
        assert "columns id and group" in (caught.value.hint or "")
    with pytest.raises(DataError, match="that table says it"):
        FolderMasks(root=root, groups="t.csv", group="image")


def test_images_with_and_without_the_class_are_two_kinds(tmp_path: Path) -> None:
    root = both(tmp_path, "a", "b", "c")
    paint(root / "masks" / "b.png", np.zeros((6, 8), dtype=np.uint8))
    source = FolderMasks(root=root, classes=["polyp"])
    assert source.kinds() == ("without polyp", "with polyp")
    assert source.targets().tolist() == [1, 0, 1]
    (root / "images" / "b.png").unlink()
    (root / "masks" / "b.png").unlink()
    assert FolderMasks(root=root, classes=["polyp"]).kinds() == ("with polyp",)


def test_an_empty_mask_in_the_test_part_alone_is_no_class_that_training_never_saw(
    tmp_path: Path,
) -> None:
    root = both(tmp_path, "train/a", "train/b", "val/c", "test/d", "test/e")
    paint(root / "masks" / "test" / "d.png", np.zeros((6, 8), dtype=np.uint8))
    source = FolderMasks(root=root)
    assert source.kinds() == ("images",)
    make_split(source, "official", seed=0)


def several(root: Path, high: int = 1) -> Path:
    both(root, "a", "b", "c")
    for number, name in enumerate("abc"):
        values = np.zeros((6, 8), dtype=np.uint8)
        values[0] = high
        values[1, :number] = 2 * high
        paint(root / "masks" / f"{name}.png", values)
    return root


def test_several_classes_are_numbered_in_their_order(tmp_path: Path) -> None:
    source = FolderMasks(root=several(tmp_path), classes=["none", "benign", "tumour"])
    assert source.classes == ("none", "benign", "tumour")
    assert np.unique(source.mask(2)).tolist() == [0, 1, 2]
    assert source.kinds() == ("none", "tumour")  # the rarest that an image shows, ties the first
    assert source.targets().tolist() == [0, 1, 1]


def test_grey_values_may_be_named_and_255_is_unknown(tmp_path: Path) -> None:
    root = several(tmp_path, high=100)
    edge = np.zeros((6, 8), dtype=np.uint8)
    edge[0, :4] = (0, 100, 200, 255)
    paint(root / "masks" / "a.png", edge)
    values = {"tumour": 200, "none": 0, "benign": 100}
    source = FolderMasks(root=root, values=values)
    assert source.classes == ("tumour", "none", "benign")
    assert source.mask(0)[0, :4].tolist() == [1, 2, 0, 255]
    ordered = FolderMasks(root=root, values=values, classes=["none", "benign", "tumour"])
    assert ordered.mask(0)[0, :4].tolist() == [0, 1, 2, 255]
    assert ordered.fingerprint() != source.fingerprint()
    with pytest.raises(DataError, match=r"b\.png: the values 100, 200 are of no class"):
        FolderMasks(root=root, classes=["none", "benign", "tumour"]).mask(1)


def test_black_and_white_for_two_classes_is_not_taken_for_unknown(tmp_path: Path) -> None:
    """255 is unknown where classes are numbers: every lesion would silently not count."""
    root = both(tmp_path, "a", "b")
    source = FolderMasks(root=root, classes=["background", "lesion"])
    with pytest.raises(DataError, match="no mask shows 'lesion'") as caught:
        source.targets()
    assert "data.params.values" in (caught.value.hint or "")
    source = FolderMasks(root=root, values={"background": 0, "lesion": 255})
    assert source.mask(0).max() == 1


def test_a_threshold_makes_grey_masks_black_and_white(tmp_path: Path) -> None:
    root = both(tmp_path, "a")
    paint(root / "masks" / "a.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
    with pytest.raises(DataError, match=r"a\.png: 48 grey values"):
        FolderMasks(root=root).targets()
    source = FolderMasks(root=root, threshold=40)
    assert source.mask(0).sum() == 8
    assert source.fingerprint() != FolderMasks(root=root, threshold=41).fingerprint()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    root = both(tmp_path, "a", "b", "c")
    for name in "bc":
        paint(root / "masks" / f"{name}.png", np.zeros((8, 6), dtype=np.uint8))
    source = FolderMasks(root=root)
    assert source.mask(0).any()
    with pytest.raises(DataError, match=r"b\.png: 6x8 pixels, its image has 8x6: they are not"):
        source.mask(1)
    with pytest.raises(DataError, match=r"b\.png: 6x8 .*\(and 1 more masks\)"):
        source.targets()


def test_dicom_images_with_drawn_masks(tmp_path: Path) -> None:
    root = draw(tmp_path, "masks/1.2.840.1.png", "masks/1.2.840.2.png")
    (root / "images").mkdir()
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 4096, (6, 8)).astype(np.uint16)
        (root / "images" / f"1.2.840.{number}").write_bytes(encoded(pixels, BitsStored=12))
    source = FolderMasks(root=root)
    assert source.ids() == ["1.2.840.1", "1.2.840.2"]
    assert source[0].image.shape == (*source.mask(0).shape, 3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"images": "pictures"}, "no folder 'pictures', and none of train, val, test; found image"),
        ({"masks": "labels"}, "labels: no such folder"),
        ({"classes": ["a", "a"]}, "names a class twice"),
        ({"classes": [str(n) for n in range(128)]}, "128 classes, at most 127"),
        ({"threshold": 0}, "threshold: 0, expected 1 to 255"),
        ({"threshold": 9, "classes": ["a", "b"]}, "expected 1 to 255 and one class"),
        ({"values": {"lesion": 1}}, "one class is what is not 0"),
        ({"values": {"a": 1, "b": 1}}, "expected a value of its own"),
        ({"values": {"a": 0, "b": 256}}, "expected a value of its own"),
        ({"values": {"a": 0, "lesion": 1}, "classes": ["a", "lesions"]}, "'lesions' is in only"),
        ({"values": {"a": 0, "b": 1, "c": 2}, "classes": ["a", "b"]}, "'c' is in only one"),
    ],
)
def test_parameters_that_cannot_be_are_named(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        FolderMasks(root=both(tmp_path, "a"), **params)


def test_a_recipe_opens_it(tmp_path: Path) -> None:
    root = both(tmp_path, "a", "b")
    params: dict[str, Any] = {"values": {"none": 0, "lesion": 255}}
    source = open_source(DataSpec(name="folder_masks", root=str(root), params=params))
    assert source.classes == ("none", "lesion")
    with pytest.raises(RecipeError, match=r"data\.params\.mask: ") as caught:
        open_source(DataSpec(name="folder_masks", root=str(root), params={"mask": "x"}))
    assert caught.value.hint == "did you mean 'masks'?"
    for kind in ("images", "masks"):
        (tmp_path / "none" / kind).mkdir(parents=True)
    with pytest.raises(DataError, match="no images in this folder"):
        FolderMasks(root=tmp_path / "none")
    with pytest.raises(DataError, match="no such folder"):
        FolderMasks(root=tmp_path / "nowhere")

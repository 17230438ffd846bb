"""HAM10000 on disk: the layout of Kaggle and Dataverse, and what may be wrong with it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data._rebalance import rebalanced
from edgekd.data._split_problems import split_problems
from edgekd.data.ham10000 import HAM10000
from edgekd.data.splits import make_split
from edgekd.errors import DataError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp",
    "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp",
    "HAM_0002730,ISIC_0026769,nv,histo,,unknown,scalp",
    "HAM_0001466,ISIC_0031633,mel,histo,75.0,male,ear",
]


def make(root: Path, rows: list[str] = ROWS, header: str = HEADER, both: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "HAM10000_metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    parts = ("HAM10000_images_part_1", "HAM10000_images_part_2") if both else ("HAM10000_images",)
    for number, row in enumerate(rows):
        folder = root / parts[number % len(parts)]
        folder.mkdir(exist_ok=True)
        picture = np.full((15, 20, 3), 40 * number % 256, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{row.split(',')[1]}.jpg")
    return root


def test_it_reads_the_published_layout(tmp_path: Path) -> None:
    source = HAM10000(root=make(tmp_path))
    assert source.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert source.ids() == ["ISIC_0027419", "ISIC_0025030", "ISIC_0026769", "ISIC_0031633"]
    assert source.targets().tolist() == [2, 2, 5, 4]
    assert source.groups()[0] == source.groups()[1] == "HAM_0000118"
    assert source.parts() is None
    assert source[3].image.shape == (15, 20, 3)
    assert (source[3].target, source[3].group) == (4, "HAM_0001466")
    assert source.files()[0].name == "ISIC_0027419.jpg"


def of_lesions(root: Path) -> HAM10000:
    """Lesions with one to three images each, the kinds in very different numbers."""
    lesions = {"nv": 60, "mel": 20, "bkl": 15, "bcc": 12, "akiec": 10, "vasc": 8, "df": 8}
    rows = []
    for dx, count in lesions.items():
        for lesion in range(count):
            for view in range(1 + lesion % 3):
                name = f"{dx}{lesion}"
                rows.append(f"HAM_{name},ISIC_{name}_{view},{dx},histo,50,male,ear")
    rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    return HAM10000(root=make(root, rows))


def test_images_of_one_lesion_stay_in_one_part_and_each_part_has_its_share_of_each_kind(
    tmp_path: Path,
) -> None:
    source = of_lesions(tmp_path)
    split = make_split(source, "75-10-15", seed=0)
    assert not split_problems(source, split)
    homes = [{source.groups()[index] for index in part} for _, part in split.items()]
    assert sum(map(len, homes)) == len(set(source.groups())) == 133
    total = np.bincount(source.targets(), minlength=7)
    for (_, part), share in zip(split.items(), (0.75, 0.1, 0.15), strict=True):
        found = np.bincount(source.targets()[part], minlength=7)
        np.testing.assert_allclose(found, total * share, atol=3)


def test_the_training_part_can_be_brought_to_the_mean_count_of_its_kinds(tmp_path: Path) -> None:
    source = of_lesions(tmp_path)
    train = make_split(source, "75-10-15", seed=0).train
    targets = source.targets()[train]
    drawn = source.targets()[rebalanced(train, targets, seed=0)]
    assert set(Counter(drawn.tolist()).values()) == {round(len(train) / 7)}


def test_an_image_may_be_in_either_of_the_two_folders(tmp_path: Path) -> None:
    root = make(tmp_path)
    first, second = root / "HAM10000_images_part_1", root / "HAM10000_images_part_2"
    for path in list(first.iterdir()):
        path.rename(second / path.name)
    source = HAM10000(root=root)
    assert {path.parent.name for path in source.files()} == {second.name}
    assert len(source) == 4
    first.rmdir()
    assert len(HAM10000(root=root)) == 4


def test_an_image_in_both_folders_is_one_image(tmp_path: Path) -> None:
    root = make(tmp_path)
    first, second = root / "HAM10000_images_part_1", root / "HAM10000_images_part_2"
    for path in list(second.iterdir()):
        shutil.copyfile(path, first / path.name)
    assert len(set(HAM10000(root=root).files())) == len(HAM10000(root=root)) == 4


def test_the_second_tree_in_lower_case_that_kaggles_archive_has_is_no_other_data(
    tmp_path: Path,
) -> None:
    root = make(tmp_path)
    before = HAM10000(root=root)
    for path in list(root.glob("HAM10000_images_*")):
        shutil.copytree(path, root / path.name.lower(), dirs_exist_ok=True)
    after = HAM10000(root=root)
    assert after.ids() == before.ids()
    assert after.fingerprint() == before.fingerprint()


def test_dataverse_gives_the_metadata_no_ending(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "HAM10000_metadata.csv").rename(root / "HAM10000_metadata")
    assert HAM10000(root=root).targets().tolist() == [2, 2, 5, 4]


def test_other_files_of_the_download_are_not_read(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "hmnist_28_28_RGB.csv").write_text("pixel0000,label\n1,2\n")
    (root / "HAM10000_images_part_1" / "._ISIC_0027419.jpg").write_bytes(b"\0\5\26\7")
    (root / "HAM10000_images_part_1" / "ISIC_9999999.jpg").write_bytes(b"of no row")
    assert len(HAM10000(root=root)) == 4


def test_unknown_age_and_sex_stay_as_published(tmp_path: Path) -> None:
    facts = HAM10000(root=make(tmp_path)).attributes()
    assert facts["age"] == ["80.0", "80.0", "", "75.0"]
    assert facts["sex"][2] == "unknown"
    assert facts["localization"][3] == "ear"


def test_one_image_folder_and_lower_case_names_do_too(tmp_path: Path) -> None:
    one = HAM10000(root=make(tmp_path / "one", both=False))
    assert one[0].id == "ISIC_0027419"
    lower = make(tmp_path / "lower")
    for path in list(lower.iterdir()):
        path.rename(lower / path.name.lower())
    assert HAM10000(root=lower)[0].id == "ISIC_0027419"


def add_masks(root: Path, folder: Path | None = None, times: int = 3) -> Path:
    """A mask for every row of ROWS, `times` the sides of its image; the first has a palette."""
    folder = folder or root / "HAM10000_segmentations_lesion_tschandl"
    folder.mkdir(parents=True)
    for number, row in enumerate(ROWS):
        mask = np.zeros((15 * times, 20 * times), dtype=np.uint8)
        mask[: (number + 2) * times, : 7 * times] = 1
        picture = Image.fromarray(mask * np.uint8(255))
        if number == 0:
            picture = Image.fromarray(mask).convert("P")
            picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(folder / f"{row.split(',')[1]}_segmentation.png")
    return root


def test_with_masks_the_lesion_is_the_class_and_diagnoses_are_the_kinds(tmp_path: Path) -> None:
    root = add_masks(make(tmp_path))
    source, plain = HAM10000(root=root, masks=True), HAM10000(root=root)
    assert source.classes == ("lesion",)
    assert source.kinds() == plain.kinds() == plain.classes
    assert (source.has_masks, plain.has_masks) == (True, False)
    assert source.targets().tolist() == plain.targets().tolist() == [2, 2, 5, 4]
    assert source.groups() == plain.groups()
    assert [path.name for path in source.mask_files() or ()][:2] == [
        "ISIC_0027419_segmentation.png", "ISIC_0025030_segmentation.png",
    ]  # fmt: skip
    assert plain.mask_files() is None
    assert HAM10000.classes == plain.classes  # of the class, not of this one


def test_masks_three_times_the_images_sides_are_0_and_1(tmp_path: Path) -> None:
    source = HAM10000(root=add_masks(make(tmp_path)), masks=True)
    for index in range(4):
        mask = source.mask(index)
        assert mask.shape == (45, 60)
        assert mask.dtype == np.uint8
        assert mask[: (index + 2) * 3, :21].all()
        assert mask.sum() == (index + 2) * 3 * 21


def test_masks_with_a_palette_become_0_and_1(tmp_path: Path) -> None:
    root = add_masks(make(tmp_path), times=1)
    source = HAM10000(root=root)  # one may look at them without learning them
    assert source.mask(0)[:3, 6:8].tolist() == [[1, 0], [1, 0], [0, 0]]


def test_masks_unpacked_into_a_folder_of_their_own_name_are_found(tmp_path: Path) -> None:
    name = "HAM10000_segmentations_lesion_tschandl"
    add_masks(make(tmp_path), folder=tmp_path / name / name)
    assert HAM10000(root=tmp_path, masks=True).mask(1).any()


def test_a_changed_mask_is_other_data_only_where_masks_are_learned(tmp_path: Path) -> None:
    root = add_masks(make(tmp_path))
    before = [HAM10000(root=root, masks=masks).fingerprint() for masks in (False, True)]
    path = root / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0026769_segmentation.png"
    Image.fromarray(np.zeros((45, 60), dtype=np.uint8)).save(path)
    after = [HAM10000(root=root, masks=masks).fingerprint() for masks in (False, True)]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


@pytest.mark.parametrize("masks", [False, True])
def test_without_the_masks_folder_it_says_what_to_download(tmp_path: Path, masks: bool) -> None:
    with pytest.raises(DataError, match="no folder HAM10000_segmentations") as caught:
        HAM10000(root=make(tmp_path), masks=masks).mask(0)
    assert "ham10000-lesion-segmentations" in (caught.value.hint or "")


def test_missing_masks_are_named_before_anything_is_learned(tmp_path: Path) -> None:
    root = add_masks(make(tmp_path))
    folder = root / "HAM10000_segmentations_lesion_tschandl"
    for name in ("ISIC_0025030", "ISIC_0031633"):
        (folder / f"{name}_segmentation.png").unlink()
    with pytest.raises(DataError, match=r"0025030_segmentation\.png: no such mask \(2 of 4 images"):
        HAM10000(root=root, masks=True)
    with pytest.raises(DataError, match=r"0025030_segmentation\.png: no such mask$"):
        HAM10000(root=root).mask(1)


def test_a_mask_of_another_picture_or_with_grey_values_is_refused(tmp_path: Path) -> None:
    root = add_masks(make(tmp_path))
    folder = root / "HAM10000_segmentations_lesion_tschandl"
    Image.fromarray(np.zeros((60, 45), dtype=np.uint8)).save(
        folder / "ISIC_0025030_segmentation.png"
    )
    grey = np.arange(45 * 60).reshape(45, 60).astype(np.uint8)
    Image.fromarray(grey).save(folder / "ISIC_0026769_segmentation.png")
    source = HAM10000(root=root, masks=True)
    with pytest.raises(DataError, match=r"0025030_segm.*: 45x60 pixels, its image has 20x15"):
        source.mask(1)
    with pytest.raises(DataError, match=r"0026769_segm.*: 256 grey values"):
        source.mask(2)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    for path in root.glob("HAM10000_images_part_2/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"2 of 4 images .* first is ISIC_0025030\.jpg"):
        HAM10000(root=root)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    source = HAM10000(root=root)
    source.files()[1].write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match=r"ISIC_0025030.jpg: cannot be read as an image"):
        source[1]


def test_an_image_listed_twice_names_both_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ISIC_0027419 is in row 2 and again in row 6"):
        HAM10000(root=make(tmp_path, [*ROWS, ROWS[0]]))


def test_a_diagnosis_that_does_not_exist_names_its_row(tmp_path: Path) -> None:
    rows = [*ROWS[:2], "HAM_1,ISIC_1,wart,histo,80.0,male,scalp"]
    with pytest.raises(DataError, match="row 4: dx is 'wart', expected one of akiec"):
        HAM10000(root=make(tmp_path, rows))


def test_another_header_is_refused(tmp_path: Path) -> None:
    header = HEADER.replace("lesion_id", "lesion").replace("dx,", "diagnosis,", 1)
    with pytest.raises(DataError, match="no column lesion_id, dx; found lesion,"):
        HAM10000(root=make(tmp_path, header=header))


def test_wrong_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        HAM10000(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no HAM10000_metadata.csv"):
        HAM10000(root=tmp_path)
    (tmp_path / "HAM10000_metadata.csv").write_text(HEADER + "\n" + ROWS[0] + "\n")
    with pytest.raises(DataError, match="neither HAM10000_images_part_1"):
        HAM10000(root=tmp_path)

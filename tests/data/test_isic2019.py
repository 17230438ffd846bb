"""ISIC 2019 on disk: the challenge's layout and Kaggle's, and what may be wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.isic2019 import ISIC2019
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe_data import DataSpec

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
SMALL = "ISIC_0000029_downsampled"
IMAGES = [("ISIC_0000000", "NV"), ("ISIC_0000002", "MEL"), (SMALL, "SCC"), ("ISIC_0024306", "NV")]
FACTS = [
    "ISIC_0000000,55.0,anterior torso,,female",
    "ISIC_0000002,,head/neck,BCN_0000017,",
    f"{SMALL},40.0,,BCN_0000017,male",
    "ISIC_0024306,45.0,upper extremity,HAM_0000550,male",
]
TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
INPUT = "ISIC_2019_Training_Input"


def one_hot(name: str, label: str) -> str:
    marks = ["1.0" if label == column else "0.0" for column in (*CLASSES, "UNK")]
    return ",".join([name, *marks])


def make(root: Path, images: list[tuple[str, str]] = IMAGES, rows: list[str] | None = None) -> Path:
    (root / INPUT).mkdir(parents=True)
    header = ",".join(["image", *CLASSES, "UNK"])
    rows = [one_hot(name, label) for name, label in images] if rows is None else rows
    (root / TRUTH).write_text("\n".join([header, *rows]) + "\n")
    facts = ["image,age_approx,anatom_site_general,lesion_id,sex", *FACTS]
    (root / METADATA).write_text("\n".join(facts) + "\n")
    for number, (name, _) in enumerate(images):
        picture = np.full((15, 20, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(picture).save(root / INPUT / f"{name}.jpg")
    (root / INPUT / "ATTRIBUTION.txt").write_text("and a licence lie beside the images")
    return root


def test_it_reads_the_published_layout(tmp_path: Path) -> None:
    source = ISIC2019(root=make(tmp_path))
    assert source.classes == CLASSES
    assert source.ids() == [name for name, _ in IMAGES]
    assert source.targets().tolist() == [1, 0, 7, 1]
    assert source[2].image.shape == (15, 20, 3)
    assert (source[2].id, source[2].target, source[2].group) == (SMALL, 7, "BCN_0000017")
    assert [path.name for path in source.files()] == [f"{name}.jpg" for name, _ in IMAGES]
    assert source.parts() is None


def test_a_recipe_finds_it_by_name(tmp_path: Path) -> None:
    spec = DataSpec(name="isic2019", root=str(make(tmp_path)), params={"unknown": "drop"})
    assert len(open_source(spec)) == 4
    with pytest.raises(RecipeError, match=r"data\.params\.unknown.*got 'other'"):
        open_source(spec.model_copy(update={"params": {"unknown": "other"}}))


def test_images_of_one_lesion_are_a_group_and_without_a_lesion_the_image_is_its_own(
    tmp_path: Path,
) -> None:
    source = ISIC2019(root=make(tmp_path))
    assert source.groups() == ["ISIC_0000000", "BCN_0000017", "BCN_0000017", "HAM_0000550"]
    assert [source[index].group for index in range(4)] == source.groups()
    split = make_split(source, "2-1-1", seed=0, verify=False)
    home = {index: part for part, indices in split.items() for index in indices.tolist()}
    assert home[1] == home[2]


def test_age_sex_and_site_stay_as_published(tmp_path: Path) -> None:
    facts = ISIC2019(root=make(tmp_path)).attributes()
    assert facts["age"] == ["55.0", "", "40.0", "45.0"]
    assert facts["sex"] == ["female", "", "male", "male"]
    assert facts["localization"] == ["anterior torso", "head/neck", "", "upper extremity"]


def test_kaggles_folder_in_a_folder_and_lower_case_names_do_too(tmp_path: Path) -> None:
    root = make(tmp_path / "kaggle")
    (root / INPUT).rename(root / "images")
    (root / INPUT).mkdir()
    (root / "images").rename(root / INPUT / INPUT)
    assert ISIC2019(root=root)[3].id == "ISIC_0024306"
    lower = make(tmp_path / "lower")
    for path in list(lower.iterdir()):
        path.rename(lower / path.name.lower())
    assert ISIC2019(root=lower).fingerprint() == ISIC2019(root=root).fingerprint()


@pytest.mark.parametrize("place", ["file", "truth", "metadata"])
def test_an_image_is_found_where_one_place_leaves_out_that_it_was_made_smaller(
    tmp_path: Path, place: str
) -> None:
    root, plain = make(tmp_path), SMALL.removesuffix("_downsampled")
    if place == "file":
        (root / INPUT / f"{SMALL}.jpg").rename(root / INPUT / f"{plain}.jpg")
    else:
        table = root / {"truth": TRUTH, "metadata": METADATA}[place]
        table.write_text(table.read_text().replace(SMALL, plain))
    source = ISIC2019(root=root)
    assert source[2].group == "BCN_0000017"
    assert source.ids()[2] == (plain if place == "truth" else SMALL)


def test_two_rows_may_not_mean_one_file(tmp_path: Path) -> None:
    root = make(tmp_path)
    with (root / TRUTH).open("a") as file:
        file.write(one_hot("ISIC_0000029", "SCC") + "\n")
    with pytest.raises(DataError, match=r"row 6: .*_downsampled\.jpg is the image of .*row 4 too"):
        ISIC2019(root=root)


UNKNOWN = [*IMAGES[:3], ("ISIC_0024306", "UNK")]


def test_the_empty_column_of_unknowns_is_no_class_and_may_be_missing(tmp_path: Path) -> None:
    root = make(tmp_path)
    assert ISIC2019(root=root, unknown="keep").classes == CLASSES
    text = (root / TRUTH).read_text().splitlines()
    (root / TRUTH).write_text("\n".join(line.rpartition(",")[0] for line in text) + "\n")
    assert ISIC2019(root=root).targets().tolist() == [1, 0, 7, 1]


def test_images_marked_unknown_are_counted_and_one_must_say_what_to_do(tmp_path: Path) -> None:
    root = make(tmp_path, UNKNOWN)
    with pytest.raises(DataError, match=r"GroundTruth\.csv, row 5: 1 images are UNK") as caught:
        ISIC2019(root=root)
    assert "unknown=drop" in (caught.value.hint or "")
    assert "unknown=keep" in (caught.value.hint or "")
    dropped, kept = ISIC2019(root=root, unknown="drop"), ISIC2019(root=root, unknown="keep")
    assert (len(dropped), dropped.classes) == (3, CLASSES)
    assert (len(kept), kept.classes) == (4, (*CLASSES, "UNK"))
    assert kept.targets().tolist() == [1, 0, 7, 8]
    assert len(dropped.attributes()["age"]) == len(dropped.groups()) == len(dropped.files()) == 3
    assert ISIC2019.classes == CLASSES  # of the class, not of this one


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("ISIC_1,0.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0", r"ISIC_1 has 2 classes \(NV, BCC\)"),
        ("ISIC_1,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", r"ISIC_1 has 0 classes \(all are 0\)"),
        ("ISIC_1,0.0,0.7,0.3,0.0,0.0,0.0,0.0,0.0,0.0", "NV of ISIC_1 is '0.7', expected 0.0 or"),
        ("ISIC_1,0.0,,1.0,0.0,0.0,0.0,0.0,0.0,0.0", "NV of ISIC_1 is '', expected 0.0 or 1.0"),
        ("ISIC_1,0.0,nan,1.0,0.0,0.0,0.0,0.0,0.0,0.0", "NV of ISIC_1 is 'nan'"),
        ("ISIC_1,1.0", "2 values for 10 columns"),
        (",0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "image is empty"),
        (one_hot("ISIC_0000000", "NV"), "ISIC_0000000 is there already: .*row 2"),
        (one_hot("ISIC_1", "NV"), r"there is no ISIC_1\.jpg in .* \(1 of 5 images are missing\)"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, match: str) -> None:
    rows = [*(one_hot(name, label) for name, label in IMAGES), row]
    with pytest.raises(DataError, match=r"GroundTruth\.csv, row 6: .*" + match):
        ISIC2019(root=make(tmp_path, rows=rows))


def test_an_image_that_no_row_names_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    shutil.copy(root / INPUT / "ISIC_0000000.jpg", root / INPUT / "ISIC_9999999.jpg")
    with pytest.raises(DataError, match=r"ISIC_9999999\.jpg: no row of .* \(1 of 5 images have"):
        ISIC2019(root=root)


def test_an_image_without_metadata_is_named_and_rows_of_other_images_are_not_read(
    tmp_path: Path,
) -> None:
    root = make(tmp_path)
    with (root / METADATA).open("a") as file:
        file.write("ISIC_0073254,,,,\n")
    assert len(ISIC2019(root=root)) == 4
    text = (root / METADATA).read_text()
    (root / METADATA).write_text(text.replace("ISIC_0000002", "ISIC_0000003"))
    with pytest.raises(DataError, match=r"no row for image ISIC_0000002 \(1 of 4 images"):
        ISIC2019(root=root)


@pytest.mark.parametrize("name", [TRUTH, METADATA, INPUT])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    root = make(tmp_path)
    shutil.rmtree(root / name) if name == INPUT else (root / name).unlink()
    with pytest.raises(DataError, match=rf"no {name} in this folder") as caught:
        ISIC2019(root=root)
    assert "data.root=FOLDER" in (caught.value.hint or "")


def test_another_header_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    text = (root / TRUTH).read_text()
    (root / TRUTH).write_text(text.replace("image,MEL,NV", "image,mel,NV", 1))
    with pytest.raises(DataError, match=r"the header has no column MEL; found image, mel, NV"):
        ISIC2019(root=root)
    with pytest.raises(DataError, match="no such folder"):
        ISIC2019(root=tmp_path / "nowhere")

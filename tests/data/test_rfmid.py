"""RFMiD on disk: two layouts, diseases too rare to learn, and what may be wrong with the tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from edgekd.data.read import open_source
from edgekd.data.rfmid import RFMiD
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe import DataSpec

HEADER = "ID,Disease_Risk,DR,ARMD,MH,DN"
# ID, risk, DR, ARMD, MH, DN: ARMD is missing in test, DN is in one training image only
ROWS: dict[str, list[str]] = {
    "train": ["1,1,1,0,0,0", "2,1,1,1,0,0", "3,0,0,0,0,0", "12,1,0,1,1,1"],
    "val": ["1,1,1,1,0,0", "2,1,0,0,1,1"],
    "test": ["1,0,0,0,0,0", "2,1,1,0,0,0", "3,1,0,0,1,1"],
}
CHALLENGE = {
    "train": ("Training_Set", "RFMiD_Training_Labels.csv", "Training"),
    "val": ("Evaluation_Set", "RFMiD_Validation_Labels.csv", "Validation"),
    "test": ("Test_Set", "RFMiD_Testing_Labels.csv", "Test"),
}
IEEE = {
    "train": ("a. RFMiD_Training_Labels.csv", "a. Training Set"),
    "val": ("b. RFMiD_Validation_Labels.csv", "b. Validation Set"),
    "test": ("c. RFMiD_Testing_Labels.csv", "c. Testing Set"),
}
IDS = ["train/1", "train/2", "train/3", "train/12", "val/1", "val/2", "test/1", "test/2", "test/3"]


def make(
    root: Path,
    layout: Literal["challenge", "inner", "ieee"] = "challenge",
    *,
    rows: Mapping[str, Sequence[str]] = {},
    headers: Mapping[str, str] = {},
    suffix: str = ".png",
) -> Path:
    for number, part in enumerate(ROWS):
        if layout == "ieee":
            table = root / "2. Groundtruths" / IEEE[part][0]
            images = root / "1. Original Images" / IEEE[part][1]
        else:
            folder = root / CHALLENGE[part][0]
            folder = folder / folder.name if layout == "inner" else folder
            table, images = folder / CHALLENGE[part][1], folder / CHALLENGE[part][2]
        table.parent.mkdir(parents=True, exist_ok=True)
        images.mkdir(parents=True)
        lines = [headers.get(part, HEADER), *rows.get(part, ROWS[part])]
        # as published: with a byte-order mark
        table.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
        for row in ROWS[part]:
            id = row.split(",")[0]
            picture = np.full((6, 8, 3), 20 * int(id) + number, dtype=np.uint8)
            Image.fromarray(picture).save(images / f"{id}{suffix}")
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("layout", ["challenge", "inner", "ieee"])
def test_it_reads_the_published_layouts(
    tmp_path: Path, layout: Literal["challenge", "inner", "ieee"]
) -> None:
    source = RFMiD(root=make(tmp_path, layout), rare="keep")
    assert source.has_labels
    assert source.classes == ("DR", "ARMD", "MH", "DN")
    assert source.ids() == IDS
    assert source.parts() == ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    assert source.labels().dtype == np.int8
    assert source.labels()[:4].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert source.labels()[-1].tolist() == [0, 0, 1, 1]
    assert [path.name for path in source.files()][:4] == ["1.png", "2.png", "3.png", "12.png"]


@pytest.mark.parametrize("layout", ["inner", "ieee"])
def test_the_folder_above_will_do(tmp_path: Path, layout: Literal["inner", "ieee"]) -> None:
    (tmp_path / "__MACOSX" / "Training_Set").mkdir(parents=True)  # as an archive leaves it
    make(tmp_path / "A. RFMiD_All_Classes_Dataset", layout)
    assert RFMiD(root=tmp_path).ids() == IDS


def test_upper_and_lower_case_do_not_matter(tmp_path: Path) -> None:
    root = make(tmp_path)
    table = root / "Test_Set" / "RFMiD_Testing_Labels.csv"
    table.rename(table.with_name("RFMiD_Testing_labels.csv"))
    assert RFMiD(root=root).ids() == IDS


def test_numbers_restart_in_each_part_and_ids_do_not(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path))
    assert len(set(source.ids())) == len(source) == 9
    assert source.groups() == source.ids()
    for part, number in (("train", 20), ("val", 21), ("test", 22)):
        sample = source[source.ids().index(f"{part}/1")]
        assert sample.image[0, 0, 0] == number
        assert (sample.id, sample.group) == (f"{part}/1", f"{part}/1")


def test_an_image_counts_for_its_rarest_disease(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path), rare="keep")  # DR 4, ARMD 3, MH 3, DN 3
    assert source.kinds() == ("DR", "ARMD", "MH", "DN", "none")
    assert source.targets().tolist() == [0, 1, 4, 1, 1, 2, 4, 0, 2]
    assert [source[i].target for i in range(9)] == source.targets().tolist()


def test_a_disease_that_some_part_does_not_show_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = RFMiD(root=make(tmp_path))
    assert source.classes == ("DR", "MH", "DN")
    assert source.labels().shape == (9, 3)
    assert "1 of 4 diseases are rare and left out: ARMD" in said(capsys)


def test_a_disease_with_too_few_training_images_is_left_out(tmp_path: Path) -> None:
    assert RFMiD(root=make(tmp_path), minimum=2).classes == ("DR",)
    with pytest.raises(DataError, match="all 4 diseases are rare") as caught:
        RFMiD(root=tmp_path, minimum=9)
    assert caught.value.hint == "data.params.rare=keep"
    with pytest.raises(RecipeError, match=r"data\.params\.minimum: 0, expected 1 or more"):
        RFMiD(root=tmp_path, minimum=0)


def test_an_image_that_shows_only_what_is_left_out_shows_none(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path), minimum=2)  # DR alone is left
    assert source.targets().tolist() == [0, 0, 1, 1, 0, 1, 1, 0, 1]
    assert source.kinds() == ("DR", "none")


def test_rare_diseases_may_be_one_class(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path), minimum=2, rare="group")
    assert source.classes == ("DR", "OTHER")
    assert source.labels().dtype == np.int8
    assert source.labels()[:, 1].tolist() == [0, 1, 0, 1, 1, 1, 0, 0, 1]


def test_a_class_of_the_rest_that_is_rare_itself_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = RFMiD(root=make(tmp_path), rare="group")  # ARMD alone, and no test image shows it
    assert source.classes == ("DR", "MH", "DN")
    assert "left out: ARMD" in said(capsys)


def test_rare_diseases_may_be_kept(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path), minimum=9, rare="keep")
    assert source.classes == ("DR", "ARMD", "MH", "DN")


def test_classes_may_be_chosen_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = RFMiD(root=make(tmp_path), classes=["MH", "DR"])
    assert source.classes == ("MH", "DR")
    assert source.labels()[0].tolist() == [0, 1]
    assert "left out" not in said(capsys)  # they were not asked for
    grouped = RFMiD(root=tmp_path, classes=["MH", "DR"], rare="group")
    assert grouped.classes == ("MH", "DR", "OTHER")


def test_a_chosen_class_that_is_rare_is_refused_unless_kept(tmp_path: Path) -> None:
    message = "ARMD is rare, 2 train, 1 val and 0 test images show it"
    for rare in ("drop", "group"):
        with pytest.raises(DataError, match=message) as caught:
            RFMiD(root=make(tmp_path / rare), classes=["DR", "ARMD"], rare=rare)
        assert "data.params.rare=keep" in (caught.value.hint or "")
    source = RFMiD(root=tmp_path / "drop", classes=["DR", "ARMD"], rare="keep")
    assert source.classes == ("DR", "ARMD")


def test_a_class_that_is_not_there_or_named_twice_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    with pytest.raises(DataError, match="there is no disease 'ARM'") as caught:
        RFMiD(root=root, classes=["ARM"])
    assert caught.value.hint == "did you mean 'ARMD'?"
    with pytest.raises(DataError, match="there is no disease 'Disease_Risk'"):
        RFMiD(root=root, classes=["Disease_Risk"])
    with pytest.raises(DataError, match="names a class twice"):
        RFMiD(root=root, classes=["DR", "DR"])
    with pytest.raises(DataError, match="no class is named"):
        RFMiD(root=root, classes=[])


def test_risk_and_diseases_that_contradict_each_other_are_said_and_the_diseases_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"train": ["1,0,1,0,0,0", "2,1,1,1,0,0", "3,1,0,0,0,0", "12,1,0,1,1,1"]}
    source = RFMiD(root=make(tmp_path, rows=rows), rare="keep")
    assert source.labels()[[0, 2]].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    text = said(capsys)
    assert "1 of 4 images have Disease_Risk 0 and a disease, the first is 1" in text
    assert "1 of 4 images have Disease_Risk 1 and no disease, the first is 3" in text


def test_consistent_tables_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RFMiD(root=make(tmp_path), rare="keep")
    assert said(capsys) == ""


def test_a_set_without_healthy_images_is_read(tmp_path: Path) -> None:
    rows = {part: [row for row in rows if row.split(",")[1] == "1"] for part, rows in ROWS.items()}
    source = RFMiD(root=make(tmp_path, rows=rows))
    assert len(source) == 7
    assert len(source.kinds()) - 1 not in source.targets()


def test_resized_copies_may_be_jpeg(tmp_path: Path) -> None:
    assert RFMiD(root=make(tmp_path, suffix=".jpg")).files()[0].name == "1.jpg"


def test_a_recipe_opens_it_by_name(tmp_path: Path) -> None:
    params = {"minimum": 2, "rare": "group"}
    spec = DataSpec(name="rfmid", root=str(make(tmp_path)), input={"size": 16}, params=params)
    assert open_source(spec).classes == ("DR", "OTHER")
    wrong = DataSpec(name="rfmid", root=str(tmp_path), input={"size": 16}, params={"rare": "no"})
    with pytest.raises(RecipeError, match=r"data\.params\.rare"):
        open_source(wrong)


def test_the_published_split_is_the_official_one(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path), classes=["DR"])
    split = make_split(source, "official", seed=0, verify=False)
    assert [len(part) for _, part in split.items()] == [4, 2, 3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,1,1,2,0,0", r"row 3: ARMD of image 2 is '2', expected 0 or 1"),
        ("2,1,1,,0,0", r"row 3: ARMD of image 2 is '', expected 0 or 1"),
        ("2,yes,1,0,0,0", r"row 3: Disease_Risk of image 2 is 'yes', expected 0 or 1"),
        (",1,1,0,0,0", r"row 3: ID is empty"),
        ("1,1,1,0,0,0", r"row 3: ID 1 is already in .*row 2"),
        ("2,1,1,0,0", r"row 3: 5 values for 6 columns"),
        ("4,1,1,0,0,0", r"1 of 2 images of RFMiD_Training_Labels\.csv are missing, .* 4\.png"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    root = make(tmp_path, rows={"train": ["1,1,1,0,0,0", row]})
    with pytest.raises(DataError, match=message) as caught:
        RFMiD(root=root)
    assert "Training" in str(caught.value)


def test_tables_of_different_columns_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "a", headers={"val": "ID,Disease_Risk,DR,ARMD,MH,XX"})
    with pytest.raises(DataError, match=r"Validation_Labels\.csv: has no column DN, unlike"):
        RFMiD(root=root)
    root = make(tmp_path / "b", headers={"test": "ID,Risk,DR,ARMD,MH,DN"})
    with pytest.raises(DataError, match=r"Testing_Labels\.csv: the header has no column Disease_R"):
        RFMiD(root=root)


def test_columns_in_another_order_are_the_same_columns(tmp_path: Path) -> None:
    swapped = {"val": ["1,0,1,1,0,1", "2,1,0,0,1,1"]}
    root = make(tmp_path, headers={"val": "ID,DN,MH,ARMD,DR,Disease_Risk"}, rows=swapped)
    source = RFMiD(root=root, rare="keep")
    assert source.labels()[4:6].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    shutil.rmtree(root / "Evaluation_Set")
    with pytest.raises(DataError, match="no 'Evaluation_Set' here"):
        RFMiD(root=root)
    with pytest.raises(DataError, match=r"neither Training_Set nor '1\. Original Images' is here"):
        RFMiD(root=root / "Test_Set" / "Test")
    with pytest.raises(DataError, match="no such folder"):
        RFMiD(root=root / "nowhere")


def test_an_image_in_two_formats_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    images = root / "Training_Set" / "Training"
    shutil.copyfile(images / "1.png", images / "1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg and 1\.png are both here"):
        RFMiD(root=root)


def test_labels_cannot_be_written_into(tmp_path: Path) -> None:
    source = RFMiD(root=make(tmp_path))
    source.labels()[:] = 1
    source.targets()[:] = 0
    assert source.labels().sum() < source.labels().size
    assert source.targets().any()


def test_a_changed_label_is_another_data_set(tmp_path: Path) -> None:
    first = RFMiD(root=make(tmp_path / "a"), rare="keep").fingerprint()
    assert RFMiD(root=make(tmp_path / "b", "ieee"), rare="keep").fingerprint() == first
    rows = {"test": ["1,0,0,0,0,0", "2,1,1,0,0,0", "3,1,0,0,1,0"]}
    assert RFMiD(root=make(tmp_path / "c", rows=rows), rare="keep").fingerprint() != first

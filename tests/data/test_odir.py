"""ODIR-5K on disk: marks are of the patient, labels of the eye, and what may be wrong with both."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data._odir_keywords import CLASSES, NORMAL, diseases_of, is_known, keywords_of
from edgekd.data.odir import ODIR
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, MissingOnHost
from edgekd.recipe import DataSpec
from tests.data.grading_layouts import write_csv, write_xlsx

HEADER = ("ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus",
          "Left-Diagnostic Keywords", "Right-Diagnostic Keywords", *CLASSES)  # fmt: skip
OFFICIAL = "ODIR-5K_Training_Annotations(Updated)_V2.xlsx"
Cells = tuple[object, ...]


def patient(id: int, left: str, right: str, marks: str, age: object = 60) -> Cells:
    """A row; `marks` are the letters that are 1."""
    flags = [int(name in marks) for name in CLASSES]
    return (id, age, "Female", f"{id}_left.jpg", f"{id}_right.jpg", left, right, *flags)


PATIENTS = [
    patient(0, "cataract", "normal fundus", "C", 69),
    patient(1, "normal fundus", "normal fundus", "N", 57),
    patient(4, "macular epiretinal membrane", "mild nonproliferative retinopathy", "DO", 53.0),
    # both eyes, several findings, the comma of the published table
    patient(7, "drusen，pathological myopia", "suspected glaucoma， lens dust", "GMO", None),
]


def draw(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture = np.full((6, 8, 3), 10 * number, dtype=np.uint8)
        Image.fromarray(picture).save(folder / name)


def make(
    root: Path,
    rows: Sequence[Cells] = PATIENTS,
    *,
    header: Sequence[object] = HEADER,
    table: str = "ODIR-5K/data.xlsx",
    images: str = "ODIR-5K/Training Images",
) -> Path:
    write_xlsx(root / table, rows, header)
    draw(root / images, [str(name) for row in rows for name in row[3:5]])
    return root


def kaggle(root: Path, rows: Sequence[Cells] = PATIENTS, without: str = "7_right.jpg") -> Path:
    """Kaggle's table, one row per image, in its order: the right eyes, then the left ones."""
    lines: list[Cells] = []
    for place in (4, 3):
        for row in rows:
            if row[place] != without:
                # its `labels` and `target` are of the eye, but have one class only
                lines.append((*row, f"../input/{row[place]}", "['N']", "[1, 0]", row[place]))
    write_csv(root / "full_df.csv", lines, [*HEADER, "filepath", "labels", "target", "filename"])
    draw(root / "preprocessed_images", [str(line[-1]) for line in lines])
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def shown(source: ODIR) -> dict[str, str]:
    """The letters of each image; `?` where nothing is known."""
    return {
        id: "?" if row[0] < 0 else "".join(np.array(CLASSES)[row == 1])
        for id, row in zip(source.ids(), source.labels(), strict=True)
    }


def test_labels_are_of_the_eye_and_not_of_the_patient(tmp_path: Path) -> None:
    source = ODIR(root=make(tmp_path))
    assert source.has_labels
    assert source.classes == ("N", "D", "G", "C", "A", "H", "M", "O")
    assert shown(source) == {
        "0_left": "C", "0_right": "N", "1_left": "N", "1_right": "N", "4_left": "O",
        "4_right": "D", "7_left": "MO", "7_right": "G",
    }  # fmt: skip
    assert source.labels().dtype == np.int8


def test_both_eyes_are_of_one_group(tmp_path: Path) -> None:
    source = ODIR(root=make(tmp_path))
    assert source.groups() == ["0", "0", "1", "1", "4", "4", "7", "7"]
    sample = source[6]
    assert (sample.id, sample.group, sample.image[0, 0, 0]) == ("7_left", "7", 60)
    assert source.parts() is None
    split = make_split(source, "2-1-1", seed=0, verify=False)
    homes = [{source.groups()[index] for index in part} for _, part in split.items()]
    assert sum(map(len, homes)) == len(set.union(*homes))


def test_an_image_counts_for_its_rarest_class(tmp_path: Path) -> None:
    source = ODIR(root=make(tmp_path))
    assert source.kinds() == (*CLASSES, "none")
    kinds = [source.kinds()[target] for target in source.targets()]
    assert kinds == ["C", "N", "N", "N", "O", "D", "M", "G"]
    assert [source[index].target for index in range(8)] == source.targets().tolist()


def test_age_and_sex_are_attributes(tmp_path: Path) -> None:
    facts = ODIR(root=make(tmp_path)).attributes()
    assert facts["age"] == ["69", "69", "57", "57", "53", "53", "", ""]
    assert facts["sex"] == ["Female"] * 8


def test_the_eyes_of_a_patient_have_together_what_the_patient_is_marked_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ODIR(root=make(tmp_path))
    labels, groups = source.labels(), np.array(source.groups())
    for row in PATIENTS:
        together = (labels[groups == str(row[0])] == 1).any(axis=0)
        together[0] &= not together[1:].any()  # a patient with one healthy eye is not healthy
        assert together.astype(int).tolist() == list(row[7:])
    assert "disagree" not in said(capsys)


def test_patients_whose_marks_and_keywords_disagree_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*PATIENTS, patient(9, "glaucoma", "normal fundus", "NG"),
            patient(10, "lens dust", "lens dust", "N"),  # the keywords say nothing
            patient(11, "cataract", "cataract", "")]  # fmt: skip
    ODIR(root=make(tmp_path, rows))
    text = said(capsys)
    assert "the marks of 2 of 6 patients disagree with the keywords of their eyes" in text
    assert "the first is 9 is marked N+G, its keywords say G" in text


def test_both_eyes_are_compared_where_only_one_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ODIR(root=kaggle(tmp_path))
    assert "7_right" not in source.ids()
    assert "disagree" not in said(capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal fundus", ""),
        ("drusen", "O"),
        ("Dry age-related macular degeneration", "A"),
        ("suspected cataract", "C"),
        ("suspicious diabetic retinopathy", "D"),
        ("suspected moderate non proliferative retinopathy", "D"),
        ("moderate non-proliferative retinopathy", "D"),
        ("severe  nonproliferative retinopathy ", "D"),
        ("suspected abnormal color of  optic disc", "O"),
        ("hypertensive retinopathy,diabetic retinopathy", "DH"),
        ("myopia retinopathy，cataract,glaucoma", "CGM"),
        ("maculopathy", "O"),  # not the macula's degeneration,
        ("myopic maculopathy", "M"),  # and not this
        ("intraretinal microvascular abnormality", "O"),
        ("low image quality，maculopathy", "O"),
        ("lens dust，normal fundus", ""),
        ("no fundus image", ""),
        ("", ""),
    ],
)
def test_keywords_are_read_as_the_table_says(text: str, expected: str) -> None:
    assert "".join(sorted(diseases_of(keywords_of(text)))) == expected
    assert all(is_known(keyword) for keyword in keywords_of(text))


def test_a_keyword_that_nobody_knows_counts_as_other_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [patient(1, "blue spots", "blue spots，glaucoma", "GO"),
            *(patient(n, f"finding {n}", NORMAL, "O") for n in range(2, 9))]  # fmt: skip
    source = ODIR(root=make(tmp_path, rows))
    assert shown(source)["1_left"] == "O"
    assert shown(source)["1_right"] == "GO"
    text = said(capsys)
    assert text.count("warning") == 1
    assert "8 keywords are not known and count as O: 'blue spots' (2), 'finding 2' (1)" in text
    assert text.endswith("and 3 more")


def test_a_disease_beside_a_normal_fundus_makes_it_not_normal(tmp_path: Path) -> None:
    rows = [*PATIENTS, patient(9, "normal fundus，drusen", NORMAL, "O")]
    assert shown(ODIR(root=make(tmp_path, rows)))["9_left"] == "O"


POOR = [
    *PATIENTS,
    patient(8, "low image quality", "image offset，cataract", "C"),
    patient(9, "lens dust，normal fundus", "optic disk photographically invisible", "N"),
]


def test_keywords_of_the_photograph_say_nothing_about_disease(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ODIR(root=make(tmp_path, POOR))
    assert len(source) == 12
    found = shown(source)
    assert {id: found[id] for id in ("8_left", "8_right", "9_left", "9_right")} == {
        "8_left": "?", "8_right": "C", "9_left": "N", "9_right": "?"
    }  # fmt: skip
    assert source.labels()[source.ids().index("8_left")].tolist() == [-1] * 8
    assert source.targets()[source.ids().index("8_left")] == -1
    assert "of 2 images the keywords say nothing about disease: they have no labels" in said(capsys)


def test_poor_photographs_may_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ODIR(root=make(tmp_path, POOR), poor="drop")
    assert source.ids() == [f"{n}_{side}" for n in (0, 1, 4) for side in ("left", "right")] + [
        "7_left"
    ]
    assert "5 of 12 images are left out, they are poor" in said(capsys)
    with pytest.raises(DataError, match="none of the images shows a fundus well"):
        ODIR(root=make(tmp_path / "b", [patient(1, "lens dust", "lens dust", "N")]), poor="drop")


def test_what_shows_no_fundus_is_always_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*PATIENTS, patient(9, "no fundus image", "anterior segment image", "O")]
    assert len(ODIR(root=make(tmp_path, rows))) == 8
    text = said(capsys)
    assert "2 of 10 images are left out, they show no fundus" in text
    assert "disagree" not in text


def test_an_eye_without_keywords_has_no_labels(tmp_path: Path) -> None:
    rows = [*PATIENTS, patient(9, "", "cataract", "C")]
    assert shown(ODIR(root=make(tmp_path, rows)))["9_left"] == "?"


@pytest.mark.parametrize(
    ("table", "images"),
    [
        ("data.xlsx", "Training Images"),
        ("ODIR-5K/ODIR-5K/data.xlsx", "ODIR-5K/ODIR-5K/Training Images"),
        (OFFICIAL, "ODIR-5K_Training_Images/ODIR-5K_Training_Dataset"),
        (f"ODIR-5K/{OFFICIAL}", "ODIR-5K/ODIR-5K_Training_Dataset"),
    ],
)
def test_names_and_folders_may_be_the_official_or_the_mirrors(
    tmp_path: Path, table: str, images: str
) -> None:
    assert len(ODIR(root=make(tmp_path, table=table, images=images))) == 8


def test_kaggles_table_has_a_row_for_each_image(tmp_path: Path) -> None:
    source = ODIR(root=kaggle(tmp_path))
    assert source.ids() == ["0_right", "1_right", "4_right", "0_left", "1_left", "4_left", "7_left"]
    everything = shown(ODIR(root=make(tmp_path / "all")))
    assert shown(source) == {id: everything[id] for id in source.ids()}
    assert source.files()[0].parent.name == "preprocessed_images"


def test_of_two_tables_and_two_folders_the_recipe_may_name_one(tmp_path: Path) -> None:
    root = kaggle(make(tmp_path))
    assert len(ODIR(root=root)) == 8
    source = ODIR(root=root, table="full_df.csv", images="preprocessed_images")
    assert (len(source), source.files()[0].parent.name) == (7, "preprocessed_images")
    params = {"table": "full_df.csv", "poor": "drop"}
    spec = DataSpec(name="odir", root=str(root), input={"size": 16}, params=params)
    opened = open_source(spec)
    assert len(opened) == 7
    assert (opened.files() or [Path()])[0].parent.name == "Training Images"
    with pytest.raises(DataError, match=r"data\.params\.table: .*other\.xlsx is not there"):
        ODIR(root=root, table="other.xlsx")


def test_missing_images_are_counted(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "ODIR-5K" / "Training Images" / "4_right.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 8 images of data\.xlsx are missing.*4_right\.jpg"):
        ODIR(root=root)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of data\.xlsx, .* full_df\.csv is here"):
        ODIR(root=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        ODIR(root=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(*PATIENTS[0][:7], 2, *PATIENTS[0][8:])], r"row 2: N is '2', expected 0 or 1"),
        ([(*PATIENTS[0][:14], None)], r"row 2: O is '', expected 0 or 1"),
        ([(None, *PATIENTS[0][1:])], r"row 2: ID is '', expected a name"),
        (
            [(*PATIENTS[0][:3], "../1.jpg", *PATIENTS[0][4:])],
            r"row 2: Left-Fundus is '\.\./1\.jpg'",
        ),
        ([*PATIENTS, PATIENTS[0]], r"row 6: image 0_left\.jpg is already in .*row 2"),
        (
            [*PATIENTS, patient(0, "glaucoma", NORMAL, "G", 69)],
            r"row 6: Left-Diagnostic Keywords of patient 0 is not what .*row 2 says",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: Sequence[Cells], message: str) -> None:
    root = make(tmp_path)
    write_xlsx(root / "ODIR-5K" / "data.xlsx", rows, HEADER)
    with pytest.raises(DataError, match=rf"data\.xlsx, {message}"):
        ODIR(root=root)


def test_a_file_name_of_neither_eye_is_named(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    path = root / "full_df.csv"
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    lines[1][-1] = "9_left.jpg"
    write_csv(path, lines[1:], lines[0])
    with pytest.raises(DataError, match=r"row 2: filename is '9_left\.jpg', expected 0_left\.jpg"):
        ODIR(root=root)


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    """Of Kaggle's table there are copies with the columns filename and target only."""
    root = kaggle(tmp_path)
    write_csv(root / "full_df.csv", [("0_left.jpg", "[0, 1]")], ("filename", "target"))
    with pytest.raises(DataError, match=r"no column ID, Patient Age, .*; found filename, target"):
        ODIR(root=root)


def test_without_openpyxl_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = kaggle(make(tmp_path))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingOnHost, match="data 'odir' needs the package 'openpyxl'") as caught:
        ODIR(root=root)
    assert caught.value.hint == "pip install 'edgekd[train]'"
    assert len(ODIR(root=root, table="full_df.csv")) == 7  # needs none


def test_a_file_that_is_no_sheet_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "ODIR-5K" / "data.xlsx").write_text("no sheet")
    with pytest.raises(DataError, match=r"data\.xlsx: cannot be read as an \.xlsx table"):
        ODIR(root=root)


def test_keywords_are_in_the_fingerprint(tmp_path: Path) -> None:
    first = ODIR(root=make(tmp_path / "a")).fingerprint()
    assert ODIR(root=make(tmp_path / "b")).fingerprint() == first
    rows = [patient(0, "glaucoma", "normal fundus", "G", 69), *PATIENTS[1:]]
    assert ODIR(root=make(tmp_path / "c", rows)).fingerprint() != first

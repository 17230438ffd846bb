"""SICAPv2 on disk: the layout of Mendeley Data, its folds, and what may be wrong with it."""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from openpyxl import load_workbook

from edgekd.data.read import open_source
from edgekd.data.sicapv2 import SICAPv2
from edgekd.data.splits import make_split
from edgekd.errors import DataError, MissingOnHost
from edgekd.recipe import DataSpec
from tests.data.grading_layouts import (
    SICAP_HEADER,
    SICAP_MARKS,
    draw,
    make_sicapv2,
    sicap_name,
    write_xlsx,
)

NAMES = [sicap_name(slide, number) for number, slide in enumerate((7, 7, 3, 1, 1, 5))]
GRADES = ["G5", "NC", "G4", "G4C", "G4+G4C", "G3"]
ROWS: list[tuple[object, ...]] = [
    (f"{name}.jpg", *SICAP_MARKS[grade]) for name, grade in zip(NAMES, GRADES, strict=True)
]


def write(
    root: Path,
    place: str,
    rows: Sequence[Sequence[object]],
    header: Sequence[object] = SICAP_HEADER,
) -> None:
    write_xlsx(root / "partition" / f"{place}.xlsx", rows, header)


def make(
    root: Path,
    train: Sequence[Sequence[object]] = ROWS[:4],
    test: Sequence[Sequence[object]] = ROWS[4:],
    header: Sequence[object] = SICAP_HEADER,
) -> Path:
    """Six images; four of them train, in an order that is neither by name nor by class."""
    write(root, "Test/Train", train, header)
    write(root, "Test/Test", test, header)
    for number, name in enumerate(NAMES):
        draw(root / "images" / f"{name}.jpg", 0, number, 16)
    return root


def with_fold(
    root: Path, train: Sequence[Sequence[object]], val: Sequence[Sequence[object]]
) -> Path:
    make(root)
    write(root, "Validation/Val2/Train", train)
    write(root, "Validation/Val2/Test", val)
    return root


def test_it_reads_the_published_layout_in_the_order_of_the_tables(tmp_path: Path) -> None:
    source = SICAPv2(root=make(tmp_path))
    assert source.classes == ("NC", "G3", "G4", "G5")
    assert len(source) == 6
    assert source.ids() == NAMES
    assert source.targets().tolist() == [3, 0, 2, 2, 2, 1]
    assert source.parts() == ["train"] * 4 + ["test"] * 2
    assert [path.name for path in source.files()] == [f"{name}.jpg" for name in NAMES]
    sample = source[5]
    assert sample.image.shape == (16, 16, 3)
    assert (sample.target, sample.id, sample.group) == (1, NAMES[5], "16B0000005")


def test_images_that_no_table_lists_are_left_out(tmp_path: Path) -> None:
    root = make_sicapv2(tmp_path)
    assert len(list((root / "images").iterdir())) == 90
    source = SICAPv2(root=root)
    assert len(source) == 80
    assert np.bincount(source.targets()).tolist() == [20, 20, 20, 20]
    assert Counter(source.parts()) == {"train": 64, "test": 16}


def test_the_group_is_the_patient_and_without_patients_the_slide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path)
    slides = ["16B0000007", "16B0000007", "16B0000003", "16B0000001", "16B0000001", "16B0000005"]
    assert SICAPv2(root=root).groups() == slides
    patients = {"16B0000007": 1, "16B0000003": 2, "16B0000001": 2, "16B0000005": 3}
    header = ("slide_id", "patient_id", "Gleason_primary", "Gleason_secondary")
    labels = root / "wsi_labels.xlsx"
    write_xlsx(labels, [(slide, patient, 3, 4) for slide, patient in patients.items()], header)
    source = SICAPv2(root=root)
    assert source.groups() == [f"patient {patients[slide]}" for slide in slides]
    assert source[2].group == "patient 2"
    write_xlsx(labels, [("16B0000007", 1, 3, 4)], header)  # not for all slides
    assert SICAPv2(root=root).groups() == slides
    assert "3 of 4 slides have no patient" in " ".join(capsys.readouterr().err.split())


def test_cribriform_counts_as_g4_alone_or_beside_it(tmp_path: Path) -> None:
    source = SICAPv2(root=make(tmp_path))
    for id in (NAMES[2], NAMES[3], NAMES[4]):
        assert source[source.ids().index(id)].target == 2


def test_without_the_cribriform_column_g4_is_g4(tmp_path: Path) -> None:
    rows = [row[:5] for row in ROWS if row[:5] != (f"{NAMES[3]}.jpg", 0, 0, 0, 0)]
    source = SICAPv2(root=make(tmp_path, rows[:3], rows[3:], SICAP_HEADER[:5]))
    assert source.targets().tolist() == [3, 0, 2, 2, 1]


def test_names_may_lack_the_extension(tmp_path: Path) -> None:
    rows = [(str(row[0]).removesuffix(".jpg"), *row[1:]) for row in ROWS]
    assert SICAPv2(root=make(tmp_path, rows[:4], rows[4:])).ids() == NAMES


def test_columns_may_stand_in_another_order_and_after_an_index(tmp_path: Path) -> None:
    order = (5, 4, 0, 3, 2, 1)
    rows = [(number, *(row[place] for place in order)) for number, row in enumerate(ROWS)]
    header = (None, *(SICAP_HEADER[place] for place in order))
    source = SICAPv2(root=make(tmp_path, rows[:4], rows[4:], header))
    assert source.ids() == NAMES
    assert source.targets().tolist() == [3, 0, 2, 2, 2, 1]


def test_marks_may_be_decimals_and_empty_rows_do_not_count(tmp_path: Path) -> None:
    rows = [(row[0], *(float(str(mark)) for mark in row[1:])) for row in ROWS[:4]]
    source = SICAPv2(root=make(tmp_path, [*rows[:2], (), *rows[2:], (None,) * 6]))
    assert source.targets().tolist() == [3, 0, 2, 2, 2, 1]


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    root = make(tmp_path / "SICAPv2")
    assert SICAPv2(root=tmp_path).ids() == SICAPv2(root=root).ids()
    assert SICAPv2(root=tmp_path).root == root


def test_a_fold_is_val_and_the_rest_of_train_stays(tmp_path: Path) -> None:
    root = with_fold(tmp_path, [ROWS[3], ROWS[2]], [ROWS[0], ROWS[1]])
    source = SICAPv2(root=root, fold=2)
    assert source.ids() == NAMES  # the order of the test partition, as without a fold
    assert source.targets().tolist() == SICAPv2(root=root).targets().tolist()
    assert source.parts() == ["val", "val", "train", "train", "test", "test"]


def test_four_folds_share_out_the_train_part(tmp_path: Path) -> None:
    root = make_sicapv2(tmp_path)
    seen: list[str] = []
    for fold in (1, 2, 3, 4):
        source = SICAPv2(root=root, fold=fold)
        split = make_split(source, "official", seed=0)
        assert len(split.test) == 16
        seen += [source.ids()[index] for index in split.val]
    whole = SICAPv2(root=root)
    trained = [id for id, part in zip(whole.ids(), whole.parts(), strict=True) if part == "train"]
    assert sorted(seen) == sorted(trained)


def test_without_a_fold_val_is_carved_out_of_train_by_slides(tmp_path: Path) -> None:
    source = SICAPv2(root=make_sicapv2(tmp_path))
    split = make_split(source, "official", seed=0)
    groups = np.asarray(source.groups())
    assert len(split.test) == 16
    assert len(split.val) > 0
    assert not set(groups[split.val]) & set(groups[split.train])


def test_a_recipe_names_it(tmp_path: Path) -> None:
    root = make_sicapv2(tmp_path)
    source = open_source(DataSpec(name="sicapv2", root=str(root), params={"fold": 3}))
    assert source.fingerprint() != SICAPv2(root=root).fingerprint()


@pytest.mark.parametrize("fold", [0, 5, -1])
def test_there_are_four_folds(tmp_path: Path, fold: int) -> None:
    with pytest.raises(DataError, match=f"has the folds 1 to 4, got {fold}") as caught:
        SICAPv2(root=make(tmp_path), fold=fold)
    assert "data.params.fold=1" in (caught.value.hint or "")


def test_a_fold_must_be_the_train_part(tmp_path: Path) -> None:
    root = with_fold(tmp_path / "short", [ROWS[0]], [ROWS[1]])
    found = rf"Val2: 2 of 4 images .* neither .* first is {NAMES[2]}"
    with pytest.raises(DataError, match=found):
        SICAPv2(root=root, fold=2)
    root = with_fold(tmp_path / "long", ROWS[:3], [ROWS[3], ROWS[4]])
    found = rf"Val2/Test\.xlsx, row 3: image {NAMES[4]} is not in partition/Test/Train\.xlsx"
    with pytest.raises(DataError, match=found):
        SICAPv2(root=root, fold=2)
    root = with_fold(tmp_path / "both", ROWS[:3], ROWS[2:4])
    found = rf"Val2/Test\.xlsx, row 2: image {NAMES[2]} is also in .*Val2/Train\.xlsx, row 4"
    with pytest.raises(DataError, match=found):
        SICAPv2(root=root, fold=2)
    with pytest.raises(DataError, match=r"Val4/Train\.xlsx: no such table"):
        SICAPv2(root=root, fold=4)
    assert len(SICAPv2(root=root)) == 6  # a fold that is not asked for is not read


def test_an_image_in_train_and_test_names_both_rows(tmp_path: Path) -> None:
    found = rf"Test\.xlsx, row 4: image {NAMES[1]} is also in .*Train\.xlsx, row 3"
    with pytest.raises(DataError, match=found):
        SICAPv2(root=make(tmp_path, test=[*ROWS[4:], ROWS[1]]))


def test_an_image_listed_twice_names_both_rows(tmp_path: Path) -> None:
    again = (NAMES[0], *ROWS[0][1:])  # with and without extension it is the same image
    with pytest.raises(DataError, match=f"{NAMES[0]} is in row 2 and again in row 6"):
        SICAPv2(root=make(tmp_path, train=[*ROWS[:4], again]))


@pytest.mark.parametrize(
    ("marks", "found"),
    [
        ((0, 0, 0, 0, 0), "has no grade, expected one of NC, G3, G4, G5"),
        ((1, 1, 0, 0, 0), "has NC and G3, expected one of"),
        ((0, 1, 0, 0, 1), "has G3 and G4C, expected one of"),
        ((1, 0, 1, 0, 1), "has NC and G4 and G4C, expected one of"),
        ((0, 2, 0, 0, 0), "G3 is 2, expected 0 or 1"),
        ((0, 0, "1", 0, 0), "G4 is '1', expected 0 or 1"),
        ((1, None, 0, 0, 0), "G3 is empty, expected 0 or 1"),
        ((1, 0, 0, 0, None), "G4C is empty, expected 0 or 1"),
    ],
)
def test_a_row_has_one_grade(tmp_path: Path, marks: tuple[object, ...], found: str) -> None:
    row = (f"{NAMES[2]}.jpg", *marks)
    with pytest.raises(DataError, match=rf"Train\.xlsx, row 5: .*{found}") as caught:
        SICAPv2(root=make(tmp_path, train=[*ROWS[:2], (), row, ROWS[3]]))  # empty rows count
    assert caught.value.hint


@pytest.mark.parametrize("name", ["slide7.jpg", "_Block_Region_1.jpg", None])
def test_a_name_without_a_slide_is_refused(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(DataError, match=f"row 2: image_name is '{name or ''}', expected <slide>"):
        SICAPv2(root=make(tmp_path, train=[(name, 1, 0, 0, 0, 0)]))


def test_another_header_is_refused(tmp_path: Path) -> None:
    header = ("name", *SICAP_HEADER[1:4], "grade 5", "G4C")
    found = r"no column image_name, G5; found name, NC, G3, G4, grade 5, G4C"
    with pytest.raises(DataError, match=found):
        SICAPv2(root=make(tmp_path, header=header))
    with pytest.raises(DataError, match=r"no column image_name, NC, G3, G4, G5; found nothing"):
        SICAPv2(root=make(tmp_path, train=[], header=[]))
    with pytest.raises(DataError, match=r"Test\.xlsx: no rows below the header"):
        SICAPv2(root=make(tmp_path, test=[]))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "partition" / "Test" / "Test.xlsx").write_bytes(b"PK\x03\x04 not a workbook")
    with pytest.raises(DataError, match=r"Test\.xlsx: cannot be read as an \.xlsx table"):
        SICAPv2(root=root)


def test_a_workbook_that_misstates_its_size_is_read_whole(tmp_path: Path) -> None:
    path = make(tmp_path) / "partition" / "Test" / "Train.xlsx"
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert b'<dimension ref="A1:F5"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'ref="A1:F5"', b'ref="A1:B2"')
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    assert load_workbook(path).worksheets[0].max_row == 5
    assert SICAPv2(root=tmp_path).ids() == NAMES


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    for name in (NAMES[2], NAMES[4]):
        (root / "images" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=rf"2 of 6 listed images .* first is {NAMES[2]}\.jpg"):
        SICAPv2(root=root)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    source = SICAPv2(root=make(tmp_path))
    source.files()[1].write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match=rf"{NAMES[1]}\.jpg: cannot be read as an image"):
        source[1]


def test_wrong_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        SICAPv2(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folder 'partition'") as caught:
        SICAPv2(root=tmp_path)
    assert "images/ and partition/" in str(caught.value.hint)
    (tmp_path / "partition").mkdir()
    with pytest.raises(DataError, match="no folder 'images'"):
        SICAPv2(root=tmp_path)


def test_without_openpyxl_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        MissingOnHost, match="data 'sicapv2' needs the package 'openpyxl'"
    ) as caught:
        SICAPv2(root=root)
    assert caught.value.hint == "pip install 'edgekd[train]'"

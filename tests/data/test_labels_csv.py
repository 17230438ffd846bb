"""Images that a table lists with a column for each class, and what may be wrong with the table."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.labels_csv import LabelsCsv
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError
from edgekd.recipe import DataSpec

ROWS = ["img/1.png,1,0,0", "img/2.png,1,1,0", "img/3.png,0,1,", "img/4.png,0,0,1"]
HEADER = "path,drusen,scar,bleeding"


def make(root: Path, rows: list[str] = ROWS, header: str = HEADER, images: int = 4) -> Path:
    (root / "img").mkdir(parents=True, exist_ok=True)
    for number in range(1, images + 1):
        picture = np.full((6, 8, 3), 20 * number, dtype=np.uint8)
        Image.fromarray(picture).save(root / "img" / f"{number}.png")
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_every_column_but_the_path_is_a_class(tmp_path: Path) -> None:
    source = LabelsCsv(root=make(tmp_path))
    assert source.has_labels
    assert source.classes == ("drusen", "scar", "bleeding")
    assert source.kinds() == ("drusen", "scar", "bleeding", "none")
    assert source.ids() == ["img/1.png", "img/2.png", "img/3.png", "img/4.png"]
    assert source.groups() == source.ids()
    assert source.parts() is None
    assert [path.name for path in source.files()] == ["1.png", "2.png", "3.png", "4.png"]
    sample = source[1]
    assert (sample.image[0, 0, 0], sample.id, sample.group) == (40, "img/2.png", "img/2.png")


def test_an_empty_cell_is_not_known(tmp_path: Path) -> None:
    source = LabelsCsv(root=make(tmp_path))
    assert source.labels().dtype == np.int8
    assert source.labels().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, -1], [0, 0, 1]]


def test_so_is_minus_one_and_decimals_are_read(tmp_path: Path) -> None:
    rows = ["img/1.png,1.0,-1,0", "img/2.png,0.0,1,1", "img/3.png,,0,-1.0", "img/4.png, 1 ,0,0"]
    source = LabelsCsv(root=make(tmp_path, rows))
    assert source.labels().tolist() == [[1, -1, 0], [0, 1, 1], [-1, 0, -1], [1, 0, 0]]


def test_an_image_counts_for_its_rarest_class(tmp_path: Path) -> None:
    rows = [*ROWS, "img/5.png,0,0,0", "img/6.png,,,"]
    source = LabelsCsv(root=make(tmp_path, rows, images=6))
    assert source.targets().tolist() == [0, 0, 1, 2, 3, -1]  # none, and nothing known
    assert [source[index].target for index in range(6)] == source.targets().tolist()


def test_groups_and_parts_are_columns_too(tmp_path: Path) -> None:
    rows = ["img/1.png,p1,train,1,0", "img/2.png,p1,train,0,1", "img/3.png,,test,1,1",
            "img/4.png,p2,val,0,1"]  # fmt: skip
    source = LabelsCsv(root=make(tmp_path, rows, "path,group,part,drusen,scar"))
    assert source.classes == ("drusen", "scar")
    assert source.groups() == ["p1", "p1", "img/3.png", "p2"]
    assert source.parts() == ["train", "train", "test", "val"]
    split = make_split(source, "official", seed=0, verify=False)
    assert [part.tolist() for _, part in split.items()] == [[0, 1], [3], [2]]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = ["p1,img/1.png,train,1", "p1,img/2.png,train,0", "p2,img/3.png,test,1"]
    root = make(tmp_path, rows, "patient,file,fold,scar", images=3)
    source = LabelsCsv(root=root, path="file", group="patient", part="fold")
    assert source.classes == ("scar",)
    assert source.groups() == ["p1", "p1", "p2"]
    assert source.parts() == ["train", "train", "test"]


def test_the_table_may_have_another_name(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "labels.csv").rename(root / "lesions.csv")
    assert len(LabelsCsv(root=root, csv="lesions.csv")) == 4
    with pytest.raises(DataError, match=r"labels\.csv: no such file") as caught:
        LabelsCsv(root=root)
    assert "data.params.csv" in (caught.value.hint or "")


def test_classes_may_be_chosen_in_any_order_and_other_columns_mean_nothing(tmp_path: Path) -> None:
    rows = [f"{row},{age}" for row, age in zip(ROWS, ("61", "", "old", "8"), strict=True)]
    source = LabelsCsv(root=make(tmp_path, rows, f"{HEADER},age"), classes=["bleeding", "drusen"])
    assert source.classes == ("bleeding", "drusen")
    assert source.labels().tolist() == [[0, 1], [0, 1], [-1, 0], [1, 0]]


def test_a_recipe_opens_it_by_name(tmp_path: Path) -> None:
    params = {"classes": ["scar"], "unlisted": "ignore"}
    spec = DataSpec(name="labels_csv", root=str(make(tmp_path)), input={"size": 16}, params=params)
    assert open_source(spec).classes == ("scar",)


def test_a_byte_order_mark_an_index_and_empty_rows_do_not_count(tmp_path: Path) -> None:
    rows = [f"{number},{row}" for number, row in enumerate(ROWS)]
    rows = [*rows[:2], "", ",,,,", *rows[2:]]
    source = LabelsCsv(root=make(tmp_path, rows, f"\ufeff,{HEADER}"))
    assert source.classes == ("drusen", "scar", "bleeding")
    assert len(source) == 4


def test_the_row_of_an_error_is_the_line_of_the_file(tmp_path: Path) -> None:
    root = make(tmp_path, [*ROWS[:2], "", "img/3.png,0,1,x", ROWS[3]])
    with pytest.raises(DataError, match=r"labels\.csv, row 5, column bleeding: 'x'"):
        LabelsCsv(root=root)


@pytest.mark.parametrize("value", ["2", "yes", "TRUE", "0.5", "1,0", "-2"])
def test_a_label_that_is_neither_0_nor_1_is_refused(tmp_path: Path, value: str) -> None:
    root = make(tmp_path, [*ROWS[:2], f'img/3.png,0,"{value}",0', ROWS[3]])
    with pytest.raises(DataError, match=rf"row 4, column scar: '{value}', expected 0, 1") as caught:
        LabelsCsv(root=root)
    assert "data.params.classes" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("img/9.png,1,0,0", r"row 6: .*9\.png: no such file \(1 of 5 listed images are missing\)"),
        ("../secret.png,1,0,0", "row 6: path '../secret.png' does not lie inside"),
        ("img/../../secret.png,1,0,0", "row 6: path .* does not lie inside"),
        ("/etc/secret.png,1,0,0", "row 6: path .* does not lie inside"),
        ("..\\secret.png,1,0,0", "row 6: path .* does not lie inside"),
        ("C:\\secret.png,1,0,0", "row 6: path .* does not lie inside"),
        (",1,0,0", "row 6: path '' does not lie inside"),
        ("img/1.png,0,1,0", r"row 6: img/1\.png is already in .*labels\.csv, row 2"),
        ("img/./1.png,0,1,0", r"row 6: img/1\.png is already in .*labels\.csv, row 2"),
        ("img/5.png,1,0", "row 6: 3 values for 4 columns"),
        ("img/5.png,1,0,0,1", "row 6: 5 values for 4 columns"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    root = make(tmp_path / "root", [*ROWS, row])
    shutil.copyfile(root / "img" / "1.png", tmp_path / "secret.png")
    with pytest.raises(DataError, match=message) as caught:
        LabelsCsv(root=root)
    assert "labels.csv" in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_images_are_counted(tmp_path: Path) -> None:
    root = make(tmp_path, [*ROWS, "img/8.png,0,0,0", "img/9.png,0,0,0"])
    with pytest.raises(DataError, match=r"row 6: .*8\.png.* \(2 of 6 listed images are missing\)"):
        LabelsCsv(root=root)


def test_images_that_nobody_listed_are_counted_or_ignored(tmp_path: Path) -> None:
    root = make(tmp_path, images=6)
    (root / "img" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    shutil.copyfile(root / "img" / "1.png", root / ".cache" / "1.png")
    with pytest.raises(
        DataError, match=r"labels\.csv: 2 images in .* first is img/5\.png"
    ) as caught:
        LabelsCsv(root=root)
    assert "data.params.unlisted=ignore" in (caught.value.hint or "")
    assert len(LabelsCsv(root=root, unlisted="ignore")) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("0000", "no image shows 'scar'"),
        ("1111", "no image is without 'scar'"),
        ("0--0", "no image shows 'scar'"),
        ("1-1-", "no image is without 'scar'"),
        ("----", "no image shows 'scar'"),
    ],
)
def test_a_class_that_all_images_show_or_none_is_refused_or_left_out(
    tmp_path: Path, values: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = [value.replace("-", "") for value in values]
    rows = [f"img/{n}.png,{n % 2},{mark}" for n, mark in enumerate(marks, 1)]
    root = make(tmp_path, rows, "path,drusen,scar")
    with pytest.raises(DataError, match=rf"labels\.csv: {message}") as caught:
        LabelsCsv(root=root)
    assert "data.params.rare=drop" in (caught.value.hint or "")
    source = LabelsCsv(root=root, rare="drop")
    assert source.classes == ("drusen",)
    assert source.labels().tolist() == [[1], [0], [1], [0]]
    assert "1 of 2 classes are left out" in said(capsys)
    with pytest.raises(DataError, match="all classes are shown by every image or by none"):
        LabelsCsv(root=root, classes=["scar"], rare="drop")


@pytest.mark.parametrize(("value", "verb"), [("0", "shows"), ("1", "is without")])
def test_what_the_train_part_does_not_show_cannot_be_learned(
    tmp_path: Path, value: str, verb: str
) -> None:
    other = "1" if value == "0" else "0"
    rows = [f"img/1.png,train,{value},1", f"img/2.png,train,{value},0",
            f"img/3.png,test,{other},1", f"img/4.png,test,{value},0"]  # fmt: skip
    root = make(tmp_path, rows, "path,part,scar,drusen")
    with pytest.raises(DataError, match=f"no image of the train part {verb} 'scar'"):
        LabelsCsv(root=root)
    assert LabelsCsv(root=root, rare="drop").classes == ("drusen",)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    with pytest.raises(DataError, match="no column file; found path, drusen, scar, bleeding"):
        LabelsCsv(root=root, path="file")
    with pytest.raises(DataError, match="no column patient; found path"):
        LabelsCsv(root=root, group="patient")
    with pytest.raises(DataError, match="no column fold; found path"):
        LabelsCsv(root=root, part="fold")
    with pytest.raises(DataError, match="the header has no class 'drusn'") as caught:
        LabelsCsv(root=root, classes=["drusn"])
    assert caught.value.hint == "did you mean 'drusen'?"
    with pytest.raises(DataError, match="the header has no class 'path'"):
        LabelsCsv(root=root, classes=["path"])
    with pytest.raises(DataError, match="names a class twice: scar, scar"):
        LabelsCsv(root=root, classes=["scar", "scar"])


def test_a_bad_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the header has the column scar twice"):
        LabelsCsv(root=make(tmp_path, header="path,scar,drusen,scar"))
    with pytest.raises(DataError, match="classes 'scar' and 'Scar' differ only in case"):
        LabelsCsv(root=make(tmp_path, header="path,scar,drusen,Scar"))
    with pytest.raises(DataError, match="no column is a class; found path"):
        LabelsCsv(root=make(tmp_path, ["img/1.png"], "path"))
    with pytest.raises(DataError, match="no rows below the header"):
        LabelsCsv(root=make(tmp_path, []))
    with pytest.raises(DataError, match="no column path; found nothing"):
        LabelsCsv(root=make(tmp_path, [], ""))
    with pytest.raises(DataError, match="no column path") as caught:
        LabelsCsv(root=make(tmp_path, ["img/1.png;1"], "path;scar"))
    assert caught.value.hint == "separate columns by commas"


def test_none_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'None' is no class, it is what an image with 0 in all"):
        LabelsCsv(root=make(tmp_path, header="path,drusen,scar,None"))


def test_a_misspelt_group_does_not_pass_for_a_table_without_groups(tmp_path: Path) -> None:
    rows = [f"{row},p{number}" for number, row in enumerate(ROWS)]
    root = make(tmp_path, rows, f"{HEADER},gruop")
    with pytest.raises(DataError, match="row 2, column gruop: 'p0', expected 0, 1"):
        LabelsCsv(root=root)
    with pytest.raises(DataError, match="the column 'gruop' is no class") as caught:
        LabelsCsv(root=root, classes=["drusen", "scar"])
    assert caught.value.hint == "rename it to 'group', or data.params.group=gruop"
    assert LabelsCsv(root=root, group="gruop").groups() == ["p0", "p1", "p2", "p3"]


def test_a_part_must_be_one_of_three(tmp_path: Path) -> None:
    rows = [f"{row},{part}" for row, part in zip(ROWS, ("train", "val", "tset", ""), strict=True)]
    with pytest.raises(DataError, match="row 4: part is 'tset', expected train, val or test"):
        LabelsCsv(root=make(tmp_path, rows, f"{HEADER},part"))


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    shutil.copyfile(root / "img" / "1.png", root / "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        LabelsCsv(root=root)
    with pytest.raises(DataError, match="no such folder"):
        LabelsCsv(root=root / "nowhere")


def test_labels_groups_and_unknown_cells_are_in_the_fingerprint(tmp_path: Path) -> None:
    header = f"{HEADER},group"
    first = [f"{row},p" for row in ROWS]
    known = LabelsCsv(root=make(tmp_path / "a", first, header)).fingerprint()
    assert LabelsCsv(root=make(tmp_path / "b", first, header)).fingerprint() == known
    for number, (old, new) in enumerate([("0,1,,p", "0,1,0,p"), ("1,1,0,p", "1,1,0,q")]):
        rows = [row.replace(old, new) for row in first]
        assert rows != first
        other = LabelsCsv(root=make(tmp_path / str(number), rows, header))
        assert other.fingerprint() != known

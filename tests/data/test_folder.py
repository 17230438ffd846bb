"""Images in class folders, with and without parts, and images listed in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.folder import Folder
from edgekd.errors import DataError


def draw(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), number, dtype=np.uint8)).save(path)
    return root


def write(root: Path, text: str) -> str:
    (root / "labels.csv").write_text(text)
    return "labels.csv"


def test_folders_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    source = Folder(root=draw(tmp_path, "nevus/b.png", "nevus/a.JPG", "melanoma/c.tif"))
    (tmp_path / "nevus" / "notes.txt").write_text("not an image")
    assert source.classes == ("melanoma", "nevus")
    assert source.ids() == ["melanoma/c.tif", "nevus/a.JPG", "nevus/b.png"]
    assert source.targets().tolist() == [0, 1, 1]
    assert source.groups() == source.ids()
    assert source.parts() is None
    assert source[2].image.shape == (6, 8, 3)


def test_numbered_classes_are_ordered_by_number(tmp_path: Path) -> None:
    assert Folder(root=draw(tmp_path, "10/a.png", "2/a.png", "0/a.png")).classes == ("0", "2", "10")


def test_grading_names_its_own_order(tmp_path: Path) -> None:
    root = draw(tmp_path, "mild/a.png", "none/a.png", "severe/a.png")
    source = Folder(root=root, classes=["none", "mild", "severe"])
    assert source.classes == ("none", "mild", "severe")
    assert source.targets().tolist() == [1, 0, 2]
    with pytest.raises(DataError, match=r"'severe' is not in data.params.classes") as caught:
        Folder(root=root, classes=["none", "mild", "sever"])
    assert caught.value.hint == "did you mean 'sever'?"
    with pytest.raises(DataError, match="class 'grave' has no images"):
        Folder(root=root, classes=["none", "mild", "severe", "grave"])
    with pytest.raises(DataError, match="names a class twice"):
        Folder(root=root, classes=["none", "none", "mild", "severe"])


def test_part_folders_are_the_official_split(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/b/4.png")
    source = Folder(root=root)
    assert source.classes == ("a", "b")
    parts = dict(zip(source.ids(), source.parts() or (), strict=True))
    assert parts == {"train/a/1.png": "train", "train/b/2.png": "train", "valid/a/3.png": "val",
                     "test/b/4.png": "test"}  # fmt: skip


def test_a_class_that_training_never_saw_is_named(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/a/1.png", "test/a/2.png", "test/b/3.png")
    with pytest.raises(DataError, match=r"class 'b' is in the test part .test/b/3.png. but has no"):
        Folder(root=root)


def test_something_beside_the_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 'extra' beside 'train'"):
        Folder(root=draw(tmp_path, "train/a/1.png", "extra/a/2.png"))


def test_deeper_folders_are_patients_only_if_the_recipe_says_so(tmp_path: Path) -> None:
    root = draw(tmp_path, "a/p1/1.png", "a/p1/2.png", "b/p1/3.png", "b/4.png")
    with pytest.raises(DataError, match="is 'p1' a patient") as caught:
        Folder(root=root)
    assert "data.params.group=folder" in (caught.value.hint or "")
    source = Folder(root=root, group="folder")
    owners = dict(zip(source.ids(), source.groups(), strict=True))
    assert owners == {"a/p1/1.png": "p1", "a/p1/2.png": "p1", "b/p1/3.png": "p1",
                      "b/4.png": "b/4.png"}  # fmt: skip
    loose = Folder(root=root, group="image")
    assert loose.groups() == loose.ids()


def test_visits_below_a_patient_belong_to_the_patient(tmp_path: Path) -> None:
    root = draw(tmp_path, "a/p1/v1/1.png", "a/p1/v2/2.png", "a/p1/3.png", "b/p1/v1/4.png",
                "b/p2/v1/5.png")  # fmt: skip
    source = Folder(root=root, group="folder")
    owners = dict(zip(source.ids(), source.groups(), strict=True))
    assert owners == {"a/p1/v1/1.png": "p1", "a/p1/v2/2.png": "p1", "a/p1/3.png": "p1",
                      "b/p1/v1/4.png": "p1", "b/p2/v1/5.png": "p2"}  # fmt: skip
    with pytest.raises(DataError, match="is 'p1' a patient"):
        Folder(root=root)


def test_an_empty_class_or_an_empty_tree_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="class 'b' has no images"):
        Folder(root=tmp_path)
    with pytest.raises(DataError, match="no images in class folders"):
        Folder(root=tmp_path / "a")
    with pytest.raises(DataError, match="no such folder"):
        Folder(root=tmp_path / "nowhere")


def test_a_csv_gives_labels_groups_and_parts(tmp_path: Path) -> None:
    root = draw(tmp_path, "img/1.png", "img/2.png", "img/3.png")
    table = write(root, "\ufeffpath,label,group,part\nimg/1.png,0,p1,train\nimg/2.png,1,p1,train\n"
                        "img/3.png,1,,test\n")  # fmt: skip
    source = Folder(root=root, csv=table)
    assert source.classes == ("0", "1")
    assert source.targets().tolist() == [0, 1, 1]
    assert source.groups() == ["p1", "p1", "img/3.png"]
    assert source.parts() == ["train", "train", "test"]
    assert source[1].image[0, 0, 0] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("img/9.png,a", r"row 3: .*9\.png: no such file"),
        ("img/2.png,c", "row 3: unknown class 'c'"),
        ("img/2.png,", "row 3: unknown class ''"),
        ("../secret.png,a", "row 3: path '../secret.png' does not lie inside"),
        ("img/../../secret.png,a", "row 3: path .* does not lie inside"),
        ("/etc/secret.png,a", "row 3: path .* does not lie inside"),
        (",a", "row 3: path '' does not lie inside"),
        ("img/1.png,b", "img/1.png is in row 2 and again in row 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    root = draw(tmp_path / "root", "img/1.png", "img/2.png")
    draw(tmp_path, "secret.png")
    table = write(root, f"path,label\nimg/1.png,a\n{row}\n")
    with pytest.raises(DataError, match=message):
        Folder(root=root, csv=table, classes=["a", "b"])


def test_a_bad_table_is_named(tmp_path: Path) -> None:
    root = draw(tmp_path, "1.png")
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        Folder(root=root, csv="none.csv")
    with pytest.raises(DataError, match="no column path, label; found file, grade"):
        Folder(root=root, csv=write(root, "file,grade\n1.png,0\n"))
    with pytest.raises(DataError, match="no images are listed"):
        Folder(root=root, csv=write(root, "path,label\n"))
    with pytest.raises(DataError, match="row 2: part is 'dev', expected train, val or test"):
        Folder(root=root, csv=write(root, "path,label,part\n1.png,0,dev\n"))
    with pytest.raises(DataError, match="groups are its column"):
        Folder(root=root, csv=write(root, "path,label\n1.png,0\n"), group="image")


@pytest.mark.parametrize(
    ("header", "message", "hint"),
    [
        ("path,label,gruop", "unknown column 'gruop'", "did you mean 'group'?"),
        ("path,label,Group", "unknown column 'Group'", "did you mean 'group'?"),
        ("path,label,parts", "unknown column 'parts'", "did you mean 'part'?"),
        ("Path,label,group", "no column path; found Path, label, group", "path, label, group"),
        ("path;label;group", "no column path, label", "separate columns by commas"),
    ],
)
def test_a_misspelt_column_is_not_overlooked(
    tmp_path: Path, header: str, message: str, hint: str
) -> None:
    root = draw(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match=message) as caught:
        Folder(root=root, csv=write(root, f"{header}\n1.png,a,p\n2.png,b,q\n"))
    assert hint in (caught.value.hint or "")


def test_other_columns_are_left_alone(tmp_path: Path) -> None:
    root = draw(tmp_path, "1.png", "2.png")
    table = write(root, "path,label,patient,age,labels\n1.png,a,p,60,x\n2.png,b,q,70,y\n")
    assert len(Folder(root=root, csv=table)) == 2


def test_classes_that_differ_only_in_case_are_a_mistake(tmp_path: Path) -> None:
    root = draw(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match="'Mole' and 'mole' differ only in case"):
        Folder(root=root, csv=write(root, "path,label\n1.png,mole\n2.png,Mole\n"))

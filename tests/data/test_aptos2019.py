"""APTOS 2019 on disk: Kaggle's layout, the mirror's, and what may be wrong with either."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgekd.data import aptos2019
from edgekd.data.aptos2019 import APTOS2019
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe import DataSpec
from tests.data.grading_layouts import aptos_id, copy_image, draw, make_aptos2019, write_csv

A, B, C, D, E = (aptos_id(number) for number in (3, 1, 4, 0, 2))
ROWS: list[tuple[object, ...]] = [(A, 2), (B, 4), (C, 0), (D, 1), (E, 3)]
HEADER = ("id_code", "diagnosis")


def kaggle(
    root: Path, rows: Sequence[Sequence[object]] = ROWS, header: Sequence[str] = HEADER
) -> Path:
    write_csv(root / "train.csv", rows, header)
    write_csv(root / "test.csv", [("0005cfc8afb6",)], ("id_code",))
    for number, (id, target) in enumerate(ROWS):
        draw(root / "train_images" / f"{id}.png", int(str(target)), number, 16)
    return root


def mirror(root: Path, *, inner: bool = True) -> Path:
    tables = (("train_1.csv", "train_images"), ("valid.csv", "val_images"))
    for (name, folder), rows in zip(
        (*tables, ("test.csv", "test_images")), (ROWS[:2], ROWS[2:4], ROWS[4:]), strict=True
    ):
        write_csv(root / name, rows, HEADER)
        for number, (id, target) in enumerate(rows):
            place = root / folder / folder if inner else root / folder
            draw(place / f"{id}.png", int(str(target)), number, 16)
    return root


def test_it_reads_the_competitions_layout_in_the_order_of_the_table(tmp_path: Path) -> None:
    source = APTOS2019(root=kaggle(tmp_path))
    assert source.classes == ("none", "mild", "moderate", "severe", "proliferative")
    assert len(source) == 5
    assert source.ids() == [A, B, C, D, E]
    assert source.targets().tolist() == [2, 4, 0, 1, 3]
    assert source.groups() == [A, B, C, D, E]
    assert source.parts() is None
    assert source.files()[0] == tmp_path / "train_images" / f"{A}.png"
    sample = source[1]
    assert sample.image.shape == (16, 16, 3)
    assert (sample.target, sample.id, sample.group) == (4, B, B)


def test_it_reads_the_mirror_with_its_split(tmp_path: Path) -> None:
    source = APTOS2019(root=mirror(tmp_path))
    assert source.ids() == [A, B, C, D, E]
    assert source.targets().tolist() == [2, 4, 0, 1, 3]
    assert source.parts() == ["train", "train", "val", "val", "test"]
    assert source.files()[2] == tmp_path / "val_images" / "val_images" / f"{C}.png"
    flat = APTOS2019(root=mirror(tmp_path / "flat", inner=False))
    assert flat.ids() == source.ids()
    assert flat.files()[4] == tmp_path / "flat" / "test_images" / f"{E}.png"


def test_the_labels_of_the_competitions_test_are_not_public_and_not_read(tmp_path: Path) -> None:
    root = make_aptos2019(tmp_path)
    assert len(list((root / "test_images").iterdir())) == 3
    source = APTOS2019(root=root)
    assert np.bincount(source.targets()).tolist() == [20, 10, 15, 10, 10]
    assert all(path.parent.name == "train_images" for path in source.files())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".PNG"])
@pytest.mark.parametrize("layout", ["kaggle", "mirror"])
def test_resized_copies_may_be_jpeg(
    tmp_path: Path, layout: Literal["kaggle", "mirror"], suffix: str
) -> None:
    root = make_aptos2019(tmp_path, counts_per_class=(5,) * 5, layout=layout, suffix=suffix)
    source = APTOS2019(root=root)
    assert len(source) == 25
    assert source.files()[0].suffix == suffix
    assert source[0].image.shape == (16, 16, 3)


def test_the_mirrors_split_can_be_official(tmp_path: Path) -> None:
    source = APTOS2019(root=make_aptos2019(tmp_path, layout="mirror"))
    assert Counter(source.parts()) == {"train": 39, "val": 13, "test": 13}
    split = make_split(source, "official", seed=0)
    assert [len(indices) for _, indices in split.items()] == [39, 13, 13]
    assert split.val.tolist() == list(range(39, 52))


def test_a_recipe_names_it(tmp_path: Path) -> None:
    root = make_aptos2019(tmp_path)
    spec = DataSpec(name="aptos2019", root=str(root), params={"duplicates": "drop"})
    assert len(open_source(spec)) == 65
    with pytest.raises(RecipeError, match="duplicates"):
        open_source(spec.model_copy(update={"params": {"duplicates": "merge"}}))


def test_identical_files_are_one_group(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    copy_image(root, A, D)
    copy_image(root, A, E)
    source = APTOS2019(root=root)
    assert source.groups() == [A, B, C, A, A]
    assert [source[index].group for index in range(5)] == [A, B, C, A, A]
    assert source.ids() == [A, B, C, D, E]


def test_files_of_equal_size_are_not_yet_identical(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    copy_image(root, A, B)
    path = root / "train_images" / f"{B}.png"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert APTOS2019(root=root).groups() == [A, B, C, D, E]


def test_only_files_of_equal_size_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = kaggle(tmp_path)
    for number, id in enumerate((A, B, C, D, E)):  # decoders do not mind what follows the picture
        with (root / "train_images" / f"{id}.png").open("ab") as file:
            file.write(b"\0" * 5000 * number)
    copy_image(root, B, D)
    hashed: list[str] = []
    original = aptos2019.sha256

    def watch(path: Path) -> str:
        hashed.append(path.stem)
        return original(path)

    monkeypatch.setattr(aptos2019, "sha256", watch)
    assert APTOS2019(root=root).groups() == [A, B, C, B, E]
    assert hashed == [B, D]
    hashed.clear()
    assert APTOS2019(root=root, duplicates="keep").groups() == [A, B, C, D, E]
    assert hashed == []


def test_no_split_tears_identical_files_apart(tmp_path: Path) -> None:
    root = make_aptos2019(tmp_path)
    ids = APTOS2019(root=root).ids()
    for number in range(0, 20, 2):
        copy_image(root, ids[number], ids[number + 1])
    source = APTOS2019(root=root)
    for seed in range(5):
        split = make_split(source, "6-2-2", seed=seed)
        home = {int(index): part for part, indices in split.items() for index in indices}
        assert all(home[number] == home[number + 1] for number in range(0, 20, 2))


def test_an_official_split_that_tears_identical_files_apart_is_refused(tmp_path: Path) -> None:
    root = make_aptos2019(tmp_path, layout="mirror")
    ids = APTOS2019(root=root).ids()
    copy_image(root, ids[0], ids[40])
    with pytest.raises(DataError, match=f"the first is '{ids[0]}', in train and val"):
        make_split(APTOS2019(root=root), "official", seed=0)
    kept = make_split(APTOS2019(root=root, duplicates="keep"), "official", seed=0)
    assert len(kept.val) == 13
    dropped = make_split(APTOS2019(root=root, duplicates="drop"), "official", seed=0)
    assert (len(dropped.train), len(dropped.val)) == (39, 12)


def test_drop_keeps_the_first_and_says_how_many_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kaggle(tmp_path, [*ROWS[:4], (E, 2)])
    assert len(APTOS2019(root=root, duplicates="drop")) == 5
    assert capsys.readouterr().err == ""
    copy_image(root, A, E)
    source = APTOS2019(root=root, duplicates="drop")
    assert source.ids() == source.groups() == [A, B, C, D]
    assert source.targets().tolist() == [2, 4, 0, 1]
    assert len(source.files()) == len(source) == 4
    said = capsys.readouterr().err
    assert said.count("1 of 5 images dropped") == 1
    assert "different grades" not in said


def test_drop_warns_of_identical_files_with_different_grades(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = mirror(tmp_path)
    copy_image(root, A, D)
    copy_image(root, B, E)
    source = APTOS2019(root=root, duplicates="drop")
    assert source.ids() == [A, B, C]
    assert source.parts() == ["train", "train", "val"]
    assert source.targets().tolist() == [2, 4, 0]
    said = capsys.readouterr().err
    assert "2 of 5 images dropped" in said
    assert "2 sets of identical images have different grades" in said


def test_the_fingerprint_knows_what_was_done_about_duplicates(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    copy_image(root, A, D)
    sources = [APTOS2019(root=root, duplicates=what) for what in ("group", "keep", "drop")]
    assert len({source.fingerprint() for source in sources}) == 3


@pytest.mark.parametrize("grade", ["5", "-1", "2.0", "mild", ""])
def test_a_grade_that_does_not_exist_names_its_row(tmp_path: Path, grade: str) -> None:
    found = rf"train\.csv, row 4: diagnosis of {C} is '{grade}', expected an integer from 0 to 4"
    with pytest.raises(DataError, match=found):
        APTOS2019(root=kaggle(tmp_path, [*ROWS[:2], (C, grade)]))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"id_code,diagnosis\n{A},2\n,1\n", ", row 3: id_code is empty"),
        (f"id_code,diagnosis\n{A},2\n\n{B},7\n", f", row 4: diagnosis of {B} is '7'"),
        (f"id_code,diagnosis\n{A},2\n{B}\n", f", row 3: diagnosis of {B} is ''"),
        (f"id_code,diagnosis\n{A},2\n{B},1\n{A},2\n", ", row 4: id_code .* already in .*row 2"),
        ("image,level\n", ": the header has no column id_code, diagnosis; found image, level"),
        ("", ": the header has no column id_code, diagnosis; found nothing"),
        ("id_code,diagnosis\n", ": no rows below the header"),
        ("id_code,diagnosis\n\xff,1\n", ": cannot be read"),
    ],
)
def test_a_table_that_is_not_as_published_is_refused(
    tmp_path: Path, content: str, found: str
) -> None:
    root = kaggle(tmp_path)
    (root / "train.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=rf"train\.csv{found}") as caught:
        APTOS2019(root=root)
    assert caught.value.hint


def test_the_mirror_needs_all_three_tables_with_labels(tmp_path: Path) -> None:
    root = mirror(tmp_path)
    write_csv(root / "test.csv", [(E,)], ("id_code",))
    with pytest.raises(DataError, match=r"test\.csv: the header has no column diagnosis"):
        APTOS2019(root=root)
    (root / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"valid\.csv: no such file"):
        APTOS2019(root=root)


def test_an_id_in_two_tables_names_both_rows(tmp_path: Path) -> None:
    root = mirror(tmp_path)
    write_csv(root / "valid.csv", [*ROWS[2:4], (B, 4)], HEADER)
    draw(root / "val_images" / "val_images" / f"{B}.png", 4, 9, 16)
    found = rf"valid\.csv, row 4: id_code {B} is already in .*train_1\.csv, row 3"
    with pytest.raises(DataError, match=found) as caught:
        APTOS2019(root=root)
    assert "one part" in (caught.value.hint or "")


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    for id in (B, D):
        (root / "train_images" / f"{id}.png").unlink()
    found = rf"2 of 5 images of train\.csv are missing, the first is {B}\.png"
    with pytest.raises(DataError, match=found):
        APTOS2019(root=root)
    shutil.rmtree(root / "train_images")
    with pytest.raises(DataError, match=r"train_images: no such folder, train\.csv lists"):
        APTOS2019(root=root)


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    draw(root / "train_images" / f"{C}.jpg", 0, 9, 16)
    with pytest.raises(DataError, match=rf"{C}\.jpg and {C}\.png are both here"):
        APTOS2019(root=root)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    source = APTOS2019(root=kaggle(tmp_path))
    source.files()[1].write_bytes(b"\x89PNG not a picture")
    with pytest.raises(DataError, match=rf"{B}\.png: cannot be read as an image"):
        source[1]


def test_wrong_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        APTOS2019(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no train\.csv, no train_1\.csv here; expected") as caught:
        APTOS2019(root=tmp_path)
    assert "valid.csv and test.csv" in caught.value.message
    assert "data.root=FOLDER" in (caught.value.hint or "")
    with pytest.raises(DataError, match=r"both train\.csv and train_1\.csv are here"):
        APTOS2019(root=mirror(kaggle(tmp_path)))

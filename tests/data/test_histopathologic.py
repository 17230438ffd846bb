"""Histopathologic Cancer Detection: Kaggle's layout, KDML's draw from it, what may be wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.data._split_problems import split_problems
from edgekd.data.check import check
from edgekd.data.histopathologic import Histopathologic
from edgekd.data.protocol import split_of, splits_of
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe_data import DataSpec
from tests.data.grading_layouts import write_csv
from tests.data.plain import Plain

KAGGLE = "histopathologic-cancer-detection"
LISTED = (130_908, 89_117)  # normal and tumor in Kaggle's table


def name(number: int) -> str:
    """Like `f38a6374c348f90b587e046aac6079959adf3835`."""
    return hashlib.sha1(str(number).encode()).hexdigest()


A, B, C, D, E, F = (name(number) for number in range(6))
ROWS: list[tuple[object, ...]] = [(C, 1), (A, 0), (E, 0), (B, 1), (F, 0), (D, 1)]
IDS = [C, A, E, B, F, D]


def draw(path: Path, seed: int = 0, colour: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    if colour is not None:
        pixels[:] = colour
    Image.fromarray(pixels).save(path)


def make(
    root: Path, rows: Sequence[Sequence[object]] = ROWS, header: Sequence[str] = ("id", "label")
) -> Path:
    """Six labelled patches, two that are not, and the example of a submission."""
    write_csv(root / "train_labels.csv", rows, header)
    for number, id in enumerate(IDS):
        draw(root / "train" / f"{id}.tif", number)
    unlabelled = [name(100), name(101)]
    for number, id in enumerate(unlabelled):
        draw(root / "test" / f"{id}.tif", 100 + number)
    write_csv(root / "sample_submission.csv", [(id, 0) for id in unlabelled], ("id", "label"))
    return root


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Histopathologic:
    """A thousandth of what Kaggle lists, in its class ratio; the files are empty."""
    root = tmp_path_factory.mktemp("listed")
    targets = np.random.default_rng(1).permutation(np.repeat([0, 1], [130, 90]))
    ids = [name(number) for number in range(len(targets))]
    write_csv(root / "train_labels.csv", zip(ids, targets.tolist(), strict=True), ("id", "label"))
    (root / "train").mkdir()
    for id in ids:
        (root / "train" / f"{id}.tif").touch()
    return Histopathologic(root=root)


def test_it_reads_kaggles_layout_in_the_order_of_the_table(tmp_path: Path) -> None:
    source = Histopathologic(root=make(tmp_path))
    assert source.classes == ("normal", "tumor")
    assert len(source) == 6
    assert source.ids() == IDS
    assert source.targets().tolist() == [1, 0, 0, 1, 0, 1]
    assert source.parts() is None
    assert source.files()[0] == tmp_path / "train" / f"{C}.tif"
    sample = source[3]
    assert sample.image.shape == (96, 96, 3)
    assert (sample.target, sample.id, sample.group) == (1, B, B)


def test_the_root_may_be_the_folder_in_which_it_was_unpacked(tmp_path: Path) -> None:
    make(tmp_path / KAGGLE)
    source = Histopathologic(root=tmp_path)
    assert source.ids() == IDS
    assert source[0].id == C


def test_a_recipe_names_it(tmp_path: Path) -> None:
    spec = DataSpec(name="histopathologic", root=str(make(tmp_path)))
    assert len(open_source(spec)) == 6
    with pytest.raises(RecipeError, match=r"data\.params\.group: .* no such parameter"):
        open_source(spec.model_copy(update={"params": {"group": "slides.csv"}}))


def test_images_without_a_label_are_not_read(tmp_path: Path) -> None:
    root = make(tmp_path)
    draw(root / "train" / f"{name(50)}.tif")
    (root / "train" / f"._{A}.tif").write_bytes(b"\0\5\26\7")  # a Mac leaves these in archives
    assert Histopathologic(root=root).ids() == IDS


def test_without_slides_every_image_is_its_own_group_and_the_check_says_so(tmp_path: Path) -> None:
    source = Histopathologic(root=make(tmp_path))
    assert source.groups() == IDS
    report = check(source, make_split(source, "1-1-1", seed=0, verify=False))
    assert "no groups: images of one patient may be in two parts" in report.notes


@pytest.mark.parametrize("column", ["group", "wsi"])
def test_a_list_of_slides_keeps_them_whole(tmp_path: Path, column: str) -> None:
    root = make(tmp_path / KAGGLE)
    slides = {A: "s1", B: "s1", C: "s2", D: "s2", E: "s3", F: "s3"}
    rows = [(name(60), "s9"), *slides.items()]  # of an image that is not here
    write_csv(root / "slides.csv", rows, ("id", column))
    source = Histopathologic(root=tmp_path, groups="slides.csv")
    assert source.groups() == [slides[id] for id in IDS]
    assert source[0].group == "s2"
    for seed in range(5):
        split = make_split(source, "1-1-1", seed=seed, verify=False)
        homes = [{source.groups()[index] for index in part} for _, part in split.items()]
        assert sum(map(len, homes)) == 3
    elsewhere = tmp_path / "elsewhere.csv"
    write_csv(elsewhere, slides.items(), ("id", column))
    assert Histopathologic(root=root, groups=str(elsewhere)).groups() == source.groups()


def test_images_that_the_list_of_slides_does_not_name_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path)
    write_csv(root / "slides.csv", [(A, "s1"), (B, "s1"), (C, "s1")], ("id", "wsi"))
    source = Histopathologic(root=root, groups="slides.csv")
    assert source.groups() == ["s1", "s1", E, "s1", F, D]
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 6 images have no group; each is one of its own" in said


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"id,slide\n{A},s1\n", "the header has no column group or wsi; found id, slide"),
        (f"id;wsi\n{A};s1\n", "the header has no column id; found id;wsi"),
        (f"id,wsi\n{A},\n", f"row 2: group of {A} is empty"),
        (f"id,wsi\n{A}\n", f"row 2: group of {A} is empty"),
        (f"id,wsi\n{A},s1\n{A},s2\n", f"row 3: id {A} is already in row 2"),
        (f"id,wsi\n{name(77)},s1\n", "lists none of the 6 images"),
        ("id,wsi\n", "no rows below the header"),
    ],
)
def test_a_list_of_slides_that_is_none_is_refused(tmp_path: Path, content: str, found: str) -> None:
    root = make(tmp_path)
    (root / "slides.csv").write_text(content)
    with pytest.raises(DataError, match=rf"slides\.csv.*{found}") as caught:
        Histopathologic(root=root, groups="slides.csv")
    assert caught.value.hint
    with pytest.raises(DataError, match=r"wsi\.csv: no such file"):
        Histopathologic(root=root, groups="wsi.csv")


def test_slides_change_the_fingerprint_and_so_does_an_image(tmp_path: Path) -> None:
    root = make(tmp_path)
    write_csv(root / "slides.csv", [(id, id[:1]) for id in IDS], ("id", "wsi"))
    before = Histopathologic(root=root).fingerprint()
    assert Histopathologic(root=root, groups="slides.csv").fingerprint() != before
    draw(root / "train" / f"{A}.tif", 99)
    assert Histopathologic(root=root).fingerprint() != before


def test_the_balanced_draw_has_as_many_of_each_class_and_is_split_75_10_15(
    listed: Histopathologic,
) -> None:
    spec = DataSpec.model_validate(
        {"name": "x", "split": "75-10-15", "subsets": {"balanced": {"counts": [80, 80]}}}
    )
    split = split_of(listed, spec, "balanced")
    counts = [np.bincount(listed.targets()[part]).tolist() for _, part in split.items()]
    assert counts == [[60, 60], [8, 8], [12, 12]]
    assert not split_problems(listed, split)
    again = split_of(listed, spec, "balanced")
    for (_, first), (_, second) in zip(split.items(), again.items(), strict=True):
        np.testing.assert_array_equal(first, second)
    other = spec.model_copy(update={"split_seed": 1})
    assert not np.array_equal(split_of(listed, other, "balanced").test, split.test)


def test_kdmls_draw_of_20_000_is_exact_to_the_image() -> None:
    """From as many labels as Kaggle lists, without their files."""
    targets = np.random.default_rng(0).permutation(np.repeat([0, 1], LISTED))
    source = Plain(targets.tolist())
    spec = DataSpec.model_validate(
        {"name": "x", "split": "75-10-15", "subsets": {"balanced": {"counts": [10_000, 10_000]}}}
    )
    splits = splits_of(source, spec)
    counts = [np.bincount(targets[part]).tolist() for _, part in splits["balanced"].items()]
    assert counts == [[7500, 7500], [1000, 1000], [1500, 1500]]
    assert len(splits[None].used()) == sum(LISTED)


def test_listing_looks_at_no_image_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path)
    asked: list[str] = []
    look = os.stat

    def noted(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        asked.append(str(path))
        return look(path, *rest, **more)

    monkeypatch.setattr(os, "stat", noted)
    source = Histopathologic(root=root)
    splits_of(source, DataSpec(name="x", split="1-1-1"))
    assert any(path.endswith("train_labels.csv") for path in asked)
    assert not [path for path in asked if path.endswith(".tif")]


def test_black_and_white_patches_are_kept_and_the_check_names_them(tmp_path: Path) -> None:
    root = make(tmp_path)
    draw(root / "train" / f"{A}.tif", colour=0)
    draw(root / "train" / f"{D}.tif", colour=255)
    source = Histopathologic(root=root)
    assert len(source) == 6
    assert source[1].image.max() == 0
    report = check(source, make_split(source, "1-1-1", seed=0, verify=False))
    assert report.blank == [A, D]
    assert f"2 images are blank (one colour all over); the first: {A}" in report.notes


@pytest.mark.parametrize("label", ["2", "-1", "1.0", "tumor", ""])
def test_a_label_that_is_not_0_or_1_names_its_row(tmp_path: Path, label: str) -> None:
    found = rf"train_labels\.csv, row 3: label of {A} is '{label}', expected 0 or 1"
    with pytest.raises(DataError, match=found):
        Histopathologic(root=make(tmp_path, [ROWS[0], (A, label)]))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"id,label\n{A},0\n{B},1\n{A},0\n", f", row 4: id {A} is already in row 2"),
        (f"id,label\n{A},0\n,1\n", ", row 3: id is empty"),
        (f"id,label\n{A},0\n\n{B}\n", f", row 4: label of {B} is ''"),
        (f"id_code,label\n{A},0\n", ": the header has no column id; found id_code, label"),
        (f"id\n{A}\n", ": the header has no column label; found id"),
        ("", ": the header has no column id; found nothing"),
        ("id,label\n", ": no rows below the header"),
        ("id,label\n\xff,1\n", ": cannot be read"),
    ],
)
def test_a_table_that_is_not_as_published_is_refused(
    tmp_path: Path, content: str, found: str
) -> None:
    root = make(tmp_path)
    (root / "train_labels.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=rf"train_labels\.csv{found}") as caught:
        Histopathologic(root=root)
    assert caught.value.hint


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    for id in (B, E):
        (root / "train" / f"{id}.tif").unlink()
    found = rf"2 of 6 images of train_labels\.csv are missing, the first is {E}\.tif"
    with pytest.raises(DataError, match=found):
        Histopathologic(root=root)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    source = Histopathologic(root=make(tmp_path))
    source.files()[1].write_bytes(b"II*\0 not a picture")
    with pytest.raises(DataError, match=rf"{A}\.tif: cannot be read as an image"):
        source[1]


def test_wrong_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Histopathologic(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no train_labels\.csv here") as caught:
        Histopathologic(root=tmp_path)
    assert "train/" in (caught.value.hint or "")
    write_csv(tmp_path / "train_labels.csv", ROWS, ("id", "label"))
    with pytest.raises(DataError, match=r"train: no such folder, train_labels\.csv lists"):
        Histopathologic(root=tmp_path)

"""DSP-KD's own order: copies first, then the split. It leaks, and says so everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import main
from edgekd.data._copied import Copied
from edgekd.data._dspkd import leak
from edgekd.data._randaugment import transformed
from edgekd.data.protocol import key_of, split_of, splits_of
from edgekd.data.read import open_source
from edgekd.data.splits import read_split, write_split
from edgekd.errors import DataError, RecipeError
from edgekd.export.materials import Materials
from edgekd.recipe_data import DataSpec
from edgekd.recipe_load import load
from edgekd.rundir import RunDir
from edgekd.train.run import distill
from edgekd.train.setup import prepare
from tests import tiny
from tests.data.plain import Plain

COUNTS = (60, 40, 12, 7)


def plain(*counts: int, **columns: Any) -> Plain:
    targets = np.repeat(np.arange(len(counts)), counts)
    return Plain(np.random.default_rng(0).permutation(targets).tolist(), **columns)


def spec(**more: Any) -> DataSpec:
    return DataSpec.model_validate({"name": "x", "split": "dspkd_paper", **more})


def test_rare_classes_come_to_half_of_the_largest_by_copies() -> None:
    source = Copied(plain(*COUNTS), seed=0)
    assert np.bincount(source.targets()).tolist() == [60, 40, 30, 30]
    assert len(source) == len(source.ids()) == len(source.groups()) == 160
    assert len(set(source.ids())) == 160
    assert source.ids()[:119] == plain(*COUNTS).ids()
    assert source.ids()[-1].endswith("+copy3")  # 30 of 7: at least three copies of each


def test_originals_are_as_they_were_and_copies_are_transformed_in_the_group_of_their_original() -> (
    None
):
    inner = plain(*COUNTS, groups=[f"g{index // 2}" for index in range(sum(COUNTS))])
    source = Copied(inner, seed=4)
    seen: dict[int, int] = {}
    for index, original in enumerate(source.originals.tolist()):
        copy = seen[original] = seen.get(original, -1) + 1
        own, sample = inner[original], source[index]
        expected = transformed(own.image, 4, original, copy) if copy else own.image
        np.testing.assert_array_equal(sample.image, expected)
        assert sample.id == source.ids()[index] == own.id + (f"+copy{copy}" if copy else "")
        assert sample.group == source.groups()[index] == own.group
        assert sample.target == source.targets()[index] == own.target


def test_an_image_and_its_copy_are_on_both_sides() -> None:
    source = Copied(plain(*COUNTS), seed=0)
    split = split_of(source, spec())
    homes: dict[str, set[str]] = {}
    for part in ("train", "test"):
        for index in getattr(split, part):
            homes.setdefault(source.ids()[index].partition("+")[0], set()).add(part)
    assert sum(home == {"train", "test"} for home in homes.values()) > 5


def test_a_fifth_of_all_files_is_held_out_at_random_and_chooses_the_epoch_too() -> None:
    source = Copied(plain(*COUNTS), seed=0)
    split = split_of(source, spec())
    assert len(split.test) == 32
    np.testing.assert_array_equal(split.val, split.test)
    assert sorted([*split.train, *split.test]) == list(range(160))
    again, other = split_of(source, spec()), split_of(source, spec(split_seed=1))
    np.testing.assert_array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)


def test_the_split_survives_its_file_and_other_copies_are_other_data(tmp_path: Path) -> None:
    source = Copied(plain(*COUNTS), seed=0)
    split = split_of(source, spec())
    write_split(tmp_path / "split.csv", source, split)
    again = read_split(tmp_path / "split.csv", source)
    np.testing.assert_array_equal(again.train, split.train)
    np.testing.assert_array_equal(again.test, split.test)
    other = Copied(plain(*COUNTS), seed=1)
    keys = {key_of(one, splits_of(one, spec())) for one in (plain(*COUNTS), source, other)}
    assert len(keys) == 3


def test_a_limit_thins_images_and_copies_and_a_class_without_training_images_is_refused() -> None:
    source = Copied(plain(300, 200, 20), seed=0)
    assert len(np.unique(split_of(source, spec(limit=325)).used())) == pytest.approx(325, abs=5)
    few = Copied(plain(2, 1), seed=0)
    held = (splits_of(few, spec(split_seed=seed))[None].test.tolist() for seed in range(50))
    unlucky = spec(split_seed=[*held].index(np.flatnonzero(few.targets() == 1).tolist()))
    with pytest.raises(DataError, match="class 'c1' has no training image, but 1 in val and 1 in"):
        split_of(few, unlucky)


def test_subsets_and_masks_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.subsets: dspkd_paper splits all images"):
        splits_of(plain(*COUNTS), spec(subsets={"few": {"counts": [1, 1, 1, 1]}}))
    masked = plain(*COUNTS)
    masked.has_masks = True
    with pytest.raises(RecipeError, match="copies of images cannot have masks"):
        Copied(masked, seed=0)


def recipe_of(folder: Path) -> Path:
    """The tiny recipe on pictures of two classes, 40 and 8 of them."""
    for name, count in (("common", 40), ("rare", 8)):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([number, count]).integers(0, 256, (24, 24, 3), np.uint8)
            pixels[..., 0] = 40 if name == "rare" else 200
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    tree = tiny.tree(folder, name="folder", params={}, root=str(folder / "images"))
    tree["data"].update(split="dspkd_paper", input={"size": 16})
    tree["task"] = {"name": "classification"}
    tree["export"]["make"] = ["onnx-fp32"]
    for stage in tree["stages"].values():
        stage["epochs"] = 1
    return tiny.write(folder, tree)


def test_a_recipe_gets_the_copies_and_the_leak_is_counted(tmp_path: Path) -> None:
    recipe = load(recipe_of(tmp_path))
    data = prepare(recipe)
    source, split = data.source, data.split
    assert isinstance(source, Copied)
    assert len(source) == 40 + 20
    trained = {source.ids()[index].partition("+")[0] for index in split.train}
    both = sum(source.ids()[index].partition("+")[0] in trained for index in split.test)
    assert both > 0
    assert data.caveats == [
        "dspkd_paper: the epoch was chosen on the very images that are reported as test",
        f"dspkd_paper: leakage: copies were made before the split: {both} of the 12 test images "
        f"have another version of themselves in training, {both} a picture of the same group "
        "(patient, lesion)",
    ]


def test_the_groups_of_the_data_are_counted_besides() -> None:
    source = Copied(plain(*COUNTS, groups=["one patient"] * sum(COUNTS)), seed=0)
    assert leak(source, split_of(source, spec())).endswith("32 a picture of the same group "
                                                           "(patient, lesion)")  # fmt: skip


def test_the_leakage_is_said_aloud_and_travels_with_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    path, run = recipe_of(tmp_path), RunDir(tmp_path / "run")
    recipe = load(path)
    monkeypatch.setattr("edgekd.train.run.make_fabric", stop)
    with pytest.raises(Enough):
        distill(recipe, run)
    said = " ".join(capsys.readouterr().err.split())
    wanted = prepare(recipe).caveats
    assert all(f"warning: {text}" in said for text in wanted)
    assert Materials(run, recipe, print).caveats() == wanted


def test_there_is_no_split_to_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(recipe_of(tmp_path))]) == 2
    assert "dspkd_paper validates and tests on the same images" in capsys.readouterr().err


def test_a_prepared_copy_holds_the_transformed_copies_too(tmp_path: Path) -> None:
    path = recipe_of(tmp_path)
    out = str(tmp_path / "copy")
    assert main(["data", "prepare", str(path), "--out", out]) == 0
    with_copy, without = (load(path, overrides=more) for more in ([f"data.prepared={out}"], []))
    one, other = prepare(with_copy), prepare(without)
    assert one.key == other.key
    for index in range(len(other.source)):
        np.testing.assert_array_equal(one.store[index], other.store[index])


def test_another_split_of_the_same_recipe_has_no_copies(tmp_path: Path) -> None:
    recipe = load(recipe_of(tmp_path), overrides=["data.split=6-2-2"])
    assert len(open_source(recipe.data)) == 48
    assert prepare(recipe).caveats == []

"""Subsets of the data: who trains and who is tested on what, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data.protocol import check_splits, key_of, split_of, splits_of
from edgekd.data.sicapv2 import SICAPv2
from edgekd.data.splits import read_split, write_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe_data import DataSpec
from tests.data.grading_layouts import make_sicapv2
from tests.data.plain import Plain

SICAPV2 = (4417, 2222, 4494, 948)
APTOS2019 = (1805, 370, 999, 193, 295)


def of_counts(*counts: int, **columns: Any) -> Plain:
    """A source with so many images per class, not in the order of the classes."""
    targets = np.repeat(np.arange(len(counts)), counts)
    return Plain(np.random.default_rng(0).permutation(targets).tolist(), **columns)


def spec(split: str = "8-1-1", **subsets: list[int]) -> DataSpec:
    return DataSpec.model_validate(
        {
            "name": "x",
            "split": split,
            "subsets": {name: {"counts": counts} for name, counts in subsets.items()},
        }
    )


@pytest.mark.parametrize(
    ("all_images", "balanced", "total"),
    [
        (SICAPV2, [2500, 2222, 2500, 948], 8170),
        (APTOS2019, [600, 370, 300, 193, 295], 1758),
    ],
)
def test_the_published_subsets_have_the_published_sizes(
    all_images: tuple[int, ...], balanced: list[int], total: int
) -> None:
    source = of_counts(*all_images)
    used = split_of(source, spec(balanced=balanced), "balanced").used()
    assert len(used) == len(set(used)) == total
    assert np.bincount(source.targets()[used]).tolist() == balanced


def test_the_images_are_those_that_pandas_draws_with_this_seed() -> None:
    targets = [1] * 3 + [0] * 20 + [1] * 9
    used = split_of(Plain(targets), spec(s=[7, 5]), "s").used()
    # DataFrame.sample(7, random_state=42) of 20 rows, and sample(5, random_state=42) of 12
    of_zero = [3 + row for row in (0, 17, 15, 1, 8, 5, 11)]
    of_one = [[0, 1, 2, *range(23, 32)][row] for row in (10, 9, 0, 8, 5)]
    assert sorted(used) == sorted(of_zero + of_one)


@pytest.mark.parametrize(("experts", "student"), [(None, "balanced"), ("balanced", None)])
@pytest.mark.parametrize("split", ["8-1-1", "official"])
def test_no_test_image_of_the_student_has_trained_or_chosen_an_expert(
    experts: str | None, student: str | None, split: str
) -> None:
    parts = np.random.default_rng(1).choice(["train", "val", "test"], sum(APTOS2019)).tolist()
    source = of_counts(*APTOS2019, parts=parts)
    data = spec(split, balanced=[600, 370, 300, 193, 295])
    theirs, ours = split_of(source, data, experts), split_of(source, data, student)
    assert len(ours.test) > 100
    assert not set(ours.test) & set(np.concatenate([theirs.train, theirs.val]))


def test_every_part_has_its_share_of_each_class_and_of_the_subset() -> None:
    source = of_counts(*SICAPV2)
    balanced = split_of(source, spec(balanced=[2500, 2222, 2500, 948]), "balanced")
    for part, share in ((balanced.train, 0.8), (balanced.val, 0.1), (balanced.test, 0.1)):
        counts = np.bincount(source.targets()[part])
        np.testing.assert_allclose(counts, np.array([2500, 2222, 2500, 948]) * share, atol=1)


def test_a_patient_stays_in_one_part(tmp_path: Path) -> None:
    source = SICAPv2(root=make_sicapv2(tmp_path))
    data = spec("6-2-2", balanced=[10, 20, 10, 20])
    for subset in (None, "balanced"):
        split = split_of(source, data, subset)
        groups = np.asarray(source.groups())
        for part, rest in ((split.test, split.train), (split.test, split.val)):
            assert not set(groups[part]) & set(groups[rest])


def test_umkd_code_holds_out_a_fifth_of_each_set_by_itself_and_shows_it_to_the_experts() -> None:
    source = of_counts(*APTOS2019)
    data = spec("umkd_code", balanced=[600, 370, 300, 193, 295])
    whole, balanced = split_of(source, data), split_of(source, data, "balanced")
    # 640 of 3,662 and 256 of 1,758 are what is left of a fifth in whole batches of 128, which is
    # what the printed accuracies are multiples of
    assert (len(whole.test) // 128 * 128, len(balanced.test) // 128 * 128) == (640, 256)
    assert (len(whole.train), len(balanced.train)) == (2928, 1406)
    np.testing.assert_array_equal(balanced.val, balanced.test)
    seen = np.intersect1d(balanced.test, whole.train)
    assert len(seen) > 0.7 * len(balanced.test)


def test_umkd_code_of_sicapv2_has_the_sizes_that_the_printed_accuracies_imply() -> None:
    source = of_counts(*SICAPV2)
    data = spec("umkd_code", balanced=[2500, 2222, 2500, 948])
    whole, balanced = split_of(source, data), split_of(source, data, "balanced")
    assert (len(whole.test) // 128 * 128, len(balanced.test) // 128 * 128) == (2304, 1536)


def test_a_split_that_validates_and_tests_on_the_same_images_survives_its_file(
    tmp_path: Path,
) -> None:
    source = of_counts(30, 20)
    split = split_of(source, spec("umkd_code"))
    write_split(tmp_path / "split.csv", source, split)
    again = read_split(tmp_path / "split.csv", source)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))
    assert (tmp_path / "split.csv").read_text().count("val+test") == 10
    with pytest.raises(DataError, match="row 42: an image may not validate and test"):
        split_of(source, spec(f"csv:{tmp_path / 'split.csv'}"))


def test_the_key_of_the_data_knows_its_subsets_by_name() -> None:
    source = of_counts(30, 20)
    subsets: list[dict[str, list[int]]] = [
        {},
        {"a": [30, 20]},
        {"a": [20, 20]},
        {"a": [20, 20], "b": [9, 9]},
        {"b": [20, 20], "a": [9, 9]},  # the same parts under each other's names
    ]
    keys = [key_of(source, splits_of(source, spec(**named))) for named in subsets]
    assert len(set(keys)) == len(keys)
    assert keys[2] == key_of(source, splits_of(source, spec(a=[20, 20])))


def test_a_patient_may_not_train_in_one_subset_and_be_tested_in_another(tmp_path: Path) -> None:
    targets, groups = [0, 0, 1, 1] * 10, [f"g{i}" for i in range(40)]
    source = Plain(targets, groups=groups)
    subsets = {"a": {"counts": [12, 12], "seed": 1}, "b": {"counts": [12, 12], "seed": 2}}
    data = DataSpec.model_validate({"name": "x", "split": "6-2-2", "subsets": subsets})
    splits = splits_of(source, data)
    a, b = splits["a"], splits["b"]
    ours = next(i for i in a.train if i not in b.used())
    theirs = next(i for i in b.test if i not in a.used())
    crossing = Plain(
        targets, groups=["p" if i in (ours, theirs) else g for i, g in enumerate(groups)]
    )
    for name in ("a", "b"):
        with pytest.raises(DataError, match=r"1 groups .* the first is 'p', in train and test"):
            check_splits(crossing, data, splits, [name])
    check_splits(source, data, splits, ["a", "b"])


def test_a_count_above_what_there_is_takes_all_and_a_limit_thins_every_subset() -> None:
    source = of_counts(300, 200)
    assert len(split_of(source, spec(a=[999, 50]), "a").used()) == 350
    few = spec(a=[999, 50]).model_copy(update={"limit": 250})
    assert len(split_of(source, few, "a").used()) == pytest.approx(175, abs=5)
    code = few.model_copy(update={"split": "umkd_code"})
    assert len(np.unique(split_of(source, code).used())) == pytest.approx(250, abs=5)


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.subsets\.a\.counts: 3 numbers for 2 classes"):
        split_of(of_counts(30, 20), spec(a=[1, 2, 3]), "a")
    with pytest.raises(DataError, match="class 'c1' has no training image"):
        split_of(of_counts(30, 20), spec(a=[20, 0]), "a")
    with pytest.raises(DataError, match="class 'c1' has no training image"):
        split_of(of_counts(30, 20), spec("umkd_code", a=[20, 0]), "a")
    with pytest.raises(RecipeError, match="umkd_code needs 10 images of every class, 'c1' has 4"):
        split_of(of_counts(30, 4, 3), spec("umkd_code", a=[5, 4, 3]), "a")

"""Splits: whole groups, every part its share of every class, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.data._split_problems import split_problems
from edgekd.data.splits import Split, make_split, read_split, take_fraction, write_split
from edgekd.errors import DataError, RecipeError
from tests.data.plain import Plain


def long_tailed(images: int = 3000) -> Plain:
    """Four classes of 67, 20, 10 and 3 percent, in groups of one to four images."""
    random = np.random.default_rng(1)
    owner = np.repeat(np.arange(images), random.integers(1, 5, images))[:images]
    grade = random.choice(4, images, p=(0.67, 0.2, 0.1, 0.03))
    return Plain(grade[owner].tolist(), groups=[f"g{number}" for number in owner])


def same(first: Split, second: Split) -> bool:
    return all(
        np.array_equal(a, b) for (_, a), (_, b) in zip(first.items(), second.items(), strict=True)
    )


@pytest.mark.parametrize(
    ("split", "shares"), [("8-1-1", (0.8, 0.1, 0.1)), ("75-10-15", (0.75, 0.1, 0.15))]
)
def test_a_ratio_gives_each_part_its_share_of_every_class(
    split: str, shares: tuple[float, ...]
) -> None:
    source = long_tailed()
    made = make_split(source, split, seed=0)
    totals = np.bincount(source.targets())
    for (_, indices), share in zip(made.items(), shares, strict=True):
        got = np.bincount(source.targets()[indices], minlength=4)
        np.testing.assert_allclose(got / totals, share, atol=0.03)


def test_every_image_is_in_one_part_and_every_group_too() -> None:
    source = long_tailed()
    made = make_split(source, "8-1-1", seed=0)
    everything = np.concatenate([indices for _, indices in made.items()])
    assert sorted(everything) == list(range(len(source)))
    groups = np.array(source.groups())
    homes = [set(groups[indices]) for _, indices in made.items()]
    assert sum(map(len, homes)) == len(set().union(*homes)) == len(set(groups))


def test_the_seed_decides() -> None:
    source = long_tailed()
    first = make_split(source, "8-1-1", seed=3)
    assert same(first, make_split(source, "8-1-1", seed=3))
    assert not same(first, make_split(source, "8-1-1", seed=4))


def test_a_class_of_one_group_trains() -> None:
    source = Plain([0] * 50 + [1] * 3, groups=[f"g{i}" for i in range(50)] + ["rare"] * 3)
    for seed in range(5):
        assert {50, 51, 52} <= set(make_split(source, "8-1-1", seed=seed).train)


def test_groups_of_mixed_classes_are_dealt_whole() -> None:
    targets = np.random.default_rng(0).integers(0, 3, 400)
    source = Plain(targets.tolist(), groups=[f"g{i // 4}" for i in range(400)])
    made = make_split(source, "6-2-2", seed=0)
    assert [len(indices) // 4 * 4 for _, indices in made.items()] == [
        len(indices) for _, indices in made.items()
    ]
    assert abs(len(made.train) - 240) <= 12


@pytest.mark.parametrize("split", ["8-1", "8:1:1", "8-0-2", "a-b-c", "", "offical"])
def test_something_else_is_no_split(split: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.split"):
        make_split(long_tailed(100), split, seed=0)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(DataError, match="2 groups cannot fill three parts"):
        make_split(Plain([0, 1, 0, 1], groups=["a", "a", "b", "b"]), "8-1-1", seed=0)


def test_official_parts_are_taken_as_they_are() -> None:
    parts = ["train", "train", "val", "val", "test", "test"]
    made = make_split(Plain([0, 1] * 3, parts=parts), "official", seed=0)
    assert [indices.tolist() for _, indices in made.items()] == [[0, 1], [2, 3], [4, 5]]


def test_without_an_official_val_part_whole_groups_leave_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = ["train"] * 400 + ["test"] * 100
    source = Plain([0, 1] * 250, parts=parts, groups=[f"g{i // 2}" for i in range(500)])
    made = make_split(source, "official", seed=0)
    assert made.test.tolist() == list(range(400, 500))
    assert 30 <= len(made.val) <= 50
    assert not split_problems(source, made)


def test_official_needs_an_official_split() -> None:
    with pytest.raises(DataError, match="has no official split"):
        make_split(Plain([0, 1, 0]), "official", seed=0)
    with pytest.raises(DataError, match="has no test part"):
        make_split(Plain([0, 1, 0], parts=["train", "train", "val"]), "official", seed=0)


def test_a_limit_keeps_whole_groups_and_every_class_of_every_part() -> None:
    source = long_tailed()
    full, small = (make_split(source, "8-1-1", seed=0, limit=n) for n in (None, 300))
    groups = np.array(source.groups())
    for (_, everything), (_, kept) in zip(full.items(), small.items(), strict=True):
        assert set(kept) <= set(everything)
        assert set(source.targets()[kept]) == set(source.targets()[everything])
        inside = np.isin(groups[everything], groups[kept])
        assert set(everything[inside]) == set(kept)
    assert 250 <= sum(len(indices) for _, indices in small.items()) <= 350
    assert same(full, make_split(source, "8-1-1", seed=0, limit=10**6))


def test_a_fraction_keeps_proportions_and_every_class() -> None:
    source = long_tailed()
    train = make_split(source, "8-1-1", seed=0).train
    tenth = take_fraction(source, train, 0.1, seed=0)
    assert abs(len(tenth) / len(train) - 0.1) < 0.02
    before, after = (np.bincount(source.targets()[i], minlength=4) for i in (train, tenth))
    np.testing.assert_allclose(after / after.sum(), before / before.sum(), atol=0.03)
    few = take_fraction(source, train, 0.001, seed=0)
    assert set(source.targets()[few]) == {0, 1, 2, 3}
    assert np.array_equal(tenth, take_fraction(source, train, 0.1, seed=0))
    assert np.array_equal(train, take_fraction(source, train, 1.0, seed=0))


def test_a_split_survives_its_file(tmp_path: Path) -> None:
    source = long_tailed(200)
    made = make_split(source, "8-1-1", seed=0)
    write_split(tmp_path / "split.csv", source, made)
    first = (tmp_path / "split.csv").read_text().splitlines()[:2]
    assert first[0] == "id,target,group,part"
    assert same(made, read_split(tmp_path / "split.csv", source))
    again = make_split(source, f"csv:{tmp_path / 'split.csv'}", seed=9)
    assert same(made, again)


def test_a_split_of_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    source = long_tailed(200)
    write_split(path, source, make_split(source, "8-1-1", seed=0))
    with pytest.raises(DataError, match=r"row \d+: the data has no image 'i1\d\d'"):
        read_split(path, Plain(source.targets()[:100].tolist()))
    relabelled = Plain([3] * 200, groups=source.groups())
    with pytest.raises(DataError, match=r"row \d+: image 'i\d+' had target 0, .* is now 3"):
        read_split(path, relabelled)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,part\ni0,train\n", "no column id; found name, part"),
        ("id,part\ni0,dev\n", "row 2: part is 'dev'"),
        ("id,part\ni0,train\ni0,test\n", "'i0' is in row 2 and again in row 3"),
        ("id,part\nx,train\n", "row 2: the data has no image 'x'"),
        ("id,part\ni0,train\ni2,val\ni4,test\n", "class 'c1' has no training image"),
        ("id,part\ni0,train\ni1,train\ni2,val\n", "the test part is empty"),
    ],
)
def test_a_bad_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        make_split(Plain([0, 1] * 3), f"csv:{path}", seed=0)
    with pytest.raises(DataError, match=r"nowhere\.csv: no such split file"):
        make_split(Plain([0, 1] * 3), "csv:nowhere.csv", seed=0)


def test_a_class_that_training_never_saw_is_named_with_where_it_is() -> None:
    source = Plain([0, 0, 0, 1], parts=["train", "train", "val", "test"])
    with pytest.raises(DataError, match="class 'c1' has no training image, but 1 in test"):
        make_split(source, "official", seed=0)


def test_a_class_without_any_image_is_named() -> None:
    source = Plain([0, 1] * 3, parts=["train", "train", "val", "val", "test", "test"], classes=3)
    with pytest.raises(DataError, match=r"class 'c2' has no training image$"):
        make_split(source, "official", seed=0)


def test_a_group_in_two_parts_is_named() -> None:
    parts = ["train", "train", "val", "val", "test", "test"]
    source = Plain([0, 1] * 3, parts=parts, groups=["a", "b", "c", "d", "e", "b"])
    with pytest.raises(DataError, match=r"1 groups .* the first is 'b', in train and test"):
        make_split(source, "official", seed=0)
    unchecked = make_split(source, "official", seed=0, verify=False)
    assert len(split_problems(source, unchecked)) == 1

"""`balance: mean`: the training part of a stage at the mean class count, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.data.base import UNLABELLED
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.stage_keys import stage_keys
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.loader import Feed
from edgekd.train.setup import prepare
from tests import tiny
from tests.train.cached import Opened
from tests.train.cached import recipe_of as cached_recipe

MEAN = "stages.distill.data.balance=mean"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose four classes have 60, 30, 12 and 6 images."""
    folder = tmp_path_factory.mktemp("balance")
    tree: dict[str, Any] = tiny.tree(folder, split="2-1-1")
    tree["data"]["subsets"] = {"tail": {"counts": [60, 30, 12, 6]}}
    for stage in tree["stages"].values():
        stage["data"] = {"subset": "tail"}
    tiny.write(folder, tree)
    return folder


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return load(folder / "tiny.yaml", overrides=list(overrides))


def feed_of(recipe: Recipe, stage: str = "distill") -> Feed:
    return stage_feed(recipe, prepare(recipe), recipe.stages[stage], stage)


def test_the_training_part_is_rebalanced_and_the_other_parts_are_not(folder: Path) -> None:
    plain, mean = recipe_of(folder), recipe_of(folder, MEAN)
    data = prepare(mean)
    feed = stage_feed(mean, data, mean.stages["distill"], "distill")
    before = class_counts(feed_of(plain), 4)
    assert before[0] > 4 * before[3]
    assert class_counts(feed, 4) == [round(sum(before) / 4)] * 4
    split = prepare(plain).split
    assert set(feed.indices.tolist()) <= set(split.train.tolist())
    np.testing.assert_array_equal(data.split.val, split.val)
    np.testing.assert_array_equal(data.split.test, split.test)


def test_the_other_stage_is_as_before(folder: Path) -> None:
    plain, mean = feed_of(recipe_of(folder), "teacher"), feed_of(recipe_of(folder, MEAN), "teacher")
    np.testing.assert_array_equal(plain.indices, mean.indices)


def test_every_epoch_has_the_same_images_in_another_order(folder: Path) -> None:
    feed = feed_of(recipe_of(folder, MEAN))
    first, second = (np.concatenate(feed.plan(5, epoch)) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == sorted(feed.keys)
    assert not np.array_equal(first, second)


def test_the_runs_seed_and_the_stage_decide_which_images(folder: Path) -> None:
    both = [MEAN, "stages.teacher.data.balance=mean"]
    recipe = recipe_of(folder, *both)
    student, teacher = feed_of(recipe), feed_of(recipe, "teacher")
    np.testing.assert_array_equal(student.indices, feed_of(recipe_of(folder, *both)).indices)
    assert not np.array_equal(student.indices, teacher.indices)
    assert not np.array_equal(student.indices, feed_of(recipe_of(folder, *both, "seed=7")).indices)


def test_images_whose_label_is_hidden_stay_and_do_not_count(folder: Path) -> None:
    hidden = "stages.distill.data.labelled=0.5"
    plain, mean = feed_of(recipe_of(folder, hidden)), feed_of(recipe_of(folder, hidden, MEAN))
    unlabelled = plain.indices[plain.targets[plain.indices] == UNLABELLED]
    times = Counter(mean.indices.tolist())
    assert len(unlabelled)
    assert all(times[index] == 1 for index in unlabelled.tolist())
    labelled = class_counts(plain, 4)
    assert class_counts(mean, 4) == [round(sum(labelled) / 4)] * 4


def test_a_stage_without_it_keeps_its_key(folder: Path) -> None:
    plain = recipe_of(folder)
    assert plain.stages["distill"].data.model_dump(mode="json")["balance"] is False
    keys = [
        stage_keys(recipe_of(folder, *more), "data")
        for more in ([], ["stages.distill.data.balance=false"], [MEAN])
    ]
    assert keys[0] == keys[1]
    assert keys[0]["teacher"] == keys[2]["teacher"]
    assert keys[0]["distill"] != keys[2]["distill"]


def test_something_else_comes_with_a_suggestion(folder: Path) -> None:
    with pytest.raises(
        RecipeError,
        match="balance: 'maen' is not one of False, True, 'mean', 'class_aware' or 'augment'",
    ) as e:
        recipe_of(folder, "stages.distill.data.balance=maen")
    assert e.value.hint == "did you mean 'mean'?"


def test_a_cached_teacher_has_seen_each_copy_as_the_student_sees_it(tmp_path: Path) -> None:
    recipe = cached_recipe(tmp_path, MEAN, "data.split=2-1-1", views=2)
    opened = Opened(recipe, tmp_path / "runs")
    feed = opened.feed
    times = Counter(feed.indices.tolist())
    often = max(times, key=lambda index: times[index])
    assert times[often] > 1
    keys = feed.keys[feed.indices == often]
    for epoch in (1, 2, 3):
        known = feed.known(torch.from_numpy(keys), epoch)["teacher"]["logits"]
        live = opened.batch(keys, epoch)
        with torch.no_grad():
            expected = opened.distiller.ask("teacher", live.images).logits
        torch.testing.assert_close(known, expected, rtol=1e-4, atol=1e-5)
        assert not torch.equal(known[0], known[1])

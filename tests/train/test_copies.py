"""Copies of training images: few operations of RandAugment, the same picture in every epoch."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as F

from edgekd.data._randaugment import OPERATIONS, drawn
from edgekd.data.base import UNLABELLED, Image
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.stage_keys import stage_keys
from edgekd.train.copies import Copies
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.loader import Feed
from edgekd.train.setup import prepare
from tests import tiny
from tests.train.cached import Opened
from tests.train.cached import recipe_of as cached_recipe

AUGMENT = "stages.distill.data.balance=augment"


def picture(height: int = 37, width: int = 50) -> Image:
    """Smooth colours that no operation but `identity` leaves alone."""
    rows, columns = np.mgrid[:height, :width]
    planes = [80 + columns * 3, 60 + rows * 2, 90 + (rows + columns) % 40]
    return np.stack(planes, axis=2).astype(np.uint8)


def affine(image: Any, **change: Any) -> Any:
    own = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **change}
    return F.affine(image, **own)


def degrees(slope: float) -> float:
    return float(np.degrees(np.arctan(slope)))


# by torchvision, on a Pillow picture; the number is what its table gives for magnitude 9
TORCHVISION: dict[str, tuple[str, Callable[[Any, float], Any]]] = {
    "identity": ("Identity", lambda image, _: image),
    "autocontrast": ("AutoContrast", lambda image, _: F.autocontrast(image)),
    "equalize": ("Equalize", lambda image, _: F.equalize(image)),
    "rotate": ("Rotate", F.rotate),
    "solarize": ("Solarize", lambda image, value: F.solarize(image, 255 * value)),
    "color": ("Color", lambda image, value: F.adjust_saturation(image, 1 + value)),
    "posterize": ("Posterize", lambda image, value: F.posterize(image, int(value))),
    "contrast": ("Contrast", lambda image, value: F.adjust_contrast(image, 1 + value)),
    "brightness": ("Brightness", lambda image, value: F.adjust_brightness(image, 1 + value)),
    "sharpness": ("Sharpness", lambda image, value: F.adjust_sharpness(image, 1 + value)),
    "shear-x": (
        "ShearX", lambda image, value: affine(image, shear=[degrees(value), 0.0], center=[0, 0])
    ),
    "shear-y": (
        "ShearY", lambda image, value: affine(image, shear=[0.0, degrees(value)], center=[0, 0])
    ),
    "translate-x": ("TranslateX", lambda image, value: affine(image, translate=[int(value), 0])),
    "translate-y": ("TranslateY", lambda image, value: affine(image, translate=[0, int(value)])),
}  # fmt: skip


def test_there_are_the_fourteen_operations_of_randaugment() -> None:
    assert set(OPERATIONS) == set(TORCHVISION)
    assert {name for name, _ in TORCHVISION.values()} == set(RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_each_gives_torchvisions_pixels_at_magnitude_9_of_30(name: str, sign: int) -> None:
    for image in (picture(), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)):
        own = Pillow.fromarray(image)
        table, signed = RandAugment._AUGMENTATION_SPACE[TORCHVISION[name][0]]
        values = table(31, *image.shape[:2])
        value = 0.0 if values is None else float(values[9]) * (sign if signed else 1)
        expected = np.asarray(TORCHVISION[name][1](own, value))
        np.testing.assert_array_equal(np.asarray(OPERATIONS[name](own, sign)), expected)
        changed = not np.array_equal(expected, image)
        assert changed == (name != "identity") or name in {"autocontrast", "equalize"}


def test_one_to_three_operations_are_drawn_and_all_come_equally_often() -> None:
    found = [drawn(3, index, copy) for index in range(700) for copy in (1, 2)]
    lengths = Counter(map(len, found))
    assert sorted(lengths) == [1, 2, 3]
    assert min(lengths.values()) > 400
    times = Counter(name for operations in found for name, _ in operations)
    assert set(times) == set(OPERATIONS)
    assert max(times.values()) < 1.5 * min(times.values())
    signs = Counter(sign for operations in found for _, sign in operations)
    assert abs(signs[1] - signs[-1]) < 0.1 * signs.total()


def test_a_copy_is_always_the_same_picture_and_the_first_is_the_image_itself() -> None:
    image, copies = picture(), Copies(seed=5)
    assert copies(image, 7, 0) is image
    first = copies(image, 7, 1)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, copies(image, 7, 1))
    np.testing.assert_array_equal(first, pickle.loads(pickle.dumps(copies))(image, 7, 1))
    np.testing.assert_array_equal(image, picture())
    others = [copies(image, 7, 2), copies(image, 8, 1), Copies(seed=6)(image, 7, 1)]
    assert not any(np.array_equal(first, other) for other in others)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose four classes have 60, 30, 12 and 6 images, without other augmentation."""
    folder = tmp_path_factory.mktemp("copies")
    tree = tiny.tree(folder, split="2-1-1", augment=[])
    tree["data"]["subsets"] = {"tail": {"counts": [60, 30, 12, 6]}}
    for stage in tree["stages"].values():
        stage["data"] = {"subset": "tail"}
    tiny.write(folder, tree)
    return folder


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return load(folder / "tiny.yaml", overrides=list(overrides))


def feed_of(recipe: Recipe, stage: str = "distill") -> Feed:
    return stage_feed(recipe, prepare(recipe), recipe.stages[stage], stage)


def shown(feed: Feed, seed: int, view: int) -> dict[int, Any]:
    """The picture of each key of the feed (3, S, S)."""
    loaded = feed.load([feed.keys], seed=seed, view=view, pin=False)
    ((images, _, keys),) = loaded
    return dict(zip(keys.tolist(), images, strict=True))


def test_rare_classes_of_the_training_part_come_to_half_of_the_largest(folder: Path) -> None:
    before, feed = class_counts(feed_of(recipe_of(folder)), 4), feed_of(recipe_of(folder, AUGMENT))
    assert class_counts(feed, 4) == [max(count, round(before[0] / 2)) for count in before]
    plain, more = prepare(recipe_of(folder)).split, prepare(recipe_of(folder, AUGMENT)).split
    assert set(feed.indices.tolist()) <= set(plain.train.tolist())
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(plain, part), getattr(more, part))


def test_originals_are_shown_as_they_are_and_copies_transformed_the_same_in_every_epoch(
    folder: Path,
) -> None:
    feed = feed_of(recipe_of(folder, AUGMENT))
    assert feed.copies is not None
    first, second = shown(feed, 5, view=1), shown(feed, 6, view=2)
    images, further = len(feed.targets), 0
    for key, image in first.items():
        copy, index = divmod(key, images)
        assert torch.equal(image, second[key])
        stored = feed.copies(feed.store[index], index, copy)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), stored)
        further += bool(copy) and not np.array_equal(stored, feed.store[index])
    copies = sum(key >= images for key in first)
    assert 0.8 * copies < further <= copies  # a few draw `identity` alone


def test_the_stages_own_augmentation_comes_on_top_for_all(folder: Path) -> None:
    feed = feed_of(recipe_of(folder, AUGMENT, "data.augment=[hflip:1]"))
    assert feed.copies is not None
    for key, image in shown(feed, 5, view=1).items():
        copy, index = divmod(key, len(feed.targets))
        stored = feed.copies(feed.store[index], index, copy)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), stored[:, ::-1])


def test_seed_and_stage_decide_and_a_stage_without_it_keeps_its_key(folder: Path) -> None:
    both = [AUGMENT, "stages.teacher.data.balance=augment"]
    recipe = recipe_of(folder, *both)
    student, teacher = feed_of(recipe), feed_of(recipe, "teacher")
    again, other = feed_of(recipe_of(folder, *both)), feed_of(recipe_of(folder, *both, "seed=7"))
    np.testing.assert_array_equal(student.indices, again.indices)
    assert student.copies == again.copies
    assert len({feed.copies for feed in (student, teacher, other)}) == 3
    assert feed_of(recipe_of(folder)).copies is None
    plain, augmented, mean = (
        stage_keys(recipe_of(folder, *more), "data")
        for more in ([], [AUGMENT], ["stages.distill.data.balance=mean"])
    )
    assert plain["teacher"] == augmented["teacher"]
    assert len({keys["distill"] for keys in (plain, augmented, mean)}) == 3


def test_images_whose_label_is_hidden_have_no_copies(folder: Path) -> None:
    feed = feed_of(recipe_of(folder, AUGMENT, "stages.distill.data.labelled=0.5"))
    times = Counter(feed.indices.tolist())
    hidden = feed.indices[feed.targets[feed.indices] == UNLABELLED]
    assert len(hidden)
    assert all(times[index] == 1 for index in hidden.tolist())


def test_a_cached_teacher_has_seen_each_copy_as_the_student_sees_it(tmp_path: Path) -> None:
    recipe = cached_recipe(tmp_path, AUGMENT, "data.split=2-1-1", "data.params.images=90", views=2)
    opened = Opened(recipe, tmp_path / "runs")
    feed = opened.feed
    keys = feed.keys[feed.keys >= len(feed.targets)]
    assert feed.copies is not None
    assert len(keys)
    for epoch in (1, 2):
        known = feed.known(torch.from_numpy(keys), epoch)["teacher"]["logits"]
        live = opened.batch(keys, epoch)
        with torch.no_grad():
            expected = opened.distiller.ask("teacher", live.images).logits
        torch.testing.assert_close(known, expected, rtol=1e-4, atol=1e-5)


def test_it_is_refused_where_copies_were_made_before_the_split(folder: Path) -> None:
    paper = ["data.split=dspkd_paper", "data.subsets={}", "stages.teacher.data.subset=null"]
    recipe = recipe_of(folder, AUGMENT, *paper, "stages.distill.data.subset=null")
    with pytest.raises(RecipeError, match="dspkd_paper has made the copies before the split"):
        feed_of(recipe)

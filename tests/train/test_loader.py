"""Batches, augmentation and learning rates are functions of where training is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.image import to_input
from edgekd.recipe import ScheduleSpec
from edgekd.train import augment
from edgekd.train.loader import Feed, TrainImages, batches, epoch_batches, keys_of, to_float
from edgekd.train.optim import factor
from edgekd.train.seeding import derive

INDICES = np.arange(100, 200)
TARGETS = np.repeat([0, 1], [90, 10])


def plan(epoch: int = 1, **more: object) -> list[np.ndarray]:
    return epoch_batches(INDICES, TARGETS, batch=32, seed=5, epoch=epoch, **more)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    first, second = np.concatenate(plan(1)), np.concatenate(plan(2))
    assert sorted(first) == sorted(second) == INDICES.tolist()
    assert not np.array_equal(first, second)
    assert np.array_equal(first, np.concatenate(plan(1)))


def test_the_last_partial_batch_is_kept_unless_it_is_a_single_image() -> None:
    assert [len(piece) for piece in plan()] == [32, 32, 32, 4]
    assert [len(piece) for piece in plan(drop_last=True)] == [32, 32, 32]
    single = epoch_batches(INDICES[:97], TARGETS[:97], batch=32, seed=5, epoch=1)
    assert [len(piece) for piece in single] == [32, 32, 32]


def test_balanced_drawing_shows_classes_equally_often() -> None:
    drawn = np.concatenate([np.concatenate(plan(epoch, balance=True)) for epoch in range(20)])
    share = (drawn >= 190).mean()
    assert share == pytest.approx(0.5, abs=0.04)


class Store:
    def __getitem__(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def load(workers: int, start: int = 0) -> list[torch.Tensor]:
    steps = augment.build(["random-resized-crop", "hflip", "rotate"], 32)
    targets = np.zeros(200, dtype=np.int64)
    images = TrainImages(Store(), targets, steps, seed=3, view=2)
    return [pixels for pixels, *_ in batches(images, plan()[start:], workers=workers, pin=False)]


def fingerprint(workers: int) -> str:
    digest = hashlib.sha256()
    for pixels in load(workers):
        digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()


def test_augmentation_depends_on_seed_epoch_and_image_only() -> None:
    whole = load(0)
    torch.rand(7)  # whatever happened before
    assert all(torch.equal(a, b) for a, b in zip(whole, load(0), strict=True))
    assert torch.equal(load(0, start=2)[0], whole[2])


def feed_of(indices: list[int]) -> Feed:
    steps = augment.build(["random-resized-crop", "hflip", "rotate"], 32)
    targets = np.arange(200) % 3
    return Feed(Store(), np.array(indices), targets, steps, 2, False, False, 0)


def shown(feed: Feed, plan: list[np.ndarray]) -> dict[int, torch.Tensor]:
    """Each key's picture."""
    pixels, _, keys = zip(*feed.load(plan, seed=3, view=1, pin=False), strict=True)
    return dict(zip(torch.cat(keys).tolist(), torch.cat(pixels), strict=True))


def test_the_key_of_an_image_is_its_index_until_it_comes_again() -> None:
    assert keys_of(np.array([4, 9, 2]), 10).tolist() == [4, 9, 2]
    assert keys_of(np.array([4, 9, 4, 2, 4]), 10).tolist() == [4, 9, 14, 2, 24]
    assert keys_of(np.array([], dtype=np.int64), 10).tolist() == []


def test_copies_of_an_image_are_augmented_differently() -> None:
    feed = feed_of([5, 5, 5, 8])
    plan = feed.plan(3, 1)
    assert sorted(np.concatenate(plan)) == [5, 8, 205, 405]
    pictures = shown(feed, plan)
    assert not torch.equal(pictures[5], pictures[205])
    assert not torch.equal(pictures[205], pictures[405])
    ((_, targets, _),) = feed.load([np.array([5, 205, 8])], seed=3, view=1, pin=False)
    assert targets.tolist() == [5 % 3, 5 % 3, 8 % 3]


def test_other_images_and_first_copies_are_as_if_there_were_no_copies() -> None:
    once, again = feed_of([5, 8, 9, 11]), feed_of([5, 8, 9, 11, 5, 8])
    expected, pictures = shown(once, once.plan(3, 1)), shown(again, again.plan(3, 1))
    assert all(torch.equal(pictures[key], picture) for key, picture in expected.items())


def test_copies_are_the_same_where_an_epoch_is_taken_up_again() -> None:
    feed = feed_of([5, 5, 5, 8, 8, 9])
    whole, rest = shown(feed, feed.plan(3, 1)), shown(feed, feed.plan(3, 1)[2:])
    assert all(torch.equal(whole[key], picture) for key, picture in rest.items())


def test_worker_processes_load_the_same_bytes() -> None:
    """In a process of its own: this one is full of other libraries' threads, which no fork
    survives for sure."""
    code = "from tests.train.test_loader import fingerprint; print(fingerprint(2))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == fingerprint(0)


@pytest.mark.parametrize("name", sorted(augment.KNOWN))
def test_every_augmentation_gives_uint8_images_of_the_input_size(name: str) -> None:
    image = torch.from_numpy(Store()[0]).permute(2, 0, 1)
    changed = augment.build([name], 32)(image)
    assert changed.shape == (3, 32, 32)
    assert changed.dtype == torch.uint8


EXACT = ["hflip:1", "vflip:1", "rotate90", "transpose:1", "random-crop"]
SMOOTH = ["rotate", "shift:0.3", "zoom:0.5", "random-resized-crop"]


def blob(size: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose red is its mask, of no symmetry, and the mask (1, H, W)."""
    from torchvision import tv_tensors

    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[:, 8:30, 14:40] = 1
    mask[:, 30:44, 14:22] = 1
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    image[0] = 255 * mask[0]
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


@pytest.mark.parametrize("name", [*EXACT, *SMOOTH, "zoom:0"])
def test_a_mask_moves_with_its_image(name: str) -> None:
    steps = augment.build([name], 40, masks=True)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        image, mask = steps(*blob())
        assert image.shape == (3, 40, 40)
        assert mask.shape == (1, 40, 40)
        assert set(mask.unique().tolist()) <= {0, 1}  # no grey in between
        red, white = image[0] > 127, mask[0] == 1
        if name in SMOOTH:  # a pixel on the border may fall to either side
            assert (red != white).float().mean() < 0.06
            inside = torch.nn.functional.avg_pool2d(mask.float(), 7, 1, 3)[0]
            settled = (inside == 0) | (inside == 1)
            assert torch.equal(red[settled], white[settled])
        else:
            assert torch.equal(red, white)
        seen.add(tuple(mask.flatten().tolist()))
    if name in {"rotate90", "random-crop", *SMOOTH}:
        assert len(seen) > 1


def test_all_of_them_together_move_a_mask_with_its_image() -> None:
    steps = augment.build([*SMOOTH[:3], *EXACT, "color-jitter"], 40, masks=True)
    for seed in range(8):
        torch.manual_seed(seed)
        image, mask = steps(*blob())
        red, white = image[0].float(), mask[0] == 1
        if white.any() and not white.all():
            assert red[white].mean() > red[~white].mean() + 60


def test_colours_change_and_the_mask_does_not() -> None:
    image, mask = blob(40)
    changed, same = augment.build(["color-jitter:0.5"], 40, masks=True)(image, mask)
    assert not torch.equal(changed, image)
    assert torch.equal(same, mask)


def test_known_augmentations_are_tried_with_masks_or_refused() -> None:
    tried = {name.partition(":")[0] for name in [*EXACT, *SMOOTH, "color-jitter"]}
    assert tried | set(augment.NO_MASKS) == set(augment.KNOWN)


@pytest.mark.parametrize("name", augment.NO_MASKS)
def test_what_a_mask_cannot_follow_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"a mask cannot follow '{name}'") as caught:
        augment.build(["hflip", f"{name}:0.5"], 32, masks=True)
    assert "rotate" in (caught.value.hint or "")
    augment.build([name], 32)


class MaskStore(Store):
    def __getitem__(self, index: int) -> np.ndarray:
        image = np.array(super().__getitem__(index))
        image[..., 0] = 255 * (self.mask(index) == 1)
        return image

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 40), dtype=np.uint8)
        mask[index % 10 + 5 : 25, 8:20] = 1
        if index % 2:
            mask[30:, 30:] = 255
        return mask


def masked(names: list[str], targets: np.ndarray) -> TrainImages:
    steps = augment.build(names, 32, masks=True)
    return TrainImages(MaskStore(), targets, steps, seed=3, view=2, masks=True)


def test_batches_hold_masks_that_fit_their_images() -> None:
    images = masked(["hflip", "rotate90", "transpose"], np.zeros(50, dtype=np.int64))
    ((pixels, labels, keys),) = batches(images, [np.array([4, 7, 54])], workers=0, pin=False)
    assert pixels.dtype == torch.uint8
    assert type(pixels) is torch.Tensor
    assert labels.shape == (3, 32, 32)
    assert labels.dtype == torch.int64
    assert keys.tolist() == [4, 7, 54]
    assert torch.equal(pixels[:, 0] == 255, labels == 1)
    assert (labels[0] == -1).sum() == 0  # an even image has no unknown pixels
    assert (labels[1] == -1).sum() == 36  # what the crop leaves of 10 x 10
    assert not torch.equal(labels[0], labels[2])  # a copy is augmented by itself


def test_the_same_seed_moves_an_image_as_it_does_without_masks() -> None:
    names = ["random-resized-crop", "hflip", "rotate", "color-jitter"]
    with_masks = masked(names, np.zeros(50, dtype=np.int64))
    without = TrainImages(MaskStore(), np.zeros(50, dtype=np.int64), augment.build(names, 32), 3, 2)
    for index in range(4):
        assert torch.equal(with_masks[index][0], without[index][0])


def test_where_the_label_is_hidden_every_pixel_is() -> None:
    targets = np.array([0, -1, 1, -1])
    images = masked(["hflip"], targets)
    labels = [images[key][1] for key in (0, 1, 2, 3, 5)]  # 5 is a copy of 1
    assert [bool((label == -1).all()) for label in labels] == [False, True, False, True, True]


def test_unmasked_targets_are_what_they_were() -> None:
    images = TrainImages(Store(), np.array([2, -1]), augment.build([], 32), 3, 2)
    ((_, targets, _),) = batches(images, [np.array([0, 1])], workers=0, pin=False)
    assert targets.tolist() == [2, -1]
    assert targets.dtype == torch.int64


def test_a_transposed_image_has_its_rows_for_columns() -> None:
    image = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)
    assert torch.equal(augment.build(["transpose:1"], 8)(image), image.transpose(1, 2))
    assert torch.equal(augment.build(["transpose:0"], 8)(image), image)
    with pytest.raises(RecipeError, match="'transpose:2': expected a probability"):
        augment.build(["transpose:2"], 8)


def test_an_unknown_augmentation_comes_with_a_suggestion() -> None:
    with pytest.raises(RecipeError) as caught:
        augment.build(["hflop"], 32)
    assert "hflip" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="rotate:NUMBER"):
        augment.build(["rotate:far"], 32)


def test_training_pixels_are_the_devices_pixels() -> None:
    squares = np.stack([Store()[0], Store()[1]])
    trained = to_float(torch.from_numpy(squares).permute(0, 3, 1, 2))
    assert np.array_equal(trained.numpy(), to_input(squares))


def test_schedules_have_their_shapes() -> None:
    def rate(progress: float, **spec: object) -> float:
        schedule = ScheduleSpec.model_validate(spec)
        return factor(schedule, progress=progress, epochs=10, lr=0.1)

    assert rate(3, name="constant") == 1.0
    assert rate(1, name="cosine", warmup=2) == pytest.approx(0.5)
    assert rate(2, name="cosine", warmup=2) == pytest.approx(1.0)
    assert rate(10, name="cosine", floor=0.001) == pytest.approx(0.01)
    assert [rate(p, name="step", every=4) for p in (0, 3.9, 4, 8)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )
    assert rate(3, name="onecycle") == pytest.approx(1.0)
    assert rate(10, name="onecycle") == pytest.approx(1e-3)


def test_seeds_are_stable_numbers() -> None:
    assert derive(1, "a", 2) == derive(1, "a", 2)
    assert derive(1, "a", 2) != derive(1, "a", 3)
    assert 0 <= derive("x") < 2**63

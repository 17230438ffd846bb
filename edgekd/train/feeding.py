"""Which images and labels a stage trains on."""

from __future__ import annotations

import numpy as np

from edgekd.data._class_aware import having
from edgekd.data._dspkd import DSPKD_PAPER
from edgekd.data._rebalance import rebalanced, topped_up
from edgekd.data.base import UNLABELLED
from edgekd.data.splits import take_fraction
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe, StageSpec
from edgekd.train.augment import build as build_augment
from edgekd.train.copies import Copies
from edgekd.train.distiller import Distiller
from edgekd.train.loader import Feed, Indices
from edgekd.train.seeding import derive
from edgekd.train.setup import Prepared


def augmentations(recipe: Recipe, spec: StageSpec) -> list[str]:
    """The names of a stage's augmentations."""
    return recipe.data.augment if spec.data.augment is None else spec.data.augment


def stage_feed(recipe: Recipe, data: Prepared, spec: StageSpec, name: str) -> Feed:
    """Which images and labels a stage trains on."""
    own = spec.data
    indices: Indices = data.splits[own.subset].train
    if own.fraction is not None:
        indices = take_fraction(data.source, indices, own.fraction, seed=recipe.seed)
    labels = data.source.labels() if data.task.wants_labels else None
    if own.having is not None:
        indices = _having(data, indices, own.having, own.negatives, derive(recipe.seed, name))
    targets = data.source.targets().copy()
    if own.labelled is not None:
        shown = take_fraction(data.source, indices, own.labelled, seed=recipe.seed)
        targets[np.setdiff1d(np.arange(len(targets)), shown)] = UNLABELLED
    if own.balance == "mean":
        seed = derive(recipe.seed, name, "balance")
        indices = rebalanced(indices, targets[indices], seed)
    copies = None
    if own.balance == "augment":
        _check_copies(recipe, data, name)
        seed = derive(recipe.seed, name, "balance")
        indices, copies = topped_up(indices, targets[indices], seed=seed), Copies(seed)
    return Feed(
        store=data.store,
        indices=indices,
        targets=targets,
        augment=build_augment(
            augmentations(recipe, spec), recipe.data.input.size, masks=data.task.wants_masks
        ),
        masks=data.task.wants_masks,
        labels=labels,
        copies=copies,
        batch=own.batch or recipe.data.batch,
        drop_last=own.drop_last,
        balance=own.balance if own.balance == "class_aware" else own.balance is True,
        workers=recipe.data.workers,
    )


def _check_copies(recipe: Recipe, data: Prepared, name: str) -> None:
    place = f"stages.{name}.data.balance: augment"
    if data.task.wants_masks:
        raise RecipeError(f"{place}: masks cannot follow what is done to copies",
                          hint=f"stages.{name}.data.balance=mean")  # fmt: skip
    if recipe.data.split == DSPKD_PAPER:
        raise RecipeError(f"{place}: {DSPKD_PAPER} has made the copies before the split",
                          hint=f"stages.{name}.data.balance=false")  # fmt: skip


def _having(
    data: Prepared, indices: Indices, group: str, negatives: float | None, seed: int
) -> Indices:
    if group not in data.task.learned.groups:
        data.task.only(())  # refused where classes exclude each other
    columns = list(data.task.learned.groups[group])
    found = having(data.source.labels()[:, columns], indices, negatives, seed)
    if not len(found):
        raise RecipeError(f"data.class_groups.{group}: no training image shows any of its classes")
    return found


def check_full_batch(distiller: Distiller, feed: Feed, name: str) -> None:
    """Raises RecipeError where a term needs full batches and the images do not fill one."""
    tied = distiller.tied_to_batch()
    if tied and len(feed.indices) < feed.batch:
        raise RecipeError(
            f"stages.{name}.losses.{tied[0]}: this loss needs full batches of {feed.batch} images, "
            f"the stage has {len(feed.indices)}",
            hint=f"stages.{name}.data.batch={max(2, len(feed.indices) // 4)}",
        )


def class_counts(feed: Feed, classes: int) -> list[int]:
    """Labelled training images per class (with masks: per kind of image)."""
    labels = feed.targets[feed.indices]
    if feed.labels is not None:
        shown = (feed.labels[feed.indices] == 1) & (labels >= 0)[:, None]
        return [int(count) for count in shown.sum(axis=0)]
    return np.bincount(labels[labels >= 0], minlength=0 if feed.masks else classes).tolist()

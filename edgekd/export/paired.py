"""What two models answered on the same labelled images, as the gate compares it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.errors import DataError, EdgekdError
from edgekd.export.evidence import Loss, loss_of
from edgekd.results import Predictions
from edgekd.tasks.base import Floats, Ints, Task

ROUNDING = 1e-9  # a share that was summed up may end this far above 1


@dataclass(frozen=True)
class Part:
    """How right some images are before and after, (N,) in [0, 1], and their groups."""

    before: Floats
    after: Floats
    groups: list[str]

    def loss(self) -> Loss:
        """What these images show about a loss."""
        return loss_of(self.before, self.after, self.groups)


@dataclass(frozen=True)
class Pair:
    """Reference and candidate on the same N >= 1 labelled images."""

    reference: Floats  # (N, ...) probabilities
    candidate: Floats
    targets: Ints  # (N, ...)
    groups: list[str]
    whole: Part  # the rightness of all images
    classes: list[Part]  # per class: the images that hold it, and what share of it is found


def check_same_images(reference: Predictions, candidate: Predictions) -> None:
    """Raise DataError unless both are about the same images, in the same order."""
    same = reference.ids == candidate.ids and np.array_equal(reference.targets, candidate.targets)
    if not same or reference.logits.shape != candidate.logits.shape:
        raise DataError("the predictions to compare are not on the same images",
                        hint="edgekd distill RECIPE --fresh")  # fmt: skip


def pair_of(task: Task, reference: Predictions, candidate: Predictions) -> Pair:
    """Put two models' predictions side by side; both on the same images, all of them labelled.

    Raises DataError for targets of another task, EdgekdError for a task whose `rightness` or
    `found` does not give shares.
    """
    targets, groups = reference.targets, reference.groups
    (before, decided), (after, now) = task.answers(reference), task.answers(candidate)
    whole = _part(task, task.rightness(decided, targets), task.rightness(now, targets), groups)
    classes = []
    for label in range(len(task.classes)):
        mine, hits = task.found(decided, targets, label)
        _, hits_now = task.found(now, targets, label)
        own = [groups[row] for row in np.flatnonzero(mine)]
        classes.append(_part(task, hits[mine], hits_now[mine], own))
    return Pair(before, after, targets, groups, whole, classes)


def _part(task: Task, before: Floats, after: Floats, groups: list[str]) -> Part:
    for shares in (before, after):
        is_share = (shares >= 0) & (shares <= 1 + ROUNDING)  # NaN is none
        if shares.shape != (len(groups),) or not is_share.all():
            raise EdgekdError(f"task '{task.name}': `rightness` and `found` must give one number "
                              f"in [0, 1] per image; for {len(groups)} images they give shape "
                              f"{shares.shape}, from {shares.min(initial=0.0):g} to "
                              f"{shares.max(initial=0.0):g}")  # fmt: skip
    return Part(before, after, groups)

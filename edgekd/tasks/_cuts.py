"""From which probability on a class is there: chosen on validation images."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from edgekd.errors import RecipeError
from edgekd.log import warn
from edgekd.recipe_export import OperatingSpec
from edgekd.results import Predictions
from edgekd.tasks.base import HALF, Bools, Floats, Task

Aim = Literal["f1"] | OperatingSpec


def choose(probabilities: Floats, positives: Bools, spec: OperatingSpec) -> float:
    """The threshold that reaches the aim, and costs the other rate least.

    `probabilities` of one class and whether each image is of it, both (N,), with an image of either
    kind. It lies halfway to the next probability that was seen, so that another runtime's rounding
    does not move an image across it. It is at most 1: where images of other classes have a
    probability of exactly 1, no threshold leaves them out.
    """
    seen = np.unique(probabilities)
    if spec.sensitivity is not None:
        own = np.sort(probabilities[positives])
        needed = math.ceil(spec.sensitivity * own.size - 1e-9)
        lowest = own[own.size - needed]  # the last that must be flagged
        below = seen[seen < lowest]
        under = below[-1] if below.size else 0.0
        return _probability(max((lowest + under) / 2, min(np.nextafter(under, 2.0), lowest)))
    assert spec.specificity is not None  # one of the two is given
    others = np.sort(probabilities[~positives])
    needed = math.ceil(spec.specificity * others.size - 1e-9)
    highest = others[needed - 1]  # the last that must not be flagged
    above = seen[seen > highest]
    over = above[0] if above.size else 1.0
    return _probability(max((highest + over) / 2, np.nextafter(highest, 2.0)))


def best_f1(probabilities: Floats, positives: Bools) -> float:
    """The threshold at which the class's F1 is highest; of several the highest threshold.

    `probabilities` and `positives` (N,), with an image of either kind. It lies halfway between two
    probabilities that were seen, so that rounding does not move an image across it.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    hits = np.cumsum(positives[order])[ends]
    f1 = 2 * hits / (ends + 1 + positives.sum())
    last = int(ends[f1.argmax()])
    below = ranked[last + 1] if last + 1 < ranked.size else 0.0
    middle = (ranked[last] + below) / 2
    return _probability(float(middle if middle > below else ranked[last]))


def cut(probabilities: Floats, positives: Bools, aim: Aim) -> float | None:
    """The threshold for an aim; None where all or none of the images are of the class."""
    if not 0 < int(positives.sum()) < len(positives):
        return None
    if aim == "f1":
        return best_f1(probabilities, positives)
    return choose(probabilities, positives, aim)


def with_thresholds(task: Task, validation: Predictions, aim: Aim, name: str) -> Task:
    """The task with the thresholds that a model's validation predictions ask for.

    A class of which there is no image, or no image without it, keeps 0.5, and a warning names it.
    Raises RecipeError for a task whose answers have no thresholds.
    """
    if not task.has_thresholds:
        raise RecipeError(f"task.thresholds: task '{task.name}' decides for the most probable "
                          "class, without thresholds", hint="export.thresholds flags single classes"
                          )  # fmt: skip
    found = [cut(*one, aim) for one in task.per_threshold(task.only_labelled(validation))]
    missing = [task.classes[index] for index, value in enumerate(found) if value is None]
    if missing:
        warn(f"{name}: no threshold can be chosen for {', '.join(missing)}: the validation part "
             "has no image with it, or none without; 0.5 stays")  # fmt: skip
    thresholds = tuple(HALF if value is None else value for value in found)
    return task.taught(task.learned.model_copy(update={"thresholds": thresholds}))


def _probability(value: float) -> float:
    """Without what rounding adds beyond 0 and 1."""
    return float(min(max(value, 0.0), 1.0))

"""Operating points: from which probability on a class is flagged.

The decision stays the most probable class. A flag is a second answer, for a class whose images must
not be missed (or whose alarms must be rare). Its threshold is chosen on validation images alone, of
the fp32 model; test images only measure it, in every artifact. The validation figures are those of
the best cut among all, and so too good, the more so the fewer images; the test figures are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgekd import stats
from edgekd.bundle import Manifest, OperatingPoint, Rates
from edgekd.errors import DataError, RecipeError, did_you_mean
from edgekd.export.given import Say
from edgekd.recipe_export import OperatingSpec
from edgekd.results import Predictions, Score
from edgekd.tasks._cuts import choose
from edgekd.tasks.base import Bools, Floats, Task

TAIL = (1.0 - stats.LEVEL) / 2.0


def rates(
    probabilities: Floats, positives: Bools, groups: Sequence[str], threshold: float
) -> Rates:
    """What flagging from `threshold` on does to N images, with 95 % intervals over groups."""
    flagged = probabilities >= threshold
    return Rates(
        sensitivity=_share(flagged, positives, groups),
        specificity=_share(~flagged, ~positives, groups),
    )


def _share(hits: Bools, counted: Bools, groups: Sequence[str]) -> Score:
    """The share of hits among the images that are counted.

    Where all or none are hits, a bootstrap sees no spread however few they are; then the interval
    is Clopper and Pearson's for as many independent images as there are groups.
    """
    rows = np.flatnonzero(counted)
    own = [groups[int(row)] for row in rows]
    units = len(set(own))
    if not units:
        return Score(value=None, images=0, groups=0)
    found = hits[rows].astype(np.float64)
    value = float(found.mean())
    if 0.0 < value < 1.0:
        weights = stats.group_weights(own)
        low, high = stats.percentile_interval(weights @ found / weights.sum(axis=1))
    else:
        reach = TAIL ** (1.0 / units)
        low, high = (reach, 1.0) if value == 1.0 else (0.0, 1.0 - reach)
    return Score(value=value, low=low, high=high, images=len(rows), groups=units)


def check_classes(wanted: Mapping[str, OperatingSpec], task: Task) -> None:
    """Raise RecipeError for a class that the task does not have, or a task of other questions."""
    for label in wanted:
        if label not in task.classes:
            raise RecipeError(f"export.thresholds.{label}: there is no class '{label}'",
                              hint=did_you_mean(label, task.classes))  # fmt: skip
    if wanted and task.logits_shape(8) != (len(task.classes),):
        raise RecipeError(f"export.thresholds: task '{task.name}' does not answer with one "
                          "probability per class and image")  # fmt: skip


def operating_points(
    task: Task, validation: Predictions, wanted: Mapping[str, OperatingSpec], say: Say
) -> dict[str, OperatingPoint]:
    """Choose the points that a recipe asks for, on validation images.

    Raises RecipeError as `check_classes`, DataError where an aim has no images to be chosen on.
    """
    check_classes(wanted, task)
    known = task.only_labelled(validation)
    found = {}
    for label, spec in wanted.items():
        probabilities, positives = _of_class(task, known, label)
        if not 0 < int(positives.sum()) < len(positives):
            raise DataError(f"export.thresholds.{label}: of {len(positives)} labelled validation "
                            f"images {int(positives.sum())} are of this class, and a threshold "
                            "takes some of either kind",
                            hint="a data.split with a larger val part")  # fmt: skip
        threshold = choose(probabilities, positives, spec)
        point = OperatingPoint(
            threshold=threshold,
            aim="specificity" if spec.sensitivity is None else "sensitivity",
            at_least=spec.specificity if spec.sensitivity is None else spec.sensitivity,
            validation=rates(probabilities, positives, known.groups, threshold),
        )
        say(f"{label}: flagged from {threshold:.4f} on, chosen on {int(positives.sum())} "
            f"validation images of it and {int((~positives).sum())} others")  # fmt: skip
        got = getattr(point.validation, point.aim or "")
        if got.value is not None and got.value < (point.at_least or 0.0) - 1e-9:
            say(f"{label}: no threshold reaches a {point.aim} of {point.at_least:g} there; this "
                f"one has {got.value:.4f}")  # fmt: skip
        found[label] = point
    return found


def measured(manifest: Manifest, artifact: str, test: Predictions | None, task: Task) -> Manifest:
    """The manifest with what its operating points do in an artifact on the test images.

    Where it was not run on them, nothing is said of it, nor what was true before it was made anew.
    """
    points = {}
    for label, point in manifest.thresholds.items():
        others = {name: found for name, found in point.test.items() if name != artifact}
        if test is not None and np.isfinite(test.logits).all():
            known = task.only_labelled(test)
            probabilities, positives = _of_class(task, known, label)
            others[artifact] = rates(probabilities, positives, known.groups, point.threshold)
        points[label] = point.model_copy(update={"test": others})
    return manifest.model_copy(update={"thresholds": points})


def _of_class(task: Task, known: Predictions, label: str) -> tuple[Floats, Bools]:
    """Probabilities of one class, and which images are of it, both (N,)."""
    if not known.ids:
        return np.zeros(0), np.zeros(0, dtype=np.bool_)
    index = task.classes.index(label)
    probabilities: npt.NDArray[np.float64] = task.answers(known)[0][:, index]
    return probabilities, np.asarray(known.targets == index)

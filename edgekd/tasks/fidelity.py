"""Fidelity: how far a student decides as its teacher does, right or wrong.

The second figure beside accuracy in KDML (arXiv 2212.02931): a student may be as
accurate as its teacher and still have learned something else. Of one class per image it is the
share of equal decisions. Of masks that share is near 1 for any two models, as most of most images
is background: there IoU and F-score of the two models' masks are the paper's figures (Table 12).
"""

from __future__ import annotations

import numpy as np

from edgekd import stats
from edgekd.errors import DataError
from edgekd.results import Predictions, Score, Scores
from edgekd.tasks.base import Task

FIDELITY = "fidelity"  # in scores.json, beside the task's own scores
# Scores that are the same whichever of two answers is taken for the truth; `fidelity_iou` is
# the `iou` of student and teacher.
OVERLAPS = ("iou", "fscore")


def fidelity_labels(task: Task | None, teacher: str) -> dict[str, str]:
    """The names of a task's scores of fidelity (of a task not known: of any task's), in words."""
    labels = {FIDELITY: f"agreement with {teacher}"}
    for name, metric in task.metrics().items() if task else ():
        if name in OVERLAPS:
            labels[f"{FIDELITY}_{name}"] = f"{metric.label or name} with {teacher}"
    return labels


def fidelities(
    task: Task, student: Predictions, teacher: Predictions, *, resamples: int = stats.RESAMPLES
) -> Scores:
    """`fidelity`, and for masks `fidelity_iou` and `fidelity_fscore` over all pixels of the data.

    All images count, unlabelled ones too, and the resamples are those of the task's own scores.
    The latter two are None where neither model sees anything. Raises DataError as `fidelity`.
    """
    found = {FIDELITY: fidelity(task, student, teacher, resamples=resamples)}
    names = [name for name in OVERLAPS if name in task.metrics()]
    images = len(student.ids)
    if not names or not images:
        return found | {f"{FIDELITY}_{name}": found[FIDELITY] for name in names}
    ours, theirs = task.activate(student.logits), task.decide(task.activate(teacher.logits))
    for name in names:
        compute = task.metrics()[name].compute
        value = float(compute(ours, theirs, np.ones((1, images)))[0])
        low = high = None
        if resamples:
            weights = stats.group_weights(student.groups, resamples)
            low, high = map(_finite, stats.percentile_interval(compute(ours, theirs, weights)))
        found[f"{FIDELITY}_{name}"] = Score(
            value=_finite(value), low=low, high=high,
            images=images, groups=len(set(student.groups)),
        )  # fmt: skip
    return found


def fidelity(
    task: Task, student: Predictions, teacher: Predictions, *, resamples: int = stats.RESAMPLES
) -> Score:
    """The mean agreement of two models' decisions in [0, 1], with its interval over groups.

    No labels are needed, so that all images count, unlabelled ones too. The resamples are those of
    the task's own scores. `value` is None where there are no images. Raises DataError where the
    predictions are not of the same images in the same order.
    """
    if student.ids != teacher.ids:
        raise DataError(f"fidelity: the predictions are for different images ({len(student.ids)} "
                        f"of the student, {len(teacher.ids)} of the teacher)",
                        hint="`edgekd distill RECIPE --fresh` scores all models anew"
                        )  # fmt: skip
    images = len(student.ids)
    value = low = high = None
    if images:
        same = task.agreement(student.logits, teacher.logits)
        value = float(same.mean())
        if resamples:
            weights = stats.group_weights(student.groups, resamples)
            low, high = stats.percentile_interval(np.asarray(weights @ same / weights.sum(axis=1)))
    return Score(value=value, low=low, high=high, images=images, groups=len(set(student.groups)))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

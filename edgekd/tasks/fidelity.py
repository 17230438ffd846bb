"""Fidelity: how often a student decides as its teacher does, right or wrong.

The second figure beside accuracy in KDML (arXiv 2212.02931): a student may be as
accurate as its teacher and still have learned something else.
"""

from __future__ import annotations

import numpy as np

from edgekd import stats
from edgekd.errors import DataError
from edgekd.results import Predictions, Score
from edgekd.tasks.base import Task

FIDELITY = "fidelity"  # in scores.json, beside the task's own scores


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

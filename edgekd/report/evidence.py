"""Test predictions looked at closely: per class, confusions, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd import plugins, stats
from edgekd.report.mask_records import SubjectKind
from edgekd.report.records import Subject
from edgekd.report.sources import Sources
from edgekd.results import Learned, Predictions
from edgekd.tasks.base import Floats, Ints, Task
from edgekd.tasks.scores import f1_per_class

RESAMPLES = 500  # enough for a whisker in a picture; the gate draws its own
BINS = 15  # as in the score `ece`


@dataclass(frozen=True)
class Wanted:
    """Test predictions that the page shows, if they were kept: the file's name, and ours."""

    file: str
    label: str
    kind: SubjectKind


def known_task(
    name: str, classes: list[str], primary: str | None, learned: Learned
) -> Task | None:  # fmt: skip
    """The task with what it learned from images, if it is one of edgekd's own.

    A report may be made of somebody else's bundle, so it never imports code that a bundle names.
    """
    if name not in plugins.names("tasks"):
        return None
    found: Any = plugins.load("tasks", name, Task)
    task: Task = found(classes=classes, primary=primary)
    return task.taught(learned)


def wanted(sources: Sources, artifacts: list[str]) -> list[Wanted]:
    """Teacher, student and the named artifacts."""
    teacher, student = model_names(sources)
    found = [Wanted(teacher, teacher, "teacher")] if teacher else []
    if student:
        found.append(Wanted(student, f"{student} fp32", "student"))
    return found + [Wanted(name, f"{student} {name}", "artifact") for name in artifacts]


def subjects(sources: Sources, task: Task, shown: list[Wanted]) -> list[Subject]:
    """Those of `shown` whose test predictions were kept."""
    found = []
    for one in shown:
        predictions = sources.predictions(one.file)
        if predictions is not None and (predictions.targets >= 0).any():
            found.append(subject(predictions, task, one.label, one.kind))
    return found


def model_names(sources: Sources) -> tuple[str | None, str | None]:
    """The names of the teacher to compare with and of the student."""
    teacher = sources.reference.model.name if sources.reference else None
    student = sources.student.model.name if sources.student else None
    if sources.recipe is not None:
        teacher = teacher or sources.recipe.export.reference
        student = student or sources.recipe.export.model
    return teacher, student


def subject(predictions: Predictions, task: Task, label: str, kind: SubjectKind) -> Subject:
    """Everything the page shows of one set of predictions."""
    labelled = predictions.targets >= 0
    targets = predictions.targets[labelled]
    groups = np.asarray(predictions.groups)[labelled]
    probabilities = task.activate(predictions.logits[labelled])
    decided = task.decide(probabilities)
    classes = probabilities.shape[1]
    cells = np.bincount(targets * classes + decided, minlength=classes**2)
    matrix = cells.reshape(classes, classes).astype(np.float64)
    weights = stats.group_weights(groups.tolist(), RESAMPLES)
    low, high = _recall_interval(targets, decided, classes, weights)
    support = matrix.sum(axis=1)
    ece, bins = _reliability(probabilities, decided, targets)
    return Subject(
        label=label,
        kind=kind,
        images=int(targets.size),
        groups=len(set(groups.tolist())),
        support=support.astype(int).tolist(),
        recall=_defined(np.diag(matrix), support),
        recall_low=low,
        recall_high=high,
        f1=[float(value) if support[index] else None
            for index, value in enumerate(f1_per_class(matrix[None])[0])],
        confusion=matrix.astype(int).tolist(),
        ece=ece,
        bins=bins,
    )  # fmt: skip


def _recall_interval(
    targets: Ints, decided: Ints, classes: int, weights: Floats
) -> tuple[list[float | None], list[float | None]]:
    member = np.eye(classes)[targets]
    drawn = weights @ member
    right = weights @ (member * (decided == targets)[:, None])
    low: list[float | None] = []
    high: list[float | None] = []
    for index in range(classes):
        present = drawn[:, index] > 0
        values = right[present, index] / drawn[present, index]
        pair = stats.percentile_interval(values) if values.size else (None, None)
        low.append(pair[0])
        high.append(pair[1])
    return low, high


def _reliability(
    probabilities: Floats, decided: Ints, targets: Ints
) -> tuple[float, list[tuple[float, float, int]]]:
    """ECE and, per bin with images: mean confidence, share of right decisions, images."""
    confidence = probabilities.max(axis=1)
    right = (decided == targets).astype(np.float64)
    index = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = index == number
        if inside.any():
            bins.append(
                (float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
            )
    gap = sum(abs(sure - share) * images for sure, share, images in bins)
    return gap / max(1, targets.size), bins


def _defined(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(above, below, strict=True)]

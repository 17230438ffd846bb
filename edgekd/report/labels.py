"""Test labels looked at closely: per class, and calibration; what training images they had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd import stats
from edgekd.recipe import ShotSpec
from edgekd.report import label_change, label_together
from edgekd.report.evidence import BINS, RESAMPLES, Wanted
from edgekd.report.label_records import (
    LabelClass,
    LabelEvidence,
    LabelFigures,
    LabelSubject,
)
from edgekd.report.label_split import LabelSplit
from edgekd.report.records import PYTORCH
from edgekd.report.rows import role_of
from edgekd.report.sources import Sources
from edgekd.report.words import plural
from edgekd.results import Predictions
from edgekd.tasks import _label_scores as scores
from edgekd.tasks.base import HALF, Floats, Ints, Task

Bins = list[tuple[float, float, int]]


@dataclass(frozen=True)
class _Said:
    """What one model says of the labelled test images."""

    wanted: Wanted
    model: str
    columns: tuple[int, ...]  # the classes that it knows
    probabilities: Floats  # (N, K)
    targets: Ints  # (N, K)
    groups: list[str]
    thresholds: list[float]  # (K,)


def evidence(
    sources: Sources, task: Task, wanted: list[Wanted], split: LabelSplit | None
) -> LabelEvidence:
    """Figures of all models whose test predictions were kept, teachers of some classes too."""
    every: list[_Said] = []
    left_out = []
    for one in _with_teachers(sources, wanted):
        predictions = sources.predictions(one.file)
        if predictions is None or _is_twice(sources, one, every):
            continue
        said = _read(sources, task, one, predictions)
        if said is None:
            left_out.append(f"The test predictions of {one.label} are not of the classes that it "
                            "should know, and are not shown.")  # fmt: skip
        elif len(said.groups):
            every.append(said)
    counts = _counts(task, split)
    order = _by_count(counts, len(task.classes))
    change, why = label_change.change(sources, task, order)
    return LabelEvidence(
        classes=_classes(task, order, counts, every),
        shots=_shots(sources),
        subjects=[_subject(said, order) for said in every],
        together=label_together.read(sources, split, order),
        change=change,
        change_missing=why,
        thresholds=_how_chosen(sources),
        left_out=left_out,
    )


def _with_teachers(sources: Sources, wanted: list[Wanted]) -> list[Wanted]:
    """All teachers first: where each knows some classes there is no single one to compare with."""
    recipe = sources.recipe
    if recipe is None:
        return wanted
    known = {one.file for one in wanted}
    teachers = [name for name in recipe.models
                if name not in known and role_of(recipe, name) == "teacher"]  # fmt: skip
    return [*(Wanted(name, name, "teacher") for name in teachers), *wanted]


def _is_twice(sources: Sources, wanted: Wanted, every: list[_Said]) -> bool:
    """A student and its fp32 artifact say the same: with many classes one of them is enough."""
    made = sources.student.artifacts.get(wanted.file) if sources.student else None
    is_exact = wanted.kind == "artifact" and made is not None and made.precision == "fp32"
    return is_exact and any(said.wanted.kind == "student" for said in every)


def _read(
    sources: Sources, task: Task, wanted: Wanted, predictions: Predictions
) -> _Said | None:  # fmt: skip
    """None where the predictions are not of the classes that the model should know."""
    model = wanted.file
    if wanted.kind == "artifact":
        model = sources.student.model.name if sources.student else ""
    columns = sources.columns(model) or tuple(range(len(task.classes)))
    shape = (len(predictions.ids), len(columns))
    if predictions.targets.shape != shape or predictions.logits.shape != shape:
        return None
    known = task.only_labelled(predictions)
    found = sources.thresholds.get(model, [])
    return _Said(
        wanted=wanted,
        model=model,
        columns=columns,
        probabilities=task.activate(known.logits),
        targets=known.targets,
        groups=known.groups,
        thresholds=found if len(found) == len(columns) else [HALF] * len(columns),
    )


def _counts(task: Task, split: LabelSplit | None) -> list[int] | None:
    """Training images per class: as learned, else as split.csv has them."""
    if task.learned.counts:
        return list(task.learned.counts)
    if split is None:
        return None
    return [int(n) for n in (split.labels[split.trains] == 1).sum(axis=0)]


def _by_count(counts: list[int] | None, classes: int) -> list[int]:
    """The classes, those with most training images first; as they come where none are known."""
    return sorted(range(classes), key=lambda c: -counts[c] if counts else 0)


def _classes(
    task: Task, order: list[int], counts: list[int] | None, every: list[_Said]
) -> list[LabelClass]:
    shots = task.learned.shots
    positives: dict[int, int] = {}
    # the student's images first: a teacher may be of other test images
    for said in sorted(every, key=lambda one: one.wanted.kind == "teacher"):
        for place, column in enumerate(said.columns):
            positives.setdefault(column, int((said.targets[:, place] == 1).sum()))
    return [
        LabelClass(
            name=task.classes[c],
            training=counts[c] if counts else None,
            shot=shots[c] if shots else "",
            positives=positives.get(c),
        )
        for c in order
    ]


def _shots(sources: Sources) -> str:
    spec = sources.recipe.task.shots if sources.recipe else None
    if isinstance(spec, ShotSpec):
        return (f"Head: classes with {plural(spec.head, 'training image')} or more; "
                f"tail: with fewer than {spec.tail}.")  # fmt: skip
    if spec == "terciles":
        return "Head, medium, tail: a third of the classes each, by training images."
    return ""


def _how_chosen(sources: Sources) -> str:
    asked = sources.recipe.task.thresholds if sources.recipe else None
    if asked == "f1":
        return "chosen per class for the best F1 on the validation images"
    if asked is not None:
        wish = asked.model_dump(exclude_none=True)  # one of the two
        name, value = next(iter(wish.items()))
        return f"chosen per class for a {name} of {value} on the validation images"
    return "0.5 for all classes" if not sources.thresholds else "chosen per class"


def _subject(said: _Said, order: list[int]) -> LabelSubject:
    weights = stats.group_weights(said.groups, RESAMPLES)
    once = np.ones((1, len(said.groups)))
    points = scores.per_class(scores.average_precision, said.probabilities, said.targets, once)[0]
    drawn = scores.per_class(scores.average_precision, said.probabilities, said.targets, weights)
    decided = (said.probabilities >= np.array(said.thresholds)).astype(np.int64)
    hits, alarms, missed = (one[0] for one in scores.counts_at(decided, said.targets, once))
    negatives = (said.targets == 0).sum(axis=0).astype(np.float64)
    found = {}
    for place, column in enumerate(said.columns):
        low, high = stats.percentile_interval(drawn[:, place])
        found[column] = LabelFigures(
            ap=_finite(points[place]),
            low=_finite(low),
            high=_finite(high),
            sensitivity=_share(hits[place], hits[place] + missed[place]),
            specificity=_share(negatives[place] - alarms[place], negatives[place]),
            threshold=said.thresholds[place],
        )
    return LabelSubject(
        label=said.wanted.label,
        kind=said.wanted.kind,
        model=said.model,
        form=said.wanted.file if said.wanted.kind == "artifact" else PYTORCH,
        images=len(said.groups),
        groups=len(set(said.groups)),
        figures=[found.get(column) for column in order],
        ece=float(scores.ece(said.probabilities, said.targets, once, bins=BINS)[0]),
        bins=_bins(said),
    )


def _bins(said: _Said) -> Bins:
    """Of all known labels together, per bin that has any: mean probability, share that is there."""
    known = said.targets >= 0
    sure, there = said.probabilities[known], said.targets[known] == 1
    index = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = index == number
        if inside.any():
            bins.append(
                (float(sure[inside].mean()), float(there[inside].mean()), int(inside.sum()))
            )
    return bins


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(above: float, below: float) -> float | None:
    return float(above / below) if below else None

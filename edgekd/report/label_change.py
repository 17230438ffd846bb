"""How far each class gains on the baseline of a sweep, whose run of the same seed lies beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgekd import stats
from edgekd.errors import EdgekdError
from edgekd.report import sources as files
from edgekd.report.evidence import RESAMPLES
from edgekd.report.label_records import ApChange, Change
from edgekd.report.sources import Sources
from edgekd.results import Predictions
from edgekd.tasks import _label_scores as scores
from edgekd.tasks.base import Floats, Task

HOW = "`edgekd sweep RECIPE` with a `baseline` among its variants (plain training, say) makes both"


def change(sources: Sources, task: Task, order: list[int]) -> tuple[ApChange | None, str]:
    """The gain of each class in this order; else None and why there is none."""
    recipe, run = sources.recipe, sources.run
    if recipe is None or run is None:
        return None, "a bundle holds no test predictions"
    root = run.root.resolve()
    sweep = root.parent.parent
    variant, dot, seed = root.name.rpartition(".seed")
    if root.parent.name != "runs" or not (sweep / "sweep.json").is_file() or not dot:
        return None, f"this run is not of a sweep. {HOW}"
    baseline = _baseline(sweep) or recipe.baseline
    if baseline is None:
        return None, f"the sweep has no baseline. {HOW}"
    if variant == baseline:
        return None, f"this run is the baseline, `{baseline}`, itself"
    other = root.parent / f"{baseline}.seed{seed}"
    if not files.is_run(other):
        return None, f"the baseline `{baseline}` has no run of seed {seed}"
    try:
        there = files.read(other)
        theirs = there.predictions(there.recipe.export.model) if there.recipe else None
    except EdgekdError as error:
        return None, f"the baseline's run cannot be read: {error}"
    ours = sources.predictions(recipe.export.model)
    if ours is None or theirs is None:
        return None, f"the test predictions of this run or of `{baseline}` were not kept"
    shape = (len(ours.ids), len(task.classes))
    same = ours.ids == theirs.ids and np.array_equal(ours.targets, theirs.targets)
    if not same or ours.logits.shape != shape or theirs.logits.shape != shape:
        return None, f"this run and `{baseline}` were not tested on the same images and classes"
    return _paired(task, ours, theirs, order, baseline), ""


def _baseline(sweep: Path) -> str | None:
    """As the sweep was last asked; a recipe may name another."""
    try:
        found = json.loads((sweep / "results.json").read_text(encoding="utf-8")).get("baseline")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _paired(
    task: Task, ours: Predictions, theirs: Predictions, order: list[int], baseline: str
) -> ApChange | None:
    """On the same resamples of the same images: what both find hard cancels."""
    first, second = task.only_labelled(ours), task.only_labelled(theirs)
    weights = stats.group_weights(first.groups, RESAMPLES)
    once = np.ones((1, len(first.ids)))

    def gains(drawn: Floats) -> Floats:
        found = [
            scores.per_class(
                scores.average_precision, task.activate(one.logits), one.targets, drawn
            )
            for one in (first, second)
        ]
        return np.asarray(found[0] - found[1])

    points, spread = gains(once), gains(weights)
    mean = _change(scores.nanmean(points)[0], scores.nanmean(spread))
    return ApChange(baseline, mean, [_change(points[0, c], spread[:, c]) for c in order])


def _change(value: float, spread: Floats) -> Change | None:
    if not np.isfinite(value):
        return None
    low, high = stats.percentile_interval(spread)
    return Change(float(value), float(low), float(high))

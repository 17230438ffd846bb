"""The gate: does an artifact still decide as the fp32 PyTorch model did? Pure functions.

What is looked at, and how it decides (the first that applies, from the top):

    refused        parity           an fp32 artifact's logits on the golden pictures differ by more
                                    than 1e-3 of the largest; any artifact gives NaN
                   preprocessing    the golden pictures no longer become the stored pixels
                   non-inferiority  the primary score fell by more than `max_drop` points
                   sensitivity      the 95 % interval of a class with 50 or more positives lies
                                    wholly above a loss of `max_drop_bound` points: shown harm
    inconclusive   non-inferiority  the bootstrap bound of the loss is not below `max_drop_bound`
                   evidence      too few independent groups for such a claim, see below
    passed         otherwise

Calibration, McNemar's p and classes with fewer positives are reported and decide nothing.

What is right, and what is found of a class, the task says (tasks/base.py): of each image, in whole
or in part. A sensitivity is the mean over the images that hold the class of the share of it that is
found, so that a small lesion counts as much as a large one. McNemar's test is for whole decisions
and is left out where any is right in part.

The evidence rule guards the bootstrap where it is blind: with few or no flipped decisions its
interval shrinks to a point however small the test set is. Groups are counted as lost, won or
unchanged, and Tango's upper 95 % bound on (lost - won) / groups, times the share of its images that
a changed group changes, must be below `max_drop_bound` too. With one image per group and 1.5 points
that takes 253 groups if no decision flips, 374 with one lost, 483 with two, 584 with three, and 363
with two lost and two won: hundreds of test images suffice, dozens never do. A decision that is
right in part counts by parts (export/evidence.py). Where the primary score is an average over
classes (`Metric.over_classes`), a rare class weighs as much as a common one: then the bounds of the
classes are joined, and a class of a few images leaves the gate open.

An fp32 artifact is another story: it computes the same function, and logits that are equal within
rounding prove that on a handful of images. If it has parity on the golden pictures, and on the
test images where there are any, it passes and the rest is reported. Without parity on the test
images (the stored predictions may come from mixed precision) statistics decide as for int8.
"""

from __future__ import annotations

import numpy as np

from edgekd import stats
from edgekd.bundle import Check, Gate, Verdict
from edgekd.errors import DataError
from edgekd.export.evidence import macro_upper
from edgekd.export.golden import GoldenResult
from edgekd.export.paired import Pair, Part, check_same_images, pair_of
from edgekd.export.parity import CheckVerdict, parity, parity_on_test, preprocessing
from edgekd.recipe import GateSpec
from edgekd.results import Predictions
from edgekd.tasks.base import Task

MIN_POSITIVES = 50  # below, one flip moves a class by more than 2 points
SLOW_RESAMPLES = 200  # for a score that is too costly for 2,000, such as AUROC


def gate(
    task: Task,
    reference: Predictions | None,
    candidate: Predictions | None,
    *,
    golden: GoldenResult,
    limits: GateSpec,
    precision: str,
    why_no_images: str = "no test images",
) -> Gate:
    """Judge one artifact against the fp32 model on the golden pictures and on the test images.

    `reference` and `candidate` are predictions on the same images in the same order (None where
    no test images are at hand: an int8 artifact is then inconclusive, with `why_no_images`).
    """
    is_exact = precision == "fp32"
    checks = [parity(golden, is_exact), preprocessing(golden)]
    images = groups = 0
    if reference is not None and candidate is not None:
        check_same_images(reference, candidate)
        if not np.isfinite(candidate.logits).all():
            checks.append(_not_finite())
            return Gate(verdict="refused", checks=checks, images=len(candidate.ids), groups=0)
        before, after = task.only_labelled(reference), task.only_labelled(candidate)
        images, groups = len(before.ids), len(set(before.groups))
        equal = parity_on_test(task, reference, candidate)
        checks += [equal] if is_exact else []
        if images:
            pair = pair_of(task, before, after)
            found = _statistics(task, pair, limits)
            is_proven = is_exact and equal.verdict == "passed"
            checks += [_reported(check) for check in found] if is_proven else found
            checks += [*_mcnemar(pair.whole), *_calibration(task, pair)]
    if not images and not is_exact:
        checks.append(Check(name="non-inferiority", verdict="inconclusive", detail=why_no_images))
    return Gate(verdict=combine(checks), checks=checks, images=images, groups=groups)


def refusals(
    task: Task, reference: Predictions, candidate: Predictions, limits: GateSpec
) -> list[Check]:
    """The checks that would refuse a candidate on these images, whatever its artifact.

    Raises DataError where the predictions are not on the same images, or none is labelled.
    """
    check_same_images(reference, candidate)
    before, after = task.only_labelled(reference), task.only_labelled(candidate)
    if not before.ids:
        raise DataError("none of the images to compare on is labelled")
    if not np.isfinite(candidate.logits).all():
        return [_not_finite()]
    found = _statistics(task, pair_of(task, before, after), limits)
    return [check for check in found if check.verdict == "refused"]


def _statistics(task: Task, pair: Pair, limits: GateSpec) -> list[Check]:
    classes = zip(task.classes, pair.classes, strict=True)
    return [
        _non_inferiority(task, pair, limits),
        _evidence(task, pair, limits),
        *(_sensitivity(label, part, limits) for label, part in classes),
    ]


def _not_finite() -> Check:
    return Check(name="non-inferiority", verdict="refused",
                 detail="some logits on the test images are not finite")  # fmt: skip


def combine(checks: list[Check]) -> Verdict:
    """One `refused` refuses; else one `inconclusive` that decides leaves it open; else passed.

    A class too rare to judge (`sensitivity:*`) is inconclusive for itself only.
    """
    if any(check.verdict == "refused" for check in checks):
        return "refused"
    open_ends = [c for c in checks if c.verdict == "inconclusive" and not _is_class(c)]
    return "inconclusive" if open_ends else "passed"


def _is_class(check: Check) -> bool:
    return check.name.startswith("sensitivity:")


def _reported(check: Check) -> Check:
    return check.model_copy(update={"verdict": "reported"})


def _non_inferiority(task: Task, pair: Pair, limits: GateSpec) -> Check:
    """The loss of the primary score, in its own unit, with its paired bootstrap interval."""
    metric = task.metrics()[task.primary]
    resamples = stats.RESAMPLES if metric.interval else SLOW_RESAMPLES
    sign = -1.0 if metric.direction == "higher" else 1.0  # so that a loss is positive
    point, low, high = (
        sign * value + 0.0  # no -0.0
        for value in stats.paired_difference(
            lambda probabilities, weights: metric.compute(probabilities, pair.targets, weights),
            pair.candidate,
            pair.reference,
            stats.group_weights(pair.groups, resamples),
        )
    )
    low, high = min(low, high), max(low, high)
    limit, bound = limits.max_drop / 100.0, limits.max_drop_bound / 100.0
    verdict: CheckVerdict
    if not np.isfinite([point, low, high]).all():
        verdict, detail = "inconclusive", f"{task.primary} is undefined on these images"
    elif point > limit + 1e-12:
        verdict = "refused"
        detail = f"{task.primary} fell by {100 * point:.2f} points, at most {limits.max_drop:g}"
    elif high >= bound:
        verdict = "inconclusive"
        detail = (f"{task.primary}: a loss of {100 * high:.2f} points cannot be excluded, it must "
                  f"be below {limits.max_drop_bound:g}")  # fmt: skip
    else:
        verdict = "passed"
        detail = f"loss of {task.primary}; its 95 % interval must end below {bound:g}"
    return Check(name="non-inferiority", verdict=verdict, value=_number(point), low=_number(low),
                 high=_number(high), limit=limit, detail=detail)  # fmt: skip


def _evidence(task: Task, pair: Pair, limits: GateSpec) -> Check:
    loss = pair.whole.loss()
    upper, bound = loss.upper, limits.max_drop_bound / 100.0
    detail = f"{_count(loss.lost)} groups lost, {_count(loss.won)} won, of {loss.units}"
    if task.metrics()[task.primary].over_classes:
        classes = [part.loss() for part in pair.classes if part.groups]
        upper = max(upper, macro_upper(classes))
        rarest = min((one.units for one in classes), default=0)
        detail += f"; the rarest class has {rarest} groups"
    enough = upper < bound
    if not enough:
        detail += f": too few to exclude a loss of {limits.max_drop_bound:g} points"
    return Check(
        name="evidence",
        verdict="passed" if enough else "inconclusive",
        value=loss.point,
        high=upper,
        limit=bound,
        detail=detail,
    )


def _sensitivity(label: str, part: Part, limits: GateSpec) -> Check:
    """The loss of sensitivity of one class: refused only where harm is shown."""
    before, after, positives = part.before, part.after, len(part.groups)
    name = f"sensitivity:{label}"
    if not positives:
        return Check(name=name, verdict="inconclusive", detail="no positives")
    weights = stats.group_weights(part.groups)
    losses = weights @ (before - after) / weights.sum(axis=1)
    point = float(before.mean() - after.mean())
    low, high = stats.percentile_interval(losses)
    bound = limits.max_drop_bound / 100.0
    verdict: CheckVerdict = "reported"
    if positives < MIN_POSITIVES:
        verdict = "inconclusive"
    elif low > bound:
        verdict = "refused"
    elif max(high, part.loss().upper) < bound:
        verdict = "passed"
    return Check(name=name, verdict=verdict, value=point, low=low, high=high, limit=bound,
                 detail=f"{positives} positives; sensitivity {before.mean():.3f} before, "
                 f"{after.mean():.3f} after")  # fmt: skip


def _mcnemar(whole: Part) -> list[Check]:
    if not np.isin([whole.before, whole.after], (0.0, 1.0)).all():
        return []  # a test of whole decisions
    before, after = whole.before == 1.0, whole.after == 1.0
    return [
        Check(
            name="mcnemar",
            verdict="reported",
            value=stats.mcnemar(before, after),
            detail=f"p of equal accuracy; {int(np.sum(before & ~after))} right before and wrong "
            f"now, {int(np.sum(~before & after))} the reverse",
        )
    ]


def _calibration(task: Task, pair: Pair) -> list[Check]:
    once = np.ones((1, len(pair.targets)))
    checks = []
    for name in ("ece", "brier"):
        metric = task.metrics().get(name)
        if metric is not None:
            before, after = (float(metric.compute(probabilities, pair.targets, once)[0])
                             for probabilities in (pair.reference, pair.candidate))  # fmt: skip
            checks.append(
                Check(name=f"calibration:{name}", verdict="reported", value=after - before,
                      detail=f"{before:.4f} before, {after:.4f} after")
            )  # fmt: skip
    return checks


def why(gate: Gate) -> str:
    """The check that decided the verdict, in one line ("" for a pass)."""
    for check in gate.checks:
        if check.verdict == gate.verdict != "passed" and (
            gate.verdict == "refused" or not _is_class(check)
        ):
            return f"{check.name}: {check.detail}"
    return ""


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _count(groups: float) -> str:
    return f"{round(groups, 1):.12g}"

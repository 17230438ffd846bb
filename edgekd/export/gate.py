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

The evidence rule guards the bootstrap where it is blind: with few or no flipped decisions its
interval shrinks to a point however small the test set is. Groups are counted as lost, won or
unchanged, and Tango's upper 95 % bound on (lost - won) / groups, times the share of its images that
a changed group changes, must be below `max_drop_bound` too. With one image per group and 1.5 points
that takes 253 groups if no decision flips, 374 with one lost, 483 with two, 584 with three, and 363
with two lost and two won: hundreds of test images suffice, dozens never do. Where the primary score
is an average over classes, a rare class weighs as much as a common one: then the bounds of the
classes are joined, and a class of a few images leaves the gate open.

An fp32 artifact is another story: it computes the same function, and logits that are equal within
rounding prove that on a handful of images. If it has parity on the golden pictures, and on the
test images where there are any, it passes and the rest is reported. Without parity on the test
images (the stored predictions may come from mixed precision) statistics decide as for int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd import stats
from edgekd.bundle import Check, Gate, Verdict
from edgekd.errors import DataError
from edgekd.export.evidence import loss_of, macro_upper
from edgekd.export.golden import GoldenResult
from edgekd.export.parity import CheckVerdict, parity, parity_on_test, preprocessing
from edgekd.recipe import GateSpec
from edgekd.results import Predictions
from edgekd.tasks.base import Floats, Ints, Task

MIN_POSITIVES = 50  # below, one flip moves a class by more than 2 points
OVER_CLASSES = frozenset({"macc", "macro_f1", "precision", "recall", "specificity", "qwk"})
SLOW_RESAMPLES = 200  # for a score that is too costly for 2,000, such as AUROC

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Pair:
    """Reference and candidate on the labelled test images, as the scores want them."""

    reference: Floats  # (N, C) probabilities
    candidate: Floats
    targets: Ints
    groups: list[str]


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
        _same_images(reference, candidate)
        if not np.isfinite(candidate.logits).all():
            detail = "some logits on the test images are not finite"
            checks.append(Check(name="non-inferiority", verdict="refused", detail=detail))
            return Gate(verdict="refused", checks=checks, images=len(candidate.ids), groups=0)
        pair = _pair(task, reference, candidate)
        images, groups = len(pair.targets), len(set(pair.groups))
        equal = parity_on_test(reference, candidate)
        checks += [equal] if is_exact else []
        if images:
            found = [
                _non_inferiority(task, pair, limits),
                _evidence(task, pair, limits),
                *(_sensitivity(task, pair, label, limits) for label in range(task.outputs())),
            ]
            is_proven = is_exact and equal.verdict == "passed"
            checks += [_reported(check) for check in found] if is_proven else found
            checks += [_mcnemar(task, pair), *_calibration(task, pair)]
    if not images and not is_exact:
        checks.append(Check(name="non-inferiority", verdict="inconclusive", detail=why_no_images))
    return Gate(verdict=combine(checks), checks=checks, images=images, groups=groups)


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


def _same_images(reference: Predictions, candidate: Predictions) -> None:
    same = reference.ids == candidate.ids and np.array_equal(reference.targets, candidate.targets)
    if not same or reference.logits.shape != candidate.logits.shape:
        raise DataError("the predictions to compare are not on the same images",
                        hint="edgekd distill RECIPE --fresh")  # fmt: skip


def _pair(task: Task, reference: Predictions, candidate: Predictions) -> _Pair:
    labelled = reference.targets >= 0
    return _Pair(
        task.activate(reference.logits[labelled]),
        task.activate(candidate.logits[labelled]),
        reference.targets[labelled],
        [group for group, known in zip(reference.groups, labelled, strict=True) if known],
    )


def _non_inferiority(task: Task, pair: _Pair, limits: GateSpec) -> Check:
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


def _evidence(task: Task, pair: _Pair, limits: GateSpec) -> Check:
    before, after = _right(task, pair)
    loss = loss_of(before, after, pair.groups)
    upper, bound = loss.upper, limits.max_drop_bound / 100.0
    detail = f"{loss.lost} groups lost, {loss.won} won, of {loss.units}"
    if task.primary in OVER_CLASSES:
        classes = [
            loss_of(before[mine], after[mine], [pair.groups[i] for i in np.flatnonzero(mine)])
            for mine in (pair.targets == label for label in np.unique(pair.targets))
        ]
        upper = max(upper, macro_upper(classes))
        detail += f"; the rarest class has {min(one.units for one in classes)} groups"
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


def _sensitivity(task: Task, pair: _Pair, label: int, limits: GateSpec) -> Check:
    """The loss of sensitivity of one class: refused only where harm is shown."""
    mine = pair.targets == label
    positives = int(mine.sum())
    name = f"sensitivity:{task.classes[label]}"
    if not positives:
        return Check(name=name, verdict="inconclusive", detail="no positives")
    before, after = (right[mine] for right in _right(task, pair))
    groups = [group for group, is_mine in zip(pair.groups, mine, strict=True) if is_mine]
    weights = stats.group_weights(groups)
    losses = weights @ (before.astype(float) - after) / weights.sum(axis=1)
    point = float(before.mean() - after.mean())
    low, high = stats.percentile_interval(losses)
    bound = limits.max_drop_bound / 100.0
    verdict: CheckVerdict = "reported"
    if positives < MIN_POSITIVES:
        verdict = "inconclusive"
    elif low > bound:
        verdict = "refused"
    elif max(high, loss_of(before, after, groups).upper) < bound:
        verdict = "passed"
    return Check(name=name, verdict=verdict, value=point, low=low, high=high, limit=bound,
                 detail=f"{positives} positives; sensitivity {before.mean():.3f} before, "
                 f"{after.mean():.3f} after")  # fmt: skip


def _mcnemar(task: Task, pair: _Pair) -> Check:
    before, after = _right(task, pair)
    return Check(
        name="mcnemar",
        verdict="reported",
        value=stats.mcnemar(before, after),
        detail=f"p of equal accuracy; {int(np.sum(before & ~after))} right before and wrong now, "
        f"{int(np.sum(~before & after))} the reverse",
    )


def _calibration(task: Task, pair: _Pair) -> list[Check]:
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


def _right(task: Task, pair: _Pair) -> tuple[Bools, Bools]:
    """Which images the reference and the candidate decide rightly."""
    before, after = task.decide(pair.reference), task.decide(pair.candidate)
    return before == pair.targets, after == pair.targets


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

"""The scores of masks, for all bootstrap resamples at once.

Every score is first reduced to a few numbers per image (pixels that both give, that one gives),
whose weighted sums are then one product. Over the data set means: pixels of all images are added
up before dividing, so that images without a lesion count by their false alarms only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.tasks.base import HALF, Bools, Floats, Ints, Metric

EPS = 1e-7
SMALL = 0.01  # of the image's pixels: what counts as a small lesion


def pixel_of(label: int, outputs: int) -> int:
    """The value in a mask of class `label` of the task."""
    return label + 1 if outputs == 1 else label


def decided(probabilities: Floats, cut: float = HALF) -> Ints:
    """Masks (N, H, W) of probabilities (N, K, H, W): above `cut`, or the likeliest class."""
    if probabilities.shape[1] == 1:
        return np.asarray(probabilities[:, 0] > cut, dtype=np.int8)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int8)


def overlap(decisions: Ints, targets: Ints) -> tuple[Floats, Floats]:
    """Per image: foreground pixels that both give alike, and the foreground pixels of both."""
    same = ((decisions == targets) & (targets > 0)).sum(axis=(1, 2))
    both = (decisions > 0).sum(axis=(1, 2)) + (targets > 0).sum(axis=(1, 2))
    return same.astype(np.float64), both.astype(np.float64)


def counts(decisions: Ints, targets: Ints, pixel: int) -> tuple[Floats, Floats, Floats]:
    """True positives, false positives and false negatives of one class per image, each (N,)."""
    mine, said = targets == pixel, decisions == pixel
    right = (mine & said).sum(axis=(1, 2)).astype(np.float64)
    return right, said.sum(axis=(1, 2)) - right, mine.sum(axis=(1, 2)) - right


def _divide(above: Floats, below: Floats, empty: float) -> Floats:
    out = np.full(np.broadcast(above, below).shape, empty)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _per_class(
    probabilities: Floats,
    targets: Ints,
    weights: Floats,
    cut: float,
    score: Callable[..., Floats],
) -> Floats:
    """The mean over foreground classes of a score of the summed counts: (R,)."""
    outputs = probabilities.shape[1]
    decisions = decided(probabilities, cut)
    pixels = [1] if outputs == 1 else range(1, outputs)
    values = []
    for pixel in pixels:
        summed = [weights @ part for part in counts(decisions, targets, pixel)]
        values.append(score(*summed))
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    return _divide(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0), np.nan)


def iou(probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF) -> Floats:
    """TP / (TP + FP + FN) over the data set; NaN where nothing is there and nothing is seen."""
    return _per_class(probabilities, targets, weights, cut,
                      lambda tp, fp, fn: _divide(tp, tp + fp + fn, np.nan))  # fmt: skip


def fscore(probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF) -> Floats:
    """2 TP / (2 TP + FP + FN) over the data set (Dice)."""
    return _per_class(probabilities, targets, weights, cut,
                      lambda tp, fp, fn: _divide(2 * tp, 2 * tp + fp + fn, np.nan))  # fmt: skip


def sensitivity(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """TP / (TP + FN) over the data set."""
    return _per_class(probabilities, targets, weights, cut,
                      lambda tp, fp, fn: _divide(tp, tp + fn, np.nan))  # fmt: skip


def precision(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """TP / (TP + FP) over the data set."""
    return _per_class(probabilities, targets, weights, cut,
                      lambda tp, fp, fn: _divide(tp, tp + fp, np.nan))  # fmt: skip


def _mean(values: Floats, weights: Floats) -> Floats:
    known = np.isfinite(values)
    return _divide(weights[:, known] @ values[known], weights[:, known].sum(axis=1), np.nan)


def iou_per_image(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """Mean over images of their foreground's IoU; 1 where it is empty on both sides."""
    same, both = overlap(decided(probabilities, cut), targets)
    return _mean(_divide(same, both - same, 1.0), weights)


def fscore_per_image(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """Mean over images of their foreground's F-score; 1 where it is empty on both sides."""
    same, both = overlap(decided(probabilities, cut), targets)
    return _mean(_divide(2 * same, both, 1.0), weights)


def small_sensitivity(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """Mean share found of the foreground of images of which it fills at most a hundredth."""
    return _mean(
        np.where(small_images(targets), _found(probabilities, targets, cut), np.nan), weights
    )


def small_hits(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """Share of the images with a small foreground in which any of it is found."""
    hit = (_found(probabilities, targets, cut) > 0).astype(np.float64)
    return _mean(np.where(small_images(targets), hit, np.nan), weights)


def small_images(targets: Ints) -> Bools:
    """Images (N,) with a foreground of at most a hundredth of their pixels."""
    area = (targets > 0).mean(axis=(1, 2))
    return np.asarray((area > 0) & (area <= SMALL))


def _found(probabilities: Floats, targets: Ints, cut: float) -> Floats:
    same, _ = overlap(decided(probabilities, cut), targets)
    return _divide(same, (targets > 0).sum(axis=(1, 2)).astype(np.float64), np.nan)


def false_alarms(
    probabilities: Floats, targets: Ints, weights: Floats, *, cut: float = HALF
) -> Floats:
    """Share of the images without foreground in which some is seen."""
    is_empty = ~(targets > 0).any(axis=(1, 2))
    seen = (decided(probabilities, cut) > 0).any(axis=(1, 2)).astype(np.float64)
    return _mean(np.where(is_empty, seen, np.nan), weights)


def _true(probabilities: Floats, targets: Ints) -> Floats:
    """The probability of each pixel's own class (N, H, W)."""
    if probabilities.shape[1] == 1:
        lesion = probabilities[:, 0]
        return np.where(targets > 0, lesion, 1.0 - lesion)
    index = targets[:, None].astype(np.int64)
    return np.take_along_axis(probabilities, index, axis=1)[:, 0]


def nll(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean negative log-likelihood of the pixels' own classes."""
    own = np.maximum(_true(probabilities, targets), EPS)
    return _mean(-np.log(own).mean(axis=(1, 2), dtype=np.float64), weights)


def brier(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean squared error of the pixels' probabilities, summed over classes."""
    if probabilities.shape[1] == 1:
        error = 2.0 * np.square(1.0 - _true(probabilities, targets))
    else:
        classes = np.arange(probabilities.shape[1])[None, :, None, None]
        error = np.square(probabilities - (targets[:, None] == classes)).sum(axis=1)
    return _mean(error.mean(axis=(1, 2), dtype=np.float64), weights)


MASKS = {
    "fscore": Metric(fscore, label="F-score (Dice, over the data set)"),
    "iou": Metric(iou, label="IoU (over the data set)"),
    "fscore_per_image": Metric(fscore_per_image, label="F-score, mean of images"),
    "iou_per_image": Metric(iou_per_image, label="IoU, mean of images"),
    "sensitivity": Metric(sensitivity, label="Sensitivity of pixels"),
    "precision": Metric(precision, label="Precision of pixels"),
    "small_sensitivity": Metric(small_sensitivity, label="Share found of small lesions"),
    "small_hits": Metric(small_hits, label="Small lesions that are hit"),
    "false_alarms": Metric(false_alarms, "lower", label="Empty images with a false alarm"),
    "brier": Metric(brier, "lower", label="Brier score of pixels"),
    "nll": Metric(nll, "lower", label="Negative log-likelihood of pixels"),
}
BY_PROBABILITY = {"brier", "nll"}  # do not depend on what is decided
SEVERAL = {
    name: Metric(metric.compute, metric.direction, metric.interval, metric.label,
                 over_classes=name in {"fscore", "iou", "sensitivity", "precision"})
    for name, metric in MASKS.items()
}  # fmt: skip

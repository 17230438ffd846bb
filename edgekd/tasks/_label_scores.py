"""The scores of several labels per image, for all bootstrap resamples at once.

Targets (N, C) are 1, 0, or -1 where it is not known, which does not count. A class counts in a
resample only if it has an image with it there (and, for AUROC and specificity, one without).
Scikit-learn, which takes one weighting at a time, is the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.tasks.base import Bools, Floats, Ints

EPS = 1e-12
MOST = 1 << 22  # numbers per array: resamples are taken in pieces
Curve = Callable[[Floats, Bools, Floats], Floats]  # (N,), (N,), (R, N) -> (R,)


def divide(above: Floats, below: Floats, empty: float = np.nan) -> Floats:
    """`above / below`, and `empty` where there is nothing to divide by."""
    out = np.full(np.broadcast(above, below).shape, empty)
    np.divide(above, below, out=out, where=below > 0)
    return out


def average_precision(scores: Floats, positives: Bools, weights: Floats) -> Floats:
    """sum_n (R_n - R_{n-1}) P_n over the distinct thresholds, step-wise (R,).

    NaN without positives.
    `scores` and `positives` (N,) are those of one class.
    """
    order = np.argsort(-scores, kind="stable")
    # of equal scores only the last is a threshold of its own
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = []
    for piece in _pieces(weights):
        ranked = piece[:, order]
        hits = np.cumsum(ranked * positives[order], axis=1)[:, ends]
        seen = np.cumsum(ranked, axis=1)[:, ends]
        steps = np.diff(hits, axis=1, prepend=0.0)
        found.append(divide((steps * divide(hits, seen, 0.0)).sum(axis=1), hits[:, -1]))
    return np.concatenate(found)


def auroc(scores: Floats, positives: Bools, weights: Floats) -> Floats:
    """P(score of a positive > score of a negative) + half of ties (R,); NaN without either."""
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = []
    for piece in _pieces(weights):
        ranked = piece[:, order]
        with_it = np.diff(np.cumsum(ranked * positives[order], axis=1)[:, ends], prepend=0.0)
        below = np.cumsum(ranked * ~positives[order], axis=1)[:, ends]
        without = np.diff(below, prepend=0.0)
        area = (with_it * (below - without / 2)).sum(axis=1)
        found.append(divide(area, with_it.sum(axis=1) * below[:, -1]))
    return np.concatenate(found)


def per_class(curve: Curve, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """One figure per class and resample (R, C)."""
    columns = []
    for index in range(targets.shape[1]):
        known = targets[:, index] >= 0
        columns.append(
            curve(probabilities[known, index], targets[known, index] == 1, weights[:, known])
            if known.any()
            else np.full(len(weights), np.nan)
        )
    return np.stack(columns, axis=1)


def counts_at(decisions: Ints, targets: Ints, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """True positives, false positives and false negatives per class, each (R, C)."""
    known, there = targets >= 0, targets == 1
    said = decisions == 1
    return (
        weights @ (said & there).astype(np.float64),
        weights @ (said & ~there & known).astype(np.float64),
        weights @ (~said & there).astype(np.float64),
    )


def nanmean(values: Floats) -> Floats:
    """Mean over the classes that are defined (R, C) -> (R,), NaN without any."""
    seen = np.isfinite(values)
    return divide(np.where(seen, values, 0.0).sum(axis=1), seen.sum(axis=1).astype(np.float64))


def right(decisions: Ints, targets: Ints) -> Floats:
    """The share of each image's known labels that is decided as it is (N,)."""
    known = targets >= 0
    same = ((decisions == targets) & known).sum(axis=1)
    return divide(same.astype(np.float64), known.sum(axis=1).astype(np.float64), 1.0)


def over_known(values: Floats, targets: Ints, weights: Floats) -> Floats:
    """Weighted mean over all known entries of `values` (N, C) -> (R,)."""
    known = targets >= 0
    above = weights @ np.where(known, values, 0.0).sum(axis=1)
    return divide(above, weights @ known.sum(axis=1).astype(np.float64))


def brier(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean squared distance of a probability from its label."""
    return over_known((probabilities - (targets == 1)) ** 2, targets, weights)


def nll(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean binary cross-entropy."""
    chosen = np.where(targets == 1, probabilities, 1.0 - probabilities)
    return over_known(-np.log(np.maximum(chosen, EPS)), targets, weights)


def ece(probabilities: Floats, targets: Ints, weights: Floats, *, bins: int = 15) -> Floats:
    """Calibration error of all labels' probabilities together, 15 bins of equal width."""
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    known = targets >= 0
    gaps = np.zeros(len(weights))
    for number in range(bins):
        inside = known & (index == number)
        gaps += np.abs(weights @ np.where(inside, (targets == 1) - probabilities, 0.0).sum(axis=1))
    return divide(gaps, weights @ known.sum(axis=1).astype(np.float64))


def _pieces(weights: Floats) -> list[Floats]:
    rows = max(1, MOST // max(1, weights.shape[1]))
    return [weights[start : start + rows] for start in range(0, len(weights), rows)]

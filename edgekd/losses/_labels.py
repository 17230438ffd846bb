"""What losses on several labels per image share: a model's own columns, known labels, counts.

Labels are (B, n) for the n classes that a model knows: 1 where a class is there, 0 where it is not,
negative where that is hidden or not known.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from edgekd.losses.base import Batch, Clock, Facts, Outputs

MULTILABEL = frozenset({"multilabel"})
Weighting = Literal["inverse", "sqrt", "class_balanced"]


def own_labels(model: Outputs, batch: Batch) -> Tensor:
    """The labels (B, n) of the classes that a model knows, in the order of its logits."""
    return batch.targets if model.classes is None else batch.targets[:, list(model.classes)]


def own_counts(model: Outputs, facts: Facts) -> Tensor:
    """The positives (n,) of the classes that a model knows, in float64."""
    counts = torch.tensor(facts.class_counts, dtype=torch.float64)
    return counts if model.classes is None else counts[list(model.classes)]


def toward_label(logits: Tensor, labels: Tensor) -> Tensor:
    """z where the class is there, else -z: its sigmoid is p_t, the probability of what is true."""
    return torch.where(labels > 0, logits, -logits)


def mean_known(terms: Tensor, labels: Tensor) -> Tensor:
    """The mean of (B, n) over the known labels of all images and classes; 0 without any."""
    known = labels >= 0
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp(min=1)


def class_weights(weighting: Weighting, counts: Tensor, beta: float) -> Tensor:
    """Weights (n,) of classes with so many positives each, 1 on average.

    `inverse` is 1/n_c, `sqrt` its root, `class_balanced` (1-beta) / (1-beta^n_c) (Cui et al., arXiv
    1901.05555). A class without a positive is weighted as with one, and the average is over the
    others: it would set their scale, although its weight is never used.
    """
    some = counts.clamp(min=1)
    if weighting == "class_balanced":
        weights = (1 - beta) / (1 - beta**some)
    else:
        weights = 1 / some if weighting == "inverse" else some.rsqrt()
    seen = counts > 0
    return weights / weights[seen].mean() if bool(seen.any()) else torch.ones_like(weights)


def check_beta(beta: float) -> None:
    """Raises ValueError for a beta at which class-balanced weights have no value."""
    if not 0 <= beta < 1:
        raise ValueError("beta must be at least 0 and below 1")


def check_deferred(deferred: float) -> None:
    """Raises ValueError for what is no share of the epochs."""
    if not 0 <= deferred <= 1:
        raise ValueError("deferred must be a share of the epochs, from 0 to 1")


def is_past(share: float, clock: Clock) -> bool:
    """Is this an epoch after that share of all of them? Of 10 epochs and 0.8 the 9th is."""
    return clock.epoch > share * clock.epochs + 1e-6  # 0.29 * 100 is less than 29

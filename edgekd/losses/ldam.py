"""Label-distribution-aware margins (LDAM; Cao et al., NeurIPS 2019, arXiv 1906.07413)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._labels import (
    MULTILABEL,
    check_beta,
    check_deferred,
    class_weights,
    is_past,
    mean_known,
    own_counts,
    own_labels,
)
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like
from edgekd.losses.bce import binary_cross_entropy


def margins(counts: Tensor, largest: float) -> Tensor:
    """`m_c = largest n_c^(-1/4) / max_j n_j^(-1/4)` (n,), from the positives of each class.

    A class without any gets the largest too; it does not make those of the others smaller.
    """
    seen = counts[counts > 0]
    rarest = seen.min() if len(seen) else counts.new_ones(())
    return largest * (rarest / counts.clamp(min=rarest)) ** 0.25


class LDAM(Loss):
    """`BCE(s (z - y m))`: a class that is there must be answered with a margin m_c, the rarer the
    wider, `max_margin` for the rarest.

    Several labels per image are our form of it, for RSKD (arXiv 2104.11057) compares with it and
    gives none: `z'_c = s (z_c - y_c m_c)` on plain logits, the mean over classes and images as in
    `bce`. One label per image is the paper's: cross-entropy of `s (z - m_y onehot(y))`. It wants
    cosines of normalised features and weights for logits, and s = 30 (`scale: 30`); such a
    classifier is not built here, the network must bring it.

    `deferred: 0.8` is LDAM-DRW: class-balanced weights (1-beta) / (1-beta^n_c), 1 on average, after
    that share of the epochs. They multiply the positive part, or the image by its class (the mean
    is then weighted too, as in the authors' code). Labels that are hidden or not known do not
    count; a batch without any gives 0.
    """

    tasks = MULTILABEL | SINGLE_LABEL
    needs_teacher = False
    margins: Tensor
    weights: Tensor

    def __init__(
        self,
        *,
        max_margin: float = 0.5,
        scale: float = 1.0,
        deferred: float | None = None,
        beta: float = 0.9999,
    ) -> None:
        super().__init__()
        if max_margin < 0 or scale <= 0:
            raise ValueError("max_margin must not be negative, and scale must be positive")
        check_beta(beta)
        check_deferred(deferred or 0.0)
        self.max_margin = max_margin
        self.scale = scale
        self.deferred = deferred
        self.beta = beta
        self.register_buffer("margins", None)
        self.register_buffer("weights", None)

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        counts = own_counts(student, facts)
        self.margins = margins(counts, self.max_margin).to(student.logits)
        self.weights = class_weights("class_balanced", counts, self.beta).to(student.logits)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        weights = self.weights if self.deferred and is_past(self.deferred, clock) else None
        if batch.targets.ndim == 1:
            return self._single(student.logits, batch, weights)
        labels = own_labels(student, batch)
        shifted = student.logits - torch.where(labels > 0, self.margins, 0.0)
        return mean_known(binary_cross_entropy(self.scale * shifted, labels, weights), labels)

    def _single(self, logits: Tensor, batch: Batch, weights: Tensor | None) -> Tensor:
        known = batch.labelled()
        if not bool(known.any()):
            return zero_like(logits)
        targets = batch.targets[known]
        own = functional.one_hot(targets, logits.shape[1]).bool()
        shifted = logits[known] - torch.where(own, self.margins, 0.0)
        return functional.cross_entropy(self.scale * shifted, targets, weight=weights)

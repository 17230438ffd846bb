"""Binary cross-entropy with the labels that a stage may see, classes weighted or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
    toward_label,
)
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """`-w_c y log p - (1-y) log(1-p)` of each label, p = sigmoid(z): (B, n).

    `weights` (n,) are those of the positive part. Labels that are not known count as 0.
    """
    terms = -functional.logsigmoid(toward_label(logits, labels))
    return terms if weights is None else torch.where(labels > 0, weights, 1.0) * terms


class BCE(Loss):
    """`mean over known labels of -w_c y log p - (1-y) log(1-p)`, p = sigmoid(z).

    The mean is over classes and images; labels that are hidden or not known do not count, and a
    batch without any gives 0. A model of some classes takes the labels of these.

    `reweight` weights the positive part, 1 on average over classes: by `inverse` 1/n_c, its root
    `sqrt`, or `class_balanced` (1-beta) / (1-beta^n_c) (Cui et al., arXiv 1901.05555), n_c the
    positives of the class. RSKD (arXiv 2104.11057) compares with such a weight and gives no
    formula; weighting the positive part alone is our choice. `deferred` leaves the weights off for
    that share of the epochs (the DRW of LDAM, arXiv 1906.07413, has 0.8).
    """

    tasks = MULTILABEL
    needs_teacher = False
    weights: Tensor | None

    def __init__(
        self,
        *,
        reweight: Literal["none", "inverse", "sqrt", "class_balanced"] = "none",
        beta: float = 0.9999,
        deferred: float = 0.0,
    ) -> None:
        super().__init__()
        check_beta(beta)
        check_deferred(deferred)
        if deferred and reweight == "none":
            raise ValueError("deferred: there are no weights to defer, set `reweight`")
        self.reweight = reweight
        self.beta = beta
        self.deferred = deferred
        self.register_buffer("weights", None)

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if self.reweight != "none":
            weights = class_weights(self.reweight, own_counts(student, facts), self.beta)
            self.weights = weights.to(student.logits)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        labels = own_labels(student, batch)
        weights = self.weights if is_past(self.deferred, clock) else None
        return mean_known(binary_cross_entropy(student.logits, labels, weights), labels)

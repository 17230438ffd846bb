"""Distribution-balanced loss (Wu et al., ECCV 2020, arXiv 2007.09654)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._labels import MULTILABEL, mean_known, own_counts, own_labels
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.losses.focal import focal_factor

SMALLEST = 1e-30  # for the share of a class in an image that shows none: large, but finite


class DB(Loss):
    """Re-balanced weights and negative-tolerant regularisation, in a focal loss.

    With n_c positives of class c in N images:
    `r_c = (1/n_c) / sum_{j: y_j = 1} (1/n_j)` how often the class itself would draw the image;
    `w_c = floor + sigmoid(slope (r_c - centre))`, of both parts (`rebalance: false`: 1);
    `z'_c = z_c - (kappa / lambda) log(N / n_c - 1)`;
    a class that is there costs `w softplus(-z')`, another `(w / lambda) softplus(lambda z')`;
    both are multiplied by `balance (1 - p_t)^gamma` (`focal: false`: are not), p_t = sigmoid(z')
    or sigmoid(-lambda z'). The mean is over the known labels of all images; labels that are hidden
    or not known do not count, and a batch without any gives 0.

    lambda is `negative_scale`. Defaults are those of the authors' code for VOC; for COCO it has
    `centre: 0.2` and `negative_scale: 2`. It always draws images class by class (`balance` of a
    stage's data), which r_c assumes. An image that shows no class has an infinite r_c: the weight's
    limit, floor + 1. In the logarithm n_c is kept within 1 and N - 1.
    """

    tasks = MULTILABEL
    needs_teacher = False
    inverse: Tensor  # 1 / n_c
    bias: Tensor

    def __init__(
        self,
        *,
        rebalance: bool = True,
        floor: float = 0.1,
        slope: float = 10.0,
        centre: float = 0.3,
        kappa: float = 0.05,
        negative_scale: float = 5.0,
        focal: bool = True,
        gamma: float = 2.0,
        balance: float = 2.0,
    ) -> None:
        super().__init__()
        if negative_scale <= 0 or balance <= 0:
            raise ValueError("negative_scale and balance must be positive")
        if floor < 0 or gamma < 0:
            raise ValueError("floor and gamma must not be negative")
        self.rebalance = rebalance
        self.floor = floor
        self.slope = slope
        self.centre = centre
        self.kappa = kappa
        self.negative_scale = negative_scale
        self.focal = focal
        self.gamma = gamma
        self.balance = balance
        self.register_buffer("inverse", None)
        self.register_buffer("bias", None)

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        counts = own_counts(student, facts)
        self.inverse = (1 / counts.clamp(min=1)).to(student.logits)
        images = max(facts.images, max(facts.class_counts), 2)
        some = counts.clamp(1, images - 1)
        bias = self.kappa / self.negative_scale * torch.log(images / some - 1)
        self.bias = bias.to(student.logits)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        labels = own_labels(student, batch)
        present = labels > 0
        shifted = student.logits - self.bias
        toward = torch.where(present, shifted, -self.negative_scale * shifted)
        terms = -functional.logsigmoid(toward)
        terms = torch.where(present, terms, terms / self.negative_scale)
        if self.rebalance:
            terms = terms * self._weights(present)
        if self.focal:
            terms = terms * self.balance * focal_factor(toward, self.gamma)
        return mean_known(terms, labels)

    def _weights(self, present: Tensor) -> Tensor:
        """w (B, n), from which classes are there (B, n)."""
        shown = torch.where(present, self.inverse, 0.0).sum(dim=1, keepdim=True)
        share = self.inverse / shown.clamp(min=SMALLEST)
        return self.floor + torch.sigmoid(self.slope * (share - self.centre))

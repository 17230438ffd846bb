"""The discriminative centroids of OLTR (Liu et al., CVPR 2019, arXiv 1904.05160)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.losses._labels import MULTILABEL, mean_known, own_labels
from edgekd.losses.base import Batch, Clock, Loss, Outputs

TAP = "distances"


class OLTR(Loss):
    """`factor (1/2 A + repel max(0, margin - R))`: features near the centroids of their classes,
    and the others far.

    The tap `distances` (B, n) of a network with the head `oltr` is `||f - K_c||`. A is the mean of
    its square over the classes that an image shows, then over the images that show any; R the mean
    over all known labels, where those of classes that are there count as 0. So with one class per
    image both are the authors' code; averaging over several classes is our choice. Labels that are
    hidden or not known do not count; a batch without any gives 0.

    Both features and centroids learn by the gradient of this formula; the authors' code moves a
    centroid by less, divided by 1 + the images of its class in the batch. factor, repel and margin
    are theirs.
    """

    taps = (TAP,)
    tasks = MULTILABEL
    needs_teacher = False

    def __init__(self, *, factor: float = 0.01, repel: float = 0.01, margin: float = 10.0) -> None:
        super().__init__()
        if factor <= 0 or repel < 0:
            raise ValueError("factor must be positive, and repel must not be negative")
        self.factor = factor
        self.repel = repel
        self.margin = margin

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        labels = own_labels(student, batch)
        squared = student.taps[TAP].pow(2)
        present = labels > 0
        classes = present.sum(dim=1)
        per_image = torch.where(present, squared, 0.0).sum(dim=1) / classes.clamp(min=1)
        attraction = per_image.sum() / (classes > 0).sum().clamp(min=1)
        others = mean_known(torch.where(present, 0.0, squared), labels)
        repulsion = (self.margin - others).clamp(min=0)
        # without a known label there is nothing to keep away from
        repulsion = torch.where((labels >= 0).any(), repulsion, 0.0)
        return self.factor * (0.5 * attraction + self.repel * repulsion)

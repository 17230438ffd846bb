"""Weighted cross-entropy of the images as they are (SSD-KD, arXiv 2203.11490)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from edgekd.losses._views import images_of
from edgekd.losses.base import Batch, Clock, Outputs
from edgekd.losses.ce import CrossEntropy


class WeightedCrossEntropy(CrossEntropy):
    """`sum_b w_y -log softmax(z)_y / sum_b w_y`, w = N / n_c, over the first quarter of the rows.

    `ce` with `class_weights: balanced` for batches of four views (`data.views: rotations`), of
    which only the images as they are count. Weights of N / (C n_c) are the same in a weighted
    mean. Published weight: 0.1 (SSD-KD); 0.5 in D-KD, whose batches have no views: `ce` there.
    """

    def __init__(self) -> None:
        super().__init__(class_weights="balanced")

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        images = images_of(batch, "wce")
        normal = replace(batch, images=batch.images[:images], targets=batch.targets[:images])
        ours = replace(student, logits=student.logits[:images])
        return super().forward(ours, teachers, normal, clock)

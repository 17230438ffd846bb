"""Cross-entropy with the labels that a stage may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.data.base import UNLABELLED
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like


class CrossEntropy(Loss):
    """`mean_b w_y -log softmax(z)_y` over the labelled images of the batch.

    `class_weights: balanced` uses `N / (C n_c)`; as in torch, the mean is then weighted too.
    Images without a label do not count; a batch without any gives 0.
    """

    tasks = SINGLE_LABEL
    needs_teacher = False
    weights: Tensor | None

    def __init__(
        self,
        *,
        class_weights: Literal["none", "balanced"] = "none",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.register_buffer("weights", None)

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if self.class_weights == "balanced":
            counts = torch.tensor(facts.class_counts, dtype=torch.float32)
            weights = counts.sum() / (len(counts) * counts.clamp(min=1))
            self.weights = weights.to(student.logits.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        if not bool(batch.labelled().any()):
            return zero_like(student.logits)
        return functional.cross_entropy(
            student.logits,
            batch.targets,
            weight=self.weights,
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
        )

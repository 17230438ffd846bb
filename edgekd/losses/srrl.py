"""Softmax regression representation learning (Yang et al., ICLR 2021, OpenReview ZzwDy_wiWv)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.losses.base import ALL_TASKS, Batch, Clock, Facts, Loss, Outputs


def connector(width_in: int, width_out: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, ReLU: from the student's width to a teacher's."""
    convolution = nn.Conv2d(width_in, width_out, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out), nn.ReLU())


class SRRL(Loss):
    """`alpha mean (f_S - f_T)^2 + beta mean (head_T(f_S) - z_T)^2`, f the pooled last map.

    The student's map goes through a connector to the teacher's width, and what is pooled of it is
    held against the teacher's pooled features (L_FM) and, behind the teacher's own classifier,
    against its logits (L_SR). The classifier is not trained, gradients pass through it. Only
    pooled values are compared, so the sizes of the maps may differ. Each teacher adds a full term,
    with a connector of its own. Both factors are 1 in the authors' code, beside cross-entropy 1.
    Means are over all elements. The connector works on the map as in that code (others pool
    first); its ReLU suits teachers whose last map is not negative.
    """

    taps = ("last",)
    tasks = ALL_TASKS - {"segmentation"}  # there is no classifier of pooled features

    def __init__(self, *, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.connectors = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        maps = student.taps["last"]
        self.connectors = nn.ModuleList(
            connector(maps.shape[1], teacher.taps["last"].shape[1]) for teacher in teachers
        ).to(maps.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = []
        for connect, teacher in zip(self.connectors, teachers, strict=True):
            ours = connect(student.taps["last"]).mean(dim=(2, 3))
            theirs = teacher.taps["last"].mean(dim=(2, 3))
            terms.append(self.alpha * functional.mse_loss(ours, theirs))
            terms.append(self.beta * functional.mse_loss(teacher.head(ours), teacher.logits))
        return torch.stack(terms).sum()

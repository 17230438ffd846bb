"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv 1706.00384)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Loss, Outputs
from edgekd.losses.kd import kd_kl


class DML(Loss):
    """`1/(K-1) sum_l tau^2 KL(p_l || p_k)`, one of K peers against all others.

    A stage of K peers has K terms: each `to` one peer and `from` all others. The divergences are
    averaged, not the logits (`kd` does that). Labels are not needed. As published: weight 1 beside
    cross-entropy 1, and no temperature, that is 1. The paper updates one peer after the other on a
    batch, which is the stage's `update: alternate`; else all answer before any of them moves.
    """

    tasks = SINGLE_LABEL

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        divergences = [kd_kl(student.logits, peer.logits, self.temperature) for peer in teachers]
        return torch.stack(divergences).mean()

"""Decoupled knowledge distillation (Zhao et al., arXiv 2203.08679)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.log import warn
from edgekd.losses.base import (
    SINGLE_LABEL,
    Batch,
    Clock,
    Facts,
    Loss,
    Outputs,
    mean_logits,
    zero_like,
)


def dkd_parts(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Target-class and non-target-class divergences per sample: TCKD (B,), NCKD (B,), no tau^2.

    With p_t the target's probability at tau, TCKD = KL((pT_t, 1-pT_t) || (pS_t, 1-pS_t)); NCKD is
    the divergence of the softmax over the other classes. log(1-p_t) comes from the logsumexp of
    the others, so that logits of any size are safe. With C = 2 NCKD is 0.
    """
    parts = []
    is_target = functional.one_hot(targets, student_logits.shape[1]).bool()
    for logits in (student_logits, teacher_logits):
        scaled = logits / temperature
        total = scaled.logsumexp(dim=1)
        others = scaled.masked_fill(is_target, float("-inf")).logsumexp(dim=1)
        binary = torch.stack([scaled[is_target] - total, others - total], dim=1)  # (B, 2) logs
        # log softmax over the other classes; 0 at the target, so that no gradient meets inf
        non_target = (scaled - others[:, None]).masked_fill(is_target, 0.0)
        parts.append((binary, non_target))
    (student_binary, student_rest), (teacher_binary, teacher_rest) = parts
    tckd = (teacher_binary.exp() * (teacher_binary - student_binary)).sum(dim=1)
    nckd = (teacher_rest.exp() * (teacher_rest - student_rest)).sum(dim=1)
    return tckd, nckd


class DKD(Loss):
    """`warm tau^2 mean_b(alpha TCKD + beta NCKD)`, warm = min(epoch / warmup, 1), epoch from 1.

    Labels are needed: images without one do not count. Several teachers are averaged in logit
    space. Defaults are those of CIFAR-100; ImageNet used tau 1, warm-up 1, beta 0.5 or 2.
    """

    tasks = SINGLE_LABEL

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        warmup: int = 20,
    ) -> None:
        super().__init__()
        if temperature <= 0 or warmup < 1:
            raise ValueError("temperature must be positive and warmup at least 1 epoch")
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.warmup = warmup

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if student.logits.shape[1] == 2:
            warn(
                "dkd: with two classes NCKD is always 0 (there are no other classes to compare), "
                "so this is alpha times plain KD; use `kd`"
            )

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        known = batch.labelled()
        if not bool(known.any()):
            return zero_like(student.logits)
        tckd, nckd = dkd_parts(
            student.logits[known],
            mean_logits(teachers)[known],
            batch.targets[known],
            self.temperature,
        )
        warm = min(clock.epoch / self.warmup, 1.0)
        return warm * self.temperature**2 * (self.alpha * tckd + self.beta * nckd).mean()

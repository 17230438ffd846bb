"""Weighted soft labels (Zhou et al., ICLR 2021, arXiv 2102.00650)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from edgekd.losses.base import (
    SINGLE_LABEL,
    Batch,
    Clock,
    Loss,
    Outputs,
    mean_logits,
    zero_like,
)

EPS = 1e-7


def soft_label_weights(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """`1 - exp(-CE_S / (CE_T + 1e-7))` per image, (B,), without gradient.

    Near 0 where the student is right already, near 1 where the teacher is much more so.
    """
    ours, theirs = (
        functional.cross_entropy(logits.detach(), targets, reduction="none")
        for logits in (student_logits, teacher_logits)
    )
    return -(-ours / (theirs + EPS)).expm1()


class WSLD(Loss):
    """`tau^2 mean_b w_b H(p_T, p_S)`, w = 1 - exp(-CE(z_S, y) / CE(z_T, y)): soft labels, weighted.

    H is the cross-entropy of probabilities at tau, `-sum_c p_T log p_S`, as in the authors' code;
    the weights (at temperature 1, without gradient) lower the share of images that the student
    has right and the teacher is unsure of. Labels are needed: images without one do not count.
    Several teachers are averaged in logit space. Published: weight 2.5 beside cross-entropy 1.
    """

    tasks = SINGLE_LABEL

    def __init__(self, *, temperature: float = 2.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        known = batch.labelled()
        if not bool(known.any()):
            return zero_like(student.logits)
        ours, theirs = student.logits[known], mean_logits(teachers)[known]
        weights = soft_label_weights(ours, theirs, batch.targets[known])
        wanted = (theirs / self.temperature).softmax(dim=1)
        entropies = -(wanted * functional.log_softmax(ours / self.temperature, dim=1)).sum(dim=1)
        return self.temperature**2 * (weights * entropies).mean()

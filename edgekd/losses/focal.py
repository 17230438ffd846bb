"""Focal loss on several labels per image (Lin et al., arXiv 1708.02002)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from edgekd.losses._labels import MULTILABEL, mean_known, own_labels, toward_label
from edgekd.losses.base import Batch, Clock, Loss, Outputs


def focal_factor(toward: Tensor, gamma: float) -> Tensor:
    """`(1 - p_t)^gamma` from the logit of p_t; exact where p_t is near 1 too."""
    return (gamma * functional.logsigmoid(-toward)).exp()


class Focal(Loss):
    """`mean over known labels of -(1 - p_t)^gamma log p_t`, without class weights (alpha).

    p_t is sigmoid(z) for a class that is there and sigmoid(-z) for one that is not. The gradient
    goes through the first factor too. gamma 0 is `bce`.

    The paper adds up and divides by the number of objects; RSKD (arXiv 2104.11057), which compares
    with it, says neither gamma nor how it is reduced. Here it is the mean over classes and images
    as in `bce`, so that learning rates and weights of other terms serve for both. Labels that are
    hidden or not known do not count; a batch without any gives 0.
    """

    tasks = MULTILABEL
    needs_teacher = False

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError("gamma must not be negative")
        self.gamma = gamma

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        labels = own_labels(student, batch)
        toward = toward_label(student.logits, labels)
        terms = -functional.logsigmoid(toward)
        return mean_known(focal_factor(toward, self.gamma) * terms, labels)

"""Focal plus Dice loss with the masks that a stage may see (KDML, arXiv 2212.02931)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.losses._masks import SEGMENTATION, class_masks, log_probabilities
from edgekd.losses.base import Batch, Clock, Loss, Outputs


def focal(logs: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """`-mean_px (1 - p_y)^gamma log p_y` over the labelled pixels, without class weights.

    `logs` are log p (B, K, H, W) with K >= 2, labels (B, H, W). For two channels, g = 1 in the
    foreground, it is `-mean_px [g (1-p)^gamma log p + (1-g) p^gamma log(1-p)]`. The gradient goes
    through the first factor too. 0 without a labelled pixel.
    """
    known = labels >= 0
    chosen = labels.clamp(min=0)[:, None]
    log_p = logs.gather(1, chosen)[:, 0]
    own = torch.zeros_like(logs, dtype=torch.bool).scatter(1, chosen, True)
    log_rest = logs.masked_fill(own, -torch.inf).logsumexp(dim=1)  # log(1 - p), exact near 1 too
    terms = -(gamma * log_rest).exp() * log_p
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp(min=1)


def dice(logs: Tensor, labels: Tensor, eps: float) -> Tensor:
    """`1 - (2 sum p g + eps) / (sum p + sum g + eps)`, the mean over images and foreground classes.

    Sums over the labelled pixels of `logs`, log p (B, K, H, W) with K >= 2, and labels (B, H, W).
    The mean is over classes, then over the images with a labelled pixel; 0 without any.
    """
    known = labels >= 0
    wanted = class_masks(labels, logs.shape[1], logs.dtype)[:, 1:]
    found = torch.where(known[:, None], logs[:, 1:].exp(), 0.0)
    area = (found + wanted).sum(dim=(2, 3))
    outside = area - 2 * (found * wanted).sum(dim=(2, 3))
    per_image = (outside / (area + eps)).mean(dim=1)
    counts = known.flatten(1).any(dim=1)
    return torch.where(counts, per_image, 0.0).sum() / counts.sum().clamp(min=1)


class FocalDice(Loss):
    """`focal_weight FL + dice_weight DL`, the task loss of segmentation.

    `FL = -mean_px [g (1-p)^gamma log p + (1-g) p^gamma log(1-p)]` and
    `DL = 1 - (2 sum p g + eps) / (sum p + sum g + eps)` per image, averaged over images. Logits
    (B, 1, H, W) give p = sigmoid(z); g (B, H, W) is 1 in the foreground. An empty answer to an
    empty mask costs nothing. Unlabelled pixels do not count; an image without a labelled pixel is
    left out of both means, a batch without any gives 0.

    Logits of K channels, background first: p = softmax(z), `FL = -mean_px (1 - p_y)^gamma log p_y`
    over all classes, DL the mean over the foreground classes, those that an image lacks included.
    With [0, z] this is the binary form.

    KDML adds the two parts; gamma 2 is that of the focal loss (Lin et al., arXiv 1708.02002), whose
    alpha is left out; Dice is that of V-Net (Milletari et al., arXiv 1606.04797) without squares.
    EMKD (arXiv 2108.09987) takes both at weight 0.5 and one Dice of the whole batch.
    """

    tasks = SEGMENTATION
    needs_teacher = False

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        eps: float = 1.0,
        focal_weight: float = 1.0,
        dice_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if gamma < 0 or eps <= 0:
            raise ValueError("gamma must not be negative, and eps must be positive")
        self.gamma = gamma
        self.eps = eps
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        logs = log_probabilities(student.logits)
        return self.focal_weight * focal(logs, batch.targets, self.gamma) + self.dice_weight * dice(
            logs, batch.targets, self.eps
        )

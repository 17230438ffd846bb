"""Knowledge distillation at every pixel (Hinton et al., arXiv 1503.02531, on masks)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgekd.losses._masks import SEGMENTATION, pixel_kl
from edgekd.losses.base import Batch, Clock, Loss, Outputs, mean_logits


class KDPixel(Loss):
    """`tau^2 mean_px KL(p_T || p_S)` of logits (B, K, H, W), labels not needed.

    One channel: the divergence of two coins, p = sigmoid(z / tau), as a softmax over one channel
    would say nothing. Several: p = softmax(z / tau). The mean is over the pixels of all images, not
    over classes; the public codes divide by K too, or add up the pixels of a batch. Several
    teachers are averaged in logit space.

    As the baseline of segmentation papers: temperature 1, weight 10 (TorchDistiller). KDML
    (arXiv 2212.02931) distils its predictions at temperature 2.
    """

    is_mean_of_images = True
    tasks = SEGMENTATION

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        return pixel_kl(student.logits, mean_logits(teachers), self.temperature)

"""A head that tells images apart whichever way they are turned (SSD-KD, arXiv 2203.11490)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from edgekd.losses._views import contrast_head, images_of, own_image, similarities
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like


class Contrastive(Loss):
    """`mean_r -log softmax_b(cos(h_r, h_b))_own`: each turned row r finds its image among all B.

    h is what two linear layers of the pooled features' width say (ReLU between); the cosines go
    into the softmax as they are. Only that head learns, the model's features are taken for
    constants: it is stage A of SSD-KD, `to` the frozen teacher, whose head `ssdkd_self` takes over.
    As published: SGD at 1e-3, 60 epochs, a tenth of the rate after 30 and 45. Batches hold four
    views of every image (`data.views: rotations`); labels are not needed. A batch of one image
    has nothing to tell apart: 0.
    """

    taps = ("pooled",)
    tasks = SINGLE_LABEL
    needs_teacher = False
    is_kept: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        pooled = student.taps["pooled"]
        self.head = contrast_head(pooled.shape[1]).to(pooled.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        images = images_of(batch, "contrastive")
        embedded = self.head(student.taps["pooled"].detach())
        if images < 2:
            return zero_like(embedded)
        found = similarities(embedded, images)
        return functional.cross_entropy(found, own_image(images, found.device))

"""SSD-KD's predictions of images and of their turned views (Wang et al., arXiv 2203.11490)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgekd.losses._views import images_of, kept, ranks
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Loss, Outputs, mean_logits
from edgekd.losses.kd import kd_kl


class SSDKDLogits(Loss):
    """`normal KD(z_S, z_T) + rotated KD(z_S', z_T')`: as they are, and turned by quarters.

    KD is `tau^2 mean KL(softmax(z_T / tau) || softmax(z_S / tau))`. Of the turned rows z' those
    count which the teacher has right, and `keep` of the others, those first whose class ranks
    highest; rows of unknown label count as right. The published factors are 0.9 and 2.7, with an
    outer weight of 1, beside `wce` 0.1; `keep` 1 takes all. Batches hold four views of every
    image (`data.views: rotations`). Several teachers are averaged in logit space.
    """

    tasks = SINGLE_LABEL

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        normal: float = 0.9,
        rotated: float = 2.7,
        keep: float = 1.0,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        if not 0 <= keep <= 1:
            raise ValueError("keep must be from 0 to 1")
        self.temperature = temperature
        self.normal = normal
        self.rotated = rotated
        self.keep = keep

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        images = images_of(batch, "ssdkd_logits")
        ours, theirs = student.logits, mean_logits(teachers)
        value = self.normal * kd_kl(ours[:images], theirs[:images], self.temperature)
        ours, theirs = ours[images:], theirs[images:]
        rows = kept(ranks(theirs, batch.targets[images:]), self.keep)
        if len(rows) == 0:
            return value
        return value + self.rotated * kd_kl(ours[rows], theirs[rows], self.temperature)

"""Knowledge distillation from logits (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Loss, Outputs, mean_logits


def kd_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`tau^2 mean_b KL(softmax(z_T / tau) || softmax(z_S / tau))`.

    Logits (B, C). The mean is over the batch only: `reduction="mean"` would divide by C too.
    """
    student_log = functional.log_softmax(student_logits / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher_logits / temperature, dim=1)
    divergence = functional.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
    return divergence * temperature**2


class KD(Loss):
    """Softened teacher probabilities, all images of the batch, labels not needed.

    Published weights are 0.1 for cross-entropy and 0.9 for this term at temperature 4 (CRD set).
    Several teachers are averaged in logit space.
    """

    is_mean_of_images = True
    tasks = SINGLE_LABEL

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        return kd_kl(student.logits, mean_logits(teachers), self.temperature)

"""Normalised knowledge distillation (Chi et al., arXiv 2308.00520)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional

from edgekd.errors import RecipeError
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, mean_logits

LEAST = 1e-6  # a standard deviation below is taken for this


def norm_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, *, reverse: bool = False
) -> Tensor:
    """`mean_b (T s_T)^2 KL(softmax(z_T / (T s_T)) || softmax(z_S / (T s_S)))`.

    Logits (B, C); s is the standard deviation over an image's classes (of C - 1 degrees of
    freedom), each network's own. `reverse` swaps the two sides of KL, not the factor.
    """
    softness, logs = [], []
    for logits in (student_logits, teacher_logits):
        spread = logits.std(dim=1, keepdim=True).clamp(min=LEAST)
        softness.append(temperature * spread)
        logs.append(functional.log_softmax(logits / softness[-1], dim=1))
    ours, theirs = reversed(logs) if reverse else logs
    terms = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    return (softness[1].squeeze(1).pow(2) * terms).mean()


class NormKD(Loss):
    """`mean_b (T s_T)^2 KL(softmax(z_T / (T s_T)) || softmax(z_S / (T s_S)))`, s over classes.

    s is the standard deviation of an image's logits: every image has a temperature of its own, in
    each network. Scaling or shifting the student's logits changes nothing; the gradient passes
    through s_S. Labels are not needed. Several
    teachers are averaged in logit space. Published: temperature 2 and weights 0.1 for
    cross-entropy, 0.9 for this term (CIFAR-100); 1 and 0.5, 0.5 (ImageNet).

    Also the second stage of DSP-KD (Bioengineering 11(1):70, equations 7 and 8), which gives
    neither. Its equation 8 prints KL(student || teacher), which is `kl: reverse`; `forward` is
    NormKD's code. With two classes the normalised logits are always the same two numbers, so that
    the student learns nothing: `setup` raises RecipeError.
    """

    is_mean_of_images = True
    tasks = SINGLE_LABEL

    def __init__(
        self, *, temperature: float = 2.0, kl: Literal["forward", "reverse"] = "forward"
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature
        self.reverse = kl == "reverse"

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if student.logits.shape[1] == 2:
            raise RecipeError(
                "normkd: with two classes normalised logits are constant, the student would learn "
                "nothing from them",
                hint="use `kd`",
            )

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        theirs = mean_logits(teachers)
        return norm_kl(student.logits, theirs, self.temperature, reverse=self.reverse)

"""Scale-decoupled distillation (Wei et al., arXiv 2403.13512)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.log import warn
from edgekd.losses._regions import Pyramid, check_window_list, check_windows, region_logits
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like
from edgekd.losses.dkd import dkd_parts


def by_row(regions: Tensor) -> Tensor:
    """Region logits (B, C, R) as rows (R * B, C), region after region."""
    return regions.permute(2, 0, 1).flatten(0, 1)


def complementary(teacher: Tensor, targets: Tensor) -> Tensor:
    """The weight of each row (R * B,): 2 where the teacher (B, C, R) is right about the whole
    image or about the region but not about both, else 1. `targets` (B,); -1 is never right.
    """
    right = teacher.argmax(dim=1) == targets[:, None]  # (B, R)
    differs = right ^ right[:, :1]
    return (1.0 + differs.to(teacher.dtype)).T.flatten()


def expert_mean(regions: Sequence[Tensor]) -> Tensor:
    """The mean of the experts' region logits (B, C, R)."""
    return regions[0] if len(regions) == 1 else torch.stack(list(regions)).mean(dim=0)


class SDD(Loss):
    """`mean over rows of w KD` (or DKD) on the logits of image regions, at one temperature.

    A row is a region of an image. Its weight w is 2 where the teacher's answers about region and
    whole image are complementary (one right, one wrong), else 1. `form: dkd` multiplies by
    min(epoch / warmup, 1) and leaves images without a label out; `form: kd` uses all, with w = 1
    without a label, and has no warm-up. Published weights: 1 beside cross-entropy 1 (dkd), 0.9
    beside 0.1 (kd). Several teachers are averaged in (region) logit space.
    """

    taps = ("last",)
    tasks = SINGLE_LABEL

    def __init__(
        self,
        *,
        form: Literal["dkd", "kd"] = "dkd",
        windows: tuple[int, ...] = (1, 2, 4),
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup: int = 20,
        pyramid: Pyramid = "direct",
    ) -> None:
        super().__init__()
        if temperature <= 0 or warmup < 1:
            raise ValueError("temperature must be positive and warmup at least 1 epoch")
        self.form = form
        self.windows = check_window_list(windows)
        if self.windows[0] != 1:
            raise ValueError("windows must begin with 1, the whole image")
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.warmup = warmup
        self.pyramid: Pyramid = pyramid

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        for outputs in (student, *teachers):
            check_windows(outputs.taps["last"], self.windows, "sdd")
        if self.form == "dkd" and student.logits.shape[1] == 2:
            warn(
                "sdd: with two classes NCKD is always 0 (there are no other classes to compare), "
                "so this is alpha times `form: kd`; use that"
            )

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self._regions(student)
        theirs = expert_mean([self._regions(teacher) for teacher in teachers])
        targets = batch.targets
        if self.form == "dkd":
            known = batch.labelled()
            if not bool(known.any()):
                return zero_like(student.logits)
            ours, theirs, targets = ours[known], theirs[known], targets[known]
        weights = complementary(theirs, targets)
        rows, wanted = by_row(ours), by_row(theirs)
        if self.form == "kd":
            student_log = functional.log_softmax(rows / self.temperature, dim=1)
            teacher_log = functional.log_softmax(wanted / self.temperature, dim=1)
            losses = (teacher_log.exp() * (teacher_log - student_log)).sum(dim=1)
            warm = 1.0
        else:
            answers = targets.repeat(ours.shape[2])
            tckd, nckd = dkd_parts(rows, wanted, answers, self.temperature)
            losses = self.alpha * tckd + self.beta * nckd
            warm = min(clock.epoch / self.warmup, 1.0)
        return warm * self.temperature**2 * (weights * losses).mean()

    def _regions(self, outputs: Outputs) -> Tensor:
        return region_logits(outputs.taps["last"], outputs.head, self.windows, pyramid=self.pyramid)

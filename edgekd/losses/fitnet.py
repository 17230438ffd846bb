"""FitNet hints: match an intermediate map of the teacher (Romero et al., arXiv 1412.6550)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


def hint_regressor(
    student: Tensor, teacher: Tensor, *, final_relu: bool = True, batch_norm: bool = True
) -> nn.Module:
    """The convolution that maps the student's hint to the teacher's size (+ BN) (+ ReLU).

    3x3 stride 2 where the student's map is twice as large, 4x4 stride 2 transposed where it is
    half as large, else a kernel of 1 + H_S - H_T (the CRD set's ConvReg).
    """
    student_side, teacher_side = student.shape[-1], teacher.shape[-1]
    width_in, width_out = student.shape[1], teacher.shape[1]
    convolution: nn.Module
    if student_side == 2 * teacher_side:
        convolution = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
    elif 2 * student_side == teacher_side:
        convolution = nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1)
    elif student_side >= teacher_side:
        convolution = nn.Conv2d(width_in, width_out, 1 + student_side - teacher_side)
    else:
        raise RecipeError(
            f"fitnet: the student's map is {student_side}x{student_side}, the teacher's "
            f"{teacher_side}x{teacher_side}; choose another `tap`"
        )
    layers = [convolution, *([nn.BatchNorm2d(width_out)] if batch_norm else [])]
    return nn.Sequential(*layers, *([nn.ReLU()] if final_relu else []))


class FitNet(Loss):
    """`sum_t MSE(r_t(F_S), F_T,t)` at one tap, one regressor per teacher, mean over elements.

    Weight 100 in the CRD set, which trains jointly with cross-entropy; the original's two steps
    are two stages of a recipe (hints first, then `kd`). `final_relu: false` for taps that can be
    negative. Both `false` leave the convolution alone; with maps of one size that is the 1x1
    convolution that comparisons of segmentation use (CIRKD, arXiv 2204.06986).
    """

    def __init__(
        self, *, tap: str = "s2", final_relu: bool = True, batch_norm: bool = True
    ) -> None:
        super().__init__()
        self.taps = (tap,)
        self.tap = tap
        self.final_relu = final_relu
        self.batch_norm = batch_norm
        self.regressors = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        student_map = student.taps[self.tap]
        for teacher in teachers:
            regressor = hint_regressor(
                student_map,
                teacher.taps[self.tap],
                final_relu=self.final_relu,
                batch_norm=self.batch_norm,
            )
            self.regressors.append(regressor.to(student_map.device))

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = [
            functional.mse_loss(regressor(student.taps[self.tap]), teacher.taps[self.tap])
            for regressor, teacher in zip(self.regressors, teachers, strict=True)
        ]
        return torch.stack(terms).sum()

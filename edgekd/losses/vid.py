"""Variational information distillation (Ahn et al., CVPR 2019, arXiv 1904.05835)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.losses._maps import check_map_taps, same_size
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


def gaussian_nll(mean: Tensor, variance: Tensor, wanted: Tensor) -> Tensor:
    """`mean 1/2 ((mu - F)^2 / v + log v)` over all elements of maps (B, D, h, w).

    One variance per channel, (D,). A Gaussian's without its constant, log(2 pi) / 2; negative where
    variances are small.
    """
    per_channel = variance[:, None, None]
    return 0.5 * ((mean - wanted).pow(2) / per_channel + per_channel.log()).mean()


class _Gaussian(nn.Module):
    """The teacher's map given the student's: a mean from three 1x1 convolutions, a variance per
    channel.

    The variance is `softplus(rho) + eps`, and rho is trained as the convolutions are.
    """

    def __init__(self, width_in: int, width_out: int, variance: float, eps: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(width_in, width_out, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 1, bias=False),
        )
        above = variance - eps
        inverse_softplus = above + math.log(-math.expm1(-above))
        self.rho = nn.Parameter(torch.full((width_out,), inverse_softplus))
        self.eps = eps

    def variance(self) -> Tensor:
        return functional.softplus(self.rho) + self.eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        ours, theirs = same_size(student, teacher)
        return gaussian_nll(self.mean(ours), self.variance(), theirs)


class VID(Loss):
    """`sum_taps mean 1/2 ((mu(F_S) - F_T)^2 / v + log v)`, v a learnt variance per channel.

    A bound on what the student's maps say of the teacher's, without its constant; it can be
    negative. Each tap of the student meets the teacher's of the same name; the larger map
    is averaged to the smaller first. mu is three 1x1 convolutions of the teacher's width with ReLU
    between, without bias. Each teacher adds a full term, with adapters of its own. Layers, weight
    (1) and defaults are those of the CRD set, and so is the mean over all elements, where the paper
    adds up.
    """

    def __init__(
        self,
        *,
        taps: tuple[str, ...] = ("s1", "s2", "s3", "s4"),
        init_variance: float = 5.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if not 0 < eps < init_variance:
            raise ValueError("eps must be above 0, and init_variance above eps")
        self.taps = check_map_taps(taps)
        self.init_variance = init_variance
        self.eps = eps
        self.teachers = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        self.teachers = nn.ModuleList(
            nn.ModuleList(
                _Gaussian(
                    student.taps[tap].shape[1],
                    teacher.taps[tap].shape[1],
                    self.init_variance,
                    self.eps,
                )
                for tap in self.taps
            )
            for teacher in teachers
        ).to(student.taps[self.taps[0]].device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = []
        for gaussians, teacher in zip(self.teachers, teachers, strict=True):
            assert isinstance(gaussians, nn.ModuleList)
            for gaussian, tap in zip(gaussians, self.taps, strict=True):
                terms.append(gaussian(student.taps[tap], teacher.taps[tap]))
        return torch.stack(terms).sum()

"""Relational knowledge distillation (Park et al., arXiv 1904.05068)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgekd.losses.base import Batch, Clock, Loss, Outputs, zero_like

LEAST = 1e-12  # squared distances below are taken for 0


def rkd_distance(student: Tensor, teacher: Tensor, *, chunk: int = 16) -> Tensor:
    """`mean smoothL1(d_S, d_T)` over all B^2 pairs of features (B, D) and (B, D').

    Distances are divided by the mean of the positive ones, student and teacher each by its own.
    0 where one side has no two different rows.
    """
    pair = [_in_chunks(_distances, features, chunk) for features in (student, teacher)]
    if any(not bool((distances > 0).any()) for distances in pair):
        return zero_like(student)
    scaled = [distances / distances[distances > 0].mean() for distances in pair]
    return functional.smooth_l1_loss(scaled[0], scaled[1])


def rkd_angle(student: Tensor, teacher: Tensor, *, chunk: int = 16) -> Tensor:
    """`mean smoothL1(a_S, a_T)` over all B^3 triplets, a_ijk the cosine of the angle at i.

    The differences of all rows to `chunk` of them are in memory at a time, (chunk, B, D), and
    they are computed again on the way back; the cosines themselves, (B, B, B), are kept.
    """
    pair = [_in_chunks(_angles, features, chunk) for features in (student, teacher)]
    return functional.smooth_l1_loss(pair[0], pair[1])


def _in_chunks(compute: Callable[[Tensor, Tensor], Tensor], features: Tensor, chunk: int) -> Tensor:
    """`compute(features, rows)` for `chunk` rows at a time, joined; differences are not kept."""
    pieces = [
        checkpoint(compute, features, features[start : start + chunk], use_reentrant=False)
        for start in range(0, len(features), chunk)
    ]
    return torch.cat(pieces)


def _distances(features: Tensor, corners: Tensor) -> Tensor:
    """Euclidean distances of each corner (c, D) to all rows (B, D): (c, B).

    They are 0 between equal rows, and so is their gradient there.
    """
    squared = (features[None, :] - corners[:, None]).pow(2).sum(dim=2)
    return torch.where(squared > LEAST, squared.clamp(min=LEAST).sqrt(), 0.0)


def _angles(features: Tensor, corners: Tensor) -> Tensor:
    """Cosines at each corner (c, D) between the directions to all rows (B, D): (c, B, B)."""
    ways = features[None, :] - corners[:, None]  # (c, B, D)
    squared = ways.pow(2).sum(dim=2, keepdim=True)
    ways = torch.where(squared > LEAST, ways * squared.clamp(min=LEAST).rsqrt(), 0.0)
    return ways @ ways.transpose(1, 2)


class RKD(Loss):
    """Distances and angles between the pooled features of a batch, `25 L_D + 50 L_A`.

    The factors are those of the CRD set, with an outer weight of 1. The widths of student and
    teacher may differ. Each teacher adds a full term. `l2_normalize` scales every feature to
    length 1 first. Pairs need two images and angles three; with fewer they are 0.
    """

    taps = ("pooled",)

    def __init__(
        self,
        *,
        distance: float = 25.0,
        angle: float = 50.0,
        l2_normalize: bool = False,
        chunk: int = 16,
    ) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError("chunk must be at least 1")
        self.distance = distance
        self.angle = angle
        self.l2_normalize = l2_normalize
        self.chunk = chunk

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self._features(student)
        total = zero_like(ours)
        for teacher in teachers:
            theirs = self._features(teacher)
            if self.distance and len(ours) > 1:
                total = total + self.distance * rkd_distance(ours, theirs, chunk=self.chunk)
            if self.angle and len(ours) > 2:
                total = total + self.angle * rkd_angle(ours, theirs, chunk=self.chunk)
        return total

    def _features(self, outputs: Outputs) -> Tensor:
        pooled = outputs.taps["pooled"]
        return functional.normalize(pooled, dim=1) if self.l2_normalize else pooled

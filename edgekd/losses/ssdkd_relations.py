"""Dual relations of SSD-KD: among images and among channels (Wang et al., arXiv 2203.11490)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgekd.errors import RecipeError
from edgekd.losses._maps import check_map_taps
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.losses.fitnet import hint_regressor
from edgekd.losses.rkd import RKD

LEAST = 1e-12  # under the root, whose slope at 0 has no end


def gram(maps: Tensor) -> Tensor:
    """`F F^T / (D h w)` of each image's map, from (B, D, h, w): (B, D, D)."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def _squared(student: Tensor, teacher: Tensor) -> Tensor:
    return (gram(student) - gram(teacher)).pow(2).sum()


def channel_distance(student: Tensor, teacher: Tensor, *, chunk: int = 16) -> Tensor:
    """`sqrt(mean (Gram(F_S) - Gram(F_T))^2)` of maps of one width, over all B D^2 entries.

    The Gram matrices of `chunk` images are in memory at a time, and they are computed again on the
    way back. 1e-12 is added under the root, and what that makes of 0 taken away from it.
    """
    parts = [
        checkpoint(
            _squared,
            student[start : start + chunk],
            teacher[start : start + chunk],
            use_reentrant=False,
        )
        for start in range(0, len(student), chunk)
    ]
    mean = torch.stack(parts).sum() / (len(student) * student.shape[1] ** 2)
    return (mean + LEAST).sqrt() - LEAST**0.5


class SSDKDRelations(Loss):
    """`25 RKD_distance + 50 RKD_angle + 1000 sqrt(mean (Gram(r(F_S)) - Gram(F_T))^2)`.

    Relations between the pooled features of all rows (see `rkd`), and between the channels of each
    row's map at `tap`, Gram = F F^T / (D h w). r is a convolution to the teacher's size and width,
    BatchNorm and ReLU (see `fitnet`); `final_relu: false` for maps that can be negative. Each
    teacher adds a full term, with a regressor of its own.
    Weight 1, in SSD-KD over four views of every image, in D-KD (the same authors) over the images.
    The factor `channels` is that of the authors' scripts; their class's default is 1e4.
    """

    def __init__(
        self,
        *,
        tap: str = "last",
        distance: float = 25.0,
        angle: float = 50.0,
        channels: float = 1000.0,
        final_relu: bool = True,
        chunk: int = 16,
    ) -> None:
        super().__init__()
        self.rkd = RKD(distance=distance, angle=angle, chunk=chunk)
        self.taps = ("pooled", *check_map_taps((tap,)))
        self.tap = tap
        self.channels = channels
        self.final_relu = final_relu
        self.chunk = chunk
        self.regressors = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        maps = student.taps[self.tap]
        for teacher in teachers:
            wanted = teacher.taps[self.tap]
            ours, theirs = maps.shape[-1], wanted.shape[-1]
            if ours < theirs and theirs != 2 * ours:
                raise RecipeError(
                    f"ssdkd_relations: at tap '{self.tap}' the student's map is {ours}x{ours}, a "
                    f"teacher's {theirs}x{theirs}; choose another `tap`"
                )
            regressor = hint_regressor(maps, wanted, final_relu=self.final_relu)
            self.regressors.append(regressor.to(maps.device))

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = [self.rkd(student, teachers, batch, clock)]
        for regress, teacher in zip(self.regressors, teachers, strict=True):
            ours, theirs = regress(student.taps[self.tap]), teacher.taps[self.tap]
            terms.append(self.channels * channel_distance(ours, theirs, chunk=self.chunk))
        return torch.stack(terms).sum()

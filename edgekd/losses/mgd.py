"""Masked generative distillation (Yang et al., ECCV 2022, arXiv 2205.01529)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.losses._generation import aligner, check_same_size, generation_error, generator
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


def random_mask(maps: Tensor, kind: Literal["channel", "pixel"], ratio: float) -> Tensor:
    """0 with probability `ratio`, else 1, for channels (B, D, 1, 1) or pixels (B, 1, h, w)."""
    images, width, height, breadth = maps.shape
    shape = (images, width, 1, 1) if kind == "channel" else (images, 1, height, breadth)
    return (torch.rand(shape, device=maps.device) >= ratio).to(maps.dtype)


class MGD(Loss):
    """`alpha/B sum (xi(r(F_S) M) - F_T)^2`, M a random mask: make the teacher's map from a part.

    On the last maps, which must be of one size (RecipeError). r is a 1x1 convolution to the
    teacher's width if they differ, xi 3x3 convolution, ReLU, 3x3 convolution. The sum is over
    channels and pixels, so it grows with the map. A new mask is drawn in every step; what it keeps
    is not rescaled. Each teacher adds a full term, with a mask and adapters of its own.

    Defaults are those of the authors' code for classification: `mask: channel`, ratio 0.15, alpha
    7e-5. For detection and segmentation it masks pixels, ratio 0.65 to 0.75, alpha 2e-5; DSP-KD
    (Bioengineering 11(1):70) describes that mask also for classification.
    """

    is_mean_of_images = True
    taps = ("last",)

    def __init__(
        self,
        *,
        mask: Literal["channel", "pixel"] = "channel",
        ratio: float = 0.15,
        alpha: float = 7e-5,
    ) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError("ratio must be from 0 to 1")
        self.mask = mask
        self.ratio = ratio
        self.alpha = alpha
        self.aligners = nn.ModuleList()
        self.generators = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        check_same_size("mgd", "last", student, teachers)
        maps = student.taps["last"]
        widths = [teacher.taps["last"].shape[1] for teacher in teachers]
        self.aligners = nn.ModuleList(aligner(maps.shape[1], width) for width in widths)
        self.generators = nn.ModuleList(generator(width, nn.ReLU()) for width in widths)
        self.to(maps.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = []
        for align, generate, teacher in zip(self.aligners, self.generators, teachers, strict=True):
            ours = align(student.taps["last"])
            made = generate(ours * random_mask(ours, self.mask, self.ratio))
            terms.append(generation_error(made, teacher.taps["last"]))
        return self.alpha * torch.stack(terms).sum()

"""Channel-wise knowledge distillation (Shu et al., ICCV 2021, arXiv 2011.13256)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.losses._maps import check_map_taps, same_size
from edgekd.losses._masks import SEGMENTATION
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs

LOGITS = "logits"


def channel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`tau^2 mean_bc KL(phi_T || phi_S)`, phi the softmax of a channel over its positions.

    Maps (B, C, h, w) of one width; the larger is averaged to the smaller first.
    """
    ours, theirs = (
        functional.log_softmax(maps.flatten(2) / temperature, dim=2)
        for maps in same_size(student, teacher)
    )
    terms = functional.kl_div(ours, theirs, reduction="none", log_target=True)
    return terms.sum(dim=2).mean() * temperature**2


class CWD(Loss):
    """`tau^2 / (B C) sum_bc KL(phi_T,c || phi_S,c)`, phi_c = softmax over positions of z_c / tau.

    Where each channel is active, not how much: a constant added to a channel changes nothing. On
    logits (B, C, H, W), the default, with weight 3 as published; one channel needs no expansion,
    as the softmax is not over channels. Or on the maps of a `tap` (weight 50), where a 1x1
    convolution without bias brings the student's map to the teacher's width if they differ; the
    larger map is averaged to the smaller. Each teacher adds a full term, with a convolution of
    its own.
    """

    is_mean_of_images = True
    tasks = SEGMENTATION

    def __init__(self, *, tap: str = LOGITS, temperature: float = 4.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.taps = () if tap == LOGITS else check_map_taps((tap,))
        self.tap = tap
        self.temperature = temperature
        self.adapters = nn.ModuleList()

    def _maps(self, of: Outputs) -> Tensor:
        return of.logits if self.tap == LOGITS else of.taps[self.tap]

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        ours = self._maps(student)
        widths = [self._maps(teacher).shape[1] for teacher in teachers]
        self.adapters = nn.ModuleList(
            nn.Identity()
            if width == ours.shape[1]
            else nn.Conv2d(ours.shape[1], width, 1, bias=False)
            for width in widths
        ).to(ours.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = [
            channel_kl(adapt(self._maps(student)), self._maps(teacher), self.temperature)
            for adapt, teacher in zip(self.adapters, teachers, strict=True)
        ]
        return torch.stack(terms).sum()

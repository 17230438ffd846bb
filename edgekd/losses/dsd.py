"""Double similarity distillation (Feng et al., IEEE TIP 2021, arXiv 2107.08591)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._maps import check_map_taps, unit_rows
from edgekd.losses._masks import SEGMENTATION, two_channels
from edgekd.losses.base import Batch, Clock, Loss, Outputs


def residuals(stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """What changes in the attention from each stage to each later one: (pairs, B, h w).

    The attention of maps (B, D, H, W) is `mean_c F_c^2`, averaged to the size (h, w) and flattened
    to length 1; so are the differences.
    """
    attentions = [
        unit_rows(functional.adaptive_avg_pool2d(maps.pow(2).mean(dim=1), size).flatten(1))
        for maps in stages
    ]
    pairs = combinations(attentions, 2)
    return torch.stack([unit_rows(later - earlier) for earlier, later in pairs])


def pixel_similarity(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """PSD: `mean (R_S - R_T)^2` over pairs of stages, images and positions.

    All attentions have the smallest height and width among the maps of both networks.
    """
    maps = [*student, *teacher]
    size = min(stage.shape[-2] for stage in maps), min(stage.shape[-1] for stage in maps)
    return functional.mse_loss(residuals(student, size), residuals(teacher, size))


def category_similarity(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """CSD: `mean (P_S P_S^T - P_T P_T^T)^2`, P (B, K, n) the channels of logits as distributions.

    Logits (B, K, H, W), [0, z] for one channel, are averaged over 2x2 pixels; P is their softmax
    over positions.
    """
    grams = []
    for logits in (student, teacher):
        pooled = functional.avg_pool2d(two_channels(logits), 2, ceil_mode=True)
        places = (pooled.flatten(2) / temperature).softmax(dim=2)
        grams.append(places @ places.transpose(1, 2))
    return functional.mse_loss(grams[0], grams[1])


class DSD(Loss):
    """`pixel_weight PSD + category_weight CSD`: similarity of pixels and of categories.

    PSD: the attention of each tap, `mean_c F_c^2` (B, D, h, w) flattened to length 1; the
    residuals `R = A_m - A_n` of all pairs of taps, at length 1; `mean (R_S - R_T)^2`. Widths may
    differ. Taps of several sizes are averaged to the smallest, after squaring and before the
    length is taken. CSD: logits (B, K, H, W) averaged over 2x2 pixels, each channel a softmax over
    positions at the temperature, their products K x K, the mean squared difference. One channel is
    taken as [0, z], whose first one is a constant: with two classes CSD has next to nothing to say.
    Each teacher adds a full term.

    The formulas, the weights (1000 and 10) and the temperature are those of CIRKD's code
    (arXiv 2204.06986), which has taps of one size.
    """

    tasks = SEGMENTATION

    def __init__(
        self,
        *,
        taps: tuple[str, ...] = ("s1", "s2", "s3", "s4"),
        temperature: float = 4.0,
        pixel_weight: float = 1000.0,
        category_weight: float = 10.0,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.taps = check_map_taps(taps)
        if len(self.taps) < 2:
            raise ValueError("taps must be two or more: what differs between them is compared")
        self.temperature = temperature
        self.pixel_weight = pixel_weight
        self.category_weight = category_weight

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = [student.taps[tap] for tap in self.taps]
        terms = []
        for teacher in teachers:
            pixels = pixel_similarity(ours, [teacher.taps[tap] for tap in self.taps])
            categories = category_similarity(student.logits, teacher.logits, self.temperature)
            terms.append(self.pixel_weight * pixels + self.category_weight * categories)
        return torch.stack(terms).sum()

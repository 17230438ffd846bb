"""Distillation for medical image segmentation (Qin et al., IEEE TMI 2021, arXiv 2108.09987)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._maps import check_map_taps, unit_rows
from edgekd.losses._masks import (
    SEGMENTATION,
    class_masks,
    pixel_kl,
    region_means,
    resized_labels,
)
from edgekd.losses.at import attention
from edgekd.losses.base import Batch, Clock, Loss, Outputs


def importance(student: Tensor, teacher: Tensor, p: int) -> Tensor:
    """IMD: `mean_b ||Q(F_S) - Q(F_T)||^2`, Q the flattened `mean_c |F_c|^p` at length 1.

    The student's map (B, D, h, w) is resized to the teacher's, bilinearly. Q does not change with
    the scale of an image's map, so each is divided by its largest value: high powers stay finite.
    """
    size = teacher.shape[-2:]
    if student.shape[-2:] != size:
        student = functional.interpolate(student, tuple(size), mode="bilinear", align_corners=False)
    tiny = torch.finfo(student.dtype).tiny
    ours, theirs = (
        attention(maps / maps.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny), p)
        for maps in (student, teacher)
    )
    return (ours - theirs).pow(2).sum(dim=1).mean()


def contrast(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of the mean feature of the foreground with that of the background, both (B,).

    Also whether the map (B, D, h, w) has both: labels (B, H, W) are resized to it by the nearest
    pixel, where small regions may vanish.
    """
    resized = resized_labels(labels, maps.shape[-2:])
    masks = class_masks(resized.clamp(max=1), 2, maps.dtype)
    rows = unit_rows(region_means(maps, masks))
    return (rows[:, 0] * rows[:, 1]).sum(dim=1), masks.flatten(2).amax(dim=2).gt(0).all(dim=1)


def affinity(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """RAD: `mean_b (cos_S - cos_T)^2`, cos the contrast of the two regions of an image.

    0 for an image that lacks one of them; the mean is over the images with a labelled pixel.
    """
    (ours, in_ours), (theirs, in_theirs) = contrast(student, labels), contrast(teacher, labels)
    squared = torch.where(in_ours & in_theirs, (ours - theirs).pow(2), 0.0)
    return squared.sum() / (labels >= 0).flatten(1).any(dim=1).sum().clamp(min=1)


class EMKD(Loss):
    """`prediction_weight PMD + importance_weight IMD + region_weight RAD`.

    PMD: `tau^2 mean_px KL(p_T || p_S)` of logits (B, K, H, W), p = softmax(z / tau), that of [0, z]
    for one channel. IMD: `sum_taps mean_b ||Q(F_S) - Q(F_T)||^2`, Q(F) the flattened
    `mean_c |F_c|^p` at length 1, the student's map resized bilinearly. RAD:
    `sum_taps mean_b (cos_S - cos_T)^2`, cos that of the mean features of foreground and background;
    several foreground classes are one region. An image without foreground (or background) adds 0
    to RAD and counts in its mean; unlabelled pixels are in no region, unlabelled images not in the
    mean. The taps are an early and a late stage of the encoder, the widths of the networks may
    differ. Each teacher adds a full term.

    Weights, temperature and p are the authors' code's. Its PMD mixes pixels and channels by a
    reshape; here each pixel has its own distribution. Its task loss is `focal_dice` with both
    weights 0.5.
    """

    tasks = SEGMENTATION

    def __init__(
        self,
        *,
        low: str = "s1",
        high: str = "last",
        temperature: float = 4.0,
        p: int = 4,
        prediction_weight: float = 0.1,
        importance_weight: float = 0.9,
        region_weight: float = 0.9,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        if p < 1:
            raise ValueError("p must be at least 1")
        self.taps = check_map_taps((low, high))
        self.temperature = temperature
        self.p = p
        self.prediction_weight = prediction_weight
        self.importance_weight = importance_weight
        self.region_weight = region_weight

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = []
        for teacher in teachers:
            divergence = pixel_kl(student.logits, teacher.logits, self.temperature)
            terms.append(self.prediction_weight * divergence)
            for tap in self.taps:
                ours, theirs = student.taps[tap], teacher.taps[tap]
                terms.append(self.importance_weight * importance(ours, theirs, self.p))
                terms.append(self.region_weight * affinity(ours, theirs, batch.targets))
        return torch.stack(terms).sum()

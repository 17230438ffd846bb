"""Intra-class feature variation distillation (Wang et al., ECCV 2020, LNCS 12352)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.losses._maps import check_map_taps, same_size, unit_rows
from edgekd.losses._masks import SEGMENTATION, class_masks, region_means, resized_labels
from edgekd.losses.base import Batch, Clock, Loss, Outputs


def variation(maps: Tensor, masks: Tensor) -> Tensor:
    """The cosine of every pixel's feature with the mean one of its class and image: (B, h, w).

    Maps (B, D, h, w), masks (B, K, h, w); 0 where a pixel is in no mask or its feature is 0.
    """
    means = region_means(maps, masks)
    unit = unit_rows(maps.flatten(2).transpose(1, 2))
    cosines = unit_rows(means) @ unit.transpose(1, 2)  # (B, K, h w)
    return (cosines.unflatten(2, tuple(maps.shape[-2:])) * masks).sum(dim=1)


class IFVD(Loss):
    """`mean_px (v_S - v_T)^2`, v the cosine of a pixel's feature with its class's mean feature.

    How much the features of one class vary within an image, from maps (B, D, h, w) at `tap` and
    labels (B, H, W), resized by the nearest pixel. Means are per image and per class, over the
    labelled pixels. Widths of the maps may differ, as only cosines are compared; the larger map is
    averaged to the smaller. Classes that an image lacks contribute nothing, nor do unlabelled
    pixels, which are left out of the mean (the authors' code leaves them in, at 0); a batch
    without labels gives 0. Each teacher adds a full term.

    The published weight is 200, beside `kd_pixel` at 10. The paper's adversarial part is a term of
    its own, `adversarial` (weight 0.001), beside these.
    """

    tasks = SEGMENTATION

    def __init__(self, *, tap: str = "decoder") -> None:
        super().__init__()
        self.taps = check_map_taps((tap,))
        self.tap = tap

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        classes = max(2, student.logits.shape[1])
        terms = []
        for teacher in teachers:
            ours, theirs = same_size(student.taps[self.tap], teacher.taps[self.tap])
            labels = resized_labels(batch.targets, ours.shape[-2:])
            masks = class_masks(labels, classes, ours.dtype)
            squared = (variation(ours, masks) - variation(theirs, masks)).pow(2)
            terms.append(squared.sum() / (labels >= 0).sum().clamp(min=1))
        return torch.stack(terms).sum()

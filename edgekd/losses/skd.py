"""Structured knowledge distillation (Liu et al., CVPR 2019, arXiv 1903.04197)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._maps import check_map_taps, same_size, unit_rows
from edgekd.losses._masks import SEGMENTATION, log_probabilities
from edgekd.losses.base import Batch, Clock, Loss, Outputs, zero_like


def pixel_wise(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """`-mean_px sum_k p_T log p_S` of logits (B, K, H, W); at least the teacher's entropy."""
    ours, theirs = log_probabilities(student_logits), log_probabilities(teacher_logits)
    return -(theirs.exp() * ours).sum(dim=1).mean()


def similarities(maps: Tensor, scale: float) -> Tensor:
    """The cosines of all pairs of nodes of maps (B, D, h, w): (B, nodes, nodes).

    A node is the maximum over a cell of int(scale h) x int(scale w) pixels, at least one; the last
    cells are smaller where those do not fit. A node of zeros has the cosine 0 with all.
    """
    cell = [max(1, int(scale * side)) for side in maps.shape[-2:]]
    nodes = functional.max_pool2d(maps, cell, stride=cell, ceil_mode=True)
    rows = unit_rows(nodes.flatten(2).transpose(1, 2))
    return rows @ rows.transpose(1, 2)


def pair_wise(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """`1/(B N^2) sum_ij (a_S,ij - a_T,ij)^2` over N nodes; 0 where there is one node only.

    Maps (B, D, h, w) whose widths may differ; the larger is averaged to the smaller first.
    """
    ours, theirs = (similarities(maps, scale) for maps in same_size(student, teacher))
    return functional.mse_loss(ours, theirs) if ours.shape[1] > 1 else zero_like(student)


class SKD(Loss):
    """`pixel_weight PI + pair_weight PA`: what each pixel is, and which regions are alike.

    `PI = -mean_px sum_k p_T log p_S`, p = softmax(z) of logits (B, K, H, W), that of [0, z] for one
    channel; it differs from `kd_pixel` at temperature 1 by the teacher's entropy, which has no
    gradient. `PA = 1/(B N^2) sum_ij (a_S,ij - a_T,ij)^2`, a the cosines of all pairs of N nodes;
    nodes are the map at `tap`, max-pooled by `scale` of its height and width (0.5: 2x2 nodes). One
    node gives 0. Widths of the maps may differ. Each teacher adds a full term.

    Weights, scale and pooling are the authors' code's. It divides PI by H W but not by B, here it
    is the mean; and it takes the lengths in `a` for constants, here the gradient passes through.

    The paper's third, holistic part is a term of its own, `adversarial` (weight 0.1), beside this.
    """

    tasks = SEGMENTATION

    def __init__(
        self,
        *,
        tap: str = "decoder",
        scale: float = 0.5,
        pixel_weight: float = 10.0,
        pair_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < scale <= 1:
            raise ValueError("scale must be above 0 and at most 1")
        self.taps = check_map_taps((tap,))
        self.tap = tap
        self.scale = scale
        self.pixel_weight = pixel_weight
        self.pair_weight = pair_weight

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        terms = []
        for teacher in teachers:
            pixels = pixel_wise(student.logits, teacher.logits)
            pairs = pair_wise(student.taps[self.tap], teacher.taps[self.tap], self.scale)
            terms.append(self.pixel_weight * pixels + self.pair_weight * pairs)
        return torch.stack(terms).sum()

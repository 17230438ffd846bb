"""Similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._maps import unit_rows
from edgekd.losses.base import Batch, Clock, Loss, Outputs, zero_like


def similarities(features: Tensor) -> Tensor:
    """The products of all pairs of flattened rows of (B, ...), each row at length 1: (B, B)."""
    flat = features.flatten(1)
    return unit_rows(flat @ flat.T)


class SP(Loss):
    """`1/B^2 ||G_S - G_T||_F^2` at one tap, G the rows of `F F^T` (B, B) at length 1.

    Which images of a batch are alike, so widths and sizes of the maps may differ; nothing is
    resized and there are no adapters. Each teacher adds a full term. One image gives 0. The weight
    is 3000 in the CRD set. `tap: pooled` compares pooled features.
    """

    def __init__(self, *, tap: str = "last") -> None:
        super().__init__()
        self.taps = (tap,)
        self.tap = tap

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        features = student.taps[self.tap]
        if len(features) < 2:
            return zero_like(features)
        ours = similarities(features)
        terms = [
            functional.mse_loss(ours, similarities(teacher.taps[self.tap])) for teacher in teachers
        ]
        return torch.stack(terms).sum()

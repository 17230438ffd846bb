"""Small outputs for loss tests."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.losses.base import Batch, Clock, Facts, Outputs

CLOCK = Clock(epoch=30, epochs=100, step=0, steps=100)
FACTS = Facts("classification", ("a", "b", "c", "d", "e"), (10, 10, 10, 10, 10), 8)


def outputs(logits: Tensor, **taps: Tensor) -> Outputs:
    return Outputs(logits=logits, taps=taps, head=lambda pooled: pooled)


def batch(targets: list[int]) -> Batch:
    return Batch(torch.zeros(len(targets), 3, 4, 4), torch.tensor(targets))


def random_logits(seed: int, rows: int = 8, classes: int = 5, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale

"""Small masks, maps and logits of segmentation for loss tests."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.losses.base import Batch, Facts

BINARY = Facts("segmentation", ("background", "lesion"), (10, 10), 3)
UNKNOWN = -1


def values(
    seed: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Normally distributed numbers, the same in all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def masks(seed: int, *shape: int, classes: int = 2) -> Tensor:
    """Labels (B, H, W), each pixel of any class."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, shape, generator=generator)


def batch(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, *labels.shape[1:]), labels)

"""What losses on feature maps share: maps of one size, and rows of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

LEAST = 1e-24  # rows whose squared length is below are taken for 0


def same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (B, D, h, w) and (B, D', h', w') averaged to the smaller height and width.

    The larger is pooled, whichever it is, so that no value is made up. Maps of one size are
    returned as they are.
    """
    size = (min(one.shape[-2], other.shape[-2]), min(one.shape[-1], other.shape[-1]))
    pooled = [
        maps if tuple(maps.shape[-2:]) == size else functional.adaptive_avg_pool2d(maps, size)
        for maps in (one, other)
    ]
    return pooled[0], pooled[1]


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (..., N) divided by their Euclidean length. A row of zeros stays, with gradient 0.

    `functional.normalize` would hand such a row a gradient of 1e12.
    """
    squared = rows.pow(2).sum(dim=-1, keepdim=True)
    return torch.where(squared > LEAST, rows * squared.clamp(min=LEAST).rsqrt(), 0.0)


def check_map_taps(taps: Sequence[str]) -> tuple[str, ...]:
    """The taps as a tuple. Raises ValueError for none, one given twice, or one without a map."""
    found = tuple(taps)
    if not found or len(set(found)) < len(found):
        raise ValueError("taps must be different names, for example [s1, s2, s3, s4]")
    if "pooled" in found:
        raise ValueError("`pooled` is no map; take `last`, the map before pooling")
    return found

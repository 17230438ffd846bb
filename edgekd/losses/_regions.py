"""Logits of image regions: the classifier applied to averaged cells of the last feature map.

Used by scale-decoupled distillation (arXiv 2403.13512) and UMKD (arXiv 2505.00592, Eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.errors import RecipeError

Pyramid = Literal["direct", "from_finest"]


def region_logits(
    maps: Tensor,
    head: Callable[[Tensor], Tensor],
    windows: Sequence[int],
    *,
    pyramid: Pyramid = "direct",
) -> Tensor:
    """Logits (B, C, R) of the cells of every w x w grid, grid after grid, row by row.

    `maps` (B, D, h, w) enters global pooling, `head` is everything after it. Each cell is
    averaged, so that window 1 gives the ordinary logits; Eq. 6 of UMKD prints the number of cells
    where the cell's area must stand. `from_finest` averages to the largest grid first and makes
    the others of that, as UMKD's code does: where the bins of the finest grid overlap (7 pixels in
    4 bins), window 1 is then not exactly the ordinary logits.
    """
    if pyramid == "from_finest":
        maps = functional.adaptive_avg_pool2d(maps, max(windows))
    cells = torch.cat(
        [functional.adaptive_avg_pool2d(maps, window).flatten(2) for window in windows], dim=2
    )  # (B, D, R)
    batch, width, regions = cells.shape
    logits = head(cells.transpose(1, 2).reshape(batch * regions, width))
    return logits.reshape(batch, regions, -1).transpose(1, 2)


def check_windows(maps: Tensor, windows: Sequence[int], loss: str) -> None:
    """Raise RecipeError for a window that is larger than the map (B, D, h, w)."""
    side = min(maps.shape[-2:])
    for window in windows:
        if window > side:
            raise RecipeError(
                f"{loss}: a window of {window}x{window} cells does not fit the last map of "
                f"{maps.shape[-2]}x{maps.shape[-1]}",
                hint=f"raise data.input.size, or leave {window} out of `windows`",
            )


def check_window_list(windows: Sequence[int]) -> tuple[int, ...]:
    """The windows as a tuple. Raises ValueError for none, one below 1 or one given twice."""
    found = tuple(windows)
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise ValueError("windows must be different numbers from 1 on, for example [1, 2, 4]")
    return found

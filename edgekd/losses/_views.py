"""What the terms of SSD-KD share: four views of every image in one batch, and which rows count.

SSD-KD (Wang et al., Medical Image Analysis 2023, arXiv 2203.11490). A stage with
`data.views: rotations` hands out 4 B rows: B images as they are, then all of them turned by 90, by
180 and by 270 degrees, with the B labels repeated. Row r shows image r mod B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses._maps import unit_rows
from edgekd.losses.base import Batch

VIEWS = 4


def images_of(batch: Batch, loss: str) -> int:
    """How many images B the 4 B rows show; the first B rows are those as they are.

    Raises RecipeError for a batch whose labels are not four times the same.
    """
    images, rest = divmod(len(batch.targets), VIEWS)
    labels = batch.targets
    if rest or not images or not torch.equal(labels, labels[:images].repeat(VIEWS)):
        raise RecipeError(
            f"{loss}: a batch of {len(batch.targets)} rows does not hold {VIEWS} views of every "
            "image",
            hint="data.views=rotations of this stage",
        )
    return images


def own_image(images: int, device: torch.device) -> Tensor:
    """Which image each turned row shows: (3 B,)."""
    return torch.arange(images, device=device).repeat(VIEWS - 1)


def ranks(scores: Tensor, right: Tensor) -> Tensor:
    """How many columns of scores (N, C) are above the right one's, which is in (N,): (N,).

    0 is correct, also where two are best. Where the right one is not known (negative), 0 too.
    """
    wanted = scores.gather(1, right.clamp(min=0)[:, None])
    return (scores > wanted).sum(dim=1).masked_fill(right < 0, 0)


def kept(found: Tensor, share: float) -> Tensor:
    """The rows to learn from by their ranks (N,): all correct ones, and `share` of the others.

    Of those the ones of best rank, rounded down; of one rank the first. Indices in order.
    """
    wrong = int((found > 0).sum())
    count = len(found) - wrong + int(share * wrong)
    return found.argsort(stable=True)[:count].sort().values


def contrast_head(width: int) -> nn.Sequential:
    """Two linear layers with ReLU between, all of the pooled features' width."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def similarities(embedded: Tensor, images: int) -> Tensor:
    """Cosines of every turned row with every image as it is: (4 B, D) to (3 B, B)."""
    rows = unit_rows(embedded)
    return rows[images:] @ rows[:images].T

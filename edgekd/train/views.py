"""Several views of every image in one batch."""

from __future__ import annotations

import torch

from edgekd.losses.base import Batch
from edgekd.recipe_data import StageData

TURNS = 4


def with_views(batch: Batch, data: StageData) -> Batch:
    """The batch as a stage wants it: with `views: rotations` 4 B rows.

    The B images as they came, then all of them turned by 90, by 180 and by 270 degrees; targets
    are repeated. The views are turned after augmentation, so that they differ in nothing else.
    """
    if data.views is None:
        return batch
    turned = [torch.rot90(batch.images, turn, dims=(2, 3)) for turn in range(TURNS)]
    repeats = (TURNS, *[1] * (batch.targets.ndim - 1))
    return Batch(torch.cat(turned), batch.targets.repeat(repeats))

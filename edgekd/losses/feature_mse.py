"""Mean squared error between feature maps (KDML, arXiv 2212.02931; SimKD, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.errors import RecipeError
from edgekd.losses._maps import check_map_taps, same_size
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


class FeatureMSE(Loss):
    """`sum_t mean (F_S - F_T,t)^2` over all elements at one tap, without adapters.

    KDML's feature knowledge, from a teacher or a peer: the widths must be equal, which a `neck` of
    the teacher gives it (its authors' way, so that the students stay as they are); `setup` raises
    RecipeError where they are not. Each teacher adds a full term. The larger map is averaged to
    the smaller.

    Also SimKD's only loss (Chen et al., CVPR 2022, arXiv 2203.14001): there the student is
    `graft`ed, that is, a projector to the teacher's width and the teacher's classifier are parts of
    the network, and its `last` is what the projector gives.
    """

    is_mean_of_images = True

    def __init__(self, *, tap: str = "last") -> None:
        super().__init__()
        self.taps = check_map_taps((tap,))
        self.tap = tap

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        width = student.taps[self.tap].shape[1]
        for teacher in teachers:
            other = teacher.taps[self.tap].shape[1]
            if other != width:
                raise RecipeError(
                    f"feature_mse: at tap '{self.tap}' the student's map has {width} channels, "
                    f"that of a teacher or peer {other}; they must be equal",
                    hint="give that teacher or peer the student's width: "
                    f"`neck: {{width: {width}}}` in its models.NAME",
                )

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        pairs = [same_size(student.taps[self.tap], other.taps[self.tap]) for other in teachers]
        return torch.stack([functional.mse_loss(*pair) for pair in pairs]).sum()

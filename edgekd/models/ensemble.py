"""Several networks that answer as one, in one graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.models.network import Network


class EnsembleNet(nn.Module):
    """The most confident member wins: `max_k p_k[c]` (KDML, arXiv 2212.02931), as logits.

    Where classes exclude each other these are `max_k log softmax(z_k)`, whose softmax is the
    maximum of the members' probabilities, scaled to sum to 1. Else they are `max_k z_k`, whose
    sigmoid is the maximum of the members' probabilities; above a half it is the union of masks.
    """

    def __init__(self, members: Sequence[Network], *, exclusive: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)  # each normalises its input by itself
        self.exclusive = exclusive

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] to logits (B, ...)."""
        logits = [member(images) for member in self.members]
        if self.exclusive:
            logits = [torch.log_softmax(one, dim=1) for one in logits]
        joined = logits[0]
        for one in logits[1:]:  # pairwise: a plain Max in ONNX, without a stacked axis
            joined = torch.maximum(joined, one)
        return joined

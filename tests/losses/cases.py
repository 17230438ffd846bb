"""Small outputs for loss tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekd.losses.at import AT
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.losses.dml import DML
from edgekd.losses.feature_mse import FeatureMSE
from edgekd.losses.semckd import SemCKD
from edgekd.losses.sp import SP
from edgekd.losses.srrl import SRRL
from edgekd.losses.vid import VID

CLOCK = Clock(epoch=30, epochs=100, step=0, steps=100)
FACTS = Facts("classification", ("a", "b", "c", "d", "e"), (10, 10, 10, 10, 10), 8)
# KDML's and what it is compared with, for the rules that hold for every loss
KDML_LOSSES: dict[str, Callable[[], Loss]] = {
    "at": lambda: AT(taps=("s1", "s2", "s4")),
    "sp": SP,
    "srrl": SRRL,
    "vid": lambda: VID(taps=("s1", "s4")),
    "semckd": lambda: SemCKD(taps=("s1", "s4")),
    "dml": DML,
    "feature_mse": lambda: FeatureMSE(tap="s2"),  # of one width in all networks
}


def outputs(logits: Tensor, **taps: Tensor) -> Outputs:
    return Outputs(logits=logits, taps=taps, head=lambda pooled: pooled)


def batch(targets: list[int]) -> Batch:
    return Batch(torch.zeros(len(targets), 3, 4, 4), torch.tensor(targets))


def random_logits(seed: int, rows: int = 8, classes: int = 5, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale


def random_maps(
    seed: int, rows: int = 3, channels: int = 6, side: int = 4, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, side, side, generator=generator, dtype=torch.float64).to(
        dtype
    )


def linear_head(seed: int, channels: int = 6, classes: int = 5, scale: float = 2.0) -> nn.Linear:
    """A classifier in float64, known by `weight` and `bias`; its scale is that of the logits."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(channels, classes, dtype=torch.float64).requires_grad_(False)
    head.weight.copy_(torch.randn(classes, channels, generator=generator) * scale)
    head.bias.copy_(torch.randn(classes, generator=generator))
    return head


def classified(last: Tensor, head: nn.Module, **taps: Tensor) -> Outputs:
    """What a network says that ends in the map `last`, average pooling and `head`."""
    pooled = last.mean((2, 3))
    taps = {**taps, "last": last, "pooled": pooled}
    return Outputs(logits=head(pooled), taps=taps, head=head)

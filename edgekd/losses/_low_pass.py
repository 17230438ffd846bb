"""Low-pass filters of UMKD's shallow alignment (arXiv 2505.00592, Eqs. 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BINS = (1, 2, 3, 6)


def low_pass(maps: Tensor, bins: Sequence[int] = BINS) -> Tensor:
    """The multi-scale filter of the experts' path, without parameters: (B, D, h, w) to the same.

    The channels are split into as many groups as there are bins; group m is averaged to a grid of
    `bins[m]` x `bins[m]` and resized back (bilinear). ReLU at the end. The paper speaks of kernel
    sizes; the authors' code takes the numbers as output bins, which is followed here.
    """
    size = maps.shape[-2:]
    smooth = [
        functional.interpolate(
            functional.adaptive_avg_pool2d(group, count),
            size=size,
            mode="bilinear",
            align_corners=False,
        )
        for group, count in zip(torch.tensor_split(maps, len(bins), dim=1), bins, strict=True)
        if group.shape[1]  # fewer channels than bins
    ]
    return functional.relu(torch.cat(smooth, dim=1))


class LowPass(nn.Module):
    """The student's learnable filter: (B, D, h, w) to (B, D, h / stride, w / stride).

    One branch is a convolution and `low_pass`, the other a convolution; both are joined by a 1x1
    convolution and two depthwise-separable ones. As in the authors' code: the paper's single 3x3
    convolution is these three, and its down-sampling has a stride of 1. With a larger `stride` the
    smooth branch is resized to the other.
    """

    def __init__(self, channels: int, *, bins: Sequence[int] = BINS, stride: int = 1) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.sharp = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.join = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardswish(),
            _separable(channels),
            _separable(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        sharp = self.sharp(maps)
        smooth = low_pass(self.smooth(maps), self.bins)
        if smooth.shape != sharp.shape:
            smooth = functional.interpolate(
                smooth, size=sharp.shape[-2:], mode="bilinear", align_corners=False
            )
        joined: Tensor = self.join(torch.cat([smooth, sharp], dim=1))
        return joined


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )

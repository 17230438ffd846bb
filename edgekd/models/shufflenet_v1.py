"""ShuffleNetV1 at width 1 (Zhang et al., CVPR 2018, arXiv 1707.01083), which no library here has.

Their Table 1 and Figure 2 leave three things open, and none of them changes what the network can
compute. The shuffle stands before the depthwise convolution, as drawn; that works on each channel
alone, so behind it would do as well. The first unit shuffles too, though its first convolution is
not grouped. Where two branches are joined, ReLU is on the convolutions alone: the other branch is
a mean of maps that went through a ReLU. Weights are unpublished; they start as He et al. (arXiv
1502.01852) have it, the classifier from N(0, 0.01^2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import RecipeError

STEM = 24
STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups -> channels; doubled by each stage


def channel_shuffle(maps: Tensor, groups: int) -> Tensor:
    """Channels (g, n) become (n, g): each group of the next convolution sees every group."""
    return maps.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)  # (B, C, H, W)


class ShuffleUnit(nn.Module):
    """Figure 2 b (`stride` 1: added to the input) and c (2: joined to the input's mean).

    The bottleneck has a quarter of the unit's output channels. `first` is the unit behind the
    stem, whose few channels are not grouped.
    """

    def __init__(
        self, inputs: int, outputs: int, *, groups: int, stride: int, first: bool = False
    ) -> None:
        super().__init__()
        self.groups = groups
        self.stride = stride
        narrow = outputs // 4
        wide = outputs - inputs if stride == 2 else outputs
        self.conv1 = nn.Conv2d(inputs, narrow, 1, groups=1 if first else groups, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1, groups=narrow, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, wide, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        branch = self.relu(self.bn1(self.conv1(maps)))
        branch = self.bn2(self.conv2(channel_shuffle(branch, self.groups)))
        branch = self.bn3(self.conv3(branch))
        if self.stride == 2:
            mean = functional.avg_pool2d(maps, 3, stride=2, padding=1)
            return torch.cat([mean, self.relu(branch)], dim=1)
        return self.relu(maps + branch)


def _stage(
    inputs: int, outputs: int, *, groups: int, units: int, first: bool = False
) -> nn.Sequential:
    head = ShuffleUnit(inputs, outputs, groups=groups, stride=2, first=first)
    rest = [ShuffleUnit(outputs, outputs, groups=groups, stride=1) for _ in range(units - 1)]
    return nn.Sequential(head, *rest)


class ShuffleNetV1(nn.Module):
    """Maps of `stage2` to `stage4` at strides 8, 16 and 32: 240, 480, 960 channels for 3 groups.

    Raises RecipeError for a number of groups that the paper does not have.
    """

    def __init__(self, *, num_classes: int, groups: int = 3) -> None:
        super().__init__()
        if groups not in STAGE2:
            raise RecipeError(
                f"edgekd:shufflenet_v1: there is none with groups={groups!r}",
                hint=f"args: {{groups: 3}}; the paper has {', '.join(map(str, STAGE2))}",
            )
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(STEM),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wide = STAGE2[groups]
        self.stage2 = _stage(STEM, wide, groups=groups, units=4, first=True)
        self.stage3 = _stage(wide, 2 * wide, groups=groups, units=8)
        self.stage4 = _stage(2 * wide, 4 * wide, groups=groups, units=4)
        self.fc = nn.Linear(4 * wide, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to the last map (B, D, S / 32, S / 32)."""
        maps = self.maxpool(self.conv1(images))
        return self.stage4(self.stage3(self.stage2(maps)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to logits (B, C)."""
        return self.fc(self.forward_features(images).mean(dim=(2, 3)))

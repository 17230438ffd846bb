"""The holistic term of SKD (Liu et al., CVPR 2019, arXiv 1903.04197) and IFVD: a critic.

It is trained as in WGAN-GP (Gulrajani et al., NeurIPS 2017, arXiv 1704.00028).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from edgekd.losses._maps import LEAST
from edgekd.losses._masks import SEGMENTATION, log_probabilities, two_channels
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs

HALVINGS = 4  # at most
SMALLEST = 4  # pixels of a side that are not halved any more
COLOURS = 3  # channels of an image


class Critic(nn.Module):
    """A number for each map (B, K, h, w), seen beside its image (B, 3, h, w): (B,).

    4x4 convolutions of stride 2 with LeakyReLU 0.1, each twice as wide as the one before, until a
    side has four pixels (four of them from 64 pixels on); then one over all that is left. That one
    has no bias, which would cancel wherever two maps are compared.
    """

    def __init__(self, channels: int, size: Sequence[int], width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        entering = channels + COLOURS
        height, breadth = size
        while min(height, breadth) > SMALLEST and len(layers) < 2 * HALVINGS:
            layers += [nn.Conv2d(entering, width, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
            entering, width = width, 2 * width
            height, breadth = height // 2, breadth // 2
        layers.append(nn.Conv2d(entering, 1, (height, breadth), bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        numbers: Tensor = self.layers(torch.cat([maps, images], dim=1))
        return numbers.flatten()


def slope_penalty(
    critic: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor, share: Tensor
) -> Tensor:
    """`mean_b (||dD/dx|| - 1)^2` at `x = share teacher + (1 - share) student`.

    Maps (B, K, h, w), shares (B, 1, 1, 1) in [0, 1]; the critic D gives (B,). Only the critic
    learns from it. A slope of 0 counts 1 and hands on no gradient.
    """
    with torch.enable_grad():
        between = (share * teacher + (1 - share) * student).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    squared = slopes.flatten(1).pow(2).sum(dim=1)
    return (squared.clamp(min=LEAST).sqrt() - 1).pow(2).mean()


class Adversarial(Loss):
    """`-mean D(S)` for the student and `mean D(S) - mean D(T) + penalty GP` for the critic D.

    S and T are the maps of probabilities of student and teacher, softmax(z) of logits (B, K, H, W),
    that of [0, z] for one channel. `GP = mean_b (||dD/dx|| - 1)^2` at a random place x between the
    two maps of each image. The student's part holds D constant, the critic's part both maps, so
    that one backward pass gives each its own gradient. They move in one step: the authors' code
    moves them one after the other, but by the same outputs. Each teacher adds a full term with a
    critic of its own. No label is needed.

    A term beside `skd` (weight 0.1) or `ifvd` (weight 0.001), neither of which has it by itself.
    The weight is that of both parts, as in the code of SKD; that of IFVD keeps 0.1 for the critic.
    To Adam the scale of the critic's gradient means nothing, with SGD it is part of its rate. The
    published rate is 4e-4, whatever the student's: `rates: {critics: 4}` beside `lr: 1e-4`.

    The value is `-mean D(T) + penalty GP`, since what D says of the student cancels. It shows that
    the critic is alive, and says nothing about how well the student does.

    D is plainer than the published one. As there, maps and images are averaged to at most `size`
    pixels a side (there 65, an eighth of the crops), and its convolutions are `width`, 2, 4 and 8
    times that wide; but there is no spectral norm, self-attention, or BatchNorm at its entry: the
    penalty limits the slope already and suits no norm over batches (WGAN-GP), and the last
    convolution sees the whole map. D sees the image beside the map, as the paper says, not the map
    alone, as its code has it; and probabilities, where the code takes logits.
    """

    tasks = SEGMENTATION

    def __init__(self, *, size: int = 64, width: int = 64, penalty: float = 10.0) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise ValueError("size and width must be at least 1")
        if penalty < 0:
            raise ValueError("penalty must not be negative")
        self.size = size
        self.width = width
        self.penalty = penalty
        self.critics = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        maps = self._averaged(two_channels(student.logits))
        self.critics = nn.ModuleList(
            Critic(maps.shape[1], maps.shape[2:], self.width) for _ in teachers
        ).to(maps.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self._averaged(log_probabilities(student.logits).exp())
        images = self._averaged(batch.images).to(ours.dtype)
        terms = []
        for critic, teacher in zip(self.critics, teachers, strict=True):
            constant = {name: value.detach() for name, value in critic.named_parameters()}
            terms.append(-functional_call(critic, constant, (ours, images)).mean())
            fixed = ours.detach()
            theirs = self._averaged(log_probabilities(teacher.logits.detach()).exp())
            terms.append(critic(fixed, images).mean() - critic(theirs, images).mean())
            share = torch.rand(len(fixed), 1, 1, 1, dtype=fixed.dtype, device=fixed.device)
            judged = partial(critic, images=images)
            terms.append(self.penalty * slope_penalty(judged, fixed, theirs, share))
        return torch.stack(terms).sum()

    def _averaged(self, maps: Tensor) -> Tensor:
        """Maps or images (B, ., H, W) with at most `size` pixels a side."""
        height, width = (min(self.size, side) for side in maps.shape[-2:])
        return functional.adaptive_avg_pool2d(maps, (height, width))

"""Ensemble mutual learning, online: two peers, their mean and a fusion of their maps.

EML (re-derived): DSP-KD (Bioengineering 2024, 11(1):70) compares with a method of this name that it
describes in words only, and the paper that it means could not be found. The formula is ours, after
feature fusion learning (Kim et al., arXiv 1904.09058).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.data.base import UNLABELLED
from edgekd.errors import RecipeError
from edgekd.losses._maps import same_size
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like
from edgekd.losses.kd import kd_kl


class _Fusion(nn.Module):
    """Logits (B, C) from the last maps of both peers.

    1x1 convolutions to one width; a gate per image and channel, g = sigmoid(W pool(F_1 - F_2)), for
    g F_1 + (1 - g) F_2; depth-wise 3x3 and 1x1 convolution, mean over pixels, linear layer. The
    gate sees the difference, so that neither peer is the first: exchanging them with their 1x1
    convolutions changes nothing.
    """

    def __init__(self, widths: tuple[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.peers = nn.ModuleList(nn.Conv2d(own, width, 1) for own in widths)
        self.gate = nn.Linear(width, width, bias=False)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, student: Tensor, peer: Tensor) -> Tensor:
        maps = same_size(student, peer)
        one, other = (layer(map_) for layer, map_ in zip(self.peers, maps, strict=True))
        share = self.gate((one - other).mean(dim=(2, 3))).sigmoid()[:, :, None, None]
        fused = self.pointwise(self.depthwise(share * one + (1 - share) * other))
        return self.classifier(fused.mean(dim=(2, 3)))


class EML(Loss):
    """EML (re-derived): `CE(z_f) + r (KD(z_f, z_e) + sum_k [KD(z_k, z_e) + KD(z_k, z_f)])`.

    z_1 and z_2 are two networks' logits that train together, z_e = (z_1 + z_2) / 2, and z_f what
    a fusion of their last maps says: 1x1 convolutions to `width` channels, a gate per image and
    channel between the two, depth-wise 3x3 and 1x1 convolution, mean, linear layer. The larger map
    is averaged to the smaller. KD(z, u) is `tau^2 mean_b KL(softmax(u / tau) || softmax(z / tau))`
    with u for a constant; r = exp(-5 (1 - t)^2), t = min(epoch / ramp, 1), epoch from 1, and 1
    without a ramp. Images without a label do not count in CE(z_f).

    One term teaches both peers, so it needs `stop_gradient: false`, both in the stage's `train`,
    and one `from`; RecipeError otherwise. CE(z_1) and CE(z_2) are `ce` terms. What is exported is
    either network as it is: the fusion is an adapter.
    """

    taps = ("last",)
    tasks = SINGLE_LABEL

    def __init__(self, *, temperature: float = 3.0, ramp: int = 80, width: int = 256) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        if ramp < 0:
            raise ValueError("ramp must be a number of epochs, 0 for none")
        if width < 1:
            raise ValueError("width must be at least 1")
        self.temperature = temperature
        self.ramp = ramp
        self.width = width

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if len(teachers) != 1:
            raise RecipeError(f"eml: it joins two peers, `from` names {len(teachers)}",
                              hint="name one model in its `from`")  # fmt: skip
        maps = student.taps["last"]
        widths = (maps.shape[1], teachers[0].taps["last"].shape[1])
        self.fusion = _Fusion(widths, self.width, student.logits.shape[1]).to(maps.device)

    def strength(self, epoch: int) -> float:
        """The factor r of all divergences in an epoch, counted from 1."""
        done = min(epoch / self.ramp, 1.0) if self.ramp else 1.0
        return math.exp(-5 * (1 - done) ** 2)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        (peer,) = teachers
        learns = [outputs.logits.requires_grad for outputs in (student, peer)]
        if torch.is_grad_enabled() and not all(learns):
            raise RecipeError(
                "eml: both peers learn from this term, but one comes without a gradient",
                hint="`stop_gradient: false` in the term, both models in the stage's `train`",
            )
        fused = self.fusion(student.taps["last"], peer.taps["last"])
        ensemble = (student.logits + peer.logits).detach() / 2
        divergences = [kd_kl(fused, ensemble, self.temperature)]
        for logits in (student.logits, peer.logits):
            divergences.append(kd_kl(logits, ensemble, self.temperature))
            divergences.append(kd_kl(logits, fused.detach(), self.temperature))
        task = zero_like(fused)
        if bool(batch.labelled().any()):
            task = functional.cross_entropy(fused, batch.targets, ignore_index=UNLABELLED)
        return task + self.strength(clock.epoch) * torch.stack(divergences).sum()

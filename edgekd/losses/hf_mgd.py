"""First stage of DSP-KD: masked generation where the teacher looks (Bioengineering 2024, 11(1):70).

Section 3.2.2, equations 1 to 5. There is no code of the authors; what the paper leaves open is
named where it is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.losses._generation import aligner, check_same_size, generation_error, generator
from edgekd.losses._maps import check_map_taps
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs

LEVELS = ("s1", "s2", "s3", "s4")
SOFTNESS = 0.1  # of the mask through which `hf: ste` learns
FLAT = 1e-6  # a map that varies by less than this part of its largest value is constant


def _smoothed(maps: Tensor, kernel: int) -> Tensor:
    """The mean around every pixel, at the borders of the pixels that are there."""
    return functional.avg_pool2d(
        maps, kernel, stride=1, padding=kernel // 2, count_include_pad=False
    )


def _stretched(maps: Tensor) -> Tensor:
    """Each image's map (B, 1, h, w) from 0 to 1; one that is constant becomes 0."""
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    is_flat = high - low <= FLAT * torch.maximum(low.abs(), high.abs())
    span = torch.where(is_flat, 1.0, high - low)
    return torch.where(is_flat, 0.0, (maps - low) / span)


def _fused(levels: Sequence[Tensor], weights: Sequence[float] | Tensor) -> Tensor:
    """Levels (B, 1, h, w), the finest first, as one map of its size, from the coarsest upwards.

    `U_n = A_n` and `U_l = w_l A_l + (1 - w_l) up(U_l+1)`; up is bilinear.
    """
    upper = levels[-1]
    for level, weight in zip(reversed(levels[:-1]), reversed(list(weights)), strict=True):
        size = (level.shape[2], level.shape[3])
        larger = functional.interpolate(upper, size=size, mode="bilinear", align_corners=False)
        upper = weight * level + (1 - weight) * larger
    return upper


def _at_size(attention: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, 1, H, W) averaged to a size, from 0 to 1 per image, before and after."""
    height, width = size
    return _stretched(functional.adaptive_avg_pool2d(_stretched(attention), (height, width)))


def _threshold(attention: Tensor, phi: float, quantile: float | None) -> float | Tensor:
    """What is hidden is at least this; with a quantile it is each image's own, (B, 1, 1, 1)."""
    if quantile is None:
        return phi
    flat = attention.detach().flatten(1)
    count = int(quantile * flat.shape[1] + 0.5)
    if count == 0:
        return math.inf
    return flat.topk(count, dim=1).values[:, -1:, None, None]


def _kept(attention: Tensor, threshold: float | Tensor) -> Tensor:
    """1 where the attention is below the threshold, and all over a constant map; else 0."""
    is_flat = attention.amax(dim=(2, 3), keepdim=True) == 0
    return ((attention < threshold) | is_flat).to(attention.dtype)


@torch.no_grad()
def hf_attention(
    maps: Sequence[Tensor], size: Sequence[int], *, kernel: int = 3, fusion: float = 0.5
) -> Tensor:
    """Where a teacher looks, (B, 1, h, w) from 0 to 1, from its stages' maps, the finest first.

    Each map is averaged over `kernel` x `kernel` pixels and becomes the mean of its squared
    channels; levels are joined from the coarsest upwards, with the weight `fusion` for the finer
    one, and averaged to `size`. 0 all over for an image whose map is constant.
    """
    levels = [_smoothed(level, kernel).pow(2).mean(dim=1, keepdim=True) for level in maps]
    return _at_size(_fused(levels, [fusion] * (len(levels) - 1)), size)


@torch.no_grad()
def hf_mask(
    maps: Sequence[Tensor],
    size: Sequence[int],
    *,
    phi: float = 0.5,
    quantile: float | None = None,
    kernel: int = 3,
    fusion: float = 0.5,
) -> Tensor:
    """0 where `hf_attention` is at least `phi`, else 1: (B, 1, h, w). What matters is hidden.

    `quantile` takes the place of phi: that part of an image's pixels is hidden, those with the
    most attention. Nothing of an image whose map is constant.
    """
    attention = hf_attention(maps, size, kernel=kernel, fusion=fusion)
    return _kept(attention, _threshold(attention, phi, quantile))


class _LearntMask(nn.Module):
    """The mask of one teacher with 1x1 convolutions and weights that learn (`hf: ste`).

    On the way forward it is as hard as `hf_mask`'s, on the way back `sigmoid((phi - A) / 0.1)`.
    The convolutions begin as the mean over channels.
    """

    def __init__(
        self, widths: Sequence[int], kernel: int, fusion: float, phi: float, quantile: float | None
    ) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)
        for layer, width in zip(self.reduce, widths, strict=True):
            nn.init.constant_(layer.weight, 1 / width)  # type: ignore[arg-type]
        start = math.log(fusion / (1 - fusion))
        self.fusion = nn.Parameter(torch.full((len(widths) - 1,), start))
        self.kernel, self.phi, self.quantile = kernel, phi, quantile

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        levels = [
            reduce(_smoothed(level, self.kernel))
            for reduce, level in zip(self.reduce, maps, strict=True)
        ]
        attention = _at_size(_fused(levels, self.fusion.sigmoid()), size)
        threshold = _threshold(attention, self.phi, self.quantile)
        hard = _kept(attention.detach(), threshold)
        if isinstance(threshold, float) and math.isinf(threshold):
            return hard
        soft = torch.sigmoid((threshold - attention) / SOFTNESS)
        return hard + (soft - soft.detach())


class HFMGD(Loss):
    """`alpha/B sum (xi(r(F_S) M) - F_T)^2 + lambda_orig mean (r(F_S) - F_T)^2`, M from attention.

    As `mgd` on the last maps, which must be of one size (RecipeError), but M hides what the
    teacher looks at most: 0 where its attention is at least `phi`, or the `quantile` of the pixels
    with the most (then phi is not used). See `hf_attention`. r is a 1x1 convolution to the
    teacher's width if they differ, xi 3x3 convolution, GELU, 3x3 convolution: 75.5 M parameters
    for 2048 channels, which `bottleneck` lowers by that many channels in between. Each teacher
    adds a full term, with a mask and adapters of its own. Cross-entropy is a term beside it.

    Read where the paper is silent: 3x3 averages (`kernel`), attention from squared channels,
    `fusion` 0.5, phi 0.5, alpha 7e-5 (MGD's). The sum is over channels and pixels, so that alpha
    is 7.0 times the mean over elements for 2048 channels of 7x7. The second part is the paper's
    L_orig as its equation 1 defines it; MGD calls the task's loss so, which is `lambda_orig: 0`.

    The paper learns the 1x1 convolutions of the attention and its weights, but no gradient passes
    a threshold: `hf: fixed` learns none, `hf: ste` through a soft mask on the way back. The
    paper's text calls alpha learnable, equation 5 does not: with `learnable_alpha` it is
    `softplus(rho)` and `-1/2 log alpha` is added (a Gaussian's precision, arXiv 1705.07115), less
    its value at the start; alone it would go to 0. Then the term can be negative.
    """

    is_mean_of_images = True

    def __init__(
        self,
        *,
        phi: float = 0.5,
        quantile: float | None = None,
        kernel: int = 3,
        fusion: float = 0.5,
        hf: Literal["fixed", "ste"] = "fixed",
        levels: tuple[str, ...] = LEVELS,
        alpha: float = 7e-5,
        learnable_alpha: bool = False,
        lambda_orig: float = 1.0,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        if quantile is not None and not 0 <= quantile <= 1:
            raise ValueError("quantile must be from 0 to 1")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        if not 0 <= fusion <= 1 or (hf == "ste" and fusion in (0, 1)):
            raise ValueError("fusion must be from 0 to 1, with `hf: ste` between them")
        if list(levels) != [level for level in LEVELS if level in levels] or not levels:
            raise ValueError("levels must be some of s1, s2, s3, s4, in this order")
        if learnable_alpha and alpha <= 0:
            raise ValueError("alpha must be above 0 to be learnt")
        if bottleneck is not None and bottleneck < 1:
            raise ValueError("bottleneck must be at least 1")
        self.levels = levels
        self.taps = check_map_taps((*levels, "last"))
        self.phi, self.quantile = phi, quantile
        self.kernel, self.fusion = kernel, fusion
        self.hf = hf
        self.start = alpha
        self.rho: nn.Parameter | None = None
        if learnable_alpha:  # the inverse of softplus
            self.rho = nn.Parameter(torch.tensor(alpha + math.log(-math.expm1(-alpha))))
        self.lambda_orig = lambda_orig
        self.bottleneck = bottleneck
        self.aligners = nn.ModuleList()
        self.generators = nn.ModuleList()
        self.masks = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        check_same_size("hf_mgd", "last", student, teachers)
        maps = student.taps["last"]
        widths = [teacher.taps["last"].shape[1] for teacher in teachers]
        self.aligners = nn.ModuleList(aligner(maps.shape[1], width) for width in widths)
        self.generators = nn.ModuleList(
            generator(width, nn.GELU(), self.bottleneck) for width in widths
        )
        if self.hf == "ste":
            self.masks = nn.ModuleList(
                _LearntMask(
                    [teacher.taps[level].shape[1] for level in self.levels],
                    self.kernel,
                    self.fusion,
                    self.phi,
                    self.quantile,
                )
                for teacher in teachers
            )
        self.to(maps.device)

    def alpha(self) -> float | Tensor:
        """The weight of the generated map's error."""
        return self.start if self.rho is None else functional.softplus(self.rho)

    def mask(self, number: int, teacher: Outputs) -> Tensor:
        """What the student may keep for the teacher of this number: (B, 1, h, w)."""
        maps = [teacher.taps[level] for level in self.levels]
        size = teacher.taps["last"].shape[-2:]
        if self.hf == "ste":
            return self.masks[number](maps, size)
        return hf_mask(
            maps,
            size,
            phi=self.phi,
            quantile=self.quantile,
            kernel=self.kernel,
            fusion=self.fusion,
        )

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        alpha = self.alpha()
        terms = []
        for number, teacher in enumerate(teachers):
            wanted = teacher.taps["last"]
            aligned = self.aligners[number](student.taps["last"])
            made = self.generators[number](aligned * self.mask(number, teacher))
            terms.append(alpha * generation_error(made, wanted))
            if isinstance(alpha, Tensor):
                terms.append(-0.5 * (alpha / self.start).log())
            if self.lambda_orig:
                terms.append(self.lambda_orig * functional.mse_loss(aligned, wanted))
        return torch.stack(terms).sum()

    def notes(self) -> dict[str, float]:
        """The weight of the generated map's error, where it is learnt."""
        alpha = self.alpha()
        return {"alpha": alpha.item()} if isinstance(alpha, Tensor) else {}

"""Alignment in a common feature space: UMKD's SFA and CFA (arXiv 2505.00592, Eqs. 1 to 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import RecipeError
from edgekd.losses._low_pass import BINS, LowPass, low_pass
from edgekd.losses._mmd import Kernel, Norm, mmd
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, without BatchNorm, ReLU after the sum."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.shortcut: nn.Module = (
            nn.Identity()
            if width_in == width_out
            else nn.Conv2d(width_in, width_out, 1, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.second(functional.relu(self.first(maps)))
        return functional.relu(inner + self.shortcut(maps))


class CommonSpace(nn.Module):
    """One extractor for the student and all experts, and a decoder back to each expert.

    Maps of `student` channels and of `experts` channels, all of one size, are brought to `hidden`
    channels. Widths and layers are those of the authors' code.
    """

    def __init__(self, student: int, experts: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.align_student = _align(student, 2 * hidden)
        self.align_experts = nn.ModuleList(_align(width, 2 * hidden) for width in experts)
        self.extractor = nn.Sequential(
            _Residual(2 * hidden, hidden), _Residual(hidden, hidden), _Residual(hidden, hidden)
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(hidden, width, 3, padding=1, bias=False),
                nn.ReLU(),
                nn.Conv2d(width, width, 1, bias=False),
            )
            for width in experts
        )

    def forward(self, student: Tensor, experts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The common maps (B, hidden, h, w) of the student and of each expert."""
        ours = self.extractor(self.align_student(student))
        theirs = [
            self.extractor(align(maps))
            for align, maps in zip(self.align_experts, experts, strict=True)
        ]
        return ours, theirs


def _align(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, bias=False), nn.ReLU())


class CommonFeatures(Loss):
    """`sum_t MMD(h_S, h_T,t) + sum_t MSE(decode_t(h_T,t), F_T,t)` at one tap (Eqs. 1 to 3).

    SFA is `tap: s1` with `filter: low_pass`, CFA `tap: s4` without a filter; both have weight 10
    in the authors' code. The reconstruction, of the map that entered the common space (the
    filtered one for SFA), teaches the adapters only: without it they could make all features
    equal. `hidden` is the width of the common space. `tap_activation: pre` takes the maps before
    the block's last ReLU, where the authors' networks are tapped.

    The student's filter is part of this term, not of the student. In the authors' code it learns
    at the base rate and all else here ten times as fast: `optimizer.scale: {adapters: 10}` and,
    in this term, `rates: {filter: 0.1}`.
    """

    def __init__(
        self,
        *,
        tap: str = "s4",
        filter: Literal["none", "low_pass"] = "none",
        hidden: int = 128,
        kernel: Kernel = "rbf",
        norm: Norm = "v",
        tap_activation: Literal["post", "pre"] = "post",
        bins: tuple[int, ...] | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if filter == "none" and (stride > 1 or bins is not None):
            raise ValueError("stride and bins belong to `filter: low_pass`")
        bins = BINS if bins is None else bins
        if hidden < 1 or stride < 1 or not bins or min(bins) < 1:
            raise ValueError("hidden, stride and every one of bins must be at least 1")
        self.tap = f"{tap}.pre" if tap_activation == "pre" else tap
        self.taps = (self.tap,)
        self.filtered = filter == "low_pass"
        self.hidden = hidden
        self.kernel: Kernel = kernel
        self.norm: Norm = norm
        self.bins = tuple(bins)
        self.stride = stride

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        ours = student.taps[self.tap]
        theirs = [teacher.taps[self.tap] for teacher in teachers]
        for maps in theirs:
            if maps.shape[-2:] != ours.shape[-2:]:
                raise RecipeError(
                    f"common_features: at tap '{self.tap}' the student's map is "
                    f"{_size(ours)}, an expert's {_size(maps)}; they must be equal",
                    hint="choose another `tap`, or set models.NAME.taps to maps of one size",
                )
        self.filter: nn.Module = nn.Identity()
        if self.filtered:
            if max(self.bins) > min(ours.shape[-2:]):
                raise RecipeError(
                    f"common_features: {max(self.bins)} bins do not fit the map of "
                    f"{_size(ours)} at tap '{self.tap}'",
                    hint="raise data.input.size, or choose smaller `bins`",
                )
            self.filter = LowPass(ours.shape[1], bins=self.bins, stride=self.stride)
        self.common = CommonSpace(ours.shape[1], [maps.shape[1] for maps in theirs], self.hidden)
        self.to(ours.device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self.filter(student.taps[self.tap])
        theirs = [
            self._smooth(teacher.taps[self.tap], (ours.shape[-2], ours.shape[-1]))
            for teacher in teachers
        ]
        student_common, expert_common = self.common(ours, theirs)
        terms = []
        for common, decoder, wanted in zip(
            expert_common, self.common.decoders, theirs, strict=True
        ):
            terms.append(
                mmd(
                    student_common.flatten(1), common.flatten(1), kernel=self.kernel, norm=self.norm
                )
            )
            terms.append(functional.mse_loss(decoder(common), wanted))
        return torch.stack(terms).sum()

    def _smooth(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """An expert's map as it enters the common space, as large as the student's."""
        if not self.filtered:
            return maps
        smooth = low_pass(maps, self.bins)
        if tuple(smooth.shape[-2:]) != size:
            smooth = functional.adaptive_avg_pool2d(smooth, size)
        return smooth


def _size(maps: Tensor) -> str:
    return f"{maps.shape[-2]}x{maps.shape[-1]}"

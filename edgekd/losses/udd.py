"""Uncertainty-aware decoupled distillation (UMKD, arXiv 2505.00592, Eqs. 6 to 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.log import warn
from edgekd.losses._regions import Pyramid, check_window_list, check_windows, region_logits
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like
from edgekd.losses.dkd import dkd_parts
from edgekd.losses.sdd import by_row, complementary, expert_mean

FLOOR = 0.1  # added to every class's evidence in the authors' code


def udd_paper(student: Tensor, expert: Tensor) -> Tensor:
    """Eq. 7 for one expert: region logits (B, C, R) twice to losses (B, R).

    `U = 1 - max_c softmax(expert)`, in [0, 1 - 1/C]; `(2 + U) sum_c (p_T - p_S)^2 +
    (1 - U) sum_c (z_T - z_S)^2`. Labels are not used.
    """
    wanted = expert.softmax(dim=1)
    uncertainty = 1.0 - wanted.amax(dim=1)
    target_part = (wanted - student.softmax(dim=1)).pow(2).sum(dim=1)
    other_part = (expert - student).pow(2).sum(dim=1)
    return (2.0 + uncertainty) * target_part + (1.0 - uncertainty) * other_part


def confidence(expert: Tensor) -> Tensor:
    """The largest share of one class in the evidence `softplus(z) + 0.1`: (B, C, R) to (B, R)."""
    evidence = functional.softplus(expert) + FLOOR
    return evidence.amax(dim=1) / evidence.sum(dim=1)


class UDD(Loss):
    """Match the experts' logits region by region, weighted by how sure the experts are.

    `variant: paper` is Eq. 7, averaged over samples, regions and experts (`region_reduction: sum`
    adds the regions up, as Eq. 8 prints). `variant: official` is what the authors' code computes
    instead: the experts' region logits are averaged, and a row (a region of an image) costs
    `w ((2 + u) alpha TCKD + (1 - u) beta NCKD)` with DKD's two parts at `temperature` (defaults 4,
    1 and 8) and SDD's weight w. Labels are needed; images without one do not count.

    Two things in that code differ from the paper and are kept behind flags. `u` is a confidence
    (`uncertainty` takes 1 minus it). `row_order: shipped` reads u, stored sample after sample, in
    the order of the rows, region after region, so that weights land on other rows; `fixed` does
    not. `pyramid`: see `region_logits`; default `direct` for paper, `from_finest` for official.
    """

    taps = ("last",)
    tasks = SINGLE_LABEL

    def __init__(
        self,
        *,
        variant: Literal["paper", "official"] = "paper",
        windows: tuple[int, ...] = (1, 2, 4),
        region_reduction: Literal["mean", "sum"] = "mean",
        pyramid: Pyramid | None = None,
        temperature: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        u: Literal["confidence", "uncertainty"] | None = None,
        row_order: Literal["shipped", "fixed"] | None = None,
    ) -> None:
        super().__init__()
        given = {"temperature": temperature, "alpha": alpha, "beta": beta, "u": u,
                 "row_order": row_order}  # fmt: skip
        for name, value in given.items():
            if variant == "paper" and value is not None:
                raise ValueError(f"{name} belongs to `variant: official`")
        if temperature is not None and temperature <= 0:
            raise ValueError("temperature must be positive")
        self.variant = variant
        if variant == "paper":  # it is quadratic in the logits
            self.most_of_task = 10.0
        self.windows = check_window_list(windows)
        if variant == "official" and self.windows[0] != 1:
            raise ValueError("windows must begin with 1, the whole image")
        self.region_reduction = region_reduction
        default: Pyramid = "direct" if variant == "paper" else "from_finest"
        self.pyramid: Pyramid = pyramid or default
        self.temperature = 4.0 if temperature is None else temperature
        self.alpha = 1.0 if alpha is None else alpha
        self.beta = 8.0 if beta is None else beta
        self.u = u or "confidence"
        self.row_order = row_order or "shipped"

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        for outputs in (student, *teachers):
            check_windows(outputs.taps["last"], self.windows, "udd")
        if self.variant == "official" and student.logits.shape[1] == 2:
            warn("udd: with two classes NCKD is always 0, only TCKD is left")

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self._regions(student)
        theirs = [self._regions(teacher) for teacher in teachers]
        if self.variant == "official":
            losses = self._official(ours, theirs, batch)
            if losses is None:
                return zero_like(student.logits)
        else:
            losses = torch.stack([udd_paper(ours, expert) for expert in theirs]).mean(dim=0)
        if self.region_reduction == "sum":
            return losses.sum(dim=1).mean()
        return losses.mean()

    def _official(self, ours: Tensor, theirs: list[Tensor], batch: Batch) -> Tensor | None:
        """Losses (B', R) of the labelled images."""
        known = batch.labelled()
        if not bool(known.any()):
            return None
        ours, theirs = ours[known], [expert[known] for expert in theirs]
        targets = batch.targets[known]
        wanted = expert_mean(theirs)
        images, _, regions = ours.shape
        sure = torch.stack([confidence(expert) for expert in theirs]).mean(dim=0)  # (B', R)
        u = sure if self.u == "confidence" else 1.0 - sure
        u = u.flatten() if self.row_order == "shipped" else u.T.flatten()
        tckd, nckd = dkd_parts(
            by_row(ours), by_row(wanted), targets.repeat(regions), self.temperature
        )
        weighted = (2.0 + u) * self.alpha * tckd + (1.0 - u) * self.beta * nckd
        rows = complementary(wanted, targets) * weighted * self.temperature**2
        return rows.reshape(regions, images).T

    def _regions(self, outputs: Outputs) -> Tensor:
        return region_logits(outputs.taps["last"], outputs.head, self.windows, pyramid=self.pyramid)

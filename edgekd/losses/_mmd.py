"""Maximum mean discrepancy on the unit sphere (UMKD, arXiv 2505.00592, Eq. 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

WIDTHS = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0, 2.0)
LEAST = 1e-12  # squared distances are clamped here

Kernel = Literal["rbf", "linear"]
Norm = Literal["v", "paper"]


def mmd(student: Tensor, expert: Tensor, *, kernel: Kernel = "rbf", norm: Norm = "v") -> Tensor:
    """How far apart two batches (B, F) lie as distributions; no sample is paired with another.

    Rows are scaled to length 1. `rbf`: a sum of Gaussian kernels of the widths of the authors'
    code, as the V-statistic `relu(mean K(x, x) + mean K(y, y) - 2 mean K(x, y))`. `linear`:
    `||mean x - mean y||^2`. `norm: paper` multiplies by B: Eq. 1 has its 1 / B outside of the
    squared norm.

    Widths up to 0.05 only add a constant 2 / B each without gradient while no two rows are close.
    The kernels are computed in float64 where the device has it: a width of 0.001 sees the
    rounding of squared distances in float32.
    """
    x, y = functional.normalize(student, dim=1), functional.normalize(expert, dim=1)
    if kernel == "linear":
        value = (x.mean(dim=0) - y.mean(dim=0)).pow(2).sum()
    else:
        if x.device.type != "mps":
            x, y = x.double(), y.double()
        value = functional.relu(_mean(x, x) + _mean(y, y) - 2 * _mean(x, y))
    return (value * len(student) if norm == "paper" else value).to(student.dtype)


def _mean(x: Tensor, y: Tensor) -> Tensor:
    """The mean of the summed kernels over all pairs of rows."""
    squared = x.pow(2).sum(dim=1)[:, None] + y.pow(2).sum(dim=1)[None, :] - 2 * (x @ y.T)
    squared = squared.clamp(min=LEAST)  # (B, B)
    kernels = torch.stack([torch.exp(squared / (-2 * width**2)) for width in WIDTHS])
    return kernels.sum(dim=0).mean()

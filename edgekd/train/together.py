"""Several processes that train one stage together: who takes which images, and who says what.

Each process takes its share of every batch. A term sees the whole batch, gathered from all of them,
so that its formula is that of one process; only terms that are plain means over images are computed
on each share and averaged by its size. DDP averages the gradients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Outputs
from edgekd.recipe import HardwareSpec, Recipe
from edgekd.train.loader import Indices

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # set by whoever starts processes


def is_follower(hardware: HardwareSpec) -> bool:
    """Is this process one that helps another, which alone writes and speaks?"""
    if not is_several(hardware):
        return False
    return any(os.environ.get(name, "0") not in ("", "0") for name in RANKS)


def is_several(hardware: HardwareSpec) -> bool:
    """Does the recipe ask for more than one process?"""
    return hardware.devices != 1 or hardware.nodes != 1


def is_lost(error: RuntimeError) -> bool:
    """Does an error say that another process is gone?"""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL error")
    return isinstance(error, dist.DistBackendError) or any(w in str(error) for w in words)


def check_several(recipe: Recipe) -> None:
    """Raises RecipeError for what one process has to do by itself."""
    if not is_several(recipe.hardware):
        return
    for name, stage in recipe.stages.items():
        for place, is_used in (("quantize", stage.quantize), ("data.views", stage.data.views)):
            if is_used:
                raise RecipeError(f"stages.{name}.{place}: not on several devices",
                                  hint="hardware.devices=1 hardware.nodes=1")  # fmt: skip
        if recipe.data.batch < 2 * recipe_processes(recipe.hardware):
            raise RecipeError("data.batch: needs two images or more for each device")


def recipe_processes(hardware: HardwareSpec) -> int:
    """How many processes a recipe asks for, as far as it says so (`auto` counts as one a node)."""
    return hardware.nodes * (hardware.devices if isinstance(hardware.devices, int) else 1)


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    own: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.own == 0

    def shares(self, images: int) -> tuple[int, ...]:
        """How many images of a batch each process takes; they differ by one at most."""
        return tuple(len(part) for part in np.array_split(np.arange(images), self.count))

    def plan(self, batches: Sequence[Indices]) -> list[Indices]:
        """The batches of an epoch without a last one of fewer than two images per process."""
        kept = list(batches)
        if self.count > 1 and len(kept) > 1 and len(kept[-1]) < 2 * self.count:
            kept.pop()
        return kept

    def mine(self, batches: Sequence[Indices]) -> list[Indices]:
        """This process's share of each batch."""
        if self.count == 1:
            return list(batches)
        return [np.array_split(batch, self.count)[self.own] for batch in batches]

    def agree(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return flag
        told = torch.tensor([float(flag)], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())

    def mean(self, values: Tensor, shares: Sequence[int]) -> Tensor:
        """Numbers of each process (K,), averaged by the sizes of their shares."""
        if self.count == 1:
            return values
        weighted = values * (shares[self.own] / sum(shares))
        dist.all_reduce(weighted)
        return weighted


class _Gather(torch.autograd.Function):
    """Rows of all processes, in their order; the gradient of each row goes back to its own."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: tuple[int, ...], own: int) -> Tensor:
        ctx.shares, ctx.own = shares, own
        padded = rows.new_zeros((max(shares), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(found, padded.contiguous())
        return torch.cat([part[:count] for part, count in zip(found, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # every process has computed the same loss of all rows, and DDP divides by their number
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.split(list(ctx.shares))[ctx.own], None, None


def gather(rows: Tensor, shares: tuple[int, ...], own: int) -> Tensor:
    """The rows (n, ...) of all processes, in their order."""
    return _Gather.apply(rows, shares, own)


def gathered(outputs: Outputs, shares: tuple[int, ...], own: int, taps: Sequence[str]) -> Outputs:
    """What a model says about the whole batch; of its maps only `taps`."""
    maps = {tap: gather(outputs.taps[tap], shares, own) for tap in taps}
    return replace(outputs, logits=gather(outputs.logits, shares, own), taps=maps)


def gathered_batch(batch: Batch, shares: tuple[int, ...], own: int) -> Batch:
    """The whole batch."""
    with torch.no_grad():
        images = gather(batch.images, shares, own)
        return Batch(images, gather(batch.targets, shares, own))

"""Cross-layer distillation with semantic calibration (Chen et al., AAAI 2021, arXiv 2012.03236)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses._maps import check_map_taps, same_size, unit_rows
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs


class _Embedding(nn.Module):
    """A map (B, D, h, w) as one vector of length 1 per image: (B, B / 4).

    Each image's row of similarities with the whole batch goes through a layer of B / 2 and one of
    B / 4 units. The narrow one has at least two units, also for batches below 8: of one, length 1
    would leave a sign without a gradient.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        narrow = max(2, batch // 4)
        self.layers = nn.Sequential(
            nn.Linear(batch, 2 * narrow), nn.ReLU(), nn.Linear(2 * narrow, narrow)
        )

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(1)
        return unit_rows(self.layers(flat @ flat.T))


def _projector(width_in: int, width_out: int) -> nn.Sequential:
    """From a student's width to a teacher's, twice that wide in between."""
    wide = 2 * width_out
    return nn.Sequential(
        nn.Conv2d(width_in, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        nn.Conv2d(wide, width_out, 1, bias=False),
    )


class _Calibration(nn.Module):
    """All layers of the student (S widths) against all of one teacher (T widths)."""

    def __init__(
        self, student: Sequence[int], teacher: Sequence[int], batch: int, soft: float
    ) -> None:
        super().__init__()
        self.soft = soft
        self.queries = nn.ModuleList(_Embedding(batch) for _ in student)
        self.keys = nn.ModuleList(_Embedding(batch) for _ in teacher)
        self.projectors = nn.ModuleList(  # row by row: all of the teacher's for each student's
            _projector(ours, theirs) for ours in student for theirs in teacher
        )

    def weights(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """How much each layer of the teacher counts for each of the student's: (B, S, T)."""
        queries = [embed(maps) for embed, maps in zip(self.queries, student, strict=True)]
        keys = [embed(maps) for embed, maps in zip(self.keys, teacher, strict=True)]
        products = torch.stack(queries, dim=1) @ torch.stack(keys, dim=2)
        return (products / self.soft).softmax(dim=2)

    def errors(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The mean squared error of every projected pair of maps, per image: (B, S, T)."""
        pairs = [same_size(ours, theirs) for ours in student for theirs in teacher]
        found = [
            (project(ours) - theirs).pow(2).flatten(1).mean(dim=1)
            for project, (ours, theirs) in zip(self.projectors, pairs, strict=True)
        ]
        return torch.stack(found, dim=1).unflatten(1, (len(student), len(teacher)))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        weighted = self.weights(student, teacher) * self.errors(student, teacher)
        return weighted.sum(dim=2).mean()  # over images and the student's layers


class SemCKD(Loss):
    """`1/(B |S|) sum_b,i,j a_bij MSE_b(r_ij(F_S,i), F_T,j)` over all pairs of layers.

    Each layer i of the student learns from all layers j of the teacher. How much is chosen per
    image, by `a_bij = softmax_j <q_bi, k_bj> / soft` of learnt queries and keys: an image's
    similarities with its batch, `F F^T` (B, B), through two linear layers of B / 2 and
    B / 4 units, at length 1. r_ij is 1x1, 3x3 and 1x1 convolutions with BatchNorm and ReLU
    between, twice the teacher's width; the larger map of a pair is averaged to the smaller first.
    The weight is 400 in the authors' code, beside cross-entropy 1 and `kd` 1 at temperature 4.
    Each teacher adds a full term, with adapters of its own.

    The adapters read places of the batch, so its size is part of them, and an image's place
    matters: a batch of another size than the stage's is a RecipeError. For wide teachers they are
    large (151 M parameters for one 3x3 convolution at 2048 channels); `taps` leaves layers out.
    """

    needs_full_batches: ClassVar[bool] = True

    def __init__(
        self, *, taps: tuple[str, ...] = ("s1", "s2", "s3", "s4"), soft: float = 1.0
    ) -> None:
        super().__init__()
        if soft <= 0:
            raise ValueError("soft must be positive")
        self.taps = check_map_taps(taps)
        self.soft = soft
        self.batch = 0
        self.teachers = nn.ModuleList()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        ours = self._maps(student)
        widths = [maps.shape[1] for maps in ours]
        self.batch = facts.batch
        self.teachers = nn.ModuleList(
            _Calibration(
                widths, [maps.shape[1] for maps in self._maps(teacher)], facts.batch, self.soft
            )
            for teacher in teachers
        ).to(ours[0].device)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        ours = self._maps(student)
        if len(ours[0]) != self.batch:
            raise RecipeError(
                f"semckd: its adapters are built for batches of {self.batch} images, this one has "
                f"{len(ours[0])}",
                hint="data.drop_last=true of this stage",
            )
        terms = [
            calibration(ours, self._maps(teacher))
            for calibration, teacher in zip(self.teachers, teachers, strict=True)
        ]
        return torch.stack(terms).sum()

    def _maps(self, outputs: Outputs) -> list[Tensor]:
        return [outputs.taps[tap] for tap in self.taps]

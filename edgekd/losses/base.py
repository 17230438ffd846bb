"""What a loss term is, and what it may see.

A term looks `from` teachers `to` one student. The distiller runs every model once per batch and
hands out `Outputs`; a term never touches a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgekd.data.base import UNLABELLED

ALL_TASKS = frozenset({"classification", "grading", "multilabel", "segmentation"})
SINGLE_LABEL = frozenset({"classification", "grading"})


@dataclass
class Outputs:
    """What one model says about one batch, in fp32.

    `head` maps pooled features (M, D) to logits (M, C). `classes` are the indices of the task's
    classes that the model knows; None means all of them.
    """

    logits: Tensor  # (B, C), or (B, K, H, W)
    taps: dict[str, Tensor]
    head: Callable[[Tensor], Tensor]
    classes: tuple[int, ...] | None = None


@dataclass  # not frozen: Fabric moves and casts its tensors in place
class Batch:
    """One batch as every model gets it."""

    images: Tensor  # (B, 3, S, S) in [0, 1]
    # (B,) class index, (B, H, W) of pixels, (B, C) 1 for each class that is there and 0 for each
    # that is not; UNLABELLED where it is hidden or not known
    targets: Tensor
    # what frozen models have said about these images before: {model: {logits, pooled}}
    known: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    shares: tuple[int, ...] = ()  # images of each process, where several train together

    def labelled(self) -> Tensor:
        """Mask (B,) of the images whose label may be used (all pixels of it known)."""
        return (
            (self.targets != UNLABELLED).flatten(1).all(dim=1)
            if self.targets.ndim > 1
            else (self.targets != UNLABELLED)
        )


@dataclass  # not frozen, as Batch
class Clock:
    """Where training is. Epochs count from 1, steps from 0 over the whole stage."""

    epoch: int
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class Facts:
    """What a term may know before training."""

    task: str
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]  # labelled training images per class
    batch: int
    images: int = 0  # labelled training images
    student: str = ""  # the model that the term teaches, ...
    teachers: tuple[str, ...] = ()  # ... and those that it looks at, in their order


class Loss(nn.Module):
    """One term of a stage's loss. Keyword-only constructor arguments are the recipe's `params`."""

    taps: tuple[str, ...] = ()  # the feature maps it needs, of student and teachers
    tasks: ClassVar[frozenset[str]] = ALL_TASKS
    needs_teacher: ClassVar[bool] = True
    needs_full_batches: ClassVar[bool] = False  # its adapters are made for one size of batch
    # a mean of one number per image, so that several processes may each take it of their images
    is_mean_of_images: ClassVar[bool] = False
    is_kept: ClassVar[bool] = False  # its adapters are kept, for a term that `adopts` them
    adopts: str | None = None  # STAGE.TERM of an earlier stage whose adapters `adopt` is given
    needs_scores: ClassVar[bool] = False  # `observe` is told of frozen models too, before epoch 1
    # warn if it outweighs the terms without a teacher by more than this in the first epoch
    most_of_task: float | None = None

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        """Build adapters from the shapes of one small batch. Called once, before training."""

    def adopt(self, state: dict[str, Tensor]) -> None:
        """Take over the adapters of the term that `adopts` names. Called after `setup`."""
        raise NotImplementedError

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        """The unweighted term, a scalar."""
        raise NotImplementedError

    def observe(self, clock: Clock, scores: dict[str, dict[str, float]]) -> None:
        """Look at the validation scores {model: {score: value}} of the trained models after every
        epoch, those of frozen ones before epoch 1 (without `needs_scores` nothing).

        Besides the task's scores there is one for each class, `ap:CLASS` where classes do not
        exclude each other. What is learned from them must be kept in buffers: a stage that goes
        on after an interruption is not told again.
        """

    def notes(self) -> dict[str, float]:
        """Numbers to keep with every epoch, such as weights that move by themselves."""
        return {}


def mean_logits(teachers: Sequence[Outputs]) -> Tensor:
    """Average the logits of several experts (as UMKD's code does for DKD, arXiv 2505.00592)."""
    if len(teachers) == 1:
        return teachers[0].logits
    return torch.stack([teacher.logits for teacher in teachers]).mean(dim=0)


def zero_like(logits: Tensor) -> Tensor:
    """A zero that still hangs on the graph, for a batch that a term has nothing to say about."""
    return logits.sum() * 0.0

"""Several labels per image: facts, labels and logits for loss tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgekd.losses.base import Batch, Clock, Facts, Outputs

UNKNOWN = -1
CLASSES = ("dr", "amd", "myopia", "cataract", "edema")
COUNTS = (40, 25, 9, 3, 1)
FACTS = Facts("multilabel", CLASSES, COUNTS, 6, images=60, student="student", teachers=("all",))
EQUAL = replace(FACTS, class_counts=(12,) * 5)
# two subsets that share the class number 2
SUBSETS = {"head": (0, 1, 2), "tail": (4, 2, 3)}
PAIR = replace(FACTS, teachers=tuple(SUBSETS))
LAST = Clock(epoch=100, epochs=100, step=0, steps=100)
# several classes, one, none; one label not known, an image of which nothing is known, and all
LABELS = torch.tensor(
    [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0],
     [1, -1, 0, 1, -1], [-1, -1, -1, -1, -1], [1, 1, 1, 1, 1]]
)  # fmt: skip
KNOWN = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]])


def values(
    seed: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Normally distributed numbers, the same in all dtypes."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def says(logits: Tensor, classes: tuple[int, ...] | None = None, **taps: Tensor) -> Outputs:
    """What a model of all classes, or of some, says."""
    return Outputs(logits=logits, taps=taps, head=lambda pooled: pooled, classes=classes)


def batch(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, 4, 4), labels)


def at_epoch(epoch: int, epochs: int = 100) -> Clock:
    return Clock(epoch=epoch, epochs=epochs, step=0, steps=epochs)

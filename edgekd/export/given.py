"""What a precision pass gets and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgekd.image import UInt8
from edgekd.recipe import ExportSpec
from edgekd.results import Predictions
from edgekd.tasks.base import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Validation:
    """Images that a pass may decide by: validation images, never test images."""

    squares: UInt8  # (N, S, S, 3)
    truth: Predictions  # ids, groups and targets of the same images; its logits say nothing

    def __len__(self) -> int:
        return len(self.squares)


@dataclass(frozen=True)
class Given:
    """The data behind a model, read when a pass asks for it.

    `calibration` and `validation` raise DataError or BundleError where there are no such images.
    """

    calibration: Callable[[], UInt8]  # training images (N, S, S, 3)
    validation: Callable[[], Validation]
    task: Task
    spec: ExportSpec
    say: Say


@dataclass(frozen=True)
class Made:
    """What a pass did: one line each for the manifest, and the layers that stayed in float."""

    notes: list[str]
    # nodes that carry weights, by name, which the precision would have changed and which it left
    # in float because of what was measured
    float_layers: list[str] = field(default_factory=list)

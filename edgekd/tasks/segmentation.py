"""Segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.results import Predictions
from edgekd.tasks.base import HALF, Bools, Floats, Ints, Metric, Task
from edgekd.tasks.mask_scores import (
    BY_PROBABILITY,
    MASKS,
    SEVERAL,
    decided,
    overlap,
    pixel_of,
)

MOST_PIXELS = 1 << 23  # by which a threshold is chosen


class Segmentation(Task):
    """One class is a lesion's sigmoid; several are a softmax, of which the first is background.

    Targets and decisions (N, H, W) hold 0 for background; the one class of a binary task is 1.
    Logits and probabilities are (N, K, H, W), K = 1 for a binary task.
    """

    name = "segmentation"
    default_primary = "fscore"
    wants_masks = True

    @property
    def exclusive(self) -> bool:  # type: ignore[override]
        return len(self.classes) > 1

    @property
    def has_thresholds(self) -> bool:  # type: ignore[override]
        return not self.exclusive

    def metrics(self) -> dict[str, Metric]:
        if self.exclusive:
            return SEVERAL
        found = dict(MASKS)
        for name in set(MASKS) - BY_PROBABILITY:
            compute: Any = MASKS[name].compute
            found[name] = replace(MASKS[name], compute=partial(compute, cut=self.cut()))
        return found

    def cut(self) -> float:
        """The probability above which a pixel is of the one class."""
        return self.learned.thresholds[0] if self.learned.thresholds else HALF

    def outputs(self) -> int:
        return len(self.classes)

    def logits_shape(self, size: int) -> tuple[int, ...]:
        return (self.outputs(), size, size)

    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        """In single precision: probabilities of all test pixels are gigabytes in double."""
        values = logits.astype(np.float32)
        if values.shape[1] == 1:
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))  # never overflows
        exponent = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(exponent / exponent.sum(axis=1, keepdims=True))

    def decide(self, probabilities: Floats) -> Ints:
        return decided(probabilities, self.cut())

    def per_threshold(self, predictions: Predictions) -> Iterator[tuple[Floats, Bools]]:
        """All pixels together, of many images evenly drawn ones: as the F-score counts them."""
        probabilities = self.activate(predictions.logits).ravel()
        step = -(-probabilities.size // MOST_PIXELS)
        yield probabilities[::step], (predictions.targets > 0).ravel()[::step]

    def combine(self, members: Sequence[Floats]) -> Floats:
        """The union of masks (KDML, arXiv 2212.02931), or the most confident member per class."""
        highest = np.max(np.stack(members), axis=0)
        if not self.exclusive:
            return np.asarray(highest)
        return np.asarray(highest / highest.sum(axis=1, keepdims=True))

    def rightness(self, decisions: Ints, targets: Ints) -> Floats:
        """The F-score of each image over its foreground; 1 where there is none and none is seen."""
        same, both = overlap(decisions, targets)
        return np.where(both > 0, 2.0 * same / np.maximum(both, 1), 1.0)

    def found(self, decisions: Ints, targets: Ints, label: int) -> tuple[Bools, Floats]:
        pixel = pixel_of(label, self.outputs())
        mine = targets == pixel
        size = mine.sum(axis=(1, 2))
        share = (mine & (decisions == pixel)).sum(axis=(1, 2)) / np.maximum(size, 1)
        return np.asarray(size > 0), np.asarray(share)

    def strata(self, targets: Ints) -> Ints:
        """Images with foreground and without; `targets` may be the strata themselves (N,)."""
        return targets if targets.ndim == 1 else np.asarray(targets.max(axis=(1, 2)), np.int64)

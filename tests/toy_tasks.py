"""Two tasks of other shapes than one class per image, as a later file in edgekd/tasks would be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.results import Predictions
from edgekd.tasks.base import Bools, Floats, Ints, Metric, Task


def sigmoid(logits: np.ndarray) -> Floats:
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    return weights @ values / weights.sum(axis=1)


def label_accuracy(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """The share of labels that are right."""
    return weighted_mean(((probabilities >= 0.5) == targets).mean(axis=1), weights)


def mean_recall(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """The mean sensitivity of the labels that occur."""
    hits, all_of_it = weights @ ((probabilities >= 0.5) * targets), weights @ targets
    occurs = all_of_it > 0
    return (hits / np.maximum(all_of_it, 1)).sum(axis=1, where=occurs) / occurs.sum(axis=1)


class MultiLabel(Task):
    """Any number of labels per image: targets, decisions and logits (N, C)."""

    name = "multilabel"
    default_primary = "label_accuracy"

    def metrics(self) -> dict[str, Metric]:
        return {
            "label_accuracy": Metric(label_accuracy),
            "mean_recall": Metric(mean_recall, over_classes=True),
        }

    def outputs(self) -> int:
        return len(self.classes)

    def activate(self, logits: np.ndarray) -> Floats:
        return sigmoid(logits)

    def decide(self, probabilities: Floats) -> Ints:
        return (probabilities >= 0.5).astype(np.int64)

    def combine(self, members: Sequence[Floats]) -> Floats:
        return np.mean(np.stack(members), axis=0)

    def rightness(self, decisions: Ints, targets: Ints) -> Floats:
        return (decisions == targets).mean(axis=1)

    def found(self, decisions: Ints, targets: Ints, label: int) -> tuple[Bools, Floats]:
        return targets[:, label] == 1, (decisions[:, label] == 1).astype(np.float64)

    def strata(self, targets: Ints) -> Ints:
        """The rarest label of each image; one more for those without any."""
        rarity = np.where(targets == 1, (targets == 1).sum(axis=0), len(targets) + 1)
        return np.where((targets == 1).any(axis=1), rarity.argmin(axis=1), len(self.classes))


def overlap(decisions: Ints, targets: Ints) -> tuple[Floats, Floats]:
    """Per image: twice the pixels that both give the same lesion, and the lesion pixels of both."""
    same = ((decisions == targets) & (targets > 0)).sum(axis=(1, 2))
    return 2.0 * same, ((decisions > 0).sum(axis=(1, 2)) + (targets > 0).sum(axis=(1, 2))) * 1.0


class Segmentation(Task):
    """A class per pixel: one channel is a lesion's sigmoid, several a softmax with background."""

    name = "segmentation"
    default_primary = "dice"

    def metrics(self) -> dict[str, Metric]:
        return {"dice": Metric(self._dice), "pooled_dice": Metric(self._pooled_dice)}

    def outputs(self) -> int:
        return len(self.classes)

    def logits_shape(self, size: int) -> tuple[int, ...]:
        return (self.outputs(), size, size)

    def activate(self, logits: np.ndarray) -> Floats:
        if logits.shape[1] == 1:
            return sigmoid(logits)
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return exponent / exponent.sum(axis=1, keepdims=True)

    def decide(self, probabilities: Floats) -> Ints:
        if probabilities.shape[1] == 1:
            return (probabilities[:, 0] >= 0.5).astype(np.int64)
        return probabilities.argmax(axis=1)

    def combine(self, members: Sequence[Floats]) -> Floats:
        return np.mean(np.stack(members), axis=0)

    def rightness(self, decisions: Ints, targets: Ints) -> Floats:
        same, both = overlap(decisions, targets)
        return np.where(both > 0, same / np.maximum(both, 1), 1.0)

    def found(self, decisions: Ints, targets: Ints, label: int) -> tuple[Bools, Floats]:
        pixel = label + 1 if self.outputs() == 1 else label
        mine = targets == pixel
        size = mine.sum(axis=(1, 2))
        return size > 0, (mine & (decisions == pixel)).sum(axis=(1, 2)) / np.maximum(size, 1)

    def strata(self, targets: Ints) -> Ints:
        return targets.max(axis=(1, 2))

    def _dice(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        return weighted_mean(self.rightness(self.decide(probabilities), targets), weights)

    def _pooled_dice(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        same, both = overlap(self.decide(probabilities), targets)
        return (weights @ same) / (weights @ both)


FINDINGS = MultiLabel(classes=("nodule", "effusion", "fracture", "pneumothorax", "mass"))
LESION = Segmentation(classes=("lesion",))
LAYERS = Segmentation(classes=("background", "fluid", "drusen"))
SIDE = 12


def findings(count: int, *, rare: int = 60, seed: int = 0) -> Predictions:
    """A model that is right on every label; `mass` is on the first `rare` images only."""
    labels = (np.arange(count)[:, None] + np.arange(5)) % 3 == 0
    labels[:, 4] = np.arange(count) < rare
    logits = np.where(labels, 4.0, -4.0) + np.random.default_rng(seed).normal(0, 0.1, labels.shape)
    return _predictions(labels.astype(np.int64), logits)


def masks(
    count: int, *, small: int = 60, task: Segmentation = LESION, seed: int = 0
) -> Predictions:
    """A model that is right on every pixel; lesions fill a quarter, the first `small` four pixels.

    With several classes they take turns, and background is what is left.
    """
    targets = np.zeros((count, SIDE, SIDE), dtype=np.int64)
    for row in range(count):
        side = 2 if row < small else SIDE // 2
        targets[row, :side, :side] = 1 + row % max(1, task.outputs() - 1)
    pixels = np.arange(task.outputs())[:, None, None] + (task.outputs() == 1)
    right = targets[:, None] == pixels  # (N, K, H, W)
    logits = np.where(right, 4.0, -4.0) + np.random.default_rng(seed).normal(0, 0.1, right.shape)
    return _predictions(targets, logits)


def _predictions(targets: Ints, logits: np.ndarray) -> Predictions:
    ids = [f"image-{row}" for row in range(len(targets))]
    return Predictions(ids, ids, targets, logits.astype(np.float32))

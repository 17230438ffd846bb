"""Classification: one class per image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.tasks.base import Floats, Ints, Metric, Task, most_confident, softmax
from edgekd.tasks.scores import SINGLE_LABEL, accuracy, confusion, f1_per_class

MOST_CLASSES = 20  # that have an F1 each among the scores


class Classification(Task):
    """Softmax over C >= 2 exclusive classes.

    Up to twenty classes have an F1 each, `f1_CLASS`, which is NaN where no image is of the class.
    """

    name = "classification"
    default_primary = "accuracy"

    def metrics(self) -> dict[str, Metric]:
        # no intervals: they would be many, a resample may miss a rare class, and curves are short
        single = self.classes if len(self.classes) <= MOST_CLASSES else ()
        return {
            **SINGLE_LABEL,
            "binary_style_accuracy": Metric(
                binary_style_accuracy, interval=False, label="Accuracy (mean of one-vs-rest)"
            ),
            **{
                f"f1_{name}": Metric(
                    partial(f1_of_class, label=label),
                    interval=False,
                    label=f"F1 of {name}",
                    over_classes=True,
                )
                for label, name in enumerate(single)
            },
        }

    def outputs(self) -> int:
        return len(self.classes)

    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        return softmax(logits)

    def decide(self, probabilities: Floats) -> Ints:
        return np.asarray(probabilities.argmax(axis=-1), dtype=np.int64)

    def combine(self, members: Sequence[Floats]) -> Floats:
        return most_confident(members)


def f1_of_class(probabilities: Floats, targets: Ints, weights: Floats, *, label: int) -> Floats:
    """2 TP / (2 TP + FP + FN) of one class, NaN where no image is of it: (R,)."""
    matrix = confusion(probabilities.argmax(axis=1), targets, probabilities.shape[1], weights)
    has_images = matrix[:, label].sum(axis=1) > 0
    return np.where(has_images, f1_per_class(matrix)[:, label], np.nan)


def binary_style_accuracy(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """mean_c (TP_c + TN_c) / total, each class against the rest: 1 - 2 (1 - OA) / C.

    DSP-KD's equation 9 (Bioengineering 11(1):70) reads so. A wrong image is wrong for two of the C
    classes only, so that it is far above the accuracy, and no substitute for it.
    """
    wrong = 1.0 - accuracy(probabilities, targets, weights)
    return np.asarray(1.0 - 2.0 * wrong / probabilities.shape[1])

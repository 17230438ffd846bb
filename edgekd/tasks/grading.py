"""Grading: classes that have an order (severity), scored also by distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.tasks.base import Floats, Ints, Metric, Task, most_confident, softmax
from edgekd.tasks.scores import ORDINAL, SINGLE_LABEL


class Grading(Task):
    """Classification whose classes are ordered; adds MAE and quadratic-weighted kappa."""

    name = "grading"
    default_primary = "accuracy"

    def metrics(self) -> dict[str, Metric]:
        return {**SINGLE_LABEL, **ORDINAL}

    def outputs(self) -> int:
        return len(self.classes)

    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        return softmax(logits)

    def decide(self, probabilities: Floats) -> Ints:
        return np.asarray(probabilities.argmax(axis=-1), dtype=np.int64)

    def combine(self, members: Sequence[Floats]) -> Floats:
        return most_confident(members)

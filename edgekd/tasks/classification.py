"""Classification: one class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.tasks.base import Floats, Ints, Metric, Task, most_confident, softmax
from edgekd.tasks.scores import SINGLE_LABEL


class Classification(Task):
    """Softmax over C >= 2 exclusive classes."""

    name = "classification"
    default_primary = "accuracy"

    def metrics(self) -> dict[str, Metric]:
        return SINGLE_LABEL

    def outputs(self) -> int:
        return len(self.classes)

    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        return softmax(logits)

    def decide(self, probabilities: Floats) -> Ints:
        return np.asarray(probabilities.argmax(axis=-1), dtype=np.int64)

    def combine(self, members: Sequence[Floats]) -> Floats:
        return most_confident(members)

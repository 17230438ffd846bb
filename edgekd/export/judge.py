"""Models in memory, judged on validation images while a pass still chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import DataError
from edgekd.export.given import Validation
from edgekd.export.original import open_session
from edgekd.export.signed import make_signed
from edgekd.image import Float32, UInt8, to_input
from edgekd.results import Predictions
from edgekd.tasks.base import Task

BATCH = 32
SHIFT = 1000.0  # NNCF divides by the fp32 model's score, even where the drop is absolute


def logits_of_model(model: Any, squares: UInt8) -> Float32:
    """What an onnx.ModelProto says of pictures (N, S, S, 3), by ONNX Runtime: (N, ...)."""
    session = open_session(Path(model.graph.name or "model"), model.SerializeToString())
    parts = [
        session.run([OUTPUT_NAME], {INPUT_NAME: to_input(squares[start : start + BATCH])})[0]
        for start in range(0, len(squares), BATCH)
    ]
    return np.concatenate(parts)


class Judge:
    """The task's own scores on validation images, beside those of the fp32 model.

    A model may come straight from NNCF: it is judged in the signed form in which it would ship.
    """

    def __init__(self, fp32: Any, validation: Validation, task: Task) -> None:
        self.task = task
        self.validation = validation
        self.reference = self._predict(fp32)
        self._said = task.activate(self.reference.logits)
        if not np.isfinite(self._goodness(self.reference)):
            raise DataError(
                f"{task.primary} is undefined on the {len(validation)} validation images",
                hint="a larger val part, or a larger export.control.images",
            )

    def __len__(self) -> int:
        return len(self.validation)

    def predictions(self, model: Any) -> Predictions:
        """What the model says of all validation images."""
        return self._predict(_shipped(model))

    def drop(self, candidate: Predictions) -> float:
        """How much worse the primary score is than the fp32 model's, in its own unit."""
        before, after = (self._goodness(said) for said in (self.reference, candidate))
        return before - after

    def changed(self, candidate: Predictions) -> float:
        """The share of decisions that are other than the fp32 model's."""
        shares = self.task.decided_otherwise(self.reference.logits, candidate.logits)
        return float(shares.mean())

    def for_nncf(self, model: Any, items: Sequence[int]) -> tuple[float, list[float]]:
        """NNCF's validation function: what it accepts by, and what it ranks layers by.

        On all images the value is the primary score, turned so that higher is better, and shifted
        so that it is never 0. On the subset by which layers are ranked it is the mean distance to
        the fp32 model's probabilities, negative: a score that counts decisions would rate most
        layers alike.
        """
        chosen = np.fromiter(items, dtype=np.int64)
        squares = self.validation.squares[chosen]
        logits = logits_of_model(_shipped(model), squares)
        distance = _per_image((self.task.activate(logits) - self._said[chosen]) ** 2)
        if len(chosen) < len(self):
            return -float(distance.mean()), (-distance).tolist()
        score = self._goodness(replace(self.reference, logits=logits))
        return SHIFT + score, (-distance).tolist()

    def _predict(self, model: Any) -> Predictions:
        logits = logits_of_model(model, self.validation.squares)
        return replace(self.validation.truth, logits=logits)

    def _goodness(self, said: Predictions) -> float:
        value = self.task.value(self.task.primary, said)
        return value if self.task.higher_is_better else -value


def _per_image(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(values.reshape(len(values), -1).mean(axis=1))


def _shipped(model: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    make_signed(copy)
    return copy

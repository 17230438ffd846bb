"""What a task is: it turns logits into probabilities, decisions and scores. Torch-free.

One implementation serves training, the gates and the device, so that they can never disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd import stats
from edgekd.errors import RecipeError, did_you_mean
from edgekd.results import Predictions, Score, Scores

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """A score. `compute(probabilities, targets, weights)`: (N, C), (N,), (R, N) -> (R,).

    `weights` says how often each image occurs in each of R bootstrap resamples.
    """

    compute: Callable[[Floats, Ints, Floats], Floats]
    direction: Literal["higher", "lower"] = "higher"
    interval: bool = True  # False where a bootstrap would cost too much
    label: str = ""


class Task(ABC):
    """A kind of question that is asked of an image."""

    name: str
    default_primary: str

    def __init__(self, *, classes: Sequence[str], primary: str | None = None) -> None:
        self.classes = tuple(classes)
        self.primary = primary or self.default_primary
        if self.primary not in self.metrics():
            raise RecipeError(
                f"task.primary: '{self.primary}' is not a score of task '{self.name}'",
                hint=did_you_mean(self.primary, self.metrics()),
            )

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """All scores of this task by name."""

    @abstractmethod
    def outputs(self) -> int:
        """Width of the network's last layer."""

    @abstractmethod
    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        """Logits (N, C) to probabilities (N, C)."""

    @abstractmethod
    def decide(self, probabilities: Floats) -> Ints:
        """Probabilities (N, C) to decisions (N,)."""

    @abstractmethod
    def combine(self, members: Sequence[Floats]) -> Floats:
        """Join the probabilities of an ensemble's members."""

    @property
    def higher_is_better(self) -> bool:
        return self.metrics()[self.primary].direction == "higher"

    def value(self, name: str, predictions: Predictions) -> float:
        """One score without an interval (NaN where it is undefined)."""
        labelled = predictions.targets >= 0
        weights = np.ones((1, int(labelled.sum())))
        probabilities = self.activate(predictions.logits[labelled])
        metric = self.metrics()[name]
        return float(metric.compute(probabilities, predictions.targets[labelled], weights)[0])

    def score(self, predictions: Predictions, *, resamples: int = stats.RESAMPLES) -> Scores:
        """All scores with bootstrap intervals over groups. Unlabelled images do not count."""
        labelled = predictions.targets >= 0
        targets = predictions.targets[labelled]
        groups = [predictions.groups[i] for i in np.flatnonzero(labelled)]
        probabilities = self.activate(predictions.logits[labelled])
        weights = stats.group_weights(groups, resamples) if resamples and targets.size else None
        scores: Scores = {}
        for name, metric in self.metrics().items():
            once = np.ones((1, targets.size))
            point = float(metric.compute(probabilities, targets, once)[0]) if targets.size else None
            low = high = None
            if weights is not None and metric.interval:
                low, high = stats.percentile_interval(
                    metric.compute(probabilities, targets, weights)
                )
            scores[name] = Score(
                value=_finite(point),
                low=_finite(low),
                high=_finite(high),
                direction=metric.direction,
                images=int(targets.size),
                groups=len(set(groups)),
            )
        return scores


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Row-wise softmax in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponent = np.exp(shifted)
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True))


def most_confident(members: Sequence[Floats]) -> Floats:
    """The most confident member wins per class (KDML, arXiv 2212.02931), renormalised."""
    highest = np.max(np.stack(members), axis=0)
    return np.asarray(highest / highest.sum(axis=-1, keepdims=True))

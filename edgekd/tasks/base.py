"""What a task is: it turns logits into probabilities, decisions and scores. Torch-free.

One implementation serves training, the gates and the device, so that they can never disagree.

Shapes: the first axis counts images, what follows is the task's own. One class per image has
targets (N,) and logits (N, C); several labels per image (N, C) and (N, C); a class per pixel
(N, H, W) and (N, K, H, W). Decisions have the shape of the targets, probabilities that of the
logits, and a negative target is an unknown one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd import stats
from edgekd.errors import DataError, EdgekdError, RecipeError, did_you_mean
from edgekd.results import Learned, Predictions, Score, Scores

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


HALF = 0.5  # the threshold where none was chosen


@dataclass(frozen=True)
class Metric:
    """A score. `compute(probabilities, targets, weights)`: (N, ...), (N, ...), (R, N) -> (R,).

    `weights` says how often each image occurs in each of R bootstrap resamples. R is 2,000, so
    that what is large (masks) must be reduced to numbers per image first.
    """

    compute: Callable[[Floats, Ints, Floats], Floats]
    direction: Literal["higher", "lower"] = "higher"
    interval: bool = True  # False where a bootstrap would cost too much
    label: str = ""
    over_classes: bool = False  # an average over classes, in which a rare class weighs in full


class Task(ABC):
    """A kind of question that is asked of an image.

    The methods that are not abstract are those of one class per image. A task of another shape
    overrides `rightness`, `found` and `strata`, and `logits_shape` where a logit stands for more
    than a class.
    """

    name: str
    default_primary: str
    exclusive = True  # classes exclude each other: probabilities sum to 1
    wants_masks = False  # a target is a class per pixel, read from masks
    wants_labels = False  # a target is a row of 1 and 0, one for each class
    has_thresholds = False  # a class (a pixel of it) is there from a probability on
    learned = Learned()  # from training and validation images

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
        """Width of the network's last layer (its channels, where it keeps the image's axes)."""

    @abstractmethod
    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        """Logits (N, ...) to probabilities of the same shape."""

    @abstractmethod
    def decide(self, probabilities: Floats) -> Ints:
        """Probabilities (N, ...) to decisions, of the shape of the targets."""

    @abstractmethod
    def combine(self, members: Sequence[Floats]) -> Floats:
        """Join the probabilities of an ensemble's members."""

    def combine_logits(self, members: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Logits (N, ...) of an ensemble: where activated, they are its members' `combine`.

        What its exported graph computes (models/ensemble.py).
        """
        logits = [np.asarray(one, dtype=np.float64) for one in members]
        if self.exclusive:  # log softmax over the classes
            highest = [one - one.max(axis=1, keepdims=True) for one in logits]
            logits = [one - np.log(np.exp(one).sum(axis=1, keepdims=True)) for one in highest]
        return np.asarray(np.max(np.stack(logits), axis=0), dtype=np.float32)

    def logits_shape(self, size: int) -> tuple[int, ...]:
        """Shape of the logits of one image that enters the network with `size` x `size` pixels."""
        return (self.outputs(),)

    def labelled(self, targets: Ints) -> Bools:
        """Which images count (N,): those with no negative entry in their target (N, ...)."""
        return np.asarray((targets >= 0).all(axis=tuple(range(1, targets.ndim))))

    def rightness(self, decisions: Ints, targets: Ints) -> Floats:
        """How right each image's decision is, in [0, 1]: (N,).

        With one class per image 1 or 0; else the share of its labels, or the overlap of its masks.
        Only labelled images are asked for, here and in `found`.
        """
        right = decisions == self._one_class(targets, "rightness")
        return np.asarray(right, dtype=np.float64)

    def found(self, decisions: Ints, targets: Ints, label: int) -> tuple[Bools, Floats]:
        """Which images hold class `label` (N,), and what share of it is found in each (N,).

        `label` counts `classes`. The shares are in [0, 1], and mean nothing where the image does
        not hold the class. Their mean over those that do is the sensitivity.
        """
        positives = self._one_class(targets, "found") == label
        return positives, (decisions == label).astype(np.float64)

    def strata(self, targets: Ints) -> Ints:
        """The class by which images take turns in the calibration set (N,), unlabelled ones too."""
        return self._one_class(targets, "strata")

    def _one_class(self, targets: Ints, method: str) -> Ints:
        if targets.ndim != 1:
            raise EdgekdError(f"task '{self.name}' does not define `{method}`, and its targets "
                              f"{targets.shape} are not one class per image")  # fmt: skip
        return targets

    def curve(self) -> list[str]:
        """The scores that cost little: those of a training curve."""
        return [n for n, metric in self.metrics().items() if metric.interval or n == self.primary]

    def taught(self, learned: Learned) -> Self:
        """This task with what was learned from images."""
        found = copy(self)
        found.learned = learned
        return found

    def per_threshold(self, predictions: Predictions) -> Iterator[tuple[Floats, Bools]]:
        """For each threshold the probabilities and positives (M,) that it is chosen by."""
        raise EdgekdError(f"task '{self.name}' has no thresholds")

    def per_class(self, probabilities: Floats, targets: Ints) -> dict[str, float]:
        """Scores of single classes by name (`ap:CLASS`), for losses that look at them."""
        return {}

    def only(self, columns: Sequence[int]) -> Task:
        """The same question about some of the classes, by their numbers.

        Raises RecipeError where classes exclude each other.
        """
        raise RecipeError(f"a model of some classes only is not for task '{self.name}'",
                          hint="leave out models.NAME.classes")  # fmt: skip

    @property
    def higher_is_better(self) -> bool:
        return self.metrics()[self.primary].direction == "higher"

    def only_labelled(self, predictions: Predictions) -> Predictions:
        """Those of the images that count."""
        labelled = self.labelled(predictions.targets)
        if labelled.all():
            return predictions  # masks are large: no copy where none is needed
        rows = np.flatnonzero(labelled)
        return Predictions(
            [predictions.ids[row] for row in rows],
            [predictions.groups[row] for row in rows],
            predictions.targets[rows],
            predictions.logits[rows],
        )

    def answers(self, predictions: Predictions) -> tuple[Floats, Ints]:
        """Probabilities and decisions (N, ...) of N >= 1 images.

        Raises DataError where the targets are not of the shape of the decisions: images that were
        labelled for another task.
        """
        probabilities = self.activate(predictions.logits)
        decisions = self.decide(probabilities)
        if decisions.shape != predictions.targets.shape:
            raise DataError(f"targets {predictions.targets.shape} are not for task '{self.name}', "
                            f"which decides {decisions.shape}")  # fmt: skip
        return probabilities, decisions

    def decided_otherwise(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Floats:
        """What share of each image's decision (N,) is another by two models' logits (N, ...).

        With one class per image 1 or 0; else the share of its labels, or of its pixels. Logits that
        are not finite decide nothing, which is another decision than any.
        """
        is_finite = np.isfinite(first) & np.isfinite(second)
        both = np.flatnonzero(is_finite.all(axis=tuple(range(1, first.ndim))))
        share = np.ones(len(first))
        if both.size:
            ours, theirs = (self.decide(self.activate(logits[both])) for logits in (first, second))
            share[both] = (ours != theirs).mean(axis=tuple(range(1, ours.ndim)))
        return share

    def agreement(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Floats:
        """How far two models decide the same of each image (N,), in [0, 1], by logits (N, ...).

        With one class per image 1 or 0; else the share of its labels, or of its pixels. It needs
        no targets: two models may agree on what is wrong.
        """
        return np.asarray(1.0 - self.decided_otherwise(first, second))

    def value(self, name: str, predictions: Predictions) -> float:
        """One score without an interval (NaN where it is undefined)."""
        known = self.only_labelled(predictions)
        if not known.ids:
            return float("nan")
        probabilities, _ = self.answers(known)
        once = np.ones((1, len(known.ids)))
        return float(self.metrics()[name].compute(probabilities, known.targets, once)[0])

    def score(self, predictions: Predictions, *, resamples: int = stats.RESAMPLES) -> Scores:
        """All scores with bootstrap intervals over groups. Unlabelled images do not count."""
        known = self.only_labelled(predictions)
        images = len(known.ids)
        probabilities = self.answers(known)[0] if images else None
        weights = stats.group_weights(known.groups, resamples) if resamples and images else None
        once = np.ones((1, images))
        scores: Scores = {}
        for name, metric in self.metrics().items():
            point = low = high = None
            if probabilities is not None:
                point = float(metric.compute(probabilities, known.targets, once)[0])
            if probabilities is not None and weights is not None and metric.interval:
                low, high = stats.percentile_interval(
                    metric.compute(probabilities, known.targets, weights)
                )
            scores[name] = Score(
                value=_finite(point),
                low=_finite(low),
                high=_finite(high),
                direction=metric.direction,
                images=images,
                groups=len(set(known.groups)),
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

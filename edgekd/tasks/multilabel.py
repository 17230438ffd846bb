"""Multi-label classification: any number of classes per image, none too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import EdgekdError
from edgekd.results import SHOTS, Predictions
from edgekd.tasks import _label_scores as of
from edgekd.tasks.base import HALF, Bools, Floats, Ints, Metric, Task


class MultiLabel(Task):
    """A sigmoid for each of C classes. Targets (N, C) are 1, 0, or -1 where it is not known.

    A class is decided to be there from its threshold on: 0.5, or what was chosen on validation
    images (`learned.thresholds`). An image counts where at least one of its labels is known.

    mAP is the mean over classes; `map_head`, `map_medium` and `map_tail` are those of the classes
    with many, some and few training images, and `map_groups` is the mean of the three, which RSKD
    (arXiv 2104.11057, Table 3) calls total. A class without a positive image is left out.
    """

    name = "multilabel"
    default_primary = "map"
    exclusive = False
    wants_labels = True
    has_thresholds = True
    _known: tuple[tuple[Floats, Ints, Floats, Floats], ...] = ()

    def metrics(self) -> dict[str, Metric]:
        averages = {
            "map": Metric(self._map, label="mAP", over_classes=True),
            "map_groups": Metric(self._map_groups, label="mAP (mean of groups)", over_classes=True),
            **{f"map_{shot}": self._map_of(shot) for shot in SHOTS},
        }
        at = {
            "auroc": Metric(self._auroc, label="Macro AUROC", over_classes=True),
            "macro_f1": Metric(self._f1, label="Macro F1", over_classes=True),
            "recall": Metric(self._sensitivity, label="Macro sensitivity", over_classes=True),
            "specificity": Metric(self._specificity, label="Specificity", over_classes=True),
            "accuracy": Metric(self._accuracy, label="Labels right"),
            "ece": Metric(of.ece, "lower", label="Calibration error (ECE)"),
            "brier": Metric(of.brier, "lower", label="Brier score"),
            "nll": Metric(of.nll, "lower", label="Binary cross-entropy"),
        }
        return {**averages, **at}

    def outputs(self) -> int:
        return len(self.classes)

    def activate(self, logits: npt.NDArray[Any]) -> Floats:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))  # no overflow

    def decide(self, probabilities: Floats) -> Ints:
        return (probabilities >= self.cuts()).astype(np.int64)

    def cuts(self) -> Floats:
        """From which probability on each class is there (C,)."""
        return np.asarray(self.learned.thresholds or [HALF] * len(self.classes))

    def combine(self, members: Sequence[Floats]) -> Floats:
        return np.asarray(np.max(np.stack(members), axis=0))

    def labelled(self, targets: Ints) -> Bools:
        return np.asarray(targets >= 0 if targets.ndim == 1 else (targets >= 0).any(axis=1))

    def rightness(self, decisions: Ints, targets: Ints) -> Floats:
        return of.right(decisions, targets)

    def found(self, decisions: Ints, targets: Ints, label: int) -> tuple[Bools, Floats]:
        return targets[:, label] == 1, (decisions[:, label] == 1).astype(np.float64)

    def strata(self, targets: Ints) -> Ints:
        """The rarest class of each image; `targets` may be the strata themselves (N,)."""
        if targets.ndim == 1:
            return targets
        order = np.argsort((targets == 1).sum(axis=0), kind="stable")
        shown = targets[:, order] == 1
        rarest = np.where(shown.any(axis=1), order[shown.argmax(axis=1)], targets.shape[1])
        return np.asarray(rarest, dtype=np.int64)

    def per_threshold(self, predictions: Predictions) -> Iterator[tuple[Floats, Bools]]:
        probabilities, targets = self.activate(predictions.logits), predictions.targets
        for column in range(len(self.classes)):
            known = targets[:, column] >= 0
            yield probabilities[known, column], targets[known, column] == 1

    def per_class(self, probabilities: Floats, targets: Ints) -> dict[str, float]:
        once = np.ones((1, len(targets)))
        right = (self.decide(probabilities) == targets) & (targets >= 0)
        shares = of.divide(right.sum(axis=0) * 1.0, (targets >= 0).sum(axis=0) * 1.0)
        precisions = self._ap(probabilities, targets, once)[0]
        return {
            **{f"ap:{name}": float(v) for name, v in zip(self.classes, precisions, strict=True)},
            **{f"acc:{name}": float(v) for name, v in zip(self.classes, shares, strict=True)},
        }

    def only(self, columns: Sequence[int]) -> Task:
        kept = type(self)(classes=[self.classes[c] for c in columns], primary=self.primary)
        return kept.taught(self.learned.only(columns))

    def _map_of(self, shot: str) -> Metric:
        def compute(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
            found = self._ap(probabilities, targets, weights)
            return of.nanmean(found[:, self._of(shot)])

        return Metric(compute, label=f"mAP, {shot} classes", over_classes=True)

    def _of(self, shot: str) -> list[int]:
        shots = self.learned.shots
        if shots and len(shots) != len(self.classes):
            raise EdgekdError(f"{len(shots)} groups for {len(self.classes)} classes")
        return [column for column, name in enumerate(shots) if name == shot]

    def _ap(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        """Average precisions (R, C). Five scores are made of them: the last two are remembered."""
        for *asked, found in self._known:
            if all(a is b for a, b in zip(asked, (probabilities, targets, weights), strict=True)):
                return found
        found = of.per_class(of.average_precision, probabilities, targets, weights)
        self._known = (*self._known[-1:], (probabilities, targets, weights, found))
        return found

    def _map(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        return of.nanmean(self._ap(probabilities, targets, weights))

    def _map_groups(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        found = self._ap(probabilities, targets, weights)
        groups = [of.nanmean(found[:, self._of(shot)]) for shot in SHOTS]
        return np.asarray(np.mean(np.stack(groups), axis=0))  # NaN unless all three are there

    def _auroc(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        return of.nanmean(of.per_class(of.auroc, probabilities, targets, weights))

    def _f1(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        hits, alarms, missed = of.counts_at(self.decide(probabilities), targets, weights)
        f1 = of.divide(2 * hits, 2 * hits + alarms + missed, 0.0)
        return of.nanmean(np.where(hits + missed > 0, f1, np.nan))

    def _sensitivity(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        hits, _, missed = of.counts_at(self.decide(probabilities), targets, weights)
        return of.nanmean(of.divide(hits, hits + missed))

    def _specificity(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        _, alarms, _ = of.counts_at(self.decide(probabilities), targets, weights)
        negatives = weights @ (targets == 0).astype(np.float64)
        return of.nanmean(of.divide(negatives - alarms, negatives))

    def _accuracy(self, probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
        return of.over_known((self.decide(probabilities) == targets) * 1.0, targets, weights)
